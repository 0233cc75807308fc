//! Listener sockets that live on while the server is restarted: kept by the service manager, or made by it.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod manager;
mod restart;
mod socket_unit;
mod systemd;
mod variables;

use std::time::Duration;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);
