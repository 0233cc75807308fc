//! Bytes moved from one connection to another by the kernel (splice(2)): they do not come into this process.
//!
//! The sockets are non-blocking and watched edge-triggered for both directions: a flow goes on until its source has nothing more, its
//! sink takes nothing more, or its turn is over. What its sink has not taken waits in a pipe, which a flow has only while it needs
//! one: connections that are silent hold nothing but their sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::sys::Descriptors;

/// What one call moves at most, and what a pipe holds by default.
const MOST: usize = 64 * 1024;
/// Empty pipes that are kept for the next flow.
const SPARE_MAX: usize = 32;

/// One direction between two connections.
#[derive(Default)]
pub struct Flow {
    pipe: Option<Pipe>,
    /// The source sends no more.
    has_ended: bool,
    /// The sink has been told so.
    is_shut: bool,
}

/// A pipe, and how much is in it.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
}

/// Pipes that no flow needs at present.
pub struct Pipes {
    spare: Vec<Pipe>,
    descriptors: Descriptors,
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
    /// One of the two connections is broken, or there is no descriptor for a pipe.
    pub fn go_on(&mut self, from: impl AsFd, to: impl AsFd, most: usize, pipes: &mut Pipes) -> io::Result<Moved> {
        let mut moved = Moved::default();
        while !self.is_shut {
            if moved.bytes >= most {
                moved.has_more = true;
                break;
            }
            let mut pipe = match self.pipe.take() {
                Some(pipe) => pipe,
                None => pipes.take()?,
            };
            let was_empty = pipe.filled == 0;
            let mut has_nothing = false;
            if !self.has_ended && pipe.filled < MOST {
                match move_some(&from, &pipe.write, MOST - pipe.filled)? {
                    Some(0) => self.has_ended = true,
                    Some(count) => pipe.filled += count,
                    // A pipe may be full before its bytes are as many: only of an empty one is it known what this means.
                    None => has_nothing = was_empty,
                }
            }
            let mut is_full = false;
            if pipe.filled > 0 {
                match move_some(&pipe.read, &to, pipe.filled)? {
                    Some(count) => {
                        pipe.filled = pipe.filled.saturating_sub(count);
                        moved.bytes += count;
                    }
                    None => is_full = true,
                }
            }
            if pipe.filled > 0 {
                self.pipe = Some(pipe);
            } else {
                pipes.give_back(pipe);
                if self.has_ended {
                    self.is_shut = true;
                    match shutdown(&to, Shutdown::Write) {
                        Ok(()) | Err(Errno::NOTCONN) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            if has_nothing || is_full {
                break;
            }
        }
        Ok(moved)
    }
}

impl Pipes {
    /// No pipes yet. Of the last descriptors none becomes one.
    pub fn new(descriptors: Descriptors) -> Self {
        Self { spare: Vec::new(), descriptors }
    }

    fn take(&mut self) -> io::Result<Pipe> {
        if let Some(pipe) = self.spare.pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (read, write) = (self.descriptors.admit(read)?, self.descriptors.admit(write)?);
        Ok(Pipe { read, write, filled: 0 })
    }

    fn give_back(&mut self, pipe: Pipe) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(pipe);
        }
    }
}

/// Moves what is there; nothing when that has to wait.
fn move_some(from: &impl AsFd, to: &impl AsFd, most: usize) -> io::Result<Option<usize>> {
    loop {
        return match splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        other.set_nonblocking(true).unwrap();
        (one, other)
    }

    fn pipes() -> Pipes {
        Pipes::new(Descriptors::share_out(1 << 16, 0, 1000, 1000))
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
            assert!(turn.bytes < 200_000 + MOST, "{turn:?}");
            moved += turn.bytes;
            let mut some = vec![0; 50_000.min(moved - received.len())];
            sink.read_exact(&mut some).unwrap();
            received.extend_from_slice(&some);
        }
        writing.join().unwrap();
        sink.read_to_end(&mut received).unwrap();
        assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
        assert_eq!((moved, pipes.spare.len()), (expected.len(), 1), "its pipe is there for the next one");
    }

    #[test]
    fn a_silent_flow_has_no_pipe_and_one_whose_sink_is_full_keeps_it() {
        let ((mut source, from), (sink, to), mut pipes) = (pair(), pair(), pipes());
        let mut flow = Flow::default();
        assert_eq!(flow.go_on(&from, &to, MOST, &mut pipes).unwrap(), Moved::default());
        assert!(flow.pipe.is_none());
        source.set_nonblocking(true).unwrap();
        loop {
            let has_written = source.write(&[7; 65_536]).is_ok();
            let moved = flow.go_on(&from, &to, MOST, &mut pipes).unwrap();
            if !has_written && moved.bytes == 0 {
                break;
            }
        }
        assert!(flow.pipe.as_ref().is_some_and(|pipe| pipe.filled > 0) && pipes.spare.is_empty());
        drop(sink);
        let broken = (0..100).find_map(|_| flow.go_on(&from, &to, MOST, &mut pipes).err());
        assert!(broken.is_some(), "a sink that is gone ends it");
    }

    #[test]
    fn without_a_descriptor_there_is_no_pipe() {
        let ((_source, from), (_sink, to)) = (pair(), pair());
        let mut pipes = Pipes::new(Descriptors::share_out(4, 0, 0, 0));
        assert!(Flow::default().go_on(&from, &to, MOST, &mut pipes).is_err());
    }
}
