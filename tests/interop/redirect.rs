//! Clients that follow a draining server to its alternate (300, ALTERNATE-SERVER), by the redirect that comes before they have
//! authenticated. Chromium is in `tests/browser`: it refuses alternates on loopback.

use std::net::UdpSocket;
use std::time::Duration;

use rustix::process::Signal;

use crate::libnice::{MESSAGES, nice_pair};
use crate::support::{Spec, TestServer, Transport, hold_allocation, wait_until};
use crate::uclient;

const LIMIT: Duration = Duration::from_secs(20);

/// A server that drains, and its alternate.
struct Pair {
    draining: TestServer,
    alternate: TestServer,
}

impl Pair {
    fn of(spec: Spec) -> Pair {
        let alternate = spec.start();
        let servers = [Transport::Udp, Transport::Tcp, Transport::Tls]
            .map(|transport| format!("\"{}://{}\"", transport.name(), alternate.address(transport, "127.0.0.1")));
        let extra_toml = format!("[drain]\ndeadline = \"1h\"\nalternate-server = [{}]\n", servers.join(", "));
        let draining = Spec { extra_toml, ..spec }.start();
        let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
        holder.connect(draining.udp()).unwrap();
        hold_allocation(&holder, draining.credentials("holder"));
        draining.signal(Signal::USR1);
        wait_until("the drain", LIMIT, || draining.log().contains("draining").then_some(()));
        Pair { draining, alternate }
    }

    fn assert_all_were_at_the_alternate(&self, user: &str, transports: &[Transport]) {
        for transport in transports {
            let line = format!("transport={}", transport.name());
            wait_until("the end of the allocations", LIMIT, || {
                let log = self.alternate.log();
                log.lines().any(|ended| ended.contains(user) && ended.contains(&line)).then_some(())
            });
        }
        assert!(!self.draining.log().contains(user), "{}", self.draining.log());
    }
}

#[test]
fn uclient_follows_a_draining_server_over_udp_and_tcp() {
    let pair = Pair::of(uclient::spec());
    let transports = [Transport::Udp, Transport::Tcp];
    for transport in transports {
        let peer = uclient::Peer::start("127.0.0.1");
        let flags = [&peer.flags()[..], &["-c"]].concat();
        let credentials = pair.draining.credentials("uclient");
        uclient::assert_nothing_lost(&uclient::uclient(&pair.draining, transport, "127.0.0.1", &credentials, &flags));
    }
    pair.assert_all_were_at_the_alternate(":uclient", &transports);
}

#[test]
fn uclient_goes_where_the_load_is_shared_with() {
    let alternate = uclient::spec().start();
    let servers = [Transport::Udp, Transport::Tcp]
        .map(|transport| format!("\"{}://{}\"", transport.name(), alternate.address(transport, "127.0.0.1")));
    let extra_toml = format!("[redirect]\nalternate-server = [{}]\n", servers.join(", "));
    let first = Spec { extra_toml, ..uclient::spec() }.start();
    let run = |transport, user: &str| {
        let peer = uclient::Peer::start("127.0.0.1");
        let flags = [&peer.flags()[..], &["-c"]].concat();
        let credentials = first.credentials(user);
        uclient::assert_nothing_lost(&uclient::uclient(&first, transport, "127.0.0.1", &credentials, &flags));
    };
    run(Transport::Udp, "shared");
    run(Transport::Tcp, "shared");
    let ended = |server: &TestServer, user: &str, count: usize| {
        wait_until("the end of the allocations", LIMIT, || {
            (server.log().lines().filter(|line| line.contains(user)).count() >= count).then_some(())
        });
    };
    ended(&alternate, ":shared", 2);
    assert!(!first.log().contains(":shared"), "{}", first.log());
    // It names no server for clients over TLS, and serves them itself.
    run(Transport::Tls, "by-tls");
    ended(&first, ":by-tls", 1);
}

#[test]
fn libnice_follows_a_draining_server_over_udp() {
    let pair = Pair::of(Spec::local());
    let result = nice_pair(&pair.draining, Transport::Udp, &pair.draining.credentials("libnice"));
    assert_eq!(result["received"], serde_json::json!([MESSAGES, MESSAGES]), "{result:#}");
    // It leaves its allocations behind, so that no line of the log tells where they were: the other server made none.
    assert!(!pair.draining.log().contains(":libnice"), "{}", pair.draining.log());
}
