//! A host whose addresses change while the server runs, or come only after its start.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use tokio::time::timeout;
use webrtc_util::Conn;

use crate::internet::{PORT, socket_in};
use crate::namespace::Namespace;
use crate::stun_client::{binding_request, reflexive_address};
use crate::support::{EchoPeer, Spec, TestServer, Transport, wait_until};
use crate::turn_client::{conn, turn_client};

const LIMIT: Duration = Duration::from_secs(20);
/// How long an answer takes that does not come.
const SILENCE: Duration = Duration::from_millis(700);
const SERVER: &str = "5.44.1.1";
const CLIENT: &str = "5.44.1.2";

#[tokio::test]
async fn an_address_that_comes_after_the_start_is_no_peer() {
    let (host, client) = two_hosts(SERVER);
    let server = spec(&host, Some(SERVER)).start();
    let service = host.enter(|| EchoPeer::start("0.0.0.0"));
    assert!(may_have_as_peer(&server, "5.44.1.99"));
    host.ip(&["address", "add", "5.44.1.99/24", "dev", "eth0"]);
    wait_until("the denial", LIMIT, || (!may_have_as_peer(&server, "5.44.1.99")).then_some(()));
    assert!(!echoes(&server, &client, with_port("5.44.1.99", service.address())).await);
    host.ip(&["address", "delete", "5.44.1.99/24", "dev", "eth0"]);
    wait_until("the end of the denial", LIMIT, || may_have_as_peer(&server, "5.44.1.99").then_some(()));
}

/// The kernel keeps a few hundred messages for who does not read them; here come thousands.
#[test]
fn changes_that_overflow_what_the_kernel_keeps_of_them_are_not_missed() {
    let (host, _client) = two_hosts(SERVER);
    let server = spec(&host, Some(SERVER)).start();
    server.signal(rustix::process::Signal::STOP);
    let address = |n: u32| format!("5.49.{}.{}", n / 250, n % 250 + 1);
    let lines: Vec<_> = (0..2000).map(|n| format!("address add {}/32 dev lo\n", address(n))).collect();
    host.ip_batch(&lines.concat());
    server.signal(rustix::process::Signal::CONT);
    for n in [0, 1000, 1999] {
        wait_until("the denial", LIMIT, || (!may_have_as_peer(&server, &address(n))).then_some(()));
    }
    assert!(may_have_as_peer(&server, "5.50.0.1"));
    let told = server.log().matches("the addresses of this host have changed").count();
    assert!(told <= 2, "a line for each: {}", server.log());
}

