//! Messages of TURN inside of messages of TURN: what a packet looks like that goes round between servers each of which is the other's
//! client. Each time round it is wrapped once more, until it is as long as a datagram can be.

use turnstone_stun::{AttributeType, HEADER_LEN, MAGIC_COOKIE};

use super::message_kind::MessageKind;

/// Send and Data indications.
const SEND: [u8; 2] = [0x00, 0x16];
const DATA: [u8; 2] = [0x00, 0x17];
/// More layers than fit into a datagram in indications.
const LAYERS_READ: usize = 2048;
/// Layers that a client behind other TURN servers may have around its packets.
const LAYERS_MAX: usize = 8;

/// The payload inside of all ChannelData messages and Send and Data indications around it, up to a number of them that no datagram has in
/// indications; and how many they are.
pub fn innermost(payload: &[u8]) -> (&[u8], usize) {
    peel(payload, LAYERS_READ)
}

/// Whether a packet has been wrapped by more servers than anybody has between himself and his peer.
#[inline]
pub fn is_nested_without_end(payload: &[u8]) -> bool {
    match payload.first() {
        // Neither media (RFC 7983) nor DTLS.
        Some(0 | 64..=127) => peel(payload, LAYERS_MAX + 1).1 > LAYERS_MAX,
        _ => false,
    }
}

fn peel(mut payload: &[u8], layers_max: usize) -> (&[u8], usize) {
    let mut layers = 0;
    while layers < layers_max
        && let Some(inner) = inner(payload)
    {
        payload = inner;
        layers += 1;
    }
    (payload, layers)
}

/// What is inside of one message, if it is as long as it says.
fn inner(payload: &[u8]) -> Option<&[u8]> {
    match MessageKind::of_datagram(payload)? {
        MessageKind::ChannelData(header) => {
            let padding = payload.len() - header.payload().end;
            (padding < 4).then(|| payload.get(header.payload()))?
        }
        MessageKind::Stun => {
            let ([t0, t1, l0, l1, c0, c1, c2, c3, ..], mut rest) = payload.split_first_chunk::<HEADER_LEN>()?;
            let is_indication = [SEND, DATA].contains(&[*t0, *t1]);
            if !is_indication
                || u32::from_be_bytes([*c0, *c1, *c2, *c3]) != MAGIC_COOKIE
                || usize::from(u16::from_be_bytes([*l0, *l1])) != rest.len()
            {
                return None;
            }
            loop {
                let ([k0, k1, l0, l1], behind) = rest.split_first_chunk::<4>()?;
                let len = usize::from(u16::from_be_bytes([*l0, *l1]));
                if u16::from_be_bytes([*k0, *k1]) == AttributeType::DATA.0 {
                    return behind.get(..len);
                }
                rest = behind.get(len.next_multiple_of(4)..)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnstone_stun::{Class, Encoder, Method, TransactionId};

    /// Wrapped once more, as this server and others do it.
    fn wrapped(payload: &[u8], n: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        match n % 4 {
            0 => {
                bytes.extend([0x40, n]);
                bytes.extend((payload.len() as u16).to_be_bytes());
                bytes.extend(payload);
                // As over a stream.
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            kind => {
                let method = if kind == 1 { Method::SEND } else { Method::DATA };
                let mut encoder = Encoder::new(&mut bytes, Class::Indication, method, TransactionId([n; 12]));
                encoder.xor_address(AttributeType::XOR_PEER_ADDRESS, ([203, 0, 113, n], 3478).into());
                encoder.attribute(AttributeType::DATA, payload);
                if kind == 3 {
                    encoder.attribute(AttributeType::SOFTWARE, b"another server").fingerprint();
                }
            }
        }
        bytes
    }

    #[test]
    fn what_is_wrapped_again_and_again_is_found_inside_and_is_too_much_from_the_ninth_time_on() {
        let media = [0x80; 99];
        let mut packet = media.to_vec();
        for layers in 0..500_usize {
            assert_eq!(innermost(&packet), (&media[..], layers));
            assert_eq!(is_nested_without_end(&packet), layers > LAYERS_MAX, "{layers}");
            packet = wrapped(&packet, layers as u8);
        }
    }

    #[test]
    fn what_only_looks_like_a_message_is_not_looked_into() {
        let good = wrapped(&[0x80; 40], 2);
        for at in [0, 1, 3, 4, 7, 23, 33] {
            let mut other = good.clone();
            other[at] ^= 0x20;
            assert!(innermost(&other).0.len() >= 40, "{at}");
        }
        for len in 0..good.len() {
            assert_eq!(innermost(&good[..len]).1, 0, "{len} bytes");
        }
        for odd in [&[][..], &[0x40], &[0x40, 0, 0, 9], &[0; 20], &[0x40, 0, 0, 0, 1, 2, 3, 4]] {
            assert_eq!(innermost(odd), (odd, 0));
            assert!(!is_nested_without_end(odd));
        }
        // As many layers as fit: no more are read than there can be of indications.
        let mut empty = Vec::new();
        for _ in 0..16_000_u16 {
            let len = (empty.len() as u16).to_be_bytes();
            empty.splice(0..0, [0x40, 0, len[0], len[1]]);
        }
        assert_eq!(innermost(&empty).1, LAYERS_READ);
    }
}
