//! Behind nginx and haproxy, which say whose connection they pass on (PROXY protocol), and TCP and TLS on one port.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use turnstone::net::sys::raise_open_files;

use crate::libnice::{MESSAGES, nice_pair_at};
use crate::proxy::{Proxy, free_ports};
use crate::support::openssl::{certificate, realm_by};
use crate::support::{Spec, TestServer, require_tool, run, wait_until};
use crate::uclient::{Peer, assert_nothing_lost, spec};

/// A server with one port for TCP and TLS, behind proxies on loopback.
fn behind_proxies(port: u16, more: &str) -> TestServer {
    let extra_toml = format!(
        "[[listen]]\naddress = \"127.0.0.1:{port}\"\ntransport = [\"tcp\", \"tls\"]\nproxy-from = \"127.0.0.1\"\n{more}"
    );
    Spec { extra_toml, ..spec() }.start()
}

/// The load client through a port of this host, from an address of its own.
pub(crate) fn assert_served(server: &TestServer, port: u16, from: &str, tls: bool) {
    let peer = Peer::start("127.0.0.1");
    let credentials = server.credentials("uclient");
    let mut command = Command::new(require_tool("turnutils_uclient", "coturn"));
    if tls {
        command.args(["-S", "-E", &server.file("authority.pem")]);
    }
    command
        .args(["-t", "-c", "-L", from, "-p", &port.to_string(), "-n", "25", "-z", "10"])
        .args(["-u", &credentials.username, "-w", &credentials.password])
        .args(peer.flags())
        .arg("127.0.0.1");
    assert_nothing_lost(&run(&mut command, Duration::from_secs(40)));
}

#[test]
fn behind_nginx_and_haproxy_the_log_names_the_real_client_over_tcp_and_tls_on_one_port() {
    let [port, nginx, v1, v2] = free_ports();
    let server = behind_proxies(port, "");
    let _nginx = Proxy::nginx(
        &format!("server {{ listen 127.0.0.1:{nginx}; proxy_pass 127.0.0.1:{port}; proxy_protocol on; }}"),
        "",
        ("", ""),
        nginx,
    );
    // Its health checks are connections of its own: LOCAL.
    let _haproxy = Proxy::haproxy(
        &format!(
            "listen a\n  bind 127.0.0.1:{v1}\n  server s 127.0.0.1:{port} send-proxy check inter 100ms\n\
             listen b\n  bind 127.0.0.1:{v2}\n  server s 127.0.0.1:{port} send-proxy-v2 check inter 100ms\n"
        ),
        v2,
    );
    let runs = [(nginx, "127.0.0.21"), (v1, "127.0.0.22"), (v2, "127.0.0.23")];
    std::thread::scope(|scope| {
        for (proxy, from) in runs {
            for tls in [false, true] {
                let server = &server;
                scope.spawn(move || assert_served(server, proxy, from, tls));
            }
        }
    });
    for (_, from) in runs {
        wait_until("the lines of both sessions", Duration::from_secs(20), || {
            let log = server.log();
            let of = |transport: &str| {
                log.lines()
                    .any(|line| line.contains(&format!("{from}:")) && line.contains(&format!("transport={transport} ")))
            };
            (of("tcp") && of("tls")).then_some(())
        });
    }
    assert!(!server.log().contains("PROXY header"), "health checks are no mistake:\n{}", server.log());
}

#[test]
fn a_wrong_or_missing_header_ends_the_connection_and_is_counted_and_logged_once() {
    let [port, metrics] = free_ports();
    let server = behind_proxies(port, &format!("[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n"));
    let refused = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{answer:?}");
    };
    for bytes in [b"\0\x01\0\0\x21\x12\xA4\x42aaaaaaaaaaaa".as_slice(), b"PROXY TCP4 1.2.3.4\r\n", b"PROXY TCP9 \r\n"] {
        refused(bytes);
    }
    // Each connection is a worker's of its own, and is counted when that one has closed it.
    let reasons = ["missing", "malformed", "unsupported"];
    wait_until("the counters", Duration::from_secs(10), || {
        let text = scrape(metrics);
        let counted = |reason| text.contains(&format!("proxy_headers_refused_total{{reason=\"{reason}\"}} 1"));
        reasons.into_iter().all(counted).then_some(())
    });
    let lines = || server.log().lines().filter(|line| line.contains("PROXY header")).count();
    wait_until("the line of the log", Duration::from_secs(10), || (lines() > 0).then_some(()));
    assert_eq!(lines(), 1, "{}", server.log());
    // From elsewhere a header is not expected, and its bytes are what they are: no message.
    let mut other = connect_from(Ipv4Addr::new(127, 0, 0, 9), port);
    other.write_all(&binding()).unwrap();
    assert_eq!(mapped_address(&mut other), other.local_addr().unwrap());
    let mut other = connect_from(Ipv4Addr::new(127, 0, 0, 9), port);
    other.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = other.read_to_end(&mut answer);
    assert!(answer.is_empty());
    assert!(scrape(metrics).contains("proxy_headers_refused_total{reason=\"missing\"} 1"));
}

