//! Stream clients of one worker: accepting, reading frames, writing, and closing the idle ones.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::datagrams::Payload;
use super::plan::Pieces;
use super::token::Token;
use super::{ListenerSocket, Shortage, Worker};
use crate::addr::{ClientAddr, FiveTuple, Transport};
use crate::clock::Now;
use crate::config::Streams;
use crate::listener::framing::{MAX_UNALLOCATED_FRAME, first_frame};
use crate::listener::{Connection, ConnectionPermit, FrameEnd, Full, ReadError, WriteState};
use crate::net::sys::{Interest, Ready};
use crate::net::{Span, tune_accepted};
use crate::reject::Dropped;
use crate::turn::{Client, ClientLink};

/// Connections accepted per wake-up of a listener.
const ACCEPT_BURST: usize = 32;
/// How long a listener rests when the process is out of descriptors.
const ACCEPT_PAUSE_MICROS: u64 = 100_000;
/// Marks the link of a stream client.
const STREAM_LINK: u64 = 1 << 63;

struct Stream {
    connection: Connection,
    client: Client,
    pieces: Vec<Span>,
    frames: Vec<FrameEnd>,
    blocked: bool,
    heard: bool,
    last_heard_micros: u64,
    /// What it is ready for, while it waits for its turn.
    waiting: Option<Ready>,
    _permit: ConnectionPermit,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    stream: Option<Box<Stream>>,
}

/// A worker's stream connections.
pub(super) struct StreamTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
    dirty: Vec<u32>,
    /// Connections in the order their first message is due, and in the order their silence is judged.
    unheard: VecDeque<(u64, u32, u32)>,
    idle: VecDeque<(u64, u32, u32)>,
    handshake_micros: u64,
    idle_micros: u64,
    resting_listeners: Vec<(u64, u32)>,
    /// Connections that wait for their turn.
    waiting: VecDeque<(u32, u32)>,
}

impl StreamTable {
    pub(super) fn new(options: &Streams) -> Self {
        let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX >> 1);
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            dirty: Vec::new(),
            unheard: VecDeque::new(),
            idle: VecDeque::new(),
            handshake_micros: micros(options.handshake_timeout),
            idle_micros: micros(options.idle_timeout),
            resting_listeners: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Queues a frame for a stream client; it is written when the batch is flushed.
    pub(super) fn queue_frame(&mut self, link: ClientLink, frame: Pieces, droppable: bool) {
        let (index, generation) = stream_of(link);
        let Some(stream) = self.get_mut(index, generation) else { return };
        let was_clean = stream.frames.is_empty();
        stream.pieces.extend(frame.spans());
        stream.frames.push(FrameEnd { piece: stream.pieces.len(), droppable });
        if was_clean {
            self.dirty.push(index);
        }
    }

    /// Lets a connection wait for its turn; one that waits already keeps its place.
    pub(super) fn wait_for_turn(&mut self, index: u32, generation: u32, ready: Ready) {
        let Some(stream) = self.get_mut(index, generation) else { return };
        match &mut stream.waiting {
            Some(waiting) => {
                waiting.readable |= ready.readable;
                waiting.writable |= ready.writable;
                waiting.error |= ready.error;
            }
            None => {
                stream.waiting = Some(ready);
                self.waiting.push_back((index, generation));
            }
        }
    }

    /// How many wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next whose turn it is; `None` for it when it has been closed meanwhile.
    pub(super) fn next_turn(&mut self) -> Option<(u32, u32, Option<Ready>)> {
        let (index, generation) = self.waiting.pop_front()?;
        let ready = self.get_mut(index, generation).and_then(|stream| stream.waiting.take());
        Some((index, generation, ready))
    }

    /// When the next connection may have to be closed, or a listener wakes.
    pub(super) fn next_timeout(&self) -> Option<u64> {
        let queues = [self.unheard.front(), self.idle.front()].into_iter().flatten().map(|entry| entry.0);
        queues.chain(self.resting_listeners.iter().map(|entry| entry.0)).min()
    }

    fn get_mut(&mut self, index: u32, generation: u32) -> Option<&mut Stream> {
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation == generation { slot.stream.as_deref_mut() } else { None }
    }

