//! coturn's peer rules, where an allowed range wins, against ours, where a denied one does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use turnstone::policy::{PeerAcl, default_denials};

use super::{imported, with_secret};

fn reaches(acl: &PeerAcl, ip: &str) -> bool {
    acl.judge_ip(ip.parse().unwrap()).is_ok()
}

fn acl(conf: &str) -> PeerAcl {
    PeerAcl::compile(&with_secret(conf).config.peers).unwrap()
}

#[test]
fn an_allowed_address_inside_a_denied_range_stays_reachable() {
    let acl = acl("denied-peer-ip=83.166.64.0-83.166.95.255\nallowed-peer-ip=83.166.68.45");
    for (ip, expected) in
        [("83.166.68.44", false), ("83.166.68.45", true), ("83.166.68.46", false), ("83.166.96.0", true)]
    {
        assert_eq!(reaches(&acl, ip), expected, "{ip}");
    }
}

#[test]
fn an_allowed_range_larger_than_the_denied_one_wins_as_in_coturn() {
    let group = with_secret("allowed-peer-ip=83.166.0.0-83.166.255.255\ndenied-peer-ip=83.166.68.45");
    assert_eq!((group.config.peers.denied.len(), group.config.peers.allowed.len()), (0, 0));
    assert!(reaches(&PeerAcl::compile(&group.config.peers).unwrap(), "83.166.68.45"));
}

#[test]
fn an_sfu_in_a_private_network_is_reached_by_an_override() {
    let group = with_secret(
        "denied-peer-ip=10.0.0.0-10.255.255.255\nallowed-peer-ip=10.1.2.3\nallowed-peer-ip=10.9.0.0-10.9.1.255",
    );
    assert_eq!(group.config.peers.allowed, ["10.1.2.3 override", "10.9.0.0/23 override"]);
    let acl = PeerAcl::compile(&group.config.peers).unwrap();
    for (ip, expected) in [("10.1.2.3", true), ("10.9.1.255", true), ("10.1.2.4", false), ("172.16.0.1", false)] {
        assert_eq!(reaches(&acl, ip), expected, "{ip}");
    }
    assert!(group.lost().is_empty());
}

#[test]
fn deny_everything_but_becomes_the_default() {
    let group = with_secret(
        "denied-peer-ip=0.0.0.0-255.255.255.255\ndenied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n\
         allowed-peer-ip=198.41.0.4\nallowed-peer-ip=10.1.2.0-10.1.2.255\nallowed-peer-ip=2a00:5::-2a00:5::ffff",
    );
    let peers = &group.config.peers;
    assert!(peers.default_deny_all && peers.denied.is_empty());
    assert_eq!(peers.allowed, ["198.41.0.4", "10.1.2.0/24 override", "2a00:5::/112"]);
    let ipv4_only = with_secret("denied-peer-ip=0.0.0.0-255.255.255.255\nallowed-peer-ip=198.41.0.4");
    assert_eq!(ipv4_only.config.peers.denied, ["0.0.0.0-198.41.0.3", "198.41.0.5-255.255.255.255"]);
    assert!(ipv4_only.message("denied-peer-ip").contains("IPv6 peers are not"));
}

#[test]
fn allowing_the_whole_internet_lifts_no_default_denial() {
    let group = with_secret("allowed-peer-ip=0.0.0.0-255.255.255.255");
    assert_eq!(group.lost(), ["allowed-peer-ip"]);
    assert!(!reaches(&PeerAcl::compile(&group.config.peers).unwrap(), "169.254.169.254"));
}

#[test]
fn the_servers_own_address_becomes_a_service_on_every_port() {
    let group = with_secret("listening-ip=10.0.0.1\nexternal-ip=203.0.113.7/10.0.0.1\nallowed-peer-ip=10.0.0.1");
    assert!(group.config.peers.allowed.is_empty() && group.lost().is_empty());
    let services: Vec<_> = group.config.peers.own_services.iter().map(ToString::to_string).collect();
    assert_eq!(services, ["10.0.0.1:1-65535"]);
}

