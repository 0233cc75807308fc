//! Stream clients of one worker: accepting, reading frames, writing, and closing those that take more than their share.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::inbox::Payload;
use super::listeners::ListenerSocket;
use super::stream_table::Line;
use super::token::Token;
use super::{Shortage, Worker};
use crate::addr::{ClientAddr, FiveTuple, Transport};
use crate::clock::Now;
use crate::counters::Cut;
use crate::net::sys::{Interest, Ready, bound_stream_buffers, clocks, trim_memory, widen_stream_buffers};
use crate::net::tune_accepted;
use crate::reject::Dropped;
use crate::stream::framing::{MAX_UNALLOCATED_FRAME, first_frame};
use crate::stream::{Connection, ConnectionPermit, Full, ReadError, WriteState};
use crate::turn::{Client, Path, StreamId};

/// Connections accepted per wake-up of a listener.
const ACCEPT_BURST: usize = 32;
/// How long a listener rests when the process is out of descriptors.
const ACCEPT_PAUSE_MICROS: u64 = 100_000;
/// Messages of one connection that are handled in its turn; as many datagrams leave with one call.
const MESSAGES_PER_TURN: u32 = 64;
/// How long handshakes are gone on with in one round of the loop; one of them may last longer.
const HANDSHAKES_MICROS_PER_ROUND: u64 = 1000;
/// Connections closed in one round for each of the reasons that time brings; each costs some system calls.
const CLOSED_PER_ROUND: usize = 16;
/// Bytes read at once from a connection with an allocation, and from one without: requests are short.
const READ_MAX: usize = 64 * 1024;
const STRANGER_READ_MAX: usize = 4 * 1024;
/// Answers that may wait for a client to read them. Beyond it one with an allocation is no longer read, and any other closed.
const UNREAD_ANSWERS_MAX: usize = 16 * 1024;
/// Answers that still wait when it is read again.
const UNREAD_ANSWERS_LOW: usize = 4 * 1024;

