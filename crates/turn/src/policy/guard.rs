//! The abuse guard: how many peers a user may name, how fast, and what becomes of one who probes addresses that are denied.
//!
//! A leaked credential is used to scan and to tunnel: one user, peers by the thousand, or networks that no call needs. What is counted
//! here comes from requests whose MESSAGE-INTEGRITY has verified, never from packets, so that nobody is suspended for what others forge,
//! and the packet path does not come here. It is counted by user, over all workers, in memory of bounded size; a user is forgotten when
//! nothing counts any more. Whoever has so many credentials that the bound is reached makes others' counts begin anew, which refuses
//! nobody anything; suspensions have a bound of their own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::addr::Reach;
use crate::clock::SECOND;
use crate::reject::Reason;
use crate::user::User;

/// Users of whom peers or probes are known; beyond, one of them is forgotten.
const USERS_MAX: usize = 65_536;
/// Addresses of all of them; beyond, likewise. Some 40 MB.
const ADDRESSES_MAX: usize = 524_288;
/// Users who are suspended; beyond, the one is free again who was suspended first.
const SUSPENDED_MAX: usize = 65_536;
const MINUTE: u64 = 60 * SECOND;
/// What an address counts that no healthy client asks for, where one that clients send as a candidate counts 1.
const PROBE: u32 = 10;
/// Peers whose time is over are looked for no more often than this.
const SWEEP_SPACING: u64 = SECOND;

/// What the guard allows; by default everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardLimits {
    /// Different IP addresses that a user may have permissions for at once, over all allocations. One counts until its permission or
    /// channel would expire.
    pub peers_per_user: Option<u32>,
    /// Addresses beyond those that a user may name in a minute in the long run, and as many at once.
    pub new_peers_per_minute: Option<u32>,
    /// When a user is suspended.
    pub suspension: Option<SuspensionLimits>,
    /// Packets a second from one peer to one relay that were there before, byte for byte, from which on they go round a loop. Whoever runs
    /// the server finds them, and has them cut: [`Server::cut_loop`](crate::Server::cut_loop).
    pub loop_packets_per_second: Option<u32>,
}

/// When a user is suspended, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuspensionLimits {
    /// Different addresses within a minute that are denied and that no healthy client asks for. Those that ICE brings along count a tenth:
    /// private ones, link-local ones of IPv6, and what the operator's own rules deny or do not list.
    pub probes: u32,
    /// For so long.
    pub secs: u32,
}

impl GuardLimits {
    fn counts_peers(&self) -> bool {
        self.peers_per_user.is_some() || self.new_peers_per_minute.is_some()
    }

    /// Whether there is anything to do when peers are named.
    pub(crate) fn is_on(&self) -> bool {
        self.counts_peers() || self.suspension.is_some()
    }
}

/// What is known of users, shared by all workers.
#[derive(Debug, Default)]
pub struct Guard {
    state: Mutex<State>,
    suspensions: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<User, Entry>,
    /// Every user there is, the one that was looked at last behind the others.
    queue: VecDeque<User>,
    /// How many addresses are in all entries.
    addresses: usize,
    /// Until when each is suspended.
    suspended: HashMap<User, u64>,
    /// Everybody there, and who has been, in the order of the suspensions.
    suspended_queue: VecDeque<User>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Peers, and until when each counts.
    peers: HashMap<IpAddr, u64>,
    /// Until when one of them counts.
    peers_until_micros: u64,
    swept_micros: u64,
    /// The bucket of new peers, as one point in time.
    paid_until_micros: u64,
    /// Denied addresses of the minute that began at `probes_since`.
    probes: HashSet<IpAddr>,
    probes_since_micros: u64,
    weight: u32,
}

/// A user who is suspended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// The user.
    pub user: User,
    /// Until when, in monotonic microseconds.
    pub until_micros: u64,
}

impl Guard {
    /// Notes peers that a user asks for, each until `until_micros`; all of them or none. `has_new` says whether one of them is new to the
    /// allocation.
    ///
    /// # Errors
    /// [`Reason::Suspended`], [`Reason::UserPeers`] or [`Reason::UserNewPeers`].
    pub fn note_peers(
        &self,
        limits: &GuardLimits,
        user: &User,
        (ips, has_new): (&[IpAddr], bool),
        until_micros: u64,
        now_micros: u64,
    ) -> Result<(), Reason> {
        let mut state = self.lock();
        if has_new && limits.suspension.is_some() && state.is_suspended(user, now_micros) {
            return Err(Reason::Suspended);
        }
        if !limits.counts_peers() {
            return Ok(());
        }
        state.change(user, now_micros, |entry| entry.note_peers(limits, ips, until_micros, now_micros))
    }

