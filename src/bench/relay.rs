//! The relaying modes: clients with a channel (or Send indications) each, peers, and packets that are all checked.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::error::BenchError;
use super::leg::{Dial, Leg};
use super::measure::{Clock, Run};
use super::options::{Mode, Options};
use super::payload::Pattern;
use super::poll::Poll;
use super::progress::Progress;
use super::session::{Session, drive};
use super::stats::Sequence;
use crate::addr::Framing;
use crate::client::data;
use crate::client::{Answer, Request};
use crate::net::sys::{self, RecvBuffers, SendBuffers};

/// Ports that peers take: neither ephemeral nor in the usual relay ranges, because a server on this address may rightly
/// say of a port in its own relay range that no allocation has it.
const PEER_PORTS: std::ops::Range<u16> = 10_240..20_000;
/// Receive buffer of a peer socket, bytes.
const PEER_RECEIVE_BUFFER: usize = 32 << 20;
/// Every client refreshes its allocation or its permission, in turn, this often; a permission lasts 300 s.
const REFRESH_NS: u64 = 60_000_000_000;
/// Set in an epoll token of a peer socket.
const PEER_TOKEN: u64 = 1 << 32;

/// Clients, their allocations, and the peers.
pub(super) struct Relay<'a> {
    options: &'a Options,
    pattern: Pattern,
    sessions: Vec<Session>,
    flows: Vec<Flow>,
    peers: Vec<UdpSocket>,
    epoll: Poll,
    inbox: RecvBuffers,
    outbox: SendBuffers,
    outbox_owner: Option<Sender>,
    echoes: SendBuffers,
    frames: Vec<u8>,
    cursor: usize,
    /// Streams whose socket is full.
    blocked: Vec<usize>,
    started_ns: u64,
    refreshes: u64,
}

/// Whose socket the packets in the outbox leave by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client(usize),
    Peer(usize),
}

/// One client's flow of packets.
struct Flow {
    relayed: SocketAddr,
    /// Whom the client's channel leads to: a peer socket or another client's relayed address.
    remote: SocketAddr,
    /// The number of the peer socket, or of the other client.
    remote_index: usize,
    next_sequence: u64,
    arrivals: Sequence,
    /// Up to which number the window has its units back.
    credited: u64,
}

