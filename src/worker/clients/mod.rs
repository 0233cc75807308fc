//! Every path to a client: the listeners, the connections and the DTLS sessions. A connection or session that is to end is marked, and closed when the round is
//! about to be over.

mod accept;
mod data;
mod listeners;
mod passages;
mod place;
mod proxied;
mod session;
mod session_table;
mod sessions;
mod stream;
mod stream_table;
mod streams;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;

pub use listeners::WorkerListener;
pub(super) use listeners::{DEPTH_MAX, DatagramListener, Takes};
pub(super) use proxied::unwrap as unwrap_proxied;
pub(super) use sessions::Came;
pub(super) use stream_table::Line;
pub(super) use streams::Reading;

use super::observers::Observers;
use super::plan::Pieces;
use super::relay_sockets::RelaySockets;
use super::token::Token;
use crate::clock::Now;
use crate::config::Streams;
use crate::counters::Cut;
use crate::dtls::{self, Wire};
use crate::net::sys::{Descriptors, Epoll, Events, Interest, Ready, tcp_round_trip_micros, widen_stream_buffers};
use crate::stream::ConnectionLimits;
use crate::turn::{Binding, Client, DatagramPath, Detour, Path, Server, StreamId};

use listeners::Listeners;
use place::State;
use session_table::SessionTable;
use stream::Ending;
use stream_table::StreamTable;

/// What a wait for connections without an allocation may bring, and how many of them may wait for their turn.
const STRANGERS_MAX: usize = 256;

/// What clients are reached by.
pub(super) struct Clients {
    listeners: Listeners,
    streams: StreamTable,
    sessions: SessionTable,
    /// What the session whose turn it is reads and writes, and a message that it is given in one piece.
    wire: Wire,
    message: Vec<u8>,
    /// The worker's epoll watches the listeners, the connections with an allocation, and the other one, which watches those without.
    epoll: Arc<Epoll>,
    strangers: Epoll,
    stranger_events: Events,
    /// A ConnectionBind that was granted, and its success response: the connection it came by is taken out before its next message.
    binding: Option<(Binding, Vec<u8>)>,
    from: ClientSources,
}

/// What connections are made from.
pub(super) struct ClientSources {
    pub(super) limits: Arc<ConnectionLimits>,
    pub(super) descriptors: Descriptors,
    /// Replaced when certificates are.
    pub(super) tls: Arc<ArcSwapOption<ServerConfig>>,
    pub(super) dtls: Arc<ArcSwapOption<dtls::Context>>,
    pub(super) options: Streams,
}

impl Clients {
    /// Has the epoll watch the listeners.
    ///
    /// # Errors
    /// When epoll refuses a socket, or there is no descriptor for another epoll.
    pub(super) fn new(epoll: Arc<Epoll>, listeners: Vec<WorkerListener>, from: ClientSources) -> io::Result<Self> {
        let strangers = Epoll::new()?;
        epoll.add(strangers.as_fd(), Token::Strangers.pack(), Interest::Read)?;
        Ok(Self {
            listeners: Listeners::new(Arc::clone(&epoll), listeners)?,
            streams: StreamTable::new(&from.options),
            sessions: SessionTable::new(&from.options),
            wire: Wire::default(),
            message: Vec::new(),
            epoll,
            strangers,
            stranger_events: Events::new(STRANGERS_MAX),
            binding: None,
            from,
        })
    }

    /// The round trips over some connections that hold an allocation, others each time; some 20 microseconds at most.
    pub(super) fn some_round_trips(&mut self) -> Vec<u32> {
        self.streams.next_holders().filter_map(|fd| tcp_round_trip_micros(fd).ok()?).collect()
    }

    /// A listener for datagrams, by its number.
    pub(super) fn datagrams(&mut self, number: u32) -> Option<&mut DatagramListener> {
        self.listeners.datagrams(number)
    }

