//! The turn of a connection: what it has to say, frame by frame, and the writing of what is for its client.

use std::fmt;

use super::accept::shortage_of;
use super::place::Refused;
use super::stream::Ending;
use super::{Clients, token};
use crate::clock::Now;
use crate::counters::{BadHeader, Cut, NotPassed};
use crate::net::sys::{Interest, Ready};
use crate::net::{Arena, Span};
use crate::proxy::HeaderError;
use crate::reject::Dropped;
use crate::stream::{Arrived, Progress, ReadError, WriteState};
use crate::turn::framing::{MAX_UNALLOCATED_FRAME, first_frame};
use crate::turn::{Client, MessageKind, Server, StreamId};
use crate::worker::inbox::{Inbox, Payload};
use crate::worker::observers::Observers;

/// Bytes read at once from a connection with an allocation, and from one without: requests are short.
const READ_MAX: usize = 64 * 1024;
const STRANGER_READ_MAX: usize = 4 * 1024;
/// Answers that may wait for a client to read them. Beyond it one with an allocation is no longer read, and any other closed.
const UNREAD_ANSWERS_MAX: usize = 16 * 1024;
/// Answers that still wait when it is read again.
const UNREAD_ANSWERS_LOW: usize = 4 * 1024;

/// What was read from a connection, and how much of it has been taken.
pub(in crate::worker) struct Reading {
    id: StreamId,
    client: Client,
    rest: Span,
    /// Whether a message has been taken.
    heard: bool,
}

impl Reading {
    pub(in crate::worker) fn id(&self) -> StreamId {
        self.id
    }

    pub(in crate::worker) fn client(&self) -> Client {
        self.client
    }

    /// What has not been taken.
    pub(in crate::worker) fn rest(&self) -> Span {
        self.rest
    }
}

