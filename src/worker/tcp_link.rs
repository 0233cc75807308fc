//! One connection between a TCP relay and a peer (RFC 6062): it is made or accepted, waits, and is bound to a client's connection.
//! From then on bytes move both ways.
//!
//! Nothing is read from one side that the other does not take, but for what a pipe holds: who reads slowly slows the other down.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::addr::{Family, Transport};
use crate::net::sys::Ready;
use crate::net::{PIPE_BYTES, Pipe, Pipes, discard, peek, readable_bytes, reset_on_close};
use crate::stream::{DataConnection, Plaintext};
use crate::traffic::Direction;
use crate::turn::ConnectionId;

/// Bytes that move one way in one turn.
const TURN_BYTES: usize = 2 * PIPE_BYTES;
/// Bytes that are charged, or copied, at once.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;
/// How long a connection that one side has ended may be silent.
pub(super) const HALF_CLOSED_MICROS: u64 = 120_000_000;

/// A connection with a peer.
pub(super) struct Link {
    pub(super) id: ConnectionId,
    peer: TcpStream,
    pub(super) family: Family,
    /// What the peer's socket is ready for, as far as is known.
    peer_ready: Readiness,
    pub(super) stage: LinkStage,
    /// Whether it waits for its turn.
    pub(super) is_listed: bool,
    /// When it is looked at again though nothing has come.
    pub(super) due_micros: Option<u64>,
    /// When bytes have last moved.
    pub(super) moved_micros: u64,
}

/// How far it has come.
pub(super) enum LinkStage {
    /// The peer has not answered yet.
    Connecting,
    /// It waits for a client. What the peer sends waits in the kernel.
    Unbound { brought_by_peer: bool },
    /// Its bytes move.
    Bound(Box<Bound>),
}

/// The client's side, and both ways.
pub(super) struct Bound {
    client: DataConnection,
    pub(super) transport: Transport,
    client_ready: Readiness,
    to_peer: Way,
    to_client: Way,
}

#[derive(Clone, Copy, Default)]
struct Readiness {
    readable: bool,
    writable: bool,
}

/// One way.
#[derive(Default)]
struct Way {
    /// What goes first, and how much of it has gone: what came with the ConnectionBind, or what it is answered with.
    head: Vec<u8>,
    head_gone: usize,
    /// Holds what one side has given and the other not taken yet.
    pipe: Option<Pipe>,
    /// Bytes that are paid for and have not come yet.
    paid: usize,
    /// The source has sent all.
    is_over: bool,
    /// The sink knows.
    is_done: bool,
}

/// What a turn has come to.
pub(super) struct TurnOver {
    pub(super) to_peer: usize,
    pub(super) to_client: usize,
    pub(super) state: LinkState,
}

/// What becomes of a link after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// There is more that can move at once.
    GoesOn,
    /// It waits for one of its sides.
    Waits,
    /// It waits for its bandwidth.
    Paused,
    /// All has moved, and both sides know.
    Done,
    /// One of the sides is broken.
    Broken,
}

/// What stops a way in its turn.
enum Stop {
    /// The source has nothing, or the sink has no room.
    Blocked,
    /// The bandwidth is used up.
    Paused,
    /// A signal came in between.
    Interrupted,
    /// A side is broken.
    Broken,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// What a turn needs of others.
pub(super) struct Means<'m> {
    pub(super) pipes: &'m mut Pipes,
    /// Room for bytes that are copied, [`CHUNK_BYTES`] long.
    pub(super) scratch: &'m mut [u8],
    /// Pays for so many bytes; `None` where nothing is limited.
    pub(super) pay: Option<&'m mut dyn FnMut(Direction, usize) -> bool>,
}

impl Link {
    pub(super) fn new(id: ConnectionId, peer: OwnedFd, family: Family, stage: LinkStage) -> Self {
        let peer_ready = Readiness::default();
        Self { id, peer: peer.into(), family, peer_ready, stage, is_listed: false, due_micros: None, moved_micros: 0 }
    }

