//! What to measure, checked before anything is sent.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::InvalidDnsNameError;
use thiserror::Error;

use crate::addr::Transport;

use super::payload;
use crate::client::Credential;
use crate::client::tls::Trust;
use crate::net::sys::MAX_SEGMENTS;

/// Bytes of the largest burst that one GSO send can carry.
const MAX_GSO_BYTES: usize = 65_000;

/// How long allocations are held at most, so that no permission ends (RFC 8656 section 9: 300 s).
const MAX_HOLD: Duration = Duration::from_secs(280);

/// What the clients and peers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Clients send, peers receive.
    ClientToPeer,
    /// Peers send, clients receive.
    PeerToClient,
    /// Clients send, peers return it.
    RoundTrip,
    /// Clients send to each other's relayed addresses, in pairs.
    RelayToRelay,
    /// Allocations made and ended: 401, Allocate, Refresh 0, each from a new address.
    Allocate,
    /// Allocations kept idle, then ended.
    Hold,
    /// Binding requests.
    Stun,
    /// Allocate requests without credentials.
    Flood,
}

impl Mode {
    /// Whether payload is relayed.
    pub fn relays(self) -> bool {
        matches!(self, Self::ClientToPeer | Self::PeerToClient | Self::RoundTrip | Self::RelayToRelay)
    }

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientToPeer => "client-to-peer",
            Self::PeerToClient => "peer-to-client",
            Self::RoundTrip => "round-trip",
            Self::RelayToRelay => "relay-to-relay",
            Self::Allocate => "allocate",
            Self::Hold => "hold",
            Self::Stun => "stun",
            Self::Flood => "flood",
        }
    }

    /// What is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Self::ClientToPeer | Self::PeerToClient | Self::RelayToRelay => "packet",
            Self::RoundTrip => "round trip",
            Self::Allocate => "cycle",
            Self::Hold => "allocation",
            Self::Stun | Self::Flood => "request",
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the clients and peers do.
    pub mode: Mode,
    /// The server.
    pub server: SocketAddr,
    /// The name in its certificate.
    pub server_name: String,
    /// How clients reach it.
    pub transport: Transport,
    /// Their credential, if the server wants one.
    pub credential: Option<Credential>,
    /// How the server's certificate is judged.
    pub trust: Trust,
    /// How many clients, each with its own connection and allocation.
    pub clients: u32,
    /// Bytes of payload.
    pub size: usize,
    /// Packets sent back to back by one client or to one client.
    pub burst: u32,
    /// Send a burst as one segmented datagram (UDP GSO), so that it can arrive coalesced.
    pub gso: bool,
    /// Receive coalesced (UDP GRO) in clients and peers.
    pub gro: bool,
    /// Units in flight at most, over all clients, when `rate` is not set.
    pub window: u32,
    /// Units per second over all clients, answered or not.
    pub rate: Option<u64>,
    /// The measured time.
    pub duration: Duration,
    /// Time under load before that.
    pub warm_up: Duration,
    /// Send and Data indications instead of a channel.
    pub indications: bool,
    /// Peer sockets; the clients are spread over them.
    pub peers: u32,
    /// The peers' address; by default the one from which this machine reaches the server.
    pub peer_ip: Option<IpAddr>,
    /// The clients' address; by default the system chooses.
    pub client_ip: Option<IpAddr>,
    /// The server's process on this machine, for CPU time and memory.
    pub server_pid: Option<u32>,
    /// Look for arrivals without ever sleeping, so that the server pays for no wake-up of ours.
    pub spin: bool,
}

/// Options that contradict each other or ask for what cannot be.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// Nothing would happen.
    #[error("clients, burst, peers and rate must be at least 1")]
    Zero,
    /// A payload that holds no stamp, or that no datagram holds.
    #[error("size must be {} to {} bytes", payload::STAMP_LEN, payload::MAX_LEN)]
    Size,
    /// A burst that may not be in flight.
    #[error("the window ({window}) does not hold one burst ({burst})")]
    Window {
        /// Units in flight at most.
        window: u32,
        /// Packets of one burst.
        burst: u32,
    },
    /// Somebody has no partner.
    #[error("relay-to-relay needs an even number of clients")]
    OddClients,
    /// The kernel does not send so much at once.
    #[error(
        "a burst of {burst} packets of {size} bytes is more than one GSO send carries ({} packets, {MAX_GSO_BYTES} bytes)",
        MAX_SEGMENTS
    )]
    Gso {
        /// Packets of one burst.
        burst: u32,
        /// Bytes of payload of each.
        size: usize,
    },
    /// Hold with a rate, or for too long.
    #[error("hold has no rate, and lasts {} s at most: then permissions end", MAX_HOLD.as_secs())]
    Hold,
    /// More sockets than this process may have.
    #[error("{clients} clients need as many open files, and the limit is {limit} (ulimit -n)")]
    OpenFiles {
        /// How many clients.
        clients: u32,
        /// Of open files.
        limit: u64,
    },
    /// No client of ours speaks it.
    #[error("bench does not speak DTLS; measure over UDP or TLS")]
    Dtls,
    /// A name that is in no certificate.
    #[error("{name}: {error}")]
    ServerName {
        /// The name.
        name: String,
        /// What is wrong with it.
        error: InvalidDnsNameError,
    },
    /// The forwarder would serve strangers.
    #[error("the forwarder asks nobody for credentials: it listens on loopback only")]
    Forwarder,
}

impl Options {
    /// Checks what can be checked without the server.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn check(&self) -> Result<(), OptionsError> {
        if self.clients == 0 || self.burst == 0 || self.peers == 0 || self.rate == Some(0) {
            return Err(OptionsError::Zero);
        }
        if self.mode.relays() && !(payload::STAMP_LEN..=payload::MAX_LEN).contains(&self.size) {
            return Err(OptionsError::Size);
        }
        if self.rate.is_none() && self.window < self.burst {
            return Err(OptionsError::Window { window: self.window, burst: self.burst });
        }
        if self.mode == Mode::RelayToRelay && !self.clients.is_multiple_of(2) {
            return Err(OptionsError::OddClients);
        }
        if self.gso && self.burst > 1 {
            let bytes = (self.size + 36) * self.burst as usize;
            if self.burst as usize > MAX_SEGMENTS || bytes > MAX_GSO_BYTES {
                return Err(OptionsError::Gso { burst: self.burst, size: self.size });
            }
        }
        if self.mode == Mode::Hold && (self.rate.is_some() || self.duration > MAX_HOLD) {
            return Err(OptionsError::Hold);
        }
        Ok(())
    }
}