impl Clients {
    /// Writes what waits, now that a connection is writable.
    pub(in crate::worker) fn on_writable(&mut self, now: Now, id: StreamId, server: &Server, observers: &Observers) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let (state, dropped) = stream.connection.on_writable(now.micros, &self.from.options);
        observers.counters().stream_queue_drops.add(dropped);
        self.after_write(now, id, state, server, observers);
    }

    /// Reads from a connection, unless frames are left of what was read.
    pub(in crate::worker) fn read(&mut self, id: StreamId, inbox: &mut Inbox) -> Option<Reading> {
        let stream = self.streams.lasting_mut(id).filter(|stream| !stream.is_held_back())?;
        let most = if stream.holds { READ_MAX } else { STRANGER_READ_MAX };
        let has_more = std::mem::take(&mut stream.has_more);
        let read = inbox.read(|arena, slot, cipher| {
            if has_more {
                Ok(stream.connection.unparsed(arena, slot))
            } else {
                stream.connection.read(arena, slot, cipher, most)
            }
        });
        match read {
            Ok(rest) => Some(Reading { id, client: stream.client, rest, heard: false }),
            Err(_) => {
                self.streams.end(id, Ending::Close);
                None
            }
        }
    }

    /// Lets a connection that arrives go on, until it has arrived: then with what it has brought.
    pub(in crate::worker) fn arrive(
        &mut self,
        now: Now,
        id: StreamId,
        inbox: &mut Inbox,
        server: &Server,
        observers: &Observers,
    ) -> Option<Reading> {
        let went_on = self.streams.go_on(now, id, |arriving| {
            let progress = inbox.read(|arena, slot, cipher| arriving.go_on(arena, slot, cipher, STRANGER_READ_MAX))?;
            let Progress::Arrived(arrived) = progress else { return Ok(progress) };
            let by_name = arrived.server_name.as_deref().and_then(|name| server.realm_by_server_name(name));
            Ok(Progress::Arrived(Arrived { realm: by_name.unwrap_or(arrived.realm), ..arrived }))
        });
        match went_on {
            Ok(Some(rest)) => {
                let client = self.streams.get(id)?.client;
                return Some(Reading { id, client, rest, heard: false });
            }
            Ok(None) => {
                self.begin_passage(now, id, observers);
                let interest = self.streams.newcomer_mut(id)?.new_interest()?;
                let _ = self.strangers.modify(self.streams.fd(id)?, token(id), interest);
            }
            Err(refused) => {
                self.note_refused(now, id, &refused, observers);
                self.streams.end(id, Ending::Close);
            }
        }
        None
    }

    /// Counts why a connection that arrives is closed, and warns of what an operator can mend.
    fn note_refused(&mut self, now: Now, id: StreamId, refused: &Refused, observers: &Observers) {
        let mut bad_header = |problem: &dyn fmt::Display, why| {
            let proxy = self.streams.newcomer_mut(id).and_then(|newcomer| newcomer.arriving.proxy());
            proxy.into_iter().for_each(|proxy| observers.note_header(now.micros, proxy, why, problem));
        };
        match refused {
            Refused::Read(ReadError::Closed) => {}
            Refused::Read(ReadError::Tls) => observers.counters().tls_failures.add(1),
            Refused::Read(ReadError::Proxy(error)) => {
                bad_header(error, kind_of(*error));
            }
            Refused::Taken => bad_header(&"it names the ends of a connection that there is", BadHeader::Taken),
            Refused::Full(full) => {
                observers.counters().connections_refused.add(1);
                observers.note_shortage(now.micros, shortage_of(*full));
            }
        }
    }

    /// The next message of what was read.
    pub(in crate::worker) fn next_message(
        &mut self,
        now: Now,
        reading: &mut Reading,
        inbox: &Inbox,
        server: &Server,
        observers: &Observers,
    ) -> Option<(MessageKind, Payload)> {
        let rest = reading.rest;
        if rest.len == 0 {
            return None;
        }
        let bytes = inbox.bytes(rest);
        // Strangers may only send what a request needs.
        let is_allowed = |len| len <= MAX_UNALLOCATED_FRAME || server.has_allocation(&reading.client.five_tuple);
        match first_frame(bytes, is_allowed) {
            Ok(frame) => {
                let frame = frame?;
                reading.rest = rest.part(frame.next, (rest.len as usize).saturating_sub(frame.next));
                reading.heard = true;
                Some((frame.kind, Payload { span: rest.part(0, frame.len), room: 0, tos: 0 }))
            }
            Err(_) => {
                observers.counters().drop_packet(Dropped::Malformed);
                self.misdirect(now, reading, bytes, observers);
                self.streams.end(reading.id, Ending::Close);
                None
            }
        }
    }

    /// Answers a client of the web whose ClientHello did not say so, if its port has a web server.
    fn misdirect(&mut self, now: Now, reading: &Reading, bytes: &[u8], observers: &Observers) {
        const METHODS: [&[u8]; 9] =
            [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PRI "];
        let Some(stream) = self.streams.get_mut(reading.id) else { return };
        let is_first = !reading.heard && !stream.heard && stream.is_web_shared;
        if is_first && METHODS.iter().any(|method| bytes.starts_with(method)) {
            stream.connection.misdirect(now.micros, &self.from.options);
            observers.counters().close_for_web(NotPassed::Misdirected);
        }
    }

    /// Keeps what was not taken of what was read; what is left of a turn that is over has another one.
    pub(in crate::worker) fn keep(
        &mut self,
        now: Now,
        reading: &Reading,
        is_turn_over: bool,
        inbox: &Inbox,
        server: &Server,
        observers: &Observers,
    ) {
        let Reading { id, rest, heard, .. } = *reading;
        let Some(stream) = self.streams.lasting_mut(id) else { return };
        stream.connection.keep(inbox.bytes(rest));
        stream.has_more = is_turn_over && rest.len > 0;
        if heard {
            stream.heard = true;
            stream.last_heard_micros = now.micros;
        }
        let (has_more, holds, state) = (stream.has_more, stream.holds, stream.connection.state());
        if heard && !holds {
            self.note_allocation(now, id, server);
        }
        if has_more {
            self.streams.wait_for_turn(id, Ready::READABLE);
        }
        // A handshake flight may have found the socket full.
        self.after_write(now, id, state, server, observers);
    }

    /// Writes the frames that have been gathered.
    pub(in crate::worker) fn write(&mut self, now: Now, arena: &Arena, server: &Server, observers: &Observers) {
        let mut dirty = self.streams.take_dirty();
        for id in dirty.drain(..) {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            let (state, dropped) = stream.write(arena, now.micros, &self.from.options);
            observers.counters().stream_queue_drops.add(dropped);
            self.after_write(now, id, state, server, observers);
        }
        self.streams.give_dirty_back(dirty);
    }

    /// Watches a connection for what it needs next, and stops reading from a client that does not read its answers.
    fn after_write(&mut self, now: Now, id: StreamId, state: WriteState, server: &Server, observers: &Observers) {
        let Some(stream) = self.streams.lasting_mut(id) else { return };
        let unread = stream.connection.unread_answers();
        let was_held_back = stream.is_held_back();
        let interest = match state {
            WriteState::Broken => {
                self.streams.end(id, Ending::Close);
                return;
            }
            WriteState::Done => Interest::Read,
            WriteState::Blocked if unread > UNREAD_ANSWERS_MAX => {
                if !server.has_allocation(&stream.client.five_tuple) {
                    return self.cut(id, Cut::Unread, observers);
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
}

/// What a header that is refused counts as.
pub(super) fn kind_of(error: HeaderError) -> BadHeader {
    match error {
        HeaderError::Missing => BadHeader::Missing,
        HeaderError::TooLong | HeaderError::Malformed(_) => BadHeader::Malformed,
        HeaderError::Unsupported(_) => BadHeader::Unsupported,
        HeaderError::Checksum => BadHeader::Checksum,
    }
}
