//! Requests and nonsense from one address after another, as if their sources were forged. Everything in 127.0.0.0/8 is this machine.

use std::net::{Ipv4Addr, UdpSocket};

use turnstone::stun::{Class, Encoder, Method, TransactionId};

use super::Until;
use super::unread::binding;
use crate::client::Target;

/// An address of 127.64.0.0/16 in most cases, and one of another /16 in the others.
fn source(number: u32) -> Ipv4Addr {
    let [_, b, c, d] = number.to_be_bytes();
    let second = if number.is_multiple_of(4) { 65 + c % 60 } else { 64 };
    Ipv4Addr::new(127, second, d, 1 + (b ^ c) % 250)
}

fn from_everywhere(target: &Target, until: &Until<'_>, mut packets: impl FnMut(u32) -> Vec<Vec<u8>>) -> u64 {
    let mut sent = 0;
    for number in 0.. {
        if until.is_over() {
            break;
        }
        let Ok(socket) = UdpSocket::bind((source(number), 0)) else {
            until.rest(50);
            continue;
        };
        for packet in packets(number) {
            sent += u64::from(socket.send_to(&packet, target.udp).is_ok());
        }
        if number.is_multiple_of(64) {
            until.rest(1);
        }
    }
    sent
}

pub(super) fn networks(target: &Target, until: &Until<'_>) -> u64 {
    let mut allocate = Vec::new();
    Encoder::new(&mut allocate, Class::Request, Method::ALLOCATE, TransactionId([4; 12]));
    from_everywhere(target, until, |_| vec![binding(), allocate.clone(), allocate.clone()])
}

pub(super) fn nonsense(target: &Target, until: &Until<'_>) -> u64 {
    let mut state = 1_u32;
    from_everywhere(target, until, |number| {
        let len = number as usize % 1200;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut packet: Vec<u8> = (0..len).map(|_| random()).collect();
        // Half of them look like STUN at first.
        if number.is_multiple_of(2) && len > 20 {
            packet[..20].copy_from_slice(&binding());
            packet[2..4].copy_from_slice(&((len - 20) as u16).to_be_bytes());
        }
        vec![packet]
    })
}
