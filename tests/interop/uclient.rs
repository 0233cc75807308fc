//! coturn's load client `turnutils_uclient` with `turnutils_peer` as the echo on the far side.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Credentials, Finished, Spec, TestServer, Transport, require_tool, run, wait_until};

const LIMIT: Duration = Duration::from_secs(40);
/// Messages that each client of a run sends.
const MESSAGES: u32 = 25;

#[test]
fn uclient_exchanges_data_with_a_peer_over_udp_by_channels() {
    echo_run(Transport::Udp, "127.0.0.1", "127.0.0.1", &["-m", "2"], 2);
}

#[test]
fn uclient_exchanges_data_with_a_peer_over_udp_by_send_indications() {
    echo_run(Transport::Udp, "127.0.0.1", "127.0.0.1", &["-s", "-m", "2"], 2);
}

#[test]
fn uclient_exchanges_data_with_a_peer_over_tcp_by_channels() {
    echo_run(Transport::Tcp, "127.0.0.1", "127.0.0.1", &[], 1);
}

#[test]
fn uclient_exchanges_data_with_a_peer_over_tcp_by_send_indications() {
    echo_run(Transport::Tcp, "127.0.0.1", "127.0.0.1", &["-s"], 1);
}

#[test]
fn uclient_exchanges_data_with_a_peer_over_tls_by_channels_and_verifies_the_certificate() {
    echo_run(Transport::Tls, "127.0.0.1", "127.0.0.1", &[], 1);
}

#[test]
fn uclient_exchanges_data_with_a_peer_over_tls_by_send_indications() {
    echo_run(Transport::Tls, "127.0.0.1", "127.0.0.1", &["-s"], 1);
}

#[test]
fn uclient_exchanges_large_and_odd_sized_messages_over_every_transport() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        echo_run(transport, "127.0.0.1", "127.0.0.1", &["-l", "1201"], 1);
    }
}

#[test]
fn uclient_pads_channel_data_over_udp_and_is_understood() {
    echo_run(Transport::Udp, "127.0.0.1", "127.0.0.1", &["-D", "-l", "101"], 1);
}

#[test]
fn uclient_asks_for_dont_fragment_and_is_served() {
    echo_run(Transport::Udp, "127.0.0.1", "127.0.0.1", &["-g"], 1);
}

#[test]
fn uclient_reaches_an_ipv4_relay_over_an_ipv6_server_address() {
    echo_run(Transport::Udp, "::1", "127.0.0.1", &["-X"], 1);
}

#[test]
fn uclient_gets_an_ipv6_relay_from_an_ipv4_server_address() {
    echo_run(Transport::Udp, "127.0.0.1", "::1", &["-x"], 1);
}

#[test]
fn uclient_gets_an_ipv6_relay_from_an_ipv6_server_address_over_tcp_and_tls() {
    echo_run(Transport::Tcp, "::1", "::1", &["-x"], 1);
    echo_run(Transport::Tls, "::1", "::1", &["-x"], 1);
}

#[test]
fn uclient_allocates_both_families_at_once() {
    // -Z implies no RTCP flow; half of its clients then talk to the peer by the IPv4 relay.
    echo_run(Transport::Udp, "127.0.0.1", "127.0.0.1", &["-Z"], 1);
}

#[test]
fn two_uclients_reach_each_other_from_relay_to_relay() {
    for flags in [&["-y"][..], &["-y", "-c", "-s"], &["-y", "-c", "-m", "4"]] {
        let server = Spec::local().start();
        let credentials = server.credentials("pair");
        let finished = uclient(&server, Transport::Udp, "127.0.0.1", &credentials, flags);
        assert_nothing_lost(&finished, 1);
    }
}

#[test]
fn two_uclients_reach_each_other_from_relay_to_relay_over_streams() {
    let server = Spec::local().start();
    for transport in [Transport::Tcp, Transport::Tls] {
        let finished = uclient(&server, transport, "127.0.0.1", &server.credentials("pair"), &["-y", "-c"]);
        assert_nothing_lost(&finished, 1);
    }
}

#[test]
fn two_uclients_reach_each_other_from_relay_to_relay_over_ipv6() {
    let server = Spec::local().start();
    let finished = uclient(&server, Transport::Udp, "::1", &server.credentials("pair"), &["-y", "-c", "-x"]);
    assert_nothing_lost(&finished, 1);
}

#[test]
fn uclient_with_a_wrong_password_gets_no_allocation() {
    let server = Spec::local().start();
    let wrong = Credentials { password: "not the password".to_owned(), ..server.credentials("mallory") };
    assert_no_allocation(&server, &wrong);
}

#[test]
fn uclient_with_an_expired_credential_gets_no_allocation() {
    let server = Spec::local().start();
    assert_no_allocation(&server, &server.expired_credentials("late"));
}

#[test]
fn uclient_with_a_static_user_is_served() {
    let server = Spec::local().user("alice", "correct horse").start();
    let peer = Peer::start("127.0.0.1");
    let alice = Credentials { username: "alice".to_owned(), password: "correct horse".to_owned() };
    let finished = uclient(&server, Transport::Udp, "127.0.0.1", &alice, &peer.flags());
    assert_nothing_lost(&finished, 1);
}

fn echo_run(transport: Transport, server_ip: &str, peer_ip: &str, flags: &[&str], clients: u32) {
    let server = Spec::local().start();
    let peer = Peer::start(peer_ip);
    // -c leaves the RTCP flow away, which takes as long again; one test goes without it.
    let mut all_flags = peer.flags();
    all_flags.push("-c");
    all_flags.extend_from_slice(flags);
    let finished = uclient(&server, transport, server_ip, &server.credentials("uclient"), &all_flags);
    assert_nothing_lost(&finished, clients);
}

fn uclient(
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
    run(&mut command, LIMIT)
}

/// Reads the totals that `turnutils_uclient` prints at its end.
fn assert_nothing_lost(finished: &Finished, least_clients: u32) {
    let output = finished.all_output();
    assert_eq!(finished.code, Some(0), "uclient failed:\n{output}");
    let totals = output
        .lines()
        .rev()
        .find_map(|line| line.split_once("start_mclient: tot_send_msgs=").map(|(_, rest)| rest))
        .unwrap_or_else(|| panic!("uclient printed no totals:\n{output}"));
    let (sent, received) = totals.split_once(", tot_recv_msgs=").unwrap();
    let (sent, received): (u32, u32) = (sent.parse().unwrap(), received.parse().unwrap());
    assert!(sent >= least_clients * MESSAGES, "uclient sent only {sent}:\n{output}");
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
struct Peer {
    child: Child,
    ip: String,
    port: String,
}

impl Peer {
    fn start(ip: &str) -> Peer {
        let program = require_tool("turnutils_peer", "coturn");
        // It takes the given port and the next one (RTCP), and cannot choose them itself.
        let port = wait_until("two free ports in a row", Duration::from_secs(5), || {
            let first = UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap().port();
            let second = UdpSocket::bind((ip, first.checked_add(1)?));
            second.is_ok().then_some(first)
        });
        let child = Command::new(program)
            .args(["-L", ip, "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let peer = Peer { child, ip: ip.to_owned(), port: port.to_string() };
        let probe = UdpSocket::bind((ip, 0)).unwrap();
        probe.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        wait_until("turnutils_peer to echo", Duration::from_secs(10), || {
            probe.send_to(b"?", (ip, port)).ok()?;
            probe.recv(&mut [0; 8]).ok()
        });
        peer
    }

    fn flags(&self) -> Vec<&str> {
        vec!["-e", &self.ip, "-r", &self.port]
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
