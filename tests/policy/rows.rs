//! The table of peer ranges denied by default, and every form an IPv4 address can take, as test data. Other test targets
//! include this file with `#[path]`.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One range of addresses.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub first: &'static str,
    pub last: &'static str,
    /// Whether the default policy denies it.
    pub denied: bool,
    pub label: &'static str,
}

const fn denied(first: &'static str, last: &'static str, label: &'static str) -> Row {
    Row { first, last, denied: true, label }
}

const fn open(first: &'static str, last: &'static str, label: &'static str) -> Row {
    Row { first, last, denied: false, label }
}

pub const IPV4_ROWS: &[Row] = &[
    denied("0.0.0.0", "0.255.255.255", "this network"),
    denied("10.0.0.0", "10.255.255.255", "private use 10/8"),
    denied("172.16.0.0", "172.31.255.255", "private use 172.16/12"),
    denied("192.168.0.0", "192.168.255.255", "private use 192.168/16"),
    denied("100.64.0.0", "100.127.255.255", "shared address space"),
    denied("127.0.0.0", "127.255.255.255", "loopback"),
    denied("169.254.0.0", "169.254.255.255", "link-local"),
    denied("192.0.0.0", "192.0.0.255", "IETF protocol assignments"),
    denied("192.0.2.0", "192.0.2.255", "TEST-NET-1"),
    denied("198.51.100.0", "198.51.100.255", "TEST-NET-2"),
    denied("203.0.113.0", "203.0.113.255", "TEST-NET-3"),
    denied("192.88.99.0", "192.88.99.255", "deprecated 6to4 relay anycast"),
    denied("198.18.0.0", "198.19.255.255", "benchmarking"),
    denied("224.0.0.0", "239.255.255.255", "multicast"),
    denied("240.0.0.0", "255.255.255.255", "reserved"),
    denied("255.255.255.255", "255.255.255.255", "broadcast"),
    denied("168.63.129.16", "168.63.129.16", "Azure platform services"),
    open("192.31.196.0", "192.31.196.255", "AS112"),
    open("192.52.193.0", "192.52.193.255", "AMT"),
    open("192.175.48.0", "192.175.48.255", "direct delegation AS112"),
];