impl Worker {
    pub(super) fn on_accept(&mut self, now: Now, listener: u32) {
        for _ in 0..ACCEPT_BURST {
            let Some(ListenerSocket::Tcp { socket, transport, .. }) = self.listeners.get(listener as usize) else {
                return;
            };
            let (transport, accepted) = (*transport, socket.accept());
            match accepted {
                Ok((socket, remote)) => {
                    if self.admit(now, transport, socket.into(), remote).is_none() {
                        self.observers.counters().connections_refused.add(1);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if has_run_out(&error) => {
                    self.observers.note_shortage(now.micros, Shortage::Sockets);
                    return self.rest_listener(now, listener);
                }
                // The client gave up in between.
                Err(_) => {}
            }
        }
    }

    fn admit(&mut self, now: Now, transport: Transport, socket: OwnedFd, remote: SocketAddr) -> Option<()> {
        let client = ClientAddr::new(remote);
        let Ok(socket) = self.context.descriptors.admit(socket) else {
            self.observers.note_shortage(now.micros, Shortage::Sockets);
            return None;
        };
        let permit = self.place_for(now, client)?;
        tune_accepted(&socket).and_then(|()| bound_stream_buffers(socket.as_fd())).ok()?;
        let socket = std::net::TcpStream::from(socket);
        let five_tuple = FiveTuple { transport, client, server: socket.local_addr().ok()? };
        let tls = if transport.is_encrypted() { Some(self.context.tls.load_full()?) } else { None };
        let connection = Connection::new(socket, tls.as_ref()).ok()?;
        let id = self.streams.insert(now, connection, five_tuple, permit);
        let stream = self.streams.get(id)?;
        if self.strangers.add(stream.connection.fd(), token(id), Interest::Read).is_err() {
            self.streams.remove(id);
            return None;
        }
        self.observers.counters().connections.set(self.streams.open() as u64);
        Some(())
    }

    /// A place for a new connection. When all are taken, the connection that has been without an allocation for longest makes room.
    fn place_for(&mut self, now: Now, client: ClientAddr) -> Option<ConnectionPermit> {
        let ip = client.get().ip();
        let mut place = self.context.connection_limits.admit(ip);
        if matches!(place, Err(Full::InTotal))
            && let Some(oldest) = self.next_stranger(now, None)
        {
            self.cut_stream(now, oldest, Cut::Evicted);
            place = self.context.connection_limits.admit(ip);
        }
        let shortage = match place {
            Ok(permit) => return Some(permit),
            Err(Full::InTotal) => Shortage::Connections,
            Err(Full::OfAddress) => Shortage::ConnectionsOfAddress,
            Err(Full::OfNetwork) => Shortage::ConnectionsOfNetwork,
        };
        self.observers.note_shortage(now.micros, shortage);
        None
    }

    /// The connection that has been without an allocation for longest; with `due`, only if it has been so for too long.
    fn next_stranger(&mut self, now: Now, due: Option<Now>) -> Option<StreamId> {
        loop {
            let id = self.streams.oldest_stranger(due)?;
            if !self.note_allocation(now, id) {
                return Some(id);
            }
        }
    }

    /// Notes whether a connection has an allocation; returns that.
    fn note_allocation(&mut self, now: Now, id: StreamId) -> bool {
        let Some(stream) = self.streams.get(id) else { return false };
        let holds = self.server.has_allocation(&stream.client.five_tuple);
        if holds != stream.holds {
            let fd = stream.connection.fd();
            if holds {
                widen_stream_buffers(fd);
            }
            let [before, after] = [!holds, holds].map(|holds| if holds { &*self.epoll } else { &self.strangers });
            let moved = before.remove(fd).and_then(|()| after.add(fd, token(id), stream.interest));
            self.streams.set_holds(now, id, holds);
            if moved.is_err() {
                // Nothing would ever be heard of it again.
                self.streams.end(id);
            }
        }
        holds
    }

    /// Out of descriptors or memory: a level-triggered listener would spin, so it rests a moment.
    fn rest_listener(&mut self, now: Now, listener: u32) {
        if let Some(ListenerSocket::Tcp { socket, .. }) = self.listeners.get(listener as usize) {
            let _ = self.epoll.modify(socket.as_fd(), Token::Listener(listener).pack(), Interest::None);
            self.streams.resting_listeners.push((now.micros + ACCEPT_PAUSE_MICROS, listener));
        }
    }

    pub(super) fn resume_accepting(&mut self, now: Now) {
        while let Some((due, listener)) = self.streams.resting_listeners.first().copied() {
            if due > now.micros {
                return;
            }
            self.streams.resting_listeners.remove(0);
            if let Some(ListenerSocket::Tcp { socket, .. }) = self.listeners.get(listener as usize) {
                let _ = self.epoll.modify(socket.as_fd(), Token::Listener(listener).pack(), Interest::Read);
            }
        }
    }

    /// The turn of a connection.
    pub(super) fn on_stream(&mut self, now: Now, id: StreamId, ready: Ready) {
        if ready.writable {
            let limits = self.context.streams;
            let Some(stream) = self.streams.get_mut(id) else { return };
            let (state, dropped) = stream.connection.on_writable(now.micros, &limits);
            self.observers.counters().stream_queue_drops.add(dropped);
            self.after_write(now, id, state);
        }
        if ready.readable || ready.error {
            self.read_stream(now, id);
        }
    }

    /// Goes on with the handshakes that wait for it, in turn, for as long as one round of the loop allows.
    pub(super) fn shake_hands(&mut self, now: Now) {
        let mut until_micros = None;
        for _ in 0..self.streams.waiting(Line::Handshakes) {
            // A handshake costs what a hundred packets do, one more look at the clock next to nothing.
            let clock = clocks().0;
            if clock > *until_micros.get_or_insert(clock + HANDSHAKES_MICROS_PER_ROUND) {
                break;
            }
            if let Some((id, ready)) = self.streams.next_turn(Line::Handshakes) {
                self.on_stream(now, id, ready);
            }
        }
    }

    /// Reads from a connection, unless frames are left of what was read, and handles as many as one turn allows.
    fn read_stream(&mut self, now: Now, id: StreamId) {
        // One slot for the plaintext, one for the ciphertext.
        self.make_room(now, 2);
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.is_held_back() || stream.is_ending {
            return;
        }
        let was_established = stream.connection.established();
        let most = if stream.holds { READ_MAX } else { STRANGER_READ_MAX };
        let has_more = std::mem::take(&mut stream.has_more);
        let read = self.inbox.read(|arena, slot, cipher| {
            if has_more {
                Ok(stream.connection.unparsed(arena, slot))
            } else {
                stream.connection.read(arena, slot, cipher, most)
            }
        });
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                if matches!(error, ReadError::Tls) && !was_established {
                    self.observers.counters().tls_failures.add(1);
                }
                return self.streams.end(id);
            }
        };
        let client = stream.client;
        let until = self.spent + MESSAGES_PER_TURN;
        let mut at = 0;
        while at < read.len as usize && self.spent < until {
            let rest = read.part(at, read.len as usize - at);
            // Strangers may only send what a request needs.
            let is_allowed = |len| len <= MAX_UNALLOCATED_FRAME || self.server.has_allocation(&client.five_tuple);
            let frame = match first_frame(self.inbox.bytes(rest), is_allowed) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => {
                    self.observers.counters().drop_packet(Dropped::Malformed);
                    return self.streams.end(id);
                }
            };
            let message = Payload { span: rest.part(0, frame.len), room: 0, tos: 0 };
            let room = self.on_client_message(now, &client, Some(frame.kind), message);
            self.make_room_again(now, room);
            at += frame.next;
            if self.streams.get(id).is_none() {
                // Its answers could not be written: what it asks for next would outlive it.
                return;
            }
        }
        let Some(stream) = self.streams.get_mut(id) else { return };
        let rest = read.part(at, (read.len as usize).saturating_sub(at));
        stream.connection.keep(self.inbox.bytes(rest));
        stream.has_more = self.spent >= until && rest.len > 0;
        if at > 0 {
            stream.heard = true;
            stream.last_heard_micros = now.micros;
        }
        let (has_more, holds, state) = (stream.has_more, stream.holds, stream.connection.state());
        if at > 0 && !holds {
            self.note_allocation(now, id);
        }
        if has_more {
            self.streams.wait_for_turn(id, Ready::READABLE);
        }
        // A handshake flight may have found the socket full.
        self.after_write(now, id, state);
    }

    pub(super) fn flush_streams(&mut self, now: Now) {
        let mut dirty = std::mem::take(&mut self.streams.dirty);
        for id in dirty.drain(..) {
            let limits = self.context.streams;
            let Some(stream) = self.streams.get_mut(id) else { continue };
            let memory = self.inbox.arena().bytes();
            let (state, dropped) = stream.connection.send(memory, &stream.pieces, &stream.frames, now.micros, &limits);
            stream.pieces.clear();
            stream.frames.clear();
            let is_ending = stream.is_ending;
            self.observers.counters().stream_queue_drops.add(dropped);
            if is_ending {
                self.close_stream(now, id);
            } else {
                self.after_write(now, id, state);
            }
        }
        if self.streams.dirty.is_empty() {
            self.streams.dirty = dirty;
        }
    }

    /// Watches a connection for what it needs next, and stops reading from a client that does not read its answers.
    fn after_write(&mut self, now: Now, id: StreamId, state: WriteState) {
        let Some(stream) = self.streams.get(id) else { return };
        let unread = stream.connection.unread_answers();
        let was_held_back = stream.is_held_back();
        let interest = match state {
            WriteState::Broken => return self.close_stream(now, id),
            WriteState::Done => Interest::Read,
            WriteState::Blocked if unread > UNREAD_ANSWERS_MAX => {
                if !self.server.has_allocation(&stream.client.five_tuple) {
                    return self.cut_stream(now, id, Cut::Unread);
                }
                Interest::Write
            }
            WriteState::Blocked if was_held_back && unread > UNREAD_ANSWERS_LOW => Interest::Write,
            WriteState::Blocked => Interest::ReadWrite,
        };
        let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.interest != interest) else { return };
        stream.interest = interest;
        let (goes_on, is_held_back) = (was_held_back && stream.has_more, stream.is_held_back());
        let epoll = if stream.holds { &*self.epoll } else { &self.strangers };
        let _ = epoll.modify(stream.connection.fd(), token(id), interest);
        if is_held_back {
            self.streams.hold_back(now, id);
        }
        if goes_on {
            self.streams.wait_for_turn(id, Ready::READABLE);
        }
    }

    /// Closes connections without a first message in time, those that are silent and have no allocation, those that have none for
    /// too long whatever they say, and those whose clients do not read. Many that are due at once are closed over several rounds.
    pub(super) fn close_idle_streams(&mut self, now: Now) {
        for _ in 0..CLOSED_PER_ROUND {
            let Some(id) = self.streams.next_unheard(now) else { break };
            self.close_stream(now, id);
        }
        for _ in 0..CLOSED_PER_ROUND {
            let Some(id) = self.streams.next_idle(now) else { break };
            if !self.note_allocation(now, id) && self.streams.is_silent(now, id) {
                self.close_stream(now, id);
            } else {
                self.streams.judge_again(now, id);
            }
        }
        for _ in 0..CLOSED_PER_ROUND {
            let Some(id) = self.next_stranger(now, Some(now)) else { break };
            self.cut_stream(now, id, Cut::Unallocated);
        }
        for _ in 0..CLOSED_PER_ROUND {
            let Some(id) = self.streams.next_unread(now) else { break };
            self.cut_stream(now, id, Cut::Unread);
        }
        if self.streams.shrink() {
            trim_memory();
        }
    }

    /// Closes the connection a client came by, if it came by one.
    pub(super) fn close_client(&mut self, now: Now, client: &Client) {
        match client.path {
            Path::Stream(id) => self.close_stream(now, id),
            Path::Datagrams(_) => {}
        }
    }

    /// Closes every connection at the end, each so that its client sees an end and no reset.
    pub(super) fn close_streams(&mut self) {
        self.streams.drain().for_each(|stream| stream.connection.close());
    }

    /// Closes a connection that takes more than its share, and counts why.
    fn cut_stream(&mut self, now: Now, id: StreamId, why: Cut) {
        self.observers.counters().cut_connection(why);
        if matches!(why, Cut::Unread)
            && let Some(stream) = self.streams.remove(id)
        {
            self.server.client_gone(now, &stream.client.five_tuple, &mut self.relays);
            stream.connection.reset();
            return self.observers.counters().connections.set(self.streams.open() as u64);
        }
        self.close_stream(now, id);
    }

    fn close_stream(&mut self, now: Now, id: StreamId) {
        if let Some(stream) = self.streams.remove(id) {
            self.server.client_gone(now, &stream.client.five_tuple, &mut self.relays);
            stream.connection.close();
            self.observers.counters().connections.set(self.streams.open() as u64);
        }
    }
}

/// Whether a connection could not be accepted for want of descriptors or memory: the next try will be no better.
fn has_run_out(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

fn token(id: StreamId) -> u64 {
    Token::Stream(id).pack()
}
