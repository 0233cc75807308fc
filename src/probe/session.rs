//! One client at the server: requests with their retransmissions (RFC 8489 section 6.2.1), and every signature looked at.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::addr::Framing;
use crate::client::{Answer, Client, ClientError, Credential, Event, Request};
use crate::stun::{ErrorCode, Message};

use super::link::Link;
use super::verdict::Failure;

/// The first wait before a request is repeated over UDP; it doubles each time.
const RTO: Duration = Duration::from_millis(500);
/// Rc, the most transmissions of one request.
const MAX_SENDS: u32 = 7;

/// A connection with the protocol's state.
pub(super) struct Session {
    pub(super) link: Link,
    client: Client,
    timeout: Duration,
    /// How many responses had a right signature.
    pub(super) verified: u32,
    /// Refusals of authenticated requests that had none although the RFC wants one.
    pub(super) unsigned: Vec<String>,
}

/// A success, and the response as it came.
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) response: Vec<u8>,
}

impl Session {
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn new(link: Link, credential: Option<Arc<Credential>>, timeout: Duration) -> io::Result<Self> {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        Ok(Self { link, client: Client::new(credential, seed), timeout, verified: 0, unsigned: Vec::new() })
    }

    /// Signs from the first request on, by what another session of the same user was told. Some servers want that of ConnectionBind.
    pub(super) fn share_challenge(&mut self, other: &Self) {
        self.client.share_challenge(&other.client);
    }

    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.link.local().ok()
    }

    /// Sends a request, answers the server's challenge, and waits for the response.
    ///
    /// # Errors
    /// [`Failure`]; a response that is malformed or wrongly signed counts only when no better one comes (RFC 8489
    /// section 9.2.5).
    pub(super) fn request(&mut self, request: Request) -> Result<Reply, Failure> {
        let mut message = Vec::new();
        self.client.start(request, &mut message);
        let started = Instant::now();
        let deadline = started + self.timeout;
        let (mut sends, mut rto, mut doubt) = (0, RTO, None);
        loop {
            self.link.send(&message, deadline)?;
            sends += 1;
            let is_last = self.link.is_reliable() || sends == MAX_SENDS;
            let wait_until = if is_last { deadline } else { deadline.min(Instant::now() + rto) };
            rto *= 2;
            while let Some(bytes) = self.link.recv(wait_until)? {
                if bytes == message {
                    return Err(Failure::Echoed);
                }
                if bytes.first().is_some_and(|first| first >> 6 == 1) {
                    // ChannelData of an exchange that is over; of no use here, and no STUN either.
                    doubt.get_or_insert(Failure::NotStun(bytes));
                    continue;
                }
                let mut again = Vec::new();
                match self.client.receive(&bytes, &mut again) {
                    Ok(Event::Ignored) => {}
                    Ok(Event::Retry) => {
                        (message, sends, rto) = (again, 0, RTO);
                        break;
                    }
                    Ok(Event::Done(answer)) => {
                        self.verified += u32::from(self.verify(&bytes) == Some(true));
                        return Ok(Reply { answer, response: bytes });
                    }
                    Err(ClientError::Malformed(_))
                        if self.link.framing() == Framing::Datagrams && !looks_like_stun(&bytes) =>
                    {
                        doubt = Some(Failure::NotStun(bytes));
                    }
                    Err(error @ (ClientError::Malformed(_) | ClientError::BadIntegrity { .. })) => {
                        doubt = Some(Failure::Client { error, response: bytes });
                    }
                    Err(error) => return Err(self.refused(error, bytes)),
                }
            }
            if Instant::now() >= deadline {
                return Err(doubt.unwrap_or(Failure::Silent { sends, waited: started.elapsed() }));
            }
        }
    }

    /// Looks at the signature of a refusal, which only the answers to a challenge are without (RFC 8489 section 9.2.4).
    fn refused(&mut self, error: ClientError, response: Vec<u8>) -> Failure {
        let ClientError::Refused { method, code, .. } = &error else { return Failure::Client { error, response } };
        let signed = Message::parse(&response).is_ok_and(|message| message.integrity().is_some());
        match self.verify(&response) {
            Some(true) => self.verified += 1,
            Some(false) if signed => {
                return Failure::Client { error: ClientError::BadIntegrity { method: *method }, response };
            }
            Some(false) if !may_be_unsigned(*code) => {
                self.unsigned.push(format!("{} to {}", code.value(), method.name()));
            }
            _ => {}
        }
        Failure::Client { error, response }
    }

    fn verify(&self, response: &[u8]) -> Option<bool> {
        Message::parse(response).ok().and_then(|message| self.client.verify(&message))
    }
}

fn may_be_unsigned(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TRY_ALTERNATE
            | ErrorCode::BAD_REQUEST
            | ErrorCode::UNAUTHENTICATED
            | ErrorCode::STALE_NONCE
            | ErrorCode::SERVER_ERROR
    )
}

fn looks_like_stun(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(&crate::stun::MAGIC_COOKIE.to_be_bytes())
}
