//! What waits for a slow stream client: answers, which are never dropped, and payload, bounded by age and by bytes, the oldest
//! frame dropped first.
//!
//! Answers go before payload. No client can tell: a frame that is partly sent is finished first, and whatever an answer announces
//! (a bound channel) comes after it.

use std::collections::VecDeque;
use std::io::IoSlice;

/// What is kept beside the bytes of a frame; it counts toward the bounds, so that frames without payload are not free.
const OVERHEAD: usize = size_of::<Waiting>();
/// Memory that an empty queue may keep.
const KEPT_MAX: usize = 1024;
/// Slices of [`OutQueue::slices`]: the partly sent frame and the two halves of each ring.
pub(super) const SLICES: usize = 5;

/// Whole frames that wait until the socket takes more.
#[derive(Default)]
pub(super) struct OutQueue {
    /// The rest of a frame of which a part is sent; it can no longer be dropped.
    begun: Vec<u8>,
    /// How much of that is sent, too.
    begun_sent: usize,
    answers: Frames,
    payload: Frames,
}

impl OutQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.answers.is_empty() && self.payload.is_empty()
    }

    /// What the client has not taken of its answers, bookkeeping included.
    pub(super) fn answers_len(&self) -> usize {
        self.answers.cost()
    }

    /// Queues a frame of which `sent` bytes are gone already. At most one such frame is there at a time, and it comes first.
    pub(super) fn push<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]>,
        sent: usize,
        droppable: bool,
        now_micros: u64,
    ) {
        if sent > 0 {
            let mut skip = sent;
            for piece in pieces {
                let gone = skip.min(piece.len());
                self.begun.extend_from_slice(piece.get(gone..).unwrap_or_default());
                skip -= gone;
            }
        } else if droppable {
            self.payload.push(pieces, now_micros);
        } else {
            self.answers.push(pieces, now_micros);
        }
    }

    /// Drops payload that is too old or too much, oldest first. Returns how many frames.
    pub(super) fn shed(&mut self, now_micros: u64, max_age_micros: u64, max_bytes: usize) -> u64 {
        let mut dropped = 0;
        while let Some(oldest) = self.payload.frames.front()
            && (self.payload.cost() > max_bytes || now_micros.saturating_sub(oldest.since_micros) > max_age_micros)
        {
            self.payload.pop();
            dropped += 1;
        }
        self.payload.give_back();
        dropped
    }

    /// What is to be written next, in this order; any of them may be empty.
    pub(super) fn slices(&self) -> [IoSlice<'_>; SLICES] {
        let (answers, payload) = (self.answers.bytes.as_slices(), self.payload.bytes.as_slices());
        let begun = self.begun.get(self.begun_sent..).unwrap_or_default();
        [begun, answers.0, answers.1, payload.0, payload.1].map(IoSlice::new)
    }

    /// The first of [`Self::slices`], no more than one frame (or what is left of it).
    pub(super) fn first_frame(&self) -> [IoSlice<'_>; 2] {
        let begun = self.begun.get(self.begun_sent..).unwrap_or_default();
        if !begun.is_empty() {
            return [begun, &[]].map(IoSlice::new);
        }
        let queue = if self.answers.is_empty() { &self.payload } else { &self.answers };
        let len = queue.frames.front().map_or(0, |frame| frame.len as usize);
        let (start, end) = queue.bytes.as_slices();
        let of_start = len.min(start.len());
        [start.get(..of_start), end.get(..len - of_start)].map(|part| IoSlice::new(part.unwrap_or_default()))
    }

    /// Notes that `count` bytes of [`Self::slices`] are sent.
    pub(super) fn advance(&mut self, count: usize) {
        let of_begun = count.min(self.begun.len() - self.begun_sent);
        self.begun_sent += of_begun;
        if self.begun_sent < self.begun.len() {
            return;
        }
        self.begun.clear();
        self.begun_sent = 0;
        let mut left = count - of_begun;
        for queue in [&mut self.answers, &mut self.payload] {
            while left > 0
                && let Some(first) = queue.frames.front().map(|frame| frame.len as usize)
            {
                if left < first {
                    self.begun.extend(queue.bytes.iter().skip(left).take(first - left));
                }
                queue.pop();
                left = left.saturating_sub(first);
            }
        }
        self.answers.give_back();
        self.payload.give_back();
        if self.begun.is_empty() && self.begun.capacity() > KEPT_MAX {
            self.begun = Vec::new();
        }
    }
}

struct Waiting {
    len: u32,
    since_micros: u64,
}

/// Frames in one ring of bytes: many of them leave with one write, and none has a heap block of its own.
#[derive(Default)]
struct Frames {
    bytes: VecDeque<u8>,
    frames: VecDeque<Waiting>,
}

impl Frames {
    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn cost(&self) -> usize {
        self.bytes.len() + self.frames.len() * OVERHEAD
    }

