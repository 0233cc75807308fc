//! A connection whose client is not known yet, and what it gets through before its first message.
//!
//! It has no 5-tuple: nothing is framed of it, and nothing can be sent to it. When it has arrived, it is a [`Connection`], and it
//! has a client. What comes before goes by steps: the header of a proxy, whether it is TLS, the handshake.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustls::server::ClientHello;
use rustls::{ServerConfig, ServerConnection};

use super::connection::Connection;
use super::hello::{Heard, Hello, answer};
use super::passage::Passage;
use super::session::{self, ReadError, peek, read_some, would_block};
use super::validation::ACME_TLS;
use crate::addr::{ClientAddr, FiveTuple, Transport};
use crate::config::{ListenOptions, Web};
use crate::net::{Arena, Span};
use crate::proxy::{Ends, HEADER_MAX, Header, read_stream_header, stream_header};
use crate::user::RealmId;

/// What a client may send until its handshake is complete. A ClientHello has 300 to 2,000 bytes, with large key shares and
/// tickets a few thousand; what follows it is short.
const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

/// The first byte of a TLS handshake: the type of its record. No message of STUN and no ChannelData begins so.
const TLS_HANDSHAKE: u8 = 22;

/// An accepted, non-blocking socket and its two ends.
pub struct Accepted {
    socket: TcpStream,
    /// The client's and ours, or what the proxy says of its own.
    ends: Ends,
    /// The proxy, if it came from one.
    proxy: Option<SocketAddr>,
    /// The listener's realm.
    realm: RealmId,
    /// What server the client has asked its proxy for, if that says so.
    server_name: Option<Box<str>>,
}

/// What a connection begins with, behind the header of a proxy.
#[derive(Clone)]
pub enum Opening {
    /// Its messages: TCP.
    Messages,
    /// A handshake: TLS.
    Handshake(Arc<ServerConfig>),
    /// One of the two, which its first byte says.
    Either(Arc<ServerConfig>),
    /// The same, or either; what is TLS may be for a web server.
    Shared {
        /// For what is ours.
        config: Arc<ServerConfig>,
        /// Whether it may be TCP.
        has_tcp: bool,
        /// What else is known of the port; it has a web server.
        options: Arc<ListenOptions>,
    },
}

/// A connection on its way.
pub struct Arriving {
    accepted: Accepted,
    step: Step,
    is_web_shared: bool,
}

/// What it has to get through next.
enum Step {
    /// The header of a proxy, of which so much has come, and what comes then.
    Header(Vec<u8>, Opening),
    /// The first byte; what comes if it is TLS.
    FirstByte(Opening),
    /// The ClientHello, by which is decided whose it is.
    Hello(Box<Hello>, Arc<ServerConfig>, Arc<ListenOptions>),
    /// It goes on to a web server, which has to have these bytes first.
    Web(Vec<u8>, Arc<ListenOptions>),
    /// The TLS handshake, for which so many bytes have come.
    Handshake(Box<ServerConnection>, usize),
    /// Nothing more.
    Messages,
}

/// How far a connection has come.
pub enum Progress {
    /// More has to come first.
    Waits(Arriving),
    /// Its proxy has said whose it is. It can go on at once.
    Known(Arriving),
    /// It is not for us: [`Arriving::web`].
    ForWeb(Arriving),
    /// It has a client.
    Arrived(Arrived),
}

/// A connection that has arrived.
pub struct Arrived {
    /// The connection.
    pub connection: Connection,
    /// Its client.
    pub five_tuple: FiveTuple,
    /// What came behind the last step and is to be framed.
    pub read: Span,
    /// The listener's realm, unless the server name leads to another.
    pub realm: RealmId,
    /// What server the client has asked for, in its handshake with us or with its proxy.
    pub server_name: Option<Box<str>>,
    /// Whether it came by TLS to a port that it shares with a web server.
    pub is_web_shared: bool,
}

impl Accepted {
    /// Takes what `accept` has returned.
    ///
    /// # Errors
    /// When the socket has no address any more.
    pub fn new(socket: TcpStream, remote: SocketAddr) -> io::Result<Self> {
        let ends = Ends { client: remote, server: socket.local_addr()? };
        Ok(Self { socket, ends, proxy: None, realm: RealmId::DEFAULT, server_name: None })
    }

    /// By a listener of this realm.
    #[must_use]
    pub fn in_realm(self, realm: RealmId) -> Self {
        Self { realm, ..self }
    }

    /// Has it begin, with the header of a proxy if it came from one.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn begin(mut self, opening: Opening, is_proxied: bool) -> Result<Progress, rustls::Error> {
        let is_web_shared = matches!(opening, Opening::Shared { .. });
        if is_proxied {
            self.proxy = Some(self.ends.client);
            let step = Step::Header(Vec::new(), opening);
            return Ok(Progress::Waits(Arriving { accepted: self, step, is_web_shared }));
        }
        Ok(match Step::of(opening)? {
            Step::Messages => Progress::Arrived(self.over_tcp()),
            step => Progress::Waits(Arriving { accepted: self, step, is_web_shared }),
        })
    }

    fn over_tcp(self) -> Arrived {
        let five_tuple = self.five_tuple(Transport::Tcp);
        let Self { socket, realm, server_name, .. } = self;
        let (connection, read) = (Connection::plain(socket), Span::default());
        Arrived { connection, five_tuple, read, realm, server_name, is_web_shared: false }
    }

    /// The client is the one that has connected to the proxy, and the server the address at which it did: another proxy may pass on
    /// a connection from the very same address and port.
    fn five_tuple(&self, transport: Transport) -> FiveTuple {
        FiveTuple { transport, client: ClientAddr::new(self.ends.client), server: self.ends.server }
    }
}

