//! An allocation's channel bindings (RFC 8656 section 12).

use crate::addr::PeerAddr;

use super::hash::AddressHash;
use super::index::Index;

/// The channel numbers of RFC 8656 section 12.
pub(super) const NUMBERS: std::ops::RangeInclusive<u16> = 0x4000..=0x4FFF;
/// The channel numbers of RFC 5766 section 11, which older clients choose from.
pub(super) const RFC5766_NUMBERS: std::ops::RangeInclusive<u16> = 0x4000..=0x7FFE;

/// One channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) number: u16,
    /// The peer is one of our own relayed addresses, as judged when it was bound or at the last reload.
    pub(super) own_relay: bool,
    /// On a shared port, its endpoint is or was another allocation's: whether it may be sent to is asked each time.
    pub(super) is_guest: bool,
    pub(super) peer: PeerAddr,
    pub(super) until_micros: u64,
}

/// The number or the peer is bound otherwise.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict;

/// The channel bindings of one allocation, both families together.
#[derive(Default)]
pub(super) struct Channels {
    entries: Vec<Channel>,
    by_number: Index,
    by_peer: Index,
    last: u32,
}

impl Channels {
    /// The binding of a number, if it has not expired.
    #[inline]
    pub(super) fn by_number(&mut self, hash: &AddressHash, number: u16, now_micros: u64) -> Option<&Channel> {
        let found = match self.entries.get(self.last as usize) {
            Some(entry) if entry.number == number => entry,
            _ => {
                let position = self.position_of_number(hash, number)?;
                self.last = position as u32;
                self.entries.get(position)?
            }
        };
        (found.until_micros > now_micros).then_some(found)
    }

    /// The binding of a peer, if it has not expired.
    #[inline]
    pub(super) fn by_peer(&mut self, hash: &AddressHash, peer: PeerAddr, now_micros: u64) -> Option<&Channel> {
        let found = match self.entries.get(self.last as usize) {
            Some(entry) if entry.peer == peer => entry,
            _ => {
                let position = self.position_of_peer(hash, peer)?;
                self.last = position as u32;
                self.entries.get(position)?
            }
        };
        (found.until_micros > now_micros).then_some(found)
    }

    /// Whether binding `number` to `peer` would be new; expired bindings are as good as none.
    ///
    /// # Errors
    /// [`Conflict`] when the number is bound to another peer, or the peer to another number (RFC 8656 section 12.2).
    pub(super) fn check(
        &mut self,
        hash: &AddressHash,
        number: u16,
        peer: PeerAddr,
        now: u64,
    ) -> Result<bool, Conflict> {
        let numbered = self.by_number(hash, number, now).map(|entry| entry.peer);
        let peered = self.by_peer(hash, peer, now).map(|entry| entry.number);
        match (numbered, peered) {
            (None, None) => Ok(true),
            (Some(bound), Some(to)) if bound == peer && to == number => Ok(false),
            _ => Err(Conflict),
        }
    }

    /// Adds or refreshes a binding. [`Self::check`] has passed and what has expired has been swept.
    pub(super) fn bind(&mut self, hash: &AddressHash, channel: Channel) {
        if let Some(entry) =
            self.position_of_number(hash, channel.number).and_then(|position| self.entries.get_mut(position))
        {
            entry.until_micros = channel.until_micros;
            entry.own_relay = channel.own_relay;
            entry.is_guest = channel.is_guest;
            return;
        }
        if self.entries.is_empty() {
            self.entries.reserve_exact(1);
        }
        self.entries.push(channel);
        let entries = &self.entries;
        let len = entries.len();
        self.by_number.pushed(len, |at| entries.get(at).map_or(0, |entry| hash.number(entry.number)));
        self.by_peer.pushed(len, |at| entries.get(at).map_or(0, |entry| hash.peer(entry.peer)));
    }

