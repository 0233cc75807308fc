//! Servers that are not TURN servers, or bad ones, made for the test.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use turnstone::stun::{
    AttributeType, Class, Encoder, ErrorCode, IntegrityKind, Key, Message, Method, PasswordAlgorithm,
};

use super::Probe;
use super::support::{EchoPeer, Spec};

/// A TCP server that does as `answer` says with what it first reads, until the test ends.
fn tcp_server(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 4096];
            let len = stream.read(&mut buffer).unwrap_or(0);
            let _ = stream.write_all(&answer(&buffer[..len]));
            // Holds the connection open as long as the client does.
            while stream.read(&mut buffer).is_ok_and(|len| len > 0) {}
        }
    });
    address
}

/// A UDP server that answers requests; it ends when dropped.
struct UdpServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl UdpServer {
    fn start(mut answer: impl FnMut(Message<'_>, SocketAddr, &mut Vec<u8>) + Send + 'static) -> UdpServer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let server = UdpServer { address: socket.local_addr().unwrap(), stop: Arc::default() };
        let stop = Arc::clone(&server.stop);
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                let Ok((len, client)) = socket.recv_from(&mut buffer) else { continue };
                let mut out = Vec::new();
                // ChannelData is no message.
                let Ok(request) = Message::parse(&buffer[..len]) else { continue };
                answer(request, client, &mut out);
                if !out.is_empty() {
                    socket.send_to(&out, client).unwrap();
                }
            }
        });
        server
    }

    fn probe(&self) -> Probe {
        Probe::of(&format!("turn:{}", self.address)).with_password("user", "pass").args(&["--timeout", "2"])
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn key() -> Key {
    Key::long_term(PasswordAlgorithm::Md5, b"user", b"realm", b"pass")
}

fn bind<'b>(out: &'b mut Vec<u8>, request: &Message<'_>, client: SocketAddr) -> Encoder<'b> {
    let mut answer = Encoder::new(out, Class::Success, request.method(), request.transaction_id());
    answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, client);
    answer
}

fn refuse<'b>(out: &'b mut Vec<u8>, request: &Message<'_>, code: ErrorCode) -> Encoder<'b> {
    let mut answer = Encoder::new(out, Class::Error, request.method(), request.transaction_id());
    answer.error_code(code);
    answer
}

/// Binding and 401 as they should be; `false` for what is left.
fn begin(request: &Message<'_>, client: SocketAddr, out: &mut Vec<u8>) -> bool {
    if request.method() == Method::BINDING {
        bind(out, request, client);
    } else if request.integrity().is_none() {
        refuse(out, request, ErrorCode::UNAUTHENTICATED)
            .attribute(AttributeType::REALM, b"realm")
            .attribute(AttributeType::NONCE, b"nonce");
    }
    !out.is_empty()
}

#[test]
fn a_server_that_sends_clients_to_itself_and_one_that_does_not_say_where_to_are_failures() {
    let own: Arc<OnceLock<SocketAddr>> = Arc::default();
    let known = Arc::clone(&own);
    let circle = UdpServer::start(move |request, client, out| match request.method() {
        Method::BINDING => drop(bind(out, &request, client)),
        _ => drop(
            refuse(out, &request, ErrorCode::TRY_ALTERNATE)
                .address(AttributeType::ALTERNATE_SERVER, *known.get().unwrap()),
        ),
    });
    own.set(circle.address).unwrap();
    let probed = circle.probe().run();
    probed.expect_exit(2, "fail").expect("redirect", "fail", "they go round in a circle");
    let nowhere = UdpServer::start(|request, client, out| match request.method() {
        Method::BINDING => drop(bind(out, &request, client)),
        _ => drop(refuse(out, &request, ErrorCode::TRY_ALTERNATE)),
    });
    nowhere.probe().run().expect_exit(2, "fail").expect("redirect", "fail", "without an ALTERNATE-SERVER");
}

