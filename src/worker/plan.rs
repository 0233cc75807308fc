//! The send plan of one batch: datagrams joined into runs of one flow, which one system call sends (UDP GSO).

use std::net::{IpAddr, SocketAddr};

use crate::net::Span;
use crate::turn::RelayId;

/// The kernel segments at most this many datagrams at once.
const MAX_SEGMENTS: u16 = 64;
/// And at most this many bytes, headers of the datagram itself left room for.
const MAX_RUN_BYTES: u32 = 65_000;
const END: u32 = u32::MAX;

/// One datagram: a header of ours, the payload as received, and padding. Any of the three may be empty.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pieces {
    pub(super) header: Span,
    pub(super) payload: Span,
    pub(super) padding: Span,
}

impl Pieces {
    pub(super) fn whole(payload: Span) -> Self {
        Self { payload, ..Self::default() }
    }

    pub(super) fn len(&self) -> u32 {
        self.header.len + self.payload.len + self.padding.len
    }

    /// The pieces that have bytes, neighbours in memory joined.
    pub(super) fn spans(self) -> impl Iterator<Item = Span> {
        let mut parts = [self.header, self.payload, self.padding];
        for index in [1, 0] {
            if let [first, second] = parts.get_mut(index..index + 2).unwrap_or_default()
                && first.len > 0
                && second.len > 0
                && first.touches(*second)
            {
                *first = first.join(*second);
                *second = Span::default();
            }
        }
        parts.into_iter().filter(|part| part.len > 0)
    }
}

/// The socket a datagram is sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Relay(RelayId),
    Listener(u32),
}

/// Where a datagram goes, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The relay socket or listener to send from.
    pub(super) via: Via,
    pub(super) to: SocketAddr,
    /// On listeners bound to every address: the address the client knows.
    pub(super) from_ip: Option<IpAddr>,
    /// TOS or traffic class to send with.
    pub(super) tos: u8,
    /// Send with DF = 1.
    pub(super) dont_fragment: bool,
}

/// Consecutive datagrams of one way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) way: Way,
    /// Length of every datagram but the last, which may be shorter.
    pub(super) segment_len: u32,
    pub(super) count: u16,
    total: u32,
    closed: bool,
    first: u32,
    last: u32,
}

/// The latest run of a flow, so that the next datagram finds it without a search.
#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    batch: u32,
    run: u32,
}

/// The datagrams to send when the batch is flushed, in order within each flow.
pub(super) struct Plan {
    batch: u32,
    runs: Vec<Run>,
    segments: Vec<(Pieces, u32)>,
    /// The latest run of each relay's flow, by the relay's slot.
    latest: Vec<Latest>,
}

impl Plan {
    pub(super) fn new() -> Self {
        Self { batch: 1, runs: Vec::new(), segments: Vec::new(), latest: Vec::new() }
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Adds a datagram that a relay sends or has received, to the relay's open run if it fits.
    pub(super) fn add(&mut self, relay: RelayId, way: Way, pieces: Pieces) {
        let flow = relay.index as usize;
        if flow >= self.latest.len() {
            self.latest.resize(flow + 1, Latest::default());
        }
        let Some(latest) = self.latest.get_mut(flow) else { return };
        let len = pieces.len();
        if latest.batch == self.batch
            && let Some(run) = self.runs.get_mut(latest.run as usize).filter(|run| run.takes(&way, len))
        {
            let segment = self.segments.len() as u32;
            self.segments.push((pieces, END));
            if let Some(last) = self.segments.get_mut(run.last as usize) {
                last.1 = segment;
            }
            run.last = segment;
            run.count += 1;
            run.total += len;
            run.closed = len < run.segment_len;
            return;
        }
        *latest = Latest { batch: self.batch, run: self.runs.len() as u32 };
        self.add_single(way, pieces);
    }

    /// Adds a datagram that is the start of no run, such as an answer.
    pub(super) fn add_single(&mut self, way: Way, pieces: Pieces) {
        let (len, segment) = (pieces.len(), self.segments.len() as u32);
        self.segments.push((pieces, END));
        let closed = len == 0;
        self.runs.push(Run { way, segment_len: len, count: 1, total: len, closed, first: segment, last: segment });
    }

    /// The datagrams of a run.
    pub(super) fn datagrams(&self, run: &Run) -> impl Iterator<Item = Pieces> + use<'_> {
        let mut next = run.first;
        std::iter::from_fn(move || {
            let (pieces, following) = self.segments.get(next as usize)?;
            next = *following;
            Some(*pieces)
        })
    }

