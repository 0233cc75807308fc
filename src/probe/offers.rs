//! What a server may offer beside UDP relays, each asked for once: mobility (RFC 8016) and TCP relays (RFC 6062). What is off is no fault.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::addr::{Family, SocketKind};
use crate::client::{Answer, Request, Ticket};
use crate::stun::{ErrorCode, Message};

use super::dial::Dialer;
use super::report::{Recorder, Status, Step};
use super::session::Session;
use super::verdict::{Failure, with_code};

/// Bytes that are sent each way: what the sockets on the way take without anybody reading.
const BYTES: usize = 16 * 1024;
/// How often it is looked whether the server has connected.
const POLL: Duration = Duration::from_millis(10);

/// Takes the steps and records each.
pub(super) fn probe(dialer: &Dialer<'_>, recorder: &mut Recorder<'_>) {
    let offers = Offers { dialer, started: Instant::now() };
    recorder.add(offers.mobility());
    if dialer.socket_kind() == SocketKind::Tcp {
        let offers = Offers { dialer, started: Instant::now() };
        recorder.add(offers.tcp_relay());
    }
}

struct Offers<'a> {
    dialer: &'a Dialer<'a>,
    started: Instant,
}

impl Offers<'_> {
    /// An allocation with a ticket, which another connection of this client then takes over.
    fn mobility(&self) -> Step {
        const NAME: &str = "mobility";
        let mut first = match self.dialer.open() {
            Ok(session) => session,
            Err(error) => return self.step(NAME, Status::Warn, error.to_string()),
        };
        let reply = match first.request(Request::AllocateMobile) {
            Ok(reply) => reply,
            Err(failure) if failure.code() == Some(ErrorCode::MOBILITY_FORBIDDEN) => {
                return with_code(self.step(NAME, Status::Ok, "off (405)"), &failure).fact("offered", false);
            }
            Err(failure) => return self.untried(NAME, &failure),
        };
        let Some(ticket) = Message::parse(&reply.response).ok().as_ref().and_then(Ticket::of) else {
            let _ = first.request(Request::Refresh { lifetime_secs: 0 });
            return self.step(NAME, Status::Ok, "off (no ticket is given)").fact("offered", false);
        };
        let moved = self.dialer.open().map_err(|error| error.to_string()).and_then(|mut second| {
            let moved = second.request(Request::Move { ticket }).map_err(|failure| self.words(&failure))?;
            Ok((second, moved))
        });
        match moved {
            Ok((mut second, _)) => {
                let step = self.step(NAME, Status::Ok, "offered: an allocation moved to another port of this host");
                let _ = second.request(Request::Refresh { lifetime_secs: 0 });
                step.fact("offered", true)
            }
            Err(words) => {
                let _ = first.request(Request::Refresh { lifetime_secs: 0 });
                let message =
                    format!("offered, but an allocation could not move to another port of this host: {words}");
                self.step(NAME, Status::Warn, message).fact("offered", true)
            }
        }
    }

    /// An allocation for TCP and, if that was asked for, a connection with a peer on this host.
    fn tcp_relay(&self) -> Step {
        const NAME: &str = "tcp-relay";
        let mut control = match self.dialer.open() {
            Ok(session) => session,
            Err(error) => return self.step(NAME, Status::Warn, error.to_string()),
        };
        let (relayed, mapped) = match control.request(Request::AllocateTcp) {
            Ok(reply) => match reply.answer {
                Answer::Allocated { relayed, mapped, .. } => (relayed, mapped),
                _ => return self.step(NAME, Status::Warn, "an answer to another request"),
            },
            Err(failure) if failure.code() == Some(ErrorCode::UNSUPPORTED_TRANSPORT) => {
                return with_code(self.step(NAME, Status::Ok, "off (442)"), &failure).fact("offered", false);
            }
            Err(failure) => return self.untried(NAME, &failure),
        };
        let step = match self.dialer.context.options.tcp_relay {
            false => {
                let message = "offered: whoever has a credential reaches TCP services through it; --tcp-relay sends data through one";
                self.step(NAME, Status::Ok, message)
            }
            true => self.relay_bytes(NAME, &mut control, relayed, mapped),
        };
        let _ = control.request(Request::Refresh { lifetime_secs: 0 });
        step.fact("offered", true).fact("relayed", relayed.to_string())
    }

    fn relay_bytes(&self, name: &'static str, control: &mut Session, relayed: SocketAddr, mapped: SocketAddr) -> Step {
        let not_tried = |why: &str| self.step(name, Status::Note, format!("offered, and no data was sent: {why}"));
        let Some(local) = control.local() else { return not_tried("this side of the connection has no address") };
        if local.ip() != mapped.ip() {
            return not_tried("there is a NAT in between, behind which the server could not connect to this host");
        }
        if Family::of(local.ip()) != Family::of(relayed.ip()) {
            return not_tried("the relay is of the other address family than this host's address");
        }
        let peer = TcpListener::bind((local.ip(), 0)).and_then(|peer| Ok((peer.local_addr()?, peer)));
        let (address, peer) = match peer {
            Ok(peer) => peer,
            Err(error) => return not_tried(&format!("no port could be opened here: {error}")),
        };
        match self.exchange(control, address, &peer) {
            Ok(()) => {
                let message =
                    format!("offered: {BYTES} bytes there and back over a connection of {relayed} with {address}");
                self.step(name, Status::Ok, message)
            }
            Err(Broken::Refused(failure)) if failure.code() == Some(ErrorCode::FORBIDDEN) => {
                not_tried(&format!("the server does not let clients reach this host ({})", self.words(&failure)))
            }
            Err(Broken::Refused(failure)) => {
                let message =
                    format!("offered, but the server could not connect to {address} here: {}", self.words(&failure));
                with_code(self.step(name, Status::Warn, message), &failure)
            }
            Err(Broken::Data(what)) => self.step(name, Status::Fail, format!("offered, but {what}")),
        }
    }

    /// Connect, ConnectionBind on a connection of its own, and bytes both ways.
    fn exchange(&self, control: &mut Session, address: SocketAddr, peer: &TcpListener) -> Result<(), Broken> {
        let timeout = self.dialer.context.options.timeout;
        let connected = control.request(Request::Connect { peer: address }).map_err(Broken::Refused)?;
        let Answer::Connected { connection } = connected.answer else {
            return Err(Broken::Data("Connect got an answer to another request".to_owned()));
        };
        let mut accepted =
            accept(peer, timeout).map_err(|error| Broken::Data(format!("nobody connected here: {error}")))?;
        let mut data = self.dialer.open().map_err(|error| Broken::Data(error.to_string()))?;
        data.share_challenge(control);
        let bound = data.request(Request::ConnectionBind { connection });
        bound.map_err(|failure| Broken::Data(format!("the data connection was refused: {}", self.words(&failure))))?;
        let mut there = vec![0; BYTES];
        getrandom::fill(&mut there).map_err(|error| Broken::Data(error.to_string()))?;
        let back: Vec<u8> = there.iter().rev().copied().collect();
        let lost = |way: &str, why: String| Broken::Data(format!("bytes {way} the peer did not arrive: {why}"));
        let deadline = Instant::now() + timeout;
        data.link.send(&there, deadline).map_err(|failure| lost("to", self.words(&failure)))?;
        let mut arrived = vec![0; BYTES];
        accepted.read_exact(&mut arrived).map_err(|error| lost("to", error.to_string()))?;
        accepted.write_all(&back).map_err(|error| lost("from", error.to_string()))?;
        let mut returned = Vec::new();
        while returned.len() < BYTES {
            match data.link.recv_raw(deadline) {
                Ok(Some(bytes)) => returned.extend(bytes),
                Ok(None) => return Err(lost("from", format!("{} of {BYTES} came in time", returned.len()))),
                Err(failure) => return Err(lost("from", self.words(&failure))),
            }
        }
        match arrived == there && returned == back {
            true => Ok(()),
            false => Err(Broken::Data("other bytes arrived than were sent".to_owned())),
        }
    }

    /// A server that refuses for another reason has not said whether it offers it.
    fn untried(&self, name: &'static str, failure: &Failure) -> Step {
        let status = match failure.code() {
            Some(ErrorCode::QUOTA_REACHED | ErrorCode::INSUFFICIENT_CAPACITY | ErrorCode::TRY_ALTERNATE) => {
                Status::Note
            }
            _ => Status::Warn,
        };
        with_code(
            self.step(name, status, format!("whether it is offered cannot be told: {}", self.words(failure))),
            failure,
        )
    }

    fn words(&self, failure: &Failure) -> String {
        let context = self.dialer.context;
        failure.advice(self.dialer.socket_kind(), context.credential.as_deref(), context.now_unix)
    }

    fn step(&self, name: &'static str, status: Status, message: impl Into<String>) -> Step {
        Step::new(name, status, self.started.elapsed(), message)
    }
}

/// Why no data came across.
enum Broken {
    /// The server made no connection.
    Refused(Failure),
    /// It made one, and this went wrong.
    Data(String),
}

/// The connection that the server has made, within a time.
fn accept(peer: &TcpListener, timeout: Duration) -> io::Result<TcpStream> {
    peer.set_nonblocking(true)?;
    let deadline = Instant::now() + timeout;
    loop {
        match peer.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(POLL);
            }
            Err(error) => return Err(error),
        }
    }
}
