//! Data packets on the client's leg: ChannelData (RFC 8656 section 12.4), Send and Data indications (section 11).

use std::net::SocketAddr;

use turnstone_stun::{AttributeType, Class, Encoder, Message, Method, TransactionId};
use turnstone_turn::addr::Framing;

/// The channel number that every client uses: the first one.
pub const CHANNEL: u16 = 0x4000;

/// Bytes of a ChannelData message with a payload of `len` bytes.
pub fn channel_data_len(len: usize, framing: Framing) -> usize {
    4 + len + framing.channel_data_padding(len)
}

/// Appends a ChannelData message; `payload` writes `len` bytes.
pub fn channel_data(len: usize, framing: Framing, out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let end = out.len() + channel_data_len(len, framing);
    out.extend_from_slice(&CHANNEL.to_be_bytes());
    out.extend_from_slice(&(len as u16).to_be_bytes());
    payload(out);
    out.resize(end, 0);
}

/// Bytes of a Send indication with a payload of `len` bytes.
pub fn send_indication_len(peer: SocketAddr, len: usize) -> usize {
    let address = if peer.is_ipv4() { 8 } else { 20 };
    20 + 4 + address + 4 + len.next_multiple_of(4)
}

/// Appends a Send indication whose transaction id holds `number`.
pub fn send_indication(peer: SocketAddr, number: u64, out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    let id = TransactionId([a, b, c, d, e, f, g, h, 0, 0, 0, 0]);
    let mut data = Vec::new();
    payload(&mut data);
    let mut message = Encoder::new(out, Class::Indication, Method::SEND, id);
    message.xor_address(AttributeType::XOR_PEER_ADDRESS, peer).attribute(AttributeType::DATA, &data);
}

/// What a client received.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A peer's packet.
    Payload(&'a [u8]),
    /// A peer's packet on another channel, or with another address, than the one bound.
    WrongSource,
    /// A STUN message that carries no data.
    Response,
    /// Neither.
    Damaged,
}

/// Takes a received frame apart; `peer` is the only one that may be its source.
pub fn payload(frame: &[u8], peer: SocketAddr) -> Received<'_> {
    let Some((&[c0, c1, l0, l1], rest)) = frame.split_first_chunk::<4>() else { return Received::Damaged };
    if c0 >> 6 == 1 {
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        return match rest.get(..len) {
            Some(_) if u16::from_be_bytes([c0, c1]) != CHANNEL => Received::WrongSource,
            Some(payload) if rest.len() - len < 4 => Received::Payload(payload),
            _ => Received::Damaged,
        };
    }
    let Ok(message) = Message::parse(frame) else { return Received::Damaged };
    if message.method() != Method::DATA || message.class() != Class::Indication {
        return Received::Response;
    }
    match (message.xor_address(AttributeType::XOR_PEER_ADDRESS), message.get(AttributeType::DATA)) {
        (Some(source), Some(data)) if source == peer => Received::Payload(data),
        (Some(_), Some(_)) => Received::WrongSource,
        _ => Received::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn channel_data_comes_back_with_and_without_padding() {
        for (framing, padded_len) in [(Framing::Datagrams, 9), (Framing::Stream, 12)] {
            let mut frame = Vec::new();
            channel_data(5, framing, &mut frame, |out| out.extend_from_slice(b"hello"));
            assert_eq!(frame.len(), channel_data_len(5, framing));
            assert_eq!(frame.len(), padded_len);
            assert_eq!(payload(&frame, peer(1)), Received::Payload(b"hello"));
            frame[1] = 1;
            assert_eq!(payload(&frame, peer(1)), Received::WrongSource);
            frame.extend_from_slice(&[0; 4]);
            frame[1] = 0;
            assert_eq!(payload(&frame, peer(1)), Received::Damaged);
        }
        assert_eq!(payload(&[0x40, 0, 0, 5, 1], peer(1)), Received::Damaged);
    }

    #[test]
    fn a_data_indication_must_name_the_bound_peer() {
        let mut sent = Vec::new();
        send_indication(peer(7), 3, &mut sent, |out| out.extend_from_slice(b"hello"));
        assert_eq!(sent.len(), send_indication_len(peer(7), 5));
        assert_eq!(payload(&sent, peer(7)), Received::Response);
        let mut received = Vec::new();
        Encoder::new(&mut received, Class::Indication, Method::DATA, TransactionId([1; 12]))
            .xor_address(AttributeType::XOR_PEER_ADDRESS, peer(7))
            .attribute(AttributeType::DATA, b"hello");
        assert_eq!(payload(&received, peer(7)), Received::Payload(b"hello"));
        assert_eq!(payload(&received, peer(8)), Received::WrongSource);
        assert_eq!(payload(&received[..21], peer(7)), Received::Damaged);
    }
}
