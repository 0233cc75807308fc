//! A DTLS session over a UDP socket that blocks, but never beyond a deadline.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::dtls::{Session, State, Wire};

use super::datagrams::Datagrams;
use super::tls::{Handshake, TlsFailure};
use super::verdict::Failure;

/// How often OpenSSL is asked whether a flight of the handshake has to be sent again.
const TICK: Duration = Duration::from_millis(100);

const SILENT: &str = "no answer to the DTLS handshake: a firewall drops UDP, or this is no DTLS port";
const ENDED: &str = "the server ended the DTLS handshake; openssl s_client -dtls1_2 -connect HOST:PORT shows its alert";

/// The session, and messages that were not yet read.
pub(super) struct Dtls {
    datagrams: Datagrams,
    session: Session,
    wire: Wire,
    unread: VecDeque<Vec<u8>>,
}

impl Dtls {
    /// Goes through the handshake.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub(super) fn begin(
        datagrams: Datagrams,
        name: Option<&str>,
        alpn: Option<&str>,
        deadline: Instant,
    ) -> Result<(Self, Handshake), TlsFailure> {
        let session = Session::connect(name, alpn).map_err(TlsFailure::Io)?;
        let mut dtls = Self { datagrams, session, wire: Wire::default(), unread: VecDeque::new() };
        let mut arrived = Vec::new();
        loop {
            let state = dtls.session.shake_hands(&arrived, &mut dtls.wire);
            dtls.flush().map_err(TlsFailure::Io)?;
            match state {
                State::Open => break,
                State::Over => return Err(TlsFailure::Dtls(ENDED)),
                State::Arriving if Instant::now() >= deadline => return Err(TlsFailure::Dtls(SILENT)),
                State::Arriving => {}
            }
            let until = deadline.min(Instant::now() + TICK);
            arrived = dtls.datagrams.recv(until).map_err(TlsFailure::Io)?.unwrap_or_default();
        }
        let alpn = dtls.session.protocol().map(|name| String::from_utf8_lossy(name).escape_debug().collect());
        let chain = dtls.session.peer_chain().into_iter().map(Into::into).collect();
        Ok((dtls, Handshake { version: "DTLS 1.2", alpn, chain }))
    }

    pub(super) fn datagrams(&self) -> &Datagrams {
        &self.datagrams
    }

    /// Sends one message.
    ///
    /// # Errors
    /// Of the socket, or when the session is over.
    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        if !self.session.send(message, &mut self.wire) {
            return Err(Failure::Closed);
        }
        self.flush().map_err(Failure::Io)
    }

    /// The next message; `None` at the deadline.
    ///
    /// # Errors
    /// Of the socket, or when the session is over.
    pub(super) fn recv(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(message) = self.unread.pop_front() {
                return Ok(Some(message));
            }
            let Some(datagram) = self.datagrams.recv(deadline).map_err(Failure::Io)? else { return Ok(None) };
            let state = self.session.receive(&datagram, &mut self.wire);
            self.unread.extend(self.wire.plain.iter().map(<[u8]>::to_vec));
            self.flush().map_err(Failure::Io)?;
            if state == State::Over && self.unread.is_empty() {
                return Err(Failure::Closed);
            }
        }
    }

    fn flush(&self) -> std::io::Result<()> {
        self.wire.outgoing.iter().try_for_each(|datagram| self.datagrams.send(datagram))
    }
}

impl Drop for Dtls {
    /// The server need not keep what nobody uses any more.
    fn drop(&mut self) {
        self.session.close(&mut self.wire);
        let _ = self.flush();
    }
}
