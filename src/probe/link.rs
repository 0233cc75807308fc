//! A connection to the server that blocks, but never beyond a deadline: UDP, TCP, TLS over TCP, or DTLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::{AlertDescription, ClientConnection};

use crate::addr::{Framing, SocketKind};
use crate::client::data::CHANNEL;
use crate::turn::framing::first_frame;

use super::datagrams::{Datagrams, is_timeout, left};
use super::dtls::Dtls;
use super::tls::{Handshake, TlsFailure};
use super::verdict::Failure;

/// A connection and what has arrived but was not yet read.
pub(super) enum Link {
    Udp(Datagrams),
    Dtls(Box<Dtls>),
    Stream(Box<Stream>),
}

impl Link {
    /// Opens a UDP socket or a TCP connection.
    ///
    /// # Errors
    /// Of the socket calls.
    pub(super) fn open(kind: SocketKind, server: SocketAddr, timeout: Duration) -> io::Result<Self> {
        match kind {
            SocketKind::Udp => Ok(Self::Udp(Datagrams::open(server)?)),
            SocketKind::Tcp => {
                let tcp = TcpStream::connect_timeout(&server, timeout)?;
                tcp.set_nodelay(true)?;
                Ok(Self::Stream(Box::new(Stream { tcp, tls: None, inbound: Vec::new() })))
            }
        }
    }

    /// Says that it is nobody else's: in front of a connection (PROXY protocol, version 1), or of each datagram (version 2).
    ///
    /// # Errors
    /// Of the socket.
    pub(super) fn speak_for_itself(&mut self) -> io::Result<()> {
        match self {
            Self::Udp(datagrams) => datagrams.speak_for_itself(),
            Self::Dtls(_) => {}
            Self::Stream(stream) => stream.tcp.write_all(b"PROXY UNKNOWN\r\n")?,
        }
        Ok(())
    }

    /// The address on this side.
    pub(super) fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Udp(datagrams) => datagrams.local(),
            Self::Dtls(dtls) => dtls.datagrams().local(),
            Self::Stream(stream) => stream.tcp.local_addr(),
        }
    }

    /// How messages are framed on it.
    pub(super) fn framing(&self) -> Framing {
        match self {
            Self::Udp(_) | Self::Dtls(_) => Framing::Datagrams,
            Self::Stream(_) => Framing::Stream,
        }
    }

    /// Whether what is sent need not be repeated.
    pub(super) fn is_reliable(&self) -> bool {
        match self {
            Self::Udp(_) | Self::Dtls(_) => false,
            Self::Stream(_) => true,
        }
    }

    /// Goes through the TLS handshake.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub(super) fn start_tls(&mut self, tls: ClientConnection, deadline: Instant) -> Result<Handshake, TlsFailure> {
        match self {
            Self::Udp(_) | Self::Dtls(_) => Err(TlsFailure::Io(io::ErrorKind::Unsupported.into())),
            Self::Stream(stream) => stream.start_tls(tls, deadline),
        }
    }

    /// Goes through the DTLS handshake, as a client that asks for a server of this name.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub(super) fn start_dtls(
        self,
        name: Option<&str>,
        alpn: Option<&str>,
        deadline: Instant,
    ) -> Result<(Self, Handshake), TlsFailure> {
        let Self::Udp(datagrams) = self else { return Err(TlsFailure::Io(io::ErrorKind::Unsupported.into())) };
        let (dtls, handshake) = Dtls::begin(datagrams, name, alpn, deadline)?;
        Ok((Self::Dtls(Box::new(dtls)), handshake))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// Of the socket; an ICMP error of what was sent before shows here, too.
    pub(super) fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Failure> {
        match self {
            Self::Udp(datagrams) => datagrams.send(bytes).map_err(Failure::Io),
            Self::Dtls(dtls) => dtls.send(bytes),
            Self::Stream(stream) => stream.send(bytes, deadline),
        }
    }

    /// The next datagram or frame, ChannelData with its padding; `None` at the deadline.
    ///
    /// # Errors
    /// Of the socket, and on a stream when it ends or carries something else.
    pub(super) fn recv(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Self::Udp(datagrams) => datagrams.recv(deadline).map_err(Failure::Io),
            Self::Dtls(dtls) => dtls.recv(deadline),
            Self::Stream(stream) => stream.recv(deadline),
        }
    }

    /// The next bytes of a stream, as they come; `None` at the deadline.
    ///
    /// # Errors
    /// Of the socket, or when the stream ends.
    pub(super) fn recv_raw(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, Failure> {
        let Self::Stream(stream) = self else { return Err(Failure::Io(io::ErrorKind::Unsupported.into())) };
        if stream.inbound.is_empty() && !stream.fill(deadline)? {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut stream.inbound)))
    }
}

