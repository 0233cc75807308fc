//! Descriptors from the service manager and for it: what this process was started with (sd_listen_fds(3)), and what is
//! given away to be kept (sd_notify(3), SCM_RIGHTS).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

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
    // SAFETY: this command reads a flag of the descriptor and touches no memory; a number that is no descriptor is an error.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFD) }).map_err(|_| problem("is not open"))?;
    if flags & libc::FD_CLOEXEC as usize != 0 {
        return Err(problem("was not passed to this process"));
    }
    // SAFETY: the descriptor is open and came from exec, so nothing in this process owns it, and it is taken only once.
    let passed = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl_setfd(&passed, FdFlags::CLOEXEC)?;
    Ok(passed)
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
    let descriptors = [descriptor];
    let rights = SendAncillaryMessage::ScmRights(&descriptors);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(rights) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    match sendmsg(socket, &[io::IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)? {
        len if len == message.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::os::fd::{AsFd, AsRawFd};

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
        let wake = rustix::event::eventfd(5, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        send_descriptor(ours.as_fd(), b"FDSTORE=1\n", wake.as_fd()).unwrap();
        let (mut message, mut space) = ([0; 64], [MaybeUninit::uninit(); 64]);
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [io::IoSliceMut::new(&mut message)];
        let received = recvmsg(&theirs, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        assert_eq!(&message[..received.bytes], b"FDSTORE=1\n");
        let Some(RecvAncillaryMessage::ScmRights(mut rights)) = control.drain().next() else { panic!("no descriptor") };
        // It is the same one: its count is read where it has come to.
        let mut count = [0; 8];
        rustix::io::read(rights.next().unwrap(), &mut count).unwrap();
        assert_eq!((u64::from_ne_bytes(count), rights.count()), (5, 0));
    }
}
