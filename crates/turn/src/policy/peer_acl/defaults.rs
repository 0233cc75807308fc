//! What is denied without any configuration: the IANA special-purpose registries, and whatever is not assigned for unicast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::Family;

use super::rule::AddrRange;
use Lifted::{ByLoopback, ByNat64Prefix, ByOverride, Never, NeverForm};

/// What it takes to lift a default denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifted {
    /// An `allowed` rule marked `override`.
    ByOverride,
    /// Nothing.
    Never,
    /// Nothing, and the answer is that no peer has such an address.
    NeverForm,
    /// The NAT64 prefix being listed.
    ByNat64Prefix,
    /// `allow_loopback`.
    ByLoopback,
}

/// One default denial.
#[derive(Clone, Copy, Debug)]
pub(super) struct DefaultDenial {
    /// The range and what it is, for messages.
    pub(super) name: &'static str,
    pub(super) range: AddrRange,
    pub(super) lifted: Lifted,
}

/// Every default denial.
pub(super) fn default_denials() -> impl Iterator<Item = DefaultDenial> {
    let ipv4 = IPV4.iter().map(|(network, length, name, lifted)| {
        let last = *network as u64 + (u64::from(u32::MAX) >> length);
        let range = AddrRange { family: Family::V4, first: u128::from(*network), last: u128::from(last) };
        DefaultDenial { name, range, lifted: *lifted }
    });
    let ipv6 = IPV6.iter().map(|(network, length, name, lifted)| {
        let host_bits = u128::MAX.checked_shr(*length).unwrap_or(0);
        let range = AddrRange { family: Family::V6, first: *network, last: network | host_bits };
        DefaultDenial { name, range, lifted: *lifted }
    });
    ipv4.chain(ipv6)
}

/// Whether a relay may have this address: anything but what cannot be an address of a host.
pub(super) fn is_host_address(ip: IpAddr) -> bool {
    !(ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST))
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> u32 {
    Ipv4Addr::new(a, b, c, d).to_bits()
}

const fn v6(a: u16, b: u16, c: u16, d: u16) -> u128 {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_bits()
}

const IPV4: &[(u32, u32, &str, Lifted)] = &[
    (v4(0, 0, 0, 0), 8, "0.0.0.0/8, this host on this network", Never),
    (v4(10, 0, 0, 0), 8, "10.0.0.0/8, private use", ByOverride),
    (v4(100, 64, 0, 0), 10, "100.64.0.0/10, shared address space", ByOverride),
    (v4(127, 0, 0, 0), 8, "127.0.0.0/8, loopback", ByLoopback),
    // Microsoft's virtual address for the platform services of every Azure guest, metadata and DNS among them.
    (v4(168, 63, 129, 16), 32, "168.63.129.16, Azure platform services", ByOverride),
    (v4(169, 254, 0, 0), 16, "169.254.0.0/16, link-local and cloud metadata", ByOverride),
    (v4(172, 16, 0, 0), 12, "172.16.0.0/12, private use", ByOverride),
    (v4(192, 0, 0, 0), 24, "192.0.0.0/24, IETF protocol assignments", ByOverride),
    (v4(192, 0, 2, 0), 24, "192.0.2.0/24, documentation", ByOverride),
    (v4(192, 88, 99, 0), 24, "192.88.99.0/24, deprecated 6to4 relays", ByOverride),
    (v4(192, 168, 0, 0), 16, "192.168.0.0/16, private use", ByOverride),
    (v4(198, 18, 0, 0), 15, "198.18.0.0/15, benchmarking", ByOverride),
    (v4(198, 51, 100, 0), 24, "198.51.100.0/24, documentation", ByOverride),
    (v4(203, 0, 113, 0), 24, "203.0.113.0/24, documentation", ByOverride),
    (v4(224, 0, 0, 0), 4, "224.0.0.0/4, multicast", Never),
    (v4(240, 0, 0, 0), 4, "240.0.0.0/4, reserved", ByOverride),
    (v4(255, 255, 255, 255), 32, "255.255.255.255, broadcast", Never),
];

const IPV6: &[(u128, u32, &str, Lifted)] = &[
    // IANA assigns unicast addresses from 2000::/3 only, so that all of ::/3 and 4000:: upwards is out, named or not.
    (v6(0, 0, 0, 0), 3, "::/3, not assigned for unicast", ByOverride),
    (v6(0x4000, 0, 0, 0), 2, "4000::/2, not assigned for unicast", ByOverride),
    (v6(0x8000, 0, 0, 0), 1, "8000::/1, not assigned for unicast", ByOverride),
    (0, 128, "::, unspecified", Never),
    (1, 128, "::1, loopback", ByLoopback),
    (0, 96, "::/96, IPv4-compatible", NeverForm),
    (0xffff_0000_0000, 96, "::ffff:0:0/96, IPv4-mapped", NeverForm),
    (0xffff_0000_0000_0000, 96, "::ffff:0:0:0/96, IPv4-translated", NeverForm),
    (v6(0x64, 0xff9b, 0, 0), 96, "64:ff9b::/96, NAT64", ByNat64Prefix),
    // Where the inner IPv4 address stands depends on a prefix length that only the network's operator knows (RFC 8215).
    (v6(0x64, 0xff9b, 1, 0), 48, "64:ff9b:1::/48, local-use NAT64", ByNat64Prefix),
    (v6(0x100, 0, 0, 0), 64, "100::/64, discard-only", ByOverride),
    (v6(0x100, 0, 0, 1), 64, "100:0:0:1::/64, dummy prefix", ByOverride),
    (v6(0x200, 0, 0, 0), 7, "200::/7, deprecated NSAP addresses", ByOverride),
    // RFC 6156 section 9.1: the server must not accept Teredo or 6to4 peers.
    (v6(0x2001, 0, 0, 0), 32, "2001::/32, Teredo", Never),
    (v6(0x2001, 0, 0, 0), 23, "2001::/23, IETF protocol assignments", ByOverride),
    (v6(0x2001, 0xdb8, 0, 0), 32, "2001:db8::/32, documentation", ByOverride),
    (v6(0x2002, 0, 0, 0), 16, "2002::/16, 6to4", Never),
    (v6(0x3fff, 0, 0, 0), 20, "3fff::/20, documentation", ByOverride),
    (v6(0x5f00, 0, 0, 0), 16, "5f00::/16, segment routing", ByOverride),
    (v6(0xfd00, 0xec2, 0, 0) | 0x254, 128, "fd00:ec2::254, cloud metadata (AWS)", ByOverride),
    (v6(0xfc00, 0, 0, 0), 7, "fc00::/7, unique local", ByOverride),
    (v6(0xfe80, 0, 0, 0), 10, "fe80::/10, link-local", ByOverride),
    (v6(0xfec0, 0, 0, 0), 10, "fec0::/10, deprecated site-local", ByOverride),
    (v6(0xff00, 0, 0, 0), 8, "ff00::/8, multicast", Never),
];
