//! Limits that hold over several servers: how much of one this server may grant, and what it grants while nobody can say.
//!
//! Who shares the limits out among the servers is not known here. He sets what the share of a user is ([`Quotas::set_share`](super::Quotas::set_share)), and until
//! when; an Allocate whose user has none left waits for it.

use std::collections::{HashMap, HashSet};

use crate::reject::Reason;
use crate::user::User;

/// A table of fewer users is not worth giving memory back for.
const SHRINK_MIN: usize = 1024;

/// What a server grants of a limit over several servers while it cannot find out what the others have granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutShare {
    /// Nothing beyond what is its share already.
    Refuse,
    /// The limit divided by the number of servers that there were of late, and one at least.
    #[default]
    LocalShare,
    /// All of the limit, as if there were no other server.
    Allow,
}

/// This server's share of one user's limit over several servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Allocations that the user may have here.
    pub allocations: u32,
    /// The limit that it is a share of: no good for a credential with a stricter one.
    pub limit: u32,
    /// Until when new allocations may be made of it, in monotonic microseconds. Those that there are live on.
    pub until_micros: u64,
    /// All servers together have more than the limit. What ends is then not replaced.
    pub is_over: bool,
}

/// How much of a share is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareUse {
    /// Live allocations of the user.
    pub live: u32,
    /// What may still be used of the share from now on: whoever shares out must hear of no less.
    pub kept: u32,
    /// What it was before.
    pub before: Share,
}

/// What there is of shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShareTotals {
    /// Users with a share, or whose share is asked for.
    pub users: usize,
    /// Allocations in all shares, whether they are made or not.
    pub allocations: u64,
    /// Allocations made without a share since the start, because nobody could say what it is.
    pub made_without: u64,
    /// Whether it is known that nobody can say at the moment.
    pub is_lost: bool,
    /// Servers that there were of late, this one included; 0 if that was never known.
    pub servers: u32,
}

/// Why an allocation is not to be had at once.
pub(crate) enum NotReserved {
    /// It is refused.
    Refused(Reason),
    /// Of this limit over several servers, nothing is left of this server's share.
    NeedsShare(u32),
}

/// By what right an allocation is made.
pub(super) enum Basis {
    /// No limit but those of this server, or of its share.
    Regular,
    /// Nobody can say what the share is.
    WithoutShare(u32),
}

#[derive(Debug, Default)]
pub(super) struct Shares {
    of: HashMap<User, Entry>,
    /// Whose use of the share has changed so that others may have an interest.
    changed: HashSet<User>,
    without: WithoutShare,
    is_lost: bool,
    servers: u32,
    made_without: u64,
}

#[derive(Debug, Default)]
struct Entry {
    share: Share,
    /// The limit at which nothing more was to be had, and until when that is believed.
    refused: Option<(u32, u64)>,
}

impl Entry {
    fn is_refused(&self, limit: u32, now_micros: u64) -> bool {
        self.refused.is_some_and(|(at, until_micros)| limit <= at && now_micros < until_micros)
    }
}

impl Shares {
    /// Whether a user with so many live allocations may have another one. `is_late`: the share was asked for, and nobody could say in time.
    pub(super) fn judge(
        &self,
        user: &User,
        (live, limit): (u32, u32),
        now_micros: u64,
        is_late: bool,
    ) -> Result<Basis, NotReserved> {
        if let Some(entry) = self.of.get(user) {
            let Share { allocations, limit: of, until_micros, .. } = entry.share;
            if now_micros < until_micros && of <= limit && live < allocations {
                return Ok(Basis::Regular);
            }
            if entry.is_refused(limit, now_micros) {
                return Err(NotReserved::Refused(Reason::FleetQuota));
            }
        }
        if live >= limit {
            return Err(NotReserved::Refused(Reason::FleetQuota));
        }
        if !(self.is_lost || is_late) {
            return Err(NotReserved::NeedsShare(limit));
        }
        let may = match self.without {
            WithoutShare::Refuse => 0,
            // Who has never heard of another server does not take himself for the only one.
            WithoutShare::LocalShare => limit.checked_div(self.servers).unwrap_or_default().max(1),
            WithoutShare::Allow => limit,
        };
        if live < may { Ok(Basis::WithoutShare(limit)) } else { Err(NotReserved::Refused(Reason::FleetUnavailable)) }
    }

