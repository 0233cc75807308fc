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
    /// Connections that the server makes or accepts beside those of clients, at most.
    pub outward: Outward,
    /// Sockets that are connected to a busy peer: a gain, where those of allocations are a need.
    pub busy_sockets: u64,
    /// Pipes for bytes that the kernel moves, of two descriptors each: a gain, too.
    pub pipes: u64,
    /// Relays and connections have numbers below this one: the kernel gives the lowest that is free, so that those above are
    /// there for the operator.
    ceiling: u64,
}

/// Connections beside those of clients: each belongs to one of a client's, or waits for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outward {
    /// With peers of TCP relays.
    pub peers: u64,
    /// With web servers.
    pub web: u64,
}

impl Outward {
    fn total(self) -> u64 {
        self.peers.saturating_add(self.web)
    }

    /// At most `most`, of each as great a part as it wants of all.
    fn at_most(self, most: u64) -> Self {
        let total = self.total();
        if total <= most {
            return self;
        }
        let peers = u128::from(self.peers) * u128::from(most) / u128::from(total);
        let peers = u64::try_from(peers).unwrap_or(most);
        Self { peers, web: most - peers }
    }
}

impl Descriptors {
    /// Shares `limit` out between the workers' own (`listeners` and what wakes them), relays, client connections, and what is connected
    /// to beside them. Half of what the server does not need itself may be connections, more if the relays need less.
    pub fn share_out(limit: u64, listeners: u64, relays: u64, connections: u64, outward: Outward) -> Self {
        let own = OWN.saturating_add(listeners).max(RESERVE_MIN);
        let of_clients = relays.saturating_add(connections);
        let needed = of_clients.saturating_add(outward.total()).saturating_add(own);
        let rest = limit.saturating_sub(own);
        // Where there is enough, the gain is an eighth of all; else it is what the smaller shares leave.
        let gain = (rest / 8).min((limit / 8).max(limit.saturating_sub(needed)));
        let rest = rest - gain;
        let outward = outward.at_most((rest / 4).max(rest.saturating_sub(of_clients)));
        let rest = rest - outward.total();
        let pipes = gain / 16;
        Self {
            limit,
            needed,
            connections: connections.min((rest / 2).max(rest.saturating_sub(relays))),
            outward,
            busy_sockets: gain - 2 * pipes,
            pipes,
            ceiling: limit.saturating_sub(LAST.min(limit / 4)),
        }
    }

    /// What is one worker's of them.
    #[must_use]
    pub fn of_each(self, workers: usize) -> Self {
        let workers = (workers as u64).max(1);
        Self { busy_sockets: self.busy_sockets / workers, pipes: self.pipes / workers, ..self }
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
        Descriptors::share_out(limit, 24, relays, 10_000, Outward::default())
    }

    #[test]
    fn connections_with_peers_and_web_servers_have_a_share_and_take_nobody_s() {
        let wanted = Outward { peers: 10_000, web: 5000 };
        let plenty = Descriptors::share_out(1 << 17, 24, 32_768, 10_000, wanted);
        assert_eq!((plenty.outward, plenty.needed), (wanted, 32_768 + 25_000 + 256));
        assert_eq!((plenty.connections, plenty.busy_sockets + 2 * plenty.pipes), (10_000, ((1 << 17) - 256) / 8));
        for limit in [0, 1, 300, 1024, 4096, 20_000, 65_536] {
            let few = Descriptors::share_out(limit, 24, 16_384, 10_000, wanted);
            let shared_out = few.connections + few.outward.total() + few.busy_sockets + 2 * few.pipes;
            let rest = limit.saturating_sub(RESERVE_MIN);
            assert!(few.outward.total() <= rest / 4 || limit == 65_536, "{few:?}");
            assert!(shared_out <= rest && (rest - shared_out >= rest / 4 || few.connections == 10_000), "{few:?}");
            assert!(few.outward.peers.abs_diff(2 * few.outward.web) <= 2, "{few:?}");
        }
    }

    #[test]
    fn where_there_are_enough_everybody_gets_what_is_wanted() {
        let plenty = shared(65_536, 32_768);
        assert_eq!((plenty.connections, plenty.needed), (10_000, 32_768 + 10_000 + 256));
        assert!(plenty.busy_sockets > 7000 && plenty.of_each(4).busy_sockets == plenty.busy_sockets / 4);
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
        assert_eq!((few.connections, few.busy_sockets, few.ceiling), (336, 84, 960));
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
