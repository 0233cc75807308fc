//! epoll and eventfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

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
    /// Readable or writable, told once for each time that either comes to be: the owner goes on until neither is.
    Edge,
    /// Errors and hang-ups only.
    None,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        use epoll::EventFlags as Flags;
        match self {
            Self::Read => Flags::IN | Flags::RDHUP,
            Self::ReadWrite => Flags::IN | Flags::OUT | Flags::RDHUP,
            Self::Write => Flags::OUT,
            Self::ReadEdge => Flags::IN | Flags::ET,
            Self::Edge => Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET,
            Self::None => Flags::empty(),
        }
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
    list: Vec<epoll::Event>,
    len: usize,
}

// SAFETY: what the events carry are numbers; rustix' type could hold a pointer, too, and so is not `Send` by itself.
unsafe impl Send for Events {}

impl Events {
    /// Room for `max` events.
    pub fn new(max: usize) -> Self {
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        Self { list: vec![none; max], len: 0 }
    }

    /// The `index`-th event of the last wait.
    #[inline]
    pub fn get(&self, index: usize) -> Option<Ready> {
        use epoll::EventFlags as Flags;
        let event = *self.list.get(..self.len)?.get(index)?;
        let flags = event.flags;
        Some(Ready {
            token: event.data.u64(),
            readable: flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP),
            writable: flags.contains(Flags::OUT),
            error: flags.contains(Flags::ERR),
        })
    }

    /// Notes how a wait ended. An interruption is no event.
    fn take(&mut self, ready: rustix::io::Result<usize>) -> io::Result<usize> {
        self.len = match ready {
            Err(Errno::INTR) => 0,
            ready => ready?,
        };
        Ok(self.len)
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
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Watches a descriptor; closing it ends that.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Changes what a descriptor is watched for.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Watches a descriptor no more.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Waits until something is ready or `timeout_ms` passed (-1: without end); returns the number of events.
    ///
    /// # Errors
    /// What `epoll_wait` says, but for an interruption, which counts as no event.
    pub fn wait(&self, events: &mut Events, timeout_ms: i32) -> io::Result<usize> {
        // In whole milliseconds this is epoll_pwait, which every kernel has.
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis).map(timespec);
        let ready = epoll::wait(&self.0, &mut events.list[..], timeout.as_ref());
        events.take(ready)
    }

    /// Like [`Self::wait`], with a timeout to the nanosecond where the kernel can (5.11), else to the millisecond above.
    ///
    /// # Errors
    /// What `epoll_pwait2` says, but for an interruption, which counts as no event.
    pub fn wait_for(&self, events: &mut Events, timeout: Duration) -> io::Result<usize> {
        self.wait_for_by(epoll_pwait2, events, timeout)
    }

    fn wait_for_by(&self, pwait2: Pwait2, events: &mut Events, timeout: Duration) -> io::Result<usize> {
        match pwait2(self.0.as_fd(), &mut events.list, timespec(timeout)) {
            Err(Errno::NOSYS) => {
                let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
                self.wait(events, i32::try_from(milliseconds).unwrap_or(i32::MAX))
            }
            ready => events.take(ready),
        }
    }
}

type Pwait2 = fn(BorrowedFd<'_>, &mut [epoll::Event], Timespec) -> rustix::io::Result<usize>;

/// The call that rustix makes only in builds for kernels that surely have it.
fn epoll_pwait2(epoll: BorrowedFd<'_>, events: &mut [epoll::Event], timeout: Timespec) -> rustix::io::Result<usize> {
    let max = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
    // The kernel's own form of the time, 64 bits wide everywhere.
    let time: [i64; 2] = [timeout.tv_sec, timeout.tv_nsec];
    // SAFETY: the list has room for `max` events, which rustix lays out as the kernel does, and is borrowed mutably; the
    // timeout is live for the call; there is no signal mask.
    let ready = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            max,
            time.as_ptr(),
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    usize::try_from(ready).map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

/// Wakes another thread's epoll.
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new counter.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes it readable.
    pub fn wake(&self) {
        // A full counter fails, and is readable already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it unreadable again.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// A kernel before 5.11, or a sandbox that does not know the call.
    fn is_missing(_: BorrowedFd<'_>, _: &mut [epoll::Event], _: Timespec) -> rustix::io::Result<usize> {
        Err(Errno::NOSYS)
    }

    fn watched() -> (Epoll, EventFd, Events) {
        let (epoll, wake) = (Epoll::new().unwrap(), EventFd::new().unwrap());
        epoll.add(wake.as_fd(), 7, Interest::Read).unwrap();
        (epoll, wake, Events::new(4))
    }

    #[test]
    fn where_the_call_with_nanoseconds_is_missing_a_wait_ends_no_earlier_and_brings_the_same_events() {
        for pwait2 in [epoll_pwait2, is_missing] {
            let (epoll, wake, mut events) = watched();
            let started = Instant::now();
            assert_eq!(epoll.wait_for_by(pwait2, &mut events, Duration::from_micros(2100)).unwrap(), 0);
            assert!(started.elapsed() >= Duration::from_micros(2100), "{:?}", started.elapsed());
            wake.wake();
            assert_eq!(epoll.wait_for_by(pwait2, &mut events, Duration::MAX).unwrap(), 1);
            let ready = events.get(0).unwrap();
            assert_eq!((ready.token, ready.readable, ready.writable, ready.error), (7, true, false, false));
            wake.clear();
            assert_eq!(epoll.wait_for_by(pwait2, &mut events, Duration::ZERO).unwrap(), 0);
            assert!(events.get(0).is_none());
        }
    }
}
