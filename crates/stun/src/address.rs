//! MAPPED-ADDRESS and XOR-MAPPED-ADDRESS values (RFC 8489 sections 14.1 and 14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{MAGIC_COOKIE, TransactionId};

/// Decodes a MAPPED-ADDRESS value. `None` when the family is unknown or the length does not fit it.
pub fn decode_address(value: &[u8]) -> Option<SocketAddr> {
    let (&[_, family, p0, p1], ip) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([p0, p1]);
    let ip = match family {
        1 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        2 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Decodes an XOR-MAPPED-ADDRESS, XOR-PEER-ADDRESS or XOR-RELAYED-ADDRESS value.
pub fn decode_xor_address(value: &[u8], transaction_id: TransactionId) -> Option<SocketAddr> {
    decode_address(value).map(|addr| xor(addr, transaction_id))
}

/// Encodes an XOR address value into `out`; returns its length, 8 or 20 bytes.
pub fn encode_xor_address(addr: SocketAddr, transaction_id: TransactionId, out: &mut [u8; 20]) -> usize {
    encode_address(xor(addr, transaction_id), out)
}

/// Encodes a MAPPED-ADDRESS value into `out`; returns its length, 8 or 20 bytes.
pub fn encode_address(addr: SocketAddr, out: &mut [u8; 20]) -> usize {
    let [p0, p1] = addr.port().to_be_bytes();
    match addr.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            if let Some(start) = out.first_chunk_mut() {
                *start = [0, 1, p0, p1, a, b, c, d];
            }
            8
        }
        IpAddr::V6(ip) => {
            if let Some((head, rest)) = out.split_first_chunk_mut::<4>() {
                *head = [0, 2, p0, p1];
                rest.copy_from_slice(&ip.octets());
            }
            20
        }
    }
}

fn xor(addr: SocketAddr, transaction_id: TransactionId) -> SocketAddr {
    let port = addr.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = match addr.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(u32::from(ip) ^ MAGIC_COOKIE)),
        IpAddr::V6(ip) => {
            let mut mask = [0; 16];
            if let Some((cookie, id)) = mask.split_first_chunk_mut::<4>() {
                *cookie = MAGIC_COOKIE.to_be_bytes();
                id.copy_from_slice(&transaction_id.0);
            }
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) ^ u128::from_be_bytes(mask)))
        }
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId([0xB7, 0xE7, 0xA7, 0x01, 0xBC, 0x34, 0xD6, 0x86, 0xFA, 0x87, 0xDF, 0xAE]);

    #[test]
    fn addresses_of_both_families_survive_the_round_trip_at_their_extremes() {
        for text in ["0.0.0.0:0", "255.255.255.255:65535", "192.0.2.1:32853", "[::]:0", "[2001:db8::1]:443"] {
            let addr: SocketAddr = text.parse().unwrap();
            let mut value = [0xFF; 20];
            let len = encode_xor_address(addr, ID, &mut value);
            assert_eq!(len, if addr.is_ipv4() { 8 } else { 20 });
            assert_eq!(decode_xor_address(&value[..len], ID), Some(addr));
            let len = encode_address(addr, &mut value);
            assert_eq!(decode_address(&value[..len]), Some(addr));
        }
    }

    #[test]
    fn an_ipv6_address_is_masked_by_cookie_and_transaction_id_so_another_id_reads_another_address() {
        let addr: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        let mut value = [0; 20];
        encode_xor_address(addr, ID, &mut value);
        let other = decode_xor_address(&value, TransactionId([0; 12])).unwrap();
        assert_eq!(other.port(), addr.port());
        assert_ne!(other.ip(), addr.ip());
    }

    #[test]
    fn a_value_whose_length_does_not_fit_its_family_is_refused() {
        for len in 0..=24 {
            for family in 0..=3 {
                let mut value = vec![0; len];
                if let Some(byte) = value.get_mut(1) {
                    *byte = family;
                }
                let fits = matches!((family, len), (1, 8) | (2, 20));
                assert_eq!(decode_address(&value).is_some(), fits, "family {family}, {len} bytes");
                assert_eq!(decode_xor_address(&value, ID).is_some(), fits);
            }
        }
    }

    #[test]
    fn the_first_byte_is_ignored() {
        assert_eq!(decode_address(&[0xFF, 1, 0, 80, 192, 0, 2, 1]), Some("192.0.2.1:80".parse().unwrap()));
    }
}
