//! Credentials that are signed as they should be, of names that no log, terminal or receiver of usage records expects.

use std::net::Ipv4Addr;

use turnstone::client::Request;

use super::Until;
use crate::client::{Client, Target};
use crate::support::Transport;

const NAMES: [&str; 8] =
    ["a\0b", "\0", "a\nb", "\u{1b}[2Jclear", "\u{9b}2J", "\u{202e}drowssap", "\"},{\"user\":\"x", "\u{feff}\u{7f}"];

pub(super) fn poisoned(target: &Target, until: &Until<'_>) -> u64 {
    let mut asked = 0_u64;
    while !until.is_over() {
        let name = NAMES[(asked % NAMES.len() as u64) as usize];
        if let Ok(mut client) = Client::connect(target, Transport::Udp, name, Ipv4Addr::new(127, 25, 0, 1))
            && let Ok(Ok(_)) = client.allocate()
        {
            let _ = client.ask(Request::Refresh { lifetime_secs: 0 });
        }
        asked += 1;
        until.rest(5);
    }
    asked
}
