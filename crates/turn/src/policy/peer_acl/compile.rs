//! From rules to tables: one sweep over the boundaries of all ranges, deciding each stretch between two of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::addr::Family;

use super::defaults::{Lifted, default_denials, is_host_address};
use super::embedded::Nat64Prefix;
use super::error::{AclError, NoEffect, RuleProblem};
use super::peer_rules::PeerRules;
use super::range_map::{Class, RangeMap};
use super::rule::{AddrRange, parse_allowed, parse_denied, parse_ipv6_prefix};

/// What the rules compile to.
pub(super) struct Tables {
    pub(super) ipv4: RangeMap<u32>,
    pub(super) ipv6: RangeMap<u128>,
    pub(super) nat64_prefixes: Box<[Nat64Prefix]>,
}

/// Compiles the tables of both families; also returns the first rule that can have no effect.
pub(super) fn compile_tables(rules: &PeerRules) -> Result<(Tables, Option<AclError>), AclError> {
    let (claims, nat64_prefixes) = claims(rules)?;
    let mut has_effect = vec![false; claims.len()];
    let ipv4 = sweep(&claims, Family::V4, rules.default_deny_all, &mut has_effect);
    let ipv6 = sweep(&claims, Family::V6, rules.default_deny_all, &mut has_effect);
    let mut effects = claims.iter().zip(has_effect);
    let useless = effects.find(|(claim, has_effect)| claim.effect.must_have_effect() && !has_effect);
    let without_effect = useless.map(|(claim, _)| no_effect(claim, &claims, rules.default_deny_all));
    let ipv4 = ipv4.into_iter().filter_map(|(start, class)| Some((u32::try_from(start).ok()?, class)));
    let tables = Tables { ipv4: RangeMap::new(ipv4), ipv6: RangeMap::new(ipv6), nat64_prefixes: nat64_prefixes.into() };
    Ok((tables, without_effect))
}

/// What a range says of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Relay,
    Server,
    Default(Lifted),
    Configured,
    Nat64,
    Loopback,
    Override,
    Allow,
}

impl Effect {
    fn must_have_effect(self) -> bool {
        matches!(self, Self::Override | Self::Allow)
    }
}

pub(super) struct Claim<'a> {
    pub(super) range: AddrRange,
    pub(super) effect: Effect,
    /// The rule as written, or what the default is.
    pub(super) name: &'a str,
}

/// Everything that the defaults, the rules and the server itself say of a range.
pub(super) fn claims(rules: &PeerRules) -> Result<(Vec<Claim<'_>>, Vec<Nat64Prefix>), AclError> {
    let mut claims = Vec::new();
    for denial in default_denials() {
        let effect = match denial.lifted {
            Lifted::ByLoopback if rules.allow_loopback => Effect::Loopback,
            lifted => Effect::Default(lifted),
        };
        claims.push(Claim { range: denial.range, effect, name: denial.name });
    }
    for text in &rules.denied {
        claims.push(Claim { range: parse_denied(text)?, effect: Effect::Configured, name: text.trim() });
    }
    for text in &rules.allowed {
        let (range, is_override) = parse_allowed(text)?;
        let effect = if is_override { Effect::Override } else { Effect::Allow };
        claims.push(Claim { range, effect, name: text.trim() });
    }
    let mut prefixes = Vec::new();
    for text in &rules.nat64_prefixes {
        let (range, length) = parse_ipv6_prefix(text)?;
        let error = |problem| AclError::new(text, problem);
        prefixes.push(Nat64Prefix::new(range.first, length).map_err(error)?);
        let forbidden = |claim: &&Claim<'_>| claim.effect.is_unconditional() && claim.range.overlaps(&range);
        if let Some(claim) = claims.iter().find(forbidden) {
            return Err(error(RuleProblem::Nat64In(claim.name.to_owned())));
        }
        claims.push(Claim { range, effect: Effect::Nat64, name: text.trim() });
    }
    for ip in own_addresses(rules) {
        claims.push(Claim { range: AddrRange::single(ip), effect: Effect::Server, name: "an address of this server" });
    }
    for network in own_networks(rules) {
        claims.push(Claim { range: network, effect: Effect::Server, name: "an address that ends at this host" });
    }
    for ip in rules.relay_addresses.iter().map(IpAddr::to_canonical) {
        if !is_host_address(ip) {
            return Err(AclError::new(&ip.to_string(), RuleProblem::NotOneHost));
        }
        claims.push(Claim { range: AddrRange::single(ip), effect: Effect::Relay, name: "a relay address" });
    }
    Ok((claims, prefixes))
}

