//! How many stream connections may be open: in all, per address, and per network without an allocation. A permit gives its place
//! back when dropped.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Entries below which a table is not worth shrinking.
const SHRINK_MIN: usize = 1024;

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Connections in all.
    InTotal,
    /// Connections of one IPv4 address or IPv6 /64.
    OfAddress,
    /// Connections without an allocation of one IPv4 /24 or IPv6 /48.
    OfNetwork,
    /// Connections that go on to a web server.
    OfWeb,
}

#[derive(Default)]
struct Open {
    total: usize,
    passed: usize,
    handshakes: usize,
    by_address: HashMap<u128, usize>,
    passed_by_address: HashMap<u128, usize>,
    strangers_by_network: HashMap<u128, usize>,
}

/// The open connections of all workers.
pub struct ConnectionLimits {
    total_max: usize,
    per_ip_max: Option<usize>,
    strangers_per_network_max: Option<usize>,
    open: Mutex<Open>,
}

impl ConnectionLimits {
    /// At most `total_max` connections, `per_ip_max` for one IPv4 address or one IPv6 /64, and `strangers_per_network_max` without
    /// an allocation for one IPv4 /24 or one IPv6 /48.
    pub fn new(total_max: usize, per_ip_max: Option<usize>, strangers_per_network_max: Option<usize>) -> Arc<Self> {
        Arc::new(Self { total_max, per_ip_max, strangers_per_network_max, open: Mutex::default() })
    }

    /// A place for a connection from `ip`, which has no allocation yet.
    ///
    /// # Errors
    /// The limit that is reached; that of the total last, because for it another connection may be closed.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<ConnectionPermit, Full> {
        let mut open = self.lock();
        let whose = self.judge(&open, ip)?;
        if open.total >= self.total_max {
            return Err(Full::InTotal);
        }
        open.total += 1;
        open.count(whose);
        Ok(ConnectionPermit {
            limits: Arc::clone(self),
            whose: Some(whose),
            is_stranger: true,
            is_passed: false,
            shakes_hands: false,
        })
    }

    /// A place for a connection from a proxy, of which is not known yet whose it is: [`ConnectionPermit::set_client`] says so.
    ///
    /// # Errors
    /// When all places are taken.
    pub fn admit_unknown(self: &Arc<Self>) -> Result<ConnectionPermit, Full> {
        let mut open = self.lock();
        if open.total >= self.total_max {
            return Err(Full::InTotal);
        }
        open.total += 1;
        Ok(ConnectionPermit {
            limits: Arc::clone(self),
            whose: None,
            is_stranger: true,
            is_passed: false,
            shakes_hands: false,
        })
    }

    /// Whether as many connections go on to a web server as may.
    pub fn is_web_full(&self) -> bool {
        self.lock().passed >= self.web_max()
    }

    /// Whether as many DTLS handshakes are under way as may: a tenth of all places, because each holds most memory then. A worker ends only
    /// its own, and one that has none begins its first all the same: so there are more by the number of the other workers at most.
    pub fn is_handshakes_full(&self) -> bool {
        self.lock().handshakes >= self.total_max.div_ceil(10)
    }

    /// Half of all.
    fn web_max(&self) -> usize {
        self.total_max.div_ceil(2)
    }

    /// What one address may have of these, once half of them are taken: a quarter. Where addresses have no limit, all may be those of a proxy.
    fn web_share(&self) -> Option<usize> {
        self.per_ip_max.map(|_| self.web_max().div_ceil(4))
    }

    /// Whether a connection more of an address may be without an allocation.
    fn judge(&self, open: &Open, ip: IpAddr) -> Result<Whose, Full> {
        let whose = Whose { address: prefix(ip, 32, 64), network: prefix(ip, 24, 48) };
        let reached = |counts: &HashMap<u128, usize>, key, max: Option<usize>| {
            max.is_some_and(|max| counts.get(&key).copied().unwrap_or(0) >= max)
        };
        if reached(&open.by_address, whose.address, self.per_ip_max) {
            return Err(Full::OfAddress);
        }
        if reached(&open.strangers_by_network, whose.network, self.strangers_per_network_max) {
            return Err(Full::OfNetwork);
        }
        Ok(whose)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a connection counts for.
#[derive(Clone, Copy)]
struct Whose {
    address: u128,
    network: u128,
}

impl Open {
    fn count(&mut self, Whose { address, network }: Whose) {
        *self.by_address.entry(address).or_default() += 1;
        *self.strangers_by_network.entry(network).or_default() += 1;
    }

    fn forget(&mut self, whose: Whose, is_stranger: bool) {
        take_one(&mut self.by_address, whose.address);
        if is_stranger {
            take_one(&mut self.strangers_by_network, whose.network);
        }
    }
}

/// The place of one open connection.
pub struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    /// Nothing while its proxy has not said so.
    whose: Option<Whose>,
    is_stranger: bool,
    is_passed: bool,
    shakes_hands: bool,
}

