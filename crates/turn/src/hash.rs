//! The keyed hash of addresses.
//!
//! NH, the universal hash of UMAC (RFC 4418), over the address words under secret keys from the CSPRNG: who does not
//! know the keys cannot choose addresses that collide. Three multiplications for a 5-tuple.

use std::net::{IpAddr, SocketAddr};

use crate::addr::{FiveTuple, PeerAddr, Transport};

use super::relays::{OwnSender, RelayId};

/// A 5-tuple as words: equal words mean equal 5-tuples.
pub(super) type FiveTupleWords = [u64; 5];

/// The keys of one server.
#[derive(Clone)]
pub(super) struct AddressHash {
    keys: [u64; 6],
    mix: u64,
}

impl AddressHash {
    /// Takes its keys from the CSPRNG.
    pub(super) fn new(fill_random: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut word = || {
            let mut bytes = [0; 8];
            fill_random(&mut bytes);
            u64::from_ne_bytes(bytes)
        };
        Self { keys: std::array::from_fn(|_| word()), mix: word() | 1 }
    }

    pub(super) fn words(&self, words: &FiveTupleWords) -> u64 {
        let [w0, w1, w2, w3, w4] = *words;
        self.nh([w0, w1, w2, w3, w4, 0])
    }

    pub(super) fn ip(&self, ip: IpAddr) -> u64 {
        let (w0, w1, family) = ip_words(ip);
        self.nh([w0, w1, family, 0, 0, 0])
    }

    pub(super) fn peer(&self, peer: PeerAddr) -> u64 {
        let (w0, w1, family) = ip_words(peer.ip());
        self.nh([w0, w1, family, u64::from(peer.port()), 0, 0])
    }

    /// A peer at one of several relay ports, and which relay of ours it is, if it is one.
    pub(super) fn source_at(&self, port: RelayId, peer: PeerAddr, own: Option<OwnSender>) -> u64 {
        let (w0, w1, family) = ip_words(peer.ip());
        let (worker, index, generation) = own.map_or((0, 0, 0), |OwnSender { worker, relay }| {
            (worker.map_or(1, |worker| 2 + u64::from(worker)), u64::from(relay.index), u64::from(relay.generation))
        });
        let index = u64::from(port.index) | index << 32;
        let generation = u64::from(port.generation) | generation << 32;
        self.nh([w0, w1, family | worker << 8, u64::from(peer.port()), index, generation])
    }

    /// A peer's address at one of several relay ports.
    pub(super) fn ip_at(&self, port: RelayId, ip: IpAddr) -> u64 {
        let (w0, w1, family) = ip_words(ip);
        self.nh([w0, w1, family, 0, u64::from(port.index), u64::from(port.generation)])
    }

    pub(super) fn number(&self, number: u16) -> u64 {
        self.nh([u64::from(number), 0, 0, 0, 0, 0])
    }

    #[inline]
    fn nh(&self, [w0, w1, w2, w3, w4, w5]: [u64; 6]) -> u64 {
        let [k0, k1, k2, k3, k4, k5] = self.keys;
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let sum = product(w0.wrapping_add(k0), w1.wrapping_add(k1))
            .wrapping_add(product(w2.wrapping_add(k2), w3.wrapping_add(k3)))
            .wrapping_add(product(w4.wrapping_add(k4), w5.wrapping_add(k5)));
        fold(product(fold(sum), self.mix))
    }
}

/// Packs a 5-tuple. Flow label and scope do not count.
#[inline]
pub(super) fn five_tuple_words(five_tuple: &FiveTuple) -> FiveTupleWords {
    let (client_high, client_low, client_family) = ip_words(five_tuple.client.get().ip());
    let (server_high, server_low, server_family) = ip_words(five_tuple.server.ip());
    let transport = match five_tuple.transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
        Transport::Dtls => 3,
    };
    let ports = port_word(five_tuple.client.get()) << 48 | port_word(five_tuple.server) << 32;
    [client_high, client_low, server_high, server_low, ports | transport << 16 | client_family << 8 | server_family]
}

