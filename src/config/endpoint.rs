//! Endpoints for programs: of metrics, of the admin API, of the credentials API.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a program on this host, or an operator's tool, reaches the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP; the port is 0 only in tests.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
