//! What reaches a worker from outside its thread: snapshots and orders from the control runtime, and payload for its
//! allocations from other workers, in batches.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::last_ends::LastEnd;
use super::moving::Moving;
use super::tcp_relays::ClientSide;
use crate::addr::PeerAddr;
use crate::net::sys::EventFd;
use crate::turn::{
    AllocationDetail, AllocationFilter, AllocationId, AllocationView, Alternates, Answer, AskId, ConnectionId,
    EndReason, Judgement, Other, OwnSender, Refusal, Settings, UserTotal,
};

/// What may wait for one worker, in what packets count for.
const WAITING_MAX: usize = 4 << 20;
/// A packet counts for its payload and its entry, and for no less than this: what it costs to send does not grow with its
/// length. At most 8192 packets wait, which a worker has sent within some ten milliseconds.
const PACKET_MIN: usize = 512;
/// While more than half of the room is taken, packets of one relay may take this much of it.
const LANE_MAX: usize = WAITING_MAX / 32;
/// Relays are told apart by their port, which the server has chosen by chance, and, as several may share it, by their slot.
const LANES: usize = 1024;
/// What a sender gathers before it hands over without waiting for the flush.
const BATCH_MAX: usize = 256 << 10;
/// Requests and claims of mobile clients that may wait, in all and of one IPv4 address or /64: some two milliseconds of work.
const MOVING_MAX: usize = 256;
const MOVING_PER_SOURCE_MAX: usize = 16;
/// Room that is kept when a peak is over.
const KEPT_PACKETS: usize = 1024;
const KEPT_BYTES: usize = 256 << 10;

/// Takes a worker's answer; it must not block.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// An order or a question of the control runtime.
pub enum Command {
    /// Work by this snapshot from now on. Answer when every allocation there was has been judged by it.
    Apply(Arc<Settings>, Reply<Judgement>),
    /// Bring the counters up to date and store the current time, as a sign of life.
    Ping(Arc<AtomicU64>),
    /// Make no new allocation; send clients to these servers instead.
    Drain(Arc<Alternates>),
    /// The servers that have room, where clients are sent away by load.
    Others(Arc<[Other]>),
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
    /// Answer with how the last allocations ended, in no order.
    LastEnds(Reply<Vec<LastEnd>>),
    /// Answer with the round trips, in microseconds, over some connections that hold an allocation.
    RoundTrips(Reply<Vec<u32>>),
    /// End allocations (and the connections they came by): those that match, and of these only the one with this id if there is
    /// one. Answer with how many there were.
    Kick(AllocationFilter, Option<AllocationId>, Reply<usize>),
    /// End allocations whose credentials are revoked by now, as above.
    EndRevoked(Reply<usize>),
    /// End the allocation with this id, if it is here: an application that was told of it does not want it.
    EndRefused(AllocationId),
    /// Take the answer to a question.
    Answered(AskId, Answer),
    /// End every allocation with this reason and stop.
    Stop(EndReason),
}

/// Payload from one of our allocations to another one's relayed address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    pub(super) between: Between,
    pub(super) tos: u8,
    pub(super) len: u32,
}

/// From which of our relays to which.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between {
    /// The sending allocation's relayed address: the peer, as the receiving allocation sees it.
    pub(super) from: PeerAddr,
    /// The sending relay: several may have one address.
    pub(super) sender: OwnSender,
    /// The receiving relayed address.
    pub(super) to: SocketAddr,
}

impl Handover {
    fn weight(&self) -> usize {
        (size_of::<Self>() + self.len as usize).max(PACKET_MIN)
    }

    fn lane(&self) -> usize {
        (usize::from(self.between.from.port()) + self.between.sender.relay.index as usize) % LANES
    }
}

/// Payload for one worker, gathered until the batch is flushed.
#[derive(Default)]
pub(super) struct HandoverBatch {
    packets: Vec<Handover>,
    bytes: Vec<u8>,
    weight: usize,
}

impl HandoverBatch {
    pub(super) fn push(&mut self, between: Between, tos: u8, payload: &[u8]) {
        self.append(Handover { between, tos, len: payload.len() as u32 }, payload);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether it is to be handed over now and not only when the batch is flushed.
    pub(super) fn is_full(&self) -> bool {
        self.weight >= BATCH_MAX
    }

    fn append(&mut self, packet: Handover, payload: &[u8]) {
        self.weight += packet.weight();
        self.packets.push(packet);
        self.bytes.extend_from_slice(payload);
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.bytes.clear();
        self.weight = 0;
    }
}

/// What a worker has taken out of its mailbox and works off in slices.
#[derive(Default)]
pub(super) struct Taken {
    batch: HandoverBatch,
    next: usize,
    next_byte: usize,
}

impl Taken {
    /// The next packet and where its payload is in [`Self::bytes`].
    pub(super) fn next(&mut self) -> Option<(Handover, Range<usize>)> {
        let packet = *self.batch.packets.get(self.next)?;
        let start = self.next_byte;
        self.next += 1;
        self.next_byte += packet.len as usize;
        Some((packet, start..self.next_byte))
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.batch.bytes.get(range).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next >= self.batch.packets.len()
    }

