//! What `script.lua` does, in Rust: `redis` compares the two.

use std::collections::{BTreeMap, HashMap};

/// A store that knows nothing but leases.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    keys: HashMap<String, BTreeMap<String, Note>>,
    /// Whether a late call changes something, as it would without the calls' numbers.
    pub(super) believes_late_calls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    share: u64,
    id: u64,
    expires_millis: u64,
}

impl Model {
    /// Carries out a call at a time of the store's clock.
    pub(super) fn call(&mut self, now_millis: u64, key: &str, server: &str, arguments: [u64; 6]) -> [i64; 5] {
        let [id, floor, need, wish, limit, term_millis] = arguments;
        let notes = self.keys.entry(key.to_owned()).or_default();
        notes.retain(|_, note| note.expires_millis > now_millis);
        let noted = notes.get(server).copied();
        let others: u64 = notes.iter().filter(|(of, _)| *of != server).map(|(_, note)| note.share).sum();
        let answer = |share: u64, id: u64| [share as i64, id as i64, others as i64, now_millis as i64, 0];
        if let Some(note) = noted.filter(|note| id <= note.id && !self.believes_late_calls) {
            return answer(note.share, note.id);
        }
        let left = limit.saturating_sub(others);
        let spare = (limit / 2).saturating_sub(others);
        let share = floor.max(need.min(left)).max(wish.min(left).min(spare));
        if share == 0 {
            notes.remove(server);
        } else {
            notes.insert(server.to_owned(), Note { share, id, expires_millis: now_millis + term_millis });
        }
        answer(share, id)
    }

    /// What a server's share of a key is noted as, if it is.
    pub(super) fn share(&self, now_millis: u64, key: &str, server: &str) -> Option<u64> {
        let note = self.keys.get(key)?.get(server)?;
        (note.expires_millis > now_millis).then_some(note.share)
    }

    /// All shares of a key.
    pub(super) fn sum(&self, now_millis: u64, key: &str) -> u64 {
        let notes = self.keys.get(key).into_iter().flat_map(BTreeMap::values);
        notes.filter(|note| note.expires_millis > now_millis).map(|note| note.share).sum()
    }

    /// Forgets everything.
    pub(super) fn flush(&mut self) {
        self.keys.clear();
    }
}
