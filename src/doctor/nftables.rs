//! Reads `nft -j list ruleset` (libnftables-json(5)), as far as it decides on new packets to this host's UDP and TCP ports.

use std::collections::HashMap;

use serde_json::Value;

use crate::addr::Family;

use super::walk::{Chains, Ports, Rule, Verdict};

/// The kind of packet that rules are asked about: new, from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) family: Family,
    pub(super) is_tcp: bool,
}

impl Packet {
    fn protocol(self) -> (&'static str, u64) {
        if self.is_tcp { ("tcp", 6) } else { ("udp", 17) }
    }

    fn table_family(self) -> &'static str {
        if self.family == Family::V4 { "ip" } else { "ip6" }
    }
}

/// A chain that packets to this host come through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseChain {
    /// `inet filter`, as nft wants it.
    pub(super) table: String,
    pub(super) name: String,
    pub(super) accepts: bool,
}

/// A ruleset that has been read.
#[derive(Clone, Debug)]
pub(super) struct Ruleset {
    objects: Vec<Value>,
}

impl Ruleset {
    /// `None` when it is not what nft prints.
    pub(super) fn parse(json: &str) -> Option<Self> {
        match serde_json::from_str::<Value>(json).ok()?.get_mut("nftables")?.take() {
            Value::Array(objects) => Some(Self { objects }),
            _ => None,
        }
    }

    pub(super) fn has_rules(&self) -> bool {
        self.all("rule").next().is_some() || self.all("chain").any(|chain| text(chain, "policy") == "drop")
    }

    /// The chains that judge such a packet, and the rules of their tables.
    pub(super) fn on_the_way(&self, packet: Packet) -> Vec<(BaseChain, Chains)> {
        let judges = |chain: &&Value| {
            matches!(text(chain, "hook"), "input" | "prerouting")
                && text(chain, "type") == "filter"
                && ["inet", packet.table_family()].contains(&text(chain, "family"))
        };
        let read = |chain: &Value| {
            let table = format!("{} {}", text(chain, "family"), text(chain, "table"));
            let base =
                BaseChain { name: text(chain, "name").to_owned(), accepts: text(chain, "policy") != "drop", table };
            let chains = self.chains(&base.table, packet);
            (base, chains)
        };
        self.all("chain").filter(judges).map(read).collect()
    }

    fn chains(&self, table: &str, packet: Packet) -> Chains {
        let named: HashMap<&str, &Value> = ["set", "map"]
            .into_iter()
            .flat_map(|kind| self.of_table(kind, table))
            .filter_map(|set| Some((text(set, "name"), set.get("elem")?)))
            .collect();
        let reader = Reader { packet, named };
        let mut chains = Chains::new();
        for rule in self.of_table("rule", table) {
            let chain = chains.entry(text(rule, "chain").to_owned()).or_default();
            chain.extend(reader.rules(rule));
        }
        chains
    }

    fn all(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter_map(move |object| object.get(kind))
    }

    fn of_table(&self, kind: &'static str, table: &str) -> impl Iterator<Item = &Value> {
        self.all(kind)
            .filter(move |object| table.split_once(' ') == Some((text(object, "family"), text(object, "table"))))
    }
}

fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What one condition says to the packet.
enum Test {
    Never,
    Always,
    /// For these destination ports.
    Ports(Ports),
    /// It cannot be told.
    Maybe,
}

impl Test {
    fn from_bool(holds: bool) -> Self {
        if holds { Self::Always } else { Self::Never }
    }

    fn negated(self) -> Self {
        match self {
            Self::Never => Self::Always,
            Self::Always => Self::Never,
            Self::Ports(ports) => Self::Ports(Ports::all().without(&ports)),
            Self::Maybe => Self::Maybe,
        }
    }
}

/// The conditions of a rule, up to one of its statements.
#[derive(Clone)]
struct Conditions {
    ports: Ports,
    certain: bool,
}

impl Conditions {
    /// `None` when the packet can no longer be meant.
    fn and(mut self, test: Test) -> Option<Self> {
        match test {
            Test::Never => return None,
            Test::Always => {}
            Test::Ports(ports) => self.ports = self.ports.and(&ports),
            Test::Maybe => self.certain = false,
        }
        (!self.ports.is_empty()).then_some(self)
    }

    fn then(&self, verdict: Verdict) -> Rule {
        Rule { ports: self.ports.clone(), certain: self.certain, verdict }
    }
}

struct Reader<'v> {
    packet: Packet,
    /// Elements of the sets and maps that have a name.
    named: HashMap<&'v str, &'v Value>,
}

