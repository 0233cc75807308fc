//! coturn's peer rules as `[peers]`.
//!
//! In coturn an allowed-peer-ip wins over every denied-peer-ip, whatever their sizes, and what neither names is reachable.
//! Here a denial wins, private networks are denied to begin with, and an allow rule lifts a denial only when it is marked
//! `override` and is the more specific one. So the allowed ranges are cut out of the denied ones, which says the same with
//! denials only; `override` is left for what is denied by default.
//!
//! What coturn reaches on its own host, as an SFU beside it, is `own-services` here. A server that tells its clients a private
//! address is there for that network, whose peers it must reach.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::policy::{OwnService, PeerAcl, PeerRules, default_denials};

use super::conf::At;
use super::findings::{Finding, FindingKind, Grade, Spot};
use super::range::{PeerRange, subtract};
use crate::addr::Reach;
use crate::config::network_of;

/// `[peers]`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Peers {
    pub(super) default_deny: bool,
    pub(super) denied: Vec<String>,
    pub(super) allowed: Vec<String>,
    pub(super) own_services: Vec<String>,
}

/// What the server has itself.
pub(super) struct Own {
    /// The addresses that the file names.
    pub(super) addresses: Vec<IpAddr>,
    /// Those of them that are not on this host, but stand for it outside.
    pub(super) mapped: Vec<IpAddr>,
    /// What clients are told as relay address, one per family.
    pub(super) told: Vec<IpAddr>,
    pub(super) relay_ports: (u16, u16),
    /// How denied and allowed peers are written in the file.
    pub(super) directives: [&'static str; 2],
}

/// The same addresses in as few ranges as they can be in.
fn merged(rules: &[At<PeerRange>]) -> Vec<PeerRange> {
    let mut ranges: Vec<PeerRange> = rules.iter().map(|rule| rule.value).collect();
    ranges.sort_unstable_by_key(|range| (range.is_ipv4, range.first, range.last));
    let mut merged: Vec<PeerRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.is_ipv4 == range.is_ipv4 && range.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// ::ffff:0:0/96, which the rules of `turnserver.toml` may not name, because it is always denied.
const MAPPED: PeerRange = PeerRange { is_ipv4: false, first: 0xffff_0000_0000, last: 0xffff_ffff_ffff };

/// Converts the rules.
pub(super) fn convert(
    denied: &[At<PeerRange>],
    allowed: &[At<PeerRange>],
    own: &Own,
    findings: &mut Vec<Finding>,
) -> Peers {
    let holes = merged(allowed);
    let all_denied = merged(denied);
    let nothing_else = |is_ipv4| subtract(vec![PeerRange::whole(is_ipv4)], &all_denied).is_empty();
    let mut peers = Peers { default_deny: nothing_else(true) && nothing_else(false), ..Peers::default() };
    if !peers.default_deny {
        for rule in denied {
            for piece in subtract(subtract(vec![rule.value], &holes), &[MAPPED]) {
                peers.denied.push(piece.text());
            }
        }
        if nothing_else(true) {
            let message = "every IPv4 peer that is not allowed is denied, but IPv6 peers are not; mode = \"sfu\" in \
                           [peers] denies both";
            add(findings, None, own.directives[0], FindingKind::Note, Grade::Security, message);
        }
    }
    for rule in allowed {
        let of_host = own.addresses.iter().find(|ip| PeerRange::single(**ip) == rule.value);
        match of_host.and_then(|ip| own_services(*ip, own)) {
            Some(services) => {
                let message = format!(
                    "an address of this server itself, which peers reach only where own-services in [peers] names ports: \
                     all are named, as was so before, and only the listeners' are never reached; leave those of the SFU or other program \
                     there ({}:20000-20999, say)",
                    bracketed(rule.value.address(rule.value.first))
                );
                add(findings, Some(rule.spot), own.directives[1], FindingKind::Note, Grade::Security, &message);
                peers.own_services.extend(services);
            }
            None => convert_allowed(rule, &mut peers, own, findings),
        }
    }
    open_own_network(own, &all_denied, &holes, &mut peers, findings);
    for texts in [&mut peers.denied, &mut peers.allowed, &mut peers.own_services] {
        let mut seen = HashSet::new();
        texts.retain(|text| seen.insert(text.clone()));
    }
    peers
}

/// Takes an allowed range that is elsewhere.
fn convert_allowed(rule: &At<PeerRange>, peers: &mut Peers, own: &Own, findings: &mut Vec<Finding>) {
    let mut remark =
        |kind, grade, message: &str| add(findings, Some(rule.spot), own.directives[1], kind, grade, message);
    let rules = allow(&rule.value, peers.default_deny);
    match &rules {
        Allow::Override(_) if rule.value.is_single() => {
            let message = "lifts the default denial; if this is an address of the server's own host, name the program there \
                           instead: own-services = [\"ADDRESS:PORT\"] in [peers]";
            remark(FindingKind::Note, Grade::Security, message);
        }
        Allow::Override(_) => {
            remark(FindingKind::Note, Grade::Security, "lifts the default denial of this network");
        }
        Allow::Never => {
            let message = "loopback, multicast and the like are denied whatever the rules say";
            remark(FindingKind::NotConverted, Grade::Clients, message);
        }
        Allow::Plain(_) if rule.value.is_single() && own.addresses.is_empty() => {
            let message = "if this is an address of the server's own host, peers reach no program there: name it, \
                           own-services = [\"ADDRESS:PORT\"] in [peers]";
            remark(FindingKind::Note, Grade::Clients, message);
        }
        Allow::Plain(_) | Allow::Needless => {}
    }
    if let Some(inside) = own.addresses.iter().find(|ip| rule.value.contains(&PeerRange::single(**ip)))
        && !matches!(rules, Allow::Never)
    {
        let message = format!(
            "{inside}, in this range, is the server's own: coturn reaches other programs there, this server only those \
             that own-services in [peers] names (\"{}:PORT\")",
            bracketed(*inside)
        );
        remark(FindingKind::Note, Grade::Clients, &message);
    }
    if !matches!(rules, Allow::Override(_) | Allow::Never)
        && default_ranges().any(|(special, _)| special.overlaps(&rule.value))
    {
        let message = "it does not lift the default denial of private and special networks inside of it; name those \
                       that hold peers singly";
        remark(FindingKind::NotConverted, Grade::Clients, message);
    }
    for text in rules.into_texts() {
        // What is denied has no address in common with it.
        let judged =
            PeerRules { allowed: vec![text.clone()], default_deny_all: peers.default_deny, ..PeerRules::default() };
        match PeerAcl::compile(&judged) {
            Ok(_) => peers.allowed.push(text),
            Err(error) => remark(FindingKind::NotConverted, Grade::Clients, &error.problem.to_string()),
        }
    }
}

/// Every port of an address of this host; of one that is mapped to it, those that are not the relays', which are reached
/// without going through the NAT. `None` where it can be no service's.
fn own_services(ip: IpAddr, own: &Own) -> Option<Vec<String>> {
    let (low, high) = own.relay_ports;
    let around = [Some((1, low.saturating_sub(1))), high.checked_add(1).map(|first| (first, u16::MAX))];
    let ranges = match own.mapped.contains(&ip) {
        true => around.into_iter().flatten().filter(|(first, last)| first <= last).collect(),
        false => vec![(1, u16::MAX)],
    };
    let texts: Vec<String> = ranges.iter().map(|(first, last)| format!("{}:{first}-{last}", bracketed(ip))).collect();
    texts.iter().all(|text| text.parse::<OwnService>().is_ok()).then_some(texts)
}

fn bracketed(ip: IpAddr) -> String {
    if ip.is_ipv4() { ip.to_string() } else { format!("[{ip}]") }
}

/// A relay address that is private is of use to its own network only, which is denied by default.
fn open_own_network(
    own: &Own,
    denied: &[PeerRange],
    allowed: &[PeerRange],
    peers: &mut Peers,
    findings: &mut Vec<Finding>,
) {
    for ip in own.told.iter().filter(|ip| Reach::of(**ip).is_of_lan()) {
        let single = PeerRange::single(*ip);
        let holding = default_ranges().filter(|(range, liftable)| *liftable && range.contains(&single));
        let Some((network, _)) = holding.min_by_key(|(range, _)| range.last - range.first) else { continue };
        let pieces = match peers.default_deny {
            true => Vec::new(),
            false => subtract(subtract(vec![network], denied), allowed),
        };
        let message = if pieces.is_empty() {
            if peers.allowed.iter().any(|rule| rule.ends_with(" override")) || !peers.own_services.is_empty() {
                continue;
            }
            format!(
                "the relay address {ip} is private, so that only peers of its network could be reached, and all of them are \
                 denied, in coturn too"
            )
        } else {
            format!(
                "the relay address {ip} is private: the peers are in its network, and {} is opened for them, because the \
                 file does not say how large that is; write it smaller (ip -brief address), such as \"{} override\"",
                network.text(),
                network_of(*ip)
            )
        };
        let grade = if pieces.is_empty() { Grade::Clients } else { Grade::Security };
        add(findings, None, "[peers]", FindingKind::Note, grade, &message);
        peers.allowed.extend(pieces.iter().map(|piece| format!("{} override", piece.text())));
    }
}

enum Allow {
    /// Marked `override`.
    Override(Vec<String>),
    Plain(Vec<String>),
    /// Nothing denies it.
    Needless,
    /// No rule can allow it.
    Never,
}

impl Allow {
    fn into_texts(self) -> Vec<String> {
        match self {
            Self::Override(texts) | Self::Plain(texts) => texts,
            Self::Needless | Self::Never => Vec::new(),
        }
    }
}

fn allow(range: &PeerRange, default_deny: bool) -> Allow {
    if default_ranges().any(|(special, liftable)| !liftable && special.contains(range)) {
        return Allow::Never;
    }
    // Only who names a special network, or a part of one, means it: not who allows the whole Internet.
    if default_ranges().any(|(special, liftable)| liftable && special.contains(range)) {
        let mut pieces = vec![*range];
        for (special, liftable) in default_ranges() {
            pieces = pieces
                .into_iter()
                .flat_map(|piece| {
                    let inside = PeerRange {
                        first: piece.first.max(special.first),
                        last: piece.last.min(special.last),
                        ..piece
                    };
                    let kept = (liftable && special.overlaps(&piece)).then_some(inside);
                    piece.without(&special).chain(kept).collect::<Vec<_>>()
                })
                .collect();
        }
        pieces.sort_by_key(|piece| piece.first);
        return Allow::Override(pieces.iter().map(|piece| format!("{} override", piece.text())).collect());
    }
    match default_deny {
        // A mapped address at either end cannot be written.
        true => Allow::Plain(subtract(vec![*range], &[MAPPED]).iter().map(PeerRange::text).collect()),
        false => Allow::Needless,
    }
}

fn default_ranges() -> impl Iterator<Item = (PeerRange, bool)> {
    default_denials().map(|(first, last, liftable)| {
        let (first, last) = (PeerRange::single(first), PeerRange::single(last));
        (PeerRange { last: last.first, ..first }, liftable)
    })
}

fn add(
    findings: &mut Vec<Finding>,
    spot: Option<Spot>,
    directive: &str,
    kind: FindingKind,
    grade: Grade,
    message: &str,
) {
    let (directive, message) = (directive.to_owned(), message.to_owned());
    findings.push(Finding { spot, directive, kind, grade, message });
}
