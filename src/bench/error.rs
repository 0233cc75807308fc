//! Why a measurement could not be made.

use std::fmt;
use std::io;

use super::client::ClientError;

/// Why a measurement could not be made.
#[derive(Debug)]
pub enum BenchError {
    /// The options contradict each other or ask for what cannot be.
    Options(String),
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

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(text) => f.write_str(text),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
            Self::Client { client, source } => write!(f, "client {client}: {source}"),
            Self::Silent { client, request } => write!(f, "client {client}: no answer to {request}"),
            Self::NoProcess(pid) => write!(f, "no process {pid}"),
        }
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
