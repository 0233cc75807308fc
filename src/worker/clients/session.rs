//! One DTLS session, and what is known of its client.

use std::collections::VecDeque;

use crate::clock::Now;
use crate::dtls::{self, Wire, record};
use crate::stream::ConnectionPermit;
use crate::turn::{Client, Path};

/// Datagrams that wait for the turn of a session that arrives, and their bytes: a client's flight, and a copy of it.
const WAITING_MAX: usize = 8;
const WAITING_BYTES_MAX: usize = 8 * 1024;
/// Records under keys that a session is given before it is open. There is one, and copies; OpenSSL keeps each in a buffer of 16 kB.
const SEALED_MAX: usize = 4;
/// When a flight that was not answered is sent again; each time it is twice as long (RFC 6347 section 4.2.4.1). OpenSSL counts by its own
/// clock, which begins a moment before.
const RESEND_MICROS: u64 = 1_000_000;
const RESEND_AFTER_MICROS: u64 = 10_000;
/// When OpenSSL is asked again that had nothing to send again yet.
const ASK_AGAIN_MICROS: u64 = 100_000;

pub(super) struct Session {
    /// Who it is; its path is this session.
    pub(super) client: Client,
    /// Where its datagrams go.
    pub(super) way: Path,
    /// The random bytes of its hello, by which copies of that are known.
    pub(super) random: [u8; 32],
    pub(super) stage: Stage,
    /// Counts it, until it is to end.
    pub(super) permit: Option<ConnectionPermit>,
    pub(super) is_ending: bool,
    /// Whether it had an allocation when that was last asked.
    pub(super) holds: bool,
    pub(super) last_heard_micros: u64,
    /// When it is closed if it still has no allocation.
    pub(super) stranger_until_micros: u64,
    /// When it is looked at next.
    pub(super) armed_micros: u64,
}

/// How far it has come.
pub(super) enum Stage {
    Arriving(Arrival),
    Open(Box<dtls::Session>),
}

/// A session that arrives.
pub(super) struct Arrival {
    /// OpenSSL's part, once it has had a turn.
    pub(super) session: Option<Box<dtls::Session>>,
    datagrams: VecDeque<Box<[u8]>>,
    sealed: usize,
    pub(super) is_waiting: bool,
    /// When its handshake is given up.
    pub(super) late_micros: u64,
    resend_at_micros: u64,
    resend_after_micros: u64,
}

/// How the turn of a session that arrives has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Arriving,
    Open,
    Over,
}

impl Session {
    /// Whether its handshake is under way.
    pub(super) fn is_arriving(&self) -> bool {
        !self.is_ending && matches!(self.stage, Stage::Arriving(_))
    }

    /// Whether an entry with this time is the one that counts.
    pub(super) fn is_stranger_until(&self, until_micros: u64) -> bool {
        !self.holds && !self.is_ending && self.stranger_until_micros == until_micros
    }

    /// Tells the client that this is the end, if it can be told: what is to be sent is in the wire.
    pub(super) fn close(mut self, wire: &mut Wire) {
        wire.begin(&[]);
        if let Stage::Open(session) = &mut self.stage {
            session.close(wire);
        }
    }
}

impl Arrival {
    /// It waits for its first turn, with the datagram that has its hello.
    pub(super) fn new(hello: &[u8], late_micros: u64) -> Self {
        Self {
            session: None,
            datagrams: VecDeque::from([hello.into()]),
            sealed: 0,
            is_waiting: true,
            late_micros,
            resend_at_micros: u64::MAX,
            resend_after_micros: RESEND_MICROS,
        }
    }

    /// Keeps a datagram for its turn; whether there was room.
    pub(super) fn keep(&mut self, datagram: &[u8]) -> bool {
        let bytes: usize = self.datagrams.iter().map(|datagram| datagram.len()).sum();
        let sealed = self.sealed + record::count_sealed(datagram);
        if self.datagrams.len() >= WAITING_MAX || bytes + datagram.len() > WAITING_BYTES_MAX || sealed > SEALED_MAX {
            return false;
        }
        self.sealed = sealed;
        self.datagrams.push_back(datagram.into());
        true
    }

    /// Whether it has something to go on with.
    pub(super) fn has_datagram(&self) -> bool {
        !self.datagrams.is_empty()
    }

    pub(super) fn next_datagram(&mut self) -> Option<Box<[u8]>> {
        self.datagrams.pop_front()
    }

    /// Whether its flight may have to be sent again.
    pub(super) fn is_due(&self, now: Now) -> bool {
        self.resend_at_micros <= now.micros
    }

    /// When it is to be looked at next.
    pub(super) fn next_look_micros(&self) -> u64 {
        self.late_micros.min(self.resend_at_micros)
    }

    /// It has had a turn, to go on or to send again, and has sent something or nothing.
    pub(super) fn had_turn(&mut self, now: Now, is_again: bool, has_sent: bool) {
        self.resend_after_micros = match (has_sent, is_again) {
            (true, true) => self.resend_after_micros * 2,
            (true, false) => RESEND_MICROS,
            (false, true) => {
                self.resend_at_micros = now.micros + ASK_AGAIN_MICROS;
                return;
            }
            (false, false) => return,
        };
        self.resend_at_micros = now.micros + self.resend_after_micros + RESEND_AFTER_MICROS;
    }
}
