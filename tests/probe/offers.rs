//! What a server may have on or off: mobility, TCP relays, access tokens.

use super::Probe;
use super::support::{Spec, Transport, require_tool};

const TOKENS: &str = "[[auth.token-keys]]\nid = \"k1\"\nkey = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\n";

#[test]
fn what_is_off_is_said_to_be_off_and_is_no_fault() {
    let server = Spec::local().start();
    let probed = Probe::of_server(&server, Transport::Tcp, "127.0.0.1").args(&["--strict", "--tcp-relay"]).run();
    probed.expect_exit(0, "note").expect("mobility", "ok", "off (405)").expect("tcp-relay", "ok", "off (442)");
    probed.expect("third-party", "ok", "off");
    assert_eq!(
        (&probed.step("mobility")["facts"]["offered"], &probed.step("tcp-relay")["facts"]["offered"]),
        (&false.into(), &false.into())
    );
    let over_udp = Probe::of_server(&server, Transport::Udp, "127.0.0.1").run();
    assert!(over_udp.has_step("mobility") && !over_udp.has_step("tcp-relay"));
}

#[test]
fn what_is_on_is_tried() {
    let mut spec = Spec { top_toml: "mobility = true".to_owned(), extra_toml: TOKENS.to_owned(), ..Spec::local() };
    spec.tcp_relays = true;
    let server = spec.start();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let probed = Probe::of_server(&server, transport, "127.0.0.1").args(&["--strict", "--tcp-relay"]).run();
        probed.expect_exit(0, "note").expect("mobility", "ok", "an allocation moved to another port of this host");
        probed.expect("third-party", "ok", &format!("access tokens for \"{}\" are taken", server.realm()));
        if transport != Transport::Udp {
            probed.expect("tcp-relay", "ok", "16384 bytes there and back over a connection of 127.0.0.1:");
        }
    }
    // Unless it is asked for, nobody connects to this host.
    let silent = Probe::of_server(&server, Transport::Tcp, "127.0.0.1").run();
    silent.expect("tcp-relay", "ok", "--tcp-relay sends data through one");
}

#[test]
fn a_peer_that_the_server_denies_is_no_fault_of_its_tcp_relays() {
    let mut spec = Spec { tcp_relays: true, ..Spec::local() };
    spec.dev = false;
    let server = spec.start();
    let probed = Probe::of_server(&server, Transport::Tcp, "127.0.0.1").arg("--tcp-relay").run();
    probed.expect("tcp-relay", "note", "the server does not let clients reach this host");
}

#[test]
fn coturns_mobility_and_tcp_relays_are_seen_and_tried() {
    require_tool("turnserver", "coturn");
    let server = Spec::local().start_coturn();
    let probe =
        |transport| Probe::of_server(&server, transport, "127.0.0.1").args(&["--tcp-relay", "--no-safety"]).run();
    probe(Transport::Tcp).expect("tcp-relay", "ok", "16384 bytes there and back").expect("third-party", "ok", "off");
    // Over TCP, coturn 4.6.1 answers a move with bytes that are no message.
    probe(Transport::Udp).expect("mobility", "ok", "an allocation moved to another port of this host");
}
