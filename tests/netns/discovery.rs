//! NAT behaviour discovery (RFC 5780): what coturn's `turnutils_natdiscovery` finds out of NATs of each kind with the program's help.
//!
//! ```text
//! host ── NAT ── internet and server
//! 10.0.1.2   5.44.1.2   5.44.9.1, 5.44.9.2, ports 3478 and 3479
//! ```

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use crate::addresses::get;
use crate::internet::{PORT, SERVER, socket_in};
use crate::namespace::Namespace;
use crate::stun_client::{binding_request, reflexive_address};
use crate::support::{Spec, TestServer, Transport, require_tool, run, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const HOST: &str = "10.0.1.2";

/// What every NAT here does: whatever comes from inside goes out, and of what comes from outside, what the last rule says.
fn rules(translation: &str, comes_in: &str) -> String {
    format!(
        r#"table ip nat {{
            {translation}
            chain forward {{
                type filter hook forward priority filter; policy drop;
                iifname "lan" accept
                iifname "wan" {comes_in} accept
            }}
        }}"#
    )
}

/// Every port of the NAT belongs to the host, as it is.
const PORTS_KEPT: &str = r#"
            chain in {
                type nat hook prerouting priority dstnat;
                iifname "wan" dnat to 10.0.1.2
            }
            chain out {
                type nat hook postrouting priority srcnat;
                oifname "wan" masquerade
            }"#;

fn full_cone() -> String {
    rules(PORTS_KEPT, "")
}

/// Who sends in must have been sent to from inside: by his address, or by address and port.
fn restricted(by_port: bool) -> String {
    let (kind, sent_to, sender) = match by_port {
        false => ("ipv4_addr", "ip daddr", "ip saddr"),
        true => ("ipv4_addr . inet_service", "ip daddr . udp dport", "ip saddr . udp sport"),
    };
    let known = format!(
        r#"set known {{
                type {kind}
                flags dynamic,timeout
                timeout 5m
            }}
            chain note {{
                type filter hook prerouting priority mangle;
                iifname "lan" meta l4proto udp add @known {{ {sent_to} }}
            }}"#
    );
    rules(&(known + PORTS_KEPT), &format!("meta l4proto udp {sender} @known"))
}

/// Each destination gets a port of its own.
fn symmetric() -> String {
    let translation = r#"chain out {
                type nat hook postrouting priority srcnat;
                oifname "wan" masquerade fully-random
            }"#;
    rules(translation, "ct state established,related")
}

/// Fields are dropped in order: the server before its namespace.
struct Site {
    server: TestServer,
    host: Namespace,
    _nat: Namespace,
    core: Namespace,
}

fn site(rules: &str, extra: &str) -> Site {
    let (core, nat, host) = (Namespace::create("internet"), Namespace::create("nat"), Namespace::create("host"));
    core.forward_ipv4();
    for address in SERVER {
        core.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
    }
    core.connect(("site", &["5.44.1.1/24"]), &nat, ("wan", &["5.44.1.2/24"]));
    nat.connect(("lan", &["10.0.1.1/24"]), &host, ("eth0", &[&format!("{HOST}/24")]));
    nat.default_route("5.44.1.1");
    host.default_route("10.0.1.1");
    nat.forward_ipv4();
    nat.nft(rules);
    let server = Spec {
        listeners: vec![
            (Transport::Udp, format!("{}:{PORT}", SERVER[0])),
            (Transport::Tcp, format!("{}:{PORT}", SERVER[0])),
        ],
        relay_ipv4: Some(SERVER[0].to_owned()),
        relay_ipv6: None,
        dev: false,
        environment: vec![("TURNSTONE_WORKERS".to_owned(), "2".to_owned())],
        namespace: Some(core.name().to_owned()),
        extra_toml: format!(
            "[nat-discovery]\naddresses = {SERVER:?}\n\n[metrics]\nlisten = \"unix:metrics.sock\"\n\n{extra}\n"
        ),
        ..Spec::local()
    }
    .start();
    Site { server, host, _nat: nat, core }
}

impl Site {
    /// Runs `turnutils_natdiscovery` from a fresh port; its output.
    fn discover(&self, arguments: &[&str]) -> String {
        let tool = require_tool("turnutils_natdiscovery", "coturn");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.host.name()]).arg(tool).args(arguments).arg(SERVER[0]);
        run(&mut command, LIMIT).all_output()
    }
}

