//! The way of a packet through chains of rules, for a whole range of destination ports at once.
//!
//! A rule may have conditions that cannot be judged from here (a source address, a rate). What such a rule accepts is
//! `perhaps` accepted; what it drops is not counted, as most of such rules are block lists.

use std::collections::HashMap;

/// Chains call each other; the kernel's own limit is 16.
const DEPTH_MAX: u32 = 16;

/// Ranges of ports, inclusive, in no order, without overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports(Vec<(u16, u16)>);

impl Ports {
    pub(super) fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    pub(super) fn of(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut ports = Self::default();
        for (low, high) in ranges.into_iter().filter(|(low, high)| low <= high) {
            ports.add(&Self(vec![(low, high)]));
        }
        ports
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
        Self(pairs.filter(|(low, high)| low <= high).collect())
    }

    pub(super) fn without(&self, other: &Self) -> Self {
        let mut left = self.0.clone();
        for (low, high) in &other.0 {
            left = left
                .into_iter()
                .flat_map(|(from, to)| {
                    let below = low.checked_sub(1).map(|end| (from, to.min(end)));
                    let above = high.checked_add(1).map(|start| (from.max(start), to));
                    [below, above]
                })
                .flatten()
                .filter(|(from, to)| from <= to)
                .collect();
        }
        Self(left)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.extend(other.without(self).0);
    }

    /// Such as `80, 443, 49152-65535`.
    pub(super) fn shown(&self, separator: &str) -> String {
        let mut ranges = self.0.clone();
        ranges.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::new();
        for (low, high) in ranges {
            match joined.last_mut() {
                Some(last) if last.1.checked_add(1) == Some(low) => last.1 = high,
                _ => joined.push((low, high)),
            }
        }
        let one = |(low, high): &(u16, u16)| if low == high { low.to_string() } else { format!("{low}-{high}") };
        joined.iter().map(one).collect::<Vec<_>>().join(separator)
    }
}

/// What a rule does with a packet that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// A rule, as far as it concerns packets of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) ports: Ports,
    /// Whether there are no conditions besides the ports.
    pub(super) certain: bool,
    pub(super) verdict: Verdict,
}

/// The rules of each chain of a table.
pub(super) type Chains = HashMap<String, Vec<Rule>>;

/// What becomes of the packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// Dropped by a rule or the policy.
    pub(super) dropped: Ports,
    /// Of these or others, those that some rule may have accepted before.
    pub(super) perhaps: Ports,
}

/// Sends packets to `ports` through a base chain whose policy is to accept or not.
pub(super) fn walk(chains: &Chains, base: &str, policy_accepts: bool, ports: &Ports) -> Fate {
    let mut fate = Fate::default();
    let rest = through(chains, base, ports.clone(), &mut fate, 0);
    if !policy_accepts {
        fate.dropped.add(&rest);
    }
    fate
}

