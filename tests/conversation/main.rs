//! Whole conversations with the TURN server's state machine, in virtual time and without sockets.
#![allow(unreachable_pub)]

mod allocate;
mod authentication;
mod binding;
mod channels;
mod data;
mod expiry;
mod harness;
mod limits;
mod peer_policy;
mod permissions;
mod properties;
mod refresh;
mod reload;
mod retransmission;
#[path = "../policy/rows.rs"]
mod rows;
