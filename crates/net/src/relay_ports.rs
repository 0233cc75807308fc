//! Every relay port of this process: which are free, and which worker's relay socket holds the others.
//!
//! One table per address serves as the port pool and as the map by which a payload for one of our own relayed addresses
//! finds its allocation in process. Entries are atomics: no lock, and the packet path only loads.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Cache};

use turnstone_turn::addr::Family;

const FREE: u64 = 0;
const CLAIMED: u64 = u64::MAX;

/// Who holds a relay port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayOwner {
    /// The worker, below 4,095.
    pub worker: u16,
    /// The relay socket's slot there, below 2^20.
    pub index: u32,
    /// Which use of the slot it is.
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
///
/// A family's address may change while the server runs. Allocations made before keep their sockets and their ports at the
/// earlier address, which is known for as long as one of them is held.
pub struct RelayPorts {
    addresses: Arc<ArcSwap<Addresses>>,
    first_port: u16,
    last_port: u16,
}

/// The relay addresses as one worker sees them: to ask costs one load while they stay as they are.
pub struct RelayAddresses(Cache<Arc<ArcSwap<Addresses>>, Arc<Addresses>>);

#[derive(Clone, Default)]
struct Addresses {
    v4: OfFamily,
    v6: OfFamily,
}

/// The pools of one family. The current one is where new relays are bound.
#[derive(Clone, Default)]
struct OfFamily {
    current: Option<Arc<Pool>>,
    earlier: Vec<Arc<Pool>>,
    /// Whether relays of this family are offered, even while there is no address for them.
    offered: bool,
}

/// The ports of one address.
struct Pool {
    bind: IpAddr,
    external: IpAddr,
    first_port: u16,
    used: AtomicU32,
    entries: Box<[AtomicU64]>,
}

impl Pool {
    fn entry(&self, port: u16) -> Option<&AtomicU64> {
        self.entries.get(usize::from(port.checked_sub(self.first_port)?))
    }

    fn has_address(&self, bind: IpAddr, external: IpAddr) -> bool {
        self.bind == bind && self.external == external
    }
}

impl OfFamily {
    fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.current.iter().chain(&self.earlier)
    }
}

