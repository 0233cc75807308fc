//! A user names the server's own listeners as peers, so that it would talk to itself.

use std::net::Ipv4Addr;

use turnstone::client::Request;
use turnstone::stun::{AttributeType, Class, Encoder, Method, TransactionId};

use super::Until;
use super::unread::binding;
use crate::client::{Client, Target};
use crate::support::Transport;

pub(super) fn to_listeners(target: &Target, until: &Until<'_>) -> u64 {
    let mut sent = 0;
    while !until.is_over() {
        let Ok(mut client) = Client::connect(target, Transport::Udp, "looper", Ipv4Addr::new(127, 23, 0, 1)) else {
            continue;
        };
        let Ok(Ok(_)) = client.allocate() else {
            until.rest(50);
            continue;
        };
        let Ok(bound) = client.ask(Request::ChannelBind { channel: 0x4000, peer: target.udp }) else {
            until.rest(50);
            continue;
        };
        assert_eq!(bound, Err(403), "the listener is a peer");
        let _ = client.ask(Request::CreatePermission { peer: target.udp });
        let mut indication = Vec::new();
        let mut encoder = Encoder::new(&mut indication, Class::Indication, Method::SEND, TransactionId([3; 12]));
        encoder.xor_address(AttributeType::XOR_PEER_ADDRESS, target.udp);
        encoder.attribute(AttributeType::DATA, &binding());
        while !until.is_over() {
            for _ in 0..16 {
                let _ = client.send(&indication);
                sent += 1;
            }
            until.rest(2);
        }
    }
    sent
}
