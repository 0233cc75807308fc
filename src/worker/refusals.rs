//! The last refusals of one worker, for whoever asks why a client could not get through.

use crate::turn::Refusal;

/// How many are kept.
pub(crate) const KEPT: usize = 512;

/// The last refusals; the oldest make room for new ones.
pub(super) struct RefusalRing {
    entries: Vec<Refusal>,
    oldest: usize,
}

impl RefusalRing {
    /// An empty ring with all the memory it will have: what it keeps has not always been authenticated.
    pub(super) fn new() -> Self {
        Self { entries: Vec::with_capacity(KEPT), oldest: 0 }
    }

    pub(super) fn push(&mut self, refusal: Refusal) {
        if self.entries.len() < KEPT {
            self.entries.push(refusal);
        } else if let Some(entry) = self.entries.get_mut(self.oldest) {
            *entry = refusal;
            self.oldest = (self.oldest + 1) % KEPT;
        }
    }

    pub(super) fn oldest_first(&self) -> Vec<Refusal> {
        let (newer, older) = self.entries.split_at(self.oldest.min(self.entries.len()));
        older.iter().chain(newer).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{ClientAddr, Transport};
    use crate::reject::Reason;
    use crate::stun::Method;
    use crate::turn::Excerpt;
    use crate::user::RealmId;

    #[test]
    fn the_oldest_refusals_make_room() {
        let refusal = |unix_secs| Refusal {
            unix_secs,
            reason: Reason::WrongPassword,
            method: Method::ALLOCATE,
            client: ClientAddr::new(([127, 0, 0, 1], 1).into()),
            transport: Transport::Udp,
            realm: RealmId::DEFAULT,
            username: Excerpt::of(b"alice"),
            peer: None,
            policy: None,
            times: 1,
        };
        let mut ring = RefusalRing::new();
        let times = |ring: &RefusalRing| ring.oldest_first().iter().map(|kept| kept.unix_secs).collect::<Vec<_>>();
        (0..10).for_each(|secs| ring.push(refusal(secs)));
        assert_eq!(times(&ring), (0..10).collect::<Vec<_>>());
        (10..1000).for_each(|secs| ring.push(refusal(secs)));
        assert_eq!(times(&ring), (1000 - KEPT as u64..1000).collect::<Vec<_>>());
    }
}
