//! Bytes moved from one connection to another by the kernel (splice(2)): they do not come into this process.
//!
//! The sockets are non-blocking and watched edge-triggered for both directions: a flow goes on until its source has nothing more, its
//! sink takes nothing more, or its turn is over. What its sink has not taken waits in a pipe, which a flow has only while it needs
//! one: connections that are silent hold nothing but their sockets. Who finds no pipe left is served by copying.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::sys::Descriptors;

/// What a pipe holds without being told to, and so what is moved at once.
pub const PIPE_BYTES: usize = 64 * 1024;
/// Bytes that are copied at once.
const COPY_BYTES: usize = 8 * 1024;
/// Pipes of one worker. Each takes two descriptors; the kernel gives a user 1024 of full size.
const PIPES_MAX: usize = 128;
/// Of these, those that are kept though nobody needs them.
const IDLE_MAX: usize = 32;

/// A pipe through which bytes move: in by one connection, out by another.
pub struct Pipe {
    reading: OwnedFd,
    writing: OwnedFd,
    held: usize,
    _counted: Counted,
}

/// Counts a pipe among those that there are.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pipe {
    /// Bytes that are in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes what a connection has, at most `most` bytes; 0 at its end. An empty pipe has room: then it is the connection that would
    /// block.
    ///
    /// # Errors
    /// What `splice` says.
    pub fn fill(&mut self, from: impl AsFd, most: usize) -> io::Result<usize> {
        let room = PIPE_BYTES.saturating_sub(self.held);
        let count = splice(from, None, &self.writing, None, most.min(room), FLAGS)?;
        self.held += count;
        Ok(count)
    }

    /// Gives a connection what it takes of what is held.
    ///
    /// # Errors
    /// What `splice` says.
    pub fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let count = splice(&self.reading, None, to, None, self.held, FLAGS)?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// The pipes of one worker. One that is dropped, by whomever, makes room for another.
pub struct Pipes {
    idle: Vec<Pipe>,
    made: Arc<AtomicUsize>,
    most: usize,
    descriptors: Descriptors,
}

impl Pipes {
    /// No pipes yet, and at most this worker's share of them.
    pub fn new(descriptors: Descriptors) -> Self {
        let most = usize::try_from(descriptors.pipes).map_or(PIPES_MAX, |pipes| pipes.min(PIPES_MAX));
        Self { idle: Vec::new(), made: Arc::default(), most, descriptors }
    }

    /// An empty pipe, if there is one left. Of the last descriptors none becomes one.
    pub fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.made.load(Ordering::Relaxed) >= self.most {
            return None;
        }
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let (reading, writing) = (self.descriptors.admit(reading).ok()?, self.descriptors.admit(writing).ok()?);
        self.made.fetch_add(1, Ordering::Relaxed);
        Some(Pipe { reading, writing, held: 0, _counted: Counted(Arc::clone(&self.made)) })
    }

    /// Takes a pipe back. One that is not empty is closed with what it holds.
    pub fn give_back(&mut self, pipe: Pipe) {
        if pipe.held == 0 && self.idle.len() < IDLE_MAX {
            self.idle.push(pipe);
        }
    }
}

/// Bytes that a connection has to be read.
///
/// # Errors
/// What the call says.
pub fn readable_bytes(socket: impl AsFd) -> io::Result<usize> {
    Ok(usize::try_from(rustix::io::ioctl_fionread(socket)?).unwrap_or(usize::MAX))
}

/// Looks at what a connection has and leaves it there; 0 bytes at its end.
///
/// # Errors
/// What `recv` says.
pub fn peek(socket: impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket, into, RecvFlags::PEEK)?.0)
}

/// Takes as many bytes out of a connection, which have been looked at, into what nobody reads.
///
/// # Errors
/// What `recv` says.
pub fn discard(socket: impl AsFd, looked_at: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket, looked_at, RecvFlags::TRUNC)?.1)
}

/// One direction between two connections.
#[derive(Default)]
pub struct Flow {
    pipe: Option<Pipe>,
    /// The source sends no more.
    has_ended: bool,
    /// The sink has been told so.
    is_shut: bool,
}

/// What a turn of a flow has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that the sink has taken.
    pub bytes: usize,
    /// Whether the turn was over before either end was.
    pub has_more: bool,
}

