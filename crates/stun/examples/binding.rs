//! Asks a STUN server which address this host's packets come from: `cargo run --example binding -- 127.0.0.1:3478`

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use turnstone_stun::{AttributeType, Class, Encoder, Message, Method, TransactionId};

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).ok_or("which server? binding HOST:PORT")?;
    println!("{}", reflexive_address(&server)?);
    Ok(())
}

/// A Binding transaction (RFC 8489 section 6), sent again after 0.5, 1 and 2 seconds without an answer.
pub(crate) fn reflexive_address(server: impl ToSocketAddrs) -> Result<SocketAddr, Box<dyn Error>> {
    let server = server.to_socket_addrs()?.next().ok_or("the name has no address")?;
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(server)?;

    let mut id = TransactionId([0; 12]);
    getrandom::fill(&mut id.0)?;
    let mut request = Vec::new();
    Encoder::new(&mut request, Class::Request, Method::BINDING, id).fingerprint();

    let mut buffer = [0; 1500];
    for wait_ms in [500, 1_000, 2_000, 4_000] {
        socket.send(&request)?;
        socket.set_read_timeout(Some(Duration::from_millis(wait_ms)))?;
        while let Ok(len) = socket.recv(&mut buffer) {
            let Ok(response) = Message::parse(buffer.get(..len).unwrap_or_default()) else { continue };
            // Anything else may come to this port, too: only what answers our request counts.
            if response.transaction_id() != id || response.method() != Method::BINDING || !response.has_fingerprint() {
                continue;
            }
            return match response.class() {
                Class::Success => response.xor_address(AttributeType::XOR_MAPPED_ADDRESS).ok_or("no address".into()),
                _ => Err(format!("refused: {:?}", response.error_code()).into()),
            };
        }
    }
    Err("no answer".into())
}
