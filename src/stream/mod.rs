//! Stream transports: framing, TLS, and connections that a slow client cannot make hold memory.

mod connection;
pub mod framing;
mod limits;
mod out_queue;
mod tls;

pub use connection::{Connection, FrameEnd, ReadError, WriteState};
pub use limits::{ConnectionLimits, ConnectionPermit, Full};
pub use tls::{TlsError, load_tls};