impl Effect {
    fn is_unconditional(self) -> bool {
        matches!(self, Self::Loopback | Self::Default(Lifted::Never | Lifted::NeverForm | Lifted::ByLoopback))
    }
}

/// With `allow_loopback`, a loopback address is every program's on this host, not the server's own.
fn own_addresses(rules: &PeerRules) -> impl Iterator<Item = IpAddr> + '_ {
    let addresses = rules.own_addresses.iter().map(IpAddr::to_canonical);
    addresses.filter(|ip| !(rules.allow_loopback && ip.is_loopback()))
}

/// Loopback is denied, or with `allow_loopback` allowed, as a whole.
fn own_networks(rules: &PeerRules) -> impl Iterator<Item = AddrRange> + '_ {
    let networks = rules.own_networks.iter().filter(|network| !network.network().is_loopback());
    networks.map(|network| AddrRange {
        first: AddrRange::single(network.network()).first,
        last: AddrRange::single(network.broadcast()).last,
        family: Family::of(network.addr()),
    })
}

/// Walks the boundaries in ascending order. Returns the start and class of each stretch, and marks the claims that made a
/// peer reachable.
fn sweep(claims: &[Claim<'_>], family: Family, default_deny_all: bool, has_effect: &mut [bool]) -> Vec<(u128, Class)> {
    let last_address = match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    };
    let mut boundaries = Vec::with_capacity(claims.len() * 2);
    for (index, claim) in claims.iter().enumerate().filter(|(_, claim)| claim.range.family == family) {
        boundaries.push((claim.range.first, index, true));
        if claim.range.last < last_address {
            boundaries.push((claim.range.last + 1, index, false));
        }
    }
    boundaries.sort_unstable();

    let mut active = Active::default();
    let mut stretches = Vec::with_capacity(boundaries.len() + 1);
    if boundaries.first().is_none_or(|(start, ..)| *start > 0) {
        stretches.push((0, active.decide(default_deny_all, has_effect)));
    }
    for at_start in boundaries.chunk_by(|a, b| a.0 == b.0) {
        for (_, index, begins) in at_start {
            let Some(claim) = claims.get(*index) else { continue };
            let set = active.set(claim.effect);
            let key = (claim.range.size(), *index);
            if *begins {
                set.insert(key);
            } else {
                set.remove(&key);
            }
        }
        if let Some((start, ..)) = at_start.first() {
            stretches.push((*start, active.decide(default_deny_all, has_effect)));
        }
    }
    stretches
}

/// The claims on one stretch, each as its size and index; the smallest comes first.
type Claims = BTreeSet<(u128, usize)>;

#[derive(Default)]
struct Active {
    relay: Claims,
    server: Claims,
    never: Claims,
    form: Claims,
    nat64_only: Claims,
    default: Claims,
    configured: Claims,
    nat64: Claims,
    loopback: Claims,
    overriding: Claims,
    allowed: Claims,
}

