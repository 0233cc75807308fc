//! Every relay port of this process: which are free, and which worker's relay socket holds the others.
//!
//! One table per family serves as the port pool and as the map by which a payload for one of our own relayed addresses
//! finds its allocation in process. Entries are atomics: no lock, and the packet path only loads.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::addr::Family;

const FREE: u64 = 0;
const CLAIMED: u64 = u64::MAX;
const PORTS: usize = 1 << 16;

/// Who holds a relay port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayOwner {
    /// The worker, below 4,095.
    pub worker: u16,
    /// The relay socket's slot there, below 2^20.
    pub index: u32,
    /// The use count of the slot.
    pub generation: u32,
}

impl RelayOwner {
    fn pack(self) -> u64 {
        ((u64::from(self.worker) + 1) << 52) | (u64::from(self.index & 0xF_FFFF) << 32) | u64::from(self.generation)
    }

    fn unpack(entry: u64) -> Option<Self> {
        if entry == FREE || entry == CLAIMED {
            return None;
        }
        Some(Self {
            worker: ((entry >> 52) - 1) as u16,
            index: (entry >> 32) as u32 & 0xF_FFFF,
            generation: entry as u32,
        })
    }
}

/// The relay ports of both families.
pub struct OwnRelays {
    v4: Option<Pool>,
    v6: Option<Pool>,
    first_port: u16,
    last_port: u16,
}

struct Pool {
    bind: IpAddr,
    external: IpAddr,
    used: AtomicU32,
    entries: Vec<AtomicU64>,
}

impl OwnRelays {
    /// `(bind, external)` addresses per family and the inclusive port range.
    pub fn new(v4: Option<(IpAddr, IpAddr)>, v6: Option<(IpAddr, IpAddr)>, ports: (u16, u16)) -> Arc<Self> {
        let pool = |(bind, external)| Pool {
            bind,
            external,
            used: AtomicU32::new(0),
            entries: std::iter::repeat_with(|| AtomicU64::new(FREE)).take(PORTS).collect(),
        };
        Arc::new(Self { v4: v4.map(pool), v6: v6.map(pool), first_port: ports.0, last_port: ports.1 })
    }

    /// Whether relays of this family are offered.
    pub fn supports(&self, family: Family) -> bool {
        self.pool(family).is_some()
    }

    /// The address relay sockets of this family are bound to.
    pub fn bind_address(&self, family: Family) -> Option<IpAddr> {
        self.pool(family).map(|pool| pool.bind)
    }

    /// The address clients and peers see for relay sockets of this family.
    pub fn external_address(&self, family: Family) -> Option<IpAddr> {
        self.pool(family).map(|pool| pool.external)
    }

    /// Ports in the range.
    pub fn capacity(&self) -> u32 {
        u32::from(self.last_port) - u32::from(self.first_port) + 1
    }

    /// Ports of a family that are held.
    pub fn used(&self, family: Family) -> u32 {
        self.pool(family).map_or(0, |pool| pool.used.load(Ordering::Relaxed))
    }

