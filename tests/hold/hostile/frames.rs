//! A user sends frames without payload, which cost the server as much as others, to allocations of its own.

use std::net::Ipv4Addr;

use turnstone::client::Request;

use super::Until;
use crate::client::{Client, Target, channel_data};
use crate::support::Transport;

/// Enough that every worker has some.
const RECEIVERS: u16 = 6;
const FRAMES: usize = 400;

/// A client of this transport with channels to allocations of others, which are kept.
fn sender(target: &Target, transport: Transport, from: Ipv4Addr) -> Option<(Client, Vec<Client>)> {
    let mut client = Client::connect(target, transport, "flooder", from).ok()?;
    client.allocate().ok()?.ok()?;
    let mut receivers = Vec::new();
    for number in 0..RECEIVERS {
        let mut receiver = Client::connect(target, Transport::Udp, "receiver", from).ok()?;
        let peer = receiver.allocate().ok()?.ok()?;
        client.ask(Request::ChannelBind { channel: 0x4000 + number, peer }).ok()?.ok()?;
        receivers.push(receiver);
    }
    Some((client, receivers))
}

pub(super) fn over_udp(target: &Target, until: &Until<'_>) -> u64 {
    let mut frames = 0;
    while !until.is_over() {
        let Some((mut client, _receivers)) = sender(target, Transport::Udp, Ipv4Addr::new(127, 22, 0, 1)) else {
            continue;
        };
        while !until.is_over() {
            for number in 0..64 {
                let channel = (0x4000 + number % RECEIVERS).to_be_bytes();
                let _ = client.send(&[channel[0], channel[1], 0, 0]);
                frames += 1;
            }
            std::thread::yield_now();
        }
    }
    frames
}

pub(super) fn over_tcp(target: &Target, until: &Until<'_>) -> u64 {
    let mut sent = 0;
    let frames: Vec<u8> = (0..FRAMES)
        .flat_map(|number| channel_data(0x4000 + number as u16 % RECEIVERS, &[7; 1][..number % 2]))
        .collect();
    while !until.is_over() {
        let Some((mut client, _receivers)) = sender(target, Transport::Tcp, Ipv4Addr::new(127, 22, 0, 2)) else {
            continue;
        };
        while !until.is_over() && client.send(&frames).is_ok() {
            sent += FRAMES as u64;
        }
    }
    sent
}
