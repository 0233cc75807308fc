//! Sockets, options, batches and the relay port pool. What is Linux's own, and all `unsafe`, stays in [`sys`].
//!
//! A part of the TURN server Turnstone, for its own use: it is not published, and changes with the server.

mod arena;
mod inherited;
mod local_addresses;
mod netlink;
mod relay_ports;
mod sockets;
mod splice;
pub mod sys;
mod tcp_relays;

pub use arena::{Arena, HEADROOM, Span};
pub use inherited::{Adopted, InheritError, Inherited, Leftover, name_in_store};
pub use local_addresses::{Changes, LocalAddresses, subscribe_to_addresses, take_changes};
pub use relay_ports::{AddressPorts, AddressUsage, PortLease, RelayAddresses, RelayOwner, RelayPorts};
pub use sockets::LISTENER_BUFFER;
pub use sockets::{
    bind_connected, bind_endpoint, bind_relay, bind_shared_relay, bind_tcp_listener, bind_udp_listener, connect_stream,
    connect_unix, tune_accepted, tune_tcp_listener, tune_udp_listener,
};
pub use splice::{Flow, Moved, PIPE_BYTES, Pipe, Pipes, discard, peek, readable_bytes};
pub use tcp_relays::{bind_tcp_relay, connect_from, reset_on_close, take_error, tune_data};
