//! How much the kernel holds for a client connection. What it holds cannot be dropped any more, and is the client's to fill.

use std::io;
use std::os::fd::BorrowedFd;

use super::sockopt::set;

/// Buffers of a connection without an allocation: requests and answers are short, and thousands of strangers may hold one.
const STRANGER_BUFFER: i32 = 16 * 1024;
/// What those of a connection with an allocation begin with before the kernel sizes them, about its own defaults.
const HOLDER_BUFFER: i32 = 64 * 1024;
/// Where the kernel does not size them again.
const OLD_KERNEL_BUFFER: i32 = 1024 * 1024;
/// What is written and not sent yet: the rest waits in our own queue, where what is too old is dropped.
const NOT_SENT_MAX: i32 = 16 * 1024;

/// Has the kernel hold little for a connection that has no allocation yet.
///
/// # Errors
/// What `setsockopt` says.
pub fn bound_stream_buffers(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, STRANGER_BUFFER)?;
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, STRANGER_BUFFER)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, NOT_SENT_MAX)
}

/// Gives a connection that has an allocation the buffers that media need, which the kernel knows best (Linux 5.14): what is on its
/// way over a long path is more than any bound for thousands. What is not sent yet stays bounded. All are wishes.
pub fn widen_stream_buffers(socket: BorrowedFd<'_>) {
    let resize = |bytes| {
        for option in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
            let _ = set(socket, libc::SOL_SOCKET, option, bytes);
        }
    };
    resize(HOLDER_BUFFER);
    // Neither of the two locks that setting a size has put on.
    if set(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK, 0).is_err() {
        resize(OLD_KERNEL_BUFFER);
    }
}