    fn push<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, since_micros: u64) {
        let before = self.bytes.len();
        for piece in pieces {
            self.bytes.extend(piece);
        }
        self.frames.push_back(Waiting { len: (self.bytes.len() - before) as u32, since_micros });
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes.drain(..(frame.len as usize).min(self.bytes.len()));
        }
    }

    fn give_back(&mut self) {
        if self.frames.is_empty() && self.bytes.capacity() > KEPT_MAX {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut OutQueue, byte: u8, now: u64) {
        queue.push([[byte; 6].as_slice(), &[byte; 4]].into_iter(), 0, true, now);
    }

    fn waiting(queue: &OutQueue) -> Vec<u8> {
        queue.slices().iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn the_first_frame_is_one_wherever_it_lies_in_the_ring() {
        let mut queue = OutQueue::default();
        push(&mut queue, 1, 0);
        queue.push([[2; 8].as_slice()].into_iter(), 0, false, 0);
        let mut seen = Vec::new();
        for byte in 3..200 {
            let frame: Vec<u8> = queue.first_frame().iter().flat_map(|slice| slice.to_vec()).collect();
            queue.advance(frame.len());
            seen.push(frame);
            push(&mut queue, byte, 0);
            push(&mut queue, byte, 0);
        }
        assert_eq!(seen.first(), Some(&vec![2; 8]), "answers go first");
        assert_eq!(seen.get(1), Some(&vec![1; 10]));
        assert!(seen.iter().skip(1).all(|frame| frame.len() == 10 && frame.iter().all(|byte| byte == &frame[0])));
        queue.advance(4);
        assert_eq!(queue.first_frame().iter().map(|slice| slice.len()).sum::<usize>(), 6, "what is left of it");
    }

    const TWO_FRAMES: usize = 2 * (10 + OVERHEAD);

    #[test]
    fn the_oldest_payload_goes_first_when_bytes_or_age_run_over() {
        let mut queue = OutQueue::default();
        push(&mut queue, 1, 0);
        push(&mut queue, 2, 10);
        assert_eq!(queue.shed(20, 100, TWO_FRAMES), 0);
        push(&mut queue, 3, 30);
        assert_eq!(queue.shed(30, 100, TWO_FRAMES), 1);
        assert_eq!(waiting(&queue), [[2; 10], [3; 10]].concat());
        assert_eq!(queue.shed(125, 100, TWO_FRAMES), 1);
        assert_eq!(waiting(&queue), [3; 10]);
    }

    #[test]
    fn frames_without_payload_count_what_they_cost() {
        let mut queue = OutQueue::default();
        for _ in 0..1000 {
            queue.push([[0x40, 0, 0, 0].as_slice()].into_iter(), 0, true, 0);
            queue.shed(0, 100, 1000);
        }
        assert!(queue.payload.frames.len() <= 1000 / OVERHEAD, "{} frames", queue.payload.frames.len());
    }

    #[test]
    fn a_frame_that_is_partly_sent_stays_and_comes_first() {
        let mut queue = OutQueue::default();
        queue.push([[1; 10].as_slice()].into_iter(), 4, true, 0);
        push(&mut queue, 2, 0);
        queue.push([[3; 10].as_slice()].into_iter(), 0, false, 0);
        assert_eq!(waiting(&queue), [[1; 6].as_slice(), &[3; 10], &[2; 10]].concat());
        assert_eq!(queue.shed(1000, 100, 0), 1);
        assert_eq!(waiting(&queue), [[1; 6].as_slice(), &[3; 10]].concat());
        queue.advance(6 + 3);
        assert_eq!(waiting(&queue), [3; 7]);
        assert_eq!(queue.answers_len(), 0);
        queue.advance(7);
        assert!(queue.is_empty());
    }

    #[test]
    fn answers_are_not_dropped_and_go_before_payload() {
        let mut queue = OutQueue::default();
        push(&mut queue, 2, 0);
        for _ in 0..3 {
            queue.push([[1; 10].as_slice()].into_iter(), 0, false, 0);
        }
        assert_eq!(queue.shed(1000, 100, 0), 1);
        assert_eq!((waiting(&queue), queue.answers_len()), (vec![1; 30], 3 * (10 + OVERHEAD)));
    }

    #[test]
    fn any_cut_leaves_whole_frames_in_order() {
        for cut in 0..=50 {
            let mut queue = OutQueue::default();
            for (byte, droppable) in [(3, true), (1, false), (4, true), (2, false)] {
                queue.push([[byte; 10].as_slice()].into_iter(), 0, droppable, 0);
            }
            queue.advance(cut);
            let all = [[1; 10], [2; 10], [3; 10], [4; 10]].concat();
            assert_eq!(waiting(&queue), all.get(cut..).unwrap_or_default(), "cut at {cut}");
            // What has begun is finished, the other payload is gone.
            queue.shed(1000, 100, 0);
            let kept = if cut < 20 { 20 } else { cut.next_multiple_of(10).min(40) };
            assert_eq!(waiting(&queue), all.get(cut..kept).unwrap_or_default(), "cut at {cut}");
        }
    }

    #[test]
    fn an_emptied_queue_keeps_no_memory() {
        let mut queue = OutQueue::default();
        for _ in 0..100 {
            queue.push([[1; 1000].as_slice()].into_iter(), 0, true, 0);
        }
        queue.advance(100_000);
        assert!(queue.is_empty() && queue.payload.bytes.capacity() == 0 && queue.payload.frames.capacity() == 0);
    }
}
