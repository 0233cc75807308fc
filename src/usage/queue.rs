//! The queue into the writer: what workers leave there, and what the control side wants.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::record::Session;
use super::stats::{Lost, UsageStats};
use crate::addr::{FiveTuple, RelayedAddr};
use crate::config::Usage;
use crate::turn::{AllocationId, AllocationSummary, AllocationView, is_told_alone};
use crate::user::User;

/// Facts that may wait for the writer. An allocation's start and end are one each.
const QUEUE_MAX: usize = 16_384;
/// How many allocations a worker is asked for at a time, so that it is soon back at its packets.
pub(super) const PAGE: usize = 256;
/// How long workers that stop, and relay nothing any more, wait for room in the queue, for all their records together.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Takes a worker's live allocations: the monotonic time in microseconds, and one page of them.
pub type TakePage = Box<dyn FnOnce(u64, Vec<AllocationView>) + Send>;

/// Asks a worker for its live allocations after an id, at most so many, by id.
pub type AskWorker = Box<dyn Fn(usize, Option<AllocationId>, usize, TakePage) + Send>;

pub(super) enum Message {
    Fact(Box<Session>),
    /// The end of an allocation that gets no record of its own.
    ToMerge(Box<Session>),
    /// A page of a worker's live allocations, asked for in this round.
    Page {
        round: u64,
        worker: usize,
        at: SystemTime,
        now_micros: u64,
        views: Vec<AllocationView>,
    },
    /// There are new orders.
    Wake,
}

/// What the control side wants of the writer.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) reopen: bool,
    pub(super) apply: Option<Usage>,
    pub(super) stop: Option<Stop>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Every allocation has ended with a record.
    Complete,
    /// Something has failed.
    Failure,
}

/// Where workers leave what they know; cheap to clone, never waits.
#[derive(Clone)]
pub struct UsageSender {
    queue: SyncSender<Message>,
    stats: Arc<UsageStats>,
    /// Until when workers that stop wait; set by the first of their records.
    stop_until: Arc<OnceLock<Instant>>,
}

impl UsageSender {
    /// The queue's end for workers, and the writer's.
    pub(super) fn new(stats: Arc<UsageStats>) -> (Self, Receiver<Message>) {
        Self::with_room(QUEUE_MAX, stats)
    }

    fn with_room(room: usize, stats: Arc<UsageStats>) -> (Self, Receiver<Message>) {
        let (queue, facts) = sync_channel(room);
        (Self { queue, stats, stop_until: Arc::default() }, facts)
    }

    /// Has the writer look at its orders. When the queue is full, it is awake.
    pub(super) fn wake(&self) {
        let _ = self.queue.try_send(Message::Wake);
    }

    /// An allocation was made, not of a user who makes too many for a record each.
    pub fn started(
        &self,
        id: AllocationId,
        five_tuple: FiveTuple,
        identity: (Arc<str>, User),
        relayed: Vec<RelayedAddr>,
    ) {
        let session = Session::start(SystemTime::now(), id, five_tuple, identity, relayed);
        self.send(Message::Fact(Box::new(session)), 1, Instant::now());
    }

    /// An allocation has ended. A worker that stops has no packets to hold up: it waits for room in the queue, some seconds
    /// at most.
    pub fn ended(&self, summary: &AllocationSummary, stops: bool) {
        let session = Session::stop(SystemTime::now(), summary);
        let now = Instant::now();
        let until = if stops { *self.stop_until.get_or_init(|| now + STOP_WAIT) } else { now };
        let alone = is_told_alone(summary.is_frequent, summary.to_peers, summary.to_client);
        let message = if alone { Message::Fact(Box::new(session)) } else { Message::ToMerge(Box::new(session)) };
        self.send(message, 1, until);
    }

    pub(super) fn send(&self, mut message: Message, records: u64, until: Instant) {
        loop {
            message = match self.queue.try_send(message) {
                Ok(()) => return,
                Err(TrySendError::Full(message)) if Instant::now() < until => message,
                Err(_) => {
                    self.stats.count_lost(Lost::Queue, records);
                    return;
                }
            };
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::addr::{ClientAddr, Transport};
    use crate::traffic::Traffic;
    use crate::turn::EndReason;

    pub(in crate::usage) fn summary(id: u64) -> AllocationSummary {
        let address = "127.0.0.1:3478".parse().unwrap();
        AllocationSummary {
            id: AllocationId::new(0, id).unwrap(),
            five_tuple: FiveTuple { transport: Transport::Udp, client: ClientAddr::new(address), server: address },
            username: Arc::from("1:alice"),
            user: User::time_limited("alice"),
            is_frequent: false,
            relayed: Vec::new(),
            duration_micros: 1,
            to_peers: Traffic::default(),
            to_client: Traffic::default(),
            throttled: 0,
            reason: EndReason::Shutdown,
        }
    }

    #[test]
    fn a_writer_that_hangs_holds_no_worker_up_and_the_end_of_all_only_once() {
        let (sender, _facts) = UsageSender::with_room(1, Arc::default());
        let began = Instant::now();
        (0..1000).for_each(|id| sender.ended(&summary(id), false));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(sender.stats.lost(Lost::Queue), 999);
        let began = Instant::now();
        (0..1000).for_each(|id| sender.ended(&summary(id), true));
        let waited = began.elapsed();
        assert!(waited >= STOP_WAIT && waited < STOP_WAIT * 2, "{waited:?}");
        assert_eq!(sender.stats.lost(Lost::Queue), 1999);
    }
}