impl Flow {
    /// Whether the source has ended, and the sink has all of it and knows.
    pub fn is_over(&self) -> bool {
        self.is_shut
    }

    /// Moves what can be moved, at most about `most` bytes. When the source has ended and the sink has everything, the sink is told
    /// (FIN).
    ///
    /// # Errors
    /// One of the two connections is broken.
    pub fn go_on(&mut self, from: impl AsFd, to: impl AsFd, most: usize, pipes: &mut Pipes) -> io::Result<Moved> {
        let mut moved = Moved::default();
        while !self.is_shut {
            if moved.bytes >= most {
                moved.has_more = true;
                break;
            }
            let is_stuck = match self.pipe.take().or_else(|| pipes.take()) {
                Some(pipe) => self.splice(&from, &to, pipe, (&mut moved, pipes))?,
                None => self.copy(&from, &to, &mut moved)?,
            };
            if self.has_ended && self.pipe.is_none() {
                self.is_shut = true;
                match shutdown(&to, Shutdown::Write) {
                    Ok(()) | Err(Errno::NOTCONN) => {}
                    Err(error) => return Err(error.into()),
                }
            } else if is_stuck {
                break;
            }
        }
        Ok(moved)
    }

    /// Moves some of it through a pipe. Whether one of the ends has to be waited for.
    fn splice(
        &mut self,
        from: &impl AsFd,
        to: &impl AsFd,
        mut pipe: Pipe,
        (moved, pipes): (&mut Moved, &mut Pipes),
    ) -> io::Result<bool> {
        let was_empty = pipe.held == 0;
        let mut is_stuck = false;
        if !self.has_ended && pipe.held < PIPE_BYTES {
            match unless_blocked(|| pipe.fill(from, PIPE_BYTES))? {
                Some(count) => self.has_ended = count == 0,
                // A pipe may be full before its bytes are as many: only of an empty one is it known what this means.
                None => is_stuck = was_empty,
            }
        }
        if pipe.held > 0 {
            match unless_blocked(|| pipe.drain(to))? {
                Some(count) => moved.bytes += count,
                None => is_stuck = true,
            }
        }
        match pipe.held {
            0 => pipes.give_back(pipe),
            _ => self.pipe = Some(pipe),
        }
        Ok(is_stuck)
    }

    /// The same without a pipe: bytes stay with the source until the sink has taken them.
    fn copy(&mut self, from: &impl AsFd, to: &impl AsFd, moved: &mut Moved) -> io::Result<bool> {
        let mut buffer = [0; COPY_BYTES];
        let Some(seen) = unless_blocked(|| peek(from, &mut buffer))? else { return Ok(true) };
        let bytes = buffer.get_mut(..seen).unwrap_or_default();
        if bytes.is_empty() {
            self.has_ended = true;
            return Ok(false);
        }
        let Some(taken) = unless_blocked(|| Ok(send(to, bytes, SendFlags::NOSIGNAL)?))? else { return Ok(true) };
        moved.bytes += discard(from, bytes.get_mut(..taken).unwrap_or_default())?;
        Ok(false)
    }
}

