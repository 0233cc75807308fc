//! epoll and eventfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::check;

/// What to be woken for; errors and hang-ups are always reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Readable.
    Read,
    /// Readable or writable.
    ReadWrite,
    /// Writable only: a stream whose input is held back.
    Write,
    /// Readable, told once for each time something arrives: the owner reads until a read comes back short.
    ReadEdge,
    /// Errors and hang-ups only.
    None,
}

impl Interest {
    fn bits(self) -> u32 {
        let bits = match self {
            Self::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
            Self::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP,
            Self::Write => libc::EPOLLOUT,
            Self::ReadEdge => libc::EPOLLIN | libc::EPOLLET,
            Self::None => 0,
        };
        bits as u32
    }
}

/// One ready descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The token it was added with.
    pub token: u64,
    /// Readable, or closed by the other side.
    pub readable: bool,
    /// Writable.
    pub writable: bool,
    /// An error is pending, for a UDP socket in its error queue.
    pub error: bool,
}

impl Ready {
    /// For what is to be read whoever noticed it.
    pub const READABLE: Self = Self { token: 0, readable: true, writable: false, error: false };
}

/// Room for the events of one wait.
pub struct Events {
    list: Vec<libc::epoll_event>,
    len: usize,
}

impl Events {
    /// Room for `max` events.
    pub fn new(max: usize) -> Self {
        Self { list: vec![libc::epoll_event { events: 0, u64: 0 }; max], len: 0 }
    }

    /// The `index`-th event of the last wait.
    pub fn get(&self, index: usize) -> Option<Ready> {
        let event = self.list.get(..self.len)?.get(index)?;
        let bits = event.events as i32;
        Some(Ready {
            token: event.u64,
            readable: bits & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP) != 0,
            writable: bits & libc::EPOLLOUT != 0,
            error: bits & libc::EPOLLERR != 0,
        })
    }
}

/// An epoll instance; level-triggered but for the interests that say otherwise.
pub struct Epoll(OwnedFd);

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Epoll {
    /// A new instance.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are involved.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        check(fd)?;
        // SAFETY: `fd` was just made and is owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches a descriptor; closing it ends that.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    /// Changes what a descriptor is watched for.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    /// Watches a descriptor no more.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, Interest::None)
    }

    /// Waits until something is ready or `timeout_ms` passed (-1: without end); returns the number of events.
    ///
    /// # Errors
    /// What `epoll_wait` says, but for an interruption, which counts as no event.
    pub fn wait(&self, events: &mut Events, timeout_ms: i32) -> io::Result<usize> {
        let max = libc::c_int::try_from(events.list.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the list has room for `max` events and is borrowed mutably.
        let ready = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.list.as_mut_ptr(), max, timeout_ms) };
        events.len = match check(ready) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        Ok(events.len)
    }

    /// Like [`Self::wait`], with a timeout to the nanosecond where the kernel can (5.11), else to the millisecond above.
    ///
    /// # Errors
    /// What `epoll_pwait2` says, but for an interruption, which counts as no event.
    pub fn wait_for(&self, events: &mut Events, timeout: Duration) -> io::Result<usize> {
        let max = libc::c_int::try_from(events.list.len()).unwrap_or(libc::c_int::MAX);
        let time = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the list has room for `max` events and is borrowed mutably; the timeout is live for the call; there is no
        // signal mask.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                events.list.as_mut_ptr(),
                max,
                &raw const time,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        events.len = match usize::try_from(ready).map_err(|_| io::Error::last_os_error()) {
            Ok(ready) => ready,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
                return self.wait(events, i32::try_from(milliseconds).unwrap_or(i32::MAX));
            }
            Err(error) => return Err(error),
        };
        Ok(events.len)
    }

    fn control(&self, operation: i32, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.bits(), u64: token };
        // SAFETY: `event` is live for the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) })?;
        Ok(())
    }
}

/// Wakes another thread's epoll.
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new counter.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        check(fd)?;
        // SAFETY: `fd` was just made and is owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it readable.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight live bytes. A full counter fails, and is readable already.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes it unreadable again.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight live bytes to write to.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
