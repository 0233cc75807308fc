//! Asks a STUN server which address this host's packets come from: `cargo run --example binding -- 127.0.0.1:3478`

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use turnstone_stun::{AttributeType, Class, Encoder, Message, Method, TransactionId};

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).ok_or("which server? binding ADDRESS:PORT")?;
    println!("{}", reflexive_address(server.parse()?)?);
    Ok(())
}

/// A Binding transaction (RFC 8489 section 6), sent again after 0.5, 1 and 2 seconds without an answer.
pub(crate) fn reflexive_address(server: SocketAddr) -> Result<SocketAddr, Box<dyn Error>> {
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
            // Anything else may come to this port, too: only what answers our request counts.
            match Message::parse(buffer.get(..len).unwrap_or_default()) {
                Ok(answer) if answer.answers(Method::BINDING, id) && answer.has_fingerprint() => {
                    let mapped = answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS);
                    return mapped.ok_or_else(|| format!("refused: {:?}", answer.error_code()).into());
                }
                _ => {}
            }
        }
    }
    Err("no answer".into())
}
