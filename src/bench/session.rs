//! Clients with their connections, and the driver that takes many of them through one request each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::error::BenchError;
use super::leg::{Dial, Leg};
use super::measure::Clock;
use super::poll::Poll;
use crate::client::{Answer, Client, ClientError, Credential, Event, Request};
use crate::net::sys::RecvBuffers;

/// Requests under way at once while clients are set up.
const CONCURRENCY: usize = 64;
/// First retransmission of a request over UDP (RFC 8489 section 6.2.1), doubled each time.
const RTO_NS: u64 = 500_000_000;
/// Transmissions over UDP before giving up.
const MAX_SENDS: u32 = 5;
/// How long a request may take on a stream, TLS handshake included.
const STREAM_TIMEOUT_NS: u64 = 15_000_000_000;

/// One client: its connection, its protocol state and the request under way.
pub(super) struct Session {
    pub(super) leg: Leg,
    pub(super) client: Client,
    request: Option<Request>,
    sent: Vec<u8>,
    sends: u32,
    deadline_ns: u64,
}

impl Session {
    /// Opens a connection.
    ///
    /// # Errors
    /// Of the socket calls and of the system's random numbers.
    pub(super) fn open(
        dial: &Dial,
        local: Option<SocketAddr>,
        server: SocketAddr,
        credential: Option<Arc<Credential>>,
    ) -> Result<Self, BenchError> {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed)
            .map_err(|e| BenchError::Io { doing: "random numbers", source: io::Error::other(e) })?;
        Ok(Self {
            leg: Leg::open(dial, local, server).map_err(BenchError::io("connecting to the server"))?,
            client: Client::new(credential, seed),
            request: None,
            sent: Vec::new(),
            sends: 0,
            deadline_ns: u64::MAX,
        })
    }

    /// Starts a request and sends it.
    ///
    /// # Errors
    /// Of the socket.
    pub(super) fn start(&mut self, request: Request, now_ns: u64) -> io::Result<()> {
        self.sent.clear();
        self.client.start(request, &mut self.sent);
        self.request = Some(request);
        self.sends = 0;
        self.transmit(now_ns)
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.request.is_some()
    }

    /// Receives what is there. The answer to the request under way ends it; frames that are no STUN go to `data`.
    ///
    /// # Errors
    /// The outer one is of the socket, the inner one of the request, which has then ended.
    pub(super) fn recv(
        &mut self,
        batch: &mut RecvBuffers,
        now_ns: u64,
        mut data: impl FnMut(&[u8]),
    ) -> io::Result<Result<Option<Answer>, ClientError>> {
        let (client, sent) = (&mut self.client, &mut self.sent);
        let mut outcome = Ok(Event::Ignored);
        let busy = self.request.is_some();
        let received = self.leg.recv(batch, |bytes| {
            if bytes.first().is_none_or(|first| first >> 6 != 0) || !busy {
                return data(bytes);
            }
            if !matches!(outcome, Ok(Event::Ignored)) {
                return;
            }
            let mut retry = Vec::new();
            match client.receive(bytes, &mut retry) {
                Ok(Event::Ignored) => data(bytes),
                result => outcome = result,
            }
            if outcome == Ok(Event::Retry) {
                *sent = retry;
            }
        });
        match outcome {
            Ok(Event::Retry) => {
                self.sends = 0;
                self.transmit(now_ns)?;
            }
            Ok(Event::Done(answer)) => {
                self.request = None;
                return Ok(Ok(Some(answer)));
            }
            Ok(Event::Ignored) => {}
            Err(error) => {
                self.request = None;
                return Ok(Err(error));
            }
        }
        received.map(|()| Ok(None))
    }

    /// Repeats the request when its time has come; `false` when it has been repeated often enough.
    ///
    /// # Errors
    /// Of the socket.
    pub(super) fn on_time(&mut self, now_ns: u64) -> io::Result<bool> {
        if self.request.is_none() || now_ns < self.deadline_ns {
            return Ok(true);
        }
        if self.leg.is_reliable() || self.sends >= MAX_SENDS {
            return Ok(false);
        }
        self.transmit(now_ns).map(|()| true)
    }

    fn transmit(&mut self, now_ns: u64) -> io::Result<()> {
        let patience = if self.leg.is_reliable() { STREAM_TIMEOUT_NS } else { RTO_NS << self.sends.min(8) };
        self.sends += 1;
        self.deadline_ns = now_ns.saturating_add(patience);
        self.leg.send(&self.sent)
    }

    /// The name of the request under way.
    pub(super) fn request_name(&self) -> &'static str {
        self.request.map_or("nothing", |request| request.method().name())
    }
}

/// Takes every session through the request that `request` names for it, a few at a time, and hands its answer to `done`.
///
/// # Errors
/// The first failure of any.
pub(super) fn drive(
    sessions: &mut [Session],
    clock: Clock,
    request: impl Fn(usize) -> Request,
    mut done: impl FnMut(usize, Answer),
) -> Result<(), BenchError> {
    let io_error = BenchError::io;
    let mut epoll = Poll::new().map_err(io_error("epoll"))?;
    let mut batch = RecvBuffers::new(false);
    let (mut next, mut busy, mut finished) = (0, Vec::new(), 0);
    while finished < sessions.len() {
        while busy.len() < CONCURRENCY
            && let Some(session) = sessions.get_mut(next)
        {
            epoll.add(&session.leg, next as u64).map_err(io_error("epoll"))?;
            session.start(request(next), clock.now_ns()).map_err(io_error("sending a request"))?;
            busy.push(next);
            next += 1;
        }
        let ready = epoll.wait(Duration::from_millis(20)).map_err(io_error("epoll"))?;
        let now_ns = clock.now_ns();
        for index in (0..ready).filter_map(|i| epoll.ready(i)) {
            let client = index as usize;
            let Some(session) = sessions.get_mut(client) else { continue };
            let answer = session.recv(&mut batch, now_ns, |_| {}).map_err(io_error("receiving from the server"))?;
            if let Some(answer) = answer.map_err(|source| BenchError::Client { client, source })? {
                done(client, answer);
                finished += 1;
            }
        }
        busy.retain(|client| sessions.get(*client).is_some_and(Session::is_busy));
        for &client in &busy {
            let Some(session) = sessions.get_mut(client) else { continue };
            session.leg.flush().map_err(io_error("sending a request"))?;
            if !session.on_time(now_ns).map_err(io_error("sending a request"))? {
                return Err(BenchError::Silent { client, request: session.request_name() });
            }
        }
    }
    Ok(())
}
