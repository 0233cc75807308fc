//! ICMP errors of UDP sockets, from the socket's error queue (IP_RECVERR).

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::{Control, NAME_LEN, Name, control_messages, empty_message};

/// An ICMP error that came back for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Where the datagram had been sent to.
    pub destination: SocketAddr,
    /// ICMP or ICMPv6 type.
    pub kind: u8,
    /// ICMP or ICMPv6 code.
    pub code: u8,
    /// The next-hop MTU of "packet too big" and "fragmentation needed", else 0.
    pub info: u32,
}

/// Takes the oldest error of a socket; `None` when the queue is empty. Errors that are not ICMP are passed over.
pub fn read_error_queue(socket: BorrowedFd<'_>) -> Option<IcmpError> {
    // A bound, so that a socket with a fast-growing queue cannot hold the worker.
    for _ in 0..16 {
        if let Some(error) = read_one(socket)? {
            return Some(error);
        }
    }
    None
}

/// `None`: the queue is empty. `Some(None)`: an entry that is not ICMP.
fn read_one(socket: BorrowedFd<'_>) -> Option<Option<IcmpError>> {
    let mut name = Name::empty();
    let mut control = Control([0; 256]);
    let mut header = empty_message();
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = NAME_LEN;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // SAFETY: `header` points to live locals with the right lengths; no data buffer is given, the payload is not wanted.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if received < 0 {
        return None;
    }
    let used = header.msg_controllen.min(control.0.len());
    let control = control.0.get(..used).unwrap_or_default();
    Some(control_messages(control).find_map(|(level, kind, data)| {
        let is_error =
            matches!((level, kind), (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR));
        // struct sock_extended_err: errno u32, origin u8, type u8, code u8, pad u8, info u32, data u32.
        let (&[_, _, _, _, origin, icmp_type, code, _, i0, i1, i2, i3], _) = data.split_first_chunk::<12>()?;
        let is_icmp = origin == libc::SO_EE_ORIGIN_ICMP || origin == libc::SO_EE_ORIGIN_ICMP6;
        (is_error && is_icmp).then_some(())?;
        Some(IcmpError { destination: name.get()?, kind: icmp_type, code, info: u32::from_ne_bytes([i0, i1, i2, i3]) })
    }))
}
