//! Cookies of DTLS (RFC 6347 section 4.2.1), from the keys that nonces are made with.
//!
//! A cookie is its time of issue (32 bits) and a MAC (64 bits) over that, the client's address and what its ClientHello asks for.

use std::hash::Hasher;
use std::net::IpAddr;

use subtle::ConstantTimeEq;

use super::nonce::NonceKeys;
use crate::addr::ClientAddr;

/// How long a cookie is good for: a client sends it back at once, or with its next retransmission.
const LIFETIME_SECS: u32 = 60;
/// What is hashed first, so that no cookie is a nonce.
const PURPOSE: &[u8] = b"turnstone dtls cookie";

/// A cookie as sent. With it a HelloVerifyRequest is shorter than any ClientHello.
pub type Cookie = [u8; 12];

impl NonceKeys {
    /// A cookie for `client`, whose hello asks for `parameters`.
    pub fn cookie(&self, unix_secs: u64, client: ClientAddr, parameters: &[&[u8]]) -> Cookie {
        let issued = (unix_secs as u32).to_be_bytes();
        let mac = self.cookie_mac(unix_secs, unix_secs, client, issued, parameters);
        let mut cookie = [0; 12];
        if let Some((time, tag)) = cookie.split_first_chunk_mut() {
            *time = issued;
            tag.copy_from_slice(&mac);
        }
        cookie
    }

    /// Whether a cookie is ours, this client's for these parameters, and not too old.
    pub fn is_cookie(&self, unix_secs: u64, client: ClientAddr, parameters: &[&[u8]], cookie: &[u8]) -> bool {
        let Ok(cookie) = <&Cookie>::try_from(cookie) else { return false };
        let Some((issued, tag)) = cookie.split_first_chunk() else { return false };
        let age_secs = (unix_secs as u32).wrapping_sub(u32::from_be_bytes(*issued));
        // Keys older than the lifetime of a nonce are gone.
        if age_secs > LIFETIME_SECS.min(self.lifetime_secs()) {
            return false;
        }
        let Some(issued_secs) = unix_secs.checked_sub(u64::from(age_secs)) else { return false };
        self.cookie_mac(unix_secs, issued_secs, client, *issued, parameters).ct_eq(tag).into()
    }

    fn cookie_mac(
        &self,
        unix_secs: u64,
        issued_secs: u64,
        client: ClientAddr,
        issued: [u8; 4],
        parameters: &[&[u8]],
    ) -> [u8; 8] {
        let ip = match client.get().ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let mut hasher = self.hasher(unix_secs, issued_secs);
        let fixed: [&[u8]; 4] = [PURPOSE, &issued, &ip, &client.get().port().to_be_bytes()];
        fixed.into_iter().for_each(|part| hasher.write(part));
        for part in parameters {
            hasher.write(&(part.len() as u64).to_be_bytes());
            hasher.write(part);
        }
        hasher.finish().to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn client(text: &str) -> ClientAddr {
        ClientAddr::new(text.parse().unwrap())
    }

    #[test]
    fn a_cookie_is_its_clients_for_its_hello_and_for_a_minute() {
        let keys = NonceKeys::new([7; 32], 600);
        let (ann, hello) = (client("192.0.2.1:5000"), [&b"random"[..], b"suites"]);
        let cookie = keys.cookie(NOW, ann, &hello);
        for later in [0, 1, 60] {
            assert!(keys.is_cookie(NOW + later, ann, &hello, &cookie), "{later}");
        }
        assert!(!keys.is_cookie(NOW + 61, ann, &hello, &cookie));
        assert!(!keys.is_cookie(NOW - 1, ann, &hello, &cookie), "from the future");
        for other in ["192.0.2.1:5001", "192.0.2.2:5000", "[::1]:5000"] {
            assert!(!keys.is_cookie(NOW, client(other), &hello, &cookie), "{other}");
        }
        for other in [[&b"random"[..], b"suite"], [b"rando", b"msuites"], [b"", b"randomsuites"]] {
            assert!(!keys.is_cookie(NOW, ann, &other, &cookie), "{other:?}");
        }
        assert!(!NonceKeys::new([8; 32], 600).is_cookie(NOW, ann, &hello, &cookie));
    }

    #[test]
    fn a_cookie_with_any_bit_changed_or_of_another_length_is_none() {
        let keys = NonceKeys::new([7; 32], 600);
        let ann = client("192.0.2.1:5000");
        let cookie = keys.cookie(NOW, ann, &[b"hello"]);
        for bit in 0..cookie.len() * 8 {
            let mut changed = cookie;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!keys.is_cookie(NOW, ann, &[b"hello"], &changed), "bit {bit}");
        }
        for wrong in [&[][..], &cookie[1..], &[&cookie[..], &[0]].concat()] {
            assert!(!keys.is_cookie(NOW, ann, &[b"hello"], wrong));
        }
    }

    #[test]
    fn cookies_outlive_a_change_of_keys() {
        let keys = NonceKeys::new([7; 32], 600);
        let ann = client("192.0.2.1:5000");
        let before = NOW / 600 * 600 + 599;
        let cookie = keys.cookie(before, ann, &[]);
        assert!(keys.is_cookie(before + 30, ann, &[], &cookie));
        // Keys of a nonce that lives for a second are gone soon.
        let short = NonceKeys::new([7; 32], 1);
        let cookie = short.cookie(NOW, ann, &[]);
        assert!(short.is_cookie(NOW + 1, ann, &[], &cookie) && !short.is_cookie(NOW + 2, ann, &[], &cookie));
    }
}
