//! One TCP or TLS client connection: bytes in, frames out. It knows nothing of what the frames mean.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustls::ServerConnection;
use socket2::SockRef;

use super::data::DataConnection;
use super::limits::ConnectionPermit;
use super::out_queue::OutQueue;
use super::session::{self, ReadError, read_some, would_block};
use crate::config::Streams;
use crate::net::{Arena, Span, sys};

/// What a record has beside its plaintext, at most.
const RECORD_OVERHEAD: usize = 64;

/// Pieces that one call gathers at most.
const GATHERED_MAX: usize = 96;

/// Whether the socket has taken everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteState {
    /// Everything is sent.
    Done,
    /// Something waits until the socket is writable.
    Blocked,
    /// The connection is broken.
    Broken,
}

/// Where a frame ends in a list of pieces.
#[derive(Clone, Copy, Debug)]
pub struct FrameEnd {
    /// The index behind its last piece.
    pub piece: usize,
    /// Whether it may be dropped when it has waited too long: relayed data may, answers may not.
    pub droppable: bool,
}

/// A client connection.
pub struct Connection {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    unparsed: Vec<u8>,
    queue: OutQueue,
}

impl Connection {
    /// A connection over TCP.
    pub(super) fn plain(socket: TcpStream) -> Self {
        Self { socket, tls: None, unparsed: Vec::new(), queue: OutQueue::default() }
    }

    /// A connection over TLS whose handshake is complete.
    pub(super) fn encrypted(socket: TcpStream, tls: Box<ServerConnection>) -> Self {
        Self { socket, tls: Some(tls), unparsed: Vec::new(), queue: OutQueue::default() }
    }

    /// The socket, for epoll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What the client has not read of its answers, bookkeeping included.
    pub fn unread_answers(&self) -> usize {
        self.queue.answers_len()
    }

    /// Reads what is there, at most `most` bytes, into `slot`, behind what is unparsed yet. Returns the bytes to frame.
    ///
    /// # Errors
    /// [`ReadError`]: the connection is to be closed.
    pub fn read(&mut self, arena: &mut Arena, slot: Span, cipher_slot: Span, most: usize) -> Result<Span, ReadError> {
        let kept = self.unparsed(arena, slot).len as usize;
        let room = slot.part(kept, (slot.len as usize).saturating_sub(kept));
        let read = match &mut self.tls {
            None => read_some(&self.socket, arena.get_mut(room.part(0, most.min(room.len as usize))))?,
            Some(tls) => {
                let cipher_slot = cipher_slot.part(0, most.min(cipher_slot.len as usize));
                session::read(tls, &self.socket, arena, cipher_slot, room)?.1
            }
        };
        Ok(slot.part(0, kept + read))
    }

    /// What earlier reads left to be framed, without reading more.
    pub fn unparsed(&mut self, arena: &mut Arena, slot: Span) -> Span {
        let kept = slot.part(0, self.unparsed.len());
        arena.get_mut(kept).copy_from_slice(&self.unparsed);
        self.unparsed.clear();
        kept
    }

    /// Keeps what is not parsed of what was read.
    pub fn keep(&mut self, rest: &[u8]) {
        self.unparsed.extend_from_slice(rest);
        if rest.is_empty() && self.unparsed.capacity() > 4096 {
            self.unparsed = Vec::new();
        }
    }

    /// Sends whole frames. What the socket does not take waits in the bounded queue. Returns the state and how many frames
    /// were dropped.
    pub fn send(
        &mut self,
        memory: &[u8],
        pieces: &[Span],
        frames: &[FrameEnd],
        now_micros: u64,
        limits: &Streams,
    ) -> (WriteState, u64) {
        let mut sent = 0;
        if self.queue.is_empty() {
            match self.write_now(memory, pieces, frames) {
                Ok(count) => sent = count,
                Err(error) if would_block(&error) => {}
                Err(_) => return (WriteState::Broken, 0),
            }
        }
        let mut first_piece = 0;
        for end in frames {
            let frame = pieces.get(first_piece..end.piece).unwrap_or_default();
            first_piece = end.piece;
            let len = frame.iter().map(|piece| piece.len as usize).sum::<usize>();
            let gone = sent.min(len);
            sent -= gone;
            if gone < len {
                self.queue.push(frame.iter().map(|piece| bytes_of(memory, *piece)), gone, end.droppable, now_micros);
            }
        }
        let dropped = self.shed(now_micros, limits);
        (self.state(), dropped)
    }

    /// Writes what waits, when the socket is writable again. Returns the state and the frames dropped for age.
    pub fn on_writable(&mut self, now_micros: u64, limits: &Streams) -> (WriteState, u64) {
        let dropped = self.shed(now_micros, limits);
        if let Err(error) = self.write_waiting()
            && !would_block(&error)
        {
            return (WriteState::Broken, dropped);
        }
        (self.state(), dropped)
    }

