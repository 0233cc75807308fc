//! How much the kernel holds for a client connection. What it holds cannot be dropped any more, and is the client's to fill.

use std::io;
use std::os::fd::BorrowedFd;

use super::sockopt::set;

/// Buffers of a connection without an allocation: requests and answers are short, and thousands of strangers may hold one.
const STRANGER_BUFFER: i32 = 16 * 1024;
/// The send buffer of a connection with an allocation; the kernel doubles it for its bookkeeping, and grants at most
/// `net.core.wmem_max`. 200 to 400 kB on their way are 16 Mbit/s and more at 100 ms.
const HOLDER_SEND_BUFFER: i32 = 256 * 1024;
/// What its receive buffer begins with before the kernel sizes it: the kernel's own default.
const HOLDER_RECV_BUFFER: i32 = 64 * 1024;
/// Its receive buffer where the kernel does not size it again.
const OLD_KERNEL_RECV_BUFFER: i32 = 1024 * 1024;
/// What is written and not sent yet: the rest waits in our own queue, where what is too old is dropped.
const NOT_SENT_MAX: i32 = 16 * 1024;
/// SOCK_SNDBUF_LOCK of linux/socket.h.
const SEND_BUFFER_STAYS: i32 = 1;

/// Has the kernel hold little for a connection that has no allocation yet.
///
/// # Errors
/// What `setsockopt` says.
pub fn bound_stream_buffers(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, STRANGER_BUFFER)?;
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, STRANGER_BUFFER)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, NOT_SENT_MAX)
}

/// Gives a connection that has an allocation the buffers that media need: to the client a bounded one, from the client as the
/// kernel sees fit (Linux 5.14). All are wishes.
pub fn widen_stream_buffers(socket: BorrowedFd<'_>) {
    let _ = set(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, HOLDER_SEND_BUFFER);
    let _ = set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, HOLDER_RECV_BUFFER);
    if set(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK, SEND_BUFFER_STAYS).is_err() {
        let _ = set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, OLD_KERNEL_RECV_BUFFER);
    }
}
