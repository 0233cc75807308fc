//! coturn's load client `turnutils_uclient` with `turnutils_peer` as the echo on the far side.
//!
//! Its dual allocation (`-Z`) is left out: version 4.6 asks with attribute 0x8032, where RFC 8656 section 18.11 has
//! ADDITIONAL-ADDRESS-FAMILY at 0x8000.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Credentials, Finished, Spec, TestServer, Transport, require_tool, run, wait_until};

const LIMIT: Duration = Duration::from_secs(40);
/// Messages that each client of a run sends.
const MESSAGES: u32 = 25;

const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

#[test]
fn uclient_exchanges_data_with_a_peer_by_channels_over_every_transport() {
    side_by_side(&TRANSPORTS.map(|transport| Echo { transport, flags: &["-c", "-m", "2"], ..Echo::default() }));
}

#[test]
fn uclient_exchanges_data_with_a_peer_by_send_indications_over_every_transport() {
    side_by_side(&TRANSPORTS.map(|transport| Echo { transport, flags: &["-c", "-s", "-m", "2"], ..Echo::default() }));
}

#[test]
fn uclient_exchanges_large_and_odd_sized_messages_over_every_transport() {
    side_by_side(&TRANSPORTS.map(|transport| Echo { transport, flags: &["-c", "-l", "1201"], ..Echo::default() }));
}

#[test]
fn uclient_uses_a_pair_of_ports_for_rtp_and_rtcp() {
    side_by_side(&[Echo::default()]);
}

#[test]
fn uclient_pads_channel_data_over_udp_and_asks_for_dont_fragment() {
    side_by_side(&[
        Echo { flags: &["-c", "-D", "-l", "101"], ..Echo::default() },
        Echo { flags: &["-c", "-g"], ..Echo::default() },
    ]);
}

#[test]
fn uclient_relays_within_and_between_the_address_families() {
    let (v4, v6) = ("127.0.0.1", "::1");
    side_by_side(&[
        Echo { server_ip: v6, peer_ip: v4, flags: &["-c", "-X"], ..Echo::default() },
        Echo { server_ip: v4, peer_ip: v6, flags: &["-c", "-x"], ..Echo::default() },
        Echo { transport: Transport::Tcp, server_ip: v6, peer_ip: v6, flags: &["-c", "-x"] },
        Echo { transport: Transport::Tls, server_ip: v6, peer_ip: v6, flags: &["-c", "-x"] },
    ]);
}

#[test]
fn uclient_keeps_its_allocation_by_its_ticket_from_socket_to_socket_over_every_transport() {
    let server = Spec { top_toml: "workers = 2\nmobility = true\n".to_owned(), ..spec() }.start();
    let peers = Peer::start("127.0.0.1");
    let echo = [&peers.flags()[..], &["-M", "-c", "-m", "4"]].concat();
    let by_indications = [&peers.flags()[..], &["-M", "-s"]].concat();
    // Each run has its own user. Not in pairs over UDP: the second half of a pair is silent at first, and has only moved once it sends
    // (RFC 8016 section 3.2.2).
    let pair = vec!["-M", "-y", "-c"];
    std::thread::scope(|scope| {
        for transport in TRANSPORTS {
            for flags in [&echo, &by_indications, &pair] {
                if transport == Transport::Udp && *flags == pair {
                    continue;
                }
                let server = &server;
                scope.spawn(move || mobile_uclient(server, transport, flags));
            }
        }
    });
    let moves = || server.log().matches("allocation moved with its client").count();
    wait_until("the moves in the log", LIMIT, || (moves() >= 3 * 4 + 2 * 2 + 3 * 2).then_some(()));
}

/// Over TLS one of four allocations ends the program: it closes its connection, frees that, and then closes and frees it again, by which time
/// it is the new one.
fn mobile_uclient(server: &TestServer, transport: Transport, flags: &[&str]) {
    let credentials = server.credentials("mobile");
    let mut runs = std::iter::repeat_with(|| uclient(server, transport, "127.0.0.1", &credentials, flags)).take(60);
    let is_whole =
        |finished: &Finished| finished.code == Some(0) || transport != Transport::Tls || !has_freed_twice(finished);
    assert_nothing_lost(&runs.find(is_whole).expect("uclient frees its connection twice every time"));
}

