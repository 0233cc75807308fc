//! The sockets of TCP relays (RFC 6062): one that listens at the relayed address, and one for each connection with a peer, at the same
//! address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::sockets::tune_accepted;
use super::sys;

/// Connections of peers that wait to be accepted.
const BACKLOG: i32 = 64;

/// A socket that listens at a relayed address.
///
/// Nobody else has the address: it is bound alone, and can be shared only afterwards, by the connections that are made from it.
///
/// # Errors
/// What binding or listening says; `AddrInUse` when another process has the port.
pub fn bind_tcp_relay(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = stream_socket(address)?;
    // For connections of an earlier relay on this port that have not been forgotten yet.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Begins a connection from the address of a TCP relay (RFC 6062 section 5.2). The socket becomes writable when it has ended up one
/// way or the other: then `take_error` of the socket says which.
///
/// # Errors
/// What binding or connecting says at once.
pub fn connect_from(relay: SocketAddr, peer: SocketAddr) -> io::Result<OwnedFd> {
    let socket = stream_socket(relay)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&relay.into())?;
    match socket.connect(&peer.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let socket = socket.into();
    tune_accepted(&socket)?;
    Ok(socket)
}

/// Gives a connection of data what bulk needs. Who reads slowly holds up the other side and is not cut off for it, as one who does not
/// read answers is: the allocation's end is the end of it in any case.
pub fn tune_data(socket: &impl AsFd) {
    let socket = socket.as_fd();
    // All are wishes.
    let _ = SockRef::from(&socket).set_tcp_user_timeout(None);
    sys::widen_stream_buffers(socket);
    sys::unbound_unsent(socket);
}

/// Why a connection has failed, if it has.
#[must_use]
pub fn take_error(socket: &impl AsFd) -> Option<io::Error> {
    let fd = socket.as_fd();
    SockRef::from(&fd).take_error().unwrap_or_else(Some)
}

/// Has closing a connection reset it, so that the other side knows that not all has come.
pub fn reset_on_close(socket: &impl AsFd) {
    let fd = socket.as_fd();
    let _ = SockRef::from(&fd).set_linger(Some(std::time::Duration::ZERO));
}

fn stream_socket(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_leave_from_the_relays_address_while_it_listens_and_nobody_else_can_have_it() {
        for loopback in ["127.0.0.1", "::1"] {
            let any = SocketAddr::new(loopback.parse().unwrap(), 0);
            let relay: TcpListener = bind_tcp_relay(any).unwrap().into();
            let address = relay.local_addr().unwrap();
            let peers = [(); 2].map(|()| TcpListener::bind(any).unwrap());
            for peer in &peers {
                let to = peer.local_addr().unwrap();
                let connection = connect_from(address, to).unwrap();
                let (_, from) = peer.accept().unwrap();
                assert_eq!(from, address);
                assert!(take_error(&connection).is_none());
                assert!(connect_from(address, to).is_err(), "the same connection again");
            }
            assert!(bind_tcp_relay(address).is_err(), "not even by the same user");
            let inbound = TcpStream::connect(address).unwrap();
            relay.set_nonblocking(false).unwrap();
            assert_eq!(relay.accept().unwrap().1, inbound.local_addr().unwrap());
        }
    }

    #[test]
    fn a_peer_that_refuses_is_told_apart_from_one_that_accepts() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let relay: TcpListener = bind_tcp_relay(any).unwrap().into();
        let nobody = TcpListener::bind(any).unwrap().local_addr().unwrap();
        let address = relay.local_addr().unwrap();
        match connect_from(address, nobody) {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
            Ok(socket) => {
                let epoll = sys::Epoll::new().unwrap();
                epoll.add(socket.as_fd(), 1, sys::Interest::Edge).unwrap();
                let mut events = sys::Events::new(1);
                assert_eq!(epoll.wait(&mut events, 20_000).unwrap(), 1);
                assert_eq!(take_error(&socket).unwrap().kind(), io::ErrorKind::ConnectionRefused);
            }
        }
    }
}
