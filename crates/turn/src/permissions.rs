//! An allocation's permissions (RFC 8656 section 9).

use std::net::IpAddr;

use super::hash::AddressHash;
use super::index::Index;

/// One permission.
struct Permission {
    ip: IpAddr,
    until_micros: u64,
}

/// The permissions of one allocation, both families together.
#[derive(Default)]
pub(super) struct Permissions {
    entries: Vec<Permission>,
    index: Index,
    last: u32,
}

impl Permissions {
    /// Whether a peer of this IP address may send to the client now.
    #[inline]
    pub(super) fn permits(&mut self, hash: &AddressHash, ip: IpAddr, now_micros: u64) -> bool {
        if let Some(entry) = self.entries.get(self.last as usize)
            && entry.ip == ip
        {
            return entry.until_micros > now_micros;
        }
        let Some(position) = self.position(hash, ip) else { return false };
        self.last = position as u32;
        self.entries.get(position).is_some_and(|entry| entry.until_micros > now_micros)
    }

    /// Installs a permission or refreshes it. The caller has made sure of room by [`Self::has_room_for`].
    pub(super) fn install(&mut self, hash: &AddressHash, ip: IpAddr, until_micros: u64) {
        if let Some(entry) = self.position(hash, ip).and_then(|position| self.entries.get_mut(position)) {
            entry.until_micros = until_micros;
            return;
        }
        if self.entries.is_empty() {
            self.entries.reserve_exact(1);
        }
        self.entries.push(Permission { ip, until_micros });
        let entries = &self.entries;
        self.index.pushed(entries.len(), |at| entries.get(at).map_or(0, |entry| hash.ip(entry.ip)));
    }

    /// Whether these distinct addresses can all have a permission within `limit`. Forgets what has expired, if it must.
    pub(super) fn has_room_for(&mut self, hash: &AddressHash, ips: &[IpAddr], now_micros: u64, limit: usize) -> bool {
        if self.entries.len().saturating_add(ips.len()) <= limit {
            return true;
        }
        self.retain(hash, |_, until_micros| until_micros > now_micros);
        let new = ips.iter().filter(|ip| self.position(hash, **ip).is_none()).count();
        self.entries.len().saturating_add(new) <= limit
    }

    /// Keeps the permissions for which `keep(ip, until)` holds.
    pub(super) fn retain(&mut self, hash: &AddressHash, mut keep: impl FnMut(IpAddr, u64) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|entry| keep(entry.ip, entry.until_micros));
        if self.entries.len() != before {
            self.last = 0;
            self.entries.shrink_to(self.entries.len());
            self.rebuild(hash);
        }
    }

    /// Permissions that cannot be looked up until [`Self::moved`] has indexed them.
    pub(super) fn unindexed(permissions: Vec<(IpAddr, u64)>) -> Self {
        let entries = permissions.into_iter().map(|(ip, until_micros)| Permission { ip, until_micros }).collect();
        Self { entries, ..Self::default() }
    }

    /// The permissions of an allocation that has moved here, where addresses hash otherwise.
    pub(super) fn moved(self, hash: &AddressHash) -> Self {
        let mut moved = Self { entries: self.entries, ..Self::default() };
        moved.rebuild(hash);
        moved
    }

    /// All of them and until when, expired ones included until they are swept.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, u64)> {
        self.entries.iter().map(|entry| (entry.ip, entry.until_micros))
    }

    /// When the first of them expires.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.entries.iter().map(|entry| entry.until_micros).min()
    }

    /// How many are held, expired ones included until they are swept.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn rebuild(&mut self, hash: &AddressHash) {
        let entries = &self.entries;
        self.index.rebuild(entries.len(), |at| entries.get(at).map_or(0, |entry| hash.ip(entry.ip)));
    }

    #[inline]
    fn position(&self, hash: &AddressHash, ip: IpAddr) -> Option<usize> {
        if self.index.is_built() {
            return self.index.find(hash.ip(ip), |at| self.entries.get(at).is_some_and(|entry| entry.ip == ip));
        }
        self.entries.iter().position(|entry| entry.ip == ip)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::test_hash;
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4((0x0808_0000 + n).into())
    }

    #[test]
    fn a_thousand_permissions_are_found_and_swept() {
        let hash = test_hash();
        let mut permissions = Permissions::default();
        for n in 0..1000 {
            permissions.install(&hash, ip(n), u64::from(n) + 1);
        }
        for n in 0..1000 {
            assert!(permissions.permits(&hash, ip(n), u64::from(n)));
            assert!(!permissions.permits(&hash, ip(n), u64::from(n) + 1));
        }
        assert!(!permissions.permits(&hash, ip(1000), 0));
        assert!(!permissions.has_room_for(&hash, &[ip(1000)], 0, 1000));
        assert!(permissions.has_room_for(&hash, &[ip(999)], 0, 1000));
        assert!(permissions.has_room_for(&hash, &[ip(1000)], 995, 1000));
        assert_eq!(permissions.len(), 5);
        assert!(!permissions.index.is_built());
        assert!(permissions.permits(&hash, ip(999), 995));
        assert_eq!(permissions.next_expiry(), Some(996));
    }
}