#[test]
fn networks_and_mapped_addresses_are_read_for_what_they_are() {
    let group = with_secret(
        "denied-peer-ip=198.41.0.0/24\nallowed-peer-ip=10.0.0.0/8\ndenied-peer-ip=::ffff:0.0.0.0-::ffff:255.255.255.255\n\
         denied-peer-ip=::-::ffff:0:5\nallowed-peer-ip=127.0.0.1\ndenied-peer-ip=10.0.0.9-10.0.0.1\n\
         denied-peer-ip=10.0.0.1-::1\ndenied-peer-ip=router",
    );
    assert_eq!(group.config.peers.denied, ["198.41.0.0/24", "::-::fffe:ffff:ffff"]);
    assert_eq!(
        group.findings(),
        [
            "1 denied-peer-ip note",
            "2 allowed-peer-ip not converted",
            "5 allowed-peer-ip not converted",
            "6 denied-peer-ip invalid",
            "7 denied-peer-ip invalid",
            "8 denied-peer-ip invalid"
        ]
    );
}

/// Few enough numbers that ranges meet, among them the ends of special ranges and their neighbours.
fn address() -> impl Strategy<Value = IpAddr> {
    let edges: Vec<IpAddr> = default_denials().flat_map(|(first, last, _)| [first, last]).collect();
    let near = (prop::sample::select(edges), -2_i8..=2).prop_map(|(ip, step)| match ip {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits().saturating_add_signed(step.into()))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits().saturating_add_signed(step.into()))),
    });
    prop_oneof![
        near,
        (0_u8..20).prop_map(|last| IpAddr::V4(Ipv4Addr::new(83, 166, 68, last))),
        (0_u16..20).prop_map(|last| IpAddr::V6(Ipv6Addr::new(0x2a00, 1, 0, 0, 0, 0, 0, last))),
    ]
}

type Range = (IpAddr, IpAddr);

fn ranges() -> impl Strategy<Value = Vec<Range>> {
    let range = (address(), address()).prop_map(|(one, other)| {
        if one.is_ipv4() == other.is_ipv4() { (one.min(other), one.max(other)) } else { (one, one) }
    });
    prop::collection::vec(range, 0..5)
}

fn covered(ranges: &[Range], ip: IpAddr) -> bool {
    ranges.iter().any(|(first, last)| first.is_ipv4() == ip.is_ipv4() && (*first..=*last).contains(&ip))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Outside of what is denied by default, the same peers are reachable as in coturn; inside, never more.
    #[test]
    fn the_same_peers_are_reachable(denied in ranges(), allowed in ranges(), mut probes in prop::collection::vec(address(), 20)) {
        let lines = |name: &str, ranges: &[Range]| -> String {
            ranges.iter().map(|(first, last)| format!("{name}={first}-{last}\n")).collect()
        };
        let conf = format!("{}{}static-auth-secret=0123456789abcdef\n", lines("denied-peer-ip", &denied), lines("allowed-peer-ip", &allowed));
        let group = imported(&conf);
        let acl = PeerAcl::compile(&group.config.peers).unwrap();
        probes.extend(denied.iter().chain(&allowed).flat_map(|(first, last)| [*first, *last]));
        for ip in probes {
            let coturn = covered(&allowed, ip) || !covered(&denied, ip);
            let special: Vec<_> = default_denials().filter(|(first, last, _)| covered(&[(*first, *last)], ip)).collect();
            let ours = acl.judge_ip(ip).is_ok();
            if special.is_empty() {
                prop_assert_eq!(ours, coturn, "{} with\n{}\n{}", ip, conf, &*group.import.toml);
            } else {
                prop_assert!(coturn || !ours, "{} with\n{}\n{}", ip, conf, &*group.import.toml);
                // An allowed range inside of special ranges is meant.
                let meant = allowed.iter().any(|range| {
                    covered(&[*range], ip) && special.iter().any(|(first, last, liftable)| *liftable && covered(&[(*first, *last)], range.0) && covered(&[(*first, *last)], range.1))
                });
                prop_assert_eq!(ours, meant && special.iter().all(|(_, _, liftable)| *liftable), "{} with\n{}\n{}", ip, conf, &*group.import.toml);
            }
        }
    }
}
