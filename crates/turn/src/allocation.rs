//! One allocation (RFC 8656 section 6).

use std::sync::Arc;

use crate::addr::{Family, PeerAddr, RelayedAddr};
use crate::auth::{Authenticated, HeldCredential, Identity};
use crate::clock::{Now, SECOND};
use crate::policy::{Meter, PolicyChoice, Reservation};
use crate::traffic::Traffic;
use turnstone_stun::{Key, PasswordAlgorithm};

use super::channels::Channels;
use super::connections::Connections;
use super::events::Events;
use super::hash::AddressHash;
use super::ids::AllocationId;
use super::mobile::Mobile;
use super::output::{AllocationSummary, Client, EndReason, Event};
use super::peer::{Judges, RefusedData};
use super::permissions::Permissions;
use super::realm::{OnExpiry, Realm};
use super::relays::{OpenRelay, RelayId};
use super::retransmit::Remembered;
use super::settings::Settings;
use super::timer::Armed;

/// Permissions and channels from which on an allocation has many.
const MANY_PEERS: usize = 16;
/// Seconds between sweeps of the expired peers of an allocation that has many.
const SWEEP_SPACING_SECS: u32 = 5;

/// One relayed transport address; each has its own time-to-expiry.
pub(super) struct Relay {
    pub(super) id: RelayId,
    pub(super) relayed: RelayedAddr,
    pub(super) until_micros: u64,
    /// Not yet given up by a Refresh for its family, nor expired.
    pub(super) open: bool,
}

impl Relay {
    #[inline]
    pub(super) fn is_live(&self, now_micros: u64) -> bool {
        self.open && self.until_micros > now_micros
    }
}

/// An allocation, single or dual.
pub(super) struct Allocation {
    pub(super) id: AllocationId,
    pub(super) client: Client,
    pub(super) v4: Option<Relay>,
    pub(super) v6: Option<Relay>,
    pub(super) channels: Channels,
    pub(super) permissions: Permissions,
    /// Connections to peers, of an allocation whose relays are TCP.
    pub(super) connections: Option<Box<Connections>>,
    pub(super) meter: Meter,
    pub(super) to_peers: Traffic,
    pub(super) to_client: Traffic,
    pub(super) throttled: u64,
    /// If policy has refused data of it.
    pub(super) refused_data: Option<Box<RefusedData>>,
    pub(super) made_micros: u64,
    /// The tick of the wheel this allocation is armed for; timers of other ticks are out of date.
    pub(super) armed: Option<Armed>,
    pub(super) remembered: Option<Box<Remembered>>,
    pub(super) identity: Identity,
    pub(super) key: Key,
    pub(super) algorithm: PasswordAlgorithm,
    pub(super) quota: Reservation,
    /// If its client has asked for a ticket.
    pub(super) mobile: Option<Box<Mobile>>,
    pub(super) judges: Judges,
}

impl Allocation {
    pub(super) fn new(
        id: AllocationId,
        client: Client,
        now: Now,
        auth: &Authenticated,
        meter: Meter,
        quota: Reservation,
        judges: Judges,
    ) -> Self {
        Self {
            id,
            client,
            v4: None,
            v6: None,
            channels: Channels::default(),
            permissions: Permissions::default(),
            connections: None,
            meter,
            to_peers: Traffic::default(),
            to_client: Traffic::default(),
            throttled: 0,
            refused_data: None,
            made_micros: now.micros,
            armed: None,
            remembered: None,
            identity: auth.identity.clone(),
            key: auth.key.clone(),
            algorithm: auth.algorithm,
            quota,
            mobile: None,
            judges,
        }
    }

    /// Whether its connection has closed and it waits for its client.
    pub(super) fn is_away(&self) -> bool {
        self.mobile.as_ref().is_some_and(|mobile| mobile.is_away)
    }

    /// What its peers are judged by.
    #[inline]
    pub(super) fn judged_by(&mut self, settings: &Settings, generation: u32) -> PolicyChoice {
        self.judges.of(settings, &self.identity, generation)
    }

    /// Takes out the channel bindings that have expired.
    pub(super) fn drop_expired_channels(&mut self, hash: &AddressHash, now: Now, events: &mut Events) {
        let id = self.id;
        self.channels.retain(hash, |channel| {
            let keep = channel.until_micros > now.micros;
            if !keep {
                events.push(Event::RouteGone { id, channel: channel.number });
            }
            keep
        });
    }

    /// Gives the allocation a relay of a family it has none of.
    pub(super) fn add_relay(&mut self, opened: &OpenRelay, until_micros: u64) {
        let relay = Relay { id: opened.id, relayed: opened.relayed, until_micros, open: true };
        *self.slot(opened.relayed.family()) = Some(relay);
    }

    /// The relay of a family, if it is open and has not expired.
    #[inline]
    pub(super) fn live_relay(&self, family: Family, now_micros: u64) -> Option<&Relay> {
        let relay = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        relay.as_ref().filter(|relay| relay.is_live(now_micros))
    }

    /// Every relay the allocation has or had.
    pub(super) fn relays(&self) -> impl Iterator<Item = &Relay> {
        self.v4.iter().chain(&self.v6)
    }

