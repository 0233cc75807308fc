//! What a worker has received and is working off, with room for a header in front, and scratch space for what it adds to it.

use std::io;
use std::os::fd::BorrowedFd;

use super::plan::Pieces;
use super::room::Room;
use crate::dtls::Datagrams;
use crate::net::sys::{Datagram, RecvBatch};
use crate::net::{Arena, HEADROOM, Span};
use crate::turn::Wrapping;

/// Receive slots: what one batch can hold.
const SLOTS: usize = 128;
/// The longest answer to one message, which is also more than a header takes.
const ANSWER_MAX: usize = 20 + 65_532;
/// Scratch space for answers and for headers that have no room in front of their payload.
const SCRATCH: usize = 512 * 1024 + ANSWER_MAX;
/// Scratch that must be free before more is received.
const SCRATCH_RESERVE: usize = 128 * 1024 + ANSWER_MAX;

/// Records of one DTLS datagram.
const DECRYPTED_MAX: usize = 16;

/// A payload inside the inbox and what is known of its datagram.
#[derive(Clone, Copy)]
pub(super) struct Payload {
    pub(super) span: Span,
    /// Bytes in front of the payload that may be overwritten.
    pub(super) room: usize,
    pub(super) tos: u8,
}

impl Payload {
    /// The part from `start`; what precedes it may be overwritten.
    pub(super) fn inner(self, start: usize, len: usize) -> Self {
        Self { span: self.span.part(start, len), room: self.room + start, tos: self.tos }
    }

    pub(super) fn len(&self) -> usize {
        self.span.len as usize
    }
}

/// The messages of one DTLS datagram, each a record.
pub(super) struct Decrypted {
    list: [Payload; DECRYPTED_MAX],
    count: usize,
}

impl Decrypted {
    pub(super) fn iter(&self) -> impl Iterator<Item = Payload> + '_ {
        self.list.iter().take(self.count).copied()
    }
}

/// What has been received since the last flush.
pub(super) struct Inbox {
    arena: Arena,
    recv: RecvBatch,
    /// Slots in use.
    used: usize,
    /// The datagrams received last: where the first of them is, how many they are, and which is next.
    first: usize,
    count: usize,
    next: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let (arena, recv) = (Arena::new(SLOTS, SCRATCH), RecvBatch::new(SLOTS));
        Self { arena, recv, used: 0, first: 0, count: 0, next: 0 }
    }

    /// Whether there are `slots` receive slots, and scratch space for what comes of what is received into them.
    pub(super) fn has_room(&self, slots: usize) -> bool {
        self.used + slots <= self.arena.slots() && self.arena.scratch_left() >= SCRATCH_RESERVE
    }

    /// Receives up to `depth` datagrams, for [`Self::next_datagram`]; returns how many there were.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` when there is nothing.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, depth: usize) -> io::Result<usize> {
        (self.first, self.count, self.next) = (self.used, 0, 0);
        self.count = self.recv.receive(socket, &mut self.arena, self.first, depth)?;
        self.used += self.count;
        Ok(self.count)
    }

    /// The next one of the datagrams received last.
    pub(super) fn next_datagram(&mut self) -> Option<Datagram> {
        while self.next < self.count {
            self.next += 1;
            if let Some(datagram) = self.recv.datagram(&self.arena, self.first, self.next - 1) {
                return Some(datagram);
            }
        }
        None
    }

    /// Copies payload of another worker, or what has waited, into a slot.
    pub(super) fn copy(&mut self, bytes: &[u8], tos: u8) -> Payload {
        let span = self.arena.slot(self.used).part(0, bytes.len());
        self.used += 1;
        self.arena.get_mut(span).copy_from_slice(bytes);
        Payload { span, room: HEADROOM, tos }
    }

    /// Puts what was decrypted of a datagram in its place. What does not fit is lost: it has come in another datagram.
    pub(super) fn replace(&mut self, datagram: Payload, plain: &Datagrams) -> Decrypted {
        let (mut list, mut count, mut at) = ([datagram; DECRYPTED_MAX], 0, 0);
        for (message, slot) in plain.iter().zip(&mut list) {
            if at + message.len() > datagram.len() {
                break;
            }
            let span = datagram.span.part(at, message.len());
            self.arena.get_mut(span).copy_from_slice(message);
            let room = if at == 0 { datagram.room } else { 0 };
            *slot = Payload { span, room, tos: datagram.tos };
            count += 1;
            at += message.len();
        }
        Decrypted { list, count }
    }

    /// Has a stream read into one slot, with another one to decrypt from.
    pub(super) fn read<T, E>(&mut self, read: impl FnOnce(&mut Arena, Span, Span) -> Result<T, E>) -> Result<T, E> {
        let (plain, cipher) = (self.arena.slot(self.used), self.arena.slot(self.used + 1));
        let read = read(&mut self.arena, plain, cipher)?;
        self.used += 1;
        Ok(read)
    }

    /// The bytes of a span.
    #[inline]
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        self.arena.get(span)
    }

    /// Puts an answer where it can be sent from.
    pub(super) fn store(&mut self, answer: &[u8]) -> Option<Pieces> {
        self.arena.store(answer).map(Pieces::whole)
    }

    /// Puts a header in front of a payload, and padding behind it.
    pub(super) fn wrap(&mut self, wrapping: &Wrapping, payload: Payload) -> Option<Pieces> {
        let header = wrapping.header();
        let mut pieces = Pieces { padding: self.arena.zeros(wrapping.padding), ..Pieces::default() };
        if payload.room >= header.len() {
            pieces.payload = self.arena.prepend(header, payload.span);
        } else {
            pieces.header = self.arena.store(header)?;
            pieces.payload = payload.span;
        }
        Some(pieces)
    }

    /// Whether there is scratch space for what comes of another message.
    #[inline]
    pub(super) fn room(&self) -> Room {
        if self.arena.scratch_left() < ANSWER_MAX { Room::Full } else { Room::Left }
    }

    /// The memory that everything which waits to be sent is in.
    pub(super) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Frees the scratch space: everything has been sent. The receive slots stay taken, because what is received is still being
    /// read, and what is gathered from it next must not be overwritten.
    pub(super) fn clear_scratch(&mut self) {
        self.arena.reset_scratch();
    }

    /// Frees every receive slot.
    pub(super) fn clear_slots(&mut self) {
        self.used = 0;
    }
}

/// Offset and length of each datagram that was coalesced.
pub(super) fn segments(datagram: &Datagram) -> impl Iterator<Item = Payload> + use<> {
    let (span, tos) = (datagram.span, datagram.tos);
    let (total, each) = (span.len as usize, datagram.segment_len.max(1));
    // An empty datagram is one segment of no bytes.
    (0..total.max(1)).step_by(each).map(move |at| {
        let room = if at == 0 { HEADROOM } else { 0 };
        Payload { span: span.part(at, each.min(total - at)), room, tos }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_room_for_another_message_its_answer_fits_however_long() {
        let mut inbox = Inbox::new();
        let mut answers = 0;
        loop {
            while inbox.room() == Room::Left {
                assert!(inbox.store(&vec![7; ANSWER_MAX - answers]).is_some());
                answers += 1;
            }
            assert!(!inbox.has_room(1), "a receive waits for the flush sooner than a message");
            if answers > 100 {
                break;
            }
            inbox.clear_scratch();
            assert!(inbox.has_room(SLOTS) && !inbox.has_room(SLOTS + 1));
        }
    }
}
