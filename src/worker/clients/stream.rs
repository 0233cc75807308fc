//! One connection that has a client, what is gathered for it, and what is known of it.

use crate::clock::Now;
use crate::config::Streams;
use crate::net::sys::Interest;
use crate::net::{Arena, Span};
use crate::stream::{Connection, FrameEnd, WriteState};
use crate::turn::Client;
use crate::worker::plan::Pieces;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its client gets what is gathered for it, and sees an end.
    Close,
    /// Its client does not read.
    Reset,
}

pub(super) struct Stream {
    pub(super) connection: Connection,
    pub(super) client: Client,
    pieces: Vec<Span>,
    frames: Vec<FrameEnd>,
    /// What epoll watches it for; without input the client has not read its answers.
    pub(super) interest: Interest,
    /// Whether whole frames may be left of what was read.
    pub(super) has_more: bool,
    /// Whether it came by TLS to a port that it shares with a web server.
    pub(super) is_web_shared: bool,
    /// Whether it had an allocation when that was last asked.
    pub(super) holds: bool,
    pub(super) heard: bool,
    pub(super) last_heard_micros: u64,
    /// When it is closed if its client still does not read its answers.
    pub(super) held_until_micros: u64,
}

impl Stream {
    pub(super) fn new(now: Now, connection: Connection, client: Client, interest: Interest) -> Self {
        Self {
            connection,
            client,
            pieces: Vec::new(),
            frames: Vec::new(),
            interest,
            has_more: false,
            is_web_shared: false,
            holds: false,
            heard: false,
            last_heard_micros: now.micros,
            held_until_micros: 0,
        }
    }

    /// Gathers a frame; whether it is the first one.
    pub(super) fn gather(&mut self, frame: Pieces, droppable: bool) -> bool {
        let is_first = self.frames.is_empty();
        self.pieces.extend(frame.spans());
        self.frames.push(FrameEnd { piece: self.pieces.len(), droppable });
        is_first
    }

    /// Writes what has been gathered for it; returns the state and how many frames were dropped.
    pub(super) fn write(&mut self, arena: &Arena, now_micros: u64, options: &Streams) -> (WriteState, u64) {
        let written = self.connection.send(arena.bytes(), &self.pieces, &self.frames, now_micros, options);
        self.pieces.clear();
        self.frames.clear();
        written
    }

    /// Whether it is not read because its client does not read.
    pub(super) fn is_held_back(&self) -> bool {
        self.interest == Interest::Write
    }
}
