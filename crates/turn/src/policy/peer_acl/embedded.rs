//! IPv4 addresses inside IPv6 addresses: what a translator or tunnel on the way would make of the address.

use super::error::RuleProblem;

/// The IPv4 addresses that an IPv6 address carries by its form. Several can be there at once: Teredo holds two, and an
/// ISATAP interface identifier can stand in any prefix.
///
/// - IPv4-compatible `::/96` and IPv4-mapped `::ffff:0:0/96` (RFC 4291 section 2.5.5)
/// - SIIT IPv4-translated `::ffff:0:0:0/96` (RFC 2765 section 2.1)
/// - NAT64 well-known prefix `64:ff9b::/96` (RFC 6052 section 2.1)
/// - Teredo `2001::/32`: server, and client with all bits inverted (RFC 4380 section 4)
/// - 6to4 `2002::/16` (RFC 3056 section 2)
/// - ISATAP interface identifiers `0000:5efe` and `0200:5efe` (RFC 5214 section 6.1)
pub(super) fn embedded_ipv4(ip: u128) -> [Option<u32>; 3] {
    let low = ip as u32;
    let by_prefix = match (ip >> 32, ip >> 96, ip >> 112) {
        // `::` and `::1` have their own meaning (RFC 4291 sections 2.5.2 and 2.5.3).
        (0, _, _) if ip <= 1 => [None, None],
        (0 | 0xffff | 0xffff_0000 | 0x0064_ff9b_0000_0000_0000_0000, _, _) => [Some(low), None],
        (_, 0x2001_0000, _) => [Some((ip >> 64) as u32), Some(!low)],
        (_, _, 0x2002) => [Some((ip >> 80) as u32), None],
        _ => [None, None],
    };
    const UNIVERSAL_BIT: u32 = 0x0200_0000;
    let is_isatap = (ip >> 32) as u32 & !UNIVERSAL_BIT == 0x0000_5efe;
    let [first, second] = by_prefix;
    [first, second, is_isatap.then_some(low)]
}

/// A NAT64 prefix (RFC 6052 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nat64Prefix {
    network: u128,
    length: u8,
}

/// What a NAT64 prefix makes of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nat64Inner {
    /// The address is not in the prefix.
    NotInPrefix,
    /// The address is in the prefix but bits 64 to 71 are not zero, as RFC 6052 demands; translators may differ in what
    /// they make of it.
    Malformed,
    /// The IPv4 address that the translator sends to.
    Ipv4(u32),
}

impl Nat64Prefix {
    /// The prefix of a network and its length.
    ///
    /// # Errors
    /// What is wrong with it: a length that RFC 6052 does not define, or bits 64 to 71 set.
    pub(super) fn new(network: u128, length: u8) -> Result<Self, RuleProblem> {
        if !matches!(length, 32 | 40 | 48 | 56 | 64 | 96) {
            return Err(RuleProblem::Nat64Length);
        }
        if u_octet(network) != 0 {
            return Err(RuleProblem::Nat64Bits);
        }
        Ok(Self { network, length })
    }

    /// What the translator of this prefix makes of an address.
    pub(super) fn inner(&self, ip: u128) -> Nat64Inner {
        let length = u32::from(self.length);
        if (ip ^ self.network) >> (128 - length) != 0 {
            return Nat64Inner::NotInPrefix;
        }
        if u_octet(ip) != 0 {
            return Nat64Inner::Malformed;
        }
        if length == 96 {
            return Nat64Inner::Ipv4(ip as u32);
        }
        // The 32 bits follow the prefix and step over bits 64 to 71: cut these out and shift.
        let without_u_octet = (ip >> 64) << 56 | ip & (u128::MAX >> 72);
        Nat64Inner::Ipv4((without_u_octet >> (120 - 32 - length)) as u32)
    }
}

fn u_octet(ip: u128) -> u8 {
    (ip >> 56) as u8
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn v6(text: &str) -> u128 {
        text.parse::<Ipv6Addr>().unwrap().to_bits()
    }

    fn inner(text: &str) -> Vec<String> {
        embedded_ipv4(v6(text)).into_iter().flatten().map(|ip| Ipv4Addr::from_bits(ip).to_string()).collect()
    }

    #[test]
    fn every_form_yields_its_ipv4_address() {
        for form in [
            "::192.0.2.33",
            "::ffff:192.0.2.33",
            "::ffff:0:192.0.2.33",
            "64:ff9b::192.0.2.33",
            "2002:c000:221::1",
            "2002:c000:221:ffff:ffff:ffff:ffff:ffff",
            "fe80::5efe:192.0.2.33",
            "2620:1:2:3:200:5efe:192.0.2.33",
            "2620:1:2:3:0:5efe:c000:221",
        ] {
            assert_eq!(inner(form), ["192.0.2.33"], "{form}");
        }
    }

    #[test]
    fn teredo_yields_server_and_inverted_client() {
        assert_eq!(inner("2001:0:4136:e378:8000:63bf:3fff:fdd2"), ["65.54.227.120", "192.0.2.45"]);
    }

    #[test]
    fn isatap_is_seen_inside_6to4_as_well() {
        assert_eq!(inner("2002:c000:221::5efe:10.0.0.1"), ["192.0.2.33", "10.0.0.1"]);
    }

    #[test]
    fn a_native_address_yields_nothing() {
        for native in
            ["2620:1:2:3:100:5efe:c000:221", "2001:4860:4860::8888", "64:ff9b:1::192.0.2.33", "::1:0:0", "::", "::1"]
        {
            assert!(inner(native).is_empty(), "{native}");
        }
    }

    #[test]
    fn nat64_prefixes_of_every_length_match_the_table_of_rfc_6052() {
        for (prefix, length, text) in [
            ("2001:db8::", 32, "2001:db8:c000:221::"),
            ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
            ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::", 96, "2001:db8:122:344::192.0.2.33"),
        ] {
            let prefix = Nat64Prefix::new(v6(prefix), length).unwrap();
            assert_eq!(prefix.inner(v6(text)), Nat64Inner::Ipv4(0xc000_0221), "{text}/{length}");
            assert_eq!(prefix.inner(v6("2620::1")), Nat64Inner::NotInPrefix);
        }
    }

    #[test]
    fn nat64_address_with_bits_in_the_reserved_octet_is_malformed() {
        let prefix = Nat64Prefix::new(v6("2001:db8::"), 32).unwrap();
        assert_eq!(prefix.inner(v6("2001:db8:c000:221:100::")), Nat64Inner::Malformed);
        assert!(Nat64Prefix::new(v6("2001:db8:1:2:100::"), 96).is_err());
        assert!(Nat64Prefix::new(v6("2001:db8::"), 33).is_err());
    }
}
