//! One user takes every allocation that it gets, and keeps it.

use std::net::Ipv4Addr;

use super::Until;
use crate::client::{Client, Target};
use crate::support::Transport;

pub(super) fn taken(target: &Target, until: &Until<'_>) -> u64 {
    let (mut kept, mut tried) = (Vec::new(), 0);
    while !until.is_over() {
        let Ok(mut client) = Client::connect(target, Transport::Udp, "greedy", Ipv4Addr::new(127, 26, 0, 1)) else {
            continue;
        };
        tried += 1;
        match client.allocate() {
            Ok(Ok(_)) => kept.push(client),
            _ => until.rest(20),
        }
    }
    tried
}
