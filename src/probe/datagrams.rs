//! A connected UDP socket that blocks, but never beyond a deadline.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::addr::{Family, unspecified};

/// Bytes of the longest datagram.
const DATAGRAM_MAX: usize = 65_536;
/// What a proxy that speaks for itself puts in front of a datagram (PROXY protocol, version 2: LOCAL).
const LOCAL_HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A connected UDP socket, and what goes in front of each datagram.
pub(super) struct Datagrams {
    socket: UdpSocket,
    header: &'static [u8],
}

impl Datagrams {
    /// # Errors
    /// Of the socket calls.
    pub(super) fn open(server: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(unspecified(Family::of(server.ip())))?;
        socket.connect(server)?;
        Ok(Self { socket, header: &[] })
    }

    /// Has each begin as that of a proxy does which speaks for itself.
    pub(super) fn speak_for_itself(&mut self) {
        self.header = LOCAL_HEADER;
    }

    /// # Errors
    /// Of the socket.
    pub(super) fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// # Errors
    /// Of the socket.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self.header {
            [] => self.socket.send(bytes)?,
            header => self.socket.send(&[header, bytes].concat())?,
        };
        Ok(())
    }

    /// The next datagram; `None` at the deadline.
    ///
    /// # Errors
    /// Of the socket.
    pub(super) fn recv(&self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let Some(left) = left(deadline) else { return Ok(None) };
        self.socket.set_read_timeout(Some(left))?;
        let mut datagram = vec![0; DATAGRAM_MAX];
        match self.socket.recv(&mut datagram) {
            Ok(len) => {
                datagram.truncate(len);
                Ok(Some(datagram))
            }
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What is left of the time; `None` when it is over.
pub(super) fn left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// A read that waited as long as it may ends with either, depending on the system.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