    /// Keeps the bindings for which `keep` holds; it may change `own_relay`, but neither number nor peer.
    pub(super) fn retain(&mut self, hash: &AddressHash, keep: impl FnMut(&mut Channel) -> bool) {
        let before = self.entries.len();
        self.entries.retain_mut(keep);
        if self.entries.len() != before {
            self.last = 0;
            self.entries.shrink_to(self.entries.len());
            self.rebuild(hash);
        }
    }

    /// Has a peer's endpoint looked up each time it is sent to.
    pub(super) fn make_guest(&mut self, hash: &AddressHash, peer: PeerAddr) {
        if let Some(entry) = self.position_of_peer(hash, peer).and_then(|position| self.entries.get_mut(position)) {
            entry.is_guest = true;
        }
    }

    /// Bindings that cannot be looked up until [`Self::moved`] has indexed them.
    pub(super) fn unindexed(entries: Vec<Channel>) -> Self {
        Self { entries, ..Self::default() }
    }

    /// The bindings of an allocation that has moved here, where addresses hash otherwise.
    pub(super) fn moved(self, hash: &AddressHash) -> Self {
        let mut moved = Self { entries: self.entries, ..Self::default() };
        moved.rebuild(hash);
        moved
    }

    /// All of them, expired ones included until they are swept.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.entries.iter()
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When the first of them expires.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.entries.iter().map(|entry| entry.until_micros).min()
    }

    fn rebuild(&mut self, hash: &AddressHash) {
        let entries = &self.entries;
        self.by_number.rebuild(entries.len(), |at| entries.get(at).map_or(0, |entry| hash.number(entry.number)));
        self.by_peer.rebuild(entries.len(), |at| entries.get(at).map_or(0, |entry| hash.peer(entry.peer)));
    }

    #[inline]
    fn position_of_number(&self, hash: &AddressHash, number: u16) -> Option<usize> {
        if self.by_number.is_built() {
            let is_it = |at| self.entries.get(at).is_some_and(|entry: &Channel| entry.number == number);
            return self.by_number.find(hash.number(number), is_it);
        }
        self.entries.iter().position(|entry| entry.number == number)
    }

    #[inline]
    fn position_of_peer(&self, hash: &AddressHash, peer: PeerAddr) -> Option<usize> {
        if self.by_peer.is_built() {
            let is_it = |at| self.entries.get(at).is_some_and(|entry: &Channel| entry.peer == peer);
            return self.by_peer.find(hash.peer(peer), is_it);
        }
        self.entries.iter().position(|entry| entry.peer == peer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::test_hash;
    use super::*;

    fn channel(n: u16) -> Channel {
        let peer = PeerAddr::new(([8, 8, 8, 8], 1000 + n).into()).unwrap();
        Channel { number: 0x4000 + n, own_relay: false, is_guest: false, peer, until_micros: 10 + u64::from(n) }
    }

    #[test]
    fn many_channels_are_found_by_number_and_by_peer_and_conflicts_are_seen() {
        let hash = test_hash();
        let mut channels = Channels::default();
        for n in 0..200 {
            let wanted = channel(n);
            assert_eq!(channels.check(&hash, wanted.number, wanted.peer, 0), Ok(true));
            channels.bind(&hash, wanted);
        }
        for n in 0..200 {
            let wanted = channel(n);
            assert_eq!(channels.by_number(&hash, wanted.number, 0), Some(&wanted));
            assert_eq!(channels.by_peer(&hash, wanted.peer, 0), Some(&wanted));
            assert_eq!(channels.check(&hash, wanted.number, wanted.peer, 0), Ok(false));
            assert_eq!(channels.check(&hash, wanted.number, channel(300).peer, 0), Err(Conflict));
            assert_eq!(channels.check(&hash, channel(300).number, wanted.peer, 0), Err(Conflict));
            assert_eq!(channels.by_number(&hash, wanted.number, 10 + u64::from(n)), None);
        }
        channels.retain(&hash, |entry| entry.until_micros > 205);
        assert_eq!(channels.len(), 4);
        assert_eq!(channels.by_number(&hash, channel(199).number, 0), Some(&channel(199)));
        assert_eq!(channels.by_number(&hash, channel(1).number, 0), None);
    }
}
