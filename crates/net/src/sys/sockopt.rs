//! Socket options by what they are for, those that neither socket2 nor rustix has among them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

use super::check;
use turnstone_turn::addr::Family;

/// Lets the kernel hand over coalesced datagrams (Linux 5.0).
///
/// # Errors
/// On kernels without it; the socket then receives datagrams one by one.
pub fn enable_udp_gro(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Whether the kernel knows UDP segmentation offload (Linux 4.18). Sets nothing: the size is given with each send.
pub fn enable_udp_gso_probe(socket: BorrowedFd<'_>) -> bool {
    set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// Reports the local address of each datagram.
///
/// # Errors
/// What `setsockopt` says.
pub fn set_recv_pktinfo(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        Family::V6 => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// Reports the TOS or traffic class of each datagram (RFC 8656 section 14: DSCP and ECN are copied).
///
/// # Errors
/// What `setsockopt` says.
pub fn set_recv_tos(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => sockopt::set_ip_recvtos(socket, true)?,
        Family::V6 => sockopt::set_ipv6_recvtclass(socket, true)?,
    }
    Ok(())
}

/// Reports the count of datagrams the kernel dropped because the receive buffer was full.
///
/// # Errors
/// What `setsockopt` says.
pub fn set_recv_drops(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)
}

/// How many datagrams the kernel has dropped at a socket, mostly because the receive buffer was full (Linux 4.12).
///
/// # Errors
/// What `getsockopt` says.
pub fn kernel_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // SK_MEMINFO_DROPS of linux/sock_diag.h, the last of the nine values.
    const DROPS: usize = 8;
    let mut values = [0_u32; DROPS + 1];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the array is live and as long as `len` says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    check(result)?;
    Ok(values[DROPS])
}

/// The round trip over a connection as TCP has smoothed it, in microseconds; `None` before there is one.
///
/// # Errors
/// What `getsockopt` says.
pub fn tcp_round_trip_micros(socket: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    // tcpi_rtt of linux/tcp.h: the sixteenth number behind eight bytes of states and options.
    const RTT: usize = 17;
    let mut values = [0_u32; RTT + 1];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the array is live and as long as `len` says; the kernel writes no more.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    check(result)?;
    Ok(Some(values[RTT]).filter(|micros| *micros > 0))
}

/// Queues ICMP errors for [`super::read_error_queue`].
///
/// # Errors
/// What `setsockopt` says.
pub fn set_ip_recverr(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1),
        Family::V6 => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
    }
}

/// Sends with DF = 0 and lets datagrams be fragmented (RFC 8656 section 14, alternate behaviour).
///
/// # Errors
/// What `setsockopt` says.
pub fn set_no_path_mtu_discovery(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?,
        Family::V6 => sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT)?,
    }
    Ok(())
}

/// Sends with DF = 1, whatever the known path MTU (DONT-FRAGMENT, RFC 8656 section 14).
///
/// # Errors
/// What `setsockopt` says.
pub fn set_dont_fragment(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)?,
        Family::V6 => sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)?,
    }
    Ok(())
}

/// Makes the receive buffer as large as asked, past the system's limit if this process may, else up to the limit.
pub fn grow_recv_buffer(socket: BorrowedFd<'_>, bytes: usize) {
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        // This never fails: the kernel cuts the value to its limit.
        let _ = sockopt::set_socket_recv_buffer_size(socket, bytes);
    }
}

/// Has the kernel heed what a request for a dump asks for, rather than send everything (Linux 4.20).
///
/// # Errors
/// What `setsockopt` says.
pub fn set_netlink_strict(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1)
}

/// Sends without checksums: such a socket refuses segmentation offload, as tunnels and old devices do. For tests of what
/// happens then.
///
/// # Errors
/// What the kernel says.
pub fn set_no_checksum(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)
}

pub(super) fn set(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` is a live int and its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result)?;
    Ok(())
}
