//! Peer policies by name: a default one, and others that realms and credentials choose.
//!
//! Each is compiled once for a snapshot. An allocation has a choice among them: the policy it starts from, and one that its credential
//! tightens that to. Both must allow a peer, so that what a credential says can never make a peer reachable.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::peer_acl::{PeerAcl, Verdict};
use crate::addr::PeerAddr;
use crate::policy_name::PolicyName;
use crate::reject::{DeniedPeer, Reason};

/// The peer policies of one snapshot.
#[derive(Clone, Debug)]
pub struct PeerPolicies {
    default: Arc<PeerAcl>,
    named: Vec<(PolicyName, Arc<PeerAcl>)>,
}

/// What an allocation's peers are judged by: places in the [`PeerPolicies`] that have made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyChoice {
    base: Place,
    tightened: Option<Place>,
}

/// The default policy, or the one of a number from 2 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(NonZeroU16);

impl Place {
    const DEFAULT: Self = Self(NonZeroU16::MIN);
    /// A policy that nobody has configured: by it, nobody can be reached.
    const UNKNOWN: Self = Self(NonZeroU16::MAX);
}

impl PeerPolicies {
    /// The default policy, without any by name.
    pub fn new(default: Arc<PeerAcl>) -> Self {
        Self { default, named: Vec::new() }
    }

    /// Adds a policy; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: PolicyName, acl: Arc<PeerAcl>) -> Self {
        self.named.retain(|(known, _)| *known != name);
        self.named.push((name, acl));
        self
    }

    /// The default policy.
    pub fn default_policy(&self) -> &Arc<PeerAcl> {
        &self.default
    }

    /// The policies that have a name.
    pub fn named(&self) -> impl Iterator<Item = (PolicyName, &Arc<PeerAcl>)> {
        self.named.iter().map(|(name, acl)| (*name, acl))
    }

    /// The policy of this name; the default one has none.
    pub fn get(&self, name: Option<PolicyName>) -> Option<&Arc<PeerAcl>> {
        match name {
            None => Some(&self.default),
            Some(name) => self.named.iter().find(|(known, _)| *known == name).map(|(_, acl)| acl),
        }
    }

    /// What judges the peers of whoever starts from the policy `base`, or from the default one, and is tightened to another one as well. By
    /// a name that nobody has configured, no peer can be reached.
    pub fn choose(&self, base: Option<PolicyName>, tightened: Option<PolicyName>) -> PolicyChoice {
        let place = |name: PolicyName| {
            let found = self.named.iter().position(|(known, _)| *known == name);
            found.and_then(|at| u16::try_from(at + 2).ok()).and_then(NonZeroU16::new).map_or(Place::UNKNOWN, Place)
        };
        PolicyChoice { base: base.map_or(Place::DEFAULT, place), tightened: tightened.map(place) }
    }

    /// Judges an IP address, for a permission: see [`PeerAcl::judge_ip`].
    ///
    /// # Errors
    /// Why it is denied, and by which policy.
    pub fn judge_ip(&self, choice: PolicyChoice, ip: IpAddr) -> Result<Verdict, DeniedPeer> {
        self.judge_by(choice, |acl| acl.judge_ip(ip))
    }

    /// Judges an address and port: see [`PeerAcl::judge`].
    ///
    /// # Errors
    /// Why it is denied, and by which policy.
    #[inline]
    pub fn judge(&self, choice: PolicyChoice, peer: PeerAddr) -> Result<Verdict, DeniedPeer> {
        self.judge_by(choice, |acl| acl.judge(peer))
    }

    #[inline]
    fn judge_by(
        &self,
        choice: PolicyChoice,
        by: impl Fn(&PeerAcl) -> Result<Verdict, Reason>,
    ) -> Result<Verdict, DeniedPeer> {
        let verdict = self.judge_at(choice.base, &by)?;
        match choice.tightened {
            None => Ok(verdict),
            // Whether a peer is one of our own relays is a fact of the host, about which all policies that allow it agree, but for a
            // service of this host, which only some may name.
            Some(place) => match (verdict, self.judge_at(place, &by)?) {
                (Verdict::OwnRelay, Verdict::OwnRelay) => Ok(Verdict::OwnRelay),
                _ => Ok(Verdict::Peer),
            },
        }
    }

    #[inline]
    fn judge_at(&self, place: Place, by: impl Fn(&PeerAcl) -> Result<Verdict, Reason>) -> Result<Verdict, DeniedPeer> {
        let Some(at) = usize::from(place.0.get()).checked_sub(2) else {
            return by(&self.default).map_err(|reason| DeniedPeer { reason, policy: None });
        };
        match self.named.get(at) {
            Some((name, acl)) => by(acl).map_err(|reason| DeniedPeer { reason, policy: Some(*name) }),
            None => Err(DeniedPeer { reason: Reason::UnknownPeerPolicy, policy: None }),
        }
    }
}

