//! Own addresses, precedence and messages. The default ranges and the range logic are tested in `tests/policy`.

use super::*;

const DEFAULT: Result<Verdict, Reason> = Err(Reason::PeerDeniedByDefault);
const CONFIGURED: Result<Verdict, Reason> = Err(Reason::PeerDenied);
const SERVER: Result<Verdict, Reason> = Err(Reason::PeerIsServer);

fn compile(rules: &PeerRules) -> PeerAcl {
    PeerAcl::compile(rules).unwrap()
}

fn list(rules: &[&str]) -> Vec<String> {
    rules.iter().map(|rule| (*rule).to_owned()).collect()
}

fn ips(ips: &[&str]) -> Vec<IpAddr> {
    ips.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn endpoints(endpoints: &[&str]) -> Vec<SocketAddr> {
    endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect()
}

#[track_caller]
fn assert_ip(acl: &PeerAcl, ip: &str, expected: Result<Verdict, Reason>) {
    assert_eq!(acl.judge_ip(ip.parse().unwrap()), expected, "{ip}");
}

#[track_caller]
fn assert_peer(acl: &PeerAcl, peer: &str, expected: Result<Verdict, Reason>) {
    assert_eq!(acl.judge(PeerAddr::new(peer.parse().unwrap()).unwrap()), expected, "{peer}");
}

#[track_caller]
fn assert_problem(rules: &PeerRules, rule: &str, part_of_problem: &str) {
    let error = PeerAcl::compile(rules).unwrap_err();
    assert_eq!(error.rule, rule);
    assert!(error.problem.to_string().contains(part_of_problem), "{error}");
}

fn denied(rules: &[&str]) -> PeerRules {
    PeerRules { denied: list(rules), ..Default::default() }
}

fn allowed(rules: &[&str]) -> PeerRules {
    PeerRules { allowed: list(rules), ..Default::default() }
}

fn only_allowed(rules: &[&str]) -> PeerRules {
    PeerRules { default_deny_all: true, ..allowed(rules) }
}

#[test]
fn reasons_tell_defaults_from_rules_and_forms() {
    let acl = compile(&denied(&["8.8.8.0/24", "10.0.0.0/8"]));
    for ip in ["169.254.169.254", "fd00:ec2::254", "::", "::1", "2002:808:808::1", "2001:0:808:808::"] {
        assert_ip(&acl, ip, DEFAULT);
    }
    for ip in ["::ffff:9.9.9.9", "::9.9.9.9", "::ffff:0:9.9.9.9"] {
        assert_ip(&acl, ip, Err(Reason::PeerForm));
    }
    for ip in ["8.8.8.8", "10.1.2.3", "2a00::5efe:8.8.8.8"] {
        assert_ip(&acl, ip, CONFIGURED);
    }
    assert_peer(&acl, "9.9.9.9:0", Err(Reason::PeerForm));
    assert_peer(&acl, "9.9.9.9:1", Ok(Verdict::Peer));
}

#[test]
fn override_lifts_a_default_denial_of_its_own_size_but_not_a_smaller_one() {
    let acl = compile(&allowed(&["192.168.0.0/16 override", "10.1.2.3  override", "fd00::/8 override"]));
    for ip in ["192.168.0.0", "192.168.255.255", "10.1.2.3", "fd00::1"] {
        assert_ip(&acl, ip, Ok(Verdict::Peer));
    }
    for ip in ["10.1.2.2", "10.1.2.4", "fc00::1"] {
        assert_ip(&acl, ip, DEFAULT);
    }
    assert_problem(&allowed(&["10.0.0.0/7 override"]), "10.0.0.0/7 override", "not more specific: 10.0.0.0/8");
}

#[test]
fn a_configured_denial_wins_over_an_override_of_the_same_size() {
    let rules =
        PeerRules { denied: list(&["10.1.0.0/16"]), ..allowed(&["10.0.0.0/8 override", "10.1.2.0/24 override"]) };
    let acl = compile(&rules);
    assert_ip(&acl, "10.2.0.1", Ok(Verdict::Peer));
    assert_ip(&acl, "10.1.0.1", CONFIGURED);
    assert_ip(&acl, "10.1.2.1", Ok(Verdict::Peer));
    let rules = PeerRules { denied: list(&["9.9.9.9"]), ..allowed(&["9.9.9.9 override"]) };
    assert_problem(&rules, "9.9.9.9 override", "not more specific: 9.9.9.9");
}

#[test]
fn no_rule_lifts_what_is_never_a_peer() {
    for never in
        ["0.0.0.0/8", "127.0.0.1", "224.1.2.3", "255.255.255.255", "::1", "ff02::1", "2001::/32", "2002:808:808::1"]
    {
        let rule = format!("{never} override");
        assert_problem(&allowed(&[&rule]), &rule, "no rule can allow");
        assert_problem(&only_allowed(&[&rule]), &rule, "no rule can allow");
    }
    let acl = compile(&allowed(&["240.0.0.0/4 override", "2001::/23 override"]));
    assert_ip(&acl, "255.255.255.254", Ok(Verdict::Peer));
    assert_ip(&acl, "255.255.255.255", DEFAULT);
    assert_ip(&acl, "2001:1::1", Ok(Verdict::Peer));
    assert_ip(&acl, "2001:0:808:808::1", DEFAULT);
    assert_problem(&allowed(&["64:ff9b::/96 override"]), "64:ff9b::/96 override", "list the NAT64 prefix itself");
}

#[test]
fn allow_rules_that_change_nothing_say_what_to_write_instead() {
    assert_problem(
        &allowed(&["10.0.0.5"]),
        "10.0.0.5",
        "write `10.0.0.5 override` to lift that, or set `mode = \"sfu\"`",
    );
    assert_problem(&allowed(&["8.8.8.8 override"]), "8.8.8.8 override", "nothing to override");
    assert_problem(&only_allowed(&["10.0.0.5"]), "10.0.0.5", "write `10.0.0.5 override`");
    let own = PeerRules { own_addresses: ips(&["8.8.8.8"]), ..only_allowed(&["8.8.8.8"]) };
    assert_problem(&own, "8.8.8.8", "an address of this server");
}

#[test]
fn default_deny_reaches_allowed_peers_only() {
    let rules = PeerRules { denied: list(&["8.8.8.128/25"]), ..only_allowed(&["8.8.8.0/24", "10.0.0.5 override"]) };
    let acl = compile(&rules);
    assert_ip(&acl, "8.8.8.1", Ok(Verdict::Peer));
    assert_ip(&acl, "8.8.8.200", CONFIGURED);
    assert_ip(&acl, "10.0.0.5", Ok(Verdict::Peer));
    assert_ip(&acl, "10.0.0.6", DEFAULT);
    assert_ip(&acl, "9.9.9.9", CONFIGURED);
    assert_ip(&acl, "2a00::1", CONFIGURED);
    assert_ip(&acl, "2a00::5efe:8.8.8.1", CONFIGURED);
    assert_ip(&compile(&only_allowed(&[])), "9.9.9.9", CONFIGURED);
}

#[test]
fn default_deny_reaches_allowed_ipv4_peers_through_a_listed_nat64() {
    let acl =
        compile(&PeerRules { nat64_prefixes: list(&["64:ff9b::/96"]), ..only_allowed(&["8.8.8.0/24", "2a00::/16"]) });
    assert_ip(&acl, "64:ff9b::8.8.8.8", Ok(Verdict::Peer));
    assert_ip(&acl, "64:ff9b::9.9.9.9", CONFIGURED);
    assert_ip(&acl, "64:ff9b::10.0.0.1", DEFAULT);
    assert_ip(&acl, "2a00::5efe:9.9.9.9", Ok(Verdict::Peer));
    assert_ip(&acl, "2a00::5efe:10.0.0.1", DEFAULT);
}

#[test]
fn a_listed_nat64_prefix_does_not_lift_a_configured_denial_or_reach_ourselves() {
    let acl = compile(&PeerRules {
        nat64_prefixes: list(&["64:ff9b::/96", "2a00:64::/32"]),
        own_addresses: ips(&["198.41.0.4"]),
        relay_addresses: ips(&["198.41.0.5"]),
        relay_ports: (49152, 65535),
        own_endpoints: endpoints(&["9.9.9.9:3478"]),
        ..denied(&["64:ff9b::808:0/112", "1.1.1.0/24"])
    });
    assert_peer(&acl, "[64:ff9b::8.8.8.8]:5000", CONFIGURED);
    assert_peer(&acl, "[64:ff9b::1.1.1.1]:5000", CONFIGURED);
    assert_peer(&acl, "[64:ff9b::198.41.0.4]:5000", SERVER);
    assert_peer(&acl, "[64:ff9b::198.41.0.5]:50000", SERVER);
    assert_peer(&acl, "[64:ff9b::9.9.9.9]:3478", SERVER);
    assert_peer(&acl, "[64:ff9b::9.9.9.9]:3479", Ok(Verdict::Peer));
    assert_peer(&acl, "[2a00:64:909:909::]:3478", SERVER);
    assert_peer(&acl, "[2a00:64:909:909::]:3479", Ok(Verdict::Peer));
    assert_peer(&acl, "[2a00:64:909:909:100::]:3479", Err(Reason::PeerForm));
    assert_peer(&acl, "[2a00::5efe:198.41.0.4]:5000", SERVER);
}

fn behind_nat() -> PeerRules {
    PeerRules {
        own_endpoints: endpoints(&["0.0.0.0:3478", "[::]:5349", "198.41.0.4:49200", "8.8.4.4:443"]),
        own_addresses: ips(&["10.0.0.2", "198.41.0.4", "2a00::2"]),
        relay_addresses: ips(&["198.41.0.4", "10.0.0.3", "2a00::2"]),
        relay_ports: (49152, 49999),
        ..PeerRules::default()
    }
}

#[test]
fn own_addresses_are_denied_but_for_relays_on_relay_ports() {
    let acl = compile(&behind_nat());
    for relay in ["198.41.0.4", "10.0.0.3", "2a00::2"] {
        assert_ip(&acl, relay, Ok(Verdict::OwnRelay));
    }
    for peer in ["198.41.0.4:49152", "10.0.0.3:49999", "[2a00::2]:49500"] {
        assert_peer(&acl, peer, Ok(Verdict::OwnRelay));
    }
    for peer in ["198.41.0.4:49151", "198.41.0.4:50000", "198.41.0.4:3478", "10.0.0.3:80", "[2a00::2]:5349"] {
        assert_peer(&acl, peer, SERVER);
    }
    assert_ip(&acl, "10.0.0.2", SERVER);
    assert_peer(&acl, "10.0.0.2:49500", SERVER);
    assert_peer(&acl, "10.0.0.4:49500", DEFAULT);
}

#[test]
fn own_endpoints_are_denied_even_on_a_relay_port_and_only_there() {
    let acl = compile(&behind_nat());
    assert_peer(&acl, "198.41.0.4:49200", SERVER);
    assert_peer(&acl, "10.0.0.3:49200", Ok(Verdict::OwnRelay));
    assert_peer(&acl, "8.8.4.4:443", SERVER);
    assert_peer(&acl, "8.8.4.4:3478", SERVER);
    assert_peer(&acl, "8.8.4.4:444", Ok(Verdict::Peer));
    assert_peer(&acl, "8.8.8.8:3478", Ok(Verdict::Peer));
    let wildcard_in_range = PeerRules { own_endpoints: endpoints(&["[::]:49300"]), ..behind_nat() };
    for peer in ["198.41.0.4:49300", "10.0.0.3:49300", "[2a00::2]:49300"] {
        assert_peer(&compile(&wildcard_in_range), peer, SERVER);
    }
}

#[test]
fn own_relays_are_reachable_whatever_the_rules_say() {
    let acl = compile(&PeerRules {
        denied: list(&["0.0.0.0/0", "::/0"]),
        denied_ports: vec![49500],
        default_deny_all: true,
        ..behind_nat()
    });
    assert_peer(&acl, "10.0.0.3:49500", Ok(Verdict::OwnRelay));
    assert_peer(&acl, "8.8.8.8:49500", CONFIGURED);
}

#[test]
fn loopback_mode_reaches_loopback_peers_and_relays_but_not_the_server() {
    let acl = compile(&PeerRules {
        allow_loopback: true,
        own_endpoints: endpoints(&["0.0.0.0:3478", "127.0.0.1:9641"]),
        own_addresses: ips(&["127.0.0.1", "::1"]),
        relay_addresses: ips(&["127.0.0.1"]),
        relay_ports: (49152, 65535),
        denied_ports: vec![53],
        ..PeerRules::default()
    });
    assert_ip(&acl, "127.0.0.1", Ok(Verdict::OwnRelay));
    assert_ip(&acl, "127.0.0.2", Ok(Verdict::Peer));
    assert_peer(&acl, "127.0.0.1:5000", Ok(Verdict::Peer));
    assert_peer(&acl, "127.0.0.1:50000", Ok(Verdict::OwnRelay));
    assert_peer(&acl, "127.0.0.2:50000", Ok(Verdict::Peer));
    assert_peer(&acl, "[::1]:5000", Ok(Verdict::Peer));
    for own in ["127.0.0.1:3478", "127.0.0.2:3478", "[::1]:3478", "127.0.0.1:9641"] {
        assert_peer(&acl, own, SERVER);
    }
    for port_53 in ["127.0.0.1:53", "127.0.0.2:53"] {
        assert_peer(&acl, port_53, Err(Reason::PeerPortDenied));
    }
    assert_ip(&acl, "10.0.0.1", DEFAULT);
    assert_ip(&acl, "::ffff:127.0.0.1", Err(Reason::PeerForm));
    assert_ip(&acl, "2002:7f00:1::", DEFAULT);
}

#[test]
fn loopback_relay_without_loopback_mode_reaches_relays_only() {
    let relay_addresses = ips(&["127.0.0.1"]);
    let acl = compile(&PeerRules { relay_addresses, relay_ports: (49152, 65535), ..PeerRules::default() });
    assert_peer(&acl, "127.0.0.1:50000", Ok(Verdict::OwnRelay));
    assert_peer(&acl, "127.0.0.1:80", SERVER);
    assert_peer(&acl, "127.0.0.2:50000", DEFAULT);
}

#[test]
fn denied_ports_are_denied_for_every_peer() {
    let acl = compile(&PeerRules { denied_ports: vec![1900, 53, 123], ..PeerRules::default() });
    for peer in ["8.8.8.8:53", "8.8.8.8:123", "[2a00::1]:1900"] {
        assert_peer(&acl, peer, Err(Reason::PeerPortDenied));
    }
    assert_peer(&acl, "8.8.8.8:54", Ok(Verdict::Peer));
    assert_peer(&acl, "10.0.0.1:53", DEFAULT);
}

#[test]
fn malformed_rules_are_named_with_what_is_wrong() {
    for (rule, problem) in [
        ("10.0.0.1/8", "write `10.0.0.0/8` for the network or `10.0.0.1` for the address"),
        ("2a00::1/64", "write `2a00::/64`"),
        ("10.0.0.0/33", "a number from 0 to 32, not `33`"),
        ("2a00::/129", "a number from 0 to 128, not `129`"),
        ("10.0.0.0/", "not ``"),
        ("10.0.0.0/+8", "not `+8`"),
        ("10.0.0.0/300", "not `300`"),
        ("10.0.0.9-10.0.0.1", "write `10.0.0.1-10.0.0.9`"),
        ("10.0.0.1-2a00::1", "one family"),
        ("10.0.0", "`10.0.0` is not an IP address"),
        ("010.0.0.1", "is not an IP address"),
        ("fe80::1%eth0", "is not an IP address"),
        ("example.org", "is not an IP address"),
        ("", "is not an IP address"),
        ("10.0.0.1-", "`` is not an IP address"),
        ("::ffff:10.0.0.1", "write the IPv4 address"),
        ("::ffff:0:0/96", "write the IPv4 address"),
    ] {
        assert_problem(&denied(&[rule]), rule, problem);
        assert_problem(&only_allowed(&["8.8.8.8", rule]), rule, problem);
    }
    assert_problem(&denied(&["10.0.0.1 override"]), "10.0.0.1 override", "only rules of `allowed`");
    assert_problem(&allowed(&["override"]), "override", "is not an IP address");
    assert_problem(&allowed(&["10.0.0.1override"]), "10.0.0.1override", "is not an IP address");
}

#[test]
fn malformed_nat64_prefixes_relays_and_ports_are_refused() {
    for (prefix, problem) in [
        ("64:ff9b::", "with its length"),
        ("64:ff9b::/95", "32, 40, 48, 56, 64 or 96"),
        ("10.0.0.0/8", "must be an IPv6 prefix"),
        ("2a00:0:0:0:ff00::/96", "bits 64 to 71"),
        ("2002::/32", "cannot lie in 2002::/16"),
        ("::/96", "cannot lie in"),
    ] {
        let rules = PeerRules { nat64_prefixes: list(&[prefix]), ..PeerRules::default() };
        assert_problem(&rules, prefix, problem);
    }
    for relay in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255"] {
        let rules = PeerRules { relay_addresses: ips(&[relay]), ..PeerRules::default() };
        assert_problem(&rules, relay, "the address of one host");
    }
    let rules = PeerRules { relay_ports: (50000, 49152), ..PeerRules::default() };
    assert_problem(&rules, "50000-49152", "ends before it starts");
}

