//! A client's connection that carries a peer's data (RFC 6062 section 4.5): plain bytes, over TLS or not.
//!
//! Nothing is kept here but what TLS has not let go of: what one side does not take is not read from the other.

use std::io::{self, BufRead, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustls::ServerConnection;

use super::limits::ConnectionPermit;
use super::session::{self, would_block};

/// A connection that has been taken for data.
pub struct DataConnection {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Counts it.
    _permit: ConnectionPermit,
}

/// What a look at what a client has sent over TLS has brought.
pub enum Plaintext<'t> {
    /// So much can be taken.
    Bytes(&'t [u8]),
    /// Nothing yet.
    Nothing,
    /// The client has sent all.
    End,
}

impl DataConnection {
    pub(super) fn new(socket: TcpStream, tls: Option<Box<ServerConnection>>, mut permit: ConnectionPermit) -> Self {
        // It is no stranger's: there is an allocation behind it.
        permit.set_holder(true);
        Self { socket, tls, _permit: permit }
    }

    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether it is TLS: then its bytes are not those of the socket.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether a session has something that the socket has not taken.
    pub fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what the session has to say.
    ///
    /// # Errors
    /// Also when the socket takes no more now.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => session::flush(tls, &self.socket),
            None => Ok(()),
        }
    }

    /// Sends bytes, as many as there is room for. Over TLS none may wait from before.
    ///
    /// # Errors
    /// Also when there is no room now.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return (&self.socket).write(bytes) };
        let count = tls.writer().write(bytes)?;
        match session::flush(tls, &self.socket) {
            Err(error) if !would_block(&error) => Err(error),
            _ => Ok(count),
        }
    }

    /// Looks at what the client has sent over TLS; reads from the socket only if nothing is left of what was read.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn plaintext(&mut self) -> io::Result<Plaintext<'_>> {
        let Some(tls) = &mut self.tls else { return Ok(Plaintext::Nothing) };
        loop {
            // A look first: what it finds cannot be given out while there may be another turn of the loop.
            let found = match tls.reader().fill_buf() {
                Ok(bytes) => Some(!bytes.is_empty()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                // The connection ended without a notice.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some(false),
                Err(error) => return Err(error),
            };
            match found {
                Some(true) => return Ok(Plaintext::Bytes(tls.reader().into_first_chunk()?)),
                Some(false) => return Ok(Plaintext::End),
                None => {}
            }
            match tls.read_tls(&mut &self.socket) {
                Ok(_) => {}
                Err(error) if would_block(&error) => return Ok(Plaintext::Nothing),
                Err(error) => return Err(error),
            }
            let state = tls.process_new_packets().map_err(io::Error::other);
            if tls.wants_write() {
                let _ = session::flush(tls, &self.socket);
            }
            state?;
        }
    }

    /// Takes so much of what was looked at.
    pub fn consume(&mut self, count: usize) {
        if let Some(tls) = &mut self.tls {
            tls.reader().consume(count);
        }
    }

    /// Tells the client, if it is over TLS, that this was all; [`Self::flush`] sends it. It can be told more than once.
    pub fn queue_notice_of_end(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
    }

    /// Ends the socket's sending half, when all has been sent.
    pub fn end_sending(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}