    /// Notes a peer that was denied to a user. Returns the suspension that comes of it, once.
    pub fn note_denied(
        &self,
        limits: &GuardLimits,
        user: &User,
        (ip, reason): (IpAddr, Reason),
        now_micros: u64,
    ) -> Option<Suspension> {
        let SuspensionLimits { probes, secs } = limits.suspension?;
        let weight = weight(ip, reason)?;
        let mut state = self.lock();
        if state.is_suspended(user, now_micros) {
            return None;
        }
        let is_over = state.change(user, now_micros, |entry| {
            if now_micros.saturating_sub(entry.probes_since_micros) >= MINUTE {
                (entry.probes, entry.weight, entry.probes_since_micros) = (HashSet::new(), 0, now_micros);
            }
            if entry.probes.insert(ip) {
                entry.weight = entry.weight.saturating_add(weight);
            }
            let is_over = entry.weight >= probes.saturating_mul(PROBE);
            if is_over {
                (entry.probes, entry.weight) = (HashSet::new(), 0);
            }
            is_over
        });
        if !is_over {
            return None;
        }
        let until_micros = now_micros.saturating_add(u64::from(secs) * SECOND);
        state.suspend(user, until_micros, now_micros);
        self.suspensions.fetch_add(1, Ordering::Relaxed);
        Some(Suspension { user: user.clone(), until_micros })
    }

    /// Whether a user may make no allocation.
    pub fn is_suspended(&self, user: &User, now_micros: u64) -> bool {
        self.lock().is_suspended(user, now_micros)
    }

    /// The users who are suspended, in no order, at most `most`; and how many there are.
    pub fn suspended(&self, now_micros: u64, most: usize) -> (Vec<Suspension>, usize) {
        let state = self.lock();
        let (mut found, mut total) = (Vec::new(), 0);
        for (user, until_micros) in state.suspended.iter().filter(|(_, until)| **until > now_micros) {
            total += 1;
            if found.len() < most {
                found.push(Suspension { user: user.clone(), until_micros: *until_micros });
            }
        }
        (found, total)
    }

    /// Lifts the suspensions of the users who are meant. Returns how many there were.
    pub fn lift(&self, is_meant: impl Fn(&User) -> bool, now_micros: u64) -> usize {
        let mut state = self.lock();
        let meant = state.suspended.iter_mut().filter(|(user, until)| **until > now_micros && is_meant(user));
        meant.map(|(_, until_micros)| *until_micros = 0).count()
    }

    /// Suspensions since the start.
    pub fn suspensions(&self) -> u64 {
        self.suspensions.load(Ordering::Relaxed)
    }

    /// Users of whom peers or probes are known, and the addresses of all of them.
    pub fn remembered(&self) -> (usize, usize) {
        let state = self.lock();
        (state.users.len(), state.addresses)
    }

