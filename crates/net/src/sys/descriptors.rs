//! Descriptors from the service manager and for it: what this process was started with (sd_listen_fds(3)), and what is
//! given away to be kept (sd_notify(3), SCM_RIGHTS).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::address::{Control, push_control};
use super::check;

/// The first descriptor that a service manager passes (`SD_LISTEN_FDS_START`).
const FIRST_PASSED: RawFd = 3;

/// Takes the descriptors from 3 on that this process was started with. Only the first call gets them, later ones none.
///
/// What this process has opened itself is never taken: that is closed on exec, and what was passed cannot be.
///
/// # Errors
/// When one of them is not open, or was not passed.
pub fn take_passed_descriptors(count: usize) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    (FIRST_PASSED..).take(count).map(take).collect()
}

fn take(fd: RawFd) -> io::Result<OwnedFd> {
    let problem = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {fd} {what}"));
    // SAFETY: fcntl with these commands reads and sets a flag of the descriptor and touches no memory; a number that is
    // no descriptor is an error.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFD) }).map_err(|_| problem("is not open"))?;
    if flags & libc::FD_CLOEXEC as usize != 0 {
        return Err(problem("was not passed to this process"));
    }
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the descriptor is open and came from exec, so nothing in this process owns it, and it is taken only once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Removes environment variables, so that no child gets them. Only while this is the only thread; returns whether it was.
pub fn remove_variables(names: &[&str]) -> bool {
    let alone = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if alone {
        for name in names {
            // SAFETY: no other thread exists that could read the environment, and only this one could start any.
            unsafe { std::env::remove_var(name) };
        }
    }
    alone
}

/// Sends one message with one descriptor over a connected Unix socket.
///
/// # Errors
/// What sendmsg says.
pub fn send_descriptor(socket: BorrowedFd<'_>, message: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut control = Control([0; 32]);
    let fd = descriptor.as_raw_fd().to_ne_bytes();
    let control_len = push_control(&mut control.0, 0, libc::SOL_SOCKET, libc::SCM_RIGHTS, &fd);
    let mut iovec = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: msghdr is plain old data; all-zero is valid (null pointers, zero lengths).
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut iovec;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control_len as _;
    // SAFETY: message, iovec and control outlive the call, with the lengths given; sendmsg writes to none of them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
    match usize::try_from(sent) {
        Ok(len) if len == message.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_this_process_opened_itself_is_not_taken() {
        let own = std::fs::File::open("/dev/null").unwrap();
        let error = take(own.as_raw_fd()).unwrap_err();
        assert!(error.to_string().ends_with("was not passed to this process"), "{error}");
        let error = take(1 << 20).unwrap_err();
        assert!(error.to_string().ends_with("is not open"), "{error}");
    }

    #[test]
    fn a_descriptor_is_sent_with_its_message() {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        send_descriptor(ours.as_fd(), b"FDSTORE=1\n", null.as_fd()).unwrap();
        let mut message = [0; 64];
        let len = theirs.recv(&mut message).unwrap();
        assert_eq!(&message[..len], b"FDSTORE=1\n");
    }
}
