//! Why a measurement could not be made.

use std::fmt;
use std::io;

use crate::client::ClientError;
use crate::client::tls::certificate_words;
use crate::stun::ErrorCode;

use super::options::OptionsError;

/// Why a measurement could not be made.
#[derive(Debug)]
pub enum BenchError {
    /// The options contradict each other or ask for what cannot be.
    Options(OptionsError),
    /// A system call failed.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The server refused a request that the measurement needs.
    Client {
        /// Which client, from 0.
        client: usize,
        /// Its error.
        source: ClientError,
    },
    /// The server did not answer.
    Silent {
        /// Which client, from 0.
        client: usize,
        /// What it asked.
        request: &'static str,
    },
    /// The process to be measured is not there.
    NoProcess(u32),
}

impl BenchError {
    /// Says what was being done when a system call failed.
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

impl From<OptionsError> for BenchError {
    fn from(error: OptionsError) -> Self {
        Self::Options(error)
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(error) => error.fmt(f),
            Self::Io { doing, source } => {
                let tls = source.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
                match tls.and_then(certificate_words) {
                    Some(words) => write!(f, "{doing}: the server's certificate: {words}; --insecure goes on"),
                    None => write!(f, "{doing}: {source}"),
                }
            }
            Self::Client { client, source } => {
                write!(f, "client {client}: {source}")?;
                remedy(source).map_or(Ok(()), |remedy| write!(f, "\nhint: {remedy}"))
            }
            Self::Silent { client, request } => write!(
                f,
                "client {client}: no answer to {request}\nhint: a server answers strangers of one network only so often: {STRANGERS}; \
                 or it is not there, or a firewall is in between (turnstone probe says which)"
            ),
            Self::NoProcess(pid) => write!(f, "no process {pid}"),
        }
    }
}

/// What a server of ours needs when all clients come from one network.
pub(super) const STRANGERS: &str = "under test, set [limits] unauthenticated-replies-per-second = \"unlimited\"";

/// What a server under test needs for this to go on.
fn remedy(refusal: &ClientError) -> Option<&'static str> {
    let code = match refusal {
        ClientError::Refused { code, .. } => code,
        ClientError::NoCredential => {
            return Some(
                "give --user with --secret-file or --password-env, or --credential with what turnstone credentials --json prints",
            );
        }
        _ => return None,
    };
    match *code {
        ErrorCode::FORBIDDEN => Some(
            "the server relays to no address of this machine, as is right: run the server under test with --dev (peers on loopback), or \
             allow the peers' address, such as [peers] allowed = [\"10.0.0.0/8 override\"], and name it with --peer-ip",
        ),
        ErrorCode::UNAUTHENTICATED | ErrorCode::WRONG_CREDENTIALS => {
            Some("the password does not fit the user, or the secret is not the server's")
        }
        ErrorCode::QUOTA_REACHED => Some(
            "all clients are one user: under test, set [quota] allocations-per-user = \"unlimited\", and allocations-per-user-per-second and \
             allocations-total likewise",
        ),
        ErrorCode::INSUFFICIENT_CAPACITY => {
            Some("the server has no relay port or descriptor left: fewer --clients, or wider [relay] ports")
        }
        _ => None,
    }
}

impl std::error::Error for BenchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Client { source, .. } => Some(source),
            _ => None,
        }
    }
}
