//! Making the sockets: listeners shared by SO_REUSEPORT, relay sockets, and the options each needs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::sys;
use turnstone_turn::addr::Family;

/// Asked for listener sockets; the kernel grants at most `net.core.rmem_max`.
pub const LISTENER_BUFFER: usize = 4 << 20;
/// Asked for relay sockets.
const RELAY_BUFFER: usize = 1 << 20;
/// Connections that wait to be accepted, per worker.
const BACKLOG: i32 = 1024;

/// A UDP listener socket; one per worker is bound to the same address. The address need not be there yet: the socket works as
/// soon as it is.
///
/// # Errors
/// What binding says, e.g. the address is in use.
pub fn bind_udp_listener(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = Family::of(address.ip());
    let socket = datagram_socket(family)?;
    // Asked for any free port, the kernel would give one that another server of this user shares among its workers.
    socket.set_reuse_port(address.port() != 0)?;
    bind_freely(&socket, address)?;
    let socket = socket.into();
    tune_udp_listener(&socket, address.ip())?;
    Ok(socket)
}

/// Gives a bound socket the options of a UDP listener, whoever has bound it. Others may then be bound beside it, if their
/// owner is the same (SO_REUSEPORT holds for later binds, too).
///
/// # Errors
/// What setting them says.
pub fn tune_udp_listener(socket: &OwnedFd, bound: IpAddr) -> io::Result<()> {
    let (family, fd) = (Family::of(bound), socket.as_fd());
    let reference = SockRef::from(socket);
    reference.set_nonblocking(true)?;
    reference.set_reuse_port(true)?;
    // Larger buffers are a wish: a smaller one only loses earlier under load.
    let _ = reference.set_recv_buffer_size(LISTENER_BUFFER);
    let _ = reference.set_send_buffer_size(LISTENER_BUFFER);
    if bound.is_unspecified() {
        sys::set_recv_pktinfo(fd, family)?;
    }
    sys::set_no_path_mtu_discovery(fd, family)?;
    // The rest is better service, not a condition: older kernels go without.
    let _ = sys::set_recv_tos(fd, family);
    let _ = sys::set_recv_drops(fd);
    let _ = sys::enable_udp_gro(fd);
    Ok(())
}