#[test]
fn an_error_reads_as_a_sentence() {
    let error = PeerAcl::compile(&denied(&["10.0.0"])).unwrap_err();
    assert_eq!(error.to_string(), "peer rule `10.0.0`: `10.0.0` is not an IP address");
}

#[test]
fn a_hundred_thousand_rules_compile_and_hold() {
    let rules: Vec<String> = (0..100_000_u32).map(|n| Ipv4Addr::from_bits(0x0800_0000 + n * 16).to_string()).collect();
    let acl = compile(&PeerRules { denied: rules, ..PeerRules::default() });
    assert_ip(&acl, "8.0.0.16", CONFIGURED);
    assert_ip(&acl, "8.0.0.17", Ok(Verdict::Peer));
}

#[test]
fn a_service_of_this_host_is_reachable_on_its_ports_and_nothing_else_there_is() {
    let acl = compile(&PeerRules {
        own_endpoints: endpoints(&["0.0.0.0:3478"]),
        own_addresses: ips(&["10.0.0.5", "8.8.4.4"]),
        relay_addresses: ips(&["8.8.4.4"]),
        relay_ports: (50000, 50999),
        own_services: ["10.0.0.5:10000", "8.8.4.4:20000-20001", "10.0.0.5:3478"]
            .map(|text| text.parse().unwrap())
            .to_vec(),
        ..PeerRules::default()
    });
    assert_ip(&acl, "10.0.0.5", Ok(Verdict::OwnRelay));
    assert_peer(&acl, "10.0.0.5:10000", Ok(Verdict::Peer));
    assert_peer(&acl, "10.0.0.5:10001", SERVER);
    assert_peer(&acl, "10.0.0.5:3478", SERVER);
    assert_peer(&acl, "8.8.4.4:20001", Ok(Verdict::Peer));
    assert_peer(&acl, "8.8.4.4:20002", SERVER);
    assert_peer(&acl, "8.8.4.4:50000", Ok(Verdict::OwnRelay));
    assert_ip(&acl, "10.0.0.6", DEFAULT);
}

