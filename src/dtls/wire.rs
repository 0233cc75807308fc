//! What goes in and out of a session: datagrams in memory, which all sessions of a worker share.

use std::io::{self, Read, Write};

/// Datagrams, one behind the other.
#[derive(Debug, Default)]
pub struct Datagrams {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// The two ends of a session, while it has its turn.
#[derive(Debug, Default)]
pub struct Wire {
    incoming: Vec<u8>,
    has_incoming: bool,
    /// Room for a record.
    #[cfg(feature = "dtls")]
    pub(super) record: Vec<u8>,
    /// What the session sends.
    pub outgoing: Datagrams,
    /// What the client has sent, decrypted.
    pub plain: Datagrams,
}

/// How a session stands after it was given something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for more.
    Arriving,
    /// Messages can be read and written.
    Open,
    /// It is over: its client has closed it, or it has failed.
    Over,
}

impl Datagrams {
    /// Adds one.
    pub fn push(&mut self, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.ends.push(self.bytes.len());
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter().copied()).filter_map(|(start, end)| self.bytes.get(start..end))
    }

    /// All of them as one, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl Wire {
    /// The turn of a session begins: `datagram` is what it reads.
    pub fn begin(&mut self, datagram: &[u8]) {
        self.incoming.clear();
        self.incoming.extend_from_slice(datagram);
        self.has_incoming = !datagram.is_empty();
        self.outgoing.clear();
        self.plain.clear();
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::take(&mut self.has_incoming) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // What does not fit is lost, as with a datagram socket.
        let len = buffer.len().min(self.incoming.len());
        buffer.iter_mut().zip(&self.incoming).for_each(|(to, from)| *to = *from);
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.outgoing.push(datagram);
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_once_and_boundaries_stay() {
        let mut wire = Wire::default();
        let mut buffer = [0; 8];
        wire.begin(b"hello");
        assert_eq!(wire.read(&mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
        assert_eq!(wire.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for datagram in [&b"one"[..], b"", b"three"] {
            wire.write_all(datagram).unwrap();
        }
        wire.outgoing.push(b"");
        assert_eq!(wire.outgoing.iter().collect::<Vec<_>>(), [&b"one"[..], b"three", b""]);
        wire.begin(b"");
        assert!(wire.read(&mut buffer).is_err() && wire.outgoing.iter().next().is_none());
    }
}
