//! What differs between two servers that the same steps were taken at.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::report::{Endpoint, Report, SCHEMA, Status, Step, Target};

/// What servers are told apart by. Other facts are of the client, of the moment, or addresses.
const FACTS: [&str; 13] = [
    "chosen",
    "error_code",
    "lifetime_secs",
    "no_route",
    "offered",
    "permitted",
    "realm",
    "refused",
    "server_name",
    "sha256_offered",
    "trusted",
    "unsigned",
    "version",
];
/// A step that takes so many times as long, and so much longer, is another one.
const SLOWER_TIMES: f64 = 5.0;
const SLOWER_MS: f64 = 1000.0;

/// Two reports, and what differs.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`], whose reports these are.
    pub schema: u32,
    /// What differs, in the order of the steps.
    pub differences: Vec<Difference>,
    /// Of the server named first.
    pub a: Report,
    /// Of the other one.
    pub b: Report,
}

/// One step, or an address or URL, that is not the same at both.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Which kind of URL: its scheme and transport.
    pub target: String,
    /// `ipv4` or `ipv6`: the server's address; null where none is known yet.
    pub address: Option<&'static str>,
    /// The step; null where one of the two has no such URL or address, or where it is about all steps.
    pub step: Option<&'static str>,
    /// The address family of the relay that it is about.
    pub relay: Option<&'static str>,
    /// `missing`, `status`, `time`, or the names of facts.
    pub what: Vec<&'static str>,
    /// What the first one has.
    pub a: Option<Side>,
    /// What the other one has.
    pub b: Option<Side>,
}

/// A server's side of a difference.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Side {
    /// A URL or an address that only this one has, or its whole time.
    Has(String),
    /// Its step.
    Step(Step),
}

/// Finds what differs.
pub fn compare(a: Report, b: Report) -> Comparison {
    let mut differences = Vec::new();
    for (target, pair) in pairs(&a.targets, &b.targets, kind) {
        let mut found = Found { target, address: None, differences: &mut differences };
        match pair {
            (Some(a), Some(b)) => found.targets(a, b),
            (a, b) => found.add(
                None,
                vec!["missing"],
                a.map(|a| Side::Has(a.url.clone())),
                b.map(|b| Side::Has(b.url.clone())),
            ),
        }
    }
    Comparison { schema: SCHEMA, differences, a, b }
}

impl Comparison {
    /// Whether so little works at both that being alike says nothing.
    pub fn both_fail(&self) -> bool {
        self.a.verdict == Status::Fail && self.b.verdict == Status::Fail
    }
}

/// Where in the reports, and what is found there.
struct Found<'d> {
    target: String,
    address: Option<&'static str>,
    differences: &'d mut Vec<Difference>,
}

impl Found<'_> {
    fn targets(&mut self, a: &Target, b: &Target) {
        self.steps(&a.steps, &b.steps);
        for ((family, _), pair) in numbered_pairs(&a.addresses, &b.addresses, family) {
            self.address = Some(family);
            match pair {
                (Some(a), Some(b)) => {
                    let before = self.differences.len();
                    self.steps(&a.steps, &b.steps);
                    let mut found = self.differences.iter().skip(before);
                    if !found.any(|difference| difference.what.contains(&"time")) {
                        self.whole_time(a, b);
                    }
                }
                (a, b) => {
                    let has = |endpoint: &Endpoint| Side::Has(endpoint.address.to_string());
                    self.add(None, vec!["missing"], a.map(has), b.map(has));
                }
            }
        }
        self.address = None;
    }

    /// A server that is farther away is slower in each step, and in none by much.
    fn whole_time(&mut self, a: &Endpoint, b: &Endpoint) {
        let [a, b] = [a, b].map(|endpoint| endpoint.steps.iter().map(|step| step.ms).sum::<f64>());
        if is_much_slower(a, b) {
            let side = |ms: f64| Some(Side::Has(format!("{ms:.0} ms in all steps")));
            self.add(None, vec!["time"], side(a), side(b));
        }
    }

    fn steps(&mut self, a: &[Step], b: &[Step]) {
        for (((step, relay), _), pair) in numbered_pairs(a, b, |step| (step.step, step.relay)) {
            let what = match pair {
                (Some(a), Some(b)) => differing(a, b),
                _ => vec!["missing"],
            };
            if !what.is_empty() {
                let side = |of: Option<&Step>| of.cloned().map(Side::Step);
                self.add(Some((step, relay)), what, side(pair.0), side(pair.1));
            }
        }
    }

    fn add(
        &mut self,
        step: Option<(&'static str, Option<&'static str>)>,
        what: Vec<&'static str>,
        a: Option<Side>,
        b: Option<Side>,
    ) {
        let (target, address) = (self.target.clone(), self.address);
        let (step, relay) = (step.map(|(step, _)| step), step.and_then(|(_, relay)| relay));
        self.differences.push(Difference { target, address, step, relay, what, a, b });
    }
}

