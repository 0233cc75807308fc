//! Sending: one datagram, a segmented run of them (UDP GSO), and gathered writes on streams.
//!
//! There is no `sendmmsg`: it copies a header per message, which costs more than the system calls it saves.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::{Control, Name, push_control};
use crate::arena::Span;

const CONTROL_LEN: usize = 96;
/// Pieces one call gathers at most; two for each of 64 segments.
pub const PIECES_MAX: usize = 128;

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

/// Everything about a gathered send but its bytes.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// The destination.
    pub to: SocketAddr,
    /// The socket is connected to `to`: the kernel needs no address.
    pub connected: bool,
    /// The local address to send from, on sockets bound to every address.
    pub from_ip: Option<IpAddr>,
    /// Length of each datagram, when the kernel is to split the pieces (UDP GSO).
    pub segment_len: Option<u16>,
    /// The IPv4 TOS or IPv6 traffic class byte.
    pub tos: u8,
}

/// Sends the gathered pieces as one message, or as several when `segment_len` says so. At most [`PIECES_MAX`] pieces.
///
/// # Errors
/// What `sendmsg` says: `EIO`, `EINVAL` or `EMSGSIZE` when segmentation is not possible here.
pub fn send_pieces(socket: BorrowedFd<'_>, memory: &[u8], pieces: &[Span], options: &SendOptions) -> io::Result<usize> {
    let (mut name, name_len) = Name::new(options.to);
    let mut iovecs = Iovecs::new();
    iovecs.gather(memory, pieces);
    let mut control = Control([0; CONTROL_LEN]);
    let used = controls(&mut control.0, options);
    let iovecs = iovecs.as_mut_slice();
    // SAFETY: msghdr is plain old data; all-zero is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    if !options.connected {
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = name_len;
    }
    header.msg_iov = iovecs.as_mut_ptr();
    header.msg_iovlen = iovecs.len() as _;
    if used > 0 {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = used as _;
    }
    // SAFETY: `header` points to live locals and to `memory`, which is borrowed for the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
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

/// Writes the control messages a send needs; returns their length.
fn controls(control: &mut [u8], options: &SendOptions) -> usize {
    let SendOptions { to, from_ip, segment_len, tos, .. } = *options;
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

fn iovec(memory: &[u8], piece: Span) -> libc::iovec {
    let bytes = memory.get(piece.at as usize..(piece.at + piece.len) as usize).unwrap_or_default();
    // The kernel only reads from it.
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// Gathered pieces on the stack.
struct Iovecs {
    list: [libc::iovec; PIECES_MAX],
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