#[test]
fn a_denial_names_the_range_or_the_rule_as_written() {
    let rules = PeerRules {
        denied: list(&["8.8.0.0/16", " 8.8.8.0/24 ", "2606:4700::/32"]),
        nat64_prefixes: list(&["64:ff9b::/96"]),
        denied_ports: vec![53],
        own_addresses: ips(&["203.0.114.5"]),
        own_endpoints: endpoints(&["203.0.114.5:3478"]),
        ..Default::default()
    };
    let acl = compile(&rules);
    let named = |ip: &str| acl.explain_ip(ip.parse().unwrap()).map(|denial| denial.to_string());
    for (ip, name) in [
        ("10.0.0.1", "10.0.0.0/8, private use"),
        ("169.254.169.254", "169.254.0.0/16, link-local and cloud metadata"),
        ("127.0.0.1", "127.0.0.0/8, loopback"),
        ("255.255.255.255", "255.255.255.255, broadcast"),
        ("8.8.8.8", "the rule \"8.8.8.0/24\" in [peers] denied"),
        ("8.8.4.4", "the rule \"8.8.0.0/16\" in [peers] denied"),
        ("2606:4700::1", "the rule \"2606:4700::/32\" in [peers] denied"),
        ("::1", "::1, loopback"),
        ("2001::1", "2001::/32, Teredo"),
        ("fd00::1", "fc00::/7, unique local"),
        ("fd00:ec2::253", "fc00::/7, unique local"),
        ("fd00:ec2::254", "fd00:ec2::254, cloud metadata (AWS)"),
        ("64:ff9b:1::1", "64:ff9b:1::/48, local-use NAT64"),
        ("::ffff:9.9.9.9", "::ffff:0:0/96, IPv4-mapped"),
        ("203.0.114.5", "an address of this server"),
    ] {
        assert_eq!(named(ip).as_deref(), Some(name), "{ip}");
    }
    assert_eq!(named("9.9.9.9"), None);
    assert_eq!(named("64:ff9b::9.9.9.9"), None);
    let inner = acl.explain_ip("64:ff9b::10.1.2.3".parse().unwrap());
    let range = "10.0.0.0/8, private use".to_owned();
    assert_eq!(inner, Some(Denial::Default { ip: "10.1.2.3".parse().unwrap(), range }));
    let inner = acl.explain_ip("64:ff9b::8.8.8.8".parse().unwrap());
    assert_eq!(inner, Some(Denial::Rule { ip: "8.8.8.8".parse().unwrap(), rule: "8.8.8.0/24".to_owned() }));

    let at = |peer: &str| acl.explain(peer.parse().unwrap());
    assert_eq!(at("9.9.9.9:53"), Some(Denial::Port(53)));
    assert_eq!(at("9.9.9.9:0"), Some(Denial::Form));
    assert_eq!(at("203.0.114.5:3478"), Some(Denial::Server));
    assert_eq!(at("9.9.9.9:54"), None);
    let listed = compile(&only_allowed(&["9.9.9.9"]));
    assert_eq!(listed.explain_ip("9.9.9.10".parse().unwrap()), Some(Denial::Unlisted));
    assert_eq!(listed.explain_ip("9.9.9.9".parse().unwrap()), None);
}

