//! ClientHellos: each whole one costs the server a signature, each that is not whole the memory of what has come.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::Until;
use crate::client::{Target, stream};

const ENDLESS: u8 = 30;
const AT_ONCE: u64 = 300;

pub(super) fn endless(target: &Target, until: &Until<'_>) -> u64 {
    // A record of a handshake message of 16 MB, as far as it goes.
    let mut record = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 0x4000, 0x55);
    let more = [&[0x16, 3, 1, 0x40, 0][..], &[0x55; 0x4000]].concat();
    let mut connections: Vec<Option<(TcpStream, bool)>> = (0..ENDLESS).map(|_| None).collect();
    let mut sent = 0;
    while !until.is_over() {
        for (connection, number) in connections.iter_mut().zip(1..) {
            let Some((open, has_begun)) = connection else {
                let open = stream(target.tls, Ipv4Addr::new(127, 40, 0, number));
                *connection = open.ok().filter(|open| open.set_nonblocking(true).is_ok()).map(|open| (open, false));
                continue;
            };
            match open.write(if *has_begun { &more } else { &record }) {
                Ok(_) => (*has_begun, sent) = (true, sent + 1),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => *connection = None,
            }
        }
        until.rest(20);
    }
    sent
}

pub(super) fn many(target: &Target, until: &Until<'_>) -> u64 {
    let hello = client_hello();
    let mut sent = 0;
    while !until.is_over() {
        let mut connections = Vec::new();
        for number in 0..AT_ONCE {
            let from = Ipv4Addr::new(127, 41, 0, 1 + (number % 200) as u8);
            connections.extend(stream(target.tls, from).ok());
            if until.is_over() {
                break;
            }
        }
        for connection in &mut connections {
            sent += u64::from(connection.write_all(&hello).is_ok());
        }
        until.rest(100);
    }
    sent
}

/// What a client says first.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