/// All of these come from one address, the proxy's, which may have 1000 connections.
#[test]
fn behind_nginx_1500_clients_are_served_at_once_each_by_its_own_address() {
    const CLIENTS: usize = 1500;
    assert!(raise_open_files() > 2 * CLIENTS as u64, "this test needs descriptors");
    let [port, nginx] = free_ports();
    let _server = behind_proxies(port, "");
    let _nginx = Proxy::nginx(
        &format!("server {{ listen 127.0.0.1:{nginx} backlog=4096; proxy_pass 127.0.0.1:{port}; proxy_protocol on; }}"),
        "",
        ("", ""),
        nginx,
    );
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (high, low) = ((number / 250) as u8, (number % 250) as u8);
            let mut client = connect_from(Ipv4Addr::new(127, 1, high, low + 1), nginx);
            client.write_all(&binding()).unwrap();
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(mapped_address(client), client.local_addr().unwrap());
    }
    // They are all there still.
    for client in &mut clients {
        client.write_all(&binding()).unwrap();
        assert_eq!(mapped_address(client), client.local_addr().unwrap());
    }
}

#[test]
fn behind_haproxy_that_ends_tls_the_server_name_leads_to_its_realm_all_the_same() {
    let [port, haproxy] = free_ports();
    let realm = "[[realm]]\nname = \"b.example\"\nsni = [\"turn.b.example\"]\n\
                 [[realm.users]]\nname = \"alice\"\npassword = \"of the other realm\"\n";
    let _server = behind_proxies(port, realm);
    let dir = tempfile::tempdir().unwrap();
    let combined = dir.path().join("both.pem").to_str().unwrap().to_owned();
    let (chain, key) = certificate("turn.b.example", "both", false);
    std::fs::write(&combined, chain + &key).unwrap();
    let _haproxy = Proxy::haproxy_with_certificate(
        &format!(
            "listen tls\n  bind 127.0.0.1:{haproxy} ssl crt @DIR@/certificate.pem\n  \
             server s 127.0.0.1:{port} send-proxy-v2 proxy-v2-options authority,ssl,crc32c\n"
        ),
        &combined,
        haproxy,
    );
    let at = SocketAddr::from(([127, 0, 0, 1], haproxy));
    assert_eq!(realm_by(at, &[&["-servername", "turn.b.example"]]), "b.example");
    let others = [&["-servername", "turn.a.example"][..], &["-noservername"]].map(|flags| realm_by(at, &[flags]));
    assert!(others[0] == others[1] && others[0] != "b.example", "{others:?}");
}

#[test]
fn libnice_is_served_at_the_tls_port_to_which_it_writes_plain_stun() {
    let [port] = free_ports();
    let extra_toml = format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\ntransport = [\"udp\", \"tcp\", \"tls\"]\n");
    let server = Spec { extra_toml, ..spec() }.start();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let result = nice_pair_at(address, "tls", &server.credentials("libnice"));
    assert_eq!(result["received"], serde_json::json!([MESSAGES, MESSAGES]), "{result:#}");
    let log = wait_until("the ends of its allocations", Duration::from_secs(20), || {
        let log = server.log();
        (log.matches("libnice").count() >= 2).then_some(log)
    });
    assert!(!log.contains("transport=tls "), "it speaks TLS now:\n{log}");
    // And what is TLS is served there, too.
    assert_served(&server, port, "127.0.0.1", true);
}

fn connect_from(ip: Ipv4Addr, port: u16) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(ip), 0).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn binding() -> Vec<u8> {
    [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], b"transaction."].concat()
}

/// What a Binding answer says: its only attribute is XOR-MAPPED-ADDRESS of IPv4.
fn mapped_address(stream: &mut TcpStream) -> SocketAddr {
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!((answer[..2].to_vec(), answer[20..22].to_vec()), (vec![1, 1], vec![0, 0x20]), "{answer:?}");
    let port = u16::from_be_bytes([answer[26], answer[27]]) ^ 0x2112;
    let ip = u32::from_be_bytes([answer[28], answer[29], answer[30], answer[31]]) ^ 0x2112_A442;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port)
}

pub(crate) fn scrape(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