impl<'a> Relay<'a> {
    /// Opens the sockets, makes the allocations and binds the channels.
    ///
    /// # Errors
    /// Of the sockets, or when the server refuses.
    pub(super) fn set_up(
        options: &'a Options,
        dial: &Dial,
        clock: Clock,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Self, BenchError> {
        let epoll = Poll::new().map_err(BenchError::io("epoll"))?;
        let mut sessions = open_sessions(options, dial)?;
        let mut relayed = vec![options.server; sessions.len()];
        let (of, mut done) = (sessions.len(), 0);
        let allocate = Request::Allocate { family: None, lifetime_secs: None };
        drive(
            &mut sessions,
            clock,
            |_| allocate,
            |client, answer| {
                if let (Answer::Allocated { relayed: addr, .. }, Some(slot)) = (answer, relayed.get_mut(client)) {
                    *slot = addr;
                }
                done += 1;
                progress(&Progress::SetUp { done, of });
            },
        )?;
        let peers = match options.mode {
            Mode::RelayToRelay => Vec::new(),
            _ => open_peers(options)?,
        };
        let mut flows = Vec::with_capacity(sessions.len());
        for (client, &addr) in relayed.iter().enumerate() {
            let (remote_index, remote) = match options.mode {
                Mode::RelayToRelay => (client ^ 1, relayed.get(client ^ 1).copied().unwrap_or(addr)),
                _ => {
                    let index = client % peers.len().max(1);
                    let peer = peers.get(index).map(UdpSocket::local_addr);
                    (index, peer.transpose().map_err(BenchError::io("peer socket"))?.unwrap_or(addr))
                }
            };
            flows.push(Flow {
                relayed: addr,
                remote,
                remote_index,
                next_sequence: 0,
                arrivals: Sequence::default(),
                credited: 0,
            });
        }
        drive(&mut sessions, clock, |client| grant(options, flows.get(client)), |_, _| {})?;
        for (index, peer) in peers.iter().enumerate() {
            epoll.add(peer, PEER_TOKEN | index as u64).map_err(BenchError::io("epoll"))?;
        }
        for (index, session) in sessions.iter().enumerate() {
            epoll.add(&session.leg, index as u64).map_err(BenchError::io("epoll"))?;
        }
        Ok(Self {
            options,
            pattern: Pattern::new(std::process::id() ^ clock.now_ns() as u32),
            sessions,
            flows,
            peers,
            epoll,
            inbox: RecvBuffers::new(options.gro),
            outbox: SendBuffers::new(),
            outbox_owner: None,
            echoes: SendBuffers::new(),
            frames: Vec::new(),
            cursor: 0,
            blocked: Vec::new(),
            started_ns: clock.now_ns(),
            refreshes: 0,
        })
    }

    /// Runs the load until the measurement is over, then ends the allocations.
    ///
    /// # Errors
    /// Of the sockets.
    pub(super) fn run(&mut self, run: &mut Run<'_>) -> Result<(), BenchError> {
        loop {
            let now_ns = run.clock.now_ns();
            if !run.advance(now_ns)? {
                break;
            }
            if std::mem::take(&mut run.forgive) {
                self.flows.iter_mut().for_each(|flow| flow.credited = flow.next_sequence);
            }
            self.keep_alive(now_ns).map_err(BenchError::io("refreshing"))?;
            self.send(run, now_ns).map_err(BenchError::io("sending"))?;
            let may_sleep = self.blocked.is_empty();
            let ready = run.wait(&mut self.epoll, now_ns, may_sleep).map_err(BenchError::io("epoll"))?;
            for index in 0..ready {
                match self.epoll.ready(index) {
                    Some(token) if token & PEER_TOKEN != 0 => {
                        self.recv_peer(run, (token ^ PEER_TOKEN) as usize).map_err(BenchError::io("peer"))?;
                    }
                    Some(token) => {
                        self.recv_client(run, token as usize).map_err(BenchError::io("receiving from the server"))?;
                    }
                    None => {}
                }
            }
        }
        let release = Request::Refresh { lifetime_secs: 0 };
        if let Err(error) = drive(&mut self.sessions, run.clock, |_| release, |_, _| {}) {
            // What was measured stands; the allocations then end with their lifetime.
            run.refused(|| error.to_string());
        }
        Ok(())
    }

    fn send(&mut self, run: &mut Run<'_>, now_ns: u64) -> io::Result<()> {
        let sessions = &mut self.sessions;
        let mut blocked = std::mem::take(&mut self.blocked);
        let mut result = Ok(());
        blocked.retain(|&client| match sessions.get_mut(client).map(|session| session.leg.flush()) {
            Some(Ok(waits)) => waits,
            Some(Err(e)) => {
                result = Err(e);
                false
            }
            None => false,
        });
        self.blocked = blocked;
        result?;
        let burst = u64::from(self.options.burst);
        let mut budget = run.budget(now_ns);
        while budget >= burst {
            let client = self.cursor;
            self.cursor = (client + 1) % self.flows.len().max(1);
            self.send_burst(client, run.clock.now_ns())?;
            run.sent(burst);
            budget -= burst;
        }
        self.flush()
    }

    /// Sends one burst of a flow, or puts it into the outbox.
    fn send_burst(&mut self, client: usize, now_ns: u64) -> io::Result<()> {
        let Some(flow) = self.flows.get_mut(client) else { return Ok(()) };
        let (options, pattern, size) = (self.options, &self.pattern, self.options.size);
        let first = flow.next_sequence;
        flow.next_sequence += u64::from(options.burst);
        let (remote, numbers) = (flow.remote, first..flow.next_sequence);
        let from_peer = options.mode == Mode::PeerToClient;
        let framing = self.sessions.get(client).map_or(Framing::Datagrams, |session| session.leg.framing());
        let write = |number: u64, out: &mut Vec<u8>| {
            let payload = |out: &mut Vec<u8>| pattern.write(client as u32, number, now_ns, size, out);
            match (from_peer, options.indications) {
                (true, _) => payload(out),
                (false, false) => data::channel_data(size, framing, out, payload),
                (false, true) => data::send_indication(remote, number, out, payload),
            }
        };
        if framing == Framing::Stream && !from_peer {
            let Some(session) = self.sessions.get_mut(client) else { return Ok(()) };
            self.frames.clear();
            numbers.for_each(|number| write(number, &mut self.frames));
            session.leg.send(&self.frames)?;
            if session.leg.flush()? && !self.blocked.contains(&client) {
                self.blocked.push(client);
            }
            return Ok(());
        }
        let (owner, to) = match from_peer {
            true => (Sender::Peer(flow.remote_index), Some(flow.relayed)),
            false => (Sender::Client(client), None),
        };
        if self.outbox_owner != Some(owner) {
            flush(&mut self.outbox, self.outbox_owner, &self.sessions, &self.peers)?;
            self.outbox_owner = Some(owner);
        }
        if options.gso && options.burst > 1 {
            if self.outbox.is_full() {
                flush(&mut self.outbox, self.outbox_owner, &self.sessions, &self.peers)?;
            }
            let segment = match (from_peer, options.indications) {
                (true, _) => size,
                (false, false) => data::channel_data_len(size, framing),
                (false, true) => data::send_indication_len(remote, size),
            };
            self.outbox.push(to, u16::try_from(segment).ok(), |out| numbers.for_each(|number| write(number, out)));
            return Ok(());
        }
        for number in numbers {
            if self.outbox.is_full() {
                flush(&mut self.outbox, self.outbox_owner, &self.sessions, &self.peers)?;
            }
            self.outbox.push(to, None, |out| write(number, out));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        flush(&mut self.outbox, self.outbox_owner, &self.sessions, &self.peers)
    }

    fn recv_peer(&mut self, run: &mut Run<'_>, index: usize) -> io::Result<()> {
        let Some(peer) = self.peers.get(index) else { return Ok(()) };
        let echo = self.options.mode == Mode::RoundTrip;
        loop {
            self.inbox.recv(peer)?;
            let now_ns = run.clock.now_ns();
            for (bytes, source) in self.inbox.datagrams() {
                let Some(stamp) = self.pattern.check(bytes, self.options.size) else {
                    run.counts.damaged += 1;
                    continue;
                };
                let flow = self.flows.get_mut(stamp.flow as usize);
                let Some(flow) = flow.filter(|flow| Some(flow.relayed) == source && flow.remote_index == index) else {
                    run.counts.misrouted += 1;
                    continue;
                };
                if echo {
                    if self.echoes.is_full() {
                        self.echoes.flush(peer)?;
                    }
                    self.echoes.push(source, None, |out| out.extend_from_slice(bytes));
                } else {
                    flow.arrive(run, stamp.sequence, stamp.sent_ns, now_ns);
                }
            }
            if !self.echoes.is_empty() {
                self.echoes.flush(peer)?;
            }
            if !self.inbox.is_full() {
                return Ok(());
            }
        }
    }

    fn recv_client(&mut self, run: &mut Run<'_>, client: usize) -> io::Result<()> {
        let Some(session) = self.sessions.get_mut(client) else { return Ok(()) };
        let sender = if self.options.mode == Mode::RelayToRelay { client ^ 1 } else { client };
        let Some(remote) = self.flows.get(client).map(|flow| flow.remote) else { return Ok(()) };
        let Some(flow) = self.flows.get_mut(sender) else { return Ok(()) };
        let (pattern, size) = (&self.pattern, self.options.size);
        let now_ns = run.clock.now_ns();
        let answer = session.recv(&mut self.inbox, now_ns, |frame| match data::payload(frame, remote) {
            data::Received::Payload(payload) => match pattern.check(payload, size) {
                Some(stamp) if stamp.flow as usize == sender => {
                    flow.arrive(run, stamp.sequence, stamp.sent_ns, now_ns);
                }
                Some(_) => run.counts.misrouted += 1,
                None => run.counts.damaged += 1,
            },
            data::Received::WrongSource => run.counts.misrouted += 1,
            data::Received::Damaged => run.counts.damaged += 1,
            data::Received::Response => {}
        })?;
        if let Err(error) = answer {
            run.refused(|| error.to_string());
        }
        Ok(())
    }

    /// Refreshes one client when its turn has come, so that long measurements do not run into a lifetime.
    fn keep_alive(&mut self, now_ns: u64) -> io::Result<()> {
        let clients = self.sessions.len() as u64;
        let elapsed_ns = u128::from(now_ns.saturating_sub(self.started_ns));
        let due = elapsed_ns * u128::from(clients) / u128::from(REFRESH_NS);
        if due <= u128::from(self.refreshes) {
            return Ok(());
        }
        let (turn, client) = (self.refreshes / clients.max(1), (self.refreshes % clients.max(1)) as usize);
        self.refreshes += 1;
        let request = match turn % 2 {
            0 => grant(self.options, self.flows.get(client)),
            _ => Request::Refresh { lifetime_secs: 600 },
        };
        match self.sessions.get_mut(client) {
            // In the first turn everything is fresh.
            Some(session) if turn > 0 => session.start(request, now_ns),
            _ => Ok(()),
        }
    }
}

impl Flow {
    fn arrive(&mut self, run: &mut Run<'_>, sequence: u64, sent_ns: u64, now_ns: u64) {
        let credits = (sequence + 1).saturating_sub(self.credited);
        self.credited += credits;
        run.arrived(self.arrivals.arrive(sequence), sent_ns, now_ns, credits);
    }
}

fn flush(outbox: &mut SendBuffers, owner: Option<Sender>, sessions: &[Session], peers: &[UdpSocket]) -> io::Result<()> {
    if outbox.is_empty() {
        return Ok(());
    }
    match owner {
        Some(Sender::Client(index)) => sessions.get(index).map_or(Ok(()), |session| outbox.flush(&session.leg)),
        Some(Sender::Peer(index)) => peers.get(index).map_or(Ok(()), |peer| outbox.flush(peer)),
        None => Ok(()),
    }
}

/// What lets the flow's packets through: a channel, or a permission for indications.
fn grant(options: &Options, flow: Option<&Flow>) -> Request {
    let peer = flow.map_or(options.server, |flow| flow.remote);
    match options.indications {
        false => Request::ChannelBind { channel: data::CHANNEL, peer },
        true => Request::CreatePermission { peer },
    }
}

/// Opens one connection per client.
pub(super) fn open_sessions(options: &Options, dial: &Dial) -> Result<Vec<Session>, BenchError> {
    let credential = options.credential.clone().map(Arc::new);
    let local = options.client_ip.map(|ip| SocketAddr::new(ip, 0));
    (0..options.clients).map(|_| Session::open(dial, local, options.server, credential.clone())).collect()
}

/// Opens one bare connection per client.
pub(super) fn open_legs(options: &Options, dial: &Dial) -> Result<Vec<Leg>, BenchError> {
    let local = options.client_ip.map(|ip| SocketAddr::new(ip, 0));
    let open = |_| Leg::open(dial, local, options.server).map_err(BenchError::io("connecting to the server"));
    (0..options.clients).map(open).collect()
}

/// The address from which this machine reaches the server.
pub(super) fn local_ip(server: SocketAddr) -> io::Result<IpAddr> {
    let probe = UdpSocket::bind(crate::addr::unspecified(crate::addr::Family::of(server.ip())))?;
    probe.connect(server)?;
    Ok(probe.local_addr()?.ip())
}

fn open_peers(options: &Options) -> Result<Vec<UdpSocket>, BenchError> {
    let open = || {
        let ip = options.peer_ip.map_or_else(|| local_ip(options.server), Ok)?;
        let peer = bind_peer(ip)?;
        peer.set_nonblocking(true)?;
        sys::grow_recv_buffer(peer.as_fd(), PEER_RECEIVE_BUFFER);
        if options.gro {
            sys::enable_udp_gro(peer.as_fd())?;
        }
        Ok(peer)
    };
    (0..options.peers).map(|_| open().map_err(BenchError::io("opening a peer socket"))).collect()
}

fn bind_peer(ip: IpAddr) -> io::Result<UdpSocket> {
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let first = usize::from(u16::from_ne_bytes(random)) % PEER_PORTS.len();
    let mut ports = PEER_PORTS.cycle().skip(first).take(PEER_PORTS.len()).chain([0]);
    ports
        .find_map(|port| UdpSocket::bind((ip, port)).ok())
        .ok_or_else(|| io::Error::other(format!("no free port on {ip}")))
}
