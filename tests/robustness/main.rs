//! The stable twin of `fuzz/`: seeded, mutated inputs into everything that reads bytes from outside, counting on no panic and
//! on a handful of invariants.
//!
//! `FUZZ_INPUTS` says how many inputs all tests here take together (default 4,000,000);
//! `TURNSTONE_FUZZ_SEED` repeats a run.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod acme;
mod acme_model;
mod config;
mod dtls;
mod fleet;
mod framing;
mod hook;
mod ice_servers;
mod messages;
mod mutate;
mod proxies;
mod revocations;
mod sealing;
mod server;
mod store;
mod tokens;
mod usernames;
mod users;
mod users_model;
mod world;

/// This test's share, in percent, of the inputs asked for.
fn inputs(percent: u64) -> u64 {
    let total = std::env::var("FUZZ_INPUTS").ok();
    let total: u64 = total.map_or(4_000_000, |text| text.parse().expect("FUZZ_INPUTS is a number"));
    (total * percent / 100).max(1)
}

/// The seed of this run; a failure prints it.
fn seed() -> u64 {
    let seed = std::env::var("TURNSTONE_FUZZ_SEED").ok();
    let seed = seed.map_or(0x7475_726E_7374_6F6E, |text| text.parse().expect("TURNSTONE_FUZZ_SEED is a number"));
    println!("TURNSTONE_FUZZ_SEED={seed}");
    seed
}