impl Reader<'_> {
    /// A rule of nft as none, one, or with a verdict map several of ours.
    fn rules(&self, rule: &Value) -> Vec<Rule> {
        let mut conditions = Conditions { ports: Ports::all(), certain: true };
        let mut rules = Vec::new();
        for statement in rule.get("expr").and_then(Value::as_array).into_iter().flatten() {
            if let Some(verdict) = read_verdict(statement) {
                rules.push(conditions.then(verdict));
                break;
            }
            let Some((kind, content)) = statement.as_object().and_then(|object| object.iter().next()) else { continue };
            let test = match kind.as_str() {
                "match" => self.test(content),
                "vmap" => {
                    rules.extend(self.verdict_map(&conditions, content));
                    continue;
                }
                // `limit rate over` and its like: for some of the packets. The extensions of iptables are not shown.
                "limit" | "quota" | "ct count" | "meter" | "xt" | "queue" => Test::Maybe,
                _ => Test::Always,
            };
            match conditions.clone().and(test) {
                Some(narrower) => conditions = narrower,
                None => break,
            }
        }
        rules
    }

    fn verdict_map(&self, conditions: &Conditions, vmap: &Value) -> Vec<Rule> {
        let Some(key) = vmap.get("key") else { return Vec::new() };
        let elements = vmap.get("data").map(|data| self.elements(data)).unwrap_or_default();
        let rule = |element: &Value| {
            let verdict = read_verdict(element.get(1)?)?;
            Some(conditions.clone().and(self.compare(key, element.get(0)?))?.then(verdict))
        };
        elements.into_iter().filter_map(rule).collect()
    }

    fn test(&self, content: &Value) -> Test {
        let (Some(left), Some(right)) = (content.get("left"), content.get("right")) else { return Test::Maybe };
        let test = self.compare(left, right);
        match text(content, "op") {
            "==" | "in" => test,
            "!=" => test.negated(),
            _ => match test {
                // Of another protocol it is, however the value compares.
                Test::Never => Test::Never,
                _ => Test::Maybe,
            },
        }
    }

    fn compare(&self, left: &Value, right: &Value) -> Test {
        let (name, number) = self.packet.protocol();
        let has = |words: &[&str]| self.elements(right).iter().any(|value| words.iter().any(|word| *value == *word));
        let has_number = |number: u64| self.elements(right).iter().any(|value| value.as_u64() == Some(number));
        if let Some(payload) = left.get("payload") {
            let (protocol, field) = (text(payload, "protocol"), text(payload, "field"));
            return match (protocol, field) {
                ("tcp" | "udp", _) if protocol != name => Test::Never,
                ("tcp" | "udp" | "th", "dport") => self.ports(right).map_or(Test::Maybe, Test::Ports),
                ("ip" | "ip6", _) if protocol != self.packet.table_family() => Test::Never,
                ("ip", "protocol") | ("ip6", "nexthdr") => Test::from_bool(has(&[name]) || has_number(number)),
                ("icmp" | "icmpv6" | "igmp" | "esp" | "ah" | "sctp" | "dccp" | "udplite", _) => Test::Never,
                _ => Test::Maybe,
            };
        }
        if let Some(meta) = left.get("meta") {
            let family = if self.packet.family == Family::V4 { "ipv4" } else { "ipv6" };
            return match text(meta, "key") {
                "l4proto" => Test::from_bool(has(&[name]) || has_number(number)),
                "nfproto" => Test::from_bool(has(&[family])),
                "iif" | "iifname" if self.elements(right).iter().all(|value| *value == "lo") => Test::Never,
                _ => Test::Maybe,
            };
        }
        match left.get("ct").map(|ct| text(ct, "key")) {
            Some("state") => Test::from_bool(has(&["new"])),
            _ => Test::Maybe,
        }
    }

    /// The single values that a right side stands for.
    fn elements<'e>(&'e self, right: &'e Value) -> Vec<&'e Value> {
        let list = match right {
            Value::String(name) => match name.strip_prefix('@').and_then(|name| self.named.get(name)) {
                Some(elements) => elements,
                None => return vec![right],
            },
            Value::Object(object) => object.get("set").unwrap_or(right),
            _ => right,
        };
        match list {
            Value::Array(list) => {
                list.iter().map(|value| value.get("elem").and_then(|elem| elem.get("val")).unwrap_or(value)).collect()
            }
            _ => vec![list],
        }
    }

    /// `None` when a value is not a port or a range of ports.
    fn ports(&self, right: &Value) -> Option<Ports> {
        let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
        let range = |value: &Value| match value.get("range") {
            Some(range) => Some((port(range.get(0)?)?, port(range.get(1)?)?)),
            None => port(value).map(|port| (port, port)),
        };
        let ranges: Option<Vec<_>> = self.elements(right).into_iter().map(range).collect();
        ranges.map(Ports::of)
    }
}

fn read_verdict(statement: &Value) -> Option<Verdict> {
    let (kind, content) = statement.as_object()?.iter().next()?;
    Some(match kind.as_str() {
        "accept" => Verdict::Accept,
        "drop" | "reject" => Verdict::Drop,
        "return" => Verdict::Return,
        "jump" => Verdict::Jump(text(content, "target").to_owned()),
        "goto" => Verdict::Goto(text(content, "target").to_owned()),
        _ => return None,
    })
}
