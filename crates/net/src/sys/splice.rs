//! Moving bytes from one connection to another without copying them through this process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, recv};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

/// What a pipe holds without being told to, and so what is moved at once.
pub const PIPE_BYTES: usize = 64 * 1024;

/// A pipe through which bytes move: in by one connection, out by another.
pub struct Pipe {
    reading: OwnedFd,
    writing: OwnedFd,
    held: usize,
}

impl Pipe {
    /// An empty pipe.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { reading, writing, held: 0 })
    }

    /// The two descriptors it takes.
    pub fn into_ends(self) -> [OwnedFd; 2] {
        [self.reading, self.writing]
    }

    /// A pipe of the descriptors of an empty one.
    pub fn from_ends([reading, writing]: [OwnedFd; 2]) -> Self {
        Self { reading, writing, held: 0 }
    }

    /// Bytes that are in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes what a connection has, at most `most` bytes; 0 at its end. The pipe is to be empty: then it is the connection that would
    /// block.
    ///
    /// # Errors
    /// What `splice` says.
    pub fn fill(&mut self, from: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let count = splice(from, None, &self.writing, None, most.min(PIPE_BYTES), FLAGS)?;
        self.held += count;
        Ok(count)
    }

    /// Gives a connection what it takes of what is held.
    ///
    /// # Errors
    /// What `splice` says.
    pub fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<usize> {
        let count = splice(&self.reading, None, to, None, self.held, FLAGS)?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// Bytes that a connection has to be read.
///
/// # Errors
/// What the call says.
pub fn readable_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(usize::try_from(rustix::io::ioctl_fionread(socket)?).unwrap_or(usize::MAX))
}

/// Looks at what a connection has and leaves it there; 0 bytes at its end.
///
/// # Errors
/// What `recv` says.
pub fn peek(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket, into, RecvFlags::PEEK)?.0)
}

/// Takes as many bytes out of a connection, which have been looked at, into what nobody reads.
///
/// # Errors
/// What `recv` says.
pub fn discard(socket: BorrowedFd<'_>, looked_at: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_fd(), looked_at, RecvFlags::TRUNC)?.1)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_move_through_a_pipe_until_the_end() {
        let ((mut from, source), (sink, mut to)) = (pair(), pair());
        source.set_nonblocking(true).unwrap();
        sink.set_nonblocking(true).unwrap();
        let mut pipe = Pipe::new().unwrap();
        assert_eq!(pipe.fill(source.as_fd(), 100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        from.write_all(b"all of it").unwrap();
        while readable_bytes(source.as_fd()).unwrap() < 9 {}
        assert_eq!((pipe.fill(source.as_fd(), 3).unwrap(), pipe.held()), (3, 3));
        assert_eq!((pipe.drain(sink.as_fd()).unwrap(), pipe.held()), (3, 0));
        assert_eq!(pipe.fill(source.as_fd(), 100).unwrap(), 6);
        assert_eq!(pipe.drain(sink.as_fd()).unwrap(), 6);
        drop(from);
        while pipe.fill(source.as_fd(), 100).map_err(|error| error.kind()) == Err(io::ErrorKind::WouldBlock) {}
        assert_eq!(pipe.held(), 0);
        drop(sink);
        let mut all = Vec::new();
        to.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"all of it");
    }

    #[test]
    fn what_was_looked_at_is_taken_out_as_far_as_wanted() {
        let (mut from, source) = pair();
        from.write_all(b"0123456789").unwrap();
        let mut buffer = [0; 16];
        while peek(source.as_fd(), &mut buffer).unwrap() < 10 {}
        assert_eq!(discard(source.as_fd(), &mut buffer[..4]).unwrap(), 4);
        assert_eq!(peek(source.as_fd(), &mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"456789");
    }
}
