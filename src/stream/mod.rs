//! Stream transports: headers of proxies, TLS, and connections that a slow client cannot make hold memory.

mod arriving;
mod choice;
mod connection;
mod data;
mod hello;
mod limits;
mod out_queue;
mod passage;
mod session;
mod tls;
mod validation;

#[cfg(test)]
pub(crate) use arriving::tests::configs as tls_configs;
pub use arriving::{Accepted, Arrived, Arriving, Opening, Progress};
pub use choice::CertificateChoice;
pub use connection::{Connection, FrameEnd, WriteState};
pub use data::{DataConnection, Plaintext};
pub use hello::{Heard, Hello};
pub use limits::{ConnectionLimits, ConnectionPermit, Full};
pub use passage::{Passage, PassageError, Passed};
pub use session::ReadError;
#[cfg(feature = "dtls")]
pub(crate) use tls::CHAIN_BYTES_MAX;
pub use tls::{Pair, TlsError, https_config, load_pair, server_config};
pub use validation::{ACME_TLS, Validation, Validations};
