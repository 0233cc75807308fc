//! The way to a client.

use std::net::{IpAddr, SocketAddr};

use crate::addr::ClientAddr;

/// How a client is reached, which is not who it is: that is its 5-tuple. Behind a proxy the two differ.
///
/// The server keeps the path of a client with its allocation and gives it back with what is to be sent. It never looks inside:
/// only whoever has the sockets knows what the numbers stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// Datagrams.
    Datagrams(DatagramPath),
    /// A connection.
    Stream(StreamId),
    /// A DTLS session.
    Session(SessionId),
}

impl Path {
    /// The way back to who sends datagrams to socket number 0, if that has one address.
    pub fn back_to(client: SocketAddr) -> Self {
        Self::Datagrams(DatagramPath { socket: 0, to: client, from_ip: None })
    }

    /// A path that no socket has.
    pub(super) fn nowhere(client: ClientAddr) -> Self {
        Self::Datagrams(DatagramPath { socket: u32::MAX, to: client.get(), from_ip: None })
    }
}

/// Where datagrams for a client go, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramPath {
    /// The socket, by the number that its owner has given it.
    pub socket: u32,
    /// The address to send to.
    pub to: SocketAddr,
    /// The address to send from, if the socket has more than one.
    pub from_ip: Option<IpAddr>,
}

/// A connection, by the place its owner has given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// The place.
    pub index: u32,
    /// Tells it from those that had the place before.
    pub generation: u32,
}

/// A DTLS session, by the place its owner has given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The place.
    pub index: u32,
    /// Tells it from those that had the place before.
    pub generation: u32,
}
