//! The server on a small internet of network namespaces: hosts behind symmetric NATs, and a host with several addresses.
//!
//! Every namespace and address exists only for the test; no packet leaves the machine. The server runs with its default peer
//! policy (no `--dev`), so the addresses are from ranges that are public outside.

// Helpers of tests fail by panicking; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/turn_client.rs"]
mod turn_client;

mod addresses;
mod discovery;
mod fleet_by_dns;
mod internet;
mod multi_homed;
mod namespace;
mod public_address;
mod relay_reach;
mod rolling_restart;
mod stun_client;
mod symmetric_nat;