    /// Forgets what has been worked off, and gives back the memory of a peak.
    fn recycle(&mut self) {
        self.batch.clear();
        (self.next, self.next_byte) = (0, 0);
        self.batch.packets.shrink_to(KEPT_PACKETS);
        self.batch.bytes.shrink_to(KEPT_BYTES);
    }
}

struct Content {
    commands: Vec<Command>,
    moving: Vec<Moving>,
    /// Clients' connections for the data of this worker's peers.
    clients: Vec<(ConnectionId, ClientSide)>,
    handover: HandoverBatch,
    /// What the packets of each lane count for.
    lanes: Box<[usize]>,
}

impl Content {
    /// Takes a packet if there is room for it.
    ///
    /// One relay that floods cannot take the room of the others: it has at most half, and what others send in
    /// between finds its place in the other half.
    fn admit(&mut self, packet: Handover, payload: &[u8]) -> bool {
        let Some(lane) = self.lanes.get_mut(packet.lane()) else { return false };
        let (all, own) = (self.handover.weight + packet.weight(), *lane + packet.weight());
        let fits = all <= WAITING_MAX / 2 || (all <= WAITING_MAX && own <= LANE_MAX);
        if fits {
            *lane = own;
            self.handover.append(packet, payload);
        }
        fits
    }
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
        let content = Content {
            commands: Vec::new(),
            moving: Vec::new(),
            clients: Vec::new(),
            handover: HandoverBatch::default(),
            lanes: vec![0; LANES].into(),
        };
        Ok(Self { content: Mutex::new(content), wake: EventFd::new()? })
    }

    /// Sends an order.
    pub fn send(&self, command: Command) {
        self.lock().commands.push(command);
        self.wake.wake();
    }

    /// Takes what another worker says of an allocation that moves; whether there is room for it. What clients can bring about as often as
    /// they like is bounded, in all and by network.
    pub(super) fn pass_on(&self, moving: Moving) -> bool {
        let mut content = self.lock();
        if let Some(source) = moving.source() {
            let of_source = content.moving.iter().filter(|other| other.source() == Some(source)).count();
            if content.moving.len() >= MOVING_MAX || of_source >= MOVING_PER_SOURCE_MAX {
                return false;
            }
        }
        content.moving.push(moving);
        drop(content);
        self.wake.wake();
        true
    }

    /// Takes all that was said so.
    pub(super) fn take_moving(&self) -> Vec<Moving> {
        std::mem::take(&mut self.lock().moving)
    }

    /// Hands over a client's connection, to be bound to the one with a peer that this worker has.
    pub(super) fn hand_client_over(&self, id: ConnectionId, client: ClientSide) {
        self.lock().clients.push((id, client));
        self.wake.wake();
    }

    /// Takes all clients' connections.
    pub(super) fn take_clients(&self) -> Vec<(ConnectionId, ClientSide)> {
        std::mem::take(&mut self.lock().clients)
    }

    pub(super) fn wake_fd(&self) -> &EventFd {
        &self.wake
    }

    /// Takes over a batch and empties it. Returns how many packets did not fit.
    pub(super) fn hand_over(&self, batch: &mut HandoverBatch) -> usize {
        let mut content = self.lock();
        let was_empty = content.handover.is_empty();
        let (mut at, mut lost) = (0, 0);
        for packet in &batch.packets {
            let end = at + packet.len as usize;
            let payload = batch.bytes.get(at..end).unwrap_or_default();
            lost += usize::from(!content.admit(*packet, payload));
            at = end;
        }
        let wake = was_empty && !content.handover.is_empty();
        drop(content);
        if wake {
            self.wake.wake();
        }
        batch.clear();
        lost
    }

    /// Takes all orders.
    pub(super) fn take_commands(&self) -> Vec<Command> {
        self.wake.clear();
        std::mem::take(&mut self.lock().commands)
    }