fn differing(a: &Step, b: &Step) -> Vec<&'static str> {
    let mut what = Vec::new();
    if a.status != b.status {
        what.push("status");
    }
    what.extend(FACTS.into_iter().filter(|fact| a.facts.get(fact) != b.facts.get(fact)));
    if is_much_slower(a.ms, b.ms) {
        what.push("time");
    }
    what
}

fn is_much_slower(a_ms: f64, b_ms: f64) -> bool {
    let (short, long) = (a_ms.min(b_ms), a_ms.max(b_ms));
    long - short >= SLOWER_MS && long >= short * SLOWER_TIMES
}

/// `turn?transport=udp` of `turn:192.0.2.1:3478?transport=udp`: what two servers have in common.
fn kind(target: &Target) -> String {
    let (scheme, rest) = target.url.split_once(':').unwrap_or((&target.url, ""));
    rest.split_once('?').map_or_else(|| scheme.to_owned(), |(_, query)| format!("{scheme}?{query}"))
}

fn family(endpoint: &Endpoint) -> &'static str {
    if endpoint.address.is_ipv4() { "ipv4" } else { "ipv6" }
}

type Pair<'t, T> = (Option<&'t T>, Option<&'t T>);

/// The targets of the same kind; where each list has one, these.
fn pairs<'t>(a: &'t [Target], b: &'t [Target], kind: fn(&Target) -> String) -> Vec<(String, Pair<'t, Target>)> {
    if let ([one], [other]) = (a, b) {
        let (of_a, of_b) = (kind(one), kind(other));
        let name = if of_a == of_b { of_a } else { format!("{of_a} and {of_b}") };
        return vec![(name, (Some(one), Some(other)))];
    }
    let numbered = numbered_pairs(a, b, kind).into_iter();
    numbered.map(|((kind, _), pair)| (kind, pair)).collect()
}

