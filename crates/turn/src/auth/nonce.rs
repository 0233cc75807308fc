//! Stateless nonces: keyed, rotating, bound to the client's address and its realm (RFC 8489 sections 9.2 and 18.1).
//!
//! A nonce is `obMatJos2`, 4 base64 characters of security features, and 16 base64 characters of issue time (32 bits) and
//! MAC (64 bits). The MAC is SipHash-2-4 over issue time, features, holder, realm and offer, under a key of the epoch in which
//! the nonce was issued; an epoch is as long as a nonce lives, so that two keys are in use at any moment.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use siphasher::sip::SipHasher24;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, Zeroizing};

use crate::addr::{ClientAddr, FiveTuple, SocketKind};
use crate::user::RealmId;

/// What every nonce of a server of RFC 8489 starts with (section 9.2).
const COOKIE: &[u8; 9] = b"obMatJos2";
const NONCE_LEN: usize = COOKIE.len() + 4 + 16;
/// How far the clocks of servers that share a key may be apart.
const CLOCKS_SECS: u32 = 5;

/// The security-feature bits a nonce cookie carries (RFC 8489 section 18.1, erratum 6290: bit 0 is the least significant).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Bit 0: PASSWORD-ALGORITHMS was offered with this nonce.
    pub password_algorithms: bool,
    /// Bit 1: USERHASH may be used in place of USERNAME.
    pub username_anonymity: bool,
}

impl Features {
    fn to_wire(self) -> [u8; 3] {
        [0, 0, u8::from(self.password_algorithms) | u8::from(self.username_anonymity) << 1]
    }

    fn from_wire([_, _, low]: [u8; 3]) -> Self {
        Self { password_algorithms: low & 1 != 0, username_anonymity: low & 2 != 0 }
    }
}

/// Who may use a nonce: a client of this address and port. Over connections, which a client of TCP relays has several of, each from a port
/// of its own (RFC 6062 section 4.3), also one from another port, where [`Self::or_another_port`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceHolder {
    client: ClientAddr,
    has_connections: bool,
    any_port: bool,
}

impl NonceHolder {
    /// Whoever sends from a 5-tuple.
    #[inline]
    pub fn of(five_tuple: &FiveTuple) -> Self {
        let has_connections = five_tuple.transport.socket_kind() == SocketKind::Tcp;
        Self { client: five_tuple.client, has_connections, any_port: false }
    }

    /// Takes a nonce of another connection from the same address, too, which the handshake has proved: for requests that somebody else of
    /// that address could send again to no avail. Datagrams stay as they are.
    #[inline]
    #[must_use]
    pub fn or_another_port(self, any_port: bool) -> Self {
        Self { any_port: any_port && self.has_connections, ..self }
    }
}

/// What a MAC covers of a holder.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Covered {
    /// The address and port of datagrams.
    Datagrams = 0,
    /// The address of connections.
    Address = 1,
    /// The address and port of a connection.
    Connection = 2,
}

/// Where a nonce is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonceScope {
    /// In this realm.
    pub realm: RealmId,
    /// With the password algorithms that were offered with it, as a number: RFC 8489 section 9.2.4 has them compared, and after a change
    /// they are others.
    pub offer: u8,
}

/// A nonce as sent: ASCII, at most 48 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Nonce {
    bytes: [u8; 48],
    len: u8,
}

impl Nonce {
    /// The bytes for the NONCE attribute.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// What a nonce in a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceState {
    /// Ours, this holder's, within its lifetime.
    Fresh(Features),
    /// Ours but too old, another client's, or not ours at all.
    Stale,
}

/// The keys nonces are made with; shared by all workers.
///
/// Issuing and checking take no lock and no heap, but for the first call of each epoch, which derives two keys.
pub struct NonceKeys {
    lifetime_secs: u32,
    epoch_keys: ArcSwap<EpochKeys>,
}

