//! Clients that we did not write, against the running server: coturn's `turnutils_uclient`, the `turn` and `turn-client-proto`
//! crates, aiortc and libnice; and proxies in between: nginx and haproxy.

// Helpers of tests fail by panicking; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/turn_client.rs"]
mod turn_client;

mod aiortc;
mod behind_proxies;
mod hook;
mod libnice;
mod mobility;
mod page_behind_nginx;
mod proxy;
mod realms;
mod redirect;
mod revoked;
mod shared_443;
mod tcp_relays;
mod third_party;
mod turn_crate;
mod turn_proto;
mod uclient;
