//! The only module with `unsafe`: thin, safe wrappers of Linux system calls. It knows nothing of STUN or TURN.
#![allow(unsafe_code)]

mod address;
mod bulk;
mod descriptors;
mod epoll;
mod error_queue;
mod identity;
mod process;
mod recv;
mod send;
mod shares;
mod sockopt;
mod stream_buffers;

pub use bulk::{MAX_SEGMENTS, RecvBuffers, SendBuffers};
pub use descriptors::{remove_variables, send_descriptor, take_passed_descriptors};
pub use epoll::{Epoll, EventFd, Events, Interest, Ready};
pub use error_queue::{IcmpError, read_error_queue};
pub use identity::{forbid_core_dumps, with_files_of};
pub use process::{
    clock_is_synchronised, descriptors, online_cpus, page_size, process_cpu_ns, raise_open_files, sharpen_timers,
};
pub use recv::{Datagram, RecvBatch};
pub use send::{PIECES_MAX, SendOptions, send, send_pieces, send_stream, send_to};
pub use shares::{Descriptors, Outward};
pub use sockopt::{
    enable_udp_gro, enable_udp_gso_probe, grow_recv_buffer, kernel_drops, set_dont_fragment, set_ip_recverr,
    set_netlink_strict, set_no_checksum, set_no_path_mtu_discovery, set_recv_drops, set_recv_pktinfo, set_recv_tos,
    tcp_round_trip_micros,
};
pub use stream_buffers::{bound_stream_buffers, unbound_unsent, widen_stream_buffers};

use std::io;

/// Turns a system call's return value into a result.
fn check(value: libc::c_int) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::last_os_error())
}

/// Gives freed memory back to the system, after a peak. Only the GNU allocator keeps it otherwise.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has names looked up in /etc/hosts and by DNS alone, in a program that is linked statically with glibc: anything else that the host's
/// nsswitch.conf names is a library, which would come into this process together with a libc that is not the one inside.
/// In any other program this does nothing. Call it while there is one thread.
pub fn look_up_without_libraries() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    {
        use std::ffi::{c_char, c_int};

        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        // SAFETY: glibc's nss.h declares it so; both strings live on, and no other thread looks anything up yet. It fails only for a
        // database that is unknown.
        unsafe {
            __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr());
        }
    }
}

/// The monotonic clock in microseconds and the Unix time in seconds, one reading each.
#[inline]
pub fn clocks() -> (u64, u64) {
    // Not by rustix: what it looks up for its own way to the vDSO crashes the program under valgrind.
    let read = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid timespec to write to.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0))
    };
    let (secs, nanos) = read(libc::CLOCK_MONOTONIC);
    (secs * 1_000_000 + nanos / 1000, read(libc::CLOCK_REALTIME_COARSE).0)
}
