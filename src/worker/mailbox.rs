//! What reaches a worker from outside its thread: snapshots and orders from the control runtime, and payload for its
//! allocations from other workers, in batches.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use crate::addr::PeerAddr;
use crate::net::sys::EventFd;
use crate::turn::{
    AllocationDetail, AllocationFilter, AllocationId, AllocationView, AlternateServer, EndReason, Refusal, Settings,
    UserTotal,
};

/// Payload bytes that may wait for one worker.
const HANDOVER_BYTES_MAX: usize = 4 << 20;

/// Takes a worker's answer; it must not block.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// An order or a question of the control runtime.
pub enum Command {
    /// Work by this snapshot from now on.
    Apply(Arc<Settings>),
    /// Bring the counters up to date and store the current time, as a sign of life.
    Ping(Arc<AtomicU64>),
    /// Make no new allocation; send clients to these servers instead.
    Drain(Arc<[AlternateServer]>),
    /// Answer with the allocations that match, by id, after `after`, at most `limit`.
    List {
        /// Which ones.
        filter: AllocationFilter,
        /// The last one that is known already.
        after: Option<AllocationId>,
        /// How many at most.
        limit: usize,
        /// Takes the answer.
        reply: Reply<Vec<AllocationView>>,
    },
    /// Answer with one allocation and its peers.
    Show(AllocationId, Reply<Option<AllocationDetail>>),
    /// Answer with what each user's allocations come to.
    Users(Reply<Vec<UserTotal>>),
    /// Answer with the last refusals, the oldest first.
    Refusals(Reply<Vec<Refusal>>),
    /// End allocations (and the connections they came by): those that match, and of these only the one with this id if there is
    /// one. Answer with how many there were.
    Kick(AllocationFilter, Option<AllocationId>, Reply<usize>),
    /// End every allocation with this reason and stop.
    Stop(EndReason),
}

/// Payload from one of our allocations to another one's relayed address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    /// The sending allocation's relayed address: the peer, as the receiving allocation sees it.
    pub(super) from: PeerAddr,
    /// The receiving relayed address.
    pub(super) to: SocketAddr,
    pub(super) tos: u8,
    pub(super) len: u32,
}

/// Payload for one worker, gathered until the batch is flushed.
#[derive(Default)]
pub(super) struct HandoverBatch {
    pub(super) packets: Vec<Handover>,
    pub(super) bytes: Vec<u8>,
}

impl HandoverBatch {
    pub(super) fn push(&mut self, from: PeerAddr, to: SocketAddr, tos: u8, payload: &[u8]) {
        self.packets.push(Handover { from, to, tos, len: payload.len() as u32 });
        self.bytes.extend_from_slice(payload);
    }

    pub(super) fn clear(&mut self) {
        self.packets.clear();
        self.bytes.clear();
    }
}

#[derive(Default)]
struct Content {
    commands: Vec<Command>,
    handover: HandoverBatch,
}

/// One worker's mailbox.
pub struct Mailbox {
    content: Mutex<Content>,
    wake: EventFd,
}

impl Mailbox {
    /// An empty mailbox.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { content: Mutex::default(), wake: EventFd::new()? })
    }

    /// Sends an order.
    pub fn send(&self, command: Command) {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).commands.push(command);
        self.wake.wake();
    }

    pub(super) fn wake_fd(&self) -> &EventFd {
        &self.wake
    }

    /// Appends a batch and empties it. Returns how many packets did not fit.
    pub(super) fn hand_over(&self, batch: &mut HandoverBatch) -> usize {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = &mut content.handover;
        let was_empty = waiting.packets.is_empty();
        let fits = waiting.bytes.len() + batch.bytes.len() <= HANDOVER_BYTES_MAX;
        if fits {
            waiting.packets.append(&mut batch.packets);
            waiting.bytes.append(&mut batch.bytes);
        }
        drop(content);
        if fits && was_empty {
            self.wake.wake();
        }
        let lost = batch.packets.len();
        batch.clear();
        lost
    }

    /// Takes everything; `handover` is given empty and its memory is reused by the senders.
    pub(super) fn take(&self, commands: &mut Vec<Command>, handover: &mut HandoverBatch) {
        self.wake.clear();
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        commands.append(&mut content.commands);
        std::mem::swap(&mut content.handover, handover);
    }
}
