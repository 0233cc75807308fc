//! The libraries' examples do what they say: against the program, and with a client that we did not write.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/turn_client.rs"]
mod turn_client;

#[allow(dead_code)] // Its `main` prints what the test asks for.
#[path = "../../crates/stun/examples/binding.rs"]
mod binding;
#[allow(dead_code)] // Its `main` asks the environment for what the test gives.
#[path = "../../crates/turn/examples/server.rs"]
mod server;

mod stun_client;
mod turn_server;
