//! A stranger pipelines Binding requests and reads no answer.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream};

use rustls::{ClientConnection, StreamOwned};
use turnstone::stun::{Class, Encoder, Method, TransactionId};

use super::Until;
use crate::client::{Target, stream};

const CONNECTIONS: u8 = 24;
const REQUESTS: usize = 200;

/// A Binding request.
pub(super) fn binding() -> Vec<u8> {
    let mut request = Vec::new();
    Encoder::new(&mut request, Class::Request, Method::BINDING, TransactionId([9; 12]));
    request
}

pub(super) fn over_tcp(target: &Target, until: &Until<'_>) -> u64 {
    flood(until, |number| {
        let stream = stream(target.tcp, Ipv4Addr::new(127, 20, 0, number)).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    })
}

pub(super) fn over_tls(target: &Target, until: &Until<'_>) -> u64 {
    flood(until, |number| tls(target, Ipv4Addr::new(127, 21, 0, number)))
}

fn tls(target: &Target, from: Ipv4Addr) -> Option<StreamOwned<ClientConnection, TcpStream>> {
    let mut stream = crate::support::tls_over(stream(target.tls, from).ok()?, target.authority_file());
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).ok()?;
    }
    stream.sock.set_nonblocking(true).ok()?;
    Some(stream)
}

fn flood<S: Write>(until: &Until<'_>, connect: impl Fn(u8) -> Option<S>) -> u64 {
    let requests = binding().repeat(REQUESTS);
    let mut connections: Vec<Option<S>> = (0..CONNECTIONS).map(|_| None).collect();
    let mut bytes = 0;
    while !until.is_over() {
        for (connection, number) in connections.iter_mut().zip(1..) {
            let Some(open) = connection else {
                *connection = connect(number);
                continue;
            };
            // A part of a request may be left over: the next one begins in its middle, and the server closes the connection.
            match open.write(&requests) {
                Ok(written) => bytes += written as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => *connection = None,
            }
        }
        until.rest(2);
    }
    bytes / 20
}