    fn insert(
        &mut self,
        now: Now,
        connection: Connection,
        five_tuple: FiveTuple,
        permit: ConnectionPermit,
    ) -> (u32, u32) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        let link = ClientLink(STREAM_LINK | (u64::from(index) << 32) | u64::from(generation));
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.stream = Some(Box::new(Stream {
                connection,
                client: Client { five_tuple, link },
                pieces: Vec::new(),
                frames: Vec::new(),
                blocked: false,
                heard: false,
                last_heard_micros: now.micros,
                waiting: None,
                _permit: permit,
            }));
            self.open += 1;
        }
        self.unheard.push_back((now.micros + self.handshake_micros, index, generation));
        (index, generation)
    }

    fn remove(&mut self, index: u32, generation: u32) -> Option<Box<Stream>> {
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation != generation {
            return None;
        }
        let stream = slot.stream.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.open -= 1;
        Some(stream)
    }
}

fn stream_of(link: ClientLink) -> (u32, u32) {
    ((link.0 >> 32) as u32 & 0x7FFF_FFFF, link.0 as u32)
}

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
                        self.counters.connections_refused.add(1);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)) => {
                    self.context.shortages.note(now.micros, Shortage::Sockets);
                    return self.rest_listener(now, listener);
                }
                // The client gave up in between.
                Err(_) => {}
            }
        }
    }

    fn admit(&mut self, now: Now, transport: Transport, socket: OwnedFd, remote: SocketAddr) -> Option<()> {
        let client = ClientAddr::new(remote);
        let permit = match self.context.connection_limits.admit(client.get().ip()) {
            Ok(permit) => permit,
            Err(full) => {
                let shortage = match full {
                    Full::InTotal => Shortage::Connections,
                    Full::OfAddress => Shortage::ConnectionsOfAddress,
                };
                self.context.shortages.note(now.micros, shortage);
                return None;
            }
        };
        tune_accepted(&socket).ok()?;
        let socket = std::net::TcpStream::from(socket);
        let five_tuple = FiveTuple { transport, client, server: socket.local_addr().ok()? };
        let tls = match transport {
            Transport::Tls => Some(self.context.tls.load_full()?),
            _ => None,
        };
        let connection = Connection::new(socket, tls.as_ref()).ok()?;
        let (index, generation) = self.streams.insert(now, connection, five_tuple, permit);
        let token = Token::Stream { index, generation }.pack();
        let stream = self.streams.get_mut(index, generation)?;
        if self.epoll.add(stream.connection.fd(), token, Interest::Read).is_err() {
            self.streams.remove(index, generation);
            return None;
        }
        self.counters.connections.set(self.streams.open as u64);
        Some(())
    }

    /// Out of descriptors: a level-triggered listener would spin, so it rests a moment.
    fn rest_listener(&mut self, now: Now, listener: u32) {
        if let Some(ListenerSocket::Tcp { socket, .. }) = self.listeners.get(listener as usize) {
            use std::os::fd::AsFd;
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
                use std::os::fd::AsFd;
                let _ = self.epoll.modify(socket.as_fd(), Token::Listener(listener).pack(), Interest::Read);
            }
        }
    }

    pub(super) fn on_stream(&mut self, now: Now, index: u32, generation: u32, ready: Ready) {
        if ready.writable {
            let limits = self.context.streams;
            let Some(stream) = self.streams.get_mut(index, generation) else { return };
            let (state, dropped) = stream.connection.on_writable(now.micros, &limits);
            self.counters.stream_queue_drops.add(dropped);
            self.after_write(now, index, generation, state);
        }
        if ready.readable || ready.error {
            self.read_stream(now, index, generation);
        }
    }

    fn read_stream(&mut self, now: Now, index: u32, generation: u32) {
        // One slot for the plaintext, one for the ciphertext.
        self.make_room(now, 2);
        let (slot, cipher) = (self.arena.slot(self.next_slot), self.arena.slot(self.next_slot + 1));
        let Some(stream) = self.streams.get_mut(index, generation) else { return };
        let was_established = stream.connection.established();
        let read = match stream.connection.read(&mut self.arena, slot, cipher) {
            Ok(read) => read,
            Err(error) => {
                if matches!(error, ReadError::Tls) && !was_established {
                    self.counters.tls_failures.add(1);
                }
                return self.close_stream(now, index, generation);
            }
        };
        self.next_slot += 1;
        let client = stream.client;
        let mut at = 0;
        let mut frames = 0;
        while at < read.len as usize {
            let rest = read.part(at, read.len as usize - at);
            let frame = match first_frame(self.arena.get(rest), self.frame_max(&client, self.arena.get(rest))) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => {
                    self.drop_packet(Dropped::Malformed);
                    return self.close_stream(now, index, generation);
                }
            };
            let message = Payload { span: rest.part(0, frame.len), room: 0, tos: 0 };
            self.on_client_message(now, &client, message);
            if self.streams.get_mut(index, generation).is_none() {
                // Its answers could not be written: what it asks for next would outlive it.
                return;
            }
            at += frame.next;
            frames += 1;
        }
        let Some(stream) = self.streams.get_mut(index, generation) else { return };
        let rest = read.part(at, (read.len as usize).saturating_sub(at));
        stream.connection.keep(self.arena.get(rest));
        if frames > 0 {
            stream.heard = true;
            stream.last_heard_micros = now.micros;
        }
        // A handshake flight may have found the socket full.
        let state = stream.connection.state();
        self.after_write(now, index, generation, state);
    }

    /// Strangers may only send what a request needs.
    fn frame_max(&self, client: &Client, bytes: &[u8]) -> usize {
        let announced = bytes.get(2..4).map_or(0, |len| len.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)));
        if announced + 20 <= MAX_UNALLOCATED_FRAME || self.server.has_allocation(&client.five_tuple) {
            usize::MAX
        } else {
            MAX_UNALLOCATED_FRAME
        }
    }

    pub(super) fn flush_streams(&mut self, now: Now) {
        let mut dirty = std::mem::take(&mut self.streams.dirty);
        for index in dirty.drain(..) {
            let limits = self.context.streams;
            let Some(slot) = self.streams.slots.get_mut(index as usize) else { continue };
            let generation = slot.generation;
            let Some(stream) = slot.stream.as_deref_mut() else { continue };
            let memory = self.arena.bytes();
            let (state, dropped) = stream.connection.send(memory, &stream.pieces, &stream.frames, now.micros, &limits);
            stream.pieces.clear();
            stream.frames.clear();
            self.counters.stream_queue_drops.add(dropped);
            self.after_write(now, index, generation, state);
        }
        if self.streams.dirty.is_empty() {
            self.streams.dirty = dirty;
        }
    }

    fn after_write(&mut self, now: Now, index: u32, generation: u32, state: WriteState) {
        let Some(stream) = self.streams.get_mut(index, generation) else { return };
        let blocked = match state {
            WriteState::Broken => return self.close_stream(now, index, generation),
            WriteState::Blocked => true,
            WriteState::Done => false,
        };
        if blocked != stream.blocked {
            stream.blocked = blocked;
            let interest = if blocked { Interest::ReadWrite } else { Interest::Read };
            let token = Token::Stream { index, generation }.pack();
            let _ = self.epoll.modify(stream.connection.fd(), token, interest);
        }
    }

    /// Closes connections without a first message in time, and those that are silent and have no allocation.
    pub(super) fn close_idle_streams(&mut self, now: Now) {
        while let Some((due, index, generation)) = self.streams.unheard.front().copied() {
            if due > now.micros {
                break;
            }
            self.streams.unheard.pop_front();
            let idle_micros = self.streams.idle_micros;
            match self.streams.get_mut(index, generation) {
                Some(stream) if stream.heard => {
                    let due = stream.last_heard_micros + idle_micros;
                    self.streams.idle.push_back((due, index, generation));
                }
                Some(_) => self.close_stream(now, index, generation),
                None => {}
            }
        }
        while let Some((due, index, generation)) = self.streams.idle.front().copied() {
            if due > now.micros {
                break;
            }
            self.streams.idle.pop_front();
            let idle_micros = self.streams.idle_micros;
            let Some(stream) = self.streams.get_mut(index, generation) else { continue };
            let quiet_until = stream.last_heard_micros + idle_micros;
            let five_tuple = stream.client.five_tuple;
            if self.server.has_allocation(&five_tuple) {
                self.streams.idle.push_back((now.micros + idle_micros, index, generation));
            } else if quiet_until > now.micros {
                self.streams.idle.push_back((quiet_until, index, generation));
            } else {
                self.close_stream(now, index, generation);
            }
        }
    }

    /// Closes the connection a client came by, if it came by one.
    pub(super) fn close_client(&mut self, now: Now, client: &Client) {
        if client.five_tuple.transport.is_stream() {
            let (index, generation) = stream_of(client.link);
            self.close_stream(now, index, generation);
        }
    }

    /// Closes every connection at the end, each so that its client sees an end and no reset.
    pub(super) fn close_streams(&mut self) {
        for slot in &mut self.streams.slots {
            if let Some(stream) = slot.stream.take() {
                stream.connection.close();
            }
        }
    }

    fn close_stream(&mut self, now: Now, index: u32, generation: u32) {
        if let Some(stream) = self.streams.remove(index, generation) {
            self.server.client_gone(now, &stream.client.five_tuple, &mut self.relays);
            self.counters.connections.set(self.streams.open as u64);
        }
    }
}