/// The n-th of each key in one list beside the n-th of the same key in the other, in order of appearance.
fn numbered_pairs<'t, T, K: Clone + Ord>(
    a: &'t [T],
    b: &'t [T],
    key: impl Fn(&T) -> K,
) -> Vec<((K, usize), Pair<'t, T>)> {
    let mut found: Vec<((K, usize), Pair<'t, T>)> = Vec::new();
    let (of_a, of_b) = (numbered(a, &key), numbered(b, &key));
    let mut others: BTreeMap<_, _> = of_b.iter().cloned().collect();
    found.extend(of_a.into_iter().map(|(key, one)| {
        let other = others.remove(&key);
        (key, (Some(one), other))
    }));
    let only_b = of_b.into_iter().filter(|(key, _)| others.contains_key(key));
    found.extend(only_b.map(|(key, other)| (key, (None, Some(other)))));
    found
}

fn numbered<'t, T, K: Clone + Ord>(list: &'t [T], key: impl Fn(&T) -> K) -> Vec<((K, usize), &'t T)> {
    let mut counts: BTreeMap<K, usize> = BTreeMap::new();
    let number = |item: &'t T| {
        let key = key(item);
        let count = counts.entry(key.clone()).or_default();
        *count += 1;
        ((key, *count), item)
    };
    list.iter().map(number).collect()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, report) in [("A", &self.a), ("B", &self.b)] {
            let urls: Vec<&str> = report.targets.iter().map(|target| target.url.as_str()).collect();
            writeln!(f, "{name}  {}", urls.join(" "))?;
            let steps = report.targets.iter().flat_map(Target::all_steps);
            let software = steps.filter_map(|step| step.facts.get("software")?.as_str()).next();
            let software = software.map_or_else(String::new, |software| format!("{software}: "));
            writeln!(f, "   {software}{}", report.summary())?;
        }
        for difference in &self.differences {
            writeln!(f, "\n{difference}")?;
        }
        match (self.differences.len(), self.both_fail()) {
            (0, true) => write!(f, "\nnothing differs, and BOTH FAIL"),
            (0, false) => write!(f, "\nnothing differs"),
            (1, _) => write!(f, "\n1 difference"),
            (count, _) => write!(f, "\n{count} differences"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match self.address {
            Some("ipv4") => " over IPv4",
            Some(_) => " over IPv6",
            None => "",
        };
        let step = self.step.map_or_else(String::new, |step| format!(", {step}"));
        let relay = self.relay.map_or_else(String::new, |relay| format!(" {relay}"));
        writeln!(f, "{}{address}{step}{relay}: {}", self.target, self.what.join(", "))?;
        for (name, side) in [("A", &self.a), ("B", &self.b)] {
            let end = if name == "A" { "\n" } else { "" };
            match side {
                None => write!(f, "  {name}  -{end}")?,
                Some(Side::Has(what)) => write!(f, "  {name}  {what}{end}")?,
                Some(Side::Step(step)) => {
                    write!(f, "  {name}  {:<4}  {:>7.1} ms  {}{end}", step.status.name(), step.ms, step.message)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::addr::Transport;

    fn report(targets: Vec<Target>) -> Report {
        Report::new(targets, false, 0, Duration::ZERO)
    }

    fn target(url: &str, addresses: &[(&str, Vec<Step>)]) -> Target {
        let endpoint = |(address, steps): &(&str, Vec<Step>)| {
            Endpoint::new(address.parse().unwrap(), Transport::Udp, steps.clone())
        };
        Target::new(url.to_owned(), Vec::new(), addresses.iter().map(endpoint).collect())
    }

    fn step(name: &'static str, status: Status, ms: u64) -> Step {
        Step::new(name, status, Duration::from_millis(ms), "words")
    }

    fn lines(a: Vec<Target>, b: Vec<Target>) -> Vec<String> {
        let found = compare(report(a), report(b)).differences;
        found.iter().map(|difference| difference.to_string().lines().next().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_is_alike_is_not_told_whatever_its_address_and_port() {
        let at = |host: &str, ms| {
            let mapped =
                step("binding", Status::Ok, ms).fact("mapped", host).fact("software", host).fact("offered", true);
            vec![target(&format!("turn:{host}?transport=udp"), &[(host, vec![mapped])])]
        };
        assert!(lines(at("192.0.2.1:3478", 3), at("192.0.2.2:443", 900)).is_empty());
        assert_eq!(
            lines(at("192.0.2.1:3478", 3), at("192.0.2.2:443", 1003)),
            ["turn?transport=udp over IPv4, binding: time"]
        );
    }

    #[test]
    fn many_steps_that_are_a_little_slower_are_told_once() {
        let at = |ms| {
            let steps = (0..4).map(|_| step("binding", Status::Ok, ms)).collect();
            vec![target("turn:a:1?transport=udp", &[("192.0.2.1:1", steps)])]
        };
        assert_eq!(lines(at(20), at(300)), ["turn?transport=udp over IPv4: time"]);
        assert!(lines(at(20), at(250)).is_empty());
    }

    #[test]
    fn steps_codes_statuses_families_and_urls_that_differ_are_told() {
        let both = |steps: Vec<Step>| {
            vec![
                target("turn:a:1?transport=udp", &[("192.0.2.1:1", steps)]),
                target("stun:a:1", &[("192.0.2.1:1", Vec::new())]),
            ]
        };
        let [ok, fail] = [Status::Ok, Status::Fail].map(|status| step("allocate", status, 1).fact("error_code", 1));
        let of_ipv6 = ok.clone().of_relay(crate::addr::Family::V6);
        assert_eq!(
            lines(both(vec![ok.clone(), of_ipv6.clone()]), both(vec![fail])),
            ["turn?transport=udp over IPv4, allocate: status", "turn?transport=udp over IPv4, allocate ipv6: missing"]
        );
        let other = ok.clone().fact("error_code", 2);
        assert_eq!(
            lines(both(vec![ok.clone()]), both(vec![other])),
            ["turn?transport=udp over IPv4, allocate: error_code"]
        );
        let two =
            target("turn:a:1?transport=udp", &[("192.0.2.1:1", vec![ok.clone()]), ("[2001:db8::1]:1", Vec::new())]);
        assert_eq!(
            lines(vec![two, target("turns:a:1?transport=tcp", &[])], both(vec![ok])),
            ["turn?transport=udp over IPv6: missing", "turns?transport=tcp: missing", "stun: missing"]
        );
    }

    #[test]
    fn one_url_each_is_compared_whatever_it_is() {
        let of = |url: &str, status| vec![target(url, &[("192.0.2.1:1", vec![step("binding", status, 1)])])];
        let found = lines(of("turn:a:1?transport=udp", Status::Ok), of("turns:a:1?transport=tcp", Status::Warn));
        assert_eq!(found, ["turn?transport=udp and turns?transport=tcp over IPv4, binding: status"]);
    }
}