    pub(super) fn peer_fd(&self) -> BorrowedFd<'_> {
        self.peer.as_fd()
    }

    pub(super) fn client_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            LinkStage::Bound(bound) => Some(bound.client.fd()),
            LinkStage::Connecting | LinkStage::Unbound { .. } => None,
        }
    }

    /// Binds it to a client's connection, which has sent `rest` already and gets `success` first.
    pub(super) fn bind(&mut self, client: DataConnection, transport: Transport, rest: Vec<u8>, success: Vec<u8>) {
        let way = |head| Way { head, ..Way::default() };
        let client_ready = Readiness { readable: true, writable: true };
        let (to_peer, to_client) = (way(rest), way(success));
        self.stage = LinkStage::Bound(Box::new(Bound { client, transport, client_ready, to_peer, to_client }));
        self.peer_ready = client_ready;
    }

    /// Notes what a side has become ready for.
    pub(super) fn note_ready(&mut self, of_client: bool, ready: Ready) {
        let readiness = match &mut self.stage {
            LinkStage::Bound(bound) if of_client => &mut bound.client_ready,
            _ => &mut self.peer_ready,
        };
        // A side that is broken shows that to who reads or writes.
        readiness.readable |= ready.readable || ready.error;
        readiness.writable |= ready.writable || ready.error;
    }

    /// Whether a peer has brought it, and ended it before anybody has bound it and without a byte: nobody misses it.
    pub(super) fn has_gone_silently(&self) -> bool {
        matches!(self.stage, LinkStage::Unbound { brought_by_peer: true })
            && self.peer_ready.readable
            && matches!(peek(&self.peer, &mut [0]), Ok(0))
    }

    /// Whether one side has ended and the other not.
    pub(super) fn is_half_closed(&self) -> bool {
        matches!(&self.stage, LinkStage::Bound(bound) if bound.to_peer.is_done != bound.to_client.is_done)
    }

    /// Closes it so that both sides know that not all has come.
    pub(super) fn reset(&self) {
        reset_on_close(&self.peer);
        if let Some(client) = self.client_fd() {
            reset_on_close(&client);
        }
    }

    /// Moves what can be moved, up to a turn's share.
    pub(super) fn turn(&mut self, means: &mut Means<'_>) -> TurnOver {
        let LinkStage::Bound(bound) = &mut self.stage else {
            return TurnOver { to_peer: 0, to_client: 0, state: LinkState::Waits };
        };
        let Bound { client, client_ready, to_peer, to_client, .. } = &mut **bound;
        let mut up = Mover { way: to_peer, direction: Direction::ToPeers, moved: 0 };
        let upward = up.run(|mover| match client.is_encrypted() {
            true => mover.decrypted(client, client_ready, (&self.peer, &mut self.peer_ready), means),
            false => mover.plain(client.fd(), client_ready, (self.peer.as_fd(), &mut self.peer_ready), means),
        });
        if matches!(upward, Ok(true)) {
            let _ = self.peer.shutdown(Shutdown::Write);
            up.way.is_done = true;
        }
        let to_peer_moved = up.moved;
        let mut down = Mover { way: to_client, direction: Direction::ToClients, moved: 0 };
        let downward = down.run(|mover| match client.is_encrypted() {
            true => mover.encrypted((&self.peer, &mut self.peer_ready), client, client_ready, means),
            false => mover.plain(self.peer.as_fd(), &mut self.peer_ready, (client.fd(), client_ready), means),
        });
        if matches!(downward, Ok(true)) {
            client.end_sending();
            down.way.is_done = true;
        }
        let to_client_moved = down.moved;
        let state = match (upward, downward) {
            (Err(Stop::Broken), _) | (_, Err(Stop::Broken)) => LinkState::Broken,
            _ if bound.to_peer.is_done && bound.to_client.is_done => LinkState::Done,
            (Ok(false), _) | (_, Ok(false)) => LinkState::GoesOn,
            (Err(Stop::Paused), _) | (_, Err(Stop::Paused)) => LinkState::Paused,
            _ => LinkState::Waits,
        };
        TurnOver { to_peer: to_peer_moved, to_client: to_client_moved, state }
    }
}

