//! Passes over all allocations, a part at a time: neither a question of an operator nor a new configuration keeps packets waiting.

use std::sync::Arc;

use crate::clock::Now;
use crate::policy::Verdict;

use super::allocation::{cut_in_secs, in_secs};
use super::ids::{AllocationId, AllocationIds};
use super::output::{EndReason, Event};
use super::peer::{Peer, judge};
use super::relays::Relays;
use super::server::Server;
use super::settings::Settings;

/// How far a pass has come. It goes by ids, so that what ends or is made meanwhile does not disturb it; what is made after its
/// start is no part of it. What moves in meanwhile may be part of it or not: see [`Server::put_in`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    next: AllocationId,
    end: AllocationId,
    /// The ids of what the server makes after the start: what has moved here from others may have higher ones.
    made_later: (AllocationId, AllocationId),
}

impl Pass {
    /// A pass over one allocation.
    pub(super) fn over(id: AllocationId) -> Self {
        Self { next: id, end: id.following(), made_later: (id, id) }
    }

    pub(super) fn is_over(&self) -> bool {
        self.next >= self.end
    }

    /// Ends the pass before it has seen all.
    pub(super) fn stop(&mut self) {
        self.next = self.end;
    }
}

/// What a new snapshot has done to the allocations there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Allocations that were judged by it.
    pub allocations: u64,
    /// Permissions that have ended, because their peer is denied now.
    pub permissions_ended: u64,
    /// Channels that have ended for the same reason.
    pub channels_ended: u64,
    /// Connections of TCP relays that have ended, because their peer is denied now.
    pub connections_ended: u64,
    /// Allocations that have ended, e.g. because their credential has expired and the policy is `cut` now.
    pub allocations_ended: u64,
}

/// A judgement under way.
pub(super) struct Judging {
    pass: Pass,
    pub(super) so_far: Judgement,
}

impl Server {
    /// Takes a new snapshot, by which requests are answered from now on. The allocations there are have to be judged by it, a
    /// part at a time: see [`Self::judge`].
    pub fn apply(&mut self, settings: Arc<Settings>) {
        self.limiter.set_limit(settings.unauthenticated);
        if let Some(pending) = &mut self.pending {
            pending.facts.keep_realms(|realm| settings.asks_in(realm));
        }
        self.settings = settings;
        // 0 is nobody's: see `Judges::forget`.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        // What an earlier one has ended stays ended; all that is left is judged anew.
        let before = self.judging.take().map(|judging| judging.so_far).unwrap_or_default();
        let so_far = Judgement { allocations: 0, ..before };
        self.judging = Some(Judging { pass: self.pass(None), so_far });
    }

    /// Whether there are allocations that the snapshot has not judged yet.
    pub fn is_judging(&self) -> bool {
        self.judging.is_some()
    }

    /// Judges the next allocations by the snapshot: permissions and channels to peers that are denied now end, limits are those
    /// of now. Looks at `most` allocations and peers, or at one allocation if it has more. Returns what came of it all once
    /// that is known.
    pub fn judge<R: Relays>(&mut self, now: Now, most: usize, relays: &mut R) -> Option<Judgement> {
        let Judging { mut pass, mut so_far } = self.judging.take()?;
        let mut looked_at = 0;
        while looked_at < most {
            let Some(slot) = self.next_in(&mut pass) else { return Some(so_far) };
            if self.ends_with_its_realm(now, slot, relays) {
                looked_at += 1;
                so_far.allocations += 1;
                so_far.allocations_ended += 1;
                continue;
            }
            looked_at += 1 + self.judge_again(slot, &mut so_far);
            looked_at += self.judge_connections(now, slot, &mut so_far, relays);
            self.apply_limits(now, slot);
            let live = self.allocations.len();
            self.sweep(now, slot, relays);
            so_far.allocations += 1;
            so_far.allocations_ended += (live - self.allocations.len()) as u64;
        }
        self.judging = Some(Judging { pass, so_far });
        None
    }

    /// Ends an allocation whose realm is no more: there are no limits for it any more, and nobody who could authenticate for it.
    pub(super) fn ends_with_its_realm<R: Relays>(&mut self, now: Now, slot: u32, relays: &mut R) -> bool {
        let Some(allocation) = self.allocations.get(slot) else { return false };
        let is_over = self.settings.realm_of_user(&allocation.identity.user).is_none();
        if is_over {
            self.end(now, slot, EndReason::RealmRemoved, relays);
        }
        is_over
    }

    /// A pass over the allocations after this one.
    pub(super) fn pass(&self, after: Option<AllocationId>) -> Pass {
        let first = AllocationIds::of_worker(0).next();
        Pass {
            next: after.map_or(first, AllocationId::following),
            end: self.allocations.last_id().map_or(first, AllocationId::following),
            made_later: (self.ids.next(), self.ids.end()),
        }
    }

    /// The slot of the next allocation of a pass.
    pub(super) fn next_in(&self, pass: &mut Pass) -> Option<u32> {
        let (made_from, made_to) = pass.made_later;
        let mut found = self.allocations.first_from(pass.next);
        if found.is_some_and(|(id, _)| (made_from..made_to).contains(&id)) {
            found = self.allocations.first_from(made_to);
        }
        match found.filter(|(id, _)| *id < pass.end) {
            Some((id, slot)) => {
                pass.next = id.following();
                Some(slot)
            }
            None => {
                pass.stop();
                None
            }
        }
    }

    /// Asks the new peer policy about every permission and channel of an allocation. Returns how many there were.
    pub(super) fn judge_again(&mut self, slot: u32, judgement: &mut Judgement) -> usize {
        let Some(allocation) = self.allocations.get_mut(slot) else { return 0 };
        let id = allocation.id;
        let judges = allocation.judged_by(&self.settings, self.generation);
        let (policies, events) = (&self.settings.peer_policies, &mut self.events);
        let (permissions, channels) = (allocation.permissions.len(), allocation.channels.len());
        allocation.permissions.retain(&self.hash, |ip, _| judge(policies, judges, Peer::Ip(ip)).is_ok());
        allocation.channels.retain(&self.hash, |channel| match judge(policies, judges, Peer::Address(channel.peer)) {
            Ok(verdict) => {
                channel.own_relay = verdict == Verdict::OwnRelay;
                true
            }
            Err(_) => {
                events.push(Event::RouteGone { id, channel: channel.number });
                false
            }
        });
        judgement.permissions_ended += (permissions - allocation.permissions.len()) as u64;
        judgement.channels_ended += (channels - allocation.channels.len()) as u64;
        permissions + channels
    }

    /// New bandwidth caps count at once; a new expiry policy of `cut` shortens lifetimes granted before it.
    pub(super) fn apply_limits(&mut self, now: Now, slot: u32) {
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        let Some(realm) = self.settings.realm_of_user(&allocation.identity.user) else { return };
        let limits = allocation.identity.bandwidth(realm.bandwidth);
        let users = &self.shared.user_bandwidths;
        allocation.meter.set_limits(limits, users, &allocation.identity.user, now.micros);
        if let Some(cut) = cut_in_secs(realm, now, &allocation.identity) {
            let cut_micros = in_secs(now, cut);
            for relay in allocation.relays_mut() {
                relay.until_micros = relay.until_micros.min(cut_micros);
            }
        }
    }
}