/// It writes to a connection that it has closed, or crashes.
pub(crate) fn has_freed_twice(finished: &Finished) -> bool {
    finished.code.is_none() || finished.all_output().contains("send: Success")
}

#[test]
fn uclient_is_served_beside_extra_requests_an_origin_and_an_asked_bandwidth() {
    // Refused or ignored, none of these may disturb the allocation: -G asks for peers of the family that was not allocated (443).
    side_by_side(&[
        Echo { flags: &["-c", "-G"], ..Echo::default() },
        Echo { transport: Transport::Tcp, flags: &["-c", "-G"], ..Echo::default() },
        Echo { flags: &["-c", "-o", "https://call.example", "-a", "50000"], ..Echo::default() },
    ]);
}

#[test]
fn uclients_reach_each_other_from_relay_to_relay() {
    let server = spec().start();
    std::thread::scope(|scope| {
        for (transport, ip, flags) in [
            (Transport::Udp, "127.0.0.1", &["-y"][..]),
            (Transport::Udp, "127.0.0.1", &["-y", "-c", "-s"]),
            (Transport::Udp, "127.0.0.1", &["-y", "-c", "-m", "4"]),
            (Transport::Udp, "::1", &["-y", "-c", "-x"]),
            (Transport::Tcp, "127.0.0.1", &["-y", "-c"]),
            (Transport::Tls, "127.0.0.1", &["-y", "-c"]),
        ] {
            let server = &server;
            scope.spawn(move || {
                let finished = uclient(server, transport, ip, &server.credentials("pair"), flags);
                assert_nothing_lost(&finished);
            });
        }
    });
}

#[test]
fn uclients_share_a_few_relay_ports_towards_peers_and_each_other() {
    let shared = |relay: &str| Spec {
        relay_ipv4: Some(relay.to_owned()),
        relay_ipv6: Some("off".to_owned()),
        relay_ports: Some("shared:3480-3483".to_owned()),
        ..spec()
    };
    // Twelve clients, each with a peer of its own, on four ports.
    let runs = TRANSPORTS.into_iter().flat_map(|transport| {
        [&["-c"][..], &["-c", "-s"], &["-c", "-l", "1201"], &["-c", "-g"]].map(|flags| Echo {
            transport,
            flags,
            ..Echo::default()
        })
    });
    let server = shared("127.0.7.1").start();
    std::thread::scope(|scope| {
        for run in runs {
            let server = &server;
            scope.spawn(move || {
                let peer = Peer::start(run.peer_ip);
                uclient_without_pairs(server, run.transport, &[&peer.flags(), run.flags].concat());
            });
        }
    });
    uclient_without_pairs(&shared("127.0.7.2").start(), Transport::Udp, &["-y", "-c"]);
    // Both ends have the same relayed address, without ICE to tell them apart; by channels and by indications.
    let one = Spec { relay_ports: Some("shared:3480".to_owned()), ..shared("127.0.7.8") }.start();
    for flags in [&["-y", "-c"][..], &["-y", "-c", "-s"]] {
        uclient_without_pairs(&one, Transport::Udp, flags);
    }
}

#[test]
fn uclients_are_spread_over_several_relay_addresses() {
    let relays = "127.0.7.3\", \"127.0.7.4";
    let server = Spec { relay_ipv4: Some(format!("@{relays}")), relay_ipv6: Some("off".to_owned()), ..spec() }.start();
    side_by_side_at(&server, &TRANSPORTS.map(|transport| Echo { transport, flags: &["-m", "2"], ..Echo::default() }));
    assert_nothing_lost(&uclient(
        &server,
        Transport::Udp,
        "127.0.0.1",
        &server.credentials("pair"),
        &["-y", "-c", "-m", "4"],
    ));
}

#[test]
fn uclient_with_a_wrong_password_gets_no_allocation() {
    let server = spec().start();
    let wrong = Credentials { password: "not the password".to_owned(), ..server.credentials("mallory") };
    assert_no_allocation(&server, &wrong);
}

