//! Whole conversations with the TURN server's state machine, in virtual time and without sockets.
#![allow(unreachable_pub)]
// Helpers outside of test functions may panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod allocate;
mod authentication;
mod binding;
mod channels;
mod classic;
mod cost;
mod data;
mod discovery;
mod expiry;
mod fake_relays;
mod guard;
mod harness;
mod limits;
mod mobility;
mod moves;
mod peer_policy;
mod permissions;
mod properties;
mod quota;
mod realms;
mod redirect;
mod refresh;
mod reload;
mod retransmission;
mod revocations;
mod roaming;
#[path = "../policy/rows.rs"]
mod rows;
mod shared_ports;
mod shares;
mod tcp_places;
mod tcp_relays;
mod tokens;
mod username_limits;
mod view;
mod waiting;
mod wire;