impl Site {
    /// The program's own client, in place of the host's user.
    fn probe(&self) -> String {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.host.name(), env!("CARGO_BIN_EXE_turnstone"), "probe"]);
        let finished = run(command.args(["--timeout", "6"]).arg(format!("stun:{}:{PORT}", SERVER[0])), LIMIT);
        finished.all_output()
    }
}

fn assert_found(output: &str, found: &str) {
    assert!(output.contains(found), "{found:?} is not in\n{output}");
}

#[test]
fn a_full_cone_is_found() {
    let site = site(&full_cone(), "");
    assert_found(&site.discover(&["-m"]), "NAT with Endpoint Independent Mapping");
    assert_found(&site.discover(&["-f"]), "NAT with Endpoint Independent Filtering");
    // Fragments come through as well.
    assert_found(&site.discover(&["-m", "-P"]), "NAT with Endpoint Independent Mapping");
    // The answer to another port than the one that asks: the mapping is still there a second later.
    let lifetime = site.discover(&["-t", "-T", "1"]);
    assert!(!lifetime.contains("STUN receive timeout"), "{lifetime}");
}

#[test]
fn an_address_restricted_nat_is_found() {
    let site = site(&restricted(false), "");
    // Asking the other address for the mapping opens the way for answers from there.
    assert_found(&site.discover(&["-f"]), "NAT with Address Dependent Filtering");
    assert_found(&site.discover(&["-m"]), "NAT with Endpoint Independent Mapping");
}

#[test]
fn a_port_restricted_nat_is_found() {
    let site = site(&restricted(true), "");
    assert_found(&site.discover(&["-m"]), "NAT with Endpoint Independent Mapping");
    assert_found(&site.discover(&["-f"]), "NAT with Address and Port Dependent Filtering");
}

#[test]
fn a_symmetric_nat_is_found() {
    let site = site(&symmetric(), "");
    assert_found(&site.discover(&["-m"]), "NAT with Address and Port Dependent Mapping");
    assert_found(&site.discover(&["-f"]), "NAT with Address and Port Dependent Filtering");
}

#[test]
fn probe_finds_the_same_and_tells_a_silent_address_from_a_nat() {
    for (rules, mapping, filtering) in [
        (full_cone(), "endpoint-independent", "endpoint-independent"),
        (restricted(false), "endpoint-independent", "address-dependent"),
        (restricted(true), "endpoint-independent", "address-and-port-dependent"),
        (symmetric(), "address-and-port-dependent", "address-and-port-dependent"),
    ] {
        let site = site(&rules, "");
        let said = site.probe();
        assert_found(&said, &format!("the NAT here has {mapping} mapping, {filtering} filtering (RFC 5780)"));
        site.core.nft(&format!(
            "table ip silent {{\n chain in {{\n type filter hook input priority 0\n ip daddr {} drop\n }}\n }}",
            SERVER[1]
        ));
        assert_found(&site.probe(), "and it does not answer");
    }
}

#[test]
fn behind_wildcard_listeners_answers_leave_from_each_of_the_four_in_either_family() {
    let (host, client) = (Namespace::create("server"), Namespace::create("client"));
    let families = [["5.44.1.1", "5.44.1.77"], ["2a01:4f8:aaaa::1", "2a01:4f8:aaaa::77"]];
    let with_length = |ip: &str| format!("{ip}{}", if ip.contains(':') { "/64" } else { "/24" });
    let of_host = families.concat().into_iter().map(with_length).collect::<Vec<_>>();
    let of_host: Vec<_> = of_host.iter().map(String::as_str).collect();
    host.connect(("eth0", &of_host), &client, ("eth0", &["5.44.1.2/24", "2a01:4f8:aaaa::2/64"]));
    let _server = Spec {
        listeners: ["0.0.0.0", "[::]"].map(|ip| (Transport::Udp, format!("{ip}:{PORT}"))).to_vec(),
        relay_ipv4: Some(families[0][0].to_owned()),
        relay_ipv6: None,
        dev: false,
        environment: vec![("TURNSTONE_WORKERS".to_owned(), "2".to_owned())],
        namespace: Some(host.name().to_owned()),
        extra_toml: format!("[nat-discovery]\naddresses = {:?}\n", families.concat()),
        ..Spec::local()
    }
    .start();
    for (addresses, client_ip) in families.into_iter().zip(["5.44.1.2", "2a01:4f8:aaaa::2"]) {
        let at = |ip: usize, port: u16| SocketAddr::new(addresses[ip].parse().unwrap(), PORT + port);
        let (socket, other) = (socket_in(&client, client_ip), socket_in(&client, client_ip));
        for (ip, port) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for (flags, from) in
                [(0, at(ip, port)), (4, at(1 - ip, port)), (2, at(ip, 1 - port)), (6, at(1 - ip, 1 - port))]
            {
                let change = [0, 3, 0, 4, 0, 0, 0, flags];
                assert_eq!(exchange(&socket, &socket, at(ip, port), &change), Some(from), "{flags}");
            }
            let [high, low] = other.local_addr().unwrap().port().to_be_bytes();
            let to_port = [0, 0x27, 0, 4, high, low, 0, 0];
            assert_eq!(exchange(&socket, &other, at(ip, port), &to_port), Some(at(ip, port)));
        }
    }
}

