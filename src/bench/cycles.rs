//! Allocation cycles: a new connection, Allocate, its challenge, Allocate with credentials, Refresh with lifetime 0.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::addr::{Family, unspecified};

use super::error::BenchError;
use super::leg::Dial;
use super::measure::Run;
use super::options::Options;
use super::poll::Poll;
use super::session::Session;
use super::stats::Arrival;
use crate::client::{Answer, Credential, Request};
use crate::net::sys::RecvBuffers;

/// Ports that UDP clients take one after the other. A port that came again at once, as random ones do, could meet a server
/// that still remembers its last allocation and answers 437.
const CLIENT_PORTS: std::ops::Range<u16> = 32_768..61_000;
/// How often requests that may need repeating are looked at.
const PATROL_NS: u64 = 50_000_000;

/// Runs cycles, as many at once as there are clients, until the measurement is over.
///
/// # Errors
/// Of the sockets, or when the server is silent. A refusal is counted and ends only its cycle.
pub(super) fn run(options: &Options, dial: &Dial, run: &mut Run<'_>) -> Result<(), BenchError> {
    let credential = options.credential.clone().map(Arc::new);
    let mut opener = Opener { options, dial, credential, port: CLIENT_PORTS.start };
    let mut slots: Vec<Slot> = (0..options.clients).map(|_| Slot::default()).collect();
    let mut free: Vec<usize> = (0..slots.len()).collect();
    let mut poll = Poll::new().map_err(BenchError::io("epoll"))?;
    let mut inbox = RecvBuffers::new(false);
    let mut patrol_ns = 0;
    loop {
        let now_ns = run.clock.now_ns();
        if !run.advance(now_ns)? {
            return Ok(());
        }
        // Lost requests are repeated by the sessions themselves.
        run.forgive = false;
        let mut budget = run.budget(now_ns);
        while budget > 0
            && let Some(index) = free.pop()
        {
            let Some(slot) = slots.get_mut(index) else { break };
            slot.begin(opener.open()?, &poll, index, run.clock.now_ns())?;
            run.sent(1);
            budget -= 1;
        }
        let ready = run.wait(&mut poll, now_ns, true).map_err(BenchError::io("epoll"))?;
        for index in 0..ready {
            let Some(index) = poll.ready(index).map(|token| token as usize) else { continue };
            if slots.get_mut(index).is_some_and(|slot| slot.is_over(run, &mut inbox)) {
                free.push(index);
            }
        }
        if now_ns >= patrol_ns {
            patrol_ns = now_ns.saturating_add(PATROL_NS);
            for (client, session) in
                slots.iter_mut().enumerate().filter_map(|(i, slot)| Some((i, slot.session.as_mut()?)))
            {
                session.leg.flush().map_err(BenchError::io("sending a request"))?;
                if !session.on_time(now_ns).map_err(BenchError::io("sending a request"))? {
                    return Err(BenchError::Silent { client, request: session.request_name() });
                }
            }
        }
    }
}

/// Opens the connections, each from another port than those before it.
struct Opener<'a> {
    options: &'a Options,
    dial: &'a Dial,
    credential: Option<Arc<Credential>>,
    port: u16,
}

impl Opener<'_> {
    fn open(&mut self) -> Result<Session, BenchError> {
        let server = self.options.server;
        let ip = self.options.client_ip;
        if matches!(self.dial, Dial::Udp { .. }) {
            let ip = ip.unwrap_or_else(|| unspecified(Family::of(server.ip())).ip());
            for _ in CLIENT_PORTS {
                let local = SocketAddr::new(ip, self.port);
                self.port = if self.port + 1 < CLIENT_PORTS.end { self.port + 1 } else { CLIENT_PORTS.start };
                match Session::open(self.dial, Some(local), server, self.credential.clone()) {
                    Err(BenchError::Io { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {}
                    result => return result,
                }
            }
        }
        Session::open(self.dial, ip.map(|ip| SocketAddr::new(ip, 0)), server, self.credential.clone())
    }
}

/// Room for one cycle at a time.
#[derive(Default)]
struct Slot {
    session: Option<Session>,
    started_ns: u64,
}

impl Slot {
    fn begin(&mut self, mut session: Session, poll: &Poll, index: usize, now_ns: u64) -> Result<(), BenchError> {
        poll.add(&session.leg, index as u64).map_err(BenchError::io("epoll"))?;
        session
            .start(Request::Allocate { family: None, lifetime_secs: None }, now_ns)
            .map_err(BenchError::io("sending a request"))?;
        self.started_ns = now_ns;
        self.session = Some(session);
        Ok(())
    }

    /// Takes the next step; `true` when the slot is free again.
    fn is_over(&mut self, run: &mut Run<'_>, inbox: &mut RecvBuffers) -> bool {
        let Some(session) = &mut self.session else { return false };
        let now_ns = run.clock.now_ns();
        let failure = match session.recv(inbox, now_ns, |_| {}) {
            Ok(Ok(Some(Answer::Allocated { .. }))) => {
                session.start(Request::Refresh { lifetime_secs: 0 }, now_ns).err().map(|e| e.to_string())
            }
            Ok(Ok(Some(_))) => {
                run.arrived(Arrival::InOrder { skipped: 0 }, self.started_ns, now_ns, 1);
                self.session = None;
                return true;
            }
            Ok(Ok(None)) => None,
            Ok(Err(e)) => Some(e.to_string()),
            Err(e) => Some(e.to_string()),
        };
        let Some(failure) = failure else { return false };
        run.refused(|| failure);
        run.in_flight = run.in_flight.saturating_sub(1);
        self.session = None;
        true
    }
}
