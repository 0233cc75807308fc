//! Datagrams that a proxy has passed on, each with a header of the PROXY protocol (version 2). Neither haproxy nor nginx sends that over UDP:
//! the proxy is the test's own, by the text of the protocol.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use turnstone::stun::{AttributeType, Class, Encoder, Message, Method, TransactionId};

use crate::client::Client;
use crate::support::wait_until;
use crate::{LIMIT, Server};

const REFUSED: &str = "turnstone_proxy_headers_refused_total";

/// Section 2.2: signature, version and command, UDP over IPv4, 12 bytes of addresses.
fn header(client: SocketAddrV4, server: SocketAddrV4) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c".to_vec();
    header.extend(client.ip().octets());
    header.extend(server.ip().octets());
    header.extend(client.port().to_be_bytes());
    header.extend(server.port().to_be_bytes());
    header
}

fn ask(socket: &UdpSocket, header: &[u8]) {
    let mut request = header.to_vec();
    let mut message = Vec::new();
    Encoder::new(&mut message, Class::Request, Method::BINDING, TransactionId([5; 12]));
    request.extend(message);
    socket.send(&request).unwrap();
}

/// The address that an answer names, which has no header in front.
fn mapped(socket: &UdpSocket) -> SocketAddr {
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).unwrap();
    let message = Message::parse(&buffer[..len]).unwrap();
    assert_eq!(message.class(), Class::Success);
    message.xor_address(AttributeType::XOR_MAPPED_ADDRESS).unwrap()
}

#[test]
fn the_client_of_a_datagram_is_the_one_that_the_header_names_and_the_answer_goes_to_the_proxy() {
    let server = Server::start("proxy-from = [\"127.0.0.1\"]", "");
    let proxy = UdpSocket::bind("127.0.0.1:0").unwrap();
    proxy.connect(server.address).unwrap();
    proxy.set_read_timeout(Some(LIMIT)).unwrap();
    let (ann, front) = ("198.51.100.7:4242".parse().unwrap(), "203.0.113.5:3478".parse().unwrap());
    ask(&proxy, &header(ann, front));
    assert_eq!(mapped(&proxy), SocketAddr::V4(ann));
    // One that the proxy sends for itself (LOCAL).
    ask(&proxy, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    assert_eq!(mapped(&proxy), proxy.local_addr().unwrap());
    // Without a header, or with one that is cut off or of TCP, nothing comes back: each costs a counter, and all a line.
    let mut tcp = header(ann, front);
    tcp[13] = 0x11;
    for (bad, kind) in [(Vec::new(), "missing"), (header(ann, front)[..20].to_vec(), "malformed"), (tcp, "unsupported")]
    {
        let before = server.metric(&format!("{REFUSED}{{reason=\"{kind}\"}}"));
        if bad.len() == 20 {
            proxy.send(&bad).unwrap();
        } else {
            ask(&proxy, &bad);
        }
        server.wait_for_metric(&format!("{REFUSED}{{reason=\"{kind}\"}}"), before + 1);
    }
    let lines = || server.inner.log().matches("PROXY").count();
    wait_until("the line in the log", LIMIT, || (lines() > 0).then_some(()));
    assert_eq!(lines(), 1, "{}", server.inner.log());
    // Others are served as always, and their bytes are never taken for a header.
    let other = UdpSocket::bind("127.0.0.2:0").unwrap();
    other.connect(server.address).unwrap();
    other.set_read_timeout(Some(LIMIT)).unwrap();
    ask(&other, &header(ann, front));
    ask(&other, &[]);
    assert_eq!(mapped(&other), other.local_addr().unwrap());
}

#[test]
fn clients_behind_one_proxy_are_apart_over_udp_and_dtls() {
    let server = Server::start("proxy-from = [\"127.0.0.1\"]", "[streams]\nconnections-per-ip-max = 1\n");
    let front: SocketAddrV4 = "203.0.113.5:3478".parse().unwrap();
    let of = |client: &str| header(client.parse().unwrap(), front);
    let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut clients: Vec<_> = ["198.51.100.7:4242", "198.51.100.8:4242"]
        .map(|client| Client::try_connect(&server, socket(), &of(client), LIMIT).expect("a place for each address"))
        .into_iter()
        .map(|client| client.with(server.inner.credentials("ann")))
        .collect();
    for client in &mut clients {
        client.allocate();
        client.echo(b"through the proxy");
    }
    let third = Client::try_connect(&server, socket(), &of("198.51.100.8:4243"), std::time::Duration::from_millis(300));
    assert!(third.is_none(), "one for each address, as it really is");
}
