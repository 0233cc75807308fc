//! Datagrams in bulk, for the load generator: batches that own their buffers, from and to many peers, with UDP GRO and GSO.
//!
//! The server's own batches ([`super::RecvBatch`]) and sends ([`super::send_pieces`]) leave payload where it was received. These copy
//! it once, and in return know no arena and send to connected sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;

use super::address::{Control, NAME_LEN, NO_BYTES, Name, control_messages, empty_message, push_control};

/// Messages that one recvmmsg or sendmmsg carries at most.
const BATCH: usize = 64;
/// Bytes of one receive buffer without GRO; of larger datagrams only these are received.
const PLAIN_BUFFER: usize = 2048 + 64;
/// Bytes of one receive buffer with GRO, the largest aggregate that the kernel delivers.
const GRO_BUFFER: usize = 65_536;
/// Aggregates that one recvmmsg takes with GRO.
const GRO_BATCH: usize = 16;
/// Room for one control message with an int.
const CONTROL_LEN: usize = 32;
/// GSO segments that every kernel takes in one send (`UDP_MAX_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 64;

/// Buffers for recvmmsg, reused from call to call.
pub struct RecvBuffers {
    buffers: Vec<u8>,
    stride: usize,
    names: Vec<Name>,
    controls: Vec<Control<CONTROL_LEN>>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    received: usize,
}

impl RecvBuffers {
    /// Makes the buffers; with `gro`, for aggregates of up to 64 kB.
    pub fn new(gro: bool) -> Self {
        let (count, stride) = if gro { (GRO_BATCH, GRO_BUFFER) } else { (BATCH, PLAIN_BUFFER) };
        let header = libc::mmsghdr { msg_hdr: empty_message(), msg_len: 0 };
        let mut batch = Self {
            buffers: vec![0; count * stride],
            stride,
            names: vec![Name::empty(); count],
            controls: vec![Control([0; CONTROL_LEN]); count],
            iovecs: vec![NO_BYTES; count],
            headers: vec![header; count],
            received: 0,
        };
        for (iovec, buffer) in batch.iovecs.iter_mut().zip(batch.buffers.chunks_exact_mut(stride)) {
            iovec.iov_base = buffer.as_mut_ptr().cast();
            iovec.iov_len = buffer.len();
        }
        batch.reset(count);
        batch
    }

    /// Receives what is there without waiting; 0 when there is nothing.
    ///
    /// # Errors
    /// Of recvmmsg, except that nothing is there or that an earlier send was refused by ICMP.
    pub fn recv(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        self.reset(self.received);
        self.received = 0;
        // SAFETY: the headers point into vectors of this structure that are never resized, and the count is theirs.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        match usize::try_from(n) {
            Ok(n) => self.received = n.min(self.headers.len()),
            Err(_) => match io::Error::last_os_error() {
                e if is_transient(&e) => {}
                e => return Err(e),
            },
        }
        Ok(self.received)
    }

    /// Whether the last call filled every buffer, so that more may be there.
    pub fn is_full(&self) -> bool {
        self.received == self.headers.len()
    }

    /// The datagrams of the last call with their sources; aggregates are taken apart.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], Option<SocketAddr>)> {
        let used = self.headers.iter().zip(&self.names).zip(&self.controls).zip(self.buffers.chunks_exact(self.stride));
        used.take(self.received).flat_map(|(((header, name), control), buffer)| {
            let bytes = buffer.get(..header.msg_len as usize).unwrap_or(buffer);
            let source = name.get();
            let segment = gro_segment(&header.msg_hdr, control).unwrap_or(bytes.len()).max(1);
            bytes.chunks(segment).map(move |datagram| (datagram, source))
        })
    }

    /// Points the first `count` headers at their buffers again: the kernel has overwritten their lengths.
    fn reset(&mut self, count: usize) {
        let parts = self.headers.iter_mut().zip(&mut self.names).zip(&mut self.iovecs).zip(&mut self.controls);
        for (((header, name), iovec), control) in parts.take(count) {
            let header = &mut header.msg_hdr;
            header.msg_name = std::ptr::from_mut(name).cast();
            header.msg_namelen = NAME_LEN;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_LEN as _;
        }
    }
}

/// Datagrams collected for one sendmmsg. Payloads are written into one arena, which is reused.
pub struct SendBuffers {
    arena: Vec<u8>,
    messages: Vec<Outgoing>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    names: Vec<Name>,
    controls: Vec<Control<CONTROL_LEN>>,
}

impl Default for SendBuffers {
    fn default() -> Self {
        Self::new()
    }
}

struct Outgoing {
    start: usize,
    len: usize,
    to: Option<SocketAddr>,
    segment: Option<u16>,
}

