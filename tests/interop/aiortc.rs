//! aiortc, the WebRTC stack for Python: two peers that may only use relayed candidates.

use std::time::Duration;

use crate::support::aiortc::{IceServer, PeerSetup, connect_pair, offered_candidates};
use crate::support::{Credentials, Spec, TestServer};

const ICE_LIMIT: Duration = Duration::from_secs(30);
const BYTES: usize = 512 * 1024;

#[test]
fn aiortc_peers_exchange_bytes_over_relays_reached_by_udp() {
    let server = Spec::local().start();
    exchange_bytes(&server, &format!("turn:{}?transport=udp", server.udp()));
}

#[test]
fn aiortc_peers_exchange_bytes_over_relays_reached_by_tcp() {
    let server = Spec::local().start();
    exchange_bytes(&server, &format!("turn:{}?transport=tcp", server.tcp()));
}

#[test]
fn aiortc_peers_exchange_bytes_over_relays_reached_by_tls_with_a_verified_certificate() {
    let server = Spec::local().start();
    exchange_bytes(&server, &format!("turns:{}?transport=tcp", server.tls()));
}

#[test]
fn aiortc_peers_exchange_bytes_over_relays_that_share_their_ports() {
    for (ip, ports) in [("127.0.7.5", "shared:3480-3483"), ("127.0.7.9", "shared:3480")] {
        let (relay_ipv4, relay_ports) = (Some(ip.to_owned()), Some(ports.to_owned()));
        let server = Spec { relay_ipv4, relay_ports, ..Spec::local() }.start();
        exchange_bytes(&server, &format!("turn:{}?transport=udp", server.udp()));
    }
}

#[test]
fn aiortc_gets_no_relayed_candidate_with_a_wrong_or_expired_credential() {
    let server = Spec::local().start();
    let url = format!("turn:{}?transport=udp", server.udp());
    let wrong = Credentials { password: "guessed".to_owned(), ..server.credentials("mallory") };
    for refused in [wrong, server.expired_credentials("late")] {
        assert_eq!(offered_candidates(&setup(&server, &url, refused)), Vec::<String>::new());
    }
    let right = offered_candidates(&setup(&server, &url, server.credentials("aiortc")));
    assert!(right.iter().any(|candidate| candidate.contains("typ relay")), "{right:?}");
}

#[test]
fn aiortc_carries_limits_in_its_username_unchanged_within_the_guard() {
    let extra_toml = format!("{}{GUARD}", crate::uclient::POLICIES);
    let server = Spec { username_limits: true, extra_toml, ..Spec::local() }.start();
    let url = format!("turn:{}?transport=udp", server.udp());
    let limited = |user: &str| setup(&server, &url, server.credentials(&format!("{user};bw=500M;alloc=4;peers=open")));
    let pair = connect_pair(&limited("offering"), &limited("answering"), BYTES, ICE_LIMIT).expect("ICE found no way");
    assert_eq!(pair, ("relay".to_owned(), "relay".to_owned()));
}

/// What the reference calls plenty for a person.
const GUARD: &str =
    "[guard]\npeers-per-user = 50\nnew-peers-per-minute = 60\nsuspend-after = 20\nloop-packets-per-second = 1000\n";

fn exchange_bytes(server: &TestServer, url: &str) {
    let offering = setup(server, url, server.credentials("offering"));
    let answering = setup(server, url, server.credentials("answering"));
    let pair = connect_pair(&offering, &answering, BYTES, ICE_LIMIT).expect("ICE found no way");
    assert_eq!(pair, ("relay".to_owned(), "relay".to_owned()));
}

/// The candidates that it has with this server alone.
pub(crate) fn offered_at(server: &TestServer, url: &str) -> Vec<String> {
    offered_candidates(&setup(server, url, server.credentials("aiortc")))
}

fn setup(server: &TestServer, url: &str, credentials: Credentials) -> PeerSetup {
    PeerSetup {
        ice_servers: vec![IceServer { url: url.to_owned(), credentials: Some(credentials) }],
        relay_only: true,
        namespace: None,
        authority_file: Some(server.file("authority.pem")),
    }
}