impl Active {
    fn set(&mut self, effect: Effect) -> &mut Claims {
        match effect {
            Effect::Relay => &mut self.relay,
            Effect::Server => &mut self.server,
            Effect::Default(Lifted::Never | Lifted::ByLoopback) => &mut self.never,
            Effect::Default(Lifted::NeverForm) => &mut self.form,
            Effect::Default(Lifted::ByNat64Prefix) => &mut self.nat64_only,
            Effect::Default(Lifted::ByOverride) => &mut self.default,
            Effect::Configured => &mut self.configured,
            Effect::Nat64 => &mut self.nat64,
            Effect::Loopback => &mut self.loopback,
            Effect::Override => &mut self.overriding,
            Effect::Allow => &mut self.allowed,
        }
    }

    /// The order of precedence that [`PeerRules`] documents.
    fn decide(&self, default_deny_all: bool, has_effect: &mut [bool]) -> Class {
        if !self.relay.is_empty() {
            return Class::Relay;
        }
        if !self.server.is_empty() {
            return Class::Server;
        }
        let is_loopback = !self.loopback.is_empty();
        let is_translated = !self.nat64.is_empty();
        if !is_loopback {
            if !self.never.is_empty() || !(self.nat64_only.is_empty() || is_translated) {
                return Class::Default;
            }
            if !self.form.is_empty() {
                return Class::Form;
            }
        }
        let size = |claims: &Claims| claims.first().map(|(size, _)| *size);
        let configured = size(&self.configured);
        let default = size(&self.default).filter(|_| !is_loopback && !is_translated);
        let lifts = |size: u128| {
            configured.is_none_or(|configured| size < configured) && default.is_none_or(|default| size <= default)
        };
        let is_denied = configured.is_some() || default.is_some();
        if is_denied && !size(&self.overriding).is_some_and(lifts) {
            return if configured.is_some() { Class::Configured } else { Class::Default };
        }
        let mut mark = |index: usize| {
            if let Some(has_effect) = has_effect.get_mut(index) {
                *has_effect = true;
            }
        };
        if is_denied {
            self.overriding.iter().take_while(|(size, _)| lifts(*size)).for_each(|(_, index)| mark(*index));
        }
        if !default_deny_all {
            return Class::Open;
        }
        self.overriding.iter().chain(&self.allowed).for_each(|(_, index)| mark(*index));
        if is_loopback || !self.overriding.is_empty() || !self.allowed.is_empty() {
            Class::Open
        } else if is_translated {
            Class::Translated
        } else {
            Class::Unlisted
        }
    }
}

/// Says why an `allowed` rule changes nothing, and what to write instead.
fn no_effect(rule: &Claim<'_>, claims: &[Claim<'_>], default_deny_all: bool) -> AclError {
    AclError::new(rule.name, RuleProblem::NoEffect(why_no_effect(rule, claims, default_deny_all)))
}

fn why_no_effect(rule: &Claim<'_>, claims: &[Claim<'_>], default_deny_all: bool) -> NoEffect {
    if rule.effect == Effect::Allow && !default_deny_all {
        return NoEffect::AllowedAnyway(rule.name.to_owned());
    }
    let covering = |wanted: fn(Effect) -> bool| {
        let covering = claims.iter().filter(|claim| wanted(claim.effect) && claim.range.overlaps(&rule.range));
        let smallest = covering.min_by_key(|claim| (!claim.range.contains(&rule.range), claim.range.size()));
        smallest.map(|claim| claim.name.to_owned())
    };
    if let Some(own) = covering(|effect| matches!(effect, Effect::Server | Effect::Relay)) {
        return NoEffect::Own(own);
    }
    if let Some(range) = covering(Effect::is_unconditional) {
        return NoEffect::Never(range);
    }
    if let Some(range) = covering(|effect| effect == Effect::Default(Lifted::ByNat64Prefix)) {
        return NoEffect::Nat64(range);
    }
    match covering(|effect| matches!(effect, Effect::Configured | Effect::Default(Lifted::ByOverride))) {
        Some(by) if rule.effect == Effect::Allow => NoEffect::Denied { rule: rule.name.to_owned(), by },
        Some(by) => NoEffect::Wider(by),
        None => NoEffect::NothingToLift,
    }
}
