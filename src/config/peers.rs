//! `[peers]` and `[[peers.policy]]`: which peers may be reached, by default and by the names that credentials and realms use.

use std::convert::Infallible;

use crate::policy::{AclError, NoEffect, OwnService, PeerAcl, PeerRules, PolicyName, RuleProblem};

use super::error::Located;
use super::reader::{Document, Section, or_default};
use super::realm::RealmConfig;
use super::snapshot::Auth;
use super::value::{PEER_MODES, choose};

/// Policies that a configuration may have by name.
const POLICIES_MAX: usize = 1000;

const REACHES_NOBODY: &str = "it has mode = \"sfu\", and neither allowed nor own-services";

/// A policy that has a name.
pub(super) type NamedPolicy = (PolicyName, PeerRules);

/// The rules of the default policy, and those of the others.
pub(super) fn read_peers(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    dev: bool,
) -> (PeerRules, Vec<Located<NamedPolicy>>) {
    let section = root.section("peers");
    let nat64_prefixes = section.texts("nat64-prefixes", as_written);
    let default = read_rules(&section, dev);
    if reaches_nobody(&default) {
        document.warning(section.place(), format!("nobody can be reached by [peers]: {REACHES_NOBODY}"));
    }
    let mut policies: Vec<Located<NamedPolicy>> = Vec::new();
    for table in section.sections("policy") {
        let name = table.text("name", str::parse::<PolicyName>);
        let rules = read_rules(&table, dev);
        table.report_unknown_keys();
        let Some(name) = name else {
            if !table.has("name") {
                table.report_missing("name");
            }
            continue;
        };
        if policies.iter().any(|known| known.value.0 == name.value) {
            document.problem(name.place, format!("there is another policy of the name \"{}\"", name.value));
        } else if policies.len() >= POLICIES_MAX {
            document.problem(name.place, format!("there are more than {POLICIES_MAX} policies"));
        } else {
            if reaches_nobody(&rules) {
                document.warning(name.place.clone(), format!("nobody can be reached by this policy: {REACHES_NOBODY}"));
            }
            policies.push(Located { value: (name.value, rules), place: name.place });
        }
    }
    section.report_unknown_keys();

    let nat64_prefixes: Vec<String> = nat64_prefixes
        .into_iter()
        .filter(|rule| {
            let rules = PeerRules { nat64_prefixes: one(rule), ..PeerRules::default() };
            !refuses(&section, "nat64-prefixes", rule, &rules)
        })
        .map(|rule| rule.value)
        .collect();
    // They are a fact of the network, whoever asks.
    for Located { value: (_, rules), .. } in &mut policies {
        rules.nat64_prefixes.clone_from(&nat64_prefixes);
    }
    (PeerRules { nat64_prefixes, ..default }, policies)
}

fn reaches_nobody(rules: &PeerRules) -> bool {
    rules.default_deny_all && rules.allowed.is_empty() && rules.own_services.is_empty() && rules.deny_relays
}

/// A policy by which nobody can come is a mistake: whoever wrote it thinks that it denies something.
pub(super) fn warn_about_unused(
    document: &Document<'_>,
    policies: &[Located<NamedPolicy>],
    auth: &Auth,
    realms: &[RealmConfig],
) {
    if auth.username_limits || realms.iter().any(|realm| realm.username_limits == Some(true)) {
        return;
    }
    for Located { value: (name, _), place } in policies {
        if realms.iter().all(|realm| realm.peers != Some(*name)) {
            let message = format!(
                "nobody comes by the policy \"{name}\": no [[realm]] has peers = \"{name}\", and usernames cannot name it unless \
                 username-limits in [auth] or a [[realm]] is true"
            );
            document.warning(place.clone(), message);
        }
    }
}

/// What `[peers]` and a `[[peers.policy]]` have in common. Each rule is tried by itself, so that every malformed one is named with its
/// place.
fn read_rules(section: &Section<'_, '_>, dev: bool) -> PeerRules {
    let mut denied = section.texts("denied", as_written);
    let allowed = section.texts("allowed", as_written);
    let denied_ports = section.numbers("denied-ports");
    let default_deny_all = or_default(section.text("mode", |text| choose(PEER_MODES, text, "a mode")));
    let (relays, given) = (section.boolean("relays"), section.has("relays"));
    let own_services = section.texts("own-services", str::parse::<OwnService>);

    denied.retain(|rule| !refuses(section, "denied", rule, &PeerRules { denied: one(rule), ..PeerRules::default() }));
    let denied: Vec<String> = denied.into_iter().map(|rule| rule.value).collect();
    for rule in &allowed {
        let rules = PeerRules { denied: denied.clone(), allowed: one(rule), default_deny_all, ..PeerRules::default() };
        refuses(section, "allowed", rule, &rules);
    }
    PeerRules {
        denied,
        allowed: allowed.into_iter().map(|rule| rule.value).collect(),
        default_deny_all,
        // Who lists the peers there are means all of them.
        deny_relays: if given { !relays } else { default_deny_all },
        own_services: own_services.into_iter().map(|service| service.value).collect(),
        allow_loopback: dev,
        denied_ports: denied_ports.into_iter().filter_map(|port| u16::try_from(port).ok()).collect(),
        ..PeerRules::default()
    }
}

fn refuses(section: &Section<'_, '_>, key: &'static str, rule: &Located<String>, rules: &PeerRules) -> bool {
    let Err(AclError { rule: text, problem }) = PeerAcl::compile(rules) else { return false };
    let message = match problem {
        RuleProblem::NoEffect(NoEffect::Never(_) | NoEffect::Own(_)) => format!(
            "{text:?}: {problem}; leave it out: a program on this host is reached with own-services, and nothing else there"
        ),
        _ => format!("{text:?}: {problem}; expected {}", section.expected(key)),
    };
    section.problem(key, rule.place.clone(), message);
    true
}

fn one(rule: &Located<String>) -> Vec<String> {
    vec![rule.value.clone()]
}

fn as_written(text: &str) -> Result<String, Infallible> {
    Ok(text.to_owned())
}