/// A way in its turn.
struct Mover<'w> {
    way: &'w mut Way,
    direction: Direction,
    moved: usize,
}

impl Mover<'_> {
    /// Moves until something stops it, or the turn is over (`false`), or all has moved (`true`).
    fn run(&mut self, mut step: impl FnMut(&mut Self) -> Result<(), Stop>) -> Result<bool, Stop> {
        while !self.way.is_done {
            if self.moved >= TURN_BYTES {
                return Ok(false);
            }
            match step(self) {
                Err(Stop::Interrupted) => return Ok(false),
                other => other?,
            }
            if self.way.is_over && self.way.pipe.is_none() && self.way.head.is_empty() {
                return Ok(true);
            }
        }
        Err(Stop::Blocked)
    }

    /// One step between two sockets.
    fn plain(
        &mut self,
        source: BorrowedFd<'_>,
        source_ready: &mut Readiness,
        (sink, sink_ready): (BorrowedFd<'_>, &mut Readiness),
        means: &mut Means<'_>,
    ) -> Result<(), Stop> {
        if !sink_ready.writable {
            return Err(Stop::Blocked);
        }
        if !self.way.head.is_empty() {
            return self.send_head(sink_ready, |bytes| Ok(rustix::net::send(sink, bytes, SEND)?));
        }
        if let Some(pipe) = &mut self.way.pipe {
            self.moved += unless_blocked(pipe.drain(sink), &mut sink_ready.writable)?;
            if let Some(pipe) = self.way.pipe.take_if(|pipe| pipe.held() == 0) {
                means.pipes.give_back(pipe);
            }
            return Ok(());
        }
        if !source_ready.readable || self.way.is_over {
            return Err(Stop::Blocked);
        }
        let most = self.pay(source, means)?;
        let Some(mut pipe) = means.pipes.take() else {
            return self.copy(source, source_ready, (sink, sink_ready), means, most);
        };
        match unless_blocked(pipe.fill(source, most), &mut source_ready.readable) {
            Ok(0) => {
                self.way.is_over = true;
                means.pipes.give_back(pipe);
                Ok(())
            }
            Ok(count) => {
                self.way.paid = self.way.paid.saturating_sub(count);
                self.way.pipe = Some(pipe);
                Ok(())
            }
            Err(stop) => {
                means.pipes.give_back(pipe);
                Err(stop)
            }
        }
    }

    /// Without a pipe: bytes stay with the source until the sink has taken them.
    fn copy(
        &mut self,
        source: BorrowedFd<'_>,
        source_ready: &mut Readiness,
        (sink, sink_ready): (BorrowedFd<'_>, &mut Readiness),
        means: &mut Means<'_>,
        most: usize,
    ) -> Result<(), Stop> {
        let room = most.min(means.scratch.len());
        let room = means.scratch.get_mut(..room).unwrap_or_default();
        let seen = unless_blocked(peek(source, room), &mut source_ready.readable)?;
        let bytes = room.get_mut(..seen).unwrap_or_default();
        if bytes.is_empty() {
            self.way.is_over = true;
            return Ok(());
        }
        let sent =
            unless_blocked(rustix::net::send(sink, bytes, SEND).map_err(io::Error::from), &mut sink_ready.writable)?;
        let taken = bytes.get_mut(..sent).unwrap_or_default();
        discard(source, taken)?;
        self.way.paid = self.way.paid.saturating_sub(sent);
        self.moved += sent;
        Ok(())
    }

    /// One step from a client over TLS to its peer.
    fn decrypted(
        &mut self,
        client: &mut DataConnection,
        client_ready: &mut Readiness,
        (peer, peer_ready): (&TcpStream, &mut Readiness),
        means: &mut Means<'_>,
    ) -> Result<(), Stop> {
        if !peer_ready.writable {
            return Err(Stop::Blocked);
        }
        if !self.way.head.is_empty() {
            return self.send_head(peer_ready, |bytes| Ok(rustix::net::send(peer, bytes, SEND)?));
        }
        // What is known to have nothing holds nothing that was decrypted either.
        if !client_ready.readable || self.way.is_over {
            return Err(Stop::Blocked);
        }
        let sent = match client.plaintext()? {
            Plaintext::Nothing => {
                client_ready.readable = false;
                return Err(Stop::Blocked);
            }
            Plaintext::End => {
                self.way.is_over = true;
                return Ok(());
            }
            Plaintext::Bytes(bytes) => {
                let most = bytes.len().min(CHUNK_BYTES);
                self.pay_for(most, means)?;
                let bytes = bytes.get(..most).unwrap_or_default();
                unless_blocked(rustix::net::send(peer, bytes, SEND).map_err(io::Error::from), &mut peer_ready.writable)?
            }
        };
        client.consume(sent);
        self.way.paid = self.way.paid.saturating_sub(sent);
        self.moved += sent;
        Ok(())
    }

    /// One step from a peer to its client over TLS.
    fn encrypted(
        &mut self,
        (peer, peer_ready): (&TcpStream, &mut Readiness),
        client: &mut DataConnection,
        client_ready: &mut Readiness,
        means: &mut Means<'_>,
    ) -> Result<(), Stop> {
        if !client_ready.writable {
            return Err(Stop::Blocked);
        }
        // One record at a time: what is encrypted and not sent is all that is kept.
        if client.wants_write() {
            unless_blocked(client.flush(), &mut client_ready.writable)?;
        }
        if !self.way.head.is_empty() {
            return self.send_head(client_ready, |bytes| client.write(bytes));
        }
        if !peer_ready.readable || self.way.is_over {
            return Err(Stop::Blocked);
        }
        let most = self.pay(peer.as_fd(), means)?.min(means.scratch.len());
        let room = means.scratch.get_mut(..most).unwrap_or_default();
        let seen = unless_blocked(peek(peer.as_fd(), room), &mut peer_ready.readable)?;
        let bytes = room.get_mut(..seen).unwrap_or_default();
        if bytes.is_empty() {
            client.queue_notice_of_end();
            unless_blocked(client.flush(), &mut client_ready.writable)?;
            self.way.is_over = true;
            return Ok(());
        }
        let taken = unless_blocked(client.write(bytes), &mut client_ready.writable)?;
        discard(peer.as_fd(), bytes.get_mut(..taken).unwrap_or_default())?;
        self.way.paid = self.way.paid.saturating_sub(taken);
        self.moved += taken;
        Ok(())
    }

    fn send_head(
        &mut self,
        sink_ready: &mut Readiness,
        send: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> Result<(), Stop> {
        let rest = self.way.head.get(self.way.head_gone..).unwrap_or_default();
        self.way.head_gone += unless_blocked(send(rest), &mut sink_ready.writable)?;
        if self.way.head_gone >= self.way.head.len() {
            (self.way.head, self.way.head_gone) = (Vec::new(), 0);
        }
        Ok(())
    }

    /// Pays for what is there to be read. Returns how much may be.
    fn pay(&mut self, source: BorrowedFd<'_>, means: &mut Means<'_>) -> Result<usize, Stop> {
        if means.pay.is_none() {
            return Ok(PIPE_BYTES);
        }
        // At the end there is nothing to be read, and that has to be noticed.
        let most = readable_bytes(source)?.clamp(1, CHUNK_BYTES);
        self.pay_for(most, means)?;
        Ok(most)
    }

    fn pay_for(&mut self, bytes: usize, means: &mut Means<'_>) -> Result<(), Stop> {
        let Some(pay) = &mut means.pay else { return Ok(()) };
        if bytes > self.way.paid {
            if !pay(self.direction, bytes - self.way.paid) {
                return Err(Stop::Paused);
            }
            self.way.paid = bytes;
        }
        Ok(())
    }
}

const SEND: rustix::net::SendFlags = rustix::net::SendFlags::NOSIGNAL;

/// What came of a call; one that would block shows that its side is not ready.
fn unless_blocked<T>(result: io::Result<T>, ready: &mut bool) -> Result<T, Stop> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            *ready = false;
            Err(Stop::Blocked)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Stop::Interrupted),
        result => Ok(result?),
    }
}
