//! A connection that is not for us and goes on to the web server that shares our port: unread, by the kernel.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use super::session::{self, would_block};
use crate::net::{Flow, Pipes};

/// Bytes that a turn moves in each direction, about.
const MOST: usize = 128 * 1024;

/// Two connections, and what goes from one to the other. Both are watched edge-triggered.
pub struct Passage {
    client: TcpStream,
    web: TcpStream,
    /// What the web server has to have first, and how much of it is still to be sent; nothing once it has all of it.
    head: Vec<u8>,
    sent: usize,
    is_connected: bool,
    has_spoken: bool,
    to_web: Flow,
    to_client: Flow,
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Bytes that the web server has taken, and the client.
    pub bytes: [usize; 2],
    /// Whether the turn was over before everything was moved.
    pub has_more: bool,
    /// Whether both ends have ended.
    pub is_over: bool,
}

/// Why a passage ends before both ends have.
#[derive(Debug)]
pub enum PassageError {
    /// The web server cannot be reached.
    Unreachable,
    /// One of the connections is broken.
    Broken,
}

impl Passage {
    /// From a client, whose first bytes are `head`, to a connection that is being made.
    pub(super) fn new(client: TcpStream, web: TcpStream, head: Vec<u8>) -> Self {
        let (to_web, to_client) = (Flow::default(), Flow::default());
        Self { client, web, head, sent: 0, is_connected: false, has_spoken: false, to_web, to_client }
    }

    /// The client's socket, for epoll.
    pub fn client_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }

    /// Whether the web server has answered.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Whether the client has sent more than its first bytes.
    pub fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// Moves what can be moved in one turn.
    ///
    /// # Errors
    /// [`PassageError`]: it is to be closed.
    pub fn go_on(&mut self, pipes: &mut Pipes) -> Result<Passed, PassageError> {
        if !self.is_connected {
            if self.web.take_error().unwrap_or_else(Some).is_some() {
                return Err(PassageError::Unreachable);
            }
            match self.web.peer_addr() {
                Ok(_) => self.is_connected = true,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(Passed::default()),
                Err(_) => return Err(PassageError::Unreachable),
            }
        }
        let mut passed = Passed::default();
        if self.sent < self.head.len() {
            let count = self.send_head().map_err(|_| PassageError::Broken)?;
            passed.bytes = [count, 0];
        }
        let broken = |_| PassageError::Broken;
        if self.head.is_empty() {
            let moved = self.to_web.go_on(&self.client, &self.web, MOST, pipes).map_err(broken)?;
            self.has_spoken |= moved.bytes > 0;
            passed.bytes = [passed.bytes[0] + moved.bytes, 0];
            passed.has_more |= moved.has_more;
        }
        let moved = self.to_client.go_on(&self.web, &self.client, MOST, pipes).map_err(broken)?;
        passed.bytes = [passed.bytes[0], moved.bytes];
        passed.has_more |= moved.has_more;
        passed.is_over = self.to_web.is_over() && self.to_client.is_over();
        Ok(passed)
    }

    /// Sends what the web server has to have first; returns how many bytes it has taken.
    fn send_head(&mut self) -> io::Result<usize> {
        let before = self.sent;
        while let Some(rest) = self.head.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.web.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if would_block(&error) => return Ok(self.sent - before),
                Err(error) => return Err(error),
            }
        }
        let count = self.sent - before;
        (self.head, self.sent) = (Vec::new(), 0);
        Ok(count)
    }

    /// Ends both.
    pub fn close(self) {
        session::close(&self.client, None);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Shutdown, TcpListener};

    use super::*;
    use crate::net::connect_stream;
    use crate::net::sys::{Descriptors, Outward};

    fn passage(web: &TcpListener, head: &[u8]) -> (TcpStream, Passage) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let to_web = connect_stream(web.local_addr().unwrap()).unwrap().into();
        (client, Passage::new(accepted, to_web, head.to_vec()))
    }

    fn pipes() -> Pipes {
        Pipes::new(Descriptors::share_out(1 << 16, 0, 1000, 1000, Outward::default()))
    }

    #[test]
    fn the_head_comes_first_then_all_else_both_ways_and_each_end_in_turn() {
        let web = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut client, mut passage) = passage(&web, b"hello, ");
        let mut pipes = pipes();
        client.write_all(b"web").unwrap();
        let (mut server, _) = web.accept().unwrap();
        let mut go_on_until = |is_done: &mut dyn FnMut(Passed) -> bool| {
            while !is_done(passage.go_on(&mut pipes).unwrap()) {
                std::thread::yield_now();
            }
        };
        let mut up = 0;
        go_on_until(&mut |passed| {
            up += passed.bytes[0];
            up == 10
        });
        let mut got = [0; 10];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello, web");
        client.shutdown(Shutdown::Write).unwrap();
        server.write_all(b"and back").unwrap();
        let mut down = 0;
        go_on_until(&mut |passed| {
            down += passed.bytes[1];
            assert!(!passed.is_over);
            down == 8
        });
        assert_eq!(server.read(&mut got).unwrap(), 0, "the web server sees that the client has ended");
        drop(server);
        go_on_until(&mut |passed| passed.is_over);
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, "and back");
    }

    #[test]
    fn a_web_server_that_is_not_there_is_told_from_one_that_breaks_off() {
        let web = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_client, mut there) = passage(&web, b"x");
        let (server, _) = web.accept().unwrap();
        let mut pipes = pipes();
        while !there.is_connected() {
            there.go_on(&mut pipes).unwrap();
        }
        socket2::SockRef::from(&server).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(server);
        let error = (0..1000).find_map(|_| there.go_on(&mut pipes).err()).unwrap();
        assert!(matches!(error, PassageError::Broken), "{error:?}");

        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        let web = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_client, mut passage) = passage(&web, b"x");
        passage.web = connect_stream(address).unwrap().into();
        let error = (0..1000).find_map(|_| passage.go_on(&mut pipes).err()).unwrap();
        assert!(matches!(error, PassageError::Unreachable), "{error:?}");
    }
}
