//! The tables of shared ports. What they have of a relay goes with it; all of it is bounded by relay.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;

use hashbrown::HashTable;

use super::ice::Names;
use crate::addr::PeerAddr;
use crate::hash::AddressHash;
use crate::relays::{OwnSender, RelayId};
use turnstone_stun::TransactionId;

/// Allocations with a permission for one address that are told apart: beyond one, an early datagram is nobody's.
const HOLDERS: usize = 4;
/// Checks of one relay whose answers are awaited, and pairs of names that it goes by.
const ANSWERS: usize = 16;
const NAMES: usize = 4;
/// Own relays whose data is one relay's, at most; and as many of them as have not been found by ICE.
const LINKS_MAX: usize = 64;
const GUESSED_LINKS_MAX: usize = 32;
/// Tables smaller than this are not worth making smaller.
const SHRINK_MIN: usize = 1024;

/// Whose the peers of shared ports are. A port goes by the relay id of its socket, an allocation's share of it by another one.
#[derive(Default)]
pub(crate) struct Tables {
    endpoints: HashTable<Endpoint>,
    addresses: HashTable<Permitted>,
    clues: HashTable<Clue>,
    secret: RandomState,
    /// By the index of an allocation's relay.
    claims: Vec<Option<Box<Claims>>>,
}

/// Who sends to a port: a peer, and if that is a relay of ours, which one. Many relays of ours may have the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) peer: PeerAddr,
    pub(super) own: Option<OwnSender>,
}

/// A source at one of our ports, and whose it is.
#[derive(Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) port: RelayId,
    pub(super) source: Source,
    pub(super) relay: RelayId,
    /// When it was sent to by an indication, named by a request, or heard of last.
    pub(super) used_micros: u64,
    /// When it was heard of last, if it has answered this relay.
    pub(super) heard_micros: Option<u64>,
}

/// A peer's address at one of our ports, and who has a permission for it.
#[derive(Clone, Copy)]
pub(super) struct Permitted {
    port: RelayId,
    ip: IpAddr,
    /// Those who are known, each with the end of its permission.
    pub(super) holders: [Option<(RelayId, u64)>; HOLDERS],
    /// Until when there are more than are known.
    pub(super) more_until_micros: u64,
    /// Relays that have it in their claims.
    claims: u32,
}

/// Something that a message may have in it, and whose the message then is.
struct Clue {
    key: u64,
    relay: RelayId,
}

/// What one relay has in the tables.
pub(super) struct Claims {
    relay: RelayId,
    pub(super) port: RelayId,
    pub(super) peers: Vec<PeerAddr>,
    pub(super) ips: Vec<IpAddr>,
    /// Relays of ours whose data is this one's.
    links: Vec<Source>,
    answers: Ring<ANSWERS>,
    names: Ring<NAMES>,
    pub(super) full_until_micros: u64,
}

/// The last few keys of clues.
struct Ring<const N: usize> {
    keys: [u64; N],
    next: usize,
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self { keys: [0; N], next: 0 }
    }
}

impl<const N: usize> Ring<N> {
    /// Puts a key in; returns the one that gives way to it.
    fn put(&mut self, key: u64) -> u64 {
        let place = self.keys.get_mut(self.next);
        self.next = (self.next + 1) % N;
        place.map_or(0, |place| std::mem::replace(place, key))
    }
}

impl Tables {
    pub(super) fn add(&mut self, relay: RelayId, port: RelayId) {
        let index = relay.index as usize;
        if index >= self.claims.len() {
            self.claims.resize_with(index + 1, || None);
        }
        if let Some(claims) = self.claims.get_mut(index) {
            *claims = Some(Box::new(Claims {
                relay,
                port,
                peers: Vec::new(),
                ips: Vec::new(),
                links: Vec::new(),
                answers: Ring::default(),
                names: Ring::default(),
                full_until_micros: 0,
            }));
        }
    }

    pub(super) fn claims_of(&mut self, relay: RelayId) -> Option<&mut Claims> {
        let claims = self.claims.get_mut(relay.index as usize)?.as_deref_mut();
        claims.filter(|claims| claims.relay == relay)
    }

    pub(super) fn endpoint_mut(&mut self, hash: &AddressHash, port: RelayId, source: Source) -> Option<&mut Endpoint> {
        self.endpoints
            .find_mut(hash.source_at(port, source.peer, source.own), |of| of.port == port && of.source == source)
    }