    /// Empties the plan; the runs of this batch are nobody's latest any more.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.segments.clear();
        self.batch = self.batch.wrapping_add(1).max(1);
    }

    /// Gives memory back after a peak of relays; there are no more than `slots` now.
    pub(super) fn shrink(&mut self, slots: usize) {
        self.latest.truncate(slots);
        self.latest.shrink_to_fit();
    }
}

impl Run {
    fn takes(&self, way: &Way, len: u32) -> bool {
        !self.closed
            && len > 0
            && len <= self.segment_len
            && self.count < MAX_SEGMENTS
            && self.total + len <= MAX_RUN_BYTES
            && self.way == *way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(port: u16) -> Way {
        let to = SocketAddr::from(([192, 0, 2, 1], port));
        Way { via: Via::Listener(1), to, from_ip: None, tos: 0, dont_fragment: false }
    }

    fn relay(index: u32) -> RelayId {
        RelayId { index, generation: 0 }
    }

    fn pieces(at: u32, len: u32) -> Pieces {
        Pieces::whole(Span { at, len })
    }

    #[test]
    fn equal_datagrams_of_a_flow_join_and_a_shorter_one_ends_the_run() {
        let mut plan = Plan::new();
        for len in [100, 100, 60, 100] {
            plan.add(relay(0), way(1), pieces(0, len));
        }
        let counts: Vec<_> = plan.runs().iter().map(|run| (run.count, run.segment_len)).collect();
        assert_eq!(counts, [(3, 100), (1, 100)]);
    }

    #[test]
    fn a_longer_datagram_another_way_or_an_empty_one_starts_a_new_run() {
        let mut plan = Plan::new();
        plan.add(relay(0), way(1), pieces(0, 100));
        plan.add(relay(0), way(1), pieces(0, 101));
        plan.add(relay(0), way(2), pieces(0, 101));
        plan.add(relay(0), way(2), pieces(0, 0));
        plan.add(relay(0), way(2), pieces(0, 0));
        assert_eq!(plan.runs().len(), 5);
    }

    #[test]
    fn interleaved_flows_keep_their_order_and_runs_end_with_the_batch() {
        let mut plan = Plan::new();
        for at in 0..6u32 {
            let flow = at % 2;
            plan.add(relay(flow), way(flow as u16), pieces(at, 10));
        }
        let order: Vec<Vec<u32>> =
            plan.runs().iter().map(|run| plan.datagrams(run).map(|pieces| pieces.payload.at).collect()).collect();
        assert_eq!(order, [[0, 2, 4], [1, 3, 5]]);
        plan.clear();
        plan.add(relay(0), way(0), pieces(9, 10));
        assert_eq!(plan.runs().len(), 1);
        assert_eq!(plan.runs()[0].count, 1);
    }

    #[test]
    fn answers_join_no_run_and_a_flow_goes_on_after_a_peak() {
        let mut plan = Plan::new();
        plan.add(relay(7), way(1), pieces(0, 100));
        plan.add_single(way(1), pieces(0, 100));
        plan.add(relay(7), way(1), pieces(0, 100));
        assert_eq!(plan.runs().iter().map(|run| run.count).collect::<Vec<_>>(), [2, 1]);
        plan.shrink(3);
        plan.add(relay(7), way(1), pieces(0, 100));
        assert_eq!((plan.runs().len(), plan.latest.len()), (3, 8));
    }

    #[test]
    fn a_run_is_bounded_in_datagrams_and_bytes() {
        let mut plan = Plan::new();
        for _ in 0..130 {
            plan.add(relay(0), way(1), pieces(0, 100));
        }
        assert_eq!(plan.runs().iter().map(|run| run.count).collect::<Vec<_>>(), [64, 64, 2]);
        plan.clear();
        for _ in 0..7 {
            plan.add(relay(0), way(1), pieces(0, 10_000));
        }
        assert_eq!(plan.runs().iter().map(|run| run.count).collect::<Vec<_>>(), [6, 1]);
    }

    #[test]
    fn touching_pieces_become_one() {
        let span = |at, len| Span { at, len };
        let pieces = Pieces { header: span(60, 4), payload: span(64, 9), padding: span(73, 3) };
        assert_eq!(pieces.spans().collect::<Vec<_>>(), [span(60, 16)]);
        let apart = Pieces { header: span(600, 4), payload: span(64, 9), padding: Span::default() };
        assert_eq!(apart.spans().collect::<Vec<_>>(), [span(600, 4), span(64, 9)]);
    }
}
