//! The system calls of the load generator: recvmmsg and sendmmsg with UDP GRO and GSO, epoll, CPU clocks.
//!
//! Every `unsafe` block of the load generator is here, behind functions that cannot be misused from outside.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Messages that one recvmmsg or sendmmsg carries at most.
pub(super) const BATCH: usize = 64;
/// Bytes of one receive buffer without GRO; larger datagrams would be cut and then fail the payload check.
const PLAIN_BUFFER: usize = 2048 + 64;
/// Bytes of one receive buffer with GRO, the largest aggregate that the kernel delivers.
const GRO_BUFFER: usize = 65_536;
/// Aggregates that one recvmmsg takes with GRO.
const GRO_BATCH: usize = 16;
/// Room for one control message with an int, aligned as `cmsghdr` wants it.
const CONTROL_WORDS: usize = 4;
/// GSO segments that the kernel takes in one send (`UDP_MAX_SEGMENTS` of older kernels).
pub(super) const MAX_SEGMENTS: usize = 64;

/// Buffers for recvmmsg, reused from call to call.
pub(super) struct RecvBatch {
    buffers: Vec<u8>,
    stride: usize,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<[u64; CONTROL_WORDS]>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    received: usize,
}

impl RecvBatch {
    /// Makes the buffers; with `gro`, for aggregates of up to 64 kB.
    pub(super) fn new(gro: bool) -> Self {
        let (count, stride) = if gro { (GRO_BATCH, GRO_BUFFER) } else { (BATCH, PLAIN_BUFFER) };
        // SAFETY: all three are plain C structures for which zero bytes are a valid value.
        let (name, header, iovec) =
            unsafe { (zeroed::<libc::sockaddr_storage>(), zeroed::<libc::mmsghdr>(), zeroed::<libc::iovec>()) };
        let mut batch = Self {
            buffers: vec![0; count * stride],
            stride,
            names: vec![name; count],
            controls: vec![[0; CONTROL_WORDS]; count],
            iovecs: vec![iovec; count],
            headers: vec![header; count],
            received: 0,
        };
        for (iovec, buffer) in batch.iovecs.iter_mut().zip(batch.buffers.chunks_exact_mut(stride)) {
            iovec.iov_base = buffer.as_mut_ptr().cast();
            iovec.iov_len = buffer.len();
        }
        batch.reset(count);
        batch
    }

    /// Receives what is there without waiting; 0 when there is nothing.
    ///
    /// # Errors
    /// Of recvmmsg, except that nothing is there or that an earlier send was refused by ICMP.
    pub(super) fn recv(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        self.reset(self.received);
        self.received = 0;
        // SAFETY: the headers point into vectors of this structure that are never resized, and the count is theirs.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        match usize::try_from(n) {
            Ok(n) => self.received = n.min(self.headers.len()),
            Err(_) => match io::Error::last_os_error() {
                e if is_transient(&e) => {}
                e => return Err(e),
            },
        }
        Ok(self.received)
    }

    /// Whether the last call filled every buffer, so that more may be there.
    pub(super) fn is_full(&self) -> bool {
        self.received == self.headers.len()
    }

    /// The datagrams of the last call with their sources; aggregates are taken apart.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (&[u8], Option<SocketAddr>)> {
        let used = self.headers.iter().zip(&self.names).zip(self.buffers.chunks_exact(self.stride)).take(self.received);
        used.flat_map(|((header, name), buffer)| {
            let bytes = buffer.get(..header.msg_len as usize).unwrap_or(buffer);
            let source = to_socket_addr(name);
            let segment = gro_segment(&header.msg_hdr).unwrap_or(bytes.len()).max(1);
            bytes.chunks(segment).map(move |datagram| (datagram, source))
        })
    }

    /// Points the first `count` headers at their buffers again: the kernel has overwritten their lengths.
    fn reset(&mut self, count: usize) {
        let parts = self.headers.iter_mut().zip(&mut self.names).zip(&mut self.iovecs).zip(&mut self.controls);
        for (((header, name), iovec), control) in parts.take(count) {
            let header = &mut header.msg_hdr;
            header.msg_name = std::ptr::from_mut(name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
        }
    }
}

/// Datagrams collected for one sendmmsg. Payloads are written into one arena, which is reused.
pub(super) struct SendBatch {
    arena: Vec<u8>,
    messages: Vec<Outgoing>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<[u64; CONTROL_WORDS]>,
}

struct Outgoing {
    start: usize,
    len: usize,
    to: Option<SocketAddr>,
    segment: Option<u16>,
}

