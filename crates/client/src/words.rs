//! What is wrong with a socket, in words.

use std::io;

use turnstone_turn::addr::SocketKind;

/// What is wrong with a socket of the network.
pub fn io_words(error: &io::Error, kind: SocketKind) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused if kind == SocketKind::Tcp => {
            "connection refused: nothing listens on this port".into()
        }
        io::ErrorKind::ConnectionRefused => "nothing listens on this port (ICMP port unreachable)".into(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            "no answer to the connection attempt: a firewall drops it, or the machine is off".into()
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "there is no way to this address, or a firewall rejects what goes there".into()
        }
        io::ErrorKind::ConnectionReset => "the server reset the connection".into(),
        _ => error.to_string(),
    }
}

/// What is wrong with a socket in the file system.
pub fn unix_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such socket: nothing listens there".into(),
        io::ErrorKind::ConnectionRefused => "nothing listens at this socket any more".into(),
        io::ErrorKind::PermissionDenied => "this program's user may not use the socket".into(),
        io::ErrorKind::WouldBlock => "who listens at this socket takes no connections: it is stopped, or hangs".into(),
        _ => error.to_string(),
    }
}
