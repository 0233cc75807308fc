//! What waits for a slow stream client: bounded by age and by bytes, the oldest frame dropped first.

use std::collections::VecDeque;

struct Waiting {
    bytes: Box<[u8]>,
    since_micros: u64,
    /// Answers to requests are not dropped for age.
    droppable: bool,
}

/// Whole frames that wait until the socket takes more.
#[derive(Default)]
pub(super) struct OutQueue {
    frames: VecDeque<Waiting>,
    bytes: usize,
    /// Bytes of the first frame that are sent already; it can no longer be dropped.
    first_sent: usize,
}

impl OutQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Queues a frame of which `sent` bytes are gone already. Returns how many frames were dropped for it.
    pub(super) fn push(
        &mut self,
        frame: Box<[u8]>,
        sent: usize,
        droppable: bool,
        now_micros: u64,
        max_age_micros: u64,
        max_bytes: usize,
    ) -> u64 {
        if self.frames.is_empty() {
            self.first_sent = sent;
        }
        self.bytes += frame.len();
        self.frames.push_back(Waiting { bytes: frame, since_micros: now_micros, droppable });
        self.shed(now_micros, max_age_micros, max_bytes)
    }

    /// The bytes to write next.
    pub(super) fn front(&self) -> Option<&[u8]> {
        self.frames.front()?.bytes.get(self.first_sent..)
    }

    /// Notes that the socket took `count` bytes of [`Self::front`].
    pub(super) fn advance(&mut self, count: usize) {
        self.first_sent += count;
        if self.frames.front().is_some_and(|first| self.first_sent >= first.bytes.len()) {
            self.pop(0);
            self.first_sent = 0;
        }
    }

    /// Drops what is too old or too much, oldest first, but never a frame that is partly sent.
    pub(super) fn shed(&mut self, now_micros: u64, max_age_micros: u64, max_bytes: usize) -> u64 {
        let mut dropped = 0;
        let mut at = usize::from(self.first_sent > 0);
        while let Some(frame) = self.frames.get(at) {
            let old = frame.droppable && now_micros.saturating_sub(frame.since_micros) > max_age_micros;
            let over = self.bytes > max_bytes;
            if !old && !over {
                if frame.droppable {
                    break;
                }
                at += 1;
                continue;
            }
            self.pop(at);
            dropped += 1;
        }
        dropped
    }

    fn pop(&mut self, at: usize) {
        if let Some(frame) = self.frames.remove(at) {
            self.bytes -= frame.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut OutQueue, byte: u8, now: u64) -> u64 {
        queue.push(vec![byte; 10].into(), 0, true, now, 100, 35)
    }

    #[test]
    fn the_oldest_frames_go_first_when_bytes_or_age_run_over() {
        let mut queue = OutQueue::default();
        assert_eq!(push(&mut queue, 1, 0) + push(&mut queue, 2, 10) + push(&mut queue, 3, 20), 0);
        assert_eq!(push(&mut queue, 4, 30), 1);
        assert_eq!(queue.front(), Some(&[2; 10][..]));
        assert_eq!(push(&mut queue, 5, 125), 2);
        assert_eq!(queue.front(), Some(&[4; 10][..]));
        assert_eq!(queue.bytes, 20);
    }

    #[test]
    fn a_frame_that_is_partly_sent_stays() {
        let mut queue = OutQueue::default();
        queue.push(vec![1; 10].into(), 4, true, 0, 100, 35);
        push(&mut queue, 2, 0);
        assert_eq!(queue.shed(1000, 100, 35), 1);
        assert_eq!(queue.front(), Some(&[1; 6][..]));
        queue.advance(6);
        assert!(queue.is_empty());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn answers_are_not_dropped_for_age_but_bytes_bound_them_too() {
        let mut queue = OutQueue::default();
        queue.push(vec![1; 10].into(), 0, false, 0, 100, 35);
        assert_eq!(queue.shed(1000, 100, 35), 0);
        for _ in 0..3 {
            queue.push(vec![2; 10].into(), 0, false, 0, 100, 35);
        }
        assert_eq!(queue.bytes, 30);
    }
}