/// Returns what comes out at the chain's end.
fn through(chains: &Chains, name: &str, mut here: Ports, fate: &mut Fate, depth: u32) -> Ports {
    let mut returned = Ports::default();
    if depth > DEPTH_MAX {
        return here;
    }
    for rule in chains.get(name).into_iter().flatten() {
        let hit = here.and(&rule.ports);
        if hit.is_empty() {
            continue;
        }
        match (&rule.verdict, rule.certain) {
            (Verdict::Accept, true) => here = here.without(&hit),
            (Verdict::Accept | Verdict::Return, false) => fate.perhaps.add(&hit),
            (Verdict::Drop, true) => {
                fate.dropped.add(&hit);
                here = here.without(&hit);
            }
            (Verdict::Drop, false) => {}
            (Verdict::Return, true) => {
                returned.add(&hit);
                here = here.without(&hit);
            }
            (Verdict::Jump(target), true) => {
                let rest = through(chains, target, hit.clone(), fate, depth + 1);
                here = here.without(&hit.without(&rest));
            }
            (Verdict::Goto(target), true) => {
                let rest = through(chains, target, hit.clone(), fate, depth + 1);
                returned.add(&rest);
                here = here.without(&hit);
            }
            (Verdict::Jump(target) | Verdict::Goto(target), false) => {
                let mut inner = Fate::default();
                let rest = through(chains, target, hit.clone(), &mut inner, depth + 1);
                fate.perhaps.add(&hit.without(&rest).without(&inner.dropped));
                fate.perhaps.add(&inner.perhaps);
            }
        }
    }
    returned.add(&here);
    returned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(low: u16, high: u16) -> Ports {
        Ports::of([(low, high)])
    }

    fn rule(ports: Ports, verdict: Verdict) -> Rule {
        Rule { ports, certain: true, verdict }
    }

    fn perhaps(ports: Ports, verdict: Verdict) -> Rule {
        Rule { certain: false, ..rule(ports, verdict) }
    }

    fn dropped(chains: &[(&str, Vec<Rule>)], policy_accepts: bool) -> (String, String) {
        let chains = chains.iter().map(|(name, rules)| ((*name).to_owned(), rules.clone())).collect();
        let fate = walk(&chains, "input", policy_accepts, &ports(100, 199));
        (fate.dropped.shown(","), fate.perhaps.shown(","))
    }

    #[test]
    fn sets_of_ports_are_joined_cut_and_taken_from_each_other() {
        let all = Ports::all();
        assert_eq!(all.without(&ports(0, 0)).shown(" "), "1-65535");
        assert_eq!(all.without(&ports(u16::MAX, u16::MAX)).shown(" "), "0-65534");
        assert_eq!(all.without(&Ports::of([(10, 20), (15, 30), (40, 40)])).shown(" "), "0-9 31-39 41-65535");
        assert_eq!(ports(5, 9).and(&Ports::of([(1, 5), (8, 100)])).shown(" "), "5 8-9");
        assert!(all.without(&all).is_empty() && Ports::of([(2, 1)]).is_empty());
        let mut joined = ports(1, 5);
        joined.add(&ports(3, 8));
        assert_eq!(joined.shown(" "), "1-8");
    }

    #[test]
    fn what_no_rule_accepts_falls_to_the_policy() {
        let accept = rule(ports(0, 149), Verdict::Accept);
        assert_eq!(dropped(&[("input", vec![accept.clone()])], false).0, "150-199");
        assert_eq!(dropped(&[("input", vec![accept])], true).0, "");
        assert_eq!(dropped(&[("input", vec![])], false).0, "100-199");
        assert_eq!(dropped(&[], true).0, "");
    }

    #[test]
    fn the_first_rule_wins() {
        let (accept, drop) = (rule(ports(150, 160), Verdict::Accept), rule(Ports::all(), Verdict::Drop));
        assert_eq!(dropped(&[("input", vec![accept.clone(), drop.clone()])], true).0, "100-149,161-199");
        assert_eq!(dropped(&[("input", vec![drop, accept])], true).0, "100-199");
    }

    #[test]
    fn chains_are_entered_and_left() {
        let jump = rule(Ports::all(), Verdict::Jump("a".to_owned()));
        let chain = vec![
            rule(ports(100, 109), Verdict::Return),
            rule(ports(100, 149), Verdict::Accept),
            rule(ports(150, 159), Verdict::Drop),
        ];
        let after = rule(ports(160, 169), Verdict::Accept);
        let chains = [("input", vec![jump, after.clone()]), ("a", chain.clone())];
        assert_eq!(dropped(&chains, false).0, "100-109,150-159,170-199");
        let goto = rule(Ports::all(), Verdict::Goto("a".to_owned()));
        assert_eq!(dropped(&[("input", vec![goto, after]), ("a", chain)], false).0, "100-109,150-199");
        let forever = rule(Ports::all(), Verdict::Jump("input".to_owned()));
        assert_eq!(dropped(&[("input", vec![forever])], false).0, "100-199");
    }

    #[test]
    fn rules_with_other_conditions_make_it_uncertain_and_drop_nothing() {
        let rules = vec![perhaps(ports(100, 149), Verdict::Accept), perhaps(Ports::all(), Verdict::Drop)];
        assert_eq!(dropped(&[("input", rules)], false), ("100-199".to_owned(), "100-149".to_owned()));
        let jump = perhaps(Ports::all(), Verdict::Jump("a".to_owned()));
        let chain = vec![rule(ports(100, 120), Verdict::Accept), rule(Ports::all(), Verdict::Drop)];
        let chains = [("input", vec![jump]), ("a", chain)];
        assert_eq!(dropped(&chains, true), (String::new(), "100-120".to_owned()));
    }
}