impl ConnectionPermit {
    /// Has a connection that came from a proxy count for its client.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn set_client(&mut self, ip: IpAddr) -> Result<(), Full> {
        if self.whose.is_none() {
            let mut open = self.limits.lock();
            let whose = self.limits.judge(&open, ip)?;
            open.count(whose);
            self.whose = Some(whose);
        }
        Ok(())
    }

    /// Notes that the connection goes on to a web server: no more than half of all may, and none of an address that has its share of these.
    ///
    /// # Errors
    /// When so many do.
    pub fn pass_on(&mut self) -> Result<(), Full> {
        let mut open = self.limits.lock();
        let web_max = self.limits.web_max();
        if open.passed >= web_max {
            return Err(Full::OfWeb);
        }
        let address = self.whose.map(|whose| whose.address);
        let of_address = address.and_then(|address| open.passed_by_address.get(&address).copied()).unwrap_or(0);
        if open.passed >= web_max / 2 && self.limits.web_share().is_some_and(|share| of_address >= share) {
            return Err(Full::OfAddress);
        }
        if !std::mem::replace(&mut self.is_passed, true) {
            open.passed += 1;
            address.into_iter().for_each(|address| *open.passed_by_address.entry(address).or_default() += 1);
        }
        Ok(())
    }

    /// Notes whether a DTLS handshake is under way.
    pub fn set_shakes_hands(&mut self, shakes_hands: bool) {
        if std::mem::replace(&mut self.shakes_hands, shakes_hands) != shakes_hands {
            let handshakes = &mut self.limits.lock().handshakes;
            *handshakes = if shakes_hands { *handshakes + 1 } else { handshakes.saturating_sub(1) };
        }
    }

    /// Notes whether the connection has an allocation: then it no longer counts for its network.
    pub fn set_holder(&mut self, holds: bool) {
        let Some(Whose { network, .. }) = self.whose.filter(|_| holds == self.is_stranger) else { return };
        self.is_stranger = !holds;
        let counts = &mut self.limits.lock().strangers_by_network;
        if holds {
            take_one(counts, network);
        } else {
            *counts.entry(network).or_default() += 1;
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limits.lock();
        open.total = open.total.saturating_sub(1);
        open.passed = open.passed.saturating_sub(usize::from(self.is_passed));
        open.handshakes = open.handshakes.saturating_sub(usize::from(self.shakes_hands));
        if let Some(whose) = self.whose.filter(|_| self.is_passed) {
            take_one(&mut open.passed_by_address, whose.address);
        }
        if let Some(whose) = self.whose {
            open.forget(whose, self.is_stranger);
        }
    }
}

fn take_one(counts: &mut HashMap<u128, usize>, key: u128) {
    let left = counts.get_mut(&key).map(|count| {
        *count = count.saturating_sub(1);
        *count
    });
    if left == Some(0) {
        counts.remove(&key);
        if counts.capacity() > SHRINK_MIN && counts.len() < counts.capacity() / 8 {
            counts.shrink_to(counts.len() * 2);
        }
    }
}