impl NonceKeys {
    /// `master` comes from the CSPRNG (or from the fleet's configuration); `lifetime_secs` is how long a nonce is fresh,
    /// at least 1.
    pub fn new(master: [u8; 32], lifetime_secs: u32) -> Self {
        let epoch_keys = ArcSwap::from_pointee(EpochKeys::derive(&Zeroizing::new(master), 0));
        Self { lifetime_secs: lifetime_secs.max(1), epoch_keys }
    }

    /// Makes nonces with another key from now on, and takes those of the earlier one for stale: their clients are given new ones.
    pub fn replace(&self, master: [u8; 32]) {
        self.epoch_keys.store(Arc::new(EpochKeys::derive(&Zeroizing::new(master), 0)));
    }

    /// The key that they are made with, to be shared with other servers.
    pub fn master(&self) -> Zeroizing<[u8; 32]> {
        self.epoch_keys.load().master.clone()
    }

    /// How long a nonce is fresh.
    pub(super) fn lifetime_secs(&self) -> u32 {
        self.lifetime_secs
    }

    /// A fresh nonce for `holder` in a realm.
    pub fn issue(&self, unix_secs: u64, holder: NonceHolder, scope: NonceScope, features: Features) -> Nonce {
        let features = features.to_wire();
        let issued = (unix_secs as u32).to_be_bytes();
        let mac = self.mac((unix_secs, unix_secs), (holder, scope), issued, features);

        let mut body = [0; 12];
        if let Some((time, tag)) = body.split_first_chunk_mut::<4>() {
            *time = issued;
            tag.copy_from_slice(&mac);
        }
        let mut bytes = [0; 48];
        if let Some((cookie, rest)) = bytes.split_first_chunk_mut::<9>()
            && let Some((features_text, body_text)) = rest.split_first_chunk_mut::<4>()
        {
            *cookie = *COOKIE;
            // Both outputs fit: 3 bytes make 4 characters, 12 make 16.
            let _ = STANDARD.encode_slice(features, features_text);
            let _ = STANDARD.encode_slice(body, body_text);
        }
        Nonce { bytes, len: NONCE_LEN as u8 }
    }

    /// Judges a nonce of a request of `holder` in a realm. A nonce is fresh in the second of its issue and in the `lifetime_secs`
    /// seconds after it. Another server of the fleet may have a clock that is a few seconds ahead; what is from farther in the future is
    /// stale.
    pub fn check(&self, unix_secs: u64, holder: NonceHolder, scope: NonceScope, nonce: &[u8]) -> NonceState {
        self.open(unix_secs, (holder, scope), nonce).map_or(NonceState::Stale, NonceState::Fresh)
    }

    fn open(&self, unix_secs: u64, owner: (NonceHolder, NonceScope), nonce: &[u8]) -> Option<Features> {
        let nonce: &[u8; NONCE_LEN] = nonce.try_into().ok()?;
        let (features_text, body_text) = nonce.strip_prefix(COOKIE)?.split_first_chunk::<4>()?;
        let features: [u8; 3] = decode(features_text)?;
        let body: [u8; 12] = decode(body_text)?;
        let (issued, tag) = body.split_first_chunk::<4>()?;
        let tag: &[u8; 8] = tag.try_into().ok()?;

        // The 32 bits wrap in 2106; counting back from now keeps the nonces of that moment fresh.
        let age_secs = (unix_secs as u32).wrapping_sub(u32::from_be_bytes(*issued));
        let issued_secs = match age_secs.wrapping_neg() {
            ahead_secs @ 1..=CLOCKS_SECS => unix_secs.checked_add(u64::from(ahead_secs))?,
            _ if age_secs > self.lifetime_secs => return None,
            _ => unix_secs.checked_sub(u64::from(age_secs))?,
        };
        let expected = self.mac((unix_secs, issued_secs), owner, *issued, features);
        let ((address, port), (address_tag, port_tag)) = (halves(&expected), halves(tag));
        let is_ours = address.ct_eq(address_tag) & (port.ct_eq(port_tag) | Choice::from(u8::from(owner.0.any_port)));
        bool::from(is_ours).then(|| Features::from_wire(features))
    }

