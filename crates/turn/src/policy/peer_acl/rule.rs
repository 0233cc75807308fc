//! Rules as text: CIDR, single addresses and `a-b` ranges, with ` override` after them where it may stand.

use std::net::IpAddr;

use crate::addr::Family;

use super::error::{AclError, RuleProblem};

/// An inclusive range of addresses of one family. IPv4 addresses are the numbers up to `u32::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddrRange {
    pub(super) family: Family,
    pub(super) first: u128,
    pub(super) last: u128,
}

impl AddrRange {
    pub(super) fn single(ip: IpAddr) -> Self {
        let bits = bits(ip);
        Self { family: Family::of(ip), first: bits, last: bits }
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.first && other.last <= self.last
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// Addresses in the range, less one, so that all of IPv6 fits.
    pub(super) fn size(&self) -> u128 {
        self.last - self.first
    }
}

/// Parses a rule that may end in ` override`; says whether it did.
pub(super) fn parse_allowed(text: &str) -> Result<(AddrRange, bool), AclError> {
    let rule = text.trim();
    match rule.strip_suffix("override") {
        Some(range) if range.ends_with(char::is_whitespace) => Ok((parse_range(text, range)?, true)),
        _ => Ok((parse_range(text, rule)?, false)),
    }
}

/// Parses a rule of `denied`.
pub(super) fn parse_denied(text: &str) -> Result<AddrRange, AclError> {
    if text.trim().ends_with("override") {
        return Err(AclError::new(text, RuleProblem::OverrideOfDenial));
    }
    parse_range(text, text)
}

/// Parses a CIDR and nothing else; returns the network's bits and the prefix length.
pub(super) fn parse_ipv6_prefix(text: &str) -> Result<(AddrRange, u8), AclError> {
    match text.trim().split_once('/') {
        Some((network, length)) => {
            let (range, length) = parse_cidr(text, network, length)?;
            match range.family {
                Family::V6 => Ok((range, length)),
                Family::V4 => Err(AclError::new(text, RuleProblem::NotIpv6)),
            }
        }
        None => Err(AclError::new(text, RuleProblem::NotAPrefix)),
    }
}

fn parse_range(rule: &str, range: &str) -> Result<AddrRange, AclError> {
    let range = range.trim();
    if let Some((network, length)) = range.split_once('/') {
        return parse_cidr(rule, network, length).map(|(range, _)| range);
    }
    let Some((first, last)) = range.split_once('-') else {
        return Ok(AddrRange::single(parse_ip(rule, range)?));
    };
    let (first, last) = (parse_ip(rule, first.trim())?, parse_ip(rule, last.trim())?);
    if Family::of(first) != Family::of(last) {
        return Err(AclError::new(rule, RuleProblem::TwoFamilies));
    }
    if first > last {
        return Err(AclError::new(rule, RuleProblem::Reversed { first, last }));
    }
    Ok(AddrRange { family: Family::of(first), first: bits(first), last: bits(last) })
}

fn parse_cidr(rule: &str, network: &str, length: &str) -> Result<(AddrRange, u8), AclError> {
    let ip = parse_ip(rule, network)?;
    let family = Family::of(ip);
    let width: u8 = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length = length
        .parse::<u8>()
        .ok()
        .filter(|length| is_number && *length <= width)
        .ok_or_else(|| AclError::new(rule, RuleProblem::Length { family, width, length: length.to_owned() }))?;
    let host_bits = match width - length {
        0 => 0,
        host_width => u128::MAX >> (128 - u32::from(host_width)),
    };
    let first = bits(ip);
    if first & host_bits != 0 {
        let network = from_bits(family, first & !host_bits);
        return Err(AclError::new(rule, RuleProblem::HostBits { address: ip, network, length }));
    }
    Ok((AddrRange { family, first, last: first | host_bits }, length))
}

fn parse_ip(rule: &str, text: &str) -> Result<IpAddr, AclError> {
    let ip: IpAddr = text.parse().map_err(|_| AclError::new(rule, RuleProblem::NotAnAddress(text.to_owned())))?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(AclError::new(rule, RuleProblem::Mapped)),
        _ => Ok(ip),
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

pub(super) fn from_bits(family: Family, bits: u128) -> IpAddr {
    match (family, u32::try_from(bits)) {
        (Family::V4, Ok(bits)) => IpAddr::V4(bits.into()),
        _ => IpAddr::V6(bits.into()),
    }
}