/// The network of an address: an IPv4 address counts as mapped, so that the two families do not meet.
fn prefix(ip: IpAddr, v4_bits: u32, v6_bits: u32) -> u128 {
    let (address, bits) = match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_ipv6_mapped()), 96 + v4_bits),
        IpAddr::V6(v6) => (u128::from(v6), v6_bits),
    };
    address & !u128::MAX.checked_shr(bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_bounded_per_address_and_in_all_and_come_back() {
        let limits = ConnectionLimits::new(3, Some(2), None);
        let (a, b, same_64) = (ip("192.0.2.1"), ip("2001:db8:0:1::1"), ip("2001:db8:0:1:ffff::9"));
        let first = limits.admit(a).unwrap();
        let _second = limits.admit(a).unwrap();
        assert_eq!(limits.admit(a).err(), Some(Full::OfAddress));
        let third = limits.admit(b).unwrap();
        assert_eq!(limits.admit(same_64).err(), Some(Full::InTotal));
        drop(first);
        let _fourth = limits.admit(same_64).unwrap();
        assert_eq!(limits.admit(b).err(), Some(Full::OfAddress));
        drop(third);
        assert_eq!(limits.lock().by_address.len(), 2);
    }

    #[test]
    fn one_network_has_a_bounded_number_of_connections_without_an_allocation() {
        let limits = ConnectionLimits::new(100, None, Some(2));
        for [first, second, same, other] in [
            ["192.0.2.1", "192.0.2.255", "192.0.2.77", "192.0.3.1"],
            ["2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:1:ffff::1", "2001:db8:2::1"],
        ] {
            let (mut first, second) = (limits.admit(ip(first)).unwrap(), limits.admit(ip(second)).unwrap());
            assert_eq!(limits.admit(ip(same)).err(), Some(Full::OfNetwork));
            assert!(limits.admit(ip(other)).is_ok());
            // Who has an allocation makes room, and counts again when it is gone.
            first.set_holder(true);
            first.set_holder(true);
            drop(limits.admit(ip(same)).unwrap());
            first.set_holder(false);
            assert_eq!(limits.admit(ip(same)).err(), Some(Full::OfNetwork));
            first.set_holder(true);
            drop(first);
            let third = limits.admit(ip(same)).unwrap();
            assert_eq!(limits.admit(ip(same)).err(), Some(Full::OfNetwork));
            drop((second, third));
        }
        assert!(limits.lock().strangers_by_network.is_empty() && limits.lock().total == 0);
    }

    #[test]
    fn a_connection_from_a_proxy_counts_for_its_client_when_that_is_known() {
        let limits = ConnectionLimits::new(4, Some(1), Some(2));
        let mut permits: Vec<_> = (0..3).map(|_| limits.admit_unknown().unwrap()).collect();
        assert!(limits.lock().by_address.is_empty(), "nobody's yet");
        assert_eq!(permits[0].set_client(ip("192.0.2.1")), Ok(()));
        assert_eq!(permits[1].set_client(ip("192.0.2.1")), Err(Full::OfAddress));
        assert_eq!(permits[1].set_client(ip("192.0.2.2")), Ok(()));
        assert_eq!(permits[2].set_client(ip("192.0.2.3")), Err(Full::OfNetwork));
        permits[0].set_holder(true);
        assert_eq!(permits[2].set_client(ip("192.0.2.3")), Ok(()));
        let _last = limits.admit_unknown().unwrap();
        assert_eq!(limits.admit_unknown().err(), Some(Full::InTotal));
        drop(permits);
        assert_eq!(limits.lock().total, 1);
        assert!(limits.lock().by_address.is_empty(), "the last one is nobody's yet");
    }

    #[test]
    fn half_of_all_may_go_on_to_a_web_server() {
        let limits = ConnectionLimits::new(3, None, None);
        let mut permits: Vec<_> = (0..3).map(|_| limits.admit(ip("192.0.2.1")).unwrap()).collect();
        assert_eq!(
            permits.iter_mut().map(ConnectionPermit::pass_on).collect::<Vec<_>>(),
            [Ok(()), Ok(()), Err(Full::OfWeb)]
        );
        assert!(limits.is_web_full());
        permits.remove(0);
        assert!(!limits.is_web_full());
        assert_eq!(permits[1].pass_on(), Ok(()));
        drop(permits);
        assert_eq!(limits.lock().passed, 0);
        assert_eq!(limits.lock().total, 0);
    }

    #[test]
    fn one_address_has_a_quarter_of_what_may_go_on_to_a_web_server_once_half_of_that_is_taken() {
        let limits = ConnectionLimits::new(32, Some(32), None);
        let mut permits: Vec<_> = (0..20).map(|_| limits.admit(ip("192.0.2.1")).unwrap()).collect();
        let passed = permits.iter_mut().filter_map(|permit| permit.pass_on().ok()).count();
        assert_eq!(passed, 8, "of 16, there is no need for shares before");
        assert_eq!(permits[9].pass_on(), Err(Full::OfAddress));
        let mut others: Vec<_> = (0..5).map(|_| limits.admit(ip("192.0.2.2")).unwrap()).collect();
        assert_eq!(others.iter_mut().filter_map(|permit| permit.pass_on().ok()).count(), 4);
        permits.drain(..5);
        assert_eq!(permits[9].pass_on(), Ok(()), "seven of sixteen");
        drop((permits, others));
        assert!(limits.lock().passed_by_address.is_empty());
    }

    #[test]
    fn networks_are_cut_at_their_bits() {
        assert_eq!(prefix(ip("192.0.2.1"), 32, 64), u128::from(ip_v6("::ffff:192.0.2.1")));
        assert_eq!(prefix(ip("192.0.2.1"), 24, 48), u128::from(ip_v6("::ffff:192.0.2.0")));
        assert_eq!(prefix(ip("2001:db8:1:2:3::4"), 32, 64), u128::from(ip_v6("2001:db8:1:2::")));
        assert_eq!(prefix(ip("2001:db8:1:2:3::4"), 24, 48), u128::from(ip_v6("2001:db8:1::")));
    }

    fn ip_v6(text: &str) -> std::net::Ipv6Addr {
        text.parse().unwrap()
    }
}