    /// For datagrams all of one MAC. For a connection, half of the MAC of its address, and half of that of its port: on a connection a nonce
    /// stands for no address, so that half a MAC shows well enough that it is fresh.
    fn mac(
        &self,
        secs: (u64, u64),
        (holder, scope): (NonceHolder, NonceScope),
        issued: [u8; 4],
        features: [u8; 3],
    ) -> [u8; 8] {
        let mac = |covered| self.mac_over(secs, (holder.client, covered), scope, (issued, features));
        if !holder.has_connections {
            return mac(Covered::Datagrams);
        }
        let (of_address, of_port) = (mac(Covered::Address), mac(Covered::Connection));
        let mut both = of_address;
        both.iter_mut().zip(of_port).skip(4).for_each(|(to, from)| *to = from);
        both
    }

    fn mac_over(
        &self,
        (unix_secs, issued_secs): (u64, u64),
        (client, kind): (ClientAddr, Covered),
        scope: NonceScope,
        (issued, features): ([u8; 4], [u8; 3]),
    ) -> [u8; 8] {
        let addr = client.get();
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let port = match kind {
            Covered::Address => 0,
            Covered::Datagrams | Covered::Connection => addr.port(),
        };
        let mut covered = [0; 31];
        if let Some((to_issued, rest)) = covered.split_first_chunk_mut()
            && let Some((to_features, rest)) = rest.split_first_chunk_mut()
            && let Some((to_ip, rest)) = rest.split_first_chunk_mut()
            && let Some((to_port, rest)) = rest.split_first_chunk_mut()
            && let Some((to_realm, rest)) = rest.split_first_chunk_mut()
            && let [to_offer, to_kind] = rest
        {
            (*to_issued, *to_features, *to_ip, *to_port) = (issued, features, ip, port.to_be_bytes());
            (*to_realm, *to_offer, *to_kind) = (scope.realm.to_bits().to_be_bytes(), scope.offer, kind as u8);
        }
        self.hasher(unix_secs, issued_secs).hash(&covered).to_be_bytes()
    }

    /// The MAC under the key of `issued_secs`, which is at most one lifetime before `unix_secs`, or a little after it.
    pub(super) fn hasher(&self, unix_secs: u64, issued_secs: u64) -> SipHasher24 {
        let lifetime_secs = u64::from(self.lifetime_secs);
        let (epoch, issued_epoch) = (unix_secs / lifetime_secs, issued_secs / lifetime_secs);
        let cached = self.epoch_keys.load();
        if cached.epoch == epoch {
            return cached.hasher(issued_epoch);
        }
        let derived = Arc::new(EpochKeys::derive(&cached.master, epoch));
        drop(cached);
        // Unless the key has been replaced meanwhile.
        self.epoch_keys.rcu(|known| Arc::clone(if known.master == derived.master { &derived } else { known }));
        derived.hasher(issued_epoch)
    }
}

impl fmt::Debug for NonceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NonceKeys").field("lifetime_secs", &self.lifetime_secs).finish_non_exhaustive()
    }
}

/// The keys of an epoch and of those around it.
struct EpochKeys {
    master: Zeroizing<[u8; 32]>,
    epoch: u64,
    current: [u8; 16],
    previous: [u8; 16],
    next: [u8; 16],
}

impl EpochKeys {
    fn derive(master: &Zeroizing<[u8; 32]>, epoch: u64) -> Self {
        let key = |epoch| derive(master, epoch);
        let (current, previous, next) = (key(epoch), key(epoch.wrapping_sub(1)), key(epoch.wrapping_add(1)));
        Self { master: master.clone(), epoch, current, previous, next }
    }