#[test]
fn an_echo_service_is_no_turn_server() {
    let tcp = tcp_server(<[u8]>::to_vec);
    let probed = Probe::of(&format!("turn:{tcp}?transport=tcp")).run();
    probed.expect_exit(2, "fail").expect("binding", "fail", "echo service");
    let udp = EchoPeer::start("127.0.0.1");
    Probe::of(&format!("stun:{}", udp.address())).run().expect("binding", "fail", "echo service");
}

#[test]
fn another_protocol_is_shown_as_it_answers() {
    let http = tcp_server(|_| b"HTTP/1.1 400 Bad Request\r\nContent-Length: 21569\r\n\r\n\x1b[2J".to_vec());
    let probed = Probe::of(&format!("turn:{http}?transport=tcp")).args(&["--timeout", "2"]).run();
    probed.expect_exit(2, "fail").expect("binding", "fail", "\"HTTP/1.1 400 Bad Request\\r\\n");
    let probed = Probe::of(&format!("turns:{http}")).run();
    probed.expect_exit(2, "fail").expect("tls", "fail", "does not speak TLS");
    let silent = tcp_server(|_| Vec::new());
    let probed = Probe::of(&format!("turn:{silent}?transport=tcp")).args(&["--timeout", "0.5"]).run();
    probed.expect_exit(2, "fail").expect("binding", "fail", "hardly a STUN server");
    let probed = Probe::of(&format!("turns:{silent}")).args(&["--timeout", "0.5"]).run();
    probed.expect_exit(2, "fail").expect("tls", "fail", "hardly a TLS port");
}

#[test]
fn a_silent_udp_port_is_asked_again_and_then_given_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("stun:{}", silent.local_addr().unwrap());
    let probed = Probe::of(&url).args(&["--timeout", "2"]).run();
    // At 0, 0.5 and 1.5 s (RFC 8489 section 6.2.1).
    probed.expect_exit(2, "fail").expect("binding", "fail", "(3 transmissions)");
    silent.set_nonblocking(true).unwrap();
    let mut received = Vec::new();
    let mut buffer = [0; 100];
    while let Ok(len) = silent.recv(&mut buffer) {
        received.push(buffer[..len].to_vec());
    }
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|request| *request == received[0]), "a retransmission is the same message");
}

#[test]
fn a_relay_that_asks_for_no_credential_fails() {
    let released = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&released);
    let server = UdpServer::start(move |request, client, out| {
        let mut answer = bind(out, &request, client);
        answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS, client);
        let lifetime_secs = if request.method() == Method::REFRESH { 0 } else { 600 };
        count.fetch_add(u32::from(request.method() == Method::REFRESH), Ordering::Relaxed);
        answer.u32(AttributeType::LIFETIME, lifetime_secs);
    });
    let probed = server.probe().run();
    probed.expect_exit(2, "fail").expect("unauthenticated", "fail", "OPEN RELAY");
    assert_eq!(released.load(Ordering::Relaxed), 1, "the allocation is given back");
}

#[test]
fn a_401_that_nobody_can_answer_fails() {
    for (missing, words) in [(AttributeType::REALM, "without REALM"), (AttributeType::NONCE, "without NONCE")] {
        let server = UdpServer::start(move |request, client, out| {
            if request.method() == Method::BINDING {
                bind(out, &request, client);
                return;
            }
            let mut answer = refuse(out, &request, ErrorCode::UNAUTHENTICATED);
            for kind in [AttributeType::REALM, AttributeType::NONCE].into_iter().filter(|kind| *kind != missing) {
                answer.attribute(kind, b"value");
            }
        });
        server.probe().run().expect_exit(2, "fail").expect("unauthenticated", "fail", words);
    }
}