/// What a call has brought; nothing when it has to wait.
fn unless_blocked(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::sys::Outward;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        other.set_nonblocking(true).unwrap();
        (one, other)
    }

    fn pipes() -> Pipes {
        Pipes::new(Descriptors::share_out(1 << 16, 0, 1000, 1000, Outward { peers: 1000, web: 1000 }))
    }

    #[test]
    fn everything_arrives_in_order_over_a_sink_that_is_slow_and_then_its_end() {
        let ((mut source, from), (mut sink, to), mut pipes) = (pair(), pair(), pipes());
        let data: Vec<u8> = (0..5_000_000_u32).map(|number| (number / 7) as u8).collect();
        let expected = data.clone();
        let writing = std::thread::spawn(move || {
            source.write_all(&data).unwrap();
        });
        let mut flow = Flow::default();
        let mut received = Vec::new();
        let mut moved = 0;
        while !flow.is_over() {
            let turn = flow.go_on(&from, &to, 200_000, &mut pipes).unwrap();
            assert!(turn.bytes < 200_000 + PIPE_BYTES, "{turn:?}");
            moved += turn.bytes;
            let mut some = vec![0; 50_000.min(moved - received.len())];
            sink.read_exact(&mut some).unwrap();
            received.extend_from_slice(&some);
        }
        writing.join().unwrap();
        sink.read_to_end(&mut received).unwrap();
        assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
        assert_eq!((moved, pipes.idle.len()), (expected.len(), 1), "its pipe is there for the next one");
    }

    #[test]
    fn a_silent_flow_has_no_pipe_and_one_whose_sink_is_full_keeps_it() {
        let ((mut source, from), (sink, to), mut pipes) = (pair(), pair(), pipes());
        let mut flow = Flow::default();
        assert_eq!(flow.go_on(&from, &to, PIPE_BYTES, &mut pipes).unwrap(), Moved::default());
        assert!(flow.pipe.is_none());
        source.set_nonblocking(true).unwrap();
        loop {
            let has_written = source.write(&[7; 65_536]).is_ok();
            let moved = flow.go_on(&from, &to, PIPE_BYTES, &mut pipes).unwrap();
            if !has_written && moved.bytes == 0 {
                break;
            }
        }
        assert!(flow.pipe.as_ref().is_some_and(|pipe| pipe.held > 0) && pipes.idle.is_empty());
        drop(sink);
        let broken = (0..100).find_map(|_| flow.go_on(&from, &to, PIPE_BYTES, &mut pipes).err());
        assert!(broken.is_some(), "a sink that is gone ends it");
    }

    #[test]
    fn a_pipe_that_is_dropped_makes_room_for_another_and_none_is_made_of_the_last_descriptors() {
        let mut pipes = pipes();
        let mut taken: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(taken.len(), PIPES_MAX);
        drop(taken.pop());
        pipes.give_back(taken.pop().unwrap());
        assert!(pipes.take().is_some() && pipes.take().is_some());
        taken.clear();
        assert_eq!(pipes.made.load(Ordering::Relaxed), 0);
        pipes.most = 1;
        let last = pipes.take();
        assert!(last.is_some_and(|pipe| pipe.held() == 0 && pipes.take().is_none()));
        let mut none = Pipes::new(Descriptors::share_out(4, 0, 0, 0, Outward::default()));
        assert!(none.take().is_none());
    }

    #[test]
    fn without_a_pipe_bytes_are_copied_and_wait_with_their_source() {
        let ((mut source, from), (mut sink, to)) = (pair(), pair());
        let mut pipes = Pipes::new(Descriptors::share_out(4, 0, 0, 0, Outward::default()));
        let mut flow = Flow::default();
        source.set_nonblocking(true).unwrap();
        let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        let (mut written, mut moved, mut received) = (0, 0, vec![0; 4 * 100_000]);
        let (mut read, mut quiet) = (0, 0);
        // Until nothing moves any more: the sink is not read.
        while quiet < 100 {
            let count = source.write(&data[written..]).unwrap_or(0);
            written += count;
            let turn = flow.go_on(&from, &to, PIPE_BYTES, &mut pipes).unwrap();
            moved += turn.bytes;
            quiet = if count == 0 && turn.bytes == 0 { quiet + 1 } else { 0 };
        }
        while read < data.len() {
            read += sink.read(&mut received[read..]).unwrap();
            written += source.write(&data[written..]).unwrap_or(0);
            moved += flow.go_on(&from, &to, PIPE_BYTES, &mut pipes).unwrap().bytes;
        }
        assert!((moved, &received) == (data.len(), &data), "{moved} of {}", data.len());
        drop(source);
        while !flow.is_over() {
            flow.go_on(&from, &to, PIPE_BYTES, &mut pipes).unwrap();
        }
        assert_eq!(sink.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn what_was_looked_at_is_taken_out_as_far_as_wanted() {
        let (mut source, from) = pair();
        from.set_nonblocking(false).unwrap();
        source.write_all(b"0123456789").unwrap();
        let mut buffer = [0; 16];
        while peek(&from, &mut buffer).unwrap() < 10 {}
        assert_eq!((readable_bytes(&from).unwrap(), discard(&from, &mut buffer[..4]).unwrap()), (10, 4));
        assert_eq!(peek(&from, &mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"456789");
    }
}
