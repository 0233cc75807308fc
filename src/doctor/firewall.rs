//! Whether a packet filter of this host keeps clients from the listeners or peers from the relay ports.

use crate::addr::{Family, SocketKind};
use crate::config::Config;
use crate::probe::{Status, Step};

use super::finding;
use super::nftables::{self, BaseChain, Packet};
use super::walk::{Ports, walk};

/// What a program that lists rules said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruleset {
    /// There is no such program.
    NoProgram,
    /// It failed, and why.
    Refused(String),
    /// Its output.
    Listed(String),
}

/// What there is of packet filters.
#[derive(Clone, Debug)]
pub(super) struct Firewall {
    /// Of `nft -j list ruleset`.
    pub(super) ruleset: Ruleset,
    /// Whether there are rules of the iptables from before nftables, which nft does not list.
    pub(super) has_old_iptables: bool,
    pub(super) has_ufw: bool,
    pub(super) has_firewalld: bool,
}

/// Ports that packets have to come to.
struct Wanted {
    what: &'static str,
    packet: Packet,
    ports: Ports,
}

pub(super) fn judge(config: &Config, firewall: &Firewall) -> Vec<Step> {
    let wanted = wanted(config);
    let mut steps = match &firewall.ruleset {
        _ if wanted.is_empty() => vec![finding("firewall", Status::Ok, "nothing has to come in from outside")],
        Ruleset::NoProgram => {
            vec![finding("firewall", Status::Note, "whether nftables has rules cannot be told: there is no nft here")]
        }
        Ruleset::Refused(why) => {
            let message = format!("the rules of nftables cannot be read ({why}): run this as root");
            vec![finding("firewall", Status::Note, message)]
        }
        Ruleset::Listed(json) => match nftables::Ruleset::parse(json) {
            Some(ruleset) => judge_rules(&ruleset, &wanted),
            None => vec![finding("firewall", Status::Note, "nft lists its rules in a form that is not known here")],
        },
    };
    if firewall.has_old_iptables {
        let message = "rules of the old iptables (not nftables) are loaded and were not read: iptables-legacy -S INPUT";
        steps.push(finding("firewall", Status::Note, message));
    }
    steps.extend(hint(firewall, &wanted));
    steps
}

fn wanted(config: &Config) -> Vec<Wanted> {
    let mut list = Vec::new();
    let listeners = config.listeners.iter().filter(|listener| !listener.address.ip().is_loopback());
    for listener in listeners {
        let packet = Packet {
            family: Family::of(listener.address.ip()),
            is_tcp: listener.transport.socket_kind() == SocketKind::Tcp,
        };
        let ports = Ports::of([(listener.address.port(), listener.address.port())]);
        list.push(Wanted { what: "the listener", packet, ports });
    }
    let relays = Family::ALL.into_iter().flat_map(|family| config.relay.binds(family));
    for bind in relays.filter(|bind| config.turn && !bind.is_loopback()) {
        for is_tcp in [false, true].into_iter().filter(|is_tcp| !is_tcp || config.tcp_relays.is_offered) {
            let packet = Packet { family: Family::of(bind), is_tcp };
            list.push(Wanted { what: "the relay ports", packet, ports: Ports::of([config.relay.ports]) });
        }
    }
    list
}

fn judge_rules(ruleset: &nftables::Ruleset, wanted: &[Wanted]) -> Vec<Step> {
    if !ruleset.has_rules() {
        return vec![finding(
            "firewall",
            Status::Ok,
            "nftables has no rules; a cloud's security group cannot be seen here",
        )];
    }
    let mut steps = Vec::new();
    for Wanted { what, packet, ports } in wanted {
        for (base, chains) in ruleset.on_the_way(*packet) {
            let fate = walk(&chains, &base.name, base.accepts, ports);
            let (sure, unsure) = (fate.dropped.without(&fate.perhaps), fate.dropped.and(&fate.perhaps));
            if !sure.is_empty() {
                steps.push(finding("firewall", Status::Warn, dropped_words(what, *packet, &base, &sure)));
            }
            if !unsure.is_empty() {
                let message = format!(
                    "{} to {what} is accepted by chain {} of {} under conditions that are not judged here",
                    shown(*packet, &unsure),
                    base.name,
                    base.table
                );
                steps.push(finding("firewall", Status::Note, message));
            }
        }
    }
    if steps.is_empty() {
        let message = "no rule of nftables drops what comes to the listeners and relay ports; a cloud's security group \
                       cannot be seen here";
        steps.push(finding("firewall", Status::Ok, message));
    }
    steps
}