    /// An allocation was made without a share: as soon as somebody can be told, he is.
    pub(super) fn note_without(&mut self, user: &User, limit: u32) {
        self.made_without += 1;
        let entry = self.of.entry(user.clone()).or_default();
        if entry.share.until_micros == 0 {
            entry.share.limit = limit;
        }
        self.changed.insert(user.clone());
    }

    /// An allocation has ended, and so many are left.
    pub(super) fn released(&mut self, user: &User, live: u32) {
        if self.of.is_empty() {
            return;
        }
        let Some(share) = self.of.get_mut(user).map(|entry| &mut entry.share) else { return };
        if share.is_over {
            share.allocations = share.allocations.min(live);
        }
        // While nobody can be told, users without a share come and go, and nothing of them stays.
        if live == 0 && share.until_micros == 0 {
            self.of.remove(user);
            self.changed.remove(user);
        } else {
            self.changed.insert(user.clone());
        }
    }

    pub(super) fn set_without(&mut self, without: WithoutShare) {
        self.without = without;
    }

    pub(super) fn set_fleet(&mut self, is_lost: bool, servers: u32) {
        (self.is_lost, self.servers) = (is_lost, servers);
    }

    /// Keeps what is in use of a share and, as long as it is good, so many allocations more.
    pub(super) fn keep(&mut self, user: &User, live: u32, now_micros: u64, (spare_max, limit): (u32, u32)) -> ShareUse {
        let entry = self.of.entry(user.clone()).or_default();
        let before = entry.share;
        let is_good = now_micros < before.until_micros && before.limit <= limit;
        let good = if is_good { before.allocations } else { 0 };
        entry.share.allocations = good.min(live.saturating_add(spare_max));
        // What was made without a share is told, and does not become one by that.
        let kept = entry.share.allocations.max(live);
        ShareUse { live, kept, before }
    }

    pub(super) fn set(&mut self, user: &User, live: u32, share: Share) {
        let entry = self.of.entry(user.clone()).or_default();
        entry.share = share;
        if share.is_over {
            entry.share.allocations = share.allocations.min(live);
        }
    }

    pub(super) fn of(&self, user: &User) -> Option<Share> {
        self.of.get(user).map(|entry| entry.share)
    }

    pub(super) fn refuse(&mut self, user: &User, limit: u32, until_micros: u64) {
        self.of.entry(user.clone()).or_default().refused = Some((limit, until_micros));
    }

    /// Forgets a user of whom nothing is to be known any more.
    pub(super) fn drop_idle(&mut self, user: &User, live: u32, now_micros: u64) -> bool {
        let Some(entry) = self.of.get(user) else { return true };
        let is_idle = live == 0 && entry.share.allocations == 0;
        let may = is_idle && !entry.is_refused(0, now_micros) && !self.changed.contains(user);
        if may {
            self.of.remove(user);
            if self.of.capacity() > SHRINK_MIN && self.of.len() < self.of.capacity() / 8 {
                self.of.shrink_to(self.of.len() * 2);
            }
        }
        may
    }

    pub(super) fn take_changed(&mut self) -> HashSet<User> {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn made_without(&self) -> u64 {
        self.made_without
    }

    pub(super) fn totals(&self) -> ShareTotals {
        ShareTotals {
            users: self.of.len(),
            allocations: self.of.values().map(|entry| u64::from(entry.share.allocations)).sum(),
            made_without: self.made_without,
            is_lost: self.is_lost,
            servers: self.servers,
        }
    }
}