#[tokio::test]
async fn what_the_kernel_delivers_here_is_no_peer_though_no_interface_lists_it() {
    let (host, client) = two_hosts(SERVER);
    host.ip(&["route", "add", "local", "5.45.0.0/16", "dev", "lo"]);
    let server = spec(&host, Some(SERVER)).start();
    let service = host.enter(|| EchoPeer::start("0.0.0.0"));
    assert!(!may_have_as_peer(&server, "5.45.1.1") && may_have_as_peer(&server, "5.46.1.1"));
    assert!(!echoes(&server, &client, with_port("5.45.1.1", service.address())).await);
    // In a table of its own, for packets that no rule has marked.
    host.ip(&["route", "add", "local", "5.46.0.0/16", "dev", "lo", "table", "100"]);
    host.ip(&["rule", "add", "lookup", "100", "priority", "10"]);
    wait_until("the denial", LIMIT, || (!may_have_as_peer(&server, "5.46.1.1")).then_some(()));
    // What a transparent proxy has: for marked packets every address ends here, for others none does.
    host.ip(&["route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "200"]);
    host.ip(&["address", "add", "5.44.1.98/24", "dev", "eth0"]);
    wait_until("the next look", LIMIT, || (!may_have_as_peer(&server, "5.44.1.98")).then_some(()));
    assert!(may_have_as_peer(&server, "5.47.1.1"));
}

#[tokio::test]
async fn a_host_without_a_route_is_waited_for() {
    let (host, client) = (Namespace::create("server"), Namespace::create("client"));
    let (mut server, notify) = spec(&host, None).launch();
    wait_for_status(&notify, "waiting: this host has no route to the outside");
    let (status, reason) = readyz(&server);
    assert!(status == 503 && reason.contains("no route to the outside"), "{status} {reason}");
    assert!(server.is_running());
    host.connect(("eth0", &["5.44.1.1/24"]), &client, ("eth0", &["5.44.1.2/24"]));
    host.default_route(CLIENT);
    server.wait_for_ready(&notify);
    assert_eq!(readyz(&server), (200, "ready\n".to_owned()));
    let peer = client.enter(|| EchoPeer::start(CLIENT));
    assert!(echoes(&server, &client, peer.address()).await);
    assert_eq!(server.log().matches("waiting: ").count(), 1, "{}", server.log());

    // An IPv6 address that comes later is relayed from, too.
    assert!(!server.log().contains("family=ipv6"));
    host.ip(&["address", "add", "2a01:4f8:aaaa::1/64", "dev", "eth0", "nodad"]);
    host.ip(&["-6", "route", "add", "default", "via", "2a01:4f8:aaaa::2"]);
    wait_until("the IPv6 relay address", LIMIT, || {
        server.log().contains("family=ipv6 before=none now=2a01:4f8:aaaa::1").then_some(())
    });
}

#[tokio::test]
async fn a_relay_address_that_goes_away_is_told_and_found_again() {
    let (host, client) = two_hosts(SERVER);
    host.ip(&["address", "add", "5.44.1.77/24", "dev", "eth0"]);
    let server = spec(&host, Some("5.44.1.77")).start();
    let peer = client.enter(|| EchoPeer::start(CLIENT));
    assert_eq!(readyz(&server).0, 200);
    assert!(echoes(&server, &client, peer.address()).await);
    host.ip(&["address", "delete", "5.44.1.77/24", "dev", "eth0"]);
    let reason = wait_until("a server that is not ready", LIMIT, || Some(readyz(&server)).filter(|(s, _)| *s == 503)).1;
    assert!(reason.contains("the relay address 5.44.1.77 is not on this host"), "{reason}");
    // Log lines are written by a thread of their own.
    let told = "not ready: the relay address 5.44.1.77";
    wait_until("a line in the log", LIMIT, || server.log().contains(told).then_some(()));
    let socket = socket_in(&client, CLIENT);
    let turn = turn_client(&server, listener(), conn(socket), &server.credentials("late")).await;
    assert!(timeout(LIMIT, turn.allocate()).await.unwrap().is_err());
    let refusals = admin(&server, "/v1/refusals?user=late");
    assert!(refusals.contains("no-relay-address"), "{refusals}");
    host.ip(&["address", "add", "5.44.1.77/24", "dev", "eth0"]);
    wait_until("a server that is ready again", LIMIT, || (readyz(&server).0 == 200).then_some(()));
    assert!(echoes(&server, &client, peer.address()).await);
}

#[tokio::test]
async fn of_several_relay_addresses_one_that_goes_away_is_passed_over_until_it_is_back() {
    let (host, client) = two_hosts(SERVER);
    let second = "5.44.1.77";
    let change = |what| host.ip(&["address", what, "5.44.1.77/24", "dev", "eth0"]);
    change("add");
    let server = spec(&host, Some(&format!("@{SERVER}\", \"{second}"))).start();
    let peer = client.enter(|| EchoPeer::start(CLIENT));
    let lasting = turn_client(&server, listener(), conn(socket_in(&client, CLIENT)), &server.credentials("a")).await;
    let lasting = timeout(LIMIT, lasting.allocate()).await.unwrap().unwrap();
    // The least used one: each in turn.
    let both = BTreeSet::from([SERVER, second].map(str::to_owned));
    assert_eq!(relayed_from(&server, &client, 4).await, both);
    change("delete");
    wait_until("a server that is not ready", LIMIT, || (readyz(&server).0 == 503).then_some(()));
    assert_eq!(relayed_from(&server, &client, 8).await, BTreeSet::from([SERVER.to_owned()]));
    assert!(echoes(&server, &client, peer.address()).await);
    change("add");
    wait_until("a server that is ready again", LIMIT, || (readyz(&server).0 == 200).then_some(()));
    // What was allocated meanwhile lives on: it is the least used one now.
    assert_eq!(relayed_from(&server, &client, 4).await, BTreeSet::from([second.to_owned()]));
    // Whichever address it has, an allocation of before lives on.
    let mut buffer = [0_u8; 100];
    lasting.send_to(b"still here", peer.address()).await.unwrap();
    assert_eq!(timeout(LIMIT, lasting.recv_from(&mut buffer)).await.expect("lost").unwrap().0, 10);
}

/// The addresses of so many allocations, which all live at the same time.
async fn relayed_from(server: &TestServer, client: &Namespace, count: usize) -> BTreeSet<String> {
    let (mut clients, mut relays) = (Vec::new(), Vec::new());
    for n in 0..count {
        let credentials = server.credentials(&format!("client{n}"));
        clients.push(turn_client(server, listener(), conn(socket_in(client, CLIENT)), &credentials).await);
    }
    for turn in &clients {
        relays.push(timeout(LIMIT, turn.allocate()).await.unwrap().unwrap());
    }
    relays.iter().map(|relay| relay.local_addr().unwrap().ip().to_string()).collect()
}

#[tokio::test]
async fn a_server_that_is_started_anew_has_its_shared_port_again() {
    let (host, client) = two_hosts(SERVER);
    let peer = client.enter(|| EchoPeer::start(CLIENT));
    for _ in 0..3 {
        let shared = Spec { relay_ports: Some("shared:3480".to_owned()), ..spec(&host, Some(SERVER)) };
        let server = shared.start();
        let held = turn_client(&server, listener(), conn(socket_in(&client, CLIENT)), &server.credentials("a")).await;
        let held = timeout(LIMIT, held.allocate()).await.unwrap().unwrap();
        assert_eq!(held.local_addr().unwrap().port(), 3480);
        assert!(echoes(&server, &client, peer.address()).await, "beside another one on the port");
    }
}

#[tokio::test]
async fn an_automatic_relay_address_follows_the_hosts_and_old_allocations_keep_theirs() {
    let (host, client) = two_hosts("5.44.1.50");
    host.default_route(CLIENT);
    let server = spec(&host, None).start();
    let peer = client.enter(|| EchoPeer::start(CLIENT));
    let wildcard = |ip: &str| SocketAddr::new(ip.parse().unwrap(), PORT);
    let before = {
        let turn =
            turn_client(&server, wildcard("5.44.1.50"), conn(socket_in(&client, CLIENT)), &server.credentials("a"))
                .await;
        timeout(LIMIT, turn.allocate()).await.unwrap().unwrap().local_addr().unwrap()
    };
    assert_eq!(before.ip().to_string(), "5.44.1.50");
    host.ip(&["address", "add", "5.44.1.60/24", "dev", "eth0"]);
    host.ip(&["address", "delete", "5.44.1.50/24", "dev", "eth0"]);
    // The kernel makes the second address the first one, or takes it away with the first.
    host.ip(&["address", "replace", "5.44.1.60/24", "dev", "eth0"]);
    host.ip(&["route", "replace", "default", "via", CLIENT]);
    wait_until("the new address", LIMIT, || server.log().contains("now=5.44.1.60").then_some(()));
    let turn =
        turn_client(&server, wildcard("5.44.1.60"), conn(socket_in(&client, CLIENT)), &server.credentials("b")).await;
    let relay = timeout(LIMIT, turn.allocate()).await.unwrap().unwrap();
    assert_eq!(relay.local_addr().unwrap().ip().to_string(), "5.44.1.60");
    relay.send_to(b"hello", peer.address()).await.unwrap();
    let mut buffer = [0_u8; 100];
    timeout(LIMIT, relay.recv_from(&mut buffer)).await.expect("lost").unwrap();
    let ports = admin(&server, "/v1/status");
    assert!(ports.contains("\"used\": 2") || ports.contains("\"used\":2"), "{ports}");
}

#[test]
fn a_listener_on_an_address_that_comes_later_is_waited_for() {
    let (host, client) = two_hosts(SERVER);
    let listeners = [Transport::Udp, Transport::Tcp].map(|transport| (transport, format!("5.44.1.88:{PORT}"))).to_vec();
    let (mut server, notify) = Spec { listeners, ..spec(&host, Some(SERVER)) }.launch();
    wait_for_status(&notify, "waiting: the listener's address 5.44.1.88 is not on this host");
    host.ip(&["address", "add", "5.44.1.88/24", "dev", "eth0"]);
    server.wait_for_ready(&notify);
    let socket = socket_in(&client, CLIENT);
    let address = SocketAddr::new("5.44.1.88".parse().unwrap(), PORT);
    assert_eq!(reflexive_address(&socket, address), socket.local_addr().unwrap());
    let (mut gone, notify) =
        Spec { listeners: vec![(Transport::Udp, "5.44.1.89:3478".to_owned())], ..spec(&host, Some(SERVER)) }.launch();
    wait_for_status(&notify, "waiting: the listener's address 5.44.1.89");
    gone.signal(rustix::process::Signal::TERM);
    assert_eq!(gone.exit_code_within(LIMIT), Some(0), "waiting does not keep it from stopping");
}

/// By network address translation, a relay reaches the listener at an address that no policy can know.
#[tokio::test]
async fn what_a_relay_sends_to_our_own_listener_is_not_answered_whatever_its_way() {
    let (host, client) = two_hosts(SERVER);
    host.default_route(CLIENT);
    host.nft(&format!(
        "table ip hairpin {{\n chain output {{\n type nat hook output priority -100\n ip daddr 5.48.1.1 udp dport {PORT} dnat to {SERVER}:{PORT}\n }}\n }}\n"
    ));
    let server = spec(&host, Some(SERVER)).start();
    // Another program on the host does reach it that way.
    let local = host.enter(|| UdpSocket::bind((SERVER, 0)).unwrap());
    let hairpin = SocketAddr::new("5.48.1.1".parse().unwrap(), PORT);
    assert_eq!(reflexive_address(&local, hairpin), local.local_addr().unwrap());

    let turn = turn_client(&server, listener(), conn(socket_in(&client, CLIENT)), &server.credentials("loop")).await;
    let relay = timeout(LIMIT, turn.allocate()).await.unwrap().unwrap();
    let mut buffer = [0_u8; 2048];
    // Nor is it challenged when it asks for an allocation: that of a relay would be the other half of a loop.
    let mut allocate = binding_request();
    allocate[1] = 0x03;
    for message in [&binding_request()[..], &allocate, &[0x40, 0, 0, 1, 7], &allocate] {
        relay.send_to(message, hairpin).await.unwrap();
    }
    assert!(
        timeout(SILENCE, relay.recv_from(&mut buffer)).await.is_err(),
        "our own listener has answered our own relay"
    );
    let status = admin(&server, "/v1/status");
    assert!(status.replace(' ', "").contains("\"own-relay\":"), "{status}");
}

/// The server's host, with this address, cabled to a client.
fn two_hosts(server_ip: &str) -> (Namespace, Namespace) {
    let (host, client) = (Namespace::create("server"), Namespace::create("client"));
    host.connect(("eth0", &[&format!("{server_ip}/24")]), &client, ("eth0", &[&format!("{CLIENT}/24")]));
    // What has no route is lost, and not refused.
    client.forward_ipv4();
    (host, client)
}

/// A server with the default peer policy, listening on every address, with sockets for metrics and the admin API.
fn spec(host: &Namespace, relay_ipv4: Option<&str>) -> Spec {
    Spec {
        listeners: [Transport::Udp, Transport::Tcp].map(|transport| (transport, format!("0.0.0.0:{PORT}"))).to_vec(),
        relay_ipv4: relay_ipv4.map(str::to_owned),
        relay_ipv6: None,
        dev: false,
        namespace: Some(host.name().to_owned()),
        extra_toml: "[metrics]\nlisten = \"unix:metrics.sock\"\n\n[admin]\nlisten = \"unix:admin.sock\"\n".to_owned(),
        ..Spec::local()
    }
}

fn listener() -> SocketAddr {
    SocketAddr::new(SERVER.parse().unwrap(), PORT)
}

fn with_port(ip: &str, of: SocketAddr) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), of.port())
}