#[test]
fn every_denial_has_a_name_and_nothing_else_has_one() {
    let rules = PeerRules {
        denied: list(&["1.0.0.0/24", "2a00::/16"]),
        own_addresses: ips(&["5.5.5.5"]),
        ..Default::default()
    };
    for rules in [rules.clone(), PeerRules { allow_loopback: true, ..rules }] {
        let acl = compile(&rules);
        for (first, last, _) in default_denials() {
            for ip in [first, last] {
                let (judged, named) = (acl.judge_ip(ip), acl.explain_ip(ip));
                assert_eq!(judged.is_err(), named.is_some(), "{ip} {judged:?} {named:?}");
                assert!(judged != DEFAULT || matches!(named, Some(Denial::Default { .. })), "{ip} {named:?}");
            }
        }
        for ip in ["1.0.0.0", "1.0.1.0", "2a00::", "5.5.5.5", "2a01::"].map(|ip| ip.parse().unwrap()) {
            assert_eq!(acl.judge_ip(ip).is_err(), acl.explain_ip(ip).is_some(), "{ip}");
        }
    }
}

#[test]
fn networks_that_end_at_this_host_are_denied_but_for_relays_and_own_services() {
    let rules = PeerRules {
        own_networks: ["5.44.0.0/16", "2a00:1::/64", "127.0.0.0/8"].map(|network| network.parse().unwrap()).to_vec(),
        relay_addresses: ips(&["5.44.1.1"]),
        relay_ports: (50_000, 50_100),
        own_services: vec!["5.44.1.2:9000".parse().unwrap()],
        nat64_prefixes: list(&["2a00:64::/96"]),
        ..PeerRules::default()
    };
    let acl = compile(&rules);
    for peer in
        ["5.44.0.0:9", "5.44.255.255:9", "[2a00:1::ffff]:9", "5.44.1.1:9", "5.44.1.2:9", "[2a00:64::5.44.3.3]:9"]
    {
        assert_peer(&acl, peer, SERVER);
    }
    assert_peer(&acl, "5.44.1.1:50000", Ok(Verdict::OwnRelay));
    for peer in ["5.44.1.2:9000", "5.43.255.255:9", "5.45.0.0:9", "[2a00:1:0:1::]:9", "[2a00:64::5.45.3.3]:9"] {
        assert_peer(&acl, peer, Ok(Verdict::Peer));
    }
    // Loopback as a whole is another matter: it can be allowed.
    assert_peer(&acl, "127.0.0.1:9", DEFAULT);
    assert_peer(&compile(&PeerRules { allow_loopback: true, ..rules }), "127.0.0.1:9", Ok(Verdict::Peer));
}

#[test]
fn a_rule_that_new_own_addresses_make_useless_does_not_keep_them_from_being_denied() {
    let rules = only_allowed(&["5.44.1.1", "5.45.0.0/16"]);
    let later = PeerRules { own_addresses: ips(&["5.44.1.1"]), ..rules };
    assert_problem(&later, "5.44.1.1", "which no rule can allow");
    let (acl, without_effect) = PeerAcl::compile_anew(&later).unwrap();
    assert_eq!(without_effect.unwrap().rule, "5.44.1.1");
    assert_peer(&acl, "5.44.1.1:9", SERVER);
    assert_peer(&acl, "5.45.1.1:9", Ok(Verdict::Peer));
}