    /// Makes an endpoint a relay's.
    pub(super) fn set_owner(&mut self, hash: &AddressHash, endpoint: Endpoint) {
        let Endpoint { port, source, relay, .. } = endpoint;
        match self.endpoint_mut(hash, port, source) {
            Some(known) => *known = endpoint,
            None => {
                let hash_of = |of: &Endpoint| hash.source_at(of.port, of.source.peer, of.source.own);
                self.endpoints.insert_unique(hash_of(&endpoint), endpoint, hash_of);
            }
        }
        if let Some(claims) = self.claims_of(relay).filter(|claims| !claims.peers.contains(&source.peer)) {
            claims.peers.push(source.peer);
        }
    }

    /// Makes the data of a relay of ours another one's: what ICE has found replaces anything, what is guessed nothing.
    pub(super) fn link(&mut self, hash: &AddressHash, link: Endpoint, is_guessed: bool) {
        let Endpoint { port, source, relay, .. } = link;
        let room = if is_guessed { GUESSED_LINKS_MAX } else { LINKS_MAX };
        let Some(claims) = self.claims_of(relay) else { return };
        if !claims.links.contains(&source) {
            if claims.links.len() >= room {
                if is_guessed {
                    return;
                }
                let oldest = claims.links.remove(0);
                self.forget_endpoint(hash, port, oldest, relay);
            }
            if let Some(claims) = self.claims_of(relay) {
                claims.links.push(source);
            }
        }
        match self.endpoint_mut(hash, port, source).map(|known| std::mem::replace(known, link)) {
            Some(before) if before.relay != relay => {
                if let Some(claims) = self.claims_of(before.relay) {
                    claims.links.retain(|of| *of != source);
                }
            }
            Some(_) => {}
            None => {
                let hash_of = |of: &Endpoint| hash.source_at(of.port, of.source.peer, of.source.own);
                self.endpoints.insert_unique(hash_of(&link), link, hash_of);
            }
        }
        // What other relays of that address send is not this one's.
        self.forget_endpoint(hash, port, Source { own: None, ..source }, relay);
    }

    /// Whether a relay of ours at this address has been found for a relay.
    pub(super) fn has_link(&mut self, relay: RelayId, peer: PeerAddr) -> bool {
        self.claims_of(relay).is_some_and(|claims| claims.links.iter().any(|source| source.peer == peer))
    }

    /// Whether a relay's client speaks ICE.
    pub(super) fn has_names(&mut self, relay: RelayId) -> bool {
        self.claims_of(relay).is_some_and(|claims| claims.names.keys != [0; NAMES])
    }

    /// Takes note of a check that a relay sends: its answer is the relay's, and so are checks that have the names turned round.
    pub(super) fn note_check(
        &mut self,
        (relay, peer): (RelayId, PeerAddr),
        id: TransactionId,
        names: Option<Names<'_>>,
    ) {
        let Some(port) = self.claims_of(relay).map(|claims| claims.port) else { return };
        let key = self.answer_key(port, peer, id);
        if self.add_clue(key, relay)
            && let Some(claims) = self.claims_of(relay)
        {
            let oldest = claims.answers.put(key);
            self.forget_clue(oldest, relay);
        }
        let Some(names) = names else { return };
        let key = self.name_key(port, names.turned());
        if self.add_clue(key, relay)
            && let Some(claims) = self.claims_of(relay)
        {
            let oldest = claims.names.put(key);
            self.forget_clue(oldest, relay);
        }
    }

    /// Who has asked for an answer.
    pub(super) fn asker(&self, port: RelayId, peer: PeerAddr, id: TransactionId) -> Option<RelayId> {
        self.whose(self.answer_key(port, peer, id))
    }

    /// Whom a check is for.
    pub(super) fn named(&self, port: RelayId, names: Names<'_>) -> Option<RelayId> {
        self.whose(self.name_key(port, names))
    }

    fn answer_key(&self, port: RelayId, peer: PeerAddr, id: TransactionId) -> u64 {
        self.key((0_u8, port, peer, id.0))
    }

    fn name_key(&self, port: RelayId, names: Names<'_>) -> u64 {
        self.key((1_u8, port, names))
    }

    /// 0 is no key.
    fn key(&self, of: impl Hash) -> u64 {
        self.secret.hash_one(of).max(1)
    }

