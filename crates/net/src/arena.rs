//! One worker's packet memory: receive slots with headroom, and scratch space for headers and answers.
//!
//! Everything that a batch receives or builds lives here until the batch is flushed, named by [`Span`]s, so that payload is
//! never copied on the UDP path.

/// Bytes kept free in front of every received datagram: the longest Data indication header (20 + 24 + 4) fits.
pub const HEADROOM: usize = 64;

/// Room for the longest UDP datagram, coalesced or not, and for a stream's longest frame (65,556 bytes) with two TLS
/// records behind it. Pages that nothing is received into cost no memory.
const SLOT_LEN: usize = 100 * 1024;
/// Keeps equal offsets of neighbouring slots out of the same cache sets.
const STAGGER: usize = 192;
/// Bytes at the very end that stay zero, for padding.
const ZEROS: usize = 4;
const STRIDE: usize = HEADROOM + SLOT_LEN + STAGGER;

/// A part of the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset in bytes.
    pub at: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Span {
    /// The part of this span from `start`, `len` bytes long; empty when it does not fit.
    pub fn part(self, start: usize, len: usize) -> Self {
        let fits = start.checked_add(len).is_some_and(|end| end <= self.len as usize);
        if fits { Self { at: self.at + start as u32, len: len as u32 } } else { Self { at: self.at, len: 0 } }
    }

    /// Whether `next` begins where this span ends.
    pub fn touches(self, next: Self) -> bool {
        self.at + self.len == next.at
    }

    /// Both spans as one; meaningful only when they touch.
    pub fn join(self, next: Self) -> Self {
        Self { at: self.at, len: self.len + next.len }
    }
}

/// The memory of one worker's batches.
pub struct Arena {
    bytes: Vec<u8>,
    slots: usize,
    scratch_at: usize,
    scratch_used: usize,
}

impl Arena {
    /// An arena of `slots` receive slots and `scratch` bytes. Pages that are never touched cost no memory.
    pub fn new(slots: usize, scratch: usize) -> Self {
        let scratch_at = slots * STRIDE;
        Self { bytes: vec![0; scratch_at + scratch + ZEROS], slots, scratch_at, scratch_used: 0 }
    }

    /// How many receive slots there are.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Where a datagram received into `slot` is put: all of the slot behind its headroom.
    pub fn slot(&self, slot: usize) -> Span {
        debug_assert!(slot < self.slots);
        Span { at: (slot * STRIDE + HEADROOM) as u32, len: SLOT_LEN as u32 }
    }

    /// The bytes of a span.
    pub fn get(&self, span: Span) -> &[u8] {
        self.bytes.get(span.at as usize..(span.at + span.len) as usize).unwrap_or_default()
    }

    /// The bytes of a span, to write to.
    pub fn get_mut(&mut self, span: Span) -> &mut [u8] {
        self.bytes.get_mut(span.at as usize..(span.at + span.len) as usize).unwrap_or_default()
    }

    /// Everything, for the system-call wrappers that resolve spans.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes `header` right in front of `payload`, which must have `header.len()` bytes of room there.
    pub fn prepend(&mut self, header: &[u8], payload: Span) -> Span {
        let Some(at) = (payload.at as usize).checked_sub(header.len()) else { return payload };
        if let Some(room) = self.bytes.get_mut(at..at + header.len()) {
            room.copy_from_slice(header);
        }
        Span { at: at as u32, len: payload.len + header.len() as u32 }
    }

    /// Copies bytes into the scratch space; `None` when it is full and the batch must be flushed first.
    pub fn store(&mut self, bytes: &[u8]) -> Option<Span> {
        let at = self.scratch_at + self.scratch_used;
        if bytes.len() > self.scratch_left() {
            return None;
        }
        self.bytes.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        self.scratch_used += bytes.len();
        Some(Span { at: at as u32, len: bytes.len() as u32 })
    }

    /// `len` zero bytes, at most 4, for padding.
    pub fn zeros(&self, len: usize) -> Span {
        Span { at: (self.bytes.len() - ZEROS) as u32, len: len.min(ZEROS) as u32 }
    }

    /// How many scratch bytes are left.
    pub fn scratch_left(&self) -> usize {
        self.bytes.len() - ZEROS - self.scratch_at - self.scratch_used
    }

    /// Forgets the scratch content, after a flush.
    pub fn reset_scratch(&mut self) {
        self.scratch_used = 0;
    }
}
