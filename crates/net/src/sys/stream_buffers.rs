//! How much the kernel holds for a client connection. What it holds cannot be dropped any more, and is the client's to fill.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

use super::sockopt::set;

/// Buffers of a connection without an allocation: requests and answers are short, and thousands of strangers may hold one.
const STRANGER_BUFFER: usize = 16 * 1024;
/// What those of a connection with an allocation begin with before the kernel sizes them, about its own defaults.
const HOLDER_BUFFER: usize = 64 * 1024;
/// Where the kernel does not size them again.
const OLD_KERNEL_BUFFER: usize = 1024 * 1024;
/// What is written and not sent yet: the rest waits in our own queue, where what is too old is dropped.
const NOT_SENT_MAX: i32 = 16 * 1024;

/// Has the kernel hold little for a connection that has no allocation yet.
///
/// # Errors
/// What `setsockopt` says.
pub fn bound_stream_buffers(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_socket_send_buffer_size(socket, STRANGER_BUFFER)?;
    set_socket_recv_buffer_size(socket, STRANGER_BUFFER)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, NOT_SENT_MAX)
}

/// Gives a connection that has an allocation the buffers that media need, which the kernel knows best (Linux 5.14): what is on its
/// way over a long path is more than any bound for thousands. What is not sent yet stays bounded. All are wishes.
pub fn widen_stream_buffers(socket: BorrowedFd<'_>) {
    let resize = |bytes| {
        let _ = set_socket_send_buffer_size(socket, bytes);
        let _ = set_socket_recv_buffer_size(socket, bytes);
    };
    resize(HOLDER_BUFFER);
    // Neither of the two locks that setting a size has put on.
    if set(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK, 0).is_err() {
        resize(OLD_KERNEL_BUFFER);
    }
}

/// Lets as much wait in the kernel to be sent as its buffers hold: for bytes none of which may be dropped.
pub fn unbound_unsent(socket: BorrowedFd<'_>) {
    let _ = set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 0);
}
