//! Why the server could not start, or stopped, or a reload is refused.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use super::certificates::CertificateError;
use super::log::LogError;
use crate::addr::Transport;
use crate::config::{ConfigError, Endpoint, Unusable, Wanted, lasts, why};

/// Why the server could not start, or stopped.
#[derive(Debug, Error)]
pub enum RunError {
    /// The control runtime is not to be had.
    #[error("cannot start the control runtime: {0}")]
    Runtime(io::Error),
    /// Signals would not be heard.
    #[error("cannot listen to signals: {0}")]
    Signals(io::Error),
    /// The peer policy would not know the host's addresses.
    #[error(
        "cannot list the addresses of this host, which no peer may have: {0}; allow AF_NETLINK sockets: \
         RestrictAddressFamilies= of the unit, or the seccomp profile of the container"
    )]
    HostAddresses(io::Error),
    /// A listener of clients cannot be opened.
    #[error("cannot listen on {transport}/{address}: {}", why_not_bound(*address, error))]
    Listener {
        /// Its transport.
        transport: Transport,
        /// Its address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A listener's socket cannot be given to several workers.
    #[error("cannot share {transport}/{address}: {error}")]
    Share {
        /// Its transport.
        transport: Transport,
        /// Its address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// An endpoint for programs cannot be opened.
    #[error("cannot listen on {endpoint}: {}", why_no_endpoint(endpoint, error))]
    Endpoint {
        /// The key that asks for it.
        key: &'static str,
        /// Where it was to be.
        endpoint: Endpoint,
        /// Why.
        error: io::Error,
    },
    /// The certificate of the TLS listeners cannot be used.
    #[error("{error}")]
    Certificate {
        /// Why.
        error: CertificateError,
        /// Whether its file cannot be read until somebody changes something.
        lasts: bool,
    },
    /// The configuration does not fit the host.
    #[error("{0}")]
    Settings(#[from] ConfigError),
    /// Usage records have no place.
    #[error("{}", .0.message)]
    Usage(Unusable),
    /// A worker's mailbox cannot be made.
    #[error("cannot make a mailbox: {0}")]
    Mailbox(io::Error),
    /// A worker cannot be started.
    #[error("cannot start worker {number}: {error}")]
    WorkerStart {
        /// Its number.
        number: usize,
        /// Why.
        error: io::Error,
    },
    /// A worker has ended though nobody told it to.
    #[error("worker {number}: {end}")]
    WorkerEnd {
        /// Its number.
        number: usize,
        /// How.
        end: WorkerEnd,
    },
}

/// How a worker ended.
#[derive(Debug, Error)]
pub enum WorkerEnd {
    /// Without a word.
    #[error("it ended")]
    Silent,
    /// It could not go on.
    #[error("{0}")]
    Failed(io::Error),
    /// By a bug.
    #[error("it panicked: {0}")]
    Panicked(String),
}

impl RunError {
    /// The key in `turnserver.toml` that asks for what failed, with its section.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Listener { .. } => Some("listen"),
            Self::Endpoint { key, .. } => Some(key),
            Self::Certificate { .. } => Some("tls"),
            Self::Settings(_) => Some("peers"),
            Self::Usage(unusable) => Some(unusable.key),
            Self::Runtime(_)
            | Self::Signals(_)
            | Self::HostAddresses(_)
            | Self::Share { .. }
            | Self::Mailbox(_)
            | Self::WorkerStart { .. }
            | Self::WorkerEnd { .. } => None,
        }
    }

    /// Whether it stays so until somebody changes something: starting again does not help.
    pub fn lasts(&self) -> bool {
        match self {
            Self::Listener { error, .. } | Self::Endpoint { error, .. } => lasts(error),
            Self::Certificate { lasts, .. } => *lasts,
            Self::Settings(_) => true,
            Self::Usage(unusable) => unusable.lasts,
            _ => false,
        }
    }
}

/// Why the configuration could not be read again, a line for each problem.
pub type Unread = Box<dyn std::error::Error + Send + Sync>;

/// Why a reload is refused, a line for each problem. Nothing has changed then.
#[derive(Debug, Error)]
pub(super) enum ReloadError {
    /// The configuration cannot be read.
    #[error("{0}")]
    Unread(#[from] Unread),
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// It does not fit the running server.
    #[error("{0}")]
    Settings(#[from] ConfigError),
    #[error("{0}")]
    Log(#[from] LogError),
    /// Nothing was read.
    #[error("{0}")]
    NotRead(#[from] NotRead),
}

/// Why files are not read now.
#[derive(Debug, Error)]
pub(super) enum NotRead {
    #[error("they are being read, since {0} s: wait for that to end, or see whether their disk answers")]
    UnderWay(u64),
    #[error("no thread to read them: {0}")]
    NoThread(io::Error),
}

fn why_no_endpoint(endpoint: &Endpoint, error: &io::Error) -> String {
    match endpoint {
        Endpoint::Unix(path) => why(path, Wanted::Write, error),
        Endpoint::Tcp(address) => why_not_bound(*address, error),
    }
}

/// Why a port cannot be listened on, with what helps.
fn why_not_bound(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            format!(
                "{error}: ports below 1024 need CAP_NET_BIND_SERVICE, which the systemd unit grants, or net.ipv4.ip_unprivileged_port_start={}",
                address.port()
            )
        }
        io::ErrorKind::AddrInUse => {
            format!("{error}: another program has it; sudo ss -lnp 'sport = :{}' shows which", address.port())
        }
        _ => error.to_string(),
    }
}