#[inline]
fn ip_words(ip: IpAddr) -> (u64, u64, u64) {
    match ip {
        IpAddr::V4(ip) => (0, u64::from(u32::from(ip)), 1),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            ((bits >> 64) as u64, bits as u64, 2)
        }
    }
}

fn port_word(addr: SocketAddr) -> u64 {
    u64::from(addr.port())
}

fn fold(wide: u128) -> u64 {
    (wide >> 64) as u64 ^ wide as u64
}

#[cfg(test)]
pub(super) fn test_hash() -> AddressHash {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    AddressHash::new(&mut |out: &mut [u8]| {
        for byte in out {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::ClientAddr;

    #[test]
    fn neighbouring_clients_spread_over_high_and_low_bits() {
        let hash = test_hash();
        let mut low = std::collections::HashSet::new();
        let mut high = std::collections::HashSet::new();
        for host in 0..64u32 {
            for port in 0..64u16 {
                let five_tuple = FiveTuple {
                    transport: Transport::Udp,
                    client: ClientAddr::new(SocketAddr::new(IpAddr::V4((0x0A00_0000 + host).into()), 40_000 + port)),
                    server: "192.0.2.1:3478".parse().unwrap(),
                };
                let value = hash.words(&five_tuple_words(&five_tuple));
                low.insert(value & 0xFFFF);
                high.insert(value >> 48);
            }
        }
        assert!(low.len() > 3_800, "4096 clients fall on {} low values", low.len());
        assert!(high.len() > 3_800, "4096 clients fall on {} high values", high.len());
    }

    /// `cargo test --release --lib hash -- --ignored --nocapture`
    #[test]
    #[ignore = "measures"]
    #[allow(clippy::print_stdout)]
    fn nanoseconds_per_five_tuple() {
        use std::hash::BuildHasher;
        use std::hint::black_box;
        use std::time::Instant;

        const LOOKUPS: u32 = 20_000_000;
        let tuples: Vec<FiveTupleWords> =
            (0..1024u64).map(|n| [0, n * 7919, 0, 0xC000_0201, n << 48 | 0x101]).collect();
        let measure = |name: &str, hash: &dyn Fn(&FiveTupleWords) -> u64| {
            let began = Instant::now();
            let mut sum = 0u64;
            for n in 0..LOOKUPS {
                // Each hash waits for the one before, as a look-up waits for its hash.
                let index = (u64::from(n) ^ (sum & 1)) as usize % tuples.len();
                sum = sum.wrapping_add(hash(black_box(&tuples[index])));
            }
            black_box(sum);
            println!("{name:<12} {:.1} ns", began.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS));
        };
        let nh = test_hash();
        measure("NH", &|words| nh.words(words));
        let foldhash = hashbrown::DefaultHashBuilder::default();
        measure("foldhash", &|words| foldhash.hash_one(words));
        let std = std::hash::RandomState::new();
        measure("SipHash-1-3", &|words| std.hash_one(words));
    }

    #[test]
    fn transport_family_and_every_port_count() {
        let base = FiveTuple {
            transport: Transport::Udp,
            client: ClientAddr::new("10.0.0.1:1000".parse().unwrap()),
            server: "10.0.0.2:3478".parse().unwrap(),
        };
        let others = [
            FiveTuple { transport: Transport::Tcp, ..base },
            FiveTuple { transport: Transport::Tls, ..base },
            FiveTuple { client: ClientAddr::new("10.0.0.1:1001".parse().unwrap()), ..base },
            FiveTuple { client: ClientAddr::new("[::a00:1]:1000".parse().unwrap()), ..base },
            FiveTuple { server: "10.0.0.2:443".parse().unwrap(), ..base },
            FiveTuple { server: "[::a00:2]:3478".parse().unwrap(), ..base },
        ];
        for other in others {
            assert_ne!(five_tuple_words(&base), five_tuple_words(&other), "{other:?}");
        }
    }
}
