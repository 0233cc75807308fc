//! Ports reserved by EVEN-PORT until their RESERVATION-TOKEN is redeemed, on whichever worker (RFC 8656 section 7.2).
//!
//! The one table that workers share under a lock: it is touched only by authenticated requests that reserve or redeem, and
//! a redeemed socket moves to the worker that asks, so that Allocate stays one synchronous step.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::addr::Family;
use crate::clock::SECOND;
use crate::net::PortLease;
use crate::turn::ReservationToken;

/// How long a reservation is held (RFC 8656 section 7.2 asks for at least 30 seconds).
const HELD_MICROS: u64 = 30 * SECOND;
/// Reservations one user may hold at a time.
const PER_USER_MAX: usize = 16;
const NEVER: u64 = u64::MAX;

/// A bound socket that waits for its token.
pub(super) struct Reserved {
    pub(super) socket: OwnedFd,
    pub(super) lease: PortLease,
    user: Box<str>,
    expires_micros: u64,
}

/// The reservations of all workers.
pub struct Reservations {
    table: Mutex<HashMap<ReservationToken, Reserved>>,
    total_max: usize,
    next_expiry: AtomicU64,
}

impl Reservations {
    /// At most `total_max` reservations at a time.
    pub fn new(total_max: usize) -> Self {
        Self { table: Mutex::default(), total_max, next_expiry: AtomicU64::new(NEVER) }
    }

    /// Whether `user` may reserve one more.
    pub(super) fn has_room(&self, now_micros: u64, user: &str) -> bool {
        let mut table = self.lock();
        Self::expire(&mut table, now_micros);
        table.len() < self.total_max && table.values().filter(|entry| &*entry.user == user).count() < PER_USER_MAX
    }

    pub(super) fn hold(&self, now_micros: u64, token: ReservationToken, user: &str, socket: OwnedFd, lease: PortLease) {
        let expires_micros = now_micros + HELD_MICROS;
        self.lock().insert(token, Reserved { socket, lease, user: user.into(), expires_micros });
        self.next_expiry.fetch_min(expires_micros, Ordering::Relaxed);
    }

    /// The reservation of a token, if it is still held and the user's own.
    pub(super) fn redeem(&self, now_micros: u64, token: ReservationToken, user: &str) -> Option<Reserved> {
        let mut table = self.lock();
        Self::expire(&mut table, now_micros);
        if &*table.get(&token)?.user != user {
            return None;
        }
        table.remove(&token)
    }

    /// Ports of a family that are reserved.
    pub fn held(&self, family: Family) -> u32 {
        self.lock().values().filter(|entry| entry.lease.family() == family).count() as u32
    }

    /// Gives expired ports back. Costs one load while nothing is due.
    pub fn sweep(&self, now_micros: u64) {
        if self.next_expiry.load(Ordering::Relaxed) > now_micros {
            return;
        }
        let mut table = self.lock();
        Self::expire(&mut table, now_micros);
        let next = table.values().map(|entry| entry.expires_micros).min().unwrap_or(NEVER);
        self.next_expiry.store(next, Ordering::Relaxed);
    }

    /// When [`Self::sweep`] is due next; `None` while nothing is reserved.
    pub fn next_expiry(&self) -> Option<u64> {
        Some(self.next_expiry.load(Ordering::Relaxed)).filter(|at| *at != NEVER)
    }

    fn expire(table: &mut HashMap<ReservationToken, Reserved>, now_micros: u64) {
        table.retain(|_, entry| entry.expires_micros > now_micros);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReservationToken, Reserved>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::OwnRelays;
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};

    #[test]
    fn a_reserved_port_counts_for_its_family_until_it_is_redeemed() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let relays = OwnRelays::new(Some((local, local)), None, (50000, 50001));
        let reservations = Reservations::new(10);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let lease = relays.claim(Family::V4, 50001).unwrap();
        reservations.hold(0, ReservationToken::default(), "someone", socket, lease);
        assert_eq!((reservations.held(Family::V4), reservations.held(Family::V6)), (1, 0));
        let redeemed = reservations.redeem(1, ReservationToken::default(), "someone").unwrap();
        assert_eq!((reservations.held(Family::V4), relays.used(Family::V4)), (0, 1));
        drop(redeemed);
        assert_eq!(relays.used(Family::V4), 0);
    }
}
