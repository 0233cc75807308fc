//! Rules against a model that scans lists of ranges, address by address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use proptest::prelude::*;
use turnstone::addr::PeerAddr;
use turnstone::policy::{PeerAcl, PeerPolicies, PeerRules, Verdict};
use turnstone::reject::Reason;

use super::rows::{IPV4_ROWS, IPV6_ROWS};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Denied,
    Allowed,
    Override,
}

#[derive(Clone, Debug)]
struct Rule {
    first: u128,
    last: u128,
    kind: Kind,
    text: String,
}

impl Rule {
    fn covers(&self, address: u128) -> bool {
        self.first <= address && address <= self.last
    }

    fn size(&self) -> u128 {
        self.last - self.first
    }
}

#[derive(Clone, Copy, Debug)]
struct Space {
    width: u32,
}

const V4: Space = Space { width: 32 };
const V6: Space = Space { width: 128 };

impl Space {
    fn max(self) -> u128 {
        u128::MAX >> (128 - self.width)
    }

    fn ip(self, address: u128) -> IpAddr {
        match self.width {
            32 => Ipv4Addr::from_bits(address as u32).into(),
            _ => Ipv6Addr::from_bits(address).into(),
        }
    }

    fn address(self, ip: &str) -> u128 {
        match ip.parse().unwrap() {
            IpAddr::V4(v4) => v4.to_bits().into(),
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    /// Default denials as first and last address, and whether an override can lift them.
    fn defaults(self) -> Vec<(u128, u128, bool)> {
        let fixed = ["this network", "loopback", "multicast", "broadcast", "unspecified", "Teredo", "6to4"];
        let forms = ["IPv4-mapped", "IPv4-compatible", "IPv4-translated", "NAT64", "local-use NAT64"];
        let rows = if self.width == 32 { IPV4_ROWS } else { IPV6_ROWS };
        let denied = rows.iter().filter(|row| row.denied);
        let whole = |row: &&super::rows::Row| {
            // The rows that only name a part of another row lift with that one, as the policy has no denial of their own.
            !["anycast services", "benchmarking", "AMT", "AS112", "ORCHID", "ORCHIDv2", "drone remote id"]
                .contains(&row.label)
                || self.width == 32
        };
        denied
            .filter(whole)
            .flat_map(|row| {
                let liftable = !fixed.contains(&row.label) && !forms.contains(&row.label);
                let (first, last) = (self.address(row.first), self.address(row.last));
                let upper_half = 1_u128 << 127;
                // 4000::-ffff:... is two networks.
                match row.label {
                    "above 2000::/3" => vec![(first, upper_half - 1, liftable), (upper_half, last, liftable)],
                    _ => vec![(first, last, liftable)],
                }
            })
            .collect()
    }
}

struct Model<'a> {
    space: Space,
    rules: &'a [Rule],
    default_deny_all: bool,
}

impl Model<'_> {
    fn smallest(&self, kind: Kind, address: u128) -> Option<u128> {
        let covering = self.rules.iter().filter(|rule| rule.kind == kind && rule.covers(address));
        covering.map(Rule::size).min()
    }

    fn lifts(&self, size: u128, address: u128) -> bool {
        let mut defaults =
            self.space.defaults().into_iter().filter(|(first, last, _)| (first..=last).contains(&&address));
        self.smallest(Kind::Denied, address).is_none_or(|denied| size < denied)
            && defaults.all(|(first, last, liftable)| liftable && size <= last - first)
    }

    fn is_denied(&self, address: u128) -> bool {
        let is_default = self.space.defaults().iter().any(|(first, last, _)| (first..=last).contains(&&address));
        is_default || self.smallest(Kind::Denied, address).is_some()
    }

    fn reachable(&self, address: u128) -> bool {
        let lifted = self.smallest(Kind::Override, address).is_some_and(|size| self.lifts(size, address));
        let listed = [Kind::Allowed, Kind::Override].iter().any(|kind| self.smallest(*kind, address).is_some());
        (lifted || !self.is_denied(address)) && (listed || !self.default_deny_all)
    }

    /// Whether `rule` is what makes `address` reachable.
    fn helps(&self, rule: &Rule, address: u128) -> bool {
        let lifts = rule.kind == Kind::Override && self.is_denied(address) && self.lifts(rule.size(), address);
        rule.covers(address) && (lifts || self.default_deny_all && self.reachable(address))
    }
}