    /// The free ports of a family in an order that `random` (from the CSPRNG) decides: all of the range, each once.
    pub fn candidates(&self, family: Family, random: u32) -> impl Iterator<Item = u16> + use<'_> {
        let pool = self.pool(family);
        let count = self.capacity();
        // A stride coprime to the count visits every port once, and neighbours in time are not neighbours in number.
        let start = random % count;
        let stride = coprime_stride(random.rotate_right(16), count);
        (0..count).filter_map(move |step| {
            let offset = (u64::from(start) + u64::from(step) * u64::from(stride)) % u64::from(count);
            let port = self.first_port.checked_add(u16::try_from(offset).ok()?)?;
            let free = pool?.entries.get(usize::from(port))?.load(Ordering::Relaxed) == FREE;
            free.then_some(port)
        })
    }

    /// Claims a port; `None` when it is out of range or held.
    pub fn claim(self: &Arc<Self>, family: Family, port: u16) -> Option<PortLease> {
        if !(self.first_port..=self.last_port).contains(&port) {
            return None;
        }
        let pool = self.pool(family)?;
        pool.entries
            .get(usize::from(port))?
            .compare_exchange(FREE, CLAIMED, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        pool.used.fetch_add(1, Ordering::Relaxed);
        Some(PortLease { relays: Arc::clone(self), family, port })
    }

    /// The relay socket behind a relayed transport address, if it is one of ours and in use.
    pub fn owner(&self, relayed: SocketAddr) -> Option<RelayOwner> {
        let pool = self.pool(Family::of(relayed.ip()))?;
        if pool.external != relayed.ip() {
            return None;
        }
        RelayOwner::unpack(pool.entries.get(usize::from(relayed.port()))?.load(Ordering::Acquire))
    }

    fn pool(&self, family: Family) -> Option<&Pool> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    fn entry(&self, family: Family, port: u16) -> Option<&AtomicU64> {
        self.pool(family)?.entries.get(usize::from(port))
    }
}

/// A held relay port; dropping it gives the port back.
pub struct PortLease {
    relays: Arc<OwnRelays>,
    family: Family,
    port: u16,
}

impl PortLease {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Makes the port's relay socket known to the other allocations of this process.
    pub fn set_owner(&self, owner: RelayOwner) {
        if let Some(entry) = self.relays.entry(self.family, self.port) {
            entry.store(owner.pack(), Ordering::Release);
        }
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        if let Some(entry) = self.relays.entry(self.family, self.port) {
            entry.store(FREE, Ordering::Release);
        }
        if let Some(pool) = self.relays.pool(self.family) {
            pool.used.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A number below `count`, from `random` upwards, that has no factor in common with it.
fn coprime_stride(random: u32, count: u32) -> u32 {
    let first = random % count.max(1);
    (first..count).chain(1..=first).find(|stride| gcd(*stride, count) == 1).unwrap_or(1)
}

fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn pool(first: u16, last: u16) -> Arc<OwnRelays> {
        let bind = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
        let external = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
        OwnRelays::new(Some((bind, external)), None, (first, last))
    }

    #[test]
    fn every_port_is_offered_exactly_once_whatever_the_random_number() {
        for (first, last) in [(49152, 65535), (50000, 50000), (50000, 50009), (1, 97)] {
            let relays = pool(first, last);
            for random in [0, 1, 7, 0xFFFF_FFFF, 0x1234_5678, 0xABCD_0000] {
                let mut ports: Vec<u16> = relays.candidates(Family::V4, random).collect();
                ports.sort_unstable();
                assert_eq!(ports, (first..=last).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_port_is_held_once_and_comes_back_when_its_lease_drops() {
        let relays = pool(50000, 50001);
        let lease = relays.claim(Family::V4, 50000).unwrap();
        assert!(relays.claim(Family::V4, 50000).is_none());
        assert!(relays.claim(Family::V4, 49999).is_none());
        assert!(relays.claim(Family::V6, 50001).is_none());
        assert_eq!(relays.used(Family::V4), 1);
        assert_eq!(relays.candidates(Family::V4, 3).collect::<Vec<_>>(), [50001]);
        drop(lease);
        assert_eq!(relays.used(Family::V4), 0);
        assert!(relays.claim(Family::V4, 50000).is_some());
    }

    #[test]
    fn the_owner_is_found_by_the_external_address_only() {
        let relays = pool(50000, 50001);
        let lease = relays.claim(Family::V4, 50001).unwrap();
        let external = SocketAddr::from(([203, 0, 113, 7], 50001));
        assert_eq!(relays.owner(external), None);
        let owner = RelayOwner { worker: 3, index: 70_000, generation: 9 };
        lease.set_owner(owner);
        assert_eq!(relays.owner(external), Some(owner));
        assert_eq!(relays.owner(SocketAddr::from(([10, 0, 0, 5], 50001))), None);
        drop(lease);
        assert_eq!(relays.owner(external), None);
    }
}