#[test]
fn uclient_with_an_expired_credential_gets_no_allocation() {
    let server = spec().start();
    assert_no_allocation(&server, &server.expired_credentials("late"));
}

#[test]
fn uclient_carries_limits_in_its_username_unchanged_and_they_hold() {
    let server = Spec { username_limits: true, extra_toml: POLICIES.to_owned(), ..spec() }.start();
    let peer = Peer::start("127.0.0.1");
    for transport in TRANSPORTS {
        let limited = server.credentials(&format!("{};bw=100M;alloc=20;peers=open", transport.name()));
        let finished = uclient(&server, transport, "127.0.0.1", &limited, &[&peer.flags()[..], &["-c"]].concat());
        assert_nothing_lost(&finished);
    }
    // From relay to relay, which the policy does not allow; then two allocations, of which one is allowed.
    let tightened = server.credentials("tight;peers=sfu");
    let finished = uclient(&server, Transport::Udp, "127.0.0.1", &tightened, &["-y", "-c"]);
    assert!(finished.all_output().contains("403"), "{}", finished.all_output());
    let one = server.credentials("one;alloc=1");
    let finished = uclient(&server, Transport::Udp, "127.0.0.1", &one, &["-y", "-c"]);
    assert!(finished.all_output().contains("486"), "{}", finished.all_output());
    let unknown = server.credentials("new;pps=100");
    assert_no_allocation(&server, &unknown);
}

#[test]
fn uclient_with_a_static_user_is_served() {
    let server = spec().user("alice", "correct horse").start();
    let peer = Peer::start("127.0.0.1");
    let alice = Credentials { username: "alice".to_owned(), password: "correct horse".to_owned() };
    let finished = uclient(&server, Transport::Udp, "127.0.0.1", &alice, &peer.flags());
    assert_nothing_lost(&finished);
}

/// Policies for the names in usernames. On loopback, where all peers are, only relayed addresses can be denied.
pub(crate) const POLICIES: &str = "[[peers.policy]]\nname = \"open\"\n\n[[peers.policy]]\nname = \"sfu\"\nmode = \"sfu\"\nallowed = [\"8.8.8.8\"]\n\n";

/// This client chooses channel numbers from the range of RFC 5766.
pub(crate) fn spec() -> Spec {
    Spec { rfc5766_channel_numbers: true, ..Spec::local() }
}

/// One run against an echo peer.
#[derive(Clone, Copy)]
struct Echo {
    transport: Transport,
    server_ip: &'static str,
    peer_ip: &'static str,
    /// `-c` leaves the RTCP flow away.
    flags: &'static [&'static str],
}

impl Default for Echo {
    fn default() -> Echo {
        Echo { transport: Transport::Udp, server_ip: "127.0.0.1", peer_ip: "127.0.0.1", flags: &[] }
    }
}

/// Most of the time of a run is spent waiting, so all of them run at once.
fn side_by_side(runs: &[Echo]) {
    side_by_side_at(&spec().start(), runs);
}

fn side_by_side_at(server: &TestServer, runs: &[Echo]) {
    std::thread::scope(|scope| {
        for run in runs {
            scope.spawn(move || {
                let peer = Peer::start(run.peer_ip);
                let flags = [&peer.flags(), run.flags].concat();
                let credentials = server.credentials("uclient");
                assert_nothing_lost(&uclient(server, run.transport, run.server_ip, &credentials, &flags));
            });
        }
    });
}

pub(crate) fn uclient(
    server: &TestServer,
    transport: Transport,
    server_ip: &str,
    credentials: &Credentials,
    flags: &[&str],
) -> Finished {
    let mut command = Command::new(require_tool("turnutils_uclient", "coturn"));
    let authority = server.file("authority.pem");
    match transport {
        Transport::Udp => {}
        Transport::Tcp => {
            command.arg("-t");
        }
        Transport::Tls => {
            command.args(["-t", "-S", "-E", &authority]);
        }
    }
    let port = server.address(transport, server_ip).port().to_string();
    let messages = MESSAGES.to_string();
    command
        .args(["-u", &credentials.username, "-w", &credentials.password])
        .args(["-p", &port, "-n", &messages, "-z", "10"])
        .args(flags)
        .arg(server_ip);
    // It draws its channels' numbers: one in some thousands is drawn twice, or is 0x7FFF, which is no channel.
    for _ in 0..2 {
        let finished = run(&mut command, LIMIT);
        if !finished.all_output().contains("channel bind: error 400") {
            return finished;
        }
    }
    run(&mut command, LIMIT)
}