impl SendBuffers {
    /// An empty batch.
    pub fn new() -> Self {
        let header = libc::mmsghdr { msg_hdr: empty_message(), msg_len: 0 };
        Self {
            arena: Vec::new(),
            messages: Vec::with_capacity(BATCH),
            headers: vec![header; BATCH],
            iovecs: vec![NO_BYTES; BATCH],
            names: vec![Name::empty(); BATCH],
            controls: vec![Control([0; CONTROL_LEN]); BATCH],
        }
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether no further message fits.
    pub fn is_full(&self) -> bool {
        self.messages.len() == BATCH
    }

    /// Adds one message, written by `write` at the end of the arena; to the connected peer when `to` is `None`.
    /// With `segment`, the kernel cuts it into datagrams of that many bytes (UDP GSO).
    pub fn push(&mut self, to: Option<SocketAddr>, segment: Option<u16>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.arena.len();
        write(&mut self.arena);
        self.messages.push(Outgoing { start, len: self.arena.len() - start, to, segment });
    }

    /// Sends everything. A full socket buffer is waited for; nothing is left in the batch afterwards.
    ///
    /// # Errors
    /// Of sendmmsg, except a full buffer and the ICMP errors of earlier sends.
    pub fn flush(&mut self, socket: &impl AsFd) -> io::Result<()> {
        let result = self.send(socket.as_fd());
        self.messages.clear();
        self.arena.clear();
        result
    }

    fn send(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // One datagram to the connected peer, the usual case of many thin flows, is cheaper without the structures.
        if let [Outgoing { to: None, segment: None, .. }] = self.messages.as_slice() {
            return self.send_one(fd);
        }
        let count = self.fill();
        let mut done = 0;
        while done < count {
            let rest = self.headers.get_mut(done..count).unwrap_or_default();
            // SAFETY: the headers were pointed at this structure's vectors by `fill`, and none is resized until the end.
            let n = unsafe {
                libc::sendmmsg(fd.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, libc::MSG_DONTWAIT as _)
            };
            match usize::try_from(n) {
                Ok(n) => done += n,
                Err(_) => match io::Error::last_os_error() {
                    e if is_transient(&e) => {
                        let _ = wait_writable(fd, Duration::from_millis(10));
                    }
                    e => return Err(e),
                },
            }
        }
        Ok(())
    }

    fn send_one(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            match rustix::net::send(fd, &self.arena, SendFlags::DONTWAIT).map_err(io::Error::from) {
                Err(e) if is_transient(&e) => {
                    let _ = wait_writable(fd, Duration::from_millis(10));
                }
                sent => return sent.map(drop),
            }
        }
    }

    fn fill(&mut self) -> usize {
        let slots = self.headers.iter_mut().zip(&mut self.iovecs).zip(&mut self.names).zip(&mut self.controls);
        let mut count = 0;
        for ((((header, iovec), name), control), message) in slots.zip(&self.messages) {
            let bytes = self.arena.get_mut(message.start..message.start + message.len).unwrap_or_default();
            iovec.iov_base = bytes.as_mut_ptr().cast();
            iovec.iov_len = bytes.len();
            let header = &mut header.msg_hdr;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            match message.to {
                Some(addr) => {
                    (*name, header.msg_namelen) = Name::new(addr);
                    header.msg_name = std::ptr::from_mut(name).cast();
                }
                None => {
                    header.msg_namelen = 0;
                    header.msg_name = std::ptr::null_mut();
                }
            }
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            if let Some(segment) = message.segment {
                let (level, kind) = (libc::SOL_UDP, libc::UDP_SEGMENT);
                let used = push_control(&mut control.0, 0, level, kind, &segment.to_ne_bytes());
                header.msg_control = control.0.as_mut_ptr().cast();
                header.msg_controllen = used as _;
            }
            count += 1;
        }
        count
    }
}

fn wait_writable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
    poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&timeout))?;
    Ok(())
}

/// Nothing there, no room, interrupted, or the report of an ICMP error about an earlier datagram.
fn is_transient(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable, WouldBlock};
    matches!(e.kind(), WouldBlock | Interrupted | ConnectionRefused | HostUnreachable | NetworkUnreachable)
        || e.raw_os_error() == Some(libc::ENOBUFS)
}

/// The size of the datagrams in an aggregate, from the UDP_GRO control message.
fn gro_segment(header: &libc::msghdr, control: &Control<CONTROL_LEN>) -> Option<usize> {
    let written = control.0.get(..header.msg_controllen)?;
    control_messages(written).find_map(|(level, kind, data)| {
        let value = data.first_chunk().filter(|_| (level, kind) == (libc::SOL_UDP, libc::UDP_GRO))?;
        usize::try_from(i32::from_ne_bytes(*value)).ok()
    })
}
