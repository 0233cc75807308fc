//! Ten addresses hold more connections than there may be, with a Binding each and no more.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use super::Until;
use super::unread::binding;
use crate::client::{Target, stream};

const ADDRESSES: usize = 10;
const CONNECTIONS: usize = 70;
const KEEPALIVE: Duration = Duration::from_secs(50);

pub(super) fn held(target: &Target, until: &Until<'_>) -> u64 {
    let mut held: Vec<Option<(TcpStream, Instant)>> = (0..ADDRESSES * CONNECTIONS).map(|_| None).collect();
    let mut opened = 0;
    while !until.is_over() {
        for (number, connection) in held.iter_mut().enumerate() {
            let is_gone = connection.as_mut().is_none_or(|(stream, said)| is_closed(stream) || !speak(stream, said));
            if is_gone && !until.is_over() {
                let from = Ipv4Addr::new(127, 30, 0, 1 + (number % ADDRESSES) as u8);
                *connection = stream(target.tcp, from).ok().and_then(|mut stream| {
                    stream.write_all(&binding()).ok()?;
                    stream.set_nonblocking(true).ok()?;
                    Some((stream, Instant::now()))
                });
                opened += u64::from(connection.is_some());
            }
        }
        until.rest(50);
    }
    opened
}

fn speak(stream: &mut TcpStream, said: &mut Instant) -> bool {
    if said.elapsed() < KEEPALIVE {
        return true;
    }
    *said = Instant::now();
    stream.write_all(&binding()).is_ok()
}

/// Reads what is there.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 256]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

pub(super) fn churned(target: &Target, until: &Until<'_>) -> u64 {
    let mut opened = 0_u64;
    while !until.is_over() {
        let from = Ipv4Addr::new(127, 31, (opened / 200) as u8, 1 + (opened % 200) as u8);
        let address = if opened.is_multiple_of(2) { target.tcp } else { target.tls };
        if let Ok(mut stream) = stream(address, from) {
            let _ = stream.write_all(&binding()[..(opened % 20) as usize]);
        }
        opened += 1;
        if opened.is_multiple_of(32) {
            until.rest(10);
        }
    }
    opened
}
