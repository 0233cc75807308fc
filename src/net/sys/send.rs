//! Sending: one datagram, one segmented run (UDP GSO), a batch to many clients, and gathered writes on streams.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::{Control, Name, push_control};
use super::check;
use crate::net::arena::Span;

const CONTROL_LEN: usize = 96;
/// Pieces one call gathers at most; two for each of 64 segments.
const MAX_PIECES: usize = 128;

/// Sends one datagram without control messages.
///
/// # Errors
/// What `sendto` says.
pub fn send_to(socket: BorrowedFd<'_>, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
    let (name, name_len) = Name::new(to);
    // SAFETY: `bytes` and `name` are live for the call and the lengths are theirs.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            (&raw const name).cast(),
            name_len,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Sends one datagram on a connected socket, without control messages.
///
/// # Errors
/// What `send` says.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` is live for the call and the length is its own.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Sends the gathered pieces as one message, segmented by the kernel when `segment_len` is given. On a socket that is
/// connected to `to`, set `connected`.
///
/// # Errors
/// What `sendmsg` says: `EIO`, `EINVAL` or `EMSGSIZE` when segmentation is not possible here.
pub fn send_run(
    socket: BorrowedFd<'_>,
    memory: &[u8],
    pieces: &[Span],
    to: SocketAddr,
    connected: bool,
    segment_len: Option<u16>,
    tos: u8,
) -> io::Result<usize> {
    let (mut name, name_len) = Name::new(to);
    let mut iovecs = Iovecs::new();
    iovecs.gather(memory, pieces);
    let mut control = Control([0; CONTROL_LEN]);
    let used = controls(&mut control.0, to, None, segment_len, tos);
    let mut header = message(&mut name, name_len, iovecs.as_mut_slice(), &mut control, used);
    if connected {
        header.msg_name = std::ptr::null_mut();
        header.msg_namelen = 0;
    }
    // SAFETY: `header` points to live locals and to `memory`, which is borrowed for the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes gathered pieces to a connected stream socket; returns how many bytes the kernel took.
///
/// # Errors
/// What `sendmsg` says; `WouldBlock` when the socket's buffer is full.
pub fn send_stream(socket: BorrowedFd<'_>, memory: &[u8], pieces: &[Span]) -> io::Result<usize> {
    let mut iovecs = Iovecs::new();
    iovecs.gather(memory, pieces);
    let slice = iovecs.as_mut_slice();
    // SAFETY: msghdr is plain old data; all-zero is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = slice.as_mut_ptr();
    header.msg_iovlen = slice.len() as _;
    // SAFETY: the iovecs point into `memory`, which is borrowed for the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// One message of a batch.
#[derive(Clone, Copy, Debug)]
pub struct SendItem {
    /// Its destination.
    pub to: SocketAddr,
    /// The local address to send from, on sockets bound to every address.
    pub from_ip: Option<IpAddr>,
    /// Length of each segment, when the kernel is to split it.
    pub segment_len: Option<u16>,
    /// The IPv4 TOS or IPv6 traffic class byte.
    pub tos: u8,
    first_piece: u32,
    pieces: u32,
}

/// Messages for one socket, sent by as few system calls as possible.
pub struct SendBatch {
    items: Vec<SendItem>,
    pieces: Vec<Span>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    names: Vec<Name>,
    controls: Vec<Control<CONTROL_LEN>>,
}

// SAFETY: the pointers inside are rewritten before every system call; nothing else holds them, so the batch may move to
// another thread between calls.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            items: Vec::new(),
            pieces: Vec::new(),
            headers: Vec::new(),
            iovecs: Vec::new(),
            names: Vec::new(),
            controls: Vec::new(),
        }
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a message of the given pieces.
    pub fn push(
        &mut self,
        to: SocketAddr,
        from_ip: Option<IpAddr>,
        segment_len: Option<u16>,
        tos: u8,
        pieces: impl Iterator<Item = Span>,
    ) {
        let first_piece = self.pieces.len() as u32;
        self.pieces.extend(pieces);
        let count = self.pieces.len() as u32 - first_piece;
        self.items.push(SendItem { to, from_ip, segment_len, tos, first_piece, pieces: count });
    }

    /// Sends all and empties the batch. `failed` is told of each message the kernel refused, with its pieces.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &[u8],
        mut failed: impl FnMut(&SendItem, &[Span], io::Error),
    ) {
        self.prepare(memory);
        let mut at = 0;
        while at < self.headers.len() {
            let Some(rest) = self.headers.get_mut(at..) else { break };
            // SAFETY: `prepare` made every header point to live names, controls and iovecs of `self` and to `memory`.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            match check(sent) {
                Ok(sent) if sent > 0 => at += sent,
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if let Some(item) = self.items.get(at) {
                        failed(item, item.pieces_of(&self.pieces), error);
                    }
                    at += 1;
                }
            }
        }
        self.items.clear();
        self.pieces.clear();
        self.headers.clear();
    }

    fn prepare(&mut self, memory: &[u8]) {
        let count = self.items.len();
        self.iovecs.clear();
        self.iovecs.extend(self.pieces.iter().map(|piece| iovec(memory, *piece)));
        if self.names.len() < count {
            self.names.resize(count, Name::empty());
            self.controls.resize(count, Control([0; CONTROL_LEN]));
        }
        self.headers.clear();
        for ((item, name), control) in self.items.iter().zip(&mut self.names).zip(&mut self.controls) {
            let (new_name, name_len) = Name::new(item.to);
            *name = new_name;
            let used = controls(&mut control.0, item.to, item.from_ip, item.segment_len, item.tos);
            let first = item.first_piece as usize;
            let iovecs = self.iovecs.get_mut(first..first + item.pieces as usize).unwrap_or_default();
            self.headers.push(libc::mmsghdr { msg_hdr: message(name, name_len, iovecs, control, used), msg_len: 0 });
        }
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl SendItem {
    fn pieces_of(self, pieces: &[Span]) -> &[Span] {
        let first = self.first_piece as usize;
        pieces.get(first..first + self.pieces as usize).unwrap_or_default()
    }
}

/// Writes the control messages a send needs; returns their length.
fn controls(control: &mut [u8], to: SocketAddr, from_ip: Option<IpAddr>, segment_len: Option<u16>, tos: u8) -> usize {
    let mut used = 0;
    if let Some(len) = segment_len {
        used = push_control(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, &len.to_ne_bytes());
    }
    match from_ip {
        Some(IpAddr::V4(ip)) => {
            // struct in_pktinfo: ifindex 0 (any), spec_dst, addr.
            let mut info = [0; 12];
            if let Some(spec_dst) = info.get_mut(4..8) {
                spec_dst.copy_from_slice(&ip.octets());
            }
            used = push_control(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(ip)) => {
            // struct in6_pktinfo: addr, ifindex 0 (any).
            let mut info = [0; 20];
            if let Some(addr) = info.get_mut(..16) {
                addr.copy_from_slice(&ip.octets());
            }
            used = push_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if tos != 0 {
        let value = i32::from(tos).to_ne_bytes();
        used = match to {
            SocketAddr::V4(_) => push_control(control, used, libc::IPPROTO_IP, libc::IP_TOS, &value),
            SocketAddr::V6(_) => push_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value),
        };
    }
    used
}

fn message<const N: usize>(
    name: &mut Name,
    name_len: libc::socklen_t,
    iovecs: &mut [libc::iovec],
    control: &mut Control<N>,
    control_len: usize,
) -> libc::msghdr {
    // SAFETY: msghdr is plain old data; all-zero is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut *name).cast();
    header.msg_namelen = name_len;
    header.msg_iov = iovecs.as_mut_ptr();
    header.msg_iovlen = iovecs.len() as _;
    if control_len > 0 {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control_len as _;
    }
    header
}

fn iovec(memory: &[u8], piece: Span) -> libc::iovec {
    let bytes = memory.get(piece.at as usize..(piece.at + piece.len) as usize).unwrap_or_default();
    // The kernel only reads from it.
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// Gathered pieces on the stack.
struct Iovecs {
    list: [libc::iovec; MAX_PIECES],
    len: usize,
}

impl Iovecs {
    fn new() -> Self {
        // SAFETY: iovec is plain old data; all-zero is valid.
        Self { list: unsafe { std::mem::zeroed() }, len: 0 }
    }

    fn gather(&mut self, memory: &[u8], pieces: &[Span]) {
        self.len = 0;
        for (slot, piece) in self.list.iter_mut().zip(pieces) {
            *slot = iovec(memory, *piece);
            self.len += 1;
        }
    }

    fn as_mut_slice(&mut self) -> &mut [libc::iovec] {
        self.list.get_mut(..self.len).unwrap_or_default()
    }
}