impl Step {
    fn of(opening: Opening) -> Result<Self, rustls::Error> {
        Ok(match opening {
            Opening::Messages => Self::Messages,
            Opening::Handshake(config) => Self::Handshake(session::new(&config)?, 0),
            Opening::Either(config) => Self::FirstByte(Opening::Handshake(config)),
            Opening::Shared { has_tcp: true, config, options } => {
                Self::FirstByte(Opening::Shared { has_tcp: false, config, options })
            }
            Opening::Shared { has_tcp: false, config, options } => Self::Hello(Box::default(), config, options),
        })
    }
}

impl Arriving {
    /// The socket, for epoll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.accepted.socket.as_fd()
    }

    /// Its two ends, as its proxy says if it came from one and has said so.
    pub fn ends(&self) -> Ends {
        self.accepted.ends
    }

    /// The proxy, if it came from one.
    pub fn proxy(&self) -> Option<SocketAddr> {
        self.accepted.proxy
    }

    /// Whether its proxy has not said yet whose it is.
    pub fn awaits_header(&self) -> bool {
        matches!(self.step, Step::Header(..))
    }

    /// Whether something of ours waits until the socket is writable.
    pub fn wants_write(&self) -> bool {
        match &self.step {
            Step::Handshake(tls, _) => tls.wants_write(),
            Step::Header(..) | Step::FirstByte(_) | Step::Hello(..) | Step::Web(..) | Step::Messages => false,
        }
    }

    /// Sends what waits, and reads what is there, at most `most` bytes. Messages behind the last step go into `slot`.
    ///
    /// # Errors
    /// [`ReadError`], and the connection, which is to be closed.
    pub fn go_on(
        mut self,
        arena: &mut Arena,
        slot: Span,
        cipher_slot: Span,
        most: usize,
    ) -> Result<Progress, (Self, ReadError)> {
        let cipher_slot = cipher_slot.part(0, most.min(cipher_slot.len as usize));
        loop {
            let socket = &self.accepted.socket;
            let next = match &mut self.step {
                Step::Header(received, opening) => match read_header(socket, received, arena.get_mut(cipher_slot)) {
                    Ok(None) => return Ok(Progress::Waits(self)),
                    Ok(Some(header)) => {
                        let next = Step::of(opening.clone()).map_err(|_| ReadError::Tls);
                        self.accepted.ends = header.ends.unwrap_or(self.accepted.ends);
                        self.accepted.server_name = header.server_name;
                        return match next {
                            Ok(step) => Ok(Progress::Known(Self { step, ..self })),
                            Err(error) => Err((self, error)),
                        };
                    }
                    Err(error) => Err(error),
                },
                Step::FirstByte(opening) => match peek(socket, arena.get_mut(cipher_slot.part(0, 1))) {
                    Ok([]) => return Ok(Progress::Waits(self)),
                    Ok([TLS_HANDSHAKE, ..]) => Step::of(opening.clone()).map_err(|_| ReadError::Tls),
                    // What is no message either is refused where messages are told apart.
                    Ok(_) => Ok(Step::Messages),
                    Err(error) => Err(error),
                },
                Step::Hello(hello, config, options) => {
                    match hear(socket, hello, config, options, arena.get_mut(cipher_slot)) {
                        Ok(None) => return Ok(Progress::Waits(self)),
                        Ok(Some(Step::Web(head, options))) => {
                            return Ok(Progress::ForWeb(Self { step: Step::Web(head, options), ..self }));
                        }
                        Ok(Some(step)) => Ok(step),
                        Err(error) => Err(error),
                    }
                }
                Step::Web(..) => return Ok(Progress::ForWeb(self)),
                Step::Handshake(tls, received) => {
                    let read = shake_hands(tls, received, socket, arena, cipher_slot, slot);
                    let is_complete = !tls.is_handshaking();
                    let is_validation = is_complete && tls.alpn_protocol() == Some(ACME_TLS);
                    match read {
                        // It has seen what it came for (RFC 8737 section 3).
                        Ok(_) if is_validation => Err(ReadError::Closed),
                        Ok(read) if is_complete => return Ok(self.arrive(slot.part(0, read))),
                        Ok(_) => return Ok(Progress::Waits(self)),
                        Err(error) => Err(error),
                    }
                }
                Step::Messages => return Ok(self.arrive(Span::default())),
            };
            match next {
                Ok(step) => self.step = step,
                Err(error) => return Err((self, error)),
            }
        }
    }

    /// The web server that it goes on to.
    pub fn web(&self) -> Option<&Web> {
        if let Step::Web(_, options) = &self.step { options.web.as_ref() } else { None }
    }

    /// Has it go on there, by a connection that is being made.
    pub fn pass_on(self, web: OwnedFd) -> Passage {
        let (hello, has_header) = match self.step {
            Step::Web(hello, options) => (hello, options.web.as_ref().is_some_and(|web| web.proxy_header)),
            _ => (Vec::new(), false),
        };
        let header = if has_header { stream_header(self.accepted.ends) } else { Vec::new() };
        Passage::new(self.accepted.socket, web.into(), [header, hello].concat())
    }

    fn arrive(mut self, read: Span) -> Progress {
        let Step::Handshake(tls, _) = self.step else { return Progress::Arrived(self.accepted.over_tcp()) };
        let five_tuple = self.accepted.five_tuple(Transport::Tls);
        // What it asks us for counts, where the proxy has not ended its TLS.
        let server_name = tls.server_name().map(Into::into).or(self.accepted.server_name.take());
        let realm = self.accepted.realm;
        let connection = Connection::encrypted(self.accepted.socket, tls);
        Progress::Arrived(Arrived {
            connection,
            five_tuple,
            read,
            realm,
            server_name,
            is_web_shared: self.is_web_shared,
        })
    }

    /// Ends it in order.
    pub fn close(self) {
        let socket = &self.accepted.socket;
        let mut tls = if let Step::Handshake(tls, _) = self.step { Some(tls) } else { None };
        let can_write = tls.as_deref_mut().is_some_and(|tls| session::flush(tls, socket).is_ok());
        session::close(socket, tls.as_deref_mut().filter(|_| can_write));
    }
}