    /// Takes all payload, if what was taken before has been worked off.
    pub(super) fn take_handover(&self, taken: &mut Taken) {
        if !taken.is_empty() {
            return;
        }
        taken.recycle();
        let mut content = self.lock();
        if !content.handover.is_empty() {
            std::mem::swap(&mut content.handover, &mut taken.batch);
            content.lanes.fill(0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::RelayId;

    fn between(port: u16) -> Between {
        of_relay(port, 0)
    }

    fn of_relay(port: u16, index: u32) -> Between {
        let from = PeerAddr::new(SocketAddr::from(([5, 45, 96, 1], port))).unwrap();
        let sender = OwnSender { worker: Some(1), relay: RelayId { index, generation: 0 } };
        Between { from, sender, to: SocketAddr::from(([5, 45, 96, 1], 50_000)) }
    }

    /// Hands over `count` packets of `len` bytes from a port, in batches as a worker does; returns how many were lost.
    fn flood(mailbox: &Mailbox, port: u16, count: usize, len: usize) -> usize {
        flood_from(mailbox, between(port), count, len)
    }

    fn flood_from(mailbox: &Mailbox, between: Between, count: usize, len: usize) -> usize {
        let (mut batch, mut lost) = (HandoverBatch::default(), 0);
        for _ in 0..count {
            batch.push(between, 0, &vec![7; len]);
            if batch.is_full() {
                lost += mailbox.hand_over(&mut batch);
            }
        }
        lost + mailbox.hand_over(&mut batch)
    }

    fn take_all(mailbox: &Mailbox) -> Vec<(u16, usize)> {
        let mut taken = Taken::default();
        mailbox.take_handover(&mut taken);
        std::iter::from_fn(|| taken.next()).map(|(packet, range)| (packet.between.from.port(), range.len())).collect()
    }

    fn memory(batch: &HandoverBatch) -> usize {
        batch.packets.capacity() * size_of::<Handover>() + batch.bytes.capacity()
    }

    #[test]
    fn empty_packets_without_end_take_a_bounded_part_of_the_mailbox_and_the_rest_is_told() {
        for len in [0, 1, 160, 1200, 65_000] {
            let mailbox = Mailbox::new().unwrap();
            let lost = flood(&mailbox, 49_152, 100_000 / (1 + len / 100), len);
            let waiting = take_all(&mailbox).len();
            assert_eq!(waiting + lost, 100_000 / (1 + len / 100), "{len} bytes: none is lost without being told");
            assert!(waiting <= WAITING_MAX / 2 / PACKET_MIN, "{waiting} packets of {len} bytes wait");
            flood(&mailbox, 49_152, 100_000 / (1 + len / 100), len);
            let memory = memory(&mailbox.lock().handover);
            assert!(memory <= 2 * WAITING_MAX, "{memory} bytes for packets of {len} bytes");
        }
    }

    #[test]
    fn one_relay_that_floods_leaves_room_for_the_packets_of_others() {
        let mailbox = Mailbox::new().unwrap();
        assert!(flood(&mailbox, 50_000, 100_000, 0) > 0);
        for port in 50_001..50_017 {
            assert_eq!(flood(&mailbox, port, 20, 1200), 0, "port {port} finds room");
        }
        assert!(flood(&mailbox, 50_020, 10_000, 1200) > 0, "no second one floods the rest of the room");
        assert_eq!(flood(&mailbox, 50_021, 20, 1200), 0);
        assert_eq!(take_all(&mailbox).iter().filter(|(port, _)| *port == 50_001).count(), 20);
        assert_eq!(flood(&mailbox, 50_000, 1000, 0), 0, "what was taken out counts no more");
    }

    #[test]
    fn one_relay_that_floods_leaves_room_for_those_that_share_its_port() {
        let mailbox = Mailbox::new().unwrap();
        assert!(flood_from(&mailbox, of_relay(3480, 7), 100_000, 0) > 0);
        for index in 8..24 {
            assert_eq!(flood_from(&mailbox, of_relay(3480, index), 20, 1200), 0, "relay {index} finds room");
        }
    }

    #[test]
    fn payload_is_taken_out_in_order_and_by_slices() {
        let mailbox = Mailbox::new().unwrap();
        let mut batch = HandoverBatch::default();
        for number in 0..10u8 {
            batch.push(between(49_152), number, &vec![number; usize::from(number)]);
        }
        assert_eq!(mailbox.hand_over(&mut batch), 0);
        let mut taken = Taken::default();
        mailbox.take_handover(&mut taken);
        let mut seen = Vec::new();
        while let Some((packet, range)) = taken.next() {
            seen.push((packet.tos, taken.bytes(range).to_vec()));
            // What comes meanwhile waits until these have been worked off.
            batch.push(between(49_152), 99, b"later");
            mailbox.hand_over(&mut batch);
            if !taken.is_empty() {
                mailbox.take_handover(&mut taken);
            }
        }
        assert_eq!(seen, (0..10u8).map(|number| (number, vec![number; usize::from(number)])).collect::<Vec<_>>());
        mailbox.take_handover(&mut taken);
        assert_eq!(std::iter::from_fn(|| taken.next()).count(), 10);
    }

    #[test]
    fn the_memory_of_a_peak_is_given_back_once_it_is_worked_off() {
        let mailbox = Mailbox::new().unwrap();
        let mut taken = Taken::default();
        for _ in 0..3 {
            flood(&mailbox, 49_152, 100_000, 1200);
            mailbox.take_handover(&mut taken);
            while taken.next().is_some() {}
        }
        mailbox.take_handover(&mut taken);
        let kept = memory(&taken.batch) + memory(&mailbox.lock().handover);
        assert!(kept <= 2 * (KEPT_PACKETS * size_of::<Handover>() + KEPT_BYTES), "{kept} bytes are kept");
    }
}
