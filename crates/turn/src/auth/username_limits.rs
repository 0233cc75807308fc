//! What a time-limited username asks of the server beside a name: `EXPIRY:USER;bw=2M;alloc=4;peers=NAME`.
//!
//! The shared secret's HMAC covers the whole username, so that whoever mints it has signed the limits, too, and clients carry them
//! unchanged. They only tighten what the configuration grants. Reading is strict, and what is not known is refused: a limit of a later
//! version must not be taken for none.

use std::fmt;

use crate::policy::{BandwidthLimits, QuotaLimits};
use crate::policy_name::PolicyName;

/// The limits of one credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsernameLimits {
    /// `bw`: bits a second and direction, over all of the user's allocations that are made with such a credential.
    pub bits_per_second: Option<u64>,
    /// `alloc`: the user's live allocations, whatever they were made with, at which this credential makes no more.
    pub allocations: Option<u32>,
    /// `peers`: the peer policy that must allow a peer as well.
    pub peers: Option<PolicyName>,
}

/// Why the limits of a username cannot be read. Each text is about untrusted text, and has none of it but a known key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsernameLimitsError {
    /// What follows a `;` is not `key=value`.
    #[error("what follows a ; is not KEY=VALUE")]
    Form,
    /// A key that this version does not know.
    #[error("there is a limit that this server does not know; it knows bw, alloc and peers")]
    Unknown,
    /// A key that is there twice.
    #[error("the limit {0} is there twice")]
    Twice(&'static str),
    /// A value that is no number of bits.
    #[error(
        "bw is not a whole number of bits a second from 8 on, with K, M or G for thousands, millions or thousand millions"
    )]
    Bandwidth,
    /// A value that is no number of allocations.
    #[error("alloc is not a whole number from 1 to 4294967295")]
    Allocations,
    /// A value that is no name.
    #[error("peers is not the name of a peer policy")]
    Peers,
}

impl UsernameLimits {
    /// Takes a username apart: what stands before the first `;`, and the limits after it.
    ///
    /// # Errors
    /// Why the limits cannot be read.
    pub fn split(username: &str) -> Result<(&str, Self), UsernameLimitsError> {
        let (plain, items) = username.split_once(';').map_or((username, None), |(plain, items)| (plain, Some(items)));
        let mut limits = Self::default();
        for item in items.into_iter().flat_map(|items| items.split(';')) {
            let (key, value) = item.split_once('=').ok_or(UsernameLimitsError::Form)?;
            match key {
                "bw" => {
                    let bits = parse_bits(value).ok_or(UsernameLimitsError::Bandwidth)?;
                    set(&mut limits.bits_per_second, bits, "bw")?;
                }
                "alloc" => {
                    let allocations = parse_number(value).and_then(|number| u32::try_from(number).ok());
                    let allocations =
                        allocations.filter(|number| *number > 0).ok_or(UsernameLimitsError::Allocations)?;
                    set(&mut limits.allocations, allocations, "alloc")?;
                }
                "peers" => {
                    let name = value.parse().map_err(|_| UsernameLimitsError::Peers)?;
                    set(&mut limits.peers, name, "peers")?;
                }
                _ => return Err(UsernameLimitsError::Unknown),
            }
        }
        Ok((plain, limits))
    }

    /// What stands before the limits of a username, readable or not.
    pub fn plain(username: &str) -> &str {
        username.split_once(';').map_or(username, |(plain, _)| plain)
    }

    /// The limits of a user's username as they stand in it, without the first `;`. A user of whom they are not read has them in the name.
    pub fn text_of<'n>(username: &'n str, user: &str) -> Option<&'n str> {
        let (_, items) = username.split_once(';')?;
        (!user.contains(';')).then_some(items)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The configured quotas, tightened.
    pub(crate) fn tighten_quota(&self, quota: QuotaLimits) -> QuotaLimits {
        let fleet_per_user = quota.fleet_per_user.and_then(|limit| least(Some(limit), self.allocations));
        QuotaLimits { per_user: least(quota.per_user, self.allocations), fleet_per_user, ..quota }
    }

    /// The configured caps, tightened.
    pub(crate) fn tighten_bandwidth(&self, bandwidth: BandwidthLimits) -> BandwidthLimits {
        let bytes = self.bits_per_second.map(|bits| bits / 8);
        BandwidthLimits { per_user: least(bandwidth.per_user, bytes), ..bandwidth }
    }
}

/// As it stands in a username, the first `;` included; nothing where there are none.
impl fmt::Display for UsernameLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bits) = self.bits_per_second {
            let units = [(1_000_000_000, "G"), (1_000_000, "M"), (1000, "K")];
            let (unit, suffix) = units.into_iter().find(|(unit, _)| bits % unit == 0).unwrap_or((1, ""));
            write!(f, ";bw={}{suffix}", bits / unit)?;
        }
        if let Some(allocations) = self.allocations {
            write!(f, ";alloc={allocations}")?;
        }
        if let Some(name) = self.peers {
            write!(f, ";peers={name}")?;
        }
        Ok(())
    }
}