/// Reads the header of a proxy, and nothing of what is behind it; nothing while it is incomplete. What has come of it is taken out of
/// the socket, which would be readable all the time otherwise.
fn read_header(socket: &TcpStream, received: &mut Vec<u8>, buffer: &mut [u8]) -> Result<Option<Header>, ReadError> {
    let most = HEADER_MAX.saturating_sub(received.len()).min(buffer.len());
    let before = received.len();
    received.extend_from_slice(peek(socket, buffer.get_mut(..most).unwrap_or_default())?);
    let header = read_stream_header(received).map_err(ReadError::Proxy)?;
    let taken = header.as_ref().map_or(received.len(), |header| header.len).saturating_sub(before);
    if taken > 0 && read_some(socket, buffer.get_mut(..taken).unwrap_or_default())? != taken {
        return Err(ReadError::Closed);
    }
    Ok(header)
}

/// A part of the ClientHello; returns the next step when that is known.
fn hear(
    socket: &TcpStream,
    hello: &mut Box<Hello>,
    config: &Arc<ServerConfig>,
    options: &Arc<ListenOptions>,
    buffer: &mut [u8],
) -> Result<Option<Step>, ReadError> {
    let most = HANDSHAKE_BYTES_MAX.saturating_sub(hello.received()).min(buffer.len());
    if most == 0 {
        return Err(ReadError::Tls);
    }
    let count = read_some(socket, buffer.get_mut(..most).unwrap_or_default())?;
    let read = buffer.get(..count).filter(|read| !read.is_empty());
    let Some(read) = read else { return Ok(None) };
    let turn_names = options.web.as_ref().map_or(&[] as &[String], |web| &web.turn_names);
    let received = hello.received() + count;
    let refuse = |alert: &[u8]| {
        let mut socket = socket;
        // Whether it arrives does not matter any more.
        let _ = socket.write(alert);
        Err(ReadError::Tls)
    };
    // The certificate of a validation is there only while one is under way: what asks for another one is the web server's.
    let is_validation = |hello: ClientHello<'_>| config.cert_resolver.resolve(hello).is_some();
    match std::mem::take(&mut **hello).hear(read, turn_names, is_validation) {
        Heard::Part(part) => {
            **hello = part;
            Ok(None)
        }
        Heard::Ours(ours) => match answer(*ours, config) {
            Ok(tls) => Ok(Some(Step::Handshake(tls, received))),
            Err(alert) => refuse(&alert),
        },
        Heard::Web(head) => Ok(Some(Step::Web(head, Arc::clone(options)))),
        Heard::Refused(alert) => refuse(&alert),
    }
}

/// A part of the handshake; returns the bytes of plaintext that came behind it.
fn shake_hands(
    tls: &mut ServerConnection,
    received: &mut usize,
    socket: &TcpStream,
    arena: &mut Arena,
    cipher_slot: Span,
    slot: Span,
) -> Result<usize, ReadError> {
    if let Err(error) = session::flush(tls, socket)
        && !would_block(&error)
    {
        return Err(ReadError::Closed);
    }
    let most = HANDSHAKE_BYTES_MAX.saturating_sub(*received).min(cipher_slot.len as usize);
    if most == 0 {
        return Err(ReadError::Tls);
    }
    let (count, read) = session::read(tls, socket, arena, cipher_slot.part(0, most), slot)?;
    *received += count;
    Ok(read)
}

#[cfg(test)]
pub(crate) mod tests;