    /// Tells a client of the web that it has come to the wrong server (RFC 9110 section 15.5.20), as far as the socket takes it.
    pub fn misdirect(&mut self, now_micros: u64, limits: &Streams) {
        const ANSWER: &[u8] = b"HTTP/1.1 421 Misdirected Request\r\nContent-Type: text/plain\r\nContent-Length: 35\r\n\
            Connection: close\r\n\r\nThis is a TURN server, not the web\n";
        let whole = Span { at: 0, len: ANSWER.len() as u32 };
        self.send(ANSWER, &[whole], &[FrameEnd { piece: 1, droppable: false }], now_micros, limits);
    }

    /// Takes the connection for a peer's data, if nothing waits for its client that would be lost.
    ///
    /// # Errors
    /// The connection, as it was.
    pub fn into_data(self, permit: ConnectionPermit) -> Result<DataConnection, Self> {
        match self.state() {
            WriteState::Done => Ok(DataConnection::new(self.socket, self.tls, permit)),
            WriteState::Blocked | WriteState::Broken => Err(self),
        }
    }

    /// Ends the connection in order, after what waits if the socket takes it.
    pub fn close(mut self) {
        let can_write = self.write_waiting().is_ok();
        session::close(&self.socket, self.tls.as_deref_mut().filter(|_| can_write));
    }

    /// Ends the connection of a client that does not read: by a reset, so that the kernel does not keep for it what it will
    /// never take.
    pub fn reset(self) {
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    /// Whether something waits for the socket.
    pub fn state(&self) -> WriteState {
        let cipher_waits = self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        if self.queue.is_empty() && !cipher_waits { WriteState::Done } else { WriteState::Blocked }
    }

    fn shed(&mut self, now_micros: u64, limits: &Streams) -> u64 {
        let max_age_micros = u64::try_from(limits.queue.as_micros()).unwrap_or(u64::MAX);
        self.queue.shed(now_micros, max_age_micros, limits.queue_bytes_max)
    }

    /// Writes pieces at once; returns how many bytes of them are on their way.
    fn write_now(&mut self, memory: &[u8], pieces: &[Span], frames: &[FrameEnd]) -> io::Result<usize> {
        if let Some(tls) = &mut self.tls {
            let mut records = Records::begin(tls, &self.socket)?;
            let mut slices = [IoSlice::new(&[]); GATHERED_MAX];
            let mut first_piece = 0;
            for end in frames {
                let frame = pieces.get(first_piece..end.piece).unwrap_or_default();
                first_piece = end.piece;
                for (slice, piece) in slices.iter_mut().zip(frame) {
                    *slice = IoSlice::new(bytes_of(memory, *piece));
                }
                if !records.add(slices.get_mut(..frame.len()).unwrap_or_default())? {
                    break;
                }
            }
            return records.end();
        }
        let mut sent = 0;
        for chunk in pieces.chunks(GATHERED_MAX) {
            let len = chunk.iter().map(|piece| piece.len as usize).sum::<usize>();
            let count = match sys::send_stream(self.socket.as_fd(), memory, chunk) {
                Err(error) if would_block(&error) => 0,
                other => other?,
            };
            sent += count;
            if count < len {
                break;
            }
        }
        Ok(sent)
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            let mut records = Records::begin(tls, &self.socket)?;
            while !self.queue.is_empty() {
                let before = records.sent;
                let goes_on = records.add(&mut self.queue.first_frame());
                self.queue.advance(records.sent - before);
                if !goes_on? {
                    break;
                }
            }
            records.end()?;
            return Ok(());
        }
        while !self.queue.is_empty() {
            let slices = self.queue.slices();
            let len = slices.iter().map(|slice| slice.len()).sum::<usize>();
            let count = (&self.socket).write_vectored(&slices)?;
            self.queue.advance(count);
            if count < len {
                break;
            }
        }
        Ok(())
    }
}

/// Frames on their way over TLS, each a record of its own, as many of them as there is room for in one write.
///
/// Several frames in a record would be shorter. But there are clients that take what one read of their TLS library gives
/// them, a record, for one message: coturn's `turnutils_uclient` loses all but the first.
struct Records<'c> {
    tls: &'c mut ServerConnection,
    socket: &'c TcpStream,
    /// Plaintext that may still be encrypted before the socket has taken what is. What is encrypted cannot be dropped any more.
    room: usize,
    /// Bytes of plaintext that are encrypted.
    sent: usize,
}

impl<'c> Records<'c> {
    /// Begins when the socket has taken all earlier records.
    fn begin(tls: &'c mut ServerConnection, socket: &'c TcpStream) -> io::Result<Self> {
        session::flush(tls, socket)?;
        Ok(Self { tls, socket, room: session::BUFFER, sent: 0 })
    }