fn dropped_words(what: &str, packet: Packet, base: &BaseChain, ports: &Ports) -> String {
    let BaseChain { table, name, accepts } = base;
    let why = if *accepts { "a rule drops it" } else { "its policy is drop, and no rule accepts it" };
    let protocol = if packet.is_tcp { "tcp" } else { "udp" };
    format!(
        "chain {name} of {table} drops {} to {what}: {why}; run: nft insert rule {table} {name} {protocol} dport {{ {} }} accept",
        shown(packet, ports),
        ports.shown(", ")
    )
}

fn shown(packet: Packet, ports: &Ports) -> String {
    let protocol = if packet.is_tcp { "TCP" } else { "UDP" };
    let family = if packet.family == Family::V4 { "IPv4" } else { "IPv6" };
    format!("{protocol} {} over {family}", ports.shown(", "))
}

/// The command of a program that manages the rules, as it would undo rules of others.
fn hint(firewall: &Firewall, wanted: &[Wanted]) -> Option<Step> {
    let (name, command, between) = match (firewall.has_ufw, firewall.has_firewalld) {
        (true, _) => ("ufw", "ufw allow ", ":"),
        (_, true) => ("firewalld", "firewall-cmd --permanent --add-port=", "-"),
        _ => return None,
    };
    let mut commands: Vec<String> = Vec::new();
    for Wanted { packet, ports, .. } in wanted {
        let protocol = if packet.is_tcp { "tcp" } else { "udp" };
        let command = format!("{command}{}/{protocol}", ports.shown(",").replace('-', between));
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    let message = format!("{name} manages the rules here; what it has to let in: {}", commands.join("; "));
    (!commands.is_empty()).then(|| finding("firewall", Status::Note, message))
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    /// What is said of a server on 5.44.1.1 behind these rules, each in nft's JSON.
    fn judged(objects: &str) -> Vec<(Status, String)> {
        let config = config(
            "[[listen]]\naddress = \"0.0.0.0:3478\"\ntransport = [\"udp\", \"tcp\"]\n\
             [relay]\nipv4 = \"5.44.1.1\"\nipv6 = \"off\"\n",
        );
        let json = format!("{{\"nftables\": [{{\"metainfo\": {{\"version\": \"1.0.6\"}}}}{objects}]}}");
        let firewall = firewall(Ruleset::Listed(json));
        judge(&config, &firewall).into_iter().map(|step| (step.status, step.message)).collect()
    }

    fn firewall(ruleset: Ruleset) -> Firewall {
        Firewall { ruleset, has_old_iptables: false, has_ufw: false, has_firewalld: false }
    }

    fn input(policy: &str) -> String {
        format!(
            r#",{{"chain":{{"family":"inet","table":"filter","name":"input","type":"filter","hook":"input","prio":0,"policy":"{policy}"}}}}"#
        )
    }

    fn rule(chain: &str, expressions: &str) -> String {
        format!(r#",{{"rule":{{"family":"inet","table":"filter","chain":"{chain}","expr":[{expressions}]}}}}"#)
    }

    fn dport(protocol: &str, right: &str) -> String {
        let left = format!(r#"{{"payload":{{"protocol":"{protocol}","field":"dport"}}}}"#);
        format!(r#"{{"match":{{"op":"==","left":{left},"right":{right}}}}}"#)
    }

    const ESTABLISHED: &str =
        r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}"#;
    const LOOPBACK: &str = r#"{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lo"}},{"accept":null}"#;
    const ACCEPT: &str = r#"{"counter":{"packets":0,"bytes":0}},{"accept":null}"#;

    fn statuses(objects: &str) -> Vec<Status> {
        judged(objects).into_iter().map(|(status, _)| status).collect()
    }

    #[test]
    fn no_rules_are_ok_and_unreadable_ones_are_said_to_be() {
        assert_eq!(statuses(""), [Status::Ok]);
        let config = config("");
        let said = |ruleset| judge(&config, &firewall(ruleset)).remove(0);
        let served = judged(&input("accept"));
        assert_eq!(served[0].0, Status::Ok);
        for ruleset in [Ruleset::NoProgram, Ruleset::Refused("not permitted".into()), Ruleset::Listed("[]".into())] {
            let said = said(ruleset);
            assert_eq!(said.status, Status::Ok, "loopback needs nothing: {}", said.message);
        }
        let outside = super::super::tests::config("[relay]\nipv4 = \"5.44.1.1\"\nipv6 = \"off\"\n");
        for (ruleset, words) in [
            (Ruleset::NoProgram, "there is no nft"),
            (Ruleset::Refused("not permitted".into()), "(not permitted): run this as root"),
            (Ruleset::Listed("[]".into()), "in a form that is not known"),
        ] {
            let step = judge(&outside, &firewall(ruleset)).remove(0);
            assert!(step.status == Status::Note && step.message.contains(words), "{}", step.message);
        }
    }

    #[test]
    fn a_policy_of_drop_without_rules_for_the_ports_is_a_warning_with_the_fix() {
        let rules = input("drop") + &rule("input", ESTABLISHED) + &rule("input", LOOPBACK);
        let found = judged(&rules);
        assert_eq!(statuses(&rules), [Status::Warn; 3], "{found:?}");
        assert_eq!(
            found[2].1,
            "chain input of inet filter drops UDP 49152-65535 over IPv4 to the relay ports: its policy is drop, and no \
             rule accepts it; run: nft insert rule inet filter input udp dport { 49152-65535 } accept"
        );
    }

    #[test]
    fn rules_that_accept_the_ports_in_any_form_are_ok() {
        let set = r#",{"set":{"family":"inet","table":"filter","name":"media","type":"inet_service","elem":[3478,{"range":[40000,65535]}]}}"#;
        let new = r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":"new"}},"#;
        let vmap = r#"{"vmap":{"key":{"meta":{"key":"l4proto"}},"data":{"set":[["tcp",{"jump":{"target":"t"}}],["udp",{"goto":{"target":"u"}}]]}}}"#;
        for rules in [
            rule("input", &format!("{},{ACCEPT}", dport("udp", r#"{"set":[3478,{"range":[49152,65535]}]}"#)))
                + &rule("input", &format!("{new}{},{ACCEPT}", dport("tcp", "3478"))),
            set.to_owned() + &rule("input", &format!("{},{ACCEPT}", dport("th", "\"@media\""))),
            rule("input", vmap) + &rule("t", ACCEPT) + &rule("u", ACCEPT),
            rule("input", ACCEPT),
        ] {
            let all = input("drop") + &rule("input", ESTABLISHED) + &rules;
            assert_eq!(statuses(&all), [Status::Ok], "{:?}", judged(&all));
        }
    }

    #[test]
    fn a_rule_that_rejects_the_rest_counts_like_a_policy() {
        let rules = input("accept")
            + &rule("input", &format!("{},{ACCEPT}", dport("udp", r#"{"range":[49152,60000]}"#)))
            + &rule("input", &format!("{},{ACCEPT}", dport("th", "3478")))
            + &rule("input", r#"{"reject":{"type":"icmpx","expr":"admin-prohibited"}}"#);
        let found = judged(&rules);
        assert!(found.len() == 1 && found[0].0 == Status::Warn, "{found:?}");
        assert!(found[0].1.contains("drops UDP 60001-65535 over IPv4 to the relay ports: a rule drops it"));
    }

    #[test]
    fn conditions_that_cannot_be_judged_make_a_note() {
        let from = r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"5.44.0.0"}}"#;
        let rules = input("drop") + &rule("input", &format!("{from},{ACCEPT}"));
        assert_eq!(statuses(&rules), [Status::Note; 3]);
        let blocked = input("accept") + &rule("input", &format!("{from},{{\"drop\":null}}"));
        assert_eq!(statuses(&blocked), [Status::Ok]);
        let other_family = input("drop") + &rule("input", &format!("{},{ACCEPT}", from.replace("\"ip\"", "\"ip6\"")));
        assert_eq!(statuses(&other_family), [Status::Warn; 3]);
    }

    #[test]
    fn what_manages_the_rules_is_named_with_its_command() {
        let config = config(
            "[[listen]]\naddress = \"0.0.0.0:3478\"\ntransport = \"udp\"\n[relay]\nipv4 = \"5.44.1.1\"\nipv6 = \"off\"\n",
        );
        let ufw = Firewall { has_ufw: true, ..firewall(Ruleset::NoProgram) };
        let hint = judge(&config, &ufw).pop().unwrap().message;
        assert!(hint.contains("ufw allow 3478/udp; ") && hint.contains("ufw allow 49152:65535/udp"), "{hint}");
        let firewalld = Firewall { has_firewalld: true, has_old_iptables: true, ..firewall(Ruleset::NoProgram) };
        let steps = judge(&config, &firewalld);
        assert!(steps[1].message.contains("iptables-legacy"), "{steps:?}");
        assert!(steps[2].message.contains("firewall-cmd --permanent --add-port=49152-65535/udp"), "{steps:?}");
    }

    #[test]
    fn rules_of_any_shape_are_read_without_a_panic() {
        for expression in [
            "null",
            "{}",
            "7",
            "[]",
            r#"{"match":7}"#,
            r#"{"vmap":{"key":{}}}"#,
            r#"{"jump":null}"#,
            r#"{"match":{"op":"<","left":{},"right":{}}}"#,
        ] {
            judged(&(input("drop") + &rule("input", expression)));
        }
        let deep = dport("udp", r#"{"set":[{"elem":{"val":3478}},{"range":[1]},"x",99999999]}"#);
        judged(&(input("drop") + &rule("input", &format!("{deep},{ACCEPT}"))));
    }
}
