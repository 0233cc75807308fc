//! What to measure, checked before anything is sent.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::addr::Transport;

use super::error::BenchError;
use super::payload;
use crate::client::Credential;
use crate::client::tls::Trust;

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

impl Options {
    /// Checks what can be checked without the server.
    ///
    /// # Errors
    /// [`BenchError::Options`] with what is wrong.
    pub fn check(&self) -> Result<(), BenchError> {
        let wrong = |text: String| Err(BenchError::Options(text));
        if self.clients == 0 || self.burst == 0 || self.peers == 0 || self.rate == Some(0) {
            return wrong("clients, burst, peers and rate must be at least 1".into());
        }
        if self.mode.relays() && !(payload::STAMP_LEN..=payload::MAX_LEN).contains(&self.size) {
            return wrong(format!("size must be {} to {} bytes", payload::STAMP_LEN, payload::MAX_LEN));
        }
        if self.rate.is_none() && self.window < self.burst {
            return wrong(format!("the window ({}) does not hold one burst ({})", self.window, self.burst));
        }
        if self.mode == Mode::RelayToRelay && !self.clients.is_multiple_of(2) {
            return wrong("relay-to-relay needs an even number of clients".into());
        }
        if self.gso && self.burst > 1 {
            let bytes = (self.size + 36) * self.burst as usize;
            if self.burst as usize > crate::net::sys::MAX_SEGMENTS || bytes > MAX_GSO_BYTES {
                return wrong(format!(
                    "a burst of {} packets of {} bytes is more than one GSO send carries ({} packets, {MAX_GSO_BYTES} bytes)",
                    self.burst,
                    self.size,
                    crate::net::sys::MAX_SEGMENTS,
                ));
            }
        }
        if self.mode == Mode::Hold && (self.rate.is_some() || self.duration > MAX_HOLD) {
            return wrong(format!(
                "hold has no rate, and lasts {} s at most: then permissions end",
                MAX_HOLD.as_secs()
            ));
        }
        Ok(())
    }
}
