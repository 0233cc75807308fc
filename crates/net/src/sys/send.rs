//! Sending: one datagram, a segmented run of them (UDP GSO), and gathered writes on streams.
//!
//! There is no `sendmmsg`: it copies a header per message, which costs more than the system calls it saves.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::{SendAncillaryBuffer, SendFlags};

use super::address::{Control, Name, empty_message, push_control};
use crate::arena::Span;

const CONTROL_LEN: usize = 96;
const NOW: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// Pieces one call gathers at most; two for each of 64 segments.
pub const PIECES_MAX: usize = 128;

/// Sends one datagram without control messages.
///
/// # Errors
/// What `sendto` says.
#[inline]
pub fn send_to(socket: BorrowedFd<'_>, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
    Ok(rustix::net::sendto(socket, bytes, NOW, &to)?)
}

/// Sends one datagram on a connected socket, without control messages.
///
/// # Errors
/// What `send` says.
#[inline]
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, NOW)?)
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
    let mut list = [IoSlice::new(&[]); PIECES_MAX];
    let pieces = gather(&mut list, memory, pieces);
    let mut control = Control([0; CONTROL_LEN]);
    let used = controls(&mut control.0, options);
    let mut header = empty_message();
    if !options.connected {
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = name_len;
    }
    // An IoSlice is an iovec on Unix, as its documentation guarantees.
    header.msg_iov = pieces.as_ptr().cast_mut().cast();
    header.msg_iovlen = pieces.len() as _;
    if used > 0 {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = used as _;
    }
    // SAFETY: `header` points to live locals and to `memory`, which is borrowed for the call; sendmsg writes to none of them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes gathered pieces to a connected stream socket; returns how many bytes the kernel took.
///
/// # Errors
/// What `sendmsg` says; `WouldBlock` when the socket's buffer is full.
pub fn send_stream(socket: BorrowedFd<'_>, memory: &[u8], pieces: &[Span]) -> io::Result<usize> {
    let mut list = [IoSlice::new(&[]); PIECES_MAX];
    let pieces = gather(&mut list, memory, pieces);
    Ok(rustix::net::sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), NOW)?)
}

fn gather<'a, 'm>(list: &'a mut [IoSlice<'m>; PIECES_MAX], memory: &'m [u8], pieces: &[Span]) -> &'a [IoSlice<'m>] {
    let mut used = 0;
    for (slot, piece) in list.iter_mut().zip(pieces) {
        *slot = IoSlice::new(memory.get(piece.at as usize..(piece.at + piece.len) as usize).unwrap_or_default());
        used += 1;
    }
    list.get(..used).unwrap_or_default()
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
