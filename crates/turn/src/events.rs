//! The queue of events. Only refusals can come without bound, so only they are dropped; every one is counted.

use std::collections::VecDeque;

use crate::reject::Reason;

use super::output::Event;
use super::refusal::Refusal;

/// While so many events wait, further refusals are counted and dropped.
const MAX_WAITING: usize = 4096;

/// Events not yet taken.
#[derive(Default)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    refusals_dropped: u64,
    refusals: RefusalCounts,
    stranger_replies: u64,
    classic_replies: u64,
    throttled_bytes: (u64, u64),
}

/// Requests refused since the start, by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalCounts {
    by_reason: [u64; Reason::ALL.len()],
    total: u64,
}

impl Default for RefusalCounts {
    fn default() -> Self {
        Self { by_reason: [0; Reason::ALL.len()], total: 0 }
    }
}

impl RefusalCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Those with this reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.by_reason.get(reason as usize).copied().unwrap_or_default()
    }
}

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        self.queue.push_back(event);
    }

    pub(super) fn refused(&mut self, refusal: Refusal) {
        self.count_refusal(refusal.reason);
        self.tell(refusal);
    }

    /// Reports a refusal that is not counted here, such as that of data, which is counted with what was dropped.
    pub(super) fn tell(&mut self, refusal: Refusal) {
        if self.queue.len() >= MAX_WAITING {
            self.refusals_dropped += 1;
            return;
        }
        self.queue.push_back(Event::Refused(refusal));
    }

    /// Counts a refusal that is no event: nothing has shown that its sender receives at its address.
    pub(super) fn count_refusal(&mut self, reason: Reason) {
        if let Some(count) = self.refusals.by_reason.get_mut(reason as usize) {
            *count += 1;
        }
        self.refusals.total += 1;
    }

    /// Counts an answer to a request that nobody has authenticated.
    pub(super) fn stranger_answered(&mut self) {
        self.stranger_replies += 1;
    }

    /// Counts an answer to an RFC 3489 client.
    pub(super) fn classic_answered(&mut self) {
        self.classic_replies += 1;
    }

    /// Counts payload to a peer that a bandwidth cap has dropped.
    pub(super) fn throttled_to_peer(&mut self, len: usize) {
        self.throttled_bytes.0 += len as u64;
    }

    /// Counts payload to a client that a bandwidth cap has dropped.
    pub(super) fn throttled_to_client(&mut self, len: usize) {
        self.throttled_bytes.1 += len as u64;
    }

    pub(super) fn throttled_bytes(&self) -> (u64, u64) {
        self.throttled_bytes
    }

    pub(super) fn refusals(&self) -> &RefusalCounts {
        &self.refusals
    }

    pub(super) fn stranger_replies(&self) -> u64 {
        self.stranger_replies
    }

    pub(super) fn classic_replies(&self) -> u64 {
        self.classic_replies
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    pub(super) fn refusals_dropped(&self) -> u64 {
        self.refusals_dropped
    }
}