    fn whose(&self, key: u64) -> Option<RelayId> {
        self.clues.find(key, |clue| clue.key == key).map(|clue| clue.relay)
    }

    /// Adds a clue; whether it is new. One that is another relay's stays that.
    fn add_clue(&mut self, key: u64, relay: RelayId) -> bool {
        let is_new = self.whose(key).is_none();
        if is_new {
            self.clues.insert_unique(key, Clue { key, relay }, |clue| clue.key);
        }
        is_new
    }

    fn forget_clue(&mut self, key: u64, relay: RelayId) {
        if let Ok(entry) = self.clues.find_entry(key, |clue| clue.key == key && clue.relay == relay) {
            entry.remove();
        }
    }

    pub(super) fn permitted(&mut self, hash: &AddressHash, port: RelayId, ip: IpAddr) -> Option<&mut Permitted> {
        self.addresses.find_mut(hash.ip_at(port, ip), |of| of.port == port && of.ip == ip)
    }

    pub(super) fn permit(
        &mut self,
        hash: &AddressHash,
        now_micros: u64,
        relay: RelayId,
        (ip, until_micros): (IpAddr, u64),
    ) {
        let Some(claims) = self.claims_of(relay) else { return };
        let (port, is_new) = (claims.port, !claims.ips.contains(&ip));
        if is_new {
            claims.ips.push(ip);
        }
        if self.permitted(hash, port, ip).is_none() {
            let new = Permitted { port, ip, holders: [None; HOLDERS], more_until_micros: 0, claims: 0 };
            self.addresses.insert_unique(hash.ip_at(port, ip), new, |of| hash.ip_at(of.port, of.ip));
        }
        let Some(permitted) = self.permitted(hash, port, ip) else { return };
        permitted.claims += u32::from(is_new);
        let holders = &mut permitted.holders;
        let own = holders.iter().position(|holder| holder.is_some_and(|(known, _)| known == relay));
        let free = || holders.iter().position(|holder| holder.is_none_or(|(_, until)| until <= now_micros));
        match own.or_else(free).and_then(|place| holders.get_mut(place)) {
            Some(place) => *place = Some((relay, until_micros)),
            None => permitted.more_until_micros = permitted.more_until_micros.max(until_micros),
        }
    }

    pub(crate) fn forget(&mut self, hash: &AddressHash, relay: RelayId) {
        let Some(place) = self.claims.get_mut(relay.index as usize) else { return };
        let Some(claims) = place.take_if(|claims| claims.relay == relay) else { return };
        for peer in &claims.peers {
            self.forget_endpoint(hash, claims.port, Source { peer: *peer, own: None }, relay);
        }
        for link in &claims.links {
            self.forget_endpoint(hash, claims.port, *link, relay);
        }
        for ip in &claims.ips {
            self.forget_address_at(hash, claims.port, relay, *ip);
        }
        for key in claims.answers.keys.into_iter().chain(claims.names.keys) {
            self.forget_clue(key, relay);
        }
        if self.endpoints.capacity() > SHRINK_MIN && self.endpoints.len() < self.endpoints.capacity() / 8 {
            self.endpoints.shrink_to_fit(|of| hash.source_at(of.port, of.source.peer, of.source.own));
        }
        if self.addresses.capacity() > SHRINK_MIN && self.addresses.len() < self.addresses.capacity() / 8 {
            self.addresses.shrink_to_fit(|of| hash.ip_at(of.port, of.ip));
        }
        if self.clues.capacity() > SHRINK_MIN && self.clues.len() < self.clues.capacity() / 8 {
            self.clues.shrink_to_fit(|clue| clue.key);
        }
    }

    pub(super) fn forget_endpoint(&mut self, hash: &AddressHash, port: RelayId, source: Source, relay: RelayId) {
        let is_it = |of: &Endpoint| of.port == port && of.source == source && of.relay == relay;
        if let Ok(entry) = self.endpoints.find_entry(hash.source_at(port, source.peer, source.own), is_it) {
            entry.remove();
        }
    }

    pub(super) fn forget_address(&mut self, hash: &AddressHash, relay: RelayId, ip: IpAddr) {
        if let Some(port) = self.claims_of(relay).map(|claims| claims.port) {
            self.forget_address_at(hash, port, relay, ip);
        }
    }