    /// The socket that datagrams of a path are sent from.
    pub(super) fn datagram_fd(&self, number: u32) -> Option<BorrowedFd<'_>> {
        self.listeners.datagram_fd(number)
    }

    /// The path of an answer that leaves from elsewhere or goes to another port; `None` where this worker has no such listener, or the
    /// client is reached by way of somebody else.
    pub(super) fn detour(&self, client: &Client, detour: Detour) -> Option<DatagramPath> {
        let Path::Datagrams(DatagramPath { mut to, .. }) = client.path else { return None };
        (to == client.five_tuple.client.get()).then_some(())?;
        to.set_port(detour.to_port);
        let (socket, from_ip) = self.listeners.at(detour.from)?;
        Some(DatagramPath { socket, to, from_ip })
    }

    /// Gathers a frame for a stream client. What is droppable gives way when the client does not read it.
    #[inline]
    pub(super) fn gather(&mut self, id: StreamId, frame: Pieces, droppable: bool) {
        self.streams.queue_frame(id, frame, droppable);
    }

    /// Notes that a ConnectionBind was granted.
    pub(super) fn begin_binding(&mut self, binding: Binding, success: &[u8]) {
        self.binding = Some((binding, success.to_vec()));
    }

    /// What [`Self::begin_binding`] has noted.
    #[inline]
    pub(super) fn take_binding(&mut self) -> Option<(Binding, Vec<u8>)> {
        self.binding.take()
    }

    /// Lets a connection wait for its turn.
    pub(super) fn wait_for_turn(&mut self, id: StreamId, ready: Ready) {
        self.streams.wait_for_turn(id, ready);
    }

    /// Lets the connections without an allocation that are ready wait for their turn, unless many do already.
    pub(super) fn look_at_strangers(&mut self) {
        if self.streams.waiting(Line::Strangers) >= STRANGERS_MAX {
            return;
        }
        let Ok(count) = self.strangers.wait(&mut self.stranger_events, 0) else { return };
        for index in 0..count {
            let Some(ready) = self.stranger_events.get(index) else { break };
            if let Some(Token::Stream(id)) = Token::unpack(ready.token) {
                self.streams.wait_for_turn(id, ready);
            }
        }
    }

    /// Whether a connection waits for its turn.
    pub(super) fn has_waiting(&self) -> bool {
        self.streams.has_waiting() || self.sessions.waiting() > 0
    }

    /// How many wait for their turn in a line.
    pub(super) fn waiting(&self, line: Line) -> usize {
        self.streams.waiting(line)
    }

    /// The connection of a line whose turn it is, unless it has been closed meanwhile.
    pub(super) fn next_turn(&mut self, line: Line) -> Option<(StreamId, Ready)> {
        self.streams.next_turn(line)
    }

    /// When a connection or session may have to be closed, or a listener wakes.
    pub(super) fn next_timeout(&self) -> Option<u64> {
        let due = [self.streams.next_timeout(), self.sessions.next_timeout(), self.listeners.next_timeout()];
        due.into_iter().flatten().min()
    }

    /// Whether the connection or session that a client came by is open and stays so, if it came by one.
    pub(super) fn is_open(&mut self, client: &Client) -> bool {
        match client.path {
            Path::Datagrams(_) => true,
            Path::Stream(id) => self.streams.lasting_mut(id).is_some(),
            Path::Session(id) => self.sessions.is_open(id),
        }
    }

    /// Has the connection or session a client came by closed, if it came by one.
    pub(super) fn end(&mut self, client: &Client) {
        match client.path {
            Path::Datagrams(_) => {}
            Path::Stream(id) => {
                self.streams.end(id, Ending::Close);
            }
            Path::Session(id) => self.sessions.end(id),
        }
    }

    /// Closes the connections that have been marked since the last time, and ends their allocations.
    pub(super) fn close_ended(
        &mut self,
        now: Now,
        server: &mut Server,
        relays: &mut RelaySockets,
        observers: &Observers,
    ) {
        let mut any = false;
        while let Some((state, ending)) = self.streams.next_ended() {
            any = true;
            if let State::Arrived(stream) = &state {
                server.client_gone(now, &stream.client.five_tuple, relays);
            }
            match (state, ending) {
                (State::Arriving(newcomer), _) => newcomer.arriving.close(),
                (State::Passed(passed), _) => {
                    let open = &observers.counters().web_connections;
                    open.set(open.get().saturating_sub(1));
                    passed.passage.close();
                }
                (State::Arrived(stream), Ending::Close) => stream.connection.close(),
                (State::Arrived(stream), Ending::Reset) => stream.connection.reset(),
            }
        }
        if any {
            observers.counters().connections.set(self.streams.open() as u64);
        }
        let mut any = false;
        while let Some(of) = self.close_ended_session() {
            any = true;
            if let Some(five_tuple) = of {
                server.client_gone(now, &five_tuple, relays);
            }
        }
        if any {
            self.count_sessions(observers.counters());
        }
    }

    /// Closes every connection and session at the end, each so that its client sees an end and no reset.
    pub(super) fn close_all(&mut self) {
        self.streams.drain().for_each(|state| match state {
            State::Arriving(newcomer) => newcomer.arriving.close(),
            State::Arrived(stream) => stream.connection.close(),
            State::Passed(passed) => passed.passage.close(),
        });
        self.close_all_sessions();
    }

    /// Notes whether a client has an allocation now that a request of its has gone on.
    pub(super) fn note_late(&mut self, now: Now, client: &Client, server: &Server) {
        match client.path {
            Path::Datagrams(_) => {}
            Path::Stream(id) => {
                self.note_allocation(now, id, server);
            }
            Path::Session(id) => self.note_session(now, id, server),
        }
    }

    /// Notes whether a connection has an allocation; returns that.
    fn note_allocation(&mut self, now: Now, id: StreamId, server: &Server) -> bool {
        let Some(stream) = self.streams.get(id) else { return false };
        let holds = server.has_allocation(&stream.client.five_tuple);
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
                self.streams.end(id, Ending::Close);
            }
        }
        holds
    }

    /// Ends a connection that takes more than its share, and counts why.
    fn cut(&mut self, id: StreamId, why: Cut, observers: &Observers) {
        let ending = if matches!(why, Cut::Unread) { Ending::Reset } else { Ending::Close };
        if self.streams.end(id, ending) {
            observers.counters().cut_connection(why);
        }
    }
}

fn token(id: StreamId) -> u64 {
    Token::Stream(id).pack()
}
