//! The TURN server's state machine (RFC 8656), without sockets or clock.

mod relays;
mod server;
mod settings;

pub use relays::{OpenRelay, PortRequest, RelayError, RelayId, Relays, ReservationToken};
pub use server::{
    AllocationId, AllocationSummary, Client, ClientLink, Encapsulation, EndReason, Event, Outcome, Server, ToClient,
    ToPeer,
};
pub use settings::{Lifetimes, OnExpiry, Settings, Shared};
