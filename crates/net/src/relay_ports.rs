//! Every relay port of this process: which are free, and which worker's relay socket holds the others.
//!
//! One table per address serves as the port pool and as the map by which a payload for one of our own relayed addresses
//! finds its allocation in process. Entries are atomics: no lock, and the packet path only loads.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Cache};

use turnstone_turn::addr::Family;

const FREE: u64 = 0;
const CLAIMED: u64 = u64::MAX;
/// A TCP relay has it: no payload of another allocation finds its way there.
const LISTENS: u64 = u64::MAX - 1;

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
        if matches!(entry, FREE | CLAIMED | LISTENS) {
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

/// The pools of one family. The current ones are where new relays are bound.
#[derive(Clone, Default)]
struct OfFamily {
    current: Vec<Arc<Pool>>,
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

    fn listens(&self, port: u16) -> bool {
        self.entry(port).is_some_and(|entry| entry.load(Ordering::Acquire) == LISTENS)
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

    /// Where the TCP relay of a relayed transport address is bound, if there is one of ours.
    pub fn tcp_bound_at(&mut self, relayed: SocketAddr) -> Option<SocketAddr> {
        let of_family = self.0.load().of(Family::of(relayed.ip()));
        let mut pools = of_family.pools().filter(|pool| pool.external == relayed.ip() && pool.listens(relayed.port()));
        pools.next().map(|pool| SocketAddr::new(pool.bind, relayed.port()))
    }

    /// The relayed transport address of the TCP relay of ours that is bound here, if there is one.
    pub fn tcp_relayed_at(&mut self, bound: SocketAddr) -> Option<SocketAddr> {
        let of_family = self.0.load().of(Family::of(bound.ip()));
        let mut pools = of_family.pools().filter(|pool| pool.bind == bound.ip() && pool.listens(bound.port()));
        pools.next().map(|pool| SocketAddr::new(pool.external, bound.port()))
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
    /// `(bind, external)` addresses and the inclusive port range that each of them has.
    pub fn new(addresses: &[(IpAddr, IpAddr)], ports: (u16, u16)) -> Arc<Self> {
        let (first_port, last_port) = ports;
        let relays = Self { addresses: Arc::default(), first_port, last_port };
        for family in Family::ALL {
            let of_family: Vec<_> = addresses.iter().copied().filter(|(bind, _)| Family::of(*bind) == family).collect();
            relays.set_addresses(family, &of_family, !of_family.is_empty());
        }
        Arc::new(relays)
    }

    /// Binds new relays of a family to these `(bind, external)` addresses from now on, which may be none. `offered` says whether
    /// clients are told that there are relays of this family. Returns whether anything is different now.
    pub fn set_addresses(&self, family: Family, addresses: &[(IpAddr, IpAddr)], offered: bool) -> bool {
        let mut after = Addresses::clone(&self.addresses.load_full());
        let of = after.of_mut(family);
        let is_same = of.current.iter().map(|pool| (pool.bind, pool.external)).eq(addresses.iter().copied());
        if is_same && of.offered == offered {
            return false;
        }
        of.offered = offered;
        of.earlier.append(&mut of.current);
        for &(bind, external) in addresses {
            let known = of.earlier.iter().position(|pool| pool.has_address(bind, external));
            of.current.push(known.map_or_else(|| self.pool(bind, external), |known| of.earlier.swap_remove(known)));
        }
        // An address at which nothing is held need not be remembered.
        of.earlier.retain(|pool| pool.used.load(Ordering::Acquire) > 0);
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

    /// Ports of a family, over all addresses that it has now; of one address while it has none.
    pub fn capacity(&self, family: Family) -> u32 {
        let addresses = self.addresses.load().of(family).current.len().max(1);
        self.ports_of_address().saturating_mul(u32::try_from(addresses).unwrap_or(u32::MAX))
    }

    fn ports_of_address(&self) -> u32 {
        u32::from(self.last_port) - u32::from(self.first_port) + 1
    }

    /// How each address of a family is used, those of before that still have ports held included.
    pub fn usage(&self, family: Family) -> Vec<AddressUsage> {
        let addresses = self.addresses.load();
        let of = addresses.of(family);
        let usage = |pool: &Arc<Pool>, total| AddressUsage {
            bind: pool.bind,
            external: pool.external,
            used: pool.used.load(Ordering::Relaxed),
            total,
        };
        let current = of.current.iter().map(|pool| usage(pool, self.ports_of_address()));
        current.chain(of.earlier.iter().map(|pool| usage(pool, 0))).collect()
    }

    /// Ports of a family that are held.
    pub fn used(&self, family: Family) -> u32 {
        self.addresses.load().of(family).pools().map(|pool| pool.used.load(Ordering::Relaxed)).sum()
    }

    /// Whether a family has an address now.
    pub fn has_address(&self, family: Family) -> bool {
        !self.addresses.load().of(family).current.is_empty()
    }

    /// The addresses of a family that `may_be` holds for, the least used one first; `random` (from the CSPRNG) decides among equals.
    pub fn least_used(
        &self,
        family: Family,
        random: u32,
        may_be: impl Fn(IpAddr, IpAddr) -> bool,
    ) -> Vec<AddressPorts> {
        let addresses = self.addresses.load();
        let current = &addresses.of(family).current;
        // Equals come in a circle that begins somewhere.
        let start = random as usize % current.len().max(1);
        let circle = current.iter().cycle().skip(start).take(current.len());
        let mut pools: Vec<_> = circle.filter(|pool| may_be(pool.bind, pool.external)).cloned().collect();
        pools.sort_by_key(|pool| pool.used.load(Ordering::Relaxed));
        pools.into_iter().map(AddressPorts).collect()
    }

    fn pool(&self, bind: IpAddr, external: IpAddr) -> Arc<Pool> {
        let entries = std::iter::repeat_with(|| AtomicU64::new(FREE)).take(self.ports_of_address() as usize).collect();
        Arc::new(Pool { bind, external, first_port: self.first_port, used: AtomicU32::new(0), entries })
    }
}

/// How the ports of one relay address are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressUsage {
    /// Where its sockets are bound.
    pub bind: IpAddr,
    /// What clients and peers see.
    pub external: IpAddr,
    /// Ports that are held.
    pub used: u32,
    /// Ports there are; none at an address of before.
    pub total: u32,
}

/// The ports of one relay address, to claim one.
pub struct AddressPorts(Arc<Pool>);

impl AddressPorts {
    /// The address that sockets are bound to.
    pub fn bind(&self) -> IpAddr {
        self.0.bind
    }

    /// All of its ports.
    pub fn ports(&self) -> RangeInclusive<u16> {
        let last = usize::from(self.0.first_port) + self.0.entries.len() - 1;
        self.0.first_port..=u16::try_from(last).unwrap_or(u16::MAX)
    }

    /// The free ports in an order that `random` (from the CSPRNG) decides: all of the range, each once.
    pub fn candidates(&self, random: u32) -> impl Iterator<Item = u16> {
        let count = u32::try_from(self.0.entries.len()).unwrap_or(u32::MAX);
        // A stride coprime to the count visits every port once, and neighbours in time are not neighbours in number.
        let start = random % count;
        let stride = coprime_stride(random.rotate_right(16), count);
        (0..count).filter_map(move |step| {
            let offset = (u64::from(start) + u64::from(step) * u64::from(stride)) % u64::from(count);
            let port = self.0.first_port.checked_add(u16::try_from(offset).ok()?)?;
            let free = self.0.entry(port)?.load(Ordering::Relaxed) == FREE;
            free.then_some(port)
        })
    }

    /// Claims a port; `None` when it is out of range or held.
    pub fn claim(&self, port: u16) -> Option<PortLease> {
        self.0.entry(port)?.compare_exchange(FREE, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        self.0.used.fetch_add(1, Ordering::AcqRel);
        Some(PortLease { pool: Arc::clone(&self.0), port })
    }
}

/// A held relay port; dropping it gives the port back.
pub struct PortLease {
    pool: Arc<Pool>,
    port: u16,
}

impl PortLease {
    /// Where its socket is bound.
    pub fn bind_address(&self) -> SocketAddr {
        SocketAddr::new(self.pool.bind, self.port)
    }

    /// What clients and peers see of it.
    pub fn external_address(&self) -> SocketAddr {
        SocketAddr::new(self.pool.external, self.port)
    }

    /// Makes it known that the port's relay is TCP.
    pub fn set_listens(&self) {
        if let Some(entry) = self.pool.entry(self.port) {
            entry.store(LISTENS, Ordering::Release);
        }
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
        RelayPorts::new(&[(bind, external)], (first, last))
    }

    fn address(relays: &RelayPorts, family: Family) -> Option<AddressPorts> {
        relays.least_used(family, 0, |_, _| true).into_iter().next()
    }

    fn claim(relays: &RelayPorts, port: u16) -> Option<PortLease> {
        address(relays, Family::V4)?.claim(port)
    }

    #[test]
    fn every_port_is_offered_exactly_once_whatever_the_random_number() {
        for (first, last) in [(49152, 65535), (50000, 50000), (50000, 50009), (1, 97)] {
            let relays = pool(first, last);
            for random in [0, 1, 7, 0xFFFF_FFFF, 0x1234_5678, 0xABCD_0000] {
                let mut ports: Vec<u16> = address(&relays, Family::V4).unwrap().candidates(random).collect();
                ports.sort_unstable();
                assert_eq!(ports, (first..=last).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_port_is_held_once_and_comes_back_when_its_lease_drops() {
        let relays = pool(50000, 50001);
        let lease = claim(&relays, 50000).unwrap();
        assert!(claim(&relays, 50000).is_none());
        assert!(claim(&relays, 49999).is_none());
        assert!(address(&relays, Family::V6).is_none());
        assert_eq!(relays.used(Family::V4), 1);
        assert_eq!(address(&relays, Family::V4).unwrap().candidates(3).collect::<Vec<_>>(), [50001]);
        drop(lease);
        assert_eq!(relays.used(Family::V4), 0);
        assert!(claim(&relays, 50000).is_some());
    }

    #[test]
    fn the_owner_is_found_by_the_external_address_only() {
        let relays = pool(50000, 50001);
        let lease = claim(&relays, 50001).unwrap();
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
        let lease = claim(&relays, 50000).unwrap();
        lease.set_owner(RelayOwner { worker: 1, index: 2, generation: 3 });
        let moved = (IpAddr::from([10, 0, 0, 6]), IpAddr::from([203, 0, 113, 8]));
        let move_there = || relays.set_addresses(Family::V4, &[moved], true);
        assert!(move_there() && !move_there());
        // The same port at the new address is another one.
        let other = claim(&relays, 50000).unwrap();
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
        let known = relays.all_addresses();
        let lease = claim(&relays, 50000).unwrap();
        relays.set_addresses(Family::V4, &[], true);
        assert!(relays.supports(Family::V4) && !relays.has_address(Family::V4));
        assert!(claim(&relays, 50000).is_none());
        relays.set_addresses(Family::V4, &known, true);
        assert!(claim(&relays, 50000).is_none(), "still held");
        drop(lease);
        assert!(claim(&relays, 50000).is_some());
    }

    #[test]
    fn datagrams_of_own_relays_are_known_by_both_addresses_while_the_port_is_held() {
        let relays = pool(50000, 50001);
        let sent = |source: &str| relays.addresses().sent(source.parse().unwrap());
        assert!(!sent("10.0.0.5:50000"));
        let lease = claim(&relays, 50000).unwrap();
        assert!(sent("10.0.0.5:50000") && sent("203.0.113.7:50000") && sent("[::ffff:10.0.0.5]:50000"));
        for other in ["10.0.0.5:50001", "10.0.0.5:3478", "10.0.0.6:50000", "[2001:db8::1]:50000"] {
            assert!(!sent(other), "{other}");
        }
        drop(lease);
        assert!(!sent("10.0.0.5:50000"));
    }

    #[test]
    fn of_several_addresses_the_least_used_one_comes_first_and_chance_decides_among_equals() {
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let relays = RelayPorts::new(&[1, 2, 3].map(|last| (ip(last), ip(100 + last))), (50000, 50009));
        assert_eq!((relays.capacity(Family::V4), relays.capacity(Family::V6)), (30, 10));
        let first = |random| relays.least_used(Family::V4, random, |_, _| true).swap_remove(0);
        let begins: Vec<_> = (0..3).map(|random| first(random).claim(50000).unwrap()).collect();
        let mut binds: Vec<_> = begins.iter().map(|lease| lease.bind_address().ip()).collect();
        binds.sort_unstable();
        assert_eq!(binds, [ip(1), ip(2), ip(3)], "the used ones come last");
        let more: Vec<_> = (0..6).map(|_| first(0).claim(50001).or_else(|| first(0).claim(50002)).unwrap()).collect();
        assert!(relays.usage(Family::V4).iter().all(|usage| (usage.used, usage.total) == (3, 10)));
        let only = |bind, external| bind == ip(2) || external == ip(103);
        let mut left: Vec<_> = relays.least_used(Family::V4, 7, only).iter().map(|ports| ports.0.bind).collect();
        left.sort_unstable();
        assert_eq!(left, [ip(2), ip(3)]);
        // One of three goes: what is held there is known until it is given back.
        relays.set_addresses(Family::V4, &[(ip(1), ip(101)), (ip(3), ip(103))], true);
        assert_eq!((relays.capacity(Family::V4), relays.used(Family::V4)), (20, 9));
        assert!(relays.addresses().sent(SocketAddr::new(ip(102), 50000)));
        drop((begins, more));
        assert_eq!((relays.forget_earlier(), relays.used(Family::V4)), ((true, false), 0));
    }
}
