//! Warnings that something has run out. Clients can make it happen as often as they like, so each kind has a line a minute,
//! over all workers; those in between are counted, and the next line says how many there were.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::addr::Logged;
use crate::reject::Reason;

/// How long a kind is silent after its line.
const SILENT_MICROS: u64 = 60_000_000;

/// What can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Ports for relays.
    RelayPorts,
    /// Allocations of all users together.
    Allocations,
    /// File descriptors, or what else the operating system needs for a socket.
    Sockets,
    /// Stream connections in total.
    Connections,
    /// Stream connections of one address.
    ConnectionsOfAddress,
    /// Stream connections without an allocation of one network.
    ConnectionsOfNetwork,
    /// What a proxy should say in front of a connection.
    ProxyHeaders,
    /// The web server that shares a port.
    Web,
    /// Connections that go on there.
    ConnectionsOfWeb,
}

impl Shortage {
    const ALL: [Self; 9] = [
        Self::RelayPorts,
        Self::Allocations,
        Self::Sockets,
        Self::Connections,
        Self::ConnectionsOfAddress,
        Self::ConnectionsOfNetwork,
        Self::ProxyHeaders,
        Self::Web,
        Self::ConnectionsOfWeb,
    ];

    /// What a refused request has run into, if that is a shortage of the server's, and not of one user's.
    pub(super) fn behind(reason: Reason) -> Option<Self> {
        match reason {
            Reason::NoPort => Some(Self::RelayPorts),
            Reason::TotalQuota => Some(Self::Allocations),
            Reason::SystemError => Some(Self::Sockets),
            _ => None,
        }
    }

    /// What happens, and what to do.
    fn text(self) -> &'static str {
        match self {
            Self::RelayPorts => "no relay port is free, clients are refused (508): widen [relay] ports",
            Self::Allocations => {
                "clients are refused (486): raise [quota] allocations-total, or find who has so many: turnstone top"
            }
            Self::Sockets => {
                "the operating system gave no socket, clients are refused: raise the limit of open files (LimitNOFILE=), \
                 or see what turnstone doctor says of the relay address"
            }
            Self::Connections => "connections are refused, all have an allocation: raise [streams] connections-max",
            Self::ConnectionsOfNetwork => {
                "connections of one network are refused, so many have no allocation: raise [streams] \
                 unallocated-per-network-max if these are clients that arrive together"
            }
            Self::ProxyHeaders => {
                "connections or datagrams from an address of proxy-from are refused for their PROXY header: have the proxy send one \
                 (nginx: proxy_protocol on; haproxy: send-proxy-v2; over UDP before each datagram, of version 2), or take the address out of \
                 proxy-from"
            }
            Self::Web => {
                "the web server of a tls listener cannot be reached, its clients are refused: see that it runs where web in \
                 [[listen]] says: turnstone doctor"
            }
            Self::ConnectionsOfWeb => {
                "connections for the web server are refused, it has half of all: raise [streams] connections-max"
            }
            Self::ConnectionsOfAddress => {
                "connections of one address are refused: raise [streams] connections-per-ip-max if many clients share it"
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::RelayPorts => "relay-ports",
            Self::Allocations => "allocations",
            Self::Sockets => "sockets",
            Self::Connections => "connections",
            Self::ConnectionsOfAddress => "connections-of-address",
            Self::ConnectionsOfNetwork => "connections-of-network",
            Self::ProxyHeaders => "proxy-headers",
            Self::Web => "web",
            Self::ConnectionsOfWeb => "connections-of-web",
        }
    }
}

/// Whether there is no socket for want of descriptors or memory: the next try will be no better.
pub(super) fn has_run_out(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// When each kind had its line, and how many it has not had since.
#[derive(Debug, Default)]
pub struct Shortages {
    kinds: [Kind; Shortage::ALL.len()],
}

#[derive(Debug, Default)]
struct Kind {
    /// Zero before the first.
    silent_until_micros: AtomicU64,
    suppressed: AtomicU64,
}

impl Shortages {
    /// Notes one, with a line if the kind has had none for a minute.
    #[cold]
    pub(super) fn note(&self, now_micros: u64, shortage: Shortage) {
        if let Some(suppressed) = self.due(now_micros, shortage) {
            let what = shortage.name();
            tracing::warn!(target: "turnstone::capacity", %what, suppressed, "{}", shortage.text());
        }
    }

    /// Notes that the header of a proxy is wrong, and how, by the same rule.
    #[cold]
    pub(super) fn note_header(&self, now_micros: u64, proxy: SocketAddr, problem: &dyn fmt::Display) {
        let shortage = Shortage::ProxyHeaders;
        if let Some(suppressed) = self.due(now_micros, shortage) {
            let what = shortage.name();
            tracing::warn!(
                target: "turnstone::capacity",
                %what, suppressed, proxy = %Logged(proxy), %problem, "{}", shortage.text()
            );
        }
    }

    /// How many lines were left out before this one, which is due; `None` when it is left out, too.
    fn due(&self, now_micros: u64, shortage: Shortage) -> Option<u64> {
        let kind = self.kinds.get(shortage as usize)?;
        let silent_until = kind.silent_until_micros.load(Ordering::Relaxed);
        let next = now_micros + SILENT_MICROS;
        let claims = || {
            let silent = &kind.silent_until_micros;
            silent.compare_exchange(silent_until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if now_micros < silent_until || !claims() {
            kind.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(kind.suppressed.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_line_a_minute_and_says_how_many_it_left_out() {
        let shortages = Shortages::default();
        let at = |secs: u64, shortage| shortages.due(secs * 1_000_000 + 1, shortage);
        assert_eq!(at(0, Shortage::RelayPorts), Some(0));
        for secs in 0..59 {
            assert_eq!(at(secs, Shortage::RelayPorts), None);
        }
        assert_eq!(at(59, Shortage::Connections), Some(0), "another kind has a minute of its own");
        assert_eq!(at(60, Shortage::RelayPorts), Some(59));
        assert_eq!(at(200, Shortage::RelayPorts), Some(0));
    }

    #[test]
    fn every_kind_has_a_place_a_name_and_a_remedy() {
        for (index, shortage) in Shortage::ALL.into_iter().enumerate() {
            assert_eq!(shortage as usize, index);
            assert!(shortage.text().contains("refused") && !shortage.name().is_empty());
        }
        assert_eq!(Shortage::behind(Reason::UserQuota), None, "one user's quota is not the server's");
    }
}
