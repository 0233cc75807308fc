//! The queue of events. Only refusals can come without bound, so only they are dropped.

use std::collections::VecDeque;

use crate::reject::Reason;

use super::output::{Client, Event};

/// While so many events wait, further refusals are counted and dropped.
const MAX_WAITING: usize = 4096;

/// Events not yet taken.
#[derive(Default)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    refusals_dropped: u64,
}

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        self.queue.push_back(event);
    }

    pub(super) fn refused(&mut self, reason: Reason, client: &Client) {
        if self.queue.len() >= MAX_WAITING {
            self.refusals_dropped += 1;
            return;
        }
        let transport = client.five_tuple.transport;
        self.queue.push_back(Event::Refused { reason, client: client.five_tuple.client, transport });
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    pub(super) fn refusals_dropped(&self) -> u64 {
        self.refusals_dropped
    }
}