/// A TCP listener socket; one per worker is bound to the same address, which need not be there yet.
///
/// # Errors
/// What binding or listening says.
pub fn bind_tcp_listener(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = Family::of(address.ip());
    let socket = Socket::new(domain(family), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    bind_freely(&socket, address)?;
    let socket = socket.into();
    tune_tcp_listener(&socket)?;
    Ok(socket)
}

/// A TCP listener of a program's endpoint, on an address that need not be there yet.
///
/// # Errors
/// What binding or listening says.
pub fn bind_endpoint(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    const BACKLOG: i32 = 128;
    let socket =
        Socket::new(domain(Family::of(address.ip())), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    bind_freely(&socket, address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connects to a unix socket, and waits no longer for room among those that wait to be accepted: a server that is stopped, or
/// hangs, may have none.
///
/// # Errors
/// What connecting says; `TimedOut` when there was no room in time.
pub fn connect_unix(path: &Path, at_most: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    socket.set_write_timeout(Some(at_most))?;
    socket.connect(&SockAddr::unix(path)?).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })?;
    socket.set_write_timeout(None)?;
    Ok(OwnedFd::from(socket).into())
}

/// Binds to an address that this host may get later (IP_FREEBIND).
fn bind_freely(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match Family::of(address.ip()) {
        Family::V4 => socket.set_freebind_v4(true)?,
        Family::V6 => socket.set_freebind_v6(true)?,
    }
    socket.bind(&address.into())
}

/// Makes a bound socket a TCP listener, or gives the options of ours to one that listens already: as
/// [`tune_udp_listener`].
///
/// # Errors
/// What setting them or listening says.
pub fn tune_tcp_listener(socket: &OwnedFd) -> io::Result<()> {
    let reference = SockRef::from(socket);
    reference.set_nonblocking(true)?;
    reference.set_reuse_address(true)?;
    reference.set_reuse_port(true)?;
    reference.listen(BACKLOG)
}

/// Begins to connect to an address, without waiting: the socket is writable when it has come to something.
///
/// # Errors
/// What can be known at once.
pub fn connect_stream(address: SocketAddr) -> io::Result<OwnedFd> {
    let domain = domain(Family::of(address.ip()));
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let socket = socket.into();
    tune_accepted(&socket)?;
    Ok(socket)
}

/// Options of an accepted connection: no delay, and dead clients are noticed.
///
/// # Errors
/// What setting them says.
pub fn tune_accepted(socket: &OwnedFd) -> io::Result<()> {
    const PROBE_AFTER: Duration = Duration::from_secs(30);
    const PROBE_EVERY: Duration = Duration::from_secs(10);
    const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
    let reference = SockRef::from(socket);
    reference.set_nonblocking(true)?;
    reference.set_tcp_nodelay(true)?;
    reference
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(3))?;
    // What was sent and stays unacknowledged for so long ends the connection.
    reference.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

/// A relay socket.
///
/// # Errors
/// What binding says; `AddrInUse` when another process has the port.
pub fn bind_relay(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = Family::of(address.ip());
    let socket = datagram_socket(family)?;
    socket.bind(&address.into())?;
    tune_relay(&socket, family)?;
    Ok(socket.into())
}

/// A relay socket that many allocations share: what one of them would lose in a burst, all would.
///
/// # Errors
/// As [`bind_relay`].
pub fn bind_shared_relay(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = bind_relay(address)?;
    let reference = SockRef::from(&socket);
    let _ = reference.set_recv_buffer_size(LISTENER_BUFFER);
    let _ = reference.set_send_buffer_size(LISTENER_BUFFER);
    Ok(socket)
}

fn tune_relay(socket: &Socket, family: Family) -> io::Result<()> {
    let fd = socket.as_fd();
    // A key frame comes as a burst; the kernel grants at most net.core.rmem_max, which is twice its default.
    let _ = socket.set_recv_buffer_size(RELAY_BUFFER);
    sys::set_no_path_mtu_discovery(fd, family)?;
    let _ = sys::set_recv_tos(fd, family);
    let _ = sys::set_recv_drops(fd);
    let _ = sys::enable_udp_gro(fd);
    // ICMP errors are reported to the client (RFC 8656 section 11.5).
    sys::set_ip_recverr(fd, family)
}

/// A second socket on a relay socket's address, connected to one peer: the kernel keeps its route and hands it that peer's
/// datagrams, and everybody else's still come to the relay socket.
///
/// The address is shareable only while this function runs, so that no other process can join it.
///
/// # Errors
/// What binding or connecting says.
pub fn bind_connected(relay: &OwnedFd, peer: SocketAddr) -> io::Result<OwnedFd> {
    let relay = SockRef::from(relay);
    let address = relay.local_addr()?;
    let family = Family::of(peer.ip());
    let socket = datagram_socket(family)?;
    socket.set_reuse_port(true)?;
    relay.set_reuse_port(true)?;
    let bound = socket.bind(&address).and_then(|()| socket.connect(&peer.into()));
    relay.set_reuse_port(false)?;
    socket.set_reuse_port(false)?;
    bound?;
    tune_relay(&socket, family)?;
    Ok(socket.into())
}

fn datagram_socket(family: Family) -> io::Result<Socket> {
    let socket = Socket::new(domain(family), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_listener_that_asks_for_any_port_has_one_of_its_own_that_workers_can_share() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        // Were they shared before they are bound, the kernel would give some of them the same port.
        let sockets: Vec<_> = (0..500).map(|_| bind_udp_listener(any).unwrap()).collect();
        let port = |socket: &OwnedFd| SockRef::from(socket).local_addr().unwrap().as_socket().unwrap();
        let ports: HashSet<_> = sockets.iter().map(port).collect();
        assert_eq!(ports.len(), 500);
        assert!(sockets.iter().take(10).all(|socket| bind_udp_listener(port(socket)).is_ok()));
    }
}