pub const IPV6_ROWS: &[Row] = &[
    denied("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "below 2000::/3"),
    denied("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "above 2000::/3"),
    denied("::", "::", "unspecified"),
    denied("::1", "::1", "loopback"),
    denied("::ffff:0:0", "::ffff:ffff:ffff", "IPv4-mapped"),
    denied("::", "::ffff:ffff", "IPv4-compatible"),
    denied("::ffff:0:0:0", "::ffff:0:ffff:ffff", "IPv4-translated"),
    denied("64:ff9b::", "64:ff9b::ffff:ffff", "NAT64"),
    denied("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "local-use NAT64"),
    denied("100::", "100::ffff:ffff:ffff:ffff", "discard-only"),
    denied("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", "dummy prefix"),
    denied("200::", "3ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "NSAP"),
    denied("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "IETF protocol assignments"),
    denied("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "Teredo"),
    denied("2001:1::1", "2001:1::3", "anycast services"),
    denied("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "benchmarking"),
    denied("2001:3::", "2001:3:ffff:ffff:ffff:ffff:ffff:ffff", "AMT"),
    denied("2001:4:112::", "2001:4:112:ffff:ffff:ffff:ffff:ffff", "AS112"),
    denied("2001:10::", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff", "ORCHID"),
    denied("2001:20::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff", "ORCHIDv2"),
    denied("2001:30::", "2001:3f:ffff:ffff:ffff:ffff:ffff:ffff", "drone remote id"),
    denied("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"),
    denied("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "6to4"),
    denied("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "documentation 3fff::/20"),
    denied("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "segment routing"),
    denied("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "unique local"),
    denied("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "link-local"),
    denied("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "site-local"),
    denied("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"),
    open("2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", "direct delegation AS112"),
    open("2a00::", "2a0f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ordinary unicast"),
];

impl Row {
    fn ends(&self) -> (IpAddr, IpAddr) {
        (self.first.parse().unwrap(), self.last.parse().unwrap())
    }

    fn contains(&self, ip: IpAddr) -> bool {
        let (first, last) = self.ends();
        first.is_ipv4() == ip.is_ipv4() && first <= ip && ip <= last
    }

    /// The first and last address of the row and the neighbours of both, as far as there are any.
    pub fn probes(&self) -> Vec<IpAddr> {
        let (first, last) = self.ends();
        let mut probes = vec![first, last];
        probes.extend(shifted(first, -1));
        probes.extend(shifted(last, 1));
        probes
    }
}

/// Whether the default policy denies a native address: some row that has it is denied.
pub fn denied_by_default(ip: IpAddr) -> bool {
    IPV4_ROWS.iter().chain(IPV6_ROWS).any(|row| row.denied && row.contains(ip))
}

fn shifted(ip: IpAddr, by: i8) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_add_signed(by.into()).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add_signed(by.into()).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// How an IPv4 address can be written into an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Mapped,
    Compatible,
    Translated,
    SixToFour,
    TeredoServer,
    TeredoClient,
    Nat64,
    LocalNat64,
    /// ISATAP in a public prefix: denied only when the inner address is.
    Isatap,
    /// The same with the universal bit set.
    IsatapUniversal,
}

pub const FORMS: &[Form] = &[
    Form::Mapped,
    Form::Compatible,
    Form::Translated,
    Form::SixToFour,
    Form::TeredoServer,
    Form::TeredoClient,
    Form::Nat64,
    Form::LocalNat64,
    Form::Isatap,
    Form::IsatapUniversal,
];

impl Form {
    /// The IPv6 address of this form that carries `inner`; other embedded addresses in it are public.
    pub fn of(self, inner: Ipv4Addr) -> Ipv6Addr {
        let [a, b, c, d] = inner.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        match self {
            Self::Mapped => Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
            Self::Compatible => Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Self::Translated => Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Self::SixToFour => Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Self::TeredoServer => Ipv6Addr::new(0x2001, 0, high, low, 0, 0x1234, !0x0808, !0x0808),
            Self::TeredoClient => Ipv6Addr::new(0x2001, 0, 0x0808, 0x0808, 0, 0x1234, !high, !low),
            Self::Nat64 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Self::LocalNat64 => Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Self::Isatap => Ipv6Addr::new(0x2a00, 1, 2, 3, 0, 0x5efe, high, low),
            Self::IsatapUniversal => Ipv6Addr::new(0x2a00, 1, 2, 3, 0x0200, 0x5efe, high, low),
        }
    }

    /// Whether the default policy denies the form whatever it carries.
    pub fn denied_whatever_it_carries(self) -> bool {
        !matches!(self, Self::Isatap | Self::IsatapUniversal)
    }
}

/// Every probe of every row, native and in every form: the address, whether the default policy denies it, and a label.
pub fn matrix() -> Vec<(IpAddr, bool, String)> {
    let mut matrix = Vec::new();
    for row in IPV6_ROWS {
        for ip in row.probes() {
            matrix.push((ip, denied_by_default(ip), format!("{}: {ip}", row.label)));
        }
    }
    for row in IPV4_ROWS {
        for ip in row.probes() {
            matrix.push((ip, denied_by_default(ip), format!("{}: {ip}", row.label)));
            let IpAddr::V4(inner) = ip else { continue };
            for form in FORMS {
                let denied = form.denied_whatever_it_carries() || denied_by_default(ip);
                let outer = IpAddr::V6(form.of(inner));
                matrix.push((outer, denied, format!("{}: {inner} as {form:?} {outer}", row.label)));
            }
        }
    }
    matrix
}
