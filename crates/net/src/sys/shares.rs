//! How the descriptors that the process may have are shared out between relays, client connections, and what the server itself needs.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Descriptors of the server itself, beside its listeners: epoll, mailboxes, logs, records, the endpoints and their clients.
const OWN: u64 = 128;
/// Of these, at least so many are left when everything else has run out: for the operator's own connections.
const LAST: u64 = 64;
/// The least that is set aside.
const RESERVE_MIN: u64 = 256;

/// Who gets how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// What the process may have in all.
    pub limit: u64,
    /// What all would need together.
    pub needed: u64,
    /// Client connections that are accepted at most. Relays have at least as many.
    pub connections: u64,
    /// Sockets that are connected to a busy peer: a gain, where those of allocations are a need.
    pub busy_sockets: u64,
    /// Relays and connections have numbers below this one: the kernel gives the lowest that is free, so that those above are
    /// there for the operator.
    ceiling: u64,
}

impl Descriptors {
    /// Shares `limit` out between the workers' own (`listeners` and what wakes them), relays and client connections. Half of what the
    /// server does not need itself may be connections, more if the relays need less.
    pub fn share_out(limit: u64, listeners: u64, relays: u64, connections: u64) -> Self {
        let own = OWN.saturating_add(listeners).max(RESERVE_MIN);
        let needed = relays.saturating_add(connections).saturating_add(own);
        let rest = limit.saturating_sub(own);
        // Where there is enough, the gain is an eighth of all; else it is what the smaller shares leave.
        let busy = (rest / 8).min((limit / 8).max(limit.saturating_sub(needed)));
        let rest = rest - busy;
        Self {
            limit,
            needed,
            connections: connections.min((rest / 2).max(rest.saturating_sub(relays))),
            busy_sockets: busy,
            ceiling: limit.saturating_sub(LAST.min(limit / 4)),
        }
    }

    /// What is one worker's of them.
    #[must_use]
    pub fn of_each(self, workers: usize) -> Self {
        Self { busy_sockets: self.busy_sockets / (workers as u64).max(1), ..self }
    }

    /// Gives a new socket back to its maker, unless it is one of the last that the process may have.
    ///
    /// # Errors
    /// As if there were no more (EMFILE); the socket is closed.
    pub fn admit(&self, socket: OwnedFd) -> io::Result<OwnedFd> {
        match u64::try_from(socket.as_raw_fd()) {
            Ok(number) if number < self.ceiling => Ok(socket),
            _ => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(limit: u64, relays: u64) -> Descriptors {
        Descriptors::share_out(limit, 24, relays, 10_000)
    }

    #[test]
    fn where_there_are_enough_everybody_gets_what_is_wanted() {
        let plenty = shared(65_536, 32_768);
        assert_eq!((plenty.connections, plenty.needed), (10_000, 32_768 + 10_000 + 256));
        assert!(plenty.busy_sockets > 8000 && plenty.of_each(4).busy_sockets == plenty.busy_sockets / 4);
        assert_eq!(shared(u64::MAX, 32_768).connections, 10_000);
    }

    #[test]
    fn where_there_are_few_relays_have_at_least_as_many_as_connections_and_the_operator_has_the_last() {
        for limit in [0, 1, 63, 256, 300, 1024, 4096, 20_000, 65_536] {
            let few = shared(limit, 16_384);
            let of_both = few.ceiling.saturating_sub(RESERVE_MIN - LAST);
            assert!(few.connections <= of_both.div_ceil(2), "{few:?}");
            assert!(limit == 0 || few.ceiling < limit || limit < 4, "{few:?}");
        }
        let few = shared(1024, 16_384);
        assert_eq!((few.connections, few.busy_sockets, few.ceiling), (336, 96, 960));
        // Relays that there cannot be leave their part.
        assert_eq!(shared(1024, 100).connections, 572);
    }

    #[test]
    fn the_last_descriptors_are_not_given_away() {
        let socket = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(shared(1 << 20, 100).admit(socket()).is_ok());
        let none_left = Descriptors { ceiling: 3, ..shared(1024, 100) };
        assert_eq!(none_left.admit(socket()).unwrap_err().raw_os_error(), Some(libc::EMFILE));
    }
}