    /// No change of what is counted is left half-way by a panic elsewhere that would matter.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_suspended(&self, user: &User, now_micros: u64) -> bool {
        self.suspended.get(user).is_some_and(|until_micros| *until_micros > now_micros)
    }

    /// Suspends a user who is not. Those whose time is over are forgotten, and beyond the most there may be, the earliest.
    fn suspend(&mut self, user: &User, until_micros: u64, now_micros: u64) {
        let most = if self.suspended.contains_key(user) { SUSPENDED_MAX } else { SUSPENDED_MAX - 1 };
        while let Some(first) = self.suspended_queue.front() {
            let until_micros = self.suspended.get(first).copied().unwrap_or_default();
            if until_micros > now_micros && self.suspended_queue.len() <= most {
                break;
            }
            self.suspended.remove(first);
            self.suspended_queue.pop_front();
        }
        if self.suspended.insert(user.clone(), until_micros).is_none() {
            self.suspended_queue.push_back(user.clone());
        }
    }

    /// Changes what is known of a user. Each time, two others are looked at, and forgotten if nothing of them counts any more.
    fn change<R>(&mut self, user: &User, now_micros: u64, change: impl FnOnce(&mut Entry) -> R) -> R {
        for _ in 0..2 {
            self.forget_front(|entry| !entry.counts(now_micros));
        }
        if !self.users.contains_key(user) {
            if self.users.len() >= USERS_MAX {
                self.forget_front(|_| true);
            }
            self.queue.push_back(user.clone());
        }
        let entry = self.users.entry(user.clone()).or_default();
        let before = entry.addresses();
        let result = change(entry);
        self.addresses = (self.addresses + entry.addresses()).saturating_sub(before);
        while self.addresses > ADDRESSES_MAX && !self.queue.is_empty() {
            self.forget_front(|_| true);
        }
        result
    }

    fn forget_front(&mut self, may_go: impl Fn(&Entry) -> bool) {
        let Some(user) = self.queue.pop_front() else { return };
        match self.users.get(&user) {
            Some(entry) if !may_go(entry) => self.queue.push_back(user),
            _ => {
                let gone = self.users.remove(&user);
                self.addresses = self.addresses.saturating_sub(gone.as_ref().map_or(0, Entry::addresses));
                if self.users.capacity() > 1024 && self.users.len() < self.users.capacity() / 8 {
                    self.users.shrink_to(self.users.len() * 2);
                    self.queue.shrink_to(self.users.len() * 2);
                }
            }
        }
    }
}

impl Entry {
    fn note_peers(
        &mut self,
        limits: &GuardLimits,
        ips: &[IpAddr],
        until_micros: u64,
        now_micros: u64,
    ) -> Result<(), Reason> {
        let is_known = |ip: &IpAddr| self.peers.get(ip).is_some_and(|until| *until > now_micros);
        let new = ips.iter().filter(|ip| !is_known(ip)).count();
        if new > 0 {
            let most = limits.peers_per_user.map_or(usize::MAX, |most| most as usize);
            self.sweep(most.saturating_sub(new), now_micros);
            if self.peers.len().saturating_add(new) > most {
                return Err(Reason::UserPeers);
            }
            if let Some(per_minute) = limits.new_peers_per_minute {
                let each = MINUTE / u64::from(per_minute.max(1));
                let paid = self.paid_until_micros.max(now_micros).saturating_add(each.saturating_mul(new as u64));
                if paid > now_micros.saturating_add(MINUTE) {
                    return Err(Reason::UserNewPeers);
                }
                self.paid_until_micros = paid;
            }
        }
        self.peers_until_micros = self.peers_until_micros.max(until_micros);
        for ip in ips {
            let until = self.peers.entry(*ip).or_default();
            *until = (*until).max(until_micros);
        }
        Ok(())
    }

    /// How many addresses are kept.
    fn addresses(&self) -> usize {
        self.peers.len() + self.probes.len()
    }

    fn counts(&self, now_micros: u64) -> bool {
        self.paid_until_micros > now_micros
            || !self.probes.is_empty() && now_micros.saturating_sub(self.probes_since_micros) < MINUTE
            || self.peers_until_micros > now_micros
    }

    /// Forgets peers whose time is over, when there are more than `enough` of them or many.
    fn sweep(&mut self, enough: usize, now_micros: u64) {
        const MANY: usize = 64;
        let is_time = now_micros.saturating_sub(self.swept_micros) >= SWEEP_SPACING;
        if is_time && self.peers.len() > enough.min(MANY) {
            self.swept_micros = now_micros;
            self.peers.retain(|_, until| *until > now_micros);
            self.peers.shrink_to(self.peers.len() * 2);
        }
    }
}

/// What a denied address counts. `None` where the refusal is no denial of an address.
fn weight(ip: IpAddr, reason: Reason) -> Option<u32> {
    match reason {
        // Candidates of the other side, which browsers ask for because they have been told of them (RFC 8445 section 5.1.1). Many a host,
        // this one perhaps, has the same private addresses, such as that of a bridge for containers.
        Reason::PeerDeniedByDefault | Reason::PeerIsServer if Reach::is_host_candidate(ip) => Some(1),
        Reason::PeerDenied | Reason::PeerPortDenied => Some(1),
        Reason::PeerDeniedByDefault | Reason::PeerIsServer | Reason::PeerForm => Some(PROBE),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
