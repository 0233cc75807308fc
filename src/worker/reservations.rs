//! Ports reserved by EVEN-PORT until their RESERVATION-TOKEN is redeemed, on whichever worker (RFC 8656 section 7.2).
//!
//! The one table that workers share under a lock: it is touched only by authenticated requests that reserve or redeem, and
//! a redeemed socket moves to the worker that asks, so that Allocate stays one synchronous step.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::SECOND;
use crate::net::PortLease;
use crate::turn::{RelayError, ReservationToken};
use crate::user::User;

/// How long a reservation is held (RFC 8656 section 7.2 asks for at least 30 seconds).
const HELD_MICROS: u64 = 30 * SECOND;
const NEVER: u64 = u64::MAX;

/// A bound socket that waits for its token.
pub(super) struct Reserved {
    pub(super) socket: OwnedFd,
    pub(super) lease: PortLease,
    user: User,
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
    pub(super) fn check_room(&self, now_micros: u64, user: &User, per_user_max: Option<u32>) -> Result<(), RelayError> {
        let mut table = self.lock();
        Self::expire(&mut table, now_micros);
        let of_user = || table.values().filter(|entry| entry.user == *user).count();
        if per_user_max.is_some_and(|max| of_user() >= max as usize) {
            return Err(RelayError::UserReservations);
        }
        if table.len() >= self.total_max {
            return Err(RelayError::NoReservation);
        }
        Ok(())
    }

    pub(super) fn hold(
        &self,
        now_micros: u64,
        token: ReservationToken,
        user: &User,
        socket: OwnedFd,
        lease: PortLease,
    ) {
        let expires_micros = now_micros + HELD_MICROS;
        self.lock().insert(token, Reserved { socket, lease, user: user.clone(), expires_micros });
        self.next_expiry.fetch_min(expires_micros, Ordering::Relaxed);
    }

    /// The reservation of a token, if it is still held and the user's own.
    pub(super) fn redeem(&self, now_micros: u64, token: ReservationToken, user: &User) -> Option<Reserved> {
        let mut table = self.lock();
        Self::expire(&mut table, now_micros);
        if table.get(&token)?.user != *user {
            return None;
        }
        table.remove(&token)
    }

    /// Ports of a relay address that are reserved, by where its sockets are bound.
    pub fn held(&self, bind: IpAddr) -> u32 {
        self.lock().values().filter(|entry| entry.lease.bind_address().ip() == bind).count() as u32
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
    use crate::addr::Family;
    use crate::net::RelayPorts;
    use std::net::{Ipv4Addr, UdpSocket};

    #[test]
    fn a_reserved_port_counts_for_its_family_until_it_is_redeemed() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let relays = RelayPorts::new(&[(local, local)], (50000, 50001));
        let reservations = Reservations::new(10);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let lease = relays.least_used(Family::V4, 0, |_, _| true)[0].claim(50001).unwrap();
        reservations.hold(0, ReservationToken::default(), &User::fixed("someone"), socket, lease);
        assert_eq!((reservations.held(local), reservations.held([127, 0, 0, 2].into())), (1, 0));
        let redeemed = reservations.redeem(1, ReservationToken::default(), &User::fixed("someone")).unwrap();
        assert_eq!((reservations.held(local), relays.used(Family::V4)), (0, 1));
        drop(redeemed);
        assert_eq!(relays.used(Family::V4), 0);
    }

    #[test]
    fn a_user_s_reservations_are_limited_and_so_are_all_together_each_by_its_own_reason() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let relays = RelayPorts::new(&[(local, local)], (50000, 50009));
        let reservations = Reservations::new(3);
        let (ann, bob, guest) = (User::fixed("ann"), User::fixed("bob"), User::time_limited("ann"));
        let hold = |number: u8, user: &User| {
            let addresses = relays.least_used(Family::V4, 0, |_, _| true);
            let lease = addresses[0].claim(50000 + u16::from(number)).unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap().into();
            reservations.hold(0, [number; 8], user, socket, lease);
        };
        (0..2).for_each(|number| hold(number, &ann));
        assert_eq!(reservations.check_room(1, &ann, Some(2)), Err(RelayError::UserReservations));
        assert_eq!(reservations.check_room(1, &ann, None), Ok(()));
        assert_eq!(reservations.check_room(1, &bob, Some(2)), Ok(()));
        assert!(reservations.redeem(1, [0; 8], &guest).is_none(), "another user of the same name");
        hold(2, &bob);
        assert_eq!(reservations.check_room(1, &bob, Some(2)), Err(RelayError::NoReservation));
        assert!(reservations.redeem(1, [0; 8], &ann).is_some());
        assert_eq!(reservations.check_room(1, &ann, Some(2)), Ok(()));
        assert_eq!(reservations.check_room(HELD_MICROS, &ann, Some(1)), Ok(()), "given back when they expire");
    }
}
