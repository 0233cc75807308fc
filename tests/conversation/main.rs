//! Whole conversations with the TURN server's state machine, in virtual time and without sockets.

#![allow(unreachable_pub)]

mod allocate;
mod binding;
mod harness;