fn least<T: Ord>(configured: Option<T>, own: Option<T>) -> Option<T> {
    configured.into_iter().chain(own).min()
}

fn set<T>(limit: &mut Option<T>, value: T, key: &'static str) -> Result<(), UsernameLimitsError> {
    match limit.replace(value) {
        None => Ok(()),
        Some(_) => Err(UsernameLimitsError::Twice(key)),
    }
}

/// A number in one way only: no sign, no zeros before it.
fn parse_number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_number.then(|| text.parse().ok())?
}

fn parse_bits(text: &str) -> Option<u64> {
    let units = [('K', 1000), ('M', 1_000_000), ('G', 1_000_000_000)];
    let with_unit = units.into_iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)));
    let (number, unit) = with_unit.unwrap_or((text, 1));
    parse_number(number)?.checked_mul(unit).filter(|bits| *bits >= 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(username: &str) -> Result<(&str, UsernameLimits), UsernameLimitsError> {
        UsernameLimits::split(username)
    }

    #[test]
    fn limits_are_read_in_any_order_and_written_in_one() {
        let (plain, limits) = read("1735689600:alice;peers=sfu;bw=2M;alloc=4").unwrap();
        assert_eq!(plain, "1735689600:alice");
        let name = Some("sfu".parse().unwrap());
        assert_eq!(limits, UsernameLimits { bits_per_second: Some(2_000_000), allocations: Some(4), peers: name });
        assert_eq!(limits.to_string(), ";bw=2M;alloc=4;peers=sfu");
        assert_eq!(read("1735689600"), Ok(("1735689600", UsernameLimits::default())));
        assert_eq!(read(";alloc=1").unwrap().0, "");
        for bandwidth in ["8", "1K", "1500K", "2M", "1G", "1234567", "18446744073709551615"] {
            let text = format!("a;bw={bandwidth}");
            let (plain, limits) = read(&text).unwrap();
            assert_eq!(read(&format!("{plain}{limits}")), Ok((plain, limits)), "{text}");
        }
    }

    #[test]
    fn what_is_not_exactly_so_is_refused() {
        use UsernameLimitsError as Error;
        for (items, error) in [
            ("", Error::Form),
            (";", Error::Form),
            ("bw", Error::Form),
            ("bw=1M;", Error::Form),
            (";bw=1M", Error::Form),
            ("user", Error::Form),
            ("=1", Error::Unknown),
            ("BW=1M", Error::Unknown),
            (" bw=1M", Error::Unknown),
            ("pps=100", Error::Unknown),
            ("bw=1M;bw=1M", Error::Twice("bw")),
            ("alloc=1;peers=a;alloc=1", Error::Twice("alloc")),
            ("peers=a;peers=a", Error::Twice("peers")),
            ("bw=", Error::Bandwidth),
            ("bw=0", Error::Bandwidth),
            ("bw=7", Error::Bandwidth),
            ("bw=M", Error::Bandwidth),
            ("bw=01M", Error::Bandwidth),
            ("bw=+1M", Error::Bandwidth),
            ("bw=1m", Error::Bandwidth),
            ("bw=1.5M", Error::Bandwidth),
            ("bw=1MM", Error::Bandwidth),
            ("bw=1M ", Error::Bandwidth),
            ("bw=18446744073709551616", Error::Bandwidth),
            ("bw=18446744073709551615K", Error::Bandwidth),
            ("bw=\u{661}", Error::Bandwidth),
            ("alloc=", Error::Allocations),
            ("alloc=0", Error::Allocations),
            ("alloc=04", Error::Allocations),
            ("alloc=-1", Error::Allocations),
            ("alloc=4294967296", Error::Allocations),
            ("alloc=1=1", Error::Allocations),
            ("peers=", Error::Peers),
            ("peers=a b", Error::Peers),
            ("peers=a=b", Error::Peers),
        ] {
            assert_eq!(read(&format!("1735689600:alice;{items}")), Err(error), "{items:?}");
        }
    }

    #[test]
    fn the_stricter_of_both_counts() {
        let limits = read("a;bw=8000;alloc=4").unwrap().1;
        let quota = |per_user| limits.tighten_quota(QuotaLimits { per_user, ..QuotaLimits::default() }).per_user;
        assert_eq!([quota(None), quota(Some(3)), quota(Some(5)), quota(Some(0))], [Some(4), Some(3), Some(4), Some(0)]);
        let bandwidth = |per_user| {
            let caps = BandwidthLimits { per_user, per_allocation: Some(7), ..BandwidthLimits::default() };
            let tightened = limits.tighten_bandwidth(caps);
            assert_eq!(tightened.per_allocation, Some(7));
            tightened.per_user
        };
        assert_eq!([bandwidth(None), bandwidth(Some(999)), bandwidth(Some(1001))], [Some(1000), Some(999), Some(1000)]);
        assert!(UsernameLimits::default().is_empty() && !limits.is_empty());
    }
}
