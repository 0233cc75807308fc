//! Why a source has not said what the public address is.

use std::net::IpAddr;

use thiserror::Error;

use crate::addr::Family;
use crate::config::is_public;

/// Why there is no answer, or none that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Failure {
    /// The resolver says no.
    #[error("{name} cannot be resolved: {why}")]
    Unresolved {
        /// What was asked for.
        name: String,
        /// In the words of the system.
        why: String,
    },
    /// The resolver says nothing.
    #[error("{name} cannot be resolved: no answer within 5 s")]
    ResolverSilent {
        /// What was asked for.
        name: String,
    },
    /// There is no address of the family that is needed.
    #[error("{name} has no {family} address")]
    NoAddress {
        /// The name.
        name: String,
        /// The family.
        family: Family,
    },
    /// One of several is meant, and which is not known.
    #[error("{name} has several {family} addresses; give this server a name that has its own one only")]
    Several {
        /// The name.
        name: String,
        /// The family.
        family: Family,
    },
    /// No answer in time.
    #[error("{who} does not answer")]
    Silent {
        /// Who was asked.
        who: String,
    },
    /// It cannot be asked.
    #[error("{who} cannot be asked: {why}")]
    Unreachable {
        /// Who was asked.
        who: String,
        /// In the words of the system.
        why: String,
    },
    /// The answer is not what it should be.
    #[error("{who} answers with {what}")]
    Malformed {
        /// Who was asked.
        who: String,
        /// What came instead.
        what: &'static str,
    },
    /// The address is of the other family.
    #[error("{who} says {ip}, which is of the other family")]
    OtherFamily {
        /// Who was asked.
        who: String,
        /// What it says.
        ip: IpAddr,
    },
    /// The address is one that no host of the Internet has.
    #[error("{who} says {ip}, which is no public address")]
    NotPublic {
        /// Who was asked.
        who: String,
        /// What it says.
        ip: IpAddr,
    },
    /// Several servers are named, and no two say the same.
    #[error("no two of the STUN servers agree: {0}")]
    NoAgreement(String),
}

impl Failure {
    pub(super) fn malformed(who: &str, what: &'static str) -> Self {
        Self::Malformed { who: who.to_owned(), what }
    }

    pub(super) fn unreachable(who: &str, error: &std::io::Error) -> Self {
        Self::Unreachable { who: who.to_owned(), why: error.to_string() }
    }
}

/// An address as somebody says it, if it can be that of a host of the Internet.
pub(super) fn public(who: &str, ip: IpAddr, family: Family) -> Result<IpAddr, Failure> {
    let ip = ip.to_canonical();
    if Family::of(ip) != family {
        return Err(Failure::OtherFamily { who: who.to_owned(), ip });
    }
    if is_public(ip) { Ok(ip) } else { Err(Failure::NotPublic { who: who.to_owned(), ip }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_host_of_the_internet_has_is_no_public_address() {
        let says = |text: &str, family| public("it", text.parse().unwrap(), family);
        for good in ["5.44.1.1", "::ffff:5.44.1.1"] {
            assert_eq!(says(good, Family::V4), Ok("5.44.1.1".parse().unwrap()));
        }
        assert!(says("2a00::1", Family::V6).is_ok());
        for bad in [
            "0.0.0.0",
            "127.0.0.1",
            "10.0.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
        ] {
            assert_eq!(
                says(bad, Family::V4),
                Err(Failure::NotPublic { who: "it".to_owned(), ip: bad.parse().unwrap() })
            );
        }
        for bad in ["::", "::1", "fe80::1", "fd00::1", "2001:db8::1", "64:ff9b::5.44.1.1", "2002:52c::1", "ff02::1"] {
            assert!(says(bad, Family::V6).is_err(), "{bad}");
        }
        assert!(matches!(says("2a00::1", Family::V4), Err(Failure::OtherFamily { .. })));
    }
}