impl PolicyChoice {
    /// No peer can be reached.
    pub(crate) const NOBODY: Self = Self { base: Place::UNKNOWN, tightened: None };

    /// Whether there is a policy in it that nobody has configured.
    pub fn has_unknown(&self) -> bool {
        self.base == Place::UNKNOWN || self.tightened == Some(Place::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PeerRules;
    use super::*;

    fn name(text: &str) -> PolicyName {
        text.parse().unwrap()
    }

    fn acl(rules: PeerRules) -> Arc<PeerAcl> {
        Arc::new(PeerAcl::compile(&rules).unwrap())
    }

    fn sfu(allowed: &str) -> Arc<PeerAcl> {
        let allowed = vec![allowed.to_owned()];
        acl(PeerRules { default_deny_all: true, deny_relays: true, allowed, ..PeerRules::default() })
    }

    fn peer(text: &str) -> PeerAddr {
        PeerAddr::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn both_policies_must_allow_a_peer_and_the_one_that_denies_is_named() {
        let denied = acl(PeerRules { denied: vec!["9.9.9.0/24".to_owned()], ..PeerRules::default() });
        let policies = PeerPolicies::new(denied).with(name("sfu"), sfu("9.9.0.0/16"));
        let choice = policies.choose(None, Some(name("sfu")));
        assert_eq!(policies.judge(choice, peer("9.9.8.8:1")), Ok(Verdict::Peer));
        let by_default = DeniedPeer { reason: Reason::PeerDenied, policy: None };
        assert_eq!(policies.judge(choice, peer("9.9.9.9:1")), Err(by_default));
        let by_sfu = DeniedPeer { reason: Reason::PeerDenied, policy: Some(name("sfu")) };
        assert_eq!(policies.judge(choice, peer("8.8.8.8:1")), Err(by_sfu));
        assert_eq!(policies.judge_ip(choice, "8.8.8.8".parse().unwrap()), Err(by_sfu));
        let alone = policies.choose(Some(name("sfu")), None);
        assert_eq!(policies.judge(alone, peer("9.9.9.9:1")), Ok(Verdict::Peer), "a base of its own");
        assert_eq!(policies.judge(policies.choose(None, None), peer("8.8.8.8:1")), Ok(Verdict::Peer));
    }

    #[test]
    fn nobody_is_reached_by_a_policy_that_is_not_there() {
        let policies = PeerPolicies::new(acl(PeerRules::default()));
        let unknown = DeniedPeer { reason: Reason::UnknownPeerPolicy, policy: None };
        for choice in [policies.choose(None, Some(name("gone"))), policies.choose(Some(name("gone")), None)] {
            assert_eq!(policies.judge(choice, peer("8.8.8.8:1")), Err(unknown));
            assert!(choice.has_unknown());
        }
        // The places of another snapshot lead nowhere either.
        let other = policies.clone().with(name("sfu"), sfu("8.8.8.8"));
        let stale = other.choose(None, Some(name("sfu")));
        assert_eq!(policies.judge(stale, peer("8.8.8.8:1")).unwrap_err().reason, Reason::UnknownPeerPolicy);
    }

    #[test]
    fn a_service_of_this_host_that_one_policy_names_as_such_is_no_relay() {
        let own = |services: &[&str]| {
            acl(PeerRules {
                relay_addresses: vec!["9.9.9.9".parse().unwrap()],
                relay_ports: (50_000, 50_100),
                own_services: services.iter().map(|service| service.parse().unwrap()).collect(),
                ..PeerRules::default()
            })
        };
        let policies = PeerPolicies::new(own(&["9.9.9.9:50005"])).with(name("plain"), own(&[]));
        let choice = policies.choose(None, Some(name("plain")));
        assert_eq!(policies.judge(choice, peer("9.9.9.9:50001")), Ok(Verdict::OwnRelay));
        assert_eq!(policies.judge(choice, peer("9.9.9.9:50005")), Ok(Verdict::Peer));
    }
}