impl SendBatch {
    /// An empty batch.
    pub(super) fn new() -> Self {
        // SAFETY: all three are plain C structures for which zero bytes are a valid value.
        let (name, header, iovec) =
            unsafe { (zeroed::<libc::sockaddr_storage>(), zeroed::<libc::mmsghdr>(), zeroed::<libc::iovec>()) };
        Self {
            arena: Vec::new(),
            messages: Vec::with_capacity(BATCH),
            headers: vec![header; BATCH],
            iovecs: vec![iovec; BATCH],
            names: vec![name; BATCH],
            controls: vec![[0; CONTROL_WORDS]; BATCH],
        }
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether no further message fits.
    pub(super) fn is_full(&self) -> bool {
        self.messages.len() == BATCH
    }

    /// Adds one message, written by `write` at the end of the arena; to the connected peer when `to` is `None`.
    /// With `segment`, the kernel cuts it into datagrams of that many bytes (UDP GSO).
    pub(super) fn push(&mut self, to: Option<SocketAddr>, segment: Option<u16>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.arena.len();
        write(&mut self.arena);
        self.messages.push(Outgoing { start, len: self.arena.len() - start, to, segment });
    }

    /// Sends everything. A full socket buffer is waited for; nothing is left in the batch afterwards.
    ///
    /// # Errors
    /// Of sendmmsg, except a full buffer and the ICMP errors of earlier sends.
    pub(super) fn flush(&mut self, socket: &impl AsRawFd) -> io::Result<()> {
        let result = self.send(socket.as_raw_fd());
        self.messages.clear();
        self.arena.clear();
        result
    }

    fn send(&mut self, fd: RawFd) -> io::Result<()> {
        // One datagram to the connected peer, the usual case of many thin flows, is cheaper without the structures.
        if let [Outgoing { to: None, segment: None, .. }] = self.messages.as_slice() {
            return self.send_one(fd);
        }
        let count = self.fill();
        let mut done = 0;
        while done < count {
            let rest = self.headers.get_mut(done..count).unwrap_or_default();
            // SAFETY: the headers were pointed at this structure's vectors by `fill`, and none is resized until the end.
            let n =
                unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), rest.len() as libc::c_uint, libc::MSG_DONTWAIT as _) };
            match usize::try_from(n) {
                Ok(n) => done += n,
                Err(_) => match io::Error::last_os_error() {
                    e if is_transient(&e) => {
                        let _ = wait_writable(fd, Duration::from_millis(10));
                    }
                    e => return Err(e),
                },
            }
        }
        Ok(())
    }

    fn send_one(&mut self, fd: RawFd) -> io::Result<()> {
        loop {
            // SAFETY: the arena holds exactly the one message, and outlives the call.
            let n = unsafe { libc::send(fd, self.arena.as_ptr().cast(), self.arena.len(), libc::MSG_DONTWAIT) };
            if n >= 0 {
                return Ok(());
            }
            match io::Error::last_os_error() {
                e if is_transient(&e) => {
                    let _ = wait_writable(fd, Duration::from_millis(10));
                }
                e => return Err(e),
            }
        }
    }

    fn fill(&mut self) -> usize {
        let slots = self.headers.iter_mut().zip(&mut self.iovecs).zip(&mut self.names).zip(&mut self.controls);
        let mut count = 0;
        for ((((header, iovec), name), control), message) in slots.zip(&self.messages) {
            let bytes = self.arena.get_mut(message.start..message.start + message.len).unwrap_or_default();
            iovec.iov_base = bytes.as_mut_ptr().cast();
            iovec.iov_len = bytes.len();
            let header = &mut header.msg_hdr;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            match message.to {
                Some(addr) => {
                    header.msg_namelen = from_socket_addr(addr, name);
                    header.msg_name = std::ptr::from_mut(name).cast();
                }
                None => {
                    header.msg_namelen = 0;
                    header.msg_name = std::ptr::null_mut();
                }
            }
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            if let Some(segment) = message.segment {
                put_gso_segment(header, control, segment);
            }
            count += 1;
        }
        count
    }
}

/// An epoll instance.
pub(super) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
    ready: usize,
}

impl Epoll {
    /// Makes an instance that reports up to 256 sockets at a time.
    ///
    /// # Errors
    /// Of epoll_create1.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 256], ready: 0 })
    }

    /// Watches a socket for reading.
    ///
    /// # Errors
    /// Of epoll_ctl.
    pub(super) fn add(&self, socket: &impl AsRawFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        let fd = socket.as_raw_fd();
        // SAFETY: `event` outlives the call.
        match unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits for up to `timeout`, to the nanosecond where the kernel can (5.11); returns how many sockets are ready.
    ///
    /// # Errors
    /// Of epoll_pwait2 and epoll_wait, except an interruption.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        self.ready = 0;
        let mut n = if timeout.is_zero() { self.wait_ms(0) } else { self.wait_ns(timeout) };
        if n < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            let ms = timeout.as_micros().div_ceil(1000);
            n = self.wait_ms(i32::try_from(ms).unwrap_or(i32::MAX));
        }
        match usize::try_from(n) {
            Ok(n) => self.ready = n.min(self.events.len()),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
        }
        Ok(self.ready)
    }

    /// The token of a ready socket of the last wait.
    pub(super) fn ready(&self, index: usize) -> Option<u64> {
        Some(self.events.get(..self.ready)?.get(index)?.u64)
    }

    fn wait_ms(&mut self, ms: i32) -> i32 {
        let len = self.events.len() as i32;
        // SAFETY: the kernel writes at most `len` events into a vector of that length.
        unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), len, ms) }
    }

    fn wait_ns(&mut self, timeout: Duration) -> i32 {
        let len = self.events.len() as i32;
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the kernel writes at most `len` events into a vector of that length; the timeout outlives the call.
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                len,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0,
            )
        };
        n as i32
    }
}