impl Addresses {
    fn of(&self, family: Family) -> &OfFamily {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn of_mut(&mut self, family: Family) -> &mut OfFamily {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl RelayAddresses {
    /// Whether a datagram that came from this address was sent by one of our own relays.
    #[inline]
    pub fn sent(&mut self, source: SocketAddr) -> bool {
        let ip = source.ip().to_canonical();
        let is_ours = |pool: &&Arc<Pool>| pool.bind == ip || pool.external == ip;
        let held =
            |pool: &Arc<Pool>| pool.entry(source.port()).is_some_and(|entry| entry.load(Ordering::Relaxed) != FREE);
        self.0.load().of(Family::of(ip)).pools().filter(is_ours).any(held)
    }

    /// The relay socket behind a relayed transport address, if it is one of ours and in use.
    #[inline]
    pub fn owner(&mut self, relayed: SocketAddr) -> Option<RelayOwner> {
        let of_family = self.0.load().of(Family::of(relayed.ip()));
        let mut pools = of_family.pools().filter(|pool| pool.external == relayed.ip());
        pools.find_map(|pool| RelayOwner::unpack(pool.entry(relayed.port())?.load(Ordering::Acquire)))
    }
}

impl RelayPorts {
    /// `(bind, external)` addresses per family and the inclusive port range.
    pub fn new(v4: Option<(IpAddr, IpAddr)>, v6: Option<(IpAddr, IpAddr)>, ports: (u16, u16)) -> Arc<Self> {
        let (first_port, last_port) = ports;
        let relays = Self { addresses: Arc::default(), first_port, last_port };
        for (family, address) in [(Family::V4, v4), (Family::V6, v6)] {
            relays.set_address(family, address, address.is_some());
        }
        Arc::new(relays)
    }

    /// Binds new relays of a family to another `(bind, external)` address from now on, or to none. `offered` says whether
    /// clients are told that there are relays of this family. Returns whether anything is different now.
    pub fn set_address(&self, family: Family, address: Option<(IpAddr, IpAddr)>, offered: bool) -> bool {
        let before = self.addresses.load_full();
        let mut after = Addresses::clone(&before);
        let of = after.of_mut(family);
        let current = of.current.as_ref().map(|pool| (pool.bind, pool.external));
        if current == address && of.offered == offered {
            return false;
        }
        of.offered = offered;
        if current != address {
            of.earlier.extend(of.current.take());
            of.current = address.map(|(bind, external)| {
                let known = of.earlier.iter().position(|pool| pool.has_address(bind, external));
                known.map_or_else(|| self.pool(bind, external), |known| of.earlier.swap_remove(known))
            });
        }
        self.addresses.store(Arc::new(after));
        true
    }

    /// Forgets earlier addresses at which no port is held any more; whether there were any, and whether some are left.
    pub fn forget_earlier(&self) -> (bool, bool) {
        let mut after = Addresses::clone(&self.addresses.load_full());
        let (mut forgotten, mut left) = (false, false);
        for family in Family::ALL {
            let earlier = &mut after.of_mut(family).earlier;
            let before = earlier.len();
            earlier.retain(|pool| pool.used.load(Ordering::Acquire) > 0);
            forgotten |= earlier.len() < before;
            left |= !earlier.is_empty();
        }
        if forgotten {
            self.addresses.store(Arc::new(after));
        }
        (forgotten, left)
    }

    /// The addresses, to be asked about on the packet path.
    pub fn addresses(&self) -> RelayAddresses {
        RelayAddresses(Cache::new(Arc::clone(&self.addresses)))
    }

    /// Every `(bind, external)` address at which a port is or may be held.
    pub fn all_addresses(&self) -> Vec<(IpAddr, IpAddr)> {
        let addresses = self.addresses.load();
        let pools = Family::ALL.map(|family| addresses.of(family).pools());
        pools.into_iter().flatten().map(|pool| (pool.bind, pool.external)).collect()
    }

    /// Whether relays of this family are offered.
    pub fn supports(&self, family: Family) -> bool {
        self.addresses.load().of(family).offered
    }

    /// Ports in the range.
    pub fn capacity(&self) -> u32 {
        u32::from(self.last_port) - u32::from(self.first_port) + 1
    }

    /// Ports of a family that are held.
    pub fn used(&self, family: Family) -> u32 {
        self.addresses.load().of(family).pools().map(|pool| pool.used.load(Ordering::Relaxed)).sum()
    }

    /// The free ports of a family in an order that `random` (from the CSPRNG) decides: all of the range, each once. None while
    /// the family has no address.
    pub fn candidates(&self, family: Family, random: u32) -> impl Iterator<Item = u16> + use<> {
        let pool = self.current(family);
        let (count, first_port) = (self.capacity(), self.first_port);
        // A stride coprime to the count visits every port once, and neighbours in time are not neighbours in number.
        let start = random % count;
        let stride = coprime_stride(random.rotate_right(16), count);
        (0..count).filter_map(move |step| {
            let offset = (u64::from(start) + u64::from(step) * u64::from(stride)) % u64::from(count);
            let port = first_port.checked_add(u16::try_from(offset).ok()?)?;
            let free = pool.as_ref()?.entry(port)?.load(Ordering::Relaxed) == FREE;
            free.then_some(port)
        })
    }

    /// Whether a family has an address now.
    pub fn has_address(&self, family: Family) -> bool {
        self.addresses.load().of(family).current.is_some()
    }

    /// Claims a port at the current address; `None` when it is out of range or held.
    pub fn claim(&self, family: Family, port: u16) -> Option<PortLease> {
        let pool = self.current(family)?;
        pool.entry(port)?.compare_exchange(FREE, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        pool.used.fetch_add(1, Ordering::AcqRel);
        Some(PortLease { pool, port })
    }

    fn current(&self, family: Family) -> Option<Arc<Pool>> {
        self.addresses.load().of(family).current.clone()
    }

    fn pool(&self, bind: IpAddr, external: IpAddr) -> Arc<Pool> {
        let entries = std::iter::repeat_with(|| AtomicU64::new(FREE)).take(self.capacity() as usize).collect();
        Arc::new(Pool { bind, external, first_port: self.first_port, used: AtomicU32::new(0), entries })
    }
}

/// A held relay port; dropping it gives the port back.
pub struct PortLease {
    pool: Arc<Pool>,
    port: u16,
}

impl PortLease {
    /// The family.
    pub fn family(&self) -> Family {
        Family::of(self.pool.bind)
    }

    /// Where its socket is bound.
    pub fn bind_address(&self) -> SocketAddr {
        SocketAddr::new(self.pool.bind, self.port)
    }

    /// What clients and peers see of it.
    pub fn external_address(&self) -> SocketAddr {
        SocketAddr::new(self.pool.external, self.port)
    }

    /// Makes the port's relay socket known to the other allocations of this process.
    pub fn set_owner(&self, owner: RelayOwner) {
        if let Some(entry) = self.pool.entry(self.port) {
            entry.store(owner.pack(), Ordering::Release);
        }
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        if let Some(entry) = self.pool.entry(self.port) {
            entry.store(FREE, Ordering::Release);
        }
        self.pool.used.fetch_sub(1, Ordering::AcqRel);
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

    fn pool(first: u16, last: u16) -> Arc<RelayPorts> {
        let bind = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
        let external = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
        RelayPorts::new(Some((bind, external)), None, (first, last))
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
        assert_eq!(relays.addresses().owner(external), None);
        let owner = RelayOwner { worker: 3, index: 70_000, generation: 9 };
        lease.set_owner(owner);
        assert_eq!(relays.addresses().owner(external), Some(owner));
        assert_eq!(relays.addresses().owner(SocketAddr::from(([10, 0, 0, 5], 50001))), None);
        drop(lease);
        assert_eq!(relays.addresses().owner(external), None);
    }
    #[test]
    fn an_address_that_is_gone_keeps_the_ports_that_are_held_there() {
        let relays = pool(50000, 50001);
        let (old, new) = ("203.0.113.7:50000", "203.0.113.8:50000");
        let lease = relays.claim(Family::V4, 50000).unwrap();
        lease.set_owner(RelayOwner { worker: 1, index: 2, generation: 3 });
        let moved = (IpAddr::from([10, 0, 0, 6]), IpAddr::from([203, 0, 113, 8]));
        let move_there = || relays.set_address(Family::V4, Some(moved), true);
        assert!(move_there() && !move_there());
        // The same port at the new address is another one.
        let other = relays.claim(Family::V4, 50000).unwrap();
        other.set_owner(RelayOwner { worker: 4, index: 5, generation: 6 });
        assert_eq!(relays.addresses().owner(old.parse().unwrap()).unwrap().worker, 1);
        assert_eq!(relays.addresses().owner(new.parse().unwrap()).unwrap().worker, 4);
        assert_eq!((other.bind_address().ip(), relays.used(Family::V4)), (IpAddr::from([10, 0, 0, 6]), 2));
        assert_eq!(relays.forget_earlier(), (false, true));
        drop(lease);
        assert_eq!(relays.forget_earlier(), (true, false));
        assert_eq!(relays.all_addresses(), [moved]);
    }

    #[test]
    fn an_address_that_comes_back_finds_its_ports_as_they_were() {
        let relays = pool(50000, 50000);
        let address = relays.all_addresses().first().copied();
        let lease = relays.claim(Family::V4, 50000).unwrap();
        relays.set_address(Family::V4, None, true);
        assert!(relays.supports(Family::V4) && !relays.has_address(Family::V4));
        assert_eq!(relays.candidates(Family::V4, 0).count(), 0);
        assert!(relays.claim(Family::V4, 50000).is_none());
        relays.set_address(Family::V4, address, true);
        assert!(relays.claim(Family::V4, 50000).is_none(), "still held");
        drop(lease);
        assert!(relays.claim(Family::V4, 50000).is_some());
    }

    #[test]
    fn datagrams_of_own_relays_are_known_by_both_addresses_while_the_port_is_held() {
        let relays = pool(50000, 50001);
        let sent = |source: &str| relays.addresses().sent(source.parse().unwrap());
        assert!(!sent("10.0.0.5:50000"));
        let lease = relays.claim(Family::V4, 50000).unwrap();
        assert!(sent("10.0.0.5:50000") && sent("203.0.113.7:50000") && sent("[::ffff:10.0.0.5]:50000"));
        for other in ["10.0.0.5:50001", "10.0.0.5:3478", "10.0.0.6:50000", "[2001:db8::1]:50000"] {
            assert!(!sent(other), "{other}");
        }
        drop(lease);
        assert!(!sent("10.0.0.5:50000"));
    }
}
