//! Wraps a peer's payload for its client: ChannelData or a Data indication (RFC 8656 sections 11.3, 12.4 and 12.5).

use crate::addr::Framing;
use turnstone_stun::{AttributeType, HEADER_LEN, MAGIC_COOKIE, TransactionId, encode_xor_address};

use super::output::{Encapsulation, ToClient};

/// Class indication, method Data, as RFC 8489 figure 3 puts them together.
const DATA_INDICATION: u16 = 0x0017;
/// Type and length of an attribute.
const ATTRIBUTE_HEADER: usize = 4;

/// The header to put in front of a payload, and how many padding bytes go behind it: for whoever sends all three from where they are.
/// [`ToClient::wrap`] copies them together.
pub struct Wrapping {
    header: [u8; 64],
    header_len: usize,
    /// Bytes of zero behind the payload.
    pub padding: usize,
}

impl Wrapping {
    /// The wrapping of `payload_len` bytes; `None` when it cannot be expressed in 16 bits.
    #[inline]
    pub fn new(encapsulation: Encapsulation, payload_len: usize, framing: Framing) -> Option<Self> {
        let len = u16::try_from(payload_len).ok()?;
        let mut header = [0; 64];
        match encapsulation {
            Encapsulation::Channel(number) => {
                let ([n0, n1], [l0, l1]) = (number.to_be_bytes(), len.to_be_bytes());
                *header.first_chunk_mut()? = [n0, n1, l0, l1];
                Some(Self { header, header_len: 4, padding: framing.channel_data_padding(payload_len) })
            }
            Encapsulation::Data { peer, transaction_id } => {
                // Written by hand, not by the encoder, because the payload is not copied into the message.
                let mut address = [0; 20];
                let address_len = encode_xor_address(peer.get(), TransactionId(transaction_id), &mut address);
                let to_multiple_of_4 = payload_len.next_multiple_of(4) - payload_len;
                let header_len = HEADER_LEN + ATTRIBUTE_HEADER + address_len + ATTRIBUTE_HEADER;
                let body = u16::try_from(header_len - HEADER_LEN + payload_len + to_multiple_of_4).ok()?;
                let mut at = 0;
                let mut put = |bytes: &[u8]| {
                    if let Some(room) = header.get_mut(at..at + bytes.len()) {
                        room.copy_from_slice(bytes);
                    }
                    at += bytes.len();
                };
                put(&DATA_INDICATION.to_be_bytes());
                put(&body.to_be_bytes());
                put(&MAGIC_COOKIE.to_be_bytes());
                put(&transaction_id);
                put(&AttributeType::XOR_PEER_ADDRESS.0.to_be_bytes());
                put(&(address_len as u16).to_be_bytes());
                put(address.get(..address_len)?);
                put(&AttributeType::DATA.0.to_be_bytes());
                put(&len.to_be_bytes());
                Some(Self { header, header_len, padding: to_multiple_of_4 })
            }
        }
    }

    /// What goes in front of the payload.
    #[inline]
    pub fn header(&self) -> &[u8] {
        self.header.get(..self.header_len).unwrap_or_default()
    }
}

impl ToClient {
    /// Appends the message that brings `payload` to its client. Appends nothing if it is too long for a message, as a datagram of
    /// nearly 64 KiB is.
    pub fn wrap(&self, payload: &[u8], out: &mut Vec<u8>) {
        let framing = self.client.five_tuple.transport.framing();
        if let Some(wrapping) = Wrapping::new(self.encapsulation, payload.len(), framing) {
            out.extend_from_slice(wrapping.header());
            out.extend_from_slice(payload);
            out.resize(out.len() + wrapping.padding, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{PeerAddr, Transport};
    use crate::output::Client;
    use turnstone_stun::{Class, Message, Method, decode_xor_address};

    fn to_client(transport: Transport, encapsulation: Encapsulation) -> ToClient {
        let mut client = Client::over_udp("192.0.2.7:5000".parse().unwrap(), "203.0.113.5:3478".parse().unwrap());
        client.five_tuple.transport = transport;
        ToClient { client, encapsulation }
    }

    #[test]
    fn a_data_indication_made_of_header_payload_and_padding_is_a_valid_message() {
        for peer in ["192.0.2.1:32853", "[2001:db8::5]:9"] {
            for len in [0usize, 1, 3, 4, 5, 1200] {
                let peer = PeerAddr::new(peer.parse().unwrap()).unwrap();
                let data = Encapsulation::Data { peer, transaction_id: [7; 12] };
                let payload = vec![0xA5; len];
                let mut message = Vec::new();
                to_client(Transport::Udp, data).wrap(&payload, &mut message);
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
        let datagram = Wrapping::new(Encapsulation::Channel(0x4001), 5, Framing::Datagrams).unwrap();
        assert_eq!((datagram.header(), datagram.padding), (&[0x40, 0x01, 0, 5][..], 0));
        let stream = Wrapping::new(Encapsulation::Channel(0x4001), 5, Framing::Stream).unwrap();
        assert_eq!((stream.header(), stream.padding), (&[0x40, 0x01, 0, 5][..], 3));
        let mut message = Vec::new();
        to_client(Transport::Tls, Encapsulation::Channel(0x4001)).wrap(b"hello", &mut message);
        assert_eq!(message, b"\x40\x01\x00\x05hello\0\0\0");
    }

    #[test]
    fn what_does_not_fit_into_a_message_makes_none() {
        let peer = PeerAddr::new("[2001:db8::5]:9".parse().unwrap()).unwrap();
        for (encapsulation, max) in
            [(Encapsulation::Channel(0x4001), 65_535), (Encapsulation::Data { peer, transaction_id: [7; 12] }, 65_504)]
        {
            let mut message = Vec::new();
            to_client(Transport::Udp, encapsulation).wrap(&vec![0; max + 1], &mut message);
            assert!(message.is_empty(), "{encapsulation:?}");
            to_client(Transport::Udp, encapsulation).wrap(&vec![0; max], &mut message);
            assert!(message.len() > max, "{encapsulation:?}");
        }
    }
}