    fn forget_address_at(&mut self, hash: &AddressHash, port: RelayId, relay: RelayId, ip: IpAddr) {
        let is_it = |of: &Permitted| of.port == port && of.ip == ip;
        let Ok(mut entry) = self.addresses.find_entry(hash.ip_at(port, ip), is_it) else { return };
        let permitted = entry.get_mut();
        permitted.claims = permitted.claims.saturating_sub(1);
        for holder in &mut permitted.holders {
            holder.take_if(|(known, _)| *known == relay);
        }
        if permitted.claims == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::test_hash;

    fn id(index: u32) -> RelayId {
        RelayId { index, generation: index + 7 }
    }

    fn peer(n: u32) -> PeerAddr {
        PeerAddr::new(([8, 8, (n >> 8) as u8, n as u8], 4000).into()).unwrap()
    }

    fn endpoint(port: RelayId, source: Source, relay: RelayId) -> Endpoint {
        Endpoint { port, source, relay, used_micros: 0, heard_micros: None }
    }

    #[test]
    fn what_a_relay_had_is_gone_with_it_and_memory_with_that() {
        let (hash, mut tables) = (test_hash(), Tables::default());
        for n in 0..5000 {
            let (relay, port) = (id(n + 2), id(n % 2));
            tables.add(relay, port);
            tables.set_owner(&hash, endpoint(port, Source { peer: peer(n), own: None }, relay));
            tables.permit(&hash, 0, relay, (peer(n).ip(), 10));
            tables.permit(&hash, 0, relay, (peer(1).ip(), 10));
            let names = n.to_be_bytes();
            let id = TransactionId([n as u8; 12]);
            tables.note_check((relay, peer(n)), id, Some(Names { to: &names, from: b"x" }));
            assert_eq!(tables.asker(port, peer(n), id), Some(relay));
            assert_eq!(tables.named(port, Names { to: b"x", from: &names }), Some(relay));
        }
        assert_eq!((tables.endpoints.len(), tables.addresses.len(), tables.clues.len()), (5000, 5001, 10_000));
        assert_eq!(tables.permitted(&hash, id(0), peer(1).ip()).unwrap().claims, 2500);
        // An earlier use of the same slot is not meant.
        tables.forget(&hash, RelayId { index: 2, generation: 0 });
        assert_eq!(tables.endpoints.len(), 5000);
        (0..5000).for_each(|n| tables.forget(&hash, id(n + 2)));
        assert!(tables.endpoints.is_empty() && tables.addresses.is_empty() && tables.clues.is_empty());
        assert!(tables.endpoints.capacity() <= SHRINK_MIN && tables.addresses.capacity() <= SHRINK_MIN);
        assert!(tables.clues.capacity() <= SHRINK_MIN);
    }

    #[test]
    fn a_relay_awaits_a_few_answers_goes_by_a_few_names_and_has_a_few_links() {
        let (hash, mut tables) = (test_hash(), Tables::default());
        let (port, relay) = (id(0), id(1));
        tables.add(relay, port);
        for n in 0..1000_u32 {
            let check = TransactionId([n.to_be_bytes(); 3].concat().try_into().unwrap());
            tables.note_check((relay, peer(n)), check, Some(Names { to: &n.to_be_bytes(), from: b"x" }));
            let own = Some(OwnSender { worker: None, relay: id(100 + n) });
            tables.link(&hash, endpoint(port, Source { peer: peer(1), own }, relay), n % 2 == 0);
        }
        assert_eq!((tables.clues.len(), tables.endpoints.len()), (ANSWERS + NAMES, LINKS_MAX));
        tables.forget(&hash, relay);
        assert!(tables.endpoints.is_empty() && tables.clues.is_empty());
    }

    #[test]
    fn links_that_are_guessed_take_the_place_of_none_that_ice_has_found() {
        let (hash, mut tables) = (test_hash(), Tables::default());
        let (port, relay) = (id(0), id(1));
        tables.add(relay, port);
        let source = |n| Source { peer: peer(1), own: Some(OwnSender { worker: None, relay: id(n) }) };
        tables.link(&hash, endpoint(port, source(100), relay), false);
        for n in 200..300 {
            tables.link(&hash, endpoint(port, source(n), relay), true);
        }
        assert_eq!(tables.endpoints.len(), GUESSED_LINKS_MAX);
        assert_eq!(tables.endpoint_mut(&hash, port, source(100)).unwrap().relay, relay);
    }
}