    fn hasher(&self, issued_epoch: u64) -> SipHasher24 {
        SipHasher24::new_with_key(match issued_epoch.cmp(&self.epoch) {
            Ordering::Less => &self.previous,
            Ordering::Equal => &self.current,
            Ordering::Greater => &self.next,
        })
    }
}

impl Drop for EpochKeys {
    fn drop(&mut self) {
        self.current.zeroize();
        self.previous.zeroize();
        self.next.zeroize();
    }
}

fn derive(master: &[u8; 32], epoch: u64) -> [u8; 16] {
    let mut block = Zeroizing::new([0; 64]);
    if let Some(start) = block.first_chunk_mut() {
        *start = *master;
    }
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(b"turnstone nonce epoch");
    mac.update(&epoch.to_be_bytes());
    let full: [u8; 32] = mac.finalize().into_bytes().into();
    let mut key = [0; 16];
    key.iter_mut().zip(full).for_each(|(to, from)| *to = from);
    key
}

fn halves(tag: &[u8; 8]) -> (&[u8], &[u8]) {
    tag.split_at(tag.len() / 2)
}

/// Decodes base64 whose length is exactly that of `N` bytes without padding.
fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let len = STANDARD.decode_slice(text, &mut bytes).ok()?;
    (len == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::addr::{ClientAddr, Transport};
    use proptest::prelude::*;

    use super::*;

    const BOTH: Features = Features { password_algorithms: true, username_anonymity: true };
    const LIFETIME_SECS: u32 = 600;
    const HERE: NonceScope = NonceScope { realm: RealmId::DEFAULT, offer: 0 };

    fn over(transport: Transport, addr: &str) -> NonceHolder {
        let client = ClientAddr::new(addr.parse().unwrap());
        NonceHolder::of(&FiveTuple { transport, client, server: "192.0.2.9:3478".parse().unwrap() })
    }

    fn client(addr: &str) -> NonceHolder {
        over(Transport::Udp, addr)
    }

    fn keys() -> NonceKeys {
        NonceKeys::new([7; 32], LIFETIME_SECS)
    }

    #[test]
    fn a_nonce_of_one_realm_or_offer_is_stale_in_another() {
        let (keys, at) = (keys(), client("192.0.2.1:5000"));
        let of = |realm| NonceScope { realm, ..HERE };
        let realms =
            [HERE, of(RealmId::of("a.example")), of(RealmId::of("b.example")), NonceScope { offer: 1, ..HERE }];
        for issued in realms {
            let nonce = keys.issue(1000, at, issued, BOTH);
            for other in realms {
                let is_fresh = keys.check(1000, at, other, nonce.as_bytes()) == NonceState::Fresh(BOTH);
                assert_eq!(is_fresh, issued == other, "{issued:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_cookie_carries_the_features_with_bit_0_least_significant() {
        let at = client("192.0.2.1:5000");
        for (password_algorithms, username_anonymity, cookie) in [
            (false, false, "obMatJos2AAAA"),
            (true, false, "obMatJos2AAAB"),
            (false, true, "obMatJos2AAAC"),
            (true, true, "obMatJos2AAAD"),
        ] {
            let features = Features { password_algorithms, username_anonymity };
            let nonce = keys().issue(1_735_689_600, at, HERE, features);
            assert_eq!(nonce.as_bytes().len(), NONCE_LEN);
            assert!(nonce.as_bytes().starts_with(cookie.as_bytes()));
            assert_eq!(keys().check(1_735_689_600, at, HERE, nonce.as_bytes()), NonceState::Fresh(features));
        }
    }

    #[test]
    fn nonce_of_another_client_or_port_is_stale() {
        let keys = keys();
        let nonce = keys.issue(1000, client("192.0.2.1:5000"), HERE, BOTH);
        assert_eq!(
            keys.check(1000, client("[::ffff:192.0.2.1]:5000"), HERE, nonce.as_bytes()),
            NonceState::Fresh(BOTH)
        );
        for other in ["192.0.2.1:5001", "192.0.2.2:5000", "[2001:db8::1]:5000"] {
            assert_eq!(keys.check(1000, client(other), HERE, nonce.as_bytes()), NonceState::Stale, "{other}");
        }
    }

    #[test]
    fn a_nonce_of_a_connection_serves_others_of_its_address_where_that_is_allowed_and_one_of_datagrams_never() {
        let keys = keys();
        for transport in Transport::ALL {
            let issued = over(transport, "192.0.2.1:5000");
            let nonce = keys.issue(1000, issued, HERE, BOTH);
            let is_fresh = |holder| keys.check(1000, holder, HERE, nonce.as_bytes()) == NonceState::Fresh(BOTH);
            let is_connection = transport.is_reliable();
            let (same, port) = (over(transport, "192.0.2.1:5000"), over(transport, "192.0.2.1:5001"));
            assert!(is_fresh(same) && is_fresh(same.or_another_port(true)), "{transport}");
            assert!(!is_fresh(port), "{transport}, another port");
            assert_eq!(is_fresh(port.or_another_port(true)), is_connection, "{transport}, another port");
            assert!(!is_fresh(over(transport, "192.0.2.2:5000").or_another_port(true)), "{transport}, another address");
            for other in Transport::ALL.map(|other| (other, over(other, "192.0.2.1:5000"))) {
                let is_alike = other.0.is_reliable() == is_connection;
                assert_eq!(is_fresh(other.1), is_alike, "{transport} {other:?}");
                assert_eq!(is_fresh(other.1.or_another_port(true)), is_alike, "{transport} {other:?}");
            }
            let other = NonceScope { offer: 1, ..HERE };
            let elsewhere = keys.check(1000, issued.or_another_port(true), other, nonce.as_bytes());
            assert_eq!(elsewhere, NonceState::Stale, "{transport}, another offer");
            assert_eq!(keys.check(1601, issued.or_another_port(true), HERE, nonce.as_bytes()), NonceState::Stale);
        }
    }

    #[test]
    fn nonce_of_another_master_key_is_stale() {
        let at = client("192.0.2.1:5000");
        let nonce = NonceKeys::new([8; 32], LIFETIME_SECS).issue(1000, at, HERE, BOTH);
        assert_eq!(keys().check(1000, at, HERE, nonce.as_bytes()), NonceState::Stale);
    }

    #[test]
    fn nonce_of_another_server_of_the_fleet_is_fresh() {
        let at = client("192.0.2.1:5000");
        let nonce = keys().issue(1_735_689_600, at, HERE, BOTH);
        assert_eq!(keys().check(1_735_689_700, at, HERE, nonce.as_bytes()), NonceState::Fresh(BOTH));
    }

    #[test]
    fn nonce_of_a_clock_that_is_a_little_ahead_is_fresh_and_one_from_the_future_stale() {
        let at = client("192.0.2.1:5000");
        // The second case is over the end of an epoch.
        for issued in [1_000_000, 600 * 1700] {
            let nonce = keys().issue(issued, at, HERE, BOTH);
            for (ahead, is_fresh) in
                [(0, true), (1, true), (u64::from(CLOCKS_SECS), true), (u64::from(CLOCKS_SECS) + 1, false)]
            {
                let state = if is_fresh { NonceState::Fresh(BOTH) } else { NonceState::Stale };
                assert_eq!(keys().check(issued - ahead, at, HERE, nonce.as_bytes()), state, "{issued} {ahead}");
            }
        }
    }

    #[test]
    fn after_a_change_of_the_key_nonces_are_those_of_the_new_one_alone() {
        let (keys, at) = (keys(), client("192.0.2.1:5000"));
        let before = keys.issue(1_735_689_600, at, HERE, BOTH);
        keys.replace([9; 32]);
        assert_eq!(keys.check(1_735_689_601, at, HERE, before.as_bytes()), NonceState::Stale);
        let after = keys.issue(1_735_689_602, at, HERE, BOTH);
        let other = NonceKeys::new([9; 32], LIFETIME_SECS);
        assert_eq!(other.check(1_735_689_603, at, HERE, after.as_bytes()), NonceState::Fresh(BOTH));
        assert_eq!(*keys.master(), [9; 32]);
    }

    #[test]
    fn nonce_is_fresh_across_the_wrap_of_its_32_bits() {
        let at = client("192.0.2.1:5000");
        let wrap = 1 << 32;
        let nonce = keys().issue(wrap - 10, at, HERE, BOTH);
        assert_eq!(keys().check(wrap + 10, at, HERE, nonce.as_bytes()), NonceState::Fresh(BOTH));
        assert_eq!(keys().check(2 * wrap - 10, at, HERE, nonce.as_bytes()), NonceState::Stale);
    }

    #[test]
    fn nothing_that_is_not_a_nonce_is_fresh() {
        let at = client("192.0.2.1:5000");
        let keys = keys();
        let nonce = keys.issue(1000, at, HERE, BOTH);
        let text = nonce.as_bytes();
        for other in [&b""[..], b"obMatJos2", &text[..NONCE_LEN - 1], &[text, b"A"].concat(), &[0xFF; NONCE_LEN]] {
            assert_eq!(keys.check(1000, at, HERE, other), NonceState::Stale);
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", keys()), "NonceKeys { lifetime_secs: 600, .. }");
    }

    prop_compose! {
        fn any_client()(stream: bool, v6: bool, ip: u128, port: u16) -> NonceHolder {
            let ip = if v6 { IpAddr::V6(ip.into()) } else { IpAddr::V4((ip as u32).into()) };
            let transport = if stream { Transport::Tls } else { Transport::Udp };
            let (client, server) = (SocketAddr::new(ip, port), SocketAddr::new(ip, 3478));
            NonceHolder::of(&FiveTuple { transport, client: ClientAddr::new(client), server })
        }
    }

    proptest! {
        #[test]
        fn nonce_is_fresh_for_its_lifetime_and_not_longer(
            master: [u8; 32],
            at in any_client(),
            lifetime_secs in 1_u32..100_000,
            issued in 0_u64..1 << 40,
            age in 0_u64..200_000,
        ) {
            let keys = NonceKeys::new(master, lifetime_secs);
            let nonce = keys.issue(issued, at, HERE, BOTH);
            let fresh = age <= u64::from(lifetime_secs);
            let expected = if fresh { NonceState::Fresh(BOTH) } else { NonceState::Stale };
            prop_assert_eq!(keys.check(issued + age, at, HERE, nonce.as_bytes()), expected);
            // The cached epoch is another now; what was issued before must not suffer from it.
            let _ = keys.issue(issued + 10 * u64::from(lifetime_secs), at, HERE, BOTH);
            prop_assert_eq!(keys.check(issued + age, at, HERE, nonce.as_bytes()), expected);
        }

        #[test]
        fn any_changed_byte_makes_a_nonce_stale(at in any_client(), index in 0..NONCE_LEN, to: u8) {
            let keys = keys();
            let nonce = keys.issue(1_735_689_600, at, HERE, BOTH);
            let mut changed = nonce.as_bytes().to_vec();
            prop_assume!(changed[index] != to);
            changed[index] = to;
            prop_assert_eq!(keys.check(1_735_689_600, at, HERE, &changed), NonceState::Stale);
        }

        #[test]
        fn another_client_never_shares_a_nonce(one in any_client(), other in any_client()) {
            prop_assume!(one != other);
            let keys = keys();
            let nonce = keys.issue(1_735_689_600, one, HERE, BOTH);
            prop_assert_eq!(keys.check(1_735_689_600, other, HERE, nonce.as_bytes()), NonceState::Stale);
        }
    }
}
