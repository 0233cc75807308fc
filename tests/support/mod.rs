//! What the end-to-end tests share: a server process under test, credentials and certificates made by independent code, an
//! echo peer, and a way to run foreign programs with a time limit.
//!
//! Include it with `#[path = "../support/mod.rs"] mod support;`.

// Each test target uses its own part of this module, and nothing here is reachable from outside of it.
#![allow(dead_code, unused_imports, unreachable_pub)]
// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

pub mod aiortc;
mod containers;
mod credentials;
mod endpoints;
mod free_port;
mod holder;
pub mod machine;
mod openapi;
pub mod openssl;
mod peer;
mod process;
mod server;
mod skip;
mod tls;

pub use containers::ContainerHost;
pub use credentials::{Credentials, expired, time_limited};
pub use endpoints::{credentials_endpoint, metric};
pub use free_port::{free_address, free_port};
pub use holder::hold_allocation;
pub use openapi::OpenApi;
pub use peer::EchoPeer;
pub use process::{
    Finished, Interactive, Running, require_root, require_tool, run, run_with_input, target_dir, wait_until,
};
pub use server::{RELAY_PORTS, Spec, TestServer, Transport, is_turnstone};
pub use skip::skipped;
pub use tls::{TestAuthority, tls_over};