fn rule(space: Space) -> impl Strategy<Value = Rule> {
    let pool: &[&str] = match space.width {
        32 => &["8.8.0.0", "10.0.0.0", "192.168.0.0", "127.0.0.0", "239.255.255.0", "255.255.255.0", "0.0.0.0"],
        _ => &["2a00::", "fc00::", "2001:0:ffff::", "::ffff:0:0", "fe80::", "2001:db8::", "3fff:1000::", "ffff::"],
    };
    let base = prop::sample::select(pool).prop_map(move |ip| space.address(ip));
    let kind = prop::sample::select(&[Kind::Denied, Kind::Denied, Kind::Allowed, Kind::Override][..]);
    let shape = prop_oneof![
        (0..=space.width).prop_map(Shape::Cidr),
        Just(Shape::Single),
        (0..=space.width).prop_map(Shape::RangeOfBits)
    ];
    (base, 0..1024_u128, kind, shape).prop_map(move |(base, offset, kind, shape)| {
        let start = (base + offset).min(space.max());
        let host_bits = |length: u32| space.max().checked_shr(length).unwrap_or(0);
        let (first, last, text) = match shape {
            Shape::Cidr(length) => {
                let (first, last) = (start & !host_bits(length), start | host_bits(length));
                (first, last, format!("{}/{length}", space.ip(first)))
            }
            Shape::Single => (start, start, space.ip(start).to_string()),
            Shape::RangeOfBits(bits) => {
                let last = start.saturating_add(host_bits(bits) / 3).min(space.max());
                (start, last, format!("{}-{}", space.ip(start), space.ip(last)))
            }
        };
        let suffix = if kind == Kind::Override { " override" } else { "" };
        Rule { first, last, kind, text: format!("{text}{suffix}") }
    })
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Cidr(u32),
    Single,
    RangeOfBits(u32),
}

fn texts(rules: &[Rule], wanted: impl Fn(Kind) -> bool) -> Vec<String> {
    rules.iter().filter(|rule| wanted(rule.kind)).map(|rule| rule.text.clone()).collect()
}

/// Both ends of every range and their neighbours: between these no verdict can change.
fn interesting(space: Space, rules: &[Rule]) -> Vec<u128> {
    let ends = rules.iter().map(|rule| (rule.first, rule.last));
    let defaults = space.defaults().into_iter().map(|(first, last, _)| (first, last));
    let ends: Vec<_> = ends.chain(defaults).collect();
    ends.iter()
        .flat_map(|(first, last)| [first.saturating_sub(1), *first, *last, last.saturating_add(1).min(space.max())])
        .collect()
}