/// A TCP connection, its TLS session if it has one, and bytes not yet taken as frames.
pub(super) struct Stream {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
    inbound: Vec<u8>,
}

impl Stream {
    fn start_tls(&mut self, mut tls: ClientConnection, deadline: Instant) -> Result<Handshake, TlsFailure> {
        while tls.is_handshaking() || tls.wants_write() {
            self.set_deadline(deadline).map_err(TlsFailure::Io)?.ok_or(TlsFailure::Silent)?;
            let moved = if tls.wants_write() {
                tls.write_tls(&mut self.tcp)
            } else {
                match tls.read_tls(&mut self.tcp) {
                    Ok(0) => return Err(TlsFailure::Closed),
                    read => read,
                }
            };
            match moved {
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return Err(TlsFailure::Silent),
                Err(error) => return Err(TlsFailure::Io(error)),
            }
            if let Err(error) = tls.process_new_packets() {
                // The alert that tells the server why, if it still listens.
                let _ = tls.write_tls(&mut self.tcp);
                return Err(match error {
                    rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => TlsFailure::NoProtocol,
                    error => TlsFailure::Tls(error),
                });
            }
        }
        let handshake = Handshake {
            version: match tls.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
                _ => "TLS",
            },
            alpn: tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).escape_debug().collect()),
            chain: tls.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect(),
        };
        self.tls = Some(tls);
        Ok(handshake)
    }

    fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Failure> {
        if self.set_deadline(deadline).map_err(Failure::Io)?.is_none() {
            return Err(Failure::Io(io::ErrorKind::TimedOut.into()));
        }
        let sent = match &mut self.tls {
            None => self.tcp.write_all(bytes),
            Some(tls) => tls.writer().write_all(bytes).and_then(|()| {
                while tls.wants_write() {
                    tls.write_tls(&mut self.tcp)?;
                }
                Ok(())
            }),
        };
        sent.map_err(closed_or_io)
    }

    fn recv(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            // Other protocols begin with letters, which look like the header of a long ChannelData.
            if let Some(&[c0, c1]) = self.inbound.first_chunk::<2>()
                && c0 >> 6 == 1
                && u16::from_be_bytes([c0, c1]) != CHANNEL
            {
                return Err(Failure::NotStun(std::mem::take(&mut self.inbound)));
            }
            match first_frame(&self.inbound, |_| true) {
                Ok(Some(frame)) => {
                    let rest = self.inbound.split_off(frame.next);
                    return Ok(Some(std::mem::replace(&mut self.inbound, rest)));
                }
                Ok(None) => {}
                Err(_) => return Err(Failure::NotStun(std::mem::take(&mut self.inbound))),
            }
            if !self.fill(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Waits for more bytes; `false` at the deadline.
    fn fill(&mut self, deadline: Instant) -> Result<bool, Failure> {
        loop {
            if self.set_deadline(deadline).map_err(Failure::Io)?.is_none() {
                return Ok(false);
            }
            let mut bytes = [0; 16_384];
            let read = match &mut self.tls {
                None => match self.tcp.read(&mut bytes) {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    read => read,
                },
                Some(tls) => read_tls(tls, &mut self.tcp, &mut bytes),
            };
            match read {
                // A TLS record without payload.
                Ok(0) => {}
                Ok(len) => {
                    self.inbound.extend_from_slice(bytes.get(..len).unwrap_or_default());
                    return Ok(true);
                }
                Err(error) if is_timeout(&error) => return Ok(false),
                Err(error) => return Err(closed_or_io(error)),
            }
        }
    }

    /// Limits the next calls; `None` when the time is over.
    fn set_deadline(&self, deadline: Instant) -> io::Result<Option<()>> {
        let Some(left) = left(deadline) else { return Ok(None) };
        self.tcp.set_read_timeout(Some(left))?;
        self.tcp.set_write_timeout(Some(left))?;
        Ok(Some(()))
    }
}

/// Reads from the socket once unless decrypted bytes wait; 0 when what came held no payload.
fn read_tls(tls: &mut ClientConnection, tcp: &mut TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    match tls.reader().read(bytes) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(len) => return Ok(len),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    if tls.read_tls(tcp)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    tls.process_new_packets().map_err(io::Error::other)?;
    while tls.wants_write() {
        tls.write_tls(tcp)?;
    }
    Ok(0)
}

fn closed_or_io(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Io(error),
    }
}