    /// The same, to change.
    pub(super) fn relays_mut(&mut self) -> impl Iterator<Item = &mut Relay> {
        self.v4.iter_mut().chain(&mut self.v6)
    }

    /// Whether one of its relays lives.
    #[inline]
    pub(super) fn is_live(&self, now_micros: u64) -> bool {
        self.relays().any(|relay| relay.is_live(now_micros))
    }

    /// Whether its relays are TCP (RFC 6062).
    #[inline]
    pub(super) fn is_tcp(&self) -> bool {
        self.connections.is_some()
    }

    /// Whether the allocation can reach peers of this address's family.
    pub(super) fn reaches(&self, peer: PeerAddr, now_micros: u64) -> bool {
        self.live_relay(peer.family(), now_micros).is_some()
    }

    /// Whether a request's user is the one who made it.
    pub(super) fn is_owner(&self, identity: &Identity) -> bool {
        self.identity.may_be_used_by(identity)
    }

    /// What later requests on the 5-tuple are verified with.
    pub(super) fn credential(&self) -> HeldCredential<'_> {
        HeldCredential { identity: &self.identity, key: &self.key, algorithm: self.algorithm }
    }

    /// With a new access token, further requests are signed by its key (RFC 7635 section 9). Whom quotas count on stays who it was.
    pub(super) fn take_token(&mut self, auth: &Authenticated) {
        let user = self.identity.user.clone();
        self.identity = auth.identity.clone();
        self.identity.user = user;
        (self.key, self.algorithm) = (auth.key.clone(), auth.algorithm);
    }

    /// The first deadline among lifetimes, bindings and the remembered response.
    ///
    /// An allocation with many peers is swept at intervals: what has expired does not count meanwhile, and peers that
    /// expire one by one must not cost a pass over all of them each.
    #[inline]
    pub(super) fn next_deadline(&self, now: Now) -> Option<u64> {
        let relays = self.relays().filter(|relay| relay.open).map(|relay| relay.until_micros).min();
        let remembered = self.remembered.as_ref().map(|remembered| remembered.until_micros);
        let peers = [self.channels.next_expiry(), self.permissions.next_expiry()].into_iter().flatten().min();
        let many = self.permissions.len() + self.channels.len() > MANY_PEERS;
        let peers = peers.map(|first| if many { first.max(in_secs(now, SWEEP_SPACING_SECS)) } else { first });
        let connections = self.connections.as_deref().and_then(Connections::next_deadline);
        [relays, remembered, peers, connections].into_iter().flatten().min()
    }

    /// The record of its end.
    pub(super) fn summary(&self, now: Now, reason: EndReason) -> AllocationSummary {
        AllocationSummary {
            id: self.id,
            five_tuple: self.client.five_tuple,
            username: Arc::clone(&self.identity.username),
            user: self.identity.user.clone(),
            is_frequent: self.quota.is_frequent(),
            relayed: self.relays().map(|relay| relay.relayed).collect(),
            duration_micros: now.micros.saturating_sub(self.made_micros),
            to_peers: self.to_peers,
            to_client: self.to_client,
            throttled: self.throttled,
            reason,
        }
    }

    pub(super) fn slot(&mut self, family: Family) -> &mut Option<Relay> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// The lifetime granted for a requested one (RFC 8656 section 7.2): at least the default, at most the maximum.
pub(super) fn granted_lifetime_secs(settings: &Settings, requested_secs: Option<u32>) -> u32 {
    let lifetimes = &settings.lifetimes;
    let capped = requested_secs.unwrap_or(0).min(lifetimes.allocation_max_secs);
    capped.max(lifetimes.allocation_default_secs)
}

/// Seconds until the policy ends an allocation of this identity, at least one; `None` when it does not.
pub(super) fn cut_in_secs(realm: &Realm, now: Now, identity: &Identity) -> Option<u32> {
    match (realm.on_expiry, identity.expires_unix()) {
        // No lifetime is longer than that of the token, whatever the policy (RFC 7635 section 9).
        (_, Some(expires)) if realm.on_expiry == OnExpiry::Cut || identity.is_token() => {
            Some(u32::try_from(expires.saturating_sub(now.unix_secs)).unwrap_or(u32::MAX).max(1))
        }
        _ => None,
    }
}

/// Whether the identity's credential has expired, judged as `Credentials::authenticate` does.
pub(super) fn has_expired(now: Now, identity: &Identity) -> bool {
    identity.expires_unix().is_some_and(|expires| expires < now.unix_secs)
}

/// The moment `secs` from now.
pub(super) fn in_secs(now: Now, secs: u32) -> u64 {
    now.micros.saturating_add(u64::from(secs) * SECOND)
}

#[cfg(test)]
mod tests {
    use super::super::channels::Channel;
    use super::*;

    #[test]
    fn an_idle_allocation_with_a_permission_and_a_channel_stays_well_below_a_kilobyte() {
        let permission = 32;
        let five_tuple_entry = 2 * 49;
        let relay_entry_slot_and_timer = 8 + 16 + 16;
        let owned = size_of::<Allocation>() + size_of::<Channel>() + permission;
        let total = owned + five_tuple_entry + relay_entry_slot_and_timer;
        assert!(total < 800, "{total} bytes");
    }
}
