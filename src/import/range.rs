//! Ranges of addresses, as rules about peers have them.

use std::net::IpAddr;

/// An inclusive range of addresses of one family, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerRange {
    pub(super) is_ipv4: bool,
    pub(super) first: u128,
    pub(super) last: u128,
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RangeError {
    #[error("{0:?} is not an IP address")]
    NotAnAddress(String),
    #[error("{0:?} is not a network")]
    NotANetwork(String),
    #[error("{0:?} begins and ends in different families")]
    TwoFamilies(String),
    #[error("{0:?} ends before it begins")]
    Reversed(String),
}

impl PeerRange {
    /// Reads `ADDRESS` or `FIRST-LAST`, as coturn does, and a network; says whether it was a network.
    pub(super) fn parse(text: &str) -> Result<(Self, bool), RangeError> {
        let address = |text: &str| {
            let text = text.trim();
            text.parse::<IpAddr>().map_err(|_| RangeError::NotAnAddress(text.to_owned()))
        };
        if let Some((network, length)) = text.split_once('/') {
            let network = Self::single(address(network)?);
            let width: u32 = if network.is_ipv4 { 32 } else { 128 };
            let length = length.trim().parse::<u32>().ok().filter(|length| *length <= width);
            let length = length.ok_or_else(|| RangeError::NotANetwork(text.to_owned()))?;
            let hosts = u128::MAX.checked_shr(128 - (width - length)).unwrap_or(0);
            let range = Self { first: network.first & !hosts, last: network.first | hosts, ..network };
            return Ok((range, true));
        }
        let Some((first, last)) = text.split_once('-') else {
            return Ok((Self::single(address(text)?), false));
        };
        let (first, last) = (Self::single(address(first)?), Self::single(address(last)?));
        if first.is_ipv4 != last.is_ipv4 {
            return Err(RangeError::TwoFamilies(text.to_owned()));
        }
        if first.first > last.first {
            return Err(RangeError::Reversed(text.to_owned()));
        }
        Ok((Self { last: last.first, ..first }, false))
    }

    pub(super) fn single(ip: IpAddr) -> Self {
        let (is_ipv4, bits) = match ip {
            IpAddr::V4(v4) => (true, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (false, v6.to_bits()),
        };
        Self { is_ipv4, first: bits, last: bits }
    }

    pub(super) fn whole(is_ipv4: bool) -> Self {
        Self { is_ipv4, first: 0, last: if is_ipv4 { u128::from(u32::MAX) } else { u128::MAX } }
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        self.is_ipv4 == other.is_ipv4 && self.first <= other.first && other.last <= self.last
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.is_ipv4 == other.is_ipv4 && self.first <= other.last && other.first <= self.last
    }

    pub(super) fn is_single(&self) -> bool {
        self.first == self.last
    }

    /// What is left of it without `hole`: nothing, one or two ranges.
    pub(super) fn without(self, hole: &Self) -> impl Iterator<Item = Self> {
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

    pub(super) fn address(&self, bits: u128) -> IpAddr {
        match u32::try_from(bits) {
            Ok(bits) if self.is_ipv4 => IpAddr::V4(bits.into()),
            _ => IpAddr::V6(bits.into()),
        }
    }

    /// As a network where it is one, else as an address or a range.
    pub(super) fn text(&self) -> String {
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
pub(super) fn subtract(mut ranges: Vec<PeerRange>, holes: &[PeerRange]) -> Vec<PeerRange> {
    for hole in holes {
        if ranges.iter().any(|range| range.overlaps(hole)) {
            ranges = ranges.into_iter().flat_map(|range| range.without(hole)).collect();
        }
    }
    ranges
}