/// Sends a Binding request with an attribute from one socket, and says where the answer to another one came from.
fn exchange(socket: &UdpSocket, to: &UdpSocket, server: SocketAddr, attribute: &[u8; 8]) -> Option<SocketAddr> {
    let mut request = binding_request().to_vec();
    request[3] = 8;
    request.extend_from_slice(attribute);
    to.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.send_to(&request, server).unwrap();
    let mut buffer = [0; 1500];
    loop {
        let (_, from) = to.recv_from(&mut buffer).ok()?;
        if buffer[..2] == [1, 1] && buffer[4..20] == request[4..20] {
            return Some(from);
        }
    }
}

/// A client of 2003, written by hand: STUNTMAN and pystun are gone from the distributions.
#[test]
fn a_client_of_rfc_3489_finds_a_full_cone_where_it_is_answered() {
    let site = site(&full_cone(), "[compatibility]\nrfc3489 = true\n");
    let socket = socket_in(&site.host, HOST);
    let server = SocketAddr::new(SERVER[0].parse().unwrap(), PORT);
    let (from, answer) = classic_exchange(&socket, server, 0).expect("an answer");
    assert_eq!(from, server);
    let mapped = classic_address(&answer, 1);
    assert_eq!(mapped.ip().to_string(), "5.44.1.2");
    assert_eq!(classic_address(&answer, 4), server);
    let changed = classic_address(&answer, 5);
    assert_eq!(changed, format!("{}:3479", SERVER[1]).parse().unwrap());
    // Test II of RFC 3489 section 10.1: an answer from elsewhere comes through.
    let (from, answer) = classic_exchange(&socket, server, 6).expect("an answer from elsewhere");
    assert_eq!((from, classic_address(&answer, 4)), (changed, changed));
    let metrics = wait_until("the count", LIMIT, || {
        let metrics = get(&site.server.file("metrics.sock"), "/metrics");
        metrics.contains("turnstone_rfc3489_answers_total 2").then_some(metrics)
    });
    assert!(metrics.contains("turnstone_answers_elsewhere_total 1"), "{metrics}");
    // Who speaks RFC 8489 is served beside it.
    assert_eq!(reflexive_address(&socket, server), mapped);
}

/// The answer and where it came from.
fn classic_exchange(socket: &UdpSocket, server: SocketAddr, change: u8) -> Option<(SocketAddr, Vec<u8>)> {
    let mut request = binding_request().to_vec();
    request[4..8].copy_from_slice(b"2003");
    request[3] = 8;
    request.extend_from_slice(&[0, 3, 0, 4, 0, 0, 0, change]);
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.send_to(&request, server).unwrap();
    let mut buffer = [0; 1500];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).ok()?;
        if buffer[4..20] == request[4..20] {
            return Some((from, buffer[..len].to_vec()));
        }
    }
}

fn classic_address(answer: &[u8], kind: u8) -> SocketAddr {
    let mut rest = &answer[20..];
    while let [0, found, 0, 8, 0, 1, p0, p1, a, b, c, d, behind @ ..] = rest {
        if *found == kind {
            return SocketAddr::from(([*a, *b, *c, *d], u16::from_be_bytes([*p0, *p1])));
        }
        rest = behind;
    }
    panic!("no attribute {kind} in {answer:02x?}");
}
