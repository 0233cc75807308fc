//! The packages that `packaging/build` makes, each installed, started, upgraded and taken away in a root of its own, which mmdebstrap makes,
//! under a real systemd; and the container image, run by podman.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod build;
mod container;
mod deb;
mod host;
#[path = "../netns/namespace.rs"]
// Its users there need more of it.
#[allow(dead_code)]
mod namespace;
mod published;
mod rpm;
