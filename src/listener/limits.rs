//! How many stream connections may be open, in all and per address; a permit gives its place back when dropped.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Open {
    total: usize,
    by_prefix: HashMap<u128, usize>,
}

/// The open connections of all workers.
pub struct ConnectionLimits {
    total_max: usize,
    per_ip_max: Option<usize>,
    open: Mutex<Open>,
}

impl ConnectionLimits {
    /// At most `total_max` connections, and `per_ip_max` for one IPv4 address or one IPv6 /64.
    pub fn new(total_max: usize, per_ip_max: Option<usize>) -> Arc<Self> {
        Arc::new(Self { total_max, per_ip_max, open: Mutex::default() })
    }

    /// A place for a connection from `ip`.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<ConnectionPermit, Full> {
        let prefix = prefix(ip);
        let mut open = self.lock();
        let from_prefix = open.by_prefix.get(&prefix).copied().unwrap_or(0);
        if open.total >= self.total_max {
            return Err(Full::InTotal);
        }
        if self.per_ip_max.is_some_and(|max| from_prefix >= max) {
            return Err(Full::OfAddress);
        }
        open.total += 1;
        open.by_prefix.insert(prefix, from_prefix + 1);
        Ok(ConnectionPermit { limits: Arc::clone(self), prefix })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which limit on connections is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// That of all connections.
    InTotal,
    /// That of one IPv4 address or IPv6 /64.
    OfAddress,
}

/// The place of one open connection.
pub struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    prefix: u128,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limits.lock();
        open.total = open.total.saturating_sub(1);
        let left = open.by_prefix.get_mut(&self.prefix).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            open.by_prefix.remove(&self.prefix);
        }
    }
}

/// An IPv4 address as mapped, an IPv6 address without its interface id.
fn prefix(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6) >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_per_address_and_in_all_and_come_back() {
        let limits = ConnectionLimits::new(3, Some(2));
        let a: IpAddr = "192.0.2.1".parse().unwrap();
        let b: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        let same_64: IpAddr = "2001:db8:0:1:ffff::9".parse().unwrap();
        let first = limits.admit(a).unwrap();
        let _second = limits.admit(a).unwrap();
        assert_eq!(limits.admit(a).err(), Some(Full::OfAddress));
        let third = limits.admit(b).unwrap();
        assert_eq!(limits.admit(same_64).err(), Some(Full::InTotal));
        drop(first);
        let _fourth = limits.admit(same_64).unwrap();
        assert_eq!(limits.admit(b).err(), Some(Full::InTotal));
        drop(third);
        assert_eq!(limits.lock().by_prefix.len(), 2);
    }
}