/// Whether a new allocation gets an echo from a peer.
async fn echoes(server: &TestServer, client: &Namespace, peer: SocketAddr) -> bool {
    let turn = turn_client(server, listener(), conn(socket_in(client, CLIENT)), &server.credentials("echo")).await;
    let relay = timeout(LIMIT, turn.allocate()).await.unwrap().unwrap();
    if relay.send_to(b"hello", peer).await.is_err() {
        return false;
    }
    let mut buffer = [0_u8; 100];
    timeout(SILENCE, relay.recv_from(&mut buffer)).await.is_ok()
}

fn may_have_as_peer(server: &TestServer, ip: &str) -> bool {
    let answer = admin(server, &format!("/v1/refusals?address={ip}")).replace(' ', "");
    assert!(answer.contains("\"as_peer\""), "{answer}");
    answer.contains("\"allowed\":true")
}

fn readyz(server: &TestServer) -> (u16, String) {
    let answer = get(&server.file("metrics.sock"), "/readyz");
    let status = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status.unwrap_or_default(), body.unwrap_or_default())
}

fn admin(server: &TestServer, path: &str) -> String {
    get(&server.file("admin.sock"), path)
}

pub(crate) fn get(socket: &str, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Reads notifications up to a status that begins like this; there may be no word of readiness before.
fn wait_for_status(notify: &UnixDatagram, beginning: &str) {
    let mut buffer = [0_u8; 4096];
    let mut asked_for_time = false;
    wait_until(beginning, LIMIT, || {
        let len = notify.recv(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..len]);
        assert!(!text.contains("READY=1"), "ready too early: {text}");
        asked_for_time |= text.contains("EXTEND_TIMEOUT_USEC=");
        text.lines()
            .find(|line| line.strip_prefix("STATUS=").is_some_and(|status| status.starts_with(beginning)))
            .map(drop)
    });
    assert!(asked_for_time, "the service manager was not asked to wait");
}
