//! Every command that README and the pages of `docs/` show for typing is typed: in a machine of its own, with a systemd of its own, on a
//! small Internet of its own.
//!
//! The commands are cut out of the pages. A block of `sh` or `console` is run in a copy of this repository, by root, and each command must end
//! with status 0, and print what is shown below it. A comment in front of a block changes that:
//!
//! - `<!-- run outside -->`: on another host;
//! - `<!-- run until "TEXT" -->`: its last command goes on by itself; it is stopped with Ctrl-C once it has printed this;
//! - `<!-- not run: REASON -->`.
//!
//! What is not the real thing in that machine is in `standins/`, and says so in its first line.

// Helpers of tests fail by panicking; clippy counts only `#[test]` functions as tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod blocks;
mod pages;
#[path = "../support/mod.rs"]
mod support;
mod typed;