/// Asks for coalesced receives on a UDP socket (`UDP_GRO`, Linux 5.0).
///
/// # Errors
/// Of setsockopt.
pub(super) fn enable_gro(socket: &impl AsRawFd) -> io::Result<()> {
    set_int(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Makes the socket's receive buffer large, past the system's limit when the process may.
pub(super) fn grow_receive_buffer(socket: &impl AsRawFd, bytes: i32) {
    let fd = socket.as_raw_fd();
    if set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        // The system's own limit then applies, and too large a window shows as loss in the report.
        let _ = set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
    }
}

/// Lifts this process's soft limit of open files to its hard limit, and returns it.
pub(super) fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
    limit.rlim_cur
}

/// Lets timed waits of this thread end on time rather than up to 50 µs late.
pub(super) fn sharpen_timers() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}

/// CPUs that are switched on, whatever this process is pinned to.
pub(super) fn online_cpus() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).unwrap_or(1)
}

/// CPU time in nanoseconds of all threads of a process, up to this moment; `None` when there is no such process.
///
/// The clock of another process is readable by anyone (clock_getcpuclockid(3)), and unlike /proc/PID/stat it counts
/// nanoseconds, unlike /proc/PID/schedstat it counts what a thread that runs now has used since its last tick.
pub(super) fn process_cpu_ns(pid: u32) -> Option<u64> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both results outlive the calls.
    let ok = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0
    };
    let (secs, nanos) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    ok.then(|| secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Bytes in a page of memory.
pub(super) fn page_size() -> u64 {
    // SAFETY: no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn set_int(fd: RawFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: `value` outlives the call and its size is given.
    let result = unsafe {
        libc::setsockopt(fd, level, option, (&raw const value).cast(), size_of::<libc::c_int>() as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn wait_writable(fd: RawFd, timeout: Duration) -> io::Result<()> {
    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one structure, which outlives the call.
    match unsafe { libc::poll(&raw mut poll, 1, timeout.as_millis() as i32) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Nothing there, no room, interrupted, or the report of an ICMP error about an earlier datagram.
fn is_transient(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable, WouldBlock};
    matches!(e.kind(), WouldBlock | Interrupted | ConnectionRefused | HostUnreachable | NetworkUnreachable)
        || e.raw_os_error() == Some(libc::ENOBUFS)
}

/// The size of the datagrams in an aggregate, from the UDP_GRO control message.
fn gro_segment(header: &libc::msghdr) -> Option<usize> {
    if header.msg_controllen as usize == 0 {
        return None;
    }
    // SAFETY: the kernel has filled the control buffer that the header names, `msg_controllen` bytes of it; the CMSG
    // functions stay within it.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = control.as_ref() {
            if head.cmsg_level == libc::SOL_UDP && head.cmsg_type == libc::UDP_GRO {
                let value = libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned();
                return usize::try_from(value).ok();
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

fn put_gso_segment(header: &mut libc::msghdr, control: &mut [u64; CONTROL_WORDS], segment: u16) {
    // SAFETY: `control` is aligned and larger than CMSG_SPACE of a u16, and lives as long as the header's user, `send`.
    unsafe {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as _;
        let head = libc::CMSG_FIRSTHDR(header);
        if let Some(head) = head.as_mut() {
            head.cmsg_level = libc::SOL_UDP;
            head.cmsg_type = libc::UDP_SEGMENT;
            head.cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(head).cast::<u16>().write_unaligned(segment);
        }
    }
}

fn to_socket_addr(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let name = std::ptr::from_ref(name);
    // SAFETY: `sockaddr_storage` is large and aligned enough for both, and the family says which one the kernel wrote.
    unsafe {
        match i32::from((*name).ss_family) {
            libc::AF_INET => {
                let v4 = &*name.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
            }
            libc::AF_INET6 => {
                let v6 = &*name.cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, 0)))
            }
            _ => None,
        }
    }
}

fn from_socket_addr(addr: SocketAddr, name: &mut libc::sockaddr_storage) -> libc::socklen_t {
    let name = std::ptr::from_mut(name);
    // SAFETY: `sockaddr_storage` is large and aligned enough for both; every field that the kernel reads is written.
    unsafe {
        match addr {
            SocketAddr::V4(addr) => {
                let v4 = &mut *name.cast::<libc::sockaddr_in>();
                v4.sin_family = libc::AF_INET as libc::sa_family_t;
                v4.sin_port = addr.port().to_be();
                v4.sin_addr.s_addr = u32::from(*addr.ip()).to_be();
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(addr) => {
                let v6 = &mut *name.cast::<libc::sockaddr_in6>();
                v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                v6.sin6_port = addr.port().to_be();
                v6.sin6_addr.s6_addr = addr.ip().octets();
                v6.sin6_flowinfo = 0;
                v6.sin6_scope_id = addr.scope_id();
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }
}
