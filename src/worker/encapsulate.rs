//! Wraps a peer's payload for its client: ChannelData or a Data indication (RFC 8656 sections 11.3, 12.4 and 12.5).

use crate::stun::{AttributeType, Class, Encoder, HEADER_LEN, Method, TransactionId};
use crate::turn::Encapsulation;

/// The header to put in front of a payload, and how many padding bytes go behind it.
pub(super) struct Wrapping {
    header: [u8; 64],
    header_len: usize,
    /// Bytes of zero behind the payload.
    pub(super) padding: usize,
}

impl Wrapping {
    /// The wrapping of `payload_len` bytes; `None` when it cannot be expressed in 16 bits.
    pub(super) fn new(encapsulation: Encapsulation, payload_len: usize, is_stream: bool) -> Option<Self> {
        let len = u16::try_from(payload_len).ok()?;
        let to_multiple_of_4 = payload_len.next_multiple_of(4) - payload_len;
        let mut header = [0; 64];
        match encapsulation {
            Encapsulation::Channel(number) => {
                let ([n0, n1], [l0, l1]) = (number.to_be_bytes(), len.to_be_bytes());
                *header.first_chunk_mut()? = [n0, n1, l0, l1];
                // Over UDP padding is not required, over streams it is (RFC 8656 section 12.5).
                Some(Self { header, header_len: 4, padding: if is_stream { to_multiple_of_4 } else { 0 } })
            }
            Encapsulation::Data { peer, transaction_id } => {
                // The encoder writes the message but for the payload, then the lengths are put right.
                let mut message = Vec::with_capacity(64);
                let mut encoder =
                    Encoder::new(&mut message, Class::Indication, Method::DATA, TransactionId(transaction_id));
                encoder.xor_address(AttributeType::XOR_PEER_ADDRESS, peer.get());
                encoder.attribute(AttributeType::DATA, &[]);
                let header_len = message.len();
                let body = u16::try_from(header_len - HEADER_LEN + payload_len + to_multiple_of_4).ok()?;
                message.get_mut(2..4)?.copy_from_slice(&body.to_be_bytes());
                message.get_mut(header_len - 2..)?.copy_from_slice(&len.to_be_bytes());
                header.get_mut(..header_len)?.copy_from_slice(&message);
                Some(Self { header, header_len, padding: to_multiple_of_4 })
            }
        }
    }

    pub(super) fn header(&self) -> &[u8] {
        self.header.get(..self.header_len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PeerAddr;
    use crate::stun::{Message, decode_xor_address};

    #[test]
    fn a_data_indication_made_of_header_payload_and_padding_is_a_valid_message() {
        for peer in ["192.0.2.1:32853", "[2001:db8::5]:9"] {
            for len in [0usize, 1, 3, 4, 5, 1200] {
                let peer = PeerAddr::new(peer.parse().unwrap()).unwrap();
                let data = Encapsulation::Data { peer, transaction_id: [7; 12] };
                let wrapping = Wrapping::new(data, len, false).unwrap();
                let payload = vec![0xA5; len];
                let message = [wrapping.header(), &payload, &vec![0; wrapping.padding]].concat();
                let parsed = Message::parse(&message).unwrap();
                assert_eq!((parsed.class(), parsed.method()), (Class::Indication, Method::DATA));
                assert_eq!(parsed.get(AttributeType::DATA), Some(&payload[..]));
                let address = parsed.get(AttributeType::XOR_PEER_ADDRESS).unwrap();
                assert_eq!(decode_xor_address(address, TransactionId([7; 12])), Some(peer.get()));
            }
        }
    }

    #[test]
    fn channel_data_is_padded_on_streams_only() {
        let datagram = Wrapping::new(Encapsulation::Channel(0x4001), 5, false).unwrap();
        assert_eq!((datagram.header(), datagram.padding), (&[0x40, 0x01, 0, 5][..], 0));
        let stream = Wrapping::new(Encapsulation::Channel(0x4001), 5, true).unwrap();
        assert_eq!((stream.header(), stream.padding), (&[0x40, 0x01, 0, 5][..], 3));
        assert!(Wrapping::new(Encapsulation::Channel(0x4001), 65_536, false).is_none());
    }
}
