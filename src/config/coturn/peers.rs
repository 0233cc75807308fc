//! coturn's peer rules as `[peers]`.
//!
//! In coturn an allowed-peer-ip wins over every denied-peer-ip, whatever their sizes, and what neither names is reachable.
//! Here a denial wins, private networks are denied to begin with, and an allow rule lifts a denial only when it is marked
//! `override` and is the more specific one. So the allowed ranges are cut out of the denied ones, which says the same with
//! denials only; `override` is left for what is denied by default.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::policy::{PeerAcl, PeerRules, default_denials};

use super::read::At;
use super::{Finding, FindingKind};

/// An inclusive range of addresses of one family, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerRange {
    is_ipv4: bool,
    first: u128,
    last: u128,
}

/// `[peers]`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Peers {
    pub(super) default_deny: bool,
    pub(super) denied: Vec<String>,
    pub(super) allowed: Vec<String>,
}

/// ::ffff:0:0/96, which the rules of `turnserver.toml` may not name, because it is always denied.
const MAPPED: PeerRange = PeerRange { is_ipv4: false, first: 0xffff_0000_0000, last: 0xffff_ffff_ffff };

impl PeerRange {
    /// Reads `ADDRESS` or `FIRST-LAST`, as coturn does, and a network; says whether it was a network.
    pub(super) fn parse(text: &str) -> Result<(Self, bool), String> {
        let address = |text: &str| {
            let text = text.trim();
            text.parse::<IpAddr>().map_err(|_| format!("{text:?} is not an IP address"))
        };
        if let Some((network, length)) = text.split_once('/') {
            let network = Self::single(address(network)?);
            let width: u32 = if network.is_ipv4 { 32 } else { 128 };
            let length = length.trim().parse::<u32>().ok().filter(|length| *length <= width);
            let length = length.ok_or_else(|| format!("{text:?} is not a network"))?;
            let hosts = u128::MAX.checked_shr(128 - (width - length)).unwrap_or(0);
            let range = Self { first: network.first & !hosts, last: network.first | hosts, ..network };
            return Ok((range, true));
        }
        let Some((first, last)) = text.split_once('-') else {
            return Ok((Self::single(address(text)?), false));
        };
        let (first, last) = (Self::single(address(first)?), Self::single(address(last)?));
        if first.is_ipv4 != last.is_ipv4 {
            return Err(format!("{text:?} begins and ends in different families"));
        }
        if first.first > last.first {
            return Err(format!("{text:?} ends before it begins"));
        }
        Ok((Self { last: last.first, ..first }, false))
    }

