//! The listener sockets of one worker.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::inbox::Inbox;
use crate::addr::{ClientAddr, FiveTuple, Transport};
use crate::net::sys::{Datagram, kernel_drops};
use crate::turn::{Client, DatagramPath, Path};

/// Datagrams taken from a listener at once, at most.
pub(super) const DEPTH_MAX: usize = 64;
/// Messages that one read of a listener should not bring many more of, each datagram being up to 64 that the kernel has
/// coalesced.
const READ_MESSAGES: usize = 512;

pub(super) enum ListenerSocket {
    Udp(DatagramListener),
    Tcp { socket: TcpListener, transport: Transport },
}

/// Where datagrams of clients come in.
pub(super) struct DatagramListener {
    socket: OwnedFd,
    address: SocketAddr,
    /// The kernel's drops at it that have been counted.
    drops: u32,
    /// How many datagrams to ask for.
    depth: usize,
}

impl DatagramListener {
    pub(super) fn new(socket: OwnedFd, address: SocketAddr) -> Self {
        // A socket from before a restart has dropped datagrams that were counted then.
        let drops = kernel_drops(socket.as_fd()).unwrap_or_default();
        Self { socket, address, drops, depth: DEPTH_MAX }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Receives what is there, up to some number; returns how many datagrams it was.
    pub(super) fn receive(&self, inbox: &mut Inbox) -> io::Result<usize> {
        inbox.receive(self.fd(), self.depth)
    }

    /// The client that has sent a datagram to this listener, which is the worker's `number`th.
    pub(super) fn client(&self, number: u32, datagram: &Datagram) -> Option<Client> {
        let is_any = self.address.ip().is_unspecified();
        let server = server_address(self.address, datagram.local_ip);
        let client = ClientAddr::new(datagram.source);
        // Source port 0 cannot be answered.
        (datagram.source.port() != 0).then_some(())?;
        let five_tuple = FiveTuple { transport: Transport::Udp, client, server };
        let from_ip = is_any.then(|| server.ip());
        Some(Client { five_tuple, path: Path::Datagrams(DatagramPath { socket: number, to: client.get(), from_ip }) })
    }

    /// Takes note of a read that brought `count` datagrams, `messages` in all.
    pub(super) fn note_read(&mut self, count: usize, messages: usize) {
        self.depth = next_depth(self.depth, count, messages);
    }

    /// Takes over what the kernel reports of its drops; returns how many are new.
    pub(super) fn new_drops(&mut self, drops: u32) -> u32 {
        drops.wrapping_sub(std::mem::replace(&mut self.drops, drops))
    }
}

/// How many datagrams to ask a listener for after a read of `count` that were `messages` in all: fewer while the kernel
/// coalesces many, so that a client who sends trains of 64 keeps the loop no longer than others; and more again by one at a time,
/// so that few of his trains find the loop unprepared.
fn next_depth(depth: usize, count: usize, messages: usize) -> usize {
    let each = messages.div_ceil(count.max(1)).max(1);
    (READ_MESSAGES / each).min(depth + 1).clamp(4, DEPTH_MAX)
}

fn server_address(bound: SocketAddr, local_ip: Option<IpAddr>) -> SocketAddr {
    match local_ip {
        Some(ip) if bound.ip().is_unspecified() => SocketAddr::new(ip, bound.port()),
        _ => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trains_lower_the_depth_of_a_listener_at_once_and_it_grows_again_one_by_one() {
        assert_eq!(next_depth(DEPTH_MAX, 64, 64), DEPTH_MAX);
        assert_eq!(next_depth(DEPTH_MAX, 3, 3), DEPTH_MAX, "a short read says nothing of trains");
        let mut depth = next_depth(DEPTH_MAX, 64, 64 * 64);
        assert_eq!(depth, 8, "eight trains of 64 at once");
        for grown in 9..=DEPTH_MAX {
            depth = next_depth(depth, depth, depth);
            assert_eq!(depth, grown);
        }
        assert_eq!(next_depth(depth, 0, 0), DEPTH_MAX);
    }
}
