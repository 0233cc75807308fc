//! The commands.

pub mod bench;