    fn single(ip: IpAddr) -> Self {
        let (is_ipv4, bits) = match ip {
            IpAddr::V4(v4) => (true, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (false, v6.to_bits()),
        };
        Self { is_ipv4, first: bits, last: bits }
    }

    fn whole(is_ipv4: bool) -> Self {
        Self { is_ipv4, first: 0, last: if is_ipv4 { u128::from(u32::MAX) } else { u128::MAX } }
    }

    fn contains(&self, other: &Self) -> bool {
        self.is_ipv4 == other.is_ipv4 && self.first <= other.first && other.last <= self.last
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.is_ipv4 == other.is_ipv4 && self.first <= other.last && other.first <= self.last
    }

    fn is_single(&self) -> bool {
        self.first == self.last
    }

    /// What is left of it without `hole`: nothing, one or two ranges.
    fn without(self, hole: &Self) -> impl Iterator<Item = Self> {
        let (below, above) = match self.overlaps(hole) {
            false => (Some(self), None),
            true => {
                let below = (self.first < hole.first).then(|| Self { last: hole.first.saturating_sub(1), ..self });
                let above = (hole.last < self.last).then(|| Self { first: hole.last.saturating_add(1), ..self });
                (below, above)
            }
        };
        below.into_iter().chain(above)
    }

    fn address(&self, bits: u128) -> IpAddr {
        match u32::try_from(bits) {
            Ok(bits) if self.is_ipv4 => IpAddr::V4(bits.into()),
            _ => IpAddr::V6(bits.into()),
        }
    }

    /// As a network where it is one, else as an address or a range.
    fn text(&self) -> String {
        let size = self.last - self.first;
        let (width, full): (u32, u128) = if self.is_ipv4 { (32, u128::from(u32::MAX)) } else { (128, u128::MAX) };
        let first = self.address(self.first);
        if self.is_single() {
            return first.to_string();
        }
        if size & size.wrapping_add(1) == 0 && self.first & size == 0 {
            let length = width.saturating_sub((size & full).count_ones());
            return format!("{first}/{length}");
        }
        format!("{first}-{}", self.address(self.last))
    }
}

/// All of `ranges` without all of `holes`.
fn subtract(ranges: Vec<PeerRange>, holes: &[PeerRange]) -> Vec<PeerRange> {
    holes.iter().fold(ranges, |ranges, hole| ranges.into_iter().flat_map(|range| range.without(hole)).collect())
}

/// Converts the rules. `own` are addresses of this server that the file names.
pub(super) fn convert(
    denied: &[At<PeerRange>],
    allowed: &[At<PeerRange>],
    own: &[IpAddr],
    findings: &mut Vec<Finding>,
) -> Peers {
    let holes: Vec<PeerRange> = allowed.iter().map(|rule| rule.value).collect();
    let all_denied: Vec<PeerRange> = denied.iter().map(|rule| rule.value).collect();
    let nothing_else = |is_ipv4| subtract(vec![PeerRange::whole(is_ipv4)], &all_denied).is_empty();
    let mut peers = Peers { default_deny: nothing_else(true) && nothing_else(false), ..Peers::default() };
    if !peers.default_deny {
        for rule in denied {
            for piece in subtract(subtract(vec![rule.value], &holes), &[MAPPED]) {
                peers.denied.push(piece.text());
            }
        }
        if nothing_else(true) {
            let message = "every IPv4 peer that is not allowed is denied, but IPv6 peers are not; default = \"deny\" in \
                           [peers] denies both";
            add(findings, None, "denied-peer-ip", FindingKind::Note, message);
        }
    }
    for rule in allowed {
        let mut remark = |kind, message: &str| add(findings, Some(rule.line), "allowed-peer-ip", kind, message);
        if own.iter().any(|ip| PeerRange::single(*ip) == rule.value) {
            remark(FindingKind::Note, "this server's own relay addresses are always reachable, without a rule");
            continue;
        }
        let rules = allow(&rule.value, peers.default_deny);
        match &rules {
            Allow::Override(_) if rule.value.is_single() => {
                let message = "lifts the default denial; if this is the server's own address, take the rule out: own relay \
                               addresses are reachable without one";
                remark(FindingKind::Note, message);
            }
            Allow::Override(_) => remark(FindingKind::Note, "lifts the default denial of this network"),
            Allow::Never => {
                remark(FindingKind::NotConverted, "loopback, multicast and the like are denied whatever the rules say");
            }
            Allow::Plain(_) | Allow::Needless => {}
        }
        if !matches!(rules, Allow::Override(_) | Allow::Never)
            && default_ranges().any(|(special, _)| special.overlaps(&rule.value))
        {
            let message = "it does not lift the default denial of private and special networks inside of it; name those \
                           that hold peers singly";
            remark(FindingKind::NotConverted, message);
        }
        for text in rules.into_texts() {
            // What is denied has no address in common with it.
            let judged =
                PeerRules { allowed: vec![text.clone()], default_deny_all: peers.default_deny, ..PeerRules::default() };
            match PeerAcl::compile(&judged) {
                Ok(_) => peers.allowed.push(text),
                Err(error) => remark(FindingKind::NotConverted, &error.problem),
            }
        }
    }
    for texts in [&mut peers.denied, &mut peers.allowed] {
        let mut seen = HashSet::new();
        texts.retain(|text| seen.insert(text.clone()));
    }
    peers
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

fn add(findings: &mut Vec<Finding>, line: Option<usize>, directive: &str, kind: FindingKind, message: &str) {
    findings.push(Finding { line, directive: directive.to_owned(), kind, message: message.to_owned() });
}
