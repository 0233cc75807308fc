use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use turnstone::addr::PeerAddr;
use turnstone::policy::{PeerAcl, PeerRules, Verdict};

use super::rows::{FORMS, Form, IPV4_ROWS, denied_by_default, matrix};

fn assert_judged(acl: &PeerAcl, ip: IpAddr, denied: bool, label: &str) {
    let expected = if denied { None } else { Some(Verdict::Peer) };
    assert_eq!(acl.judge_ip(ip).ok(), expected, "permission: {label}");
    // A mapped address is stopped by the type, before any rule.
    let by_address = PeerAddr::new(SocketAddr::new(ip, 40_000)).ok().and_then(|peer| acl.judge(peer).ok());
    assert_eq!(by_address, expected, "address and port: {label}");
}

#[test]
fn every_row_is_judged_at_both_ends_and_beside_them_in_every_form() {
    let acl = PeerAcl::compile(&PeerRules::default()).unwrap();
    let matrix = matrix();
    assert!(matrix.len() > IPV4_ROWS.len() * FORMS.len() * 3);
    for (ip, denied, label) in matrix {
        assert_judged(&acl, ip, denied, &label);
    }
}

#[test]
fn listed_nat64_prefixes_are_judged_by_their_inner_address_at_every_length() {
    let prefixes = ["64:ff9b::/96", "64:ff9b:1::/48", "2a00:64::/32", "2a00:65:6400::/40", "2a00:66:1:200::/56"];
    let more = ["2a00:67:1:2::/64", "2a00:68:1:2::/96", "fd00:64::/96"];
    let nat64_prefixes: Vec<String> = prefixes.iter().chain(&more).map(|prefix| (*prefix).to_owned()).collect();
    let acl = PeerAcl::compile(&PeerRules { nat64_prefixes: nat64_prefixes.clone(), ..Default::default() }).unwrap();
    for inner in IPV4_ROWS.iter().flat_map(|row| row.probes()) {
        let IpAddr::V4(inner) = inner else { continue };
        for prefix in &nat64_prefixes {
            let outer = translated(prefix, inner);
            assert_judged(&acl, outer, denied_by_default(inner.into()), &format!("{inner} behind {prefix}: {outer}"));
        }
        for form in FORMS.iter().filter(|form| **form != Form::Nat64 && **form != Form::LocalNat64) {
            let denied = form.denied_whatever_it_carries() || denied_by_default(inner.into());
            assert_judged(&acl, form.of(inner).into(), denied, &format!("{inner} as {form:?}"));
        }
    }
}

/// RFC 6052 section 2.2, octet by octet: the address follows the prefix and leaves out octet 8.
fn translated(prefix: &str, inner: Ipv4Addr) -> IpAddr {
    let (network, length) = prefix.split_once('/').unwrap();
    let mut octets = network.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let start = length.parse::<usize>().unwrap() / 8;
    let places = (start..16).filter(|place| *place != 8);
    for (place, octet) in places.zip(inner.octets()) {
        octets[place] = octet;
    }
    IpAddr::from(octets)
}
