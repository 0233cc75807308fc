//! How far an address reaches: the one place that knows private addresses by their ranges.

use std::net::{IpAddr, Ipv6Addr};

/// From where packets to an address can arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// From nowhere: it stands for every address, or for none.
    Unspecified,
    /// From its own host.
    Loopback,
    /// From its own link: 169.254.0.0/16, fe80::/10.
    Link,
    /// From the network of a site: RFC 1918, and unique local addresses (RFC 4193).
    Private,
    /// From the network of a carrier, or from an overlay network: 100.64.0.0/10 (RFC 6598).
    Shared,
    /// It is of many hosts: multicast, and 255.255.255.255.
    Many,
    /// From elsewhere, as far as its range tells.
    Public,
}

impl Reach {
    /// The reach of an address; an IPv4 address in IPv6 (::ffff:0:0/96) has its own.
    pub fn of(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let (is_link_local, is_private, is_broadcast, is_shared) = match ip {
            IpAddr::V4(v4) => {
                (v4.is_link_local(), v4.is_private(), v4.is_broadcast(), matches!(v4.octets(), [100, 64..=127, ..]))
            }
            IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.is_unique_local(), false, false),
        };
        match () {
            () if ip.is_unspecified() => Self::Unspecified,
            () if ip.is_loopback() => Self::Loopback,
            () if is_link_local => Self::Link,
            () if is_private => Self::Private,
            () if is_shared => Self::Shared,
            () if ip.is_multicast() || is_broadcast => Self::Many,
            () => Self::Public,
        }
    }

    /// Whether hosts of a local network have such addresses. Those of a link are not meant: clouds have their metadata at one.
    pub fn is_of_lan(self) -> bool {
        matches!(self, Self::Private | Self::Shared)
    }

    /// Whether it is an address that hosts have in their own networks, so that browsers bring it along as a candidate (RFC 8445 section
    /// 5.1.1). One at which clouds have their metadata is none.
    pub fn is_host_candidate(ip: IpAddr) -> bool {
        let reach = Self::of(ip);
        ip != IpAddr::V6(EC2_METADATA) && (reach.is_of_lan() || reach == Self::Link && ip.is_ipv6())
    }
}

/// Where AWS has its instances' metadata over IPv6, among unique local addresses.
const EC2_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_clouds_is_no_candidate() {
        for (ip, is_candidate) in [
            ("10.0.0.1", true),
            ("fd00:ec2::253", true),
            ("fe80::1", true),
            ("fd00:ec2::254", false),
            ("169.254.169.254", false),
            ("::1", false),
            ("8.8.8.8", false),
        ] {
            assert_eq!(Reach::is_host_candidate(ip.parse().unwrap()), is_candidate, "{ip}");
        }
    }

    #[test]
    fn ranges_begin_and_end_where_their_rfcs_say() {
        for (ip, reach) in [
            ("0.0.0.0", Reach::Unspecified),
            ("::", Reach::Unspecified),
            ("127.0.0.1", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("169.254.169.254", Reach::Link),
            ("fe80::1", Reach::Link),
            ("10.255.255.255", Reach::Private),
            ("172.15.255.255", Reach::Public),
            ("172.16.0.0", Reach::Private),
            ("172.32.0.0", Reach::Public),
            ("192.168.0.1", Reach::Private),
            ("fc00::", Reach::Private),
            ("::ffff:192.168.0.1", Reach::Private),
            ("100.63.255.255", Reach::Public),
            ("100.64.0.0", Reach::Shared),
            ("100.127.255.255", Reach::Shared),
            ("100.128.0.0", Reach::Public),
            ("224.0.0.1", Reach::Many),
            ("255.255.255.255", Reach::Many),
            ("ff02::1", Reach::Many),
            ("8.8.8.8", Reach::Public),
            ("2001:db8::1", Reach::Public),
        ] {
            assert_eq!(Reach::of(ip.parse().unwrap()), reach, "{ip}");
        }
    }
}
