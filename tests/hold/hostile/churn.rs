//! A user makes an allocation and ends it, over and over: log lines, usage records and timers.

use std::net::Ipv4Addr;

use turnstone::client::Request;

use super::Until;
use crate::client::{Client, Target};
use crate::support::Transport;

pub(super) fn made_and_ended(target: &Target, until: &Until<'_>) -> u64 {
    let mut cycles = 0;
    while !until.is_over() {
        let Ok(mut client) = Client::connect(target, Transport::Udp, "churner", Ipv4Addr::new(127, 24, 0, 1)) else {
            continue;
        };
        // A client that is refused for its rate tries on.
        while !until.is_over() && client.allocate().is_ok() {
            let _ = client.ask(Request::Refresh { lifetime_secs: 0 });
            cycles += 1;
        }
    }
    cycles
}
