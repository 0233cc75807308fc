//! Clients that follow a draining server to its alternate (300, ALTERNATE-SERVER), by the redirect that comes before they have
//! authenticated. Chromium is in `tests/browser`: it refuses alternates on loopback.

use std::net::UdpSocket;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use turnstone::stun::{Class, Encoder, ErrorCode, Message, Method, TransactionId};

use crate::aiortc;
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
fn uclient_follows_a_draining_server_over_every_transport() {
    let pair = Pair::of(uclient::spec());
    let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
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
    let redirecting = |transports: &[Transport], more: &str| {
        let at = |transport| alternate.address(transport, "127.0.0.1");
        let servers = transports.iter().map(|transport| format!("\"{}://{}\"", transport.name(), at(*transport)));
        let servers: Vec<_> = servers.collect();
        let extra_toml = format!("[redirect]\nalternate-server = [{}]\n{more}", servers.join(", "));
        Spec { extra_toml, ..uclient::spec() }.start()
    };
    let first = redirecting(&[Transport::Udp, Transport::Tcp], "");
    let run_at = |server: &TestServer, transport, user: &str| {
        let peer = uclient::Peer::start("127.0.0.1");
        let flags = [&peer.flags()[..], &["-c"]].concat();
        let credentials = server.credentials(user);
        uclient::assert_nothing_lost(&uclient::uclient(server, transport, "127.0.0.1", &credentials, &flags));
    };
    let run = |transport, user: &str| run_at(&first, transport, user);
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
    // Another one names one for TLS alone, at that one's port for TLS; what is relayed is the threshold, which nothing is above.
    let second = redirecting(&[Transport::Tls], "");
    run_at(&second, Transport::Tls, "over-there");
    ended(&alternate, ":over-there", 1);
    assert!(!second.log().contains(":over-there"), "{}", second.log());
    let third = redirecting(&[Transport::Tls], "from-bandwidth = \"1Gbit/s\"\n");
    run_at(&third, Transport::Tls, "at-home");
    ended(&third, ":at-home", 1);
}

/// Three nodes, the first of which sends newcomers to the others.
struct Loaded {
    first: TestServer,
    others: [TestServer; 2],
    _held: Vec<UdpSocket>,
    _folder: TempDir,
}

impl Loaded {
    fn of(spec: &Spec) -> Loaded {
        let folder = tempfile::tempdir().unwrap();
        let url = |n: usize| format!("unix:{}/{n}.sock", folder.path().display());
        let nodes = [1, 2, 3].map(|n| format!("{:?}", url(n))).join(", ");
        let node = |n: usize| {
            let fleet = format!("[fleet]\nname = \"turn{n}\"\nlisten = \"{}\"\nnodes = [{nodes}]\n", url(n));
            let extra_toml = format!("{fleet}[redirect]\nfleet = true\nfrom-allocations = 20\n");
            Spec { extra_toml, ..spec.clone() }.start()
        };
        let (first, others) = (node(1), [node(2), node(3)]);
        let hold = |_| {
            let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
            holder.connect(first.udp()).unwrap();
            hold_allocation(&holder, first.credentials("holder"));
            holder
        };
        let held = (0..20).map(hold).collect();
        wait_until("newcomers to be sent away", 2 * LIMIT, || is_sent_away(&first).then_some(()));
        Loaded { first, others, _held: held, _folder: folder }
    }
}

/// For ten seconds a node takes everybody, because it has said that it has room; then a newcomer is sent away.
fn is_sent_away(server: &TestServer) -> bool {
    let newcomer = UdpSocket::bind("127.0.0.1:0").unwrap();
    newcomer.set_read_timeout(Some(LIMIT)).unwrap();
    newcomer.connect(server.udp()).unwrap();
    let (mut request, mut answer) = (Vec::new(), [0; 1024]);
    Encoder::new(&mut request, Class::Request, Method::ALLOCATE, TransactionId([7; 12]));
    newcomer.send(&request).unwrap();
    let length = newcomer.recv(&mut answer).unwrap();
    Message::parse(&answer[..length]).unwrap().error_code() == Some(ErrorCode::TRY_ALTERNATE)
}

#[test]
fn uclient_goes_from_a_node_above_its_load_to_one_of_the_fleet_that_has_room() {
    let Loaded { first, others, .. } = &Loaded::of(&uclient::spec());
    let mentions = |log: &str, user: &str| log.lines().filter(|line| line.contains(user)).count();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let peer = uclient::Peer::start("127.0.0.1");
        let flags = [&peer.flags()[..], &["-c"]].concat();
        let user = format!("by-{}", transport.name());
        let credentials = first.credentials(&user);
        uclient::assert_nothing_lost(&uclient::uclient(first, transport, "127.0.0.1", &credentials, &flags));
        wait_until("the end of the allocations", LIMIT, || {
            let there: usize = others.iter().map(|node| mentions(&node.log(), &format!(":{user}"))).sum();
            (there > 0).then_some(())
        });
        assert_eq!(mentions(&first.log(), &format!(":{user}")), 0, "{}", first.log());
    }
}

#[test]
fn libnice_goes_from_a_node_above_its_load_to_one_with_room_and_aiortc_does_not() {
    let Loaded { first, others, .. } = &Loaded::of(&Spec::local());
    for transport in [Transport::Udp, Transport::Tcp] {
        let result = nice_pair(first, transport, &first.credentials("libnice"));
        assert_eq!(result["received"], serde_json::json!([MESSAGES, MESSAGES]), "{result:#}");
    }
    assert!(!first.log().contains(":libnice"), "{}", first.log());
    // What follows no redirect has no candidate of this server, and its application has to name another one.
    let relayed = |server: &TestServer, url: &str| {
        let offered = aiortc::offered_at(server, url);
        offered.iter().filter(|candidate| candidate.contains("typ relay")).count()
    };
    let url = |server: &TestServer, transport| format!("turn:{}?transport={transport}", server.udp());
    assert_eq!(relayed(first, &url(first, "udp")), 0);
    let [second, _] = others;
    assert_eq!(relayed(second, &url(second, "udp")), 1);
}

#[test]
fn libnice_follows_a_draining_server_over_udp() {
    let pair = Pair::of(Spec::local());
    let result = nice_pair(&pair.draining, Transport::Udp, &pair.draining.credentials("libnice"));
    assert_eq!(result["received"], serde_json::json!([MESSAGES, MESSAGES]), "{result:#}");
    // It leaves its allocations behind, so that no line of the log tells where they were: the other server made none.
    assert!(!pair.draining.log().contains(":libnice"), "{}", pair.draining.log());
}