    /// Encrypts a frame; `false` when some of it has to wait for the socket.
    fn add(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<bool> {
        let len = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let mut left = len;
        while left > 0 {
            // What is larger than all the room is divided.
            if left > self.room && self.room < session::BUFFER {
                match session::flush(self.tls, self.socket) {
                    Err(error) if would_block(&error) => return Ok(false),
                    other => other?,
                }
                self.room = session::BUFFER;
            }
            let count = self.tls.writer().write_vectored(slices)?;
            if count == 0 {
                return Ok(false);
            }
            IoSlice::advance_slices(&mut slices, count);
            left = left.saturating_sub(count);
            self.sent += count;
            self.room = self.room.saturating_sub(count + RECORD_OVERHEAD);
        }
        Ok(true)
    }

    /// Sends what the socket takes; returns how many bytes of plaintext are on their way.
    fn end(self) -> io::Result<usize> {
        match session::flush(self.tls, self.socket) {
            Err(error) if !would_block(&error) => Err(error),
            _ => Ok(self.sent),
        }
    }
}

fn bytes_of(memory: &[u8], piece: Span) -> &[u8] {
    memory.get(piece.at as usize..(piece.at + piece.len) as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::super::arriving::tests::arrived_over_tls;
    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (socket, _) = listener.accept().unwrap();
        SockRef::from(&client).set_recv_buffer_size(16 * 1024).unwrap();
        SockRef::from(&socket).set_send_buffer_size(16 * 1024).unwrap();
        (client, socket)
    }

    fn limits() -> Streams {
        Streams {
            queue: Duration::from_millis(200),
            queue_bytes_max: 1 << 20,
            idle_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            allocation_timeout: Duration::from_secs(120),
            connections_max: 100,
            connections_per_ip_max: None,
            unallocated_per_network_max: None,
        }
    }

    #[test]
    fn a_connection_closed_with_something_unread_ends_without_a_reset() {
        let (mut client, socket) = pair();
        client.write_all(&[0; 10_000]).unwrap();
        // Until all of it has come.
        while socket.peek(&mut [0; 10_000]).unwrap() < 10_000 {}
        socket.set_nonblocking(true).unwrap();
        Connection::plain(socket).close();
        assert_eq!(client.read(&mut [0; 10]).unwrap(), 0);
    }

    #[test]
    fn each_frame_over_tls_is_one_record_with_its_padding_because_clients_take_a_record_for_a_message() {
        let (mut server, mut client, mut stream) = arrived_over_tls();
        // The tickets for another session are the client's already, or come as records of their own before.
        let mut memory = vec![0; 1000];
        memory[..5].copy_from_slice(b"first");
        memory[100..106].copy_from_slice(b"second");
        let span = |at, len| Span { at, len };
        let pieces = [span(0, 5), span(900, 3), span(100, 6), span(900, 2)];
        let frames = [FrameEnd { piece: 2, droppable: true }, FrameEnd { piece: 4, droppable: true }];
        assert_eq!(server.send(&memory, &pieces, &frames, 0, &limits()), (WriteState::Done, 0));
        server.close();
        let mut cipher = Vec::new();
        stream.read_to_end(&mut cipher).unwrap();
        let mut records = Vec::new();
        let mut rest = cipher.as_slice();
        while let [_, _, _, high, low, ..] = rest {
            let len = 5 + usize::from(u16::from_be_bytes([*high, *low]));
            let mut record = rest.get(..len).unwrap();
            client.read_tls(&mut record).unwrap();
            client.process_new_packets().unwrap();
            let mut plain = Vec::new();
            let _ = client.reader().read_to_end(&mut plain);
            records.extend((!plain.is_empty()).then_some(plain));
            rest = rest.get(len..).unwrap();
        }
        assert_eq!(records, [&b"first\0\0\0"[..], b"second\0\0"]);
    }

    #[test]
    fn what_waits_over_tls_comes_whole_and_in_order_when_the_client_reads_again() {
        // The longer ones are more than is encrypted at once: the socket may be full in the midst of one.
        for len in [1000, 40_000] {
            let (mut server, mut client, mut stream) = arrived_over_tls();
            let memory: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
            let mut now_micros = 0;
            let mut state = WriteState::Done;
            let mut taken = 0;
            // Until the socket is full, and some more.
            while taken < memory.len() {
                let piece = Span { at: taken as u32, len: len as u32 };
                let frame = FrameEnd { piece: 1, droppable: false };
                (state, _) = server.send(&memory, &[piece], &[frame], now_micros, &limits());
                taken += len;
                now_micros += 1;
                if server.unread_answers() > 50_000 {
                    break;
                }
            }
            assert_eq!(state, WriteState::Blocked);
            assert!(taken < memory.len(), "the socket takes everything");
            let reading = std::thread::spawn(move || {
                let mut plain = vec![0; taken];
                rustls::Stream::new(&mut client, &mut stream).read_exact(&mut plain).unwrap();
                plain
            });
            while state == WriteState::Blocked {
                (state, _) = server.on_writable(now_micros, &limits());
                std::thread::yield_now();
            }
            assert_eq!(state, WriteState::Done);
            assert!(reading.join().unwrap() == memory[..taken], "the bytes differ");
            assert_eq!(server.unread_answers(), 0);
        }
    }
}