#[test]
fn a_response_that_is_signed_wrongly_or_not_at_all_is_not_believed() {
    let other = Key::long_term(PasswordAlgorithm::Md5, b"user", b"realm", b"other");
    for forged in [None, Some(other)] {
        let server = UdpServer::start(move |request, client, out| {
            if begin(&request, client, out) {
                return;
            }
            let mut answer = bind(out, &request, client);
            answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS, client).u32(AttributeType::LIFETIME, 600);
            if let Some(forged) = &forged {
                answer.integrity(IntegrityKind::Sha1, forged);
            }
        });
        server.probe().run().expect_exit(2, "fail").expect("allocate", "fail", "missing or wrong MESSAGE-INTEGRITY");
    }
}

#[test]
fn a_refusal_signed_with_another_key_is_not_believed() {
    let server = UdpServer::start(|request, client, out| {
        if !begin(&request, client, out) {
            let other = Key::long_term(PasswordAlgorithm::Md5, b"user", b"realm", b"other");
            refuse(out, &request, ErrorCode::QUOTA_REACHED).integrity(IntegrityKind::Sha1, &other);
        }
    });
    server.probe().run().expect_exit(2, "fail").expect("allocate", "fail", "missing or wrong MESSAGE-INTEGRITY");
}

#[test]
fn data_that_never_arrives_and_unsigned_refusals_are_seen() {
    // Grants everything and relays nothing; IPv6 it has not.
    let server = UdpServer::start(|request, client, out| {
        if request.class() == Class::Indication || begin(&request, client, out) {
            return;
        }
        if request.get(AttributeType::REQUESTED_ADDRESS_FAMILY).is_some() {
            refuse(out, &request, ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED).integrity(IntegrityKind::Sha1, &key());
            return;
        }
        let private = request.get(AttributeType::XOR_PEER_ADDRESS).is_some_and(|value| {
            let peer = turnstone::stun::decode_xor_address(value, request.transaction_id()).unwrap();
            !peer.ip().is_loopback()
        });
        if private {
            refuse(out, &request, ErrorCode::FORBIDDEN);
            return;
        }
        let mut answer = bind(out, &request, client);
        let lifetime_secs = if request.method() == Method::REFRESH { 0 } else { 600 };
        answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS, client).u32(AttributeType::LIFETIME, lifetime_secs);
        answer.integrity(IntegrityKind::Sha1, &key());
    });
    let probed = server.probe().run();
    probed.expect_exit(2, "fail").expect("echo-send", "fail", "did not arrive").expect("safety", "ok", "refuses");
    probed.expect("release", "note", "still answered").expect("integrity", "warn", "403 to CreatePermission");
}

#[test]
fn a_path_that_loses_every_fourth_datagram_is_survived() {
    let server = Spec::local().start();
    let upstream = server.udp();
    let front = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = front.local_addr().unwrap();
    let counter = Arc::new(AtomicU32::new(0));
    std::thread::spawn(move || forward(&front, upstream, &counter));
    let probe = Probe::of(&format!("turn:{address}")).with_secret(&server).args(&["--strict", "--timeout", "20"]);
    probe.run().expect_exit(0, "note").expect("binding", "ok", "there is a NAT in between");
}

/// A NAT that loses every fourth datagram, either way.
fn forward(front: &UdpSocket, upstream: SocketAddr, counter: &Arc<AtomicU32>) {
    let mut clients = std::collections::HashMap::new();
    let lost = |counter: &AtomicU32| counter.fetch_add(1, Ordering::Relaxed) % 4 == 3;
    let mut buffer = [0; 4096];
    while let Ok((len, client)) = front.recv_from(&mut buffer) {
        let outside: &UdpSocket = clients.entry(client).or_insert_with(|| {
            let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
            outside.connect(upstream).unwrap();
            let (back, front) = (outside.try_clone().unwrap(), front.try_clone().unwrap());
            let counter = Arc::clone(counter);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(len) = back.recv(&mut buffer) {
                    if !lost(&counter) {
                        let _ = front.send_to(&buffer[..len], client);
                    }
                }
            });
            outside
        });
        if !lost(counter) {
            let _ = outside.send(&buffer[..len]);
        }
    }
}