fn check(space: Space, mut rules: Vec<Rule>, default_deny_all: bool) -> Result<(), TestCaseError> {
    // Mapped addresses cannot be written in rules at all.
    rules.retain(|rule| !rule.text.contains("::ffff:"));
    let acl = loop {
        let compiled = PeerAcl::compile(&PeerRules {
            denied: texts(&rules, |kind| kind == Kind::Denied),
            allowed: texts(&rules, |kind| kind != Kind::Denied),
            default_deny_all,
            ..Default::default()
        });
        let error = match compiled {
            Ok(acl) => break acl,
            Err(error) => error,
        };
        let model = Model { space, rules: &rules, default_deny_all };
        let useless = rules.iter().position(|rule| rule.kind != Kind::Denied && rule.text == error.rule);
        let Some(useless) = useless else { return Err(TestCaseError::fail(format!("refused {error}"))) };
        for address in interesting(space, &rules) {
            prop_assert!(!model.helps(&rules[useless], address), "{error}, but it allows {}", space.ip(address));
        }
        rules.remove(useless);
    };
    let model = Model { space, rules: &rules, default_deny_all };
    let addresses = interesting(space, &rules);
    for rule in rules.iter().filter(|rule| rule.kind != Kind::Denied) {
        let helps = addresses.iter().any(|address| model.helps(rule, *address));
        prop_assert!(helps, "{} has no effect and was accepted", rule.text);
    }
    for address in addresses {
        let verdict = acl.judge_ip(space.ip(address));
        let expected = model.reachable(address);
        prop_assert_eq!(verdict.is_ok(), expected, "{} {:?} with {:?}", space.ip(address), verdict, rules);
        if expected {
            prop_assert_eq!(verdict, Ok(Verdict::Peer));
        } else {
            let reasons = [Reason::PeerDenied, Reason::PeerDeniedByDefault, Reason::PeerForm];
            prop_assert!(verdict.is_err_and(|reason| reasons.contains(&reason)));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn ipv4_rules_agree_with_the_model(rules in prop::collection::vec(rule(V4), 0..12), deny_all: bool) {
        check(V4, rules, deny_all)?;
    }

    #[test]
    fn ipv6_rules_agree_with_the_model(rules in prop::collection::vec(rule(V6), 0..12), deny_all: bool) {
        check(V6, rules, deny_all)?;
    }

    #[test]
    fn the_order_of_rules_does_not_matter(
        rules in prop::collection::vec(rule(V4), 0..10),
        addresses in prop::collection::vec(any::<u32>(), 50),
    ) {
        let compile = |rules: &[Rule]| PeerAcl::compile(&PeerRules {
            denied: texts(rules, |kind| kind == Kind::Denied),
            allowed: texts(rules, |kind| kind == Kind::Override),
            ..Default::default()
        });
        let reversed: Vec<Rule> = rules.iter().rev().cloned().collect();
        match (compile(&rules), compile(&reversed)) {
            (Ok(forward), Ok(backward)) => for address in addresses {
                let ip = V4.ip(address.into());
                prop_assert_eq!(forward.judge_ip(ip), backward.judge_ip(ip));
            },
            (forward, backward) => prop_assert!(forward.is_err() && backward.is_err()),
        }
    }

    #[test]
    fn a_policy_that_tightens_another_never_makes_a_peer_reachable(
        base in prop::collection::vec(rule(V4), 0..8),
        tighter in prop::collection::vec(rule(V4), 0..8),
        sfu: (bool, bool),
        relays: (bool, bool),
        addresses in prop::collection::vec(any::<u32>(), 20),
    ) {
        // The rules that have an effect; what has none is refused.
        let compile = |rules: &[Rule], default_deny_all, deny_relays| {
            let rules = PeerRules {
                denied: texts(rules, |kind| kind == Kind::Denied),
                allowed: texts(rules, |kind| kind != Kind::Denied),
                default_deny_all,
                deny_relays,
                relay_addresses: vec!["9.9.9.9".parse().unwrap()],
                relay_ports: (50_000, 50_100),
                ..PeerRules::default()
            };
            Arc::new(PeerAcl::compile_anew(&rules).unwrap().0)
        };
        let (base_acl, tighter_acl) = (compile(&base, sfu.0, relays.0), compile(&tighter, sfu.1, relays.1));
        let name = "tighter".parse().unwrap();
        let policies = PeerPolicies::new(Arc::clone(&base_acl)).with(name, Arc::clone(&tighter_acl));
        let choice = policies.choose(None, Some(name));
        let interesting = interesting(V4, &base).into_iter().chain(interesting(V4, &tighter)).chain(addresses.into_iter().map(u128::from));
        for ip in interesting.map(|address| V4.ip(address)).chain(["9.9.9.9".parse().unwrap()]) {
            let both = base_acl.judge_ip(ip).is_ok() && tighter_acl.judge_ip(ip).is_ok();
            prop_assert_eq!(policies.judge_ip(choice, ip).is_ok(), both, "{}", ip);
            for port in [1, 50_000, 50_101] {
                let peer = PeerAddr::new((ip, port).into());
                let Ok(peer) = peer else { continue };
                let both = base_acl.judge(peer).is_ok() && tighter_acl.judge(peer).is_ok();
                prop_assert_eq!(policies.judge(choice, peer).is_ok(), both, "{:?}", peer);
            }
        }
    }

    #[test]
    fn no_text_makes_the_compiler_panic(text in "[0-9a-f:./ -]{0,40}( override)?", deny_all: bool) {
        let rules = PeerRules { default_deny_all: deny_all, ..Default::default() };
        let _ = PeerAcl::compile(&PeerRules { denied: vec![text.clone()], ..rules.clone() });
        let _ = PeerAcl::compile(&PeerRules { allowed: vec![text.clone()], ..rules.clone() });
        let _ = PeerAcl::compile(&PeerRules { nat64_prefixes: vec![text], ..rules });
    }
}