/// Every other time, it asks for an even port, whatever its flags say. That is refused where ports are shared (508).
fn uclient_without_pairs(server: &TestServer, transport: Transport, flags: &[&str]) {
    let runs = std::iter::repeat_with(|| uclient(server, transport, "127.0.0.1", &server.credentials("shared"), flags));
    let served = runs.take(40).find(|finished| {
        let output = finished.all_output();
        finished.code == Some(0) || !output.contains("error 508 (Insufficient Capacity)")
    });
    assert_nothing_lost(&served.expect("uclient asks for an even port every time"));
}

/// Reads the totals that `turnutils_uclient` prints at its end.
pub(crate) fn assert_nothing_lost(finished: &Finished) {
    let output = finished.all_output();
    assert_eq!(finished.code, Some(0), "uclient failed:\n{output}");
    let totals = output
        .lines()
        .rev()
        .find_map(|line| line.split_once("start_mclient: tot_send_msgs=").map(|(_, rest)| rest))
        .unwrap_or_else(|| panic!("uclient printed no totals:\n{output}"));
    let (sent, received) = totals.split_once(", tot_recv_msgs=").unwrap();
    let (sent, received): (u32, u32) = (sent.parse().unwrap(), received.parse().unwrap());
    assert!(sent >= MESSAGES, "uclient sent only {sent}:\n{output}");
    assert_eq!(sent, received, "uclient lost messages:\n{output}");
    assert!(output.contains("Total lost packets 0 (0.000000%), total send dropped 0"), "{output}");
}

fn assert_no_allocation(server: &TestServer, credentials: &Credentials) {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let finished = uclient(server, transport, "127.0.0.1", credentials, &["-y"]);
        let output = finished.all_output();
        assert_ne!(finished.code, Some(0), "uclient succeeded over {}:\n{output}", transport.name());
        assert!(output.contains("Cannot complete Allocation"), "over {}:\n{output}", transport.name());
    }
}

/// `turnutils_peer` on free ports; killed when dropped.
pub(crate) struct Peer {
    child: Child,
    ip: String,
    port: String,
}

impl Peer {
    /// It takes a given port and the next one (RTCP), and cannot choose them itself. Another program may be faster and take one
    /// of the two; then it ends or stays silent, and gets others.
    pub(crate) fn start(ip: &str) -> Peer {
        let program = require_tool("turnutils_peer", "coturn");
        wait_until("turnutils_peer to echo", Duration::from_secs(30), || {
            let first = UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap().port();
            UdpSocket::bind((ip, first.checked_add(1)?)).ok()?;
            let child = Command::new(&program)
                .args(["-L", ip, "-p", &first.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut peer = Peer { child, ip: ip.to_owned(), port: first.to_string() };
            peer.echoes_on_both_ports(first).then_some(peer)
        })
    }

    pub(crate) fn port(&self) -> &str {
        &self.port
    }

    fn echoes_on_both_ports(&mut self, first: u16) -> bool {
        let probe = UdpSocket::bind((self.ip.as_str(), 0)).unwrap();
        probe.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        [first, first + 1].into_iter().all(|port| {
            (0..100).any(|_| {
                let echoed = probe.send_to(&port.to_be_bytes(), (self.ip.as_str(), port)).is_ok()
                    && probe.recv_from(&mut [0; 8]).is_ok_and(|(_, from)| from.port() == port);
                if !echoed {
                    // Refused at once while it is still starting.
                    std::thread::sleep(Duration::from_millis(10));
                }
                echoed || !self.is_running()
            }) && self.is_running()
        })
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn flags(&self) -> Vec<&str> {
        vec!["-e", &self.ip, "-r", &self.port]
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
