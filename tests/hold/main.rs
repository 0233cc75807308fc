//! Hostile clients of every kind that was found to hurt, all at once, beside honest calls over UDP, TCP and TLS: the calls lose nothing
//! but what the kernel dropped, newcomers get in, and the server is as small afterwards as it was before.
//!
//! 20 seconds, or as many as the variable `HOLD_SECONDS` says. The hostile clients run at the lowest priority, because they would not
//! be on the server's own host.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod client;
mod hostile;
mod measure;
mod newcomers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::Target;
use measure::{Metrics, resident};
use support::TestServer;

const CALLS: usize = 50;
/// What the server may have grown by while hostile clients are there, in the second half of that time, and when all are gone: the
/// allocator keeps what some hundred connections had.
const GROWTH_MEANWHILE: u64 = 64 << 20;
const GROWTH_LATER: u64 = 8 << 20;
const GROWTH_AFTER: u64 = 24 << 20;
/// How long the server has to give memory back, and to end what is left of hostile connections.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);

fn config() -> String {
    // Less of everything than by default, so that fewer descriptors and less time use it up.
    "workers = 2\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\", \"tls\"]\n\
     [tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n\
     [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nports = \"10000-19999\"\n\
     [quota]\nallocations-per-user = 100\n[bandwidth]\nper-allocation = \"1Mbit/s\"\n\
     [streams]\nconnections-max = 600\nconnections-per-ip-max = 100\n\
     unallocated-per-network-max = 120\n\
     [[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n\
     [metrics]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"unix:admin.sock\"\n\
     [usage]\nfile = \"@DIR@/usage.jsonl\"\n[log]\nlevel = \"info\"\n"
        .to_owned()
}

fn seconds() -> u64 {
    std::env::var("HOLD_SECONDS")
        .ok()
        .map_or(20, |seconds| seconds.parse().expect("HOLD_SECONDS is a number of seconds"))
}

/// Ends the hostile clients when the test fails, too.
struct StopAtTheEnd<'s>(&'s AtomicBool);

impl Drop for StopAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn honest_calls_and_newcomers_hold_beside_every_kind_of_hostile_client() {
    let server = TestServer::start(&config());
    let target = Target::of(&server);
    let metrics = Metrics::of(&server);
    // Buffers and the allocator grow to their working size once.
    calls::warm_up(&target);
    let before = resident(&server);
    let backlog_before = measure::backlog_drops();

    let stop = AtomicBool::new(false);
    let time = Duration::from_secs(seconds());
    let (calls, newcomers, hostile, [halfway, most], health) = std::thread::scope(|scope| {
        let _stop = StopAtTheEnd(&stop);
        let calls = calls::begin(&target, CALLS);
        let hostile = hostile::start(scope, &target, &stop);
        let newcomers = scope.spawn(|| newcomers::come(&target, &stop));
        let memory = scope.spawn(|| measure::most_resident(&server, time, &stop));
        let health = scope.spawn(|| measure::health(target.metrics, &stop));
        let calls = calls.hold(time);
        stop.store(true, Ordering::Relaxed);
        (calls, newcomers.join().unwrap(), hostile.finish(), memory.join().unwrap(), health.join().unwrap())
    });
    let drops = calls.drops_here + metrics.kernel_drops() + measure::backlog_drops() - backlog_before;

    println!("{hostile}");
    println!("{calls}\nthe kernel dropped {drops} datagrams, of hostile clients too");
    println!("{newcomers}\n/healthz took at most {health:?}");
    let settled = Instant::now();
    let after = measure::settled(&server, before + GROWTH_AFTER, SETTLE_LIMIT);
    println!(
        "resident {} KiB before, {} at most in the first half, {} in all, {} after {:?}",
        before >> 10,
        halfway >> 10,
        most >> 10,
        after >> 10,
        settled.elapsed()
    );
    let log_lines = server.log().lines().count();
    println!("{log_lines} lines of log");

    hostile.assert_all_were_busy();
    newcomers.assert_all_got_in();
    calls.assert_nothing_lost_but(drops);
    assert!(most <= before + GROWTH_MEANWHILE, "memory grew by {} KiB", (most - before) >> 10);
    assert!(
        most <= halfway + GROWTH_LATER,
        "memory goes on to grow: {} KiB in the second half",
        (most - halfway) >> 10
    );
    assert!(after <= before + GROWTH_AFTER, "{} KiB more than before stay", (after - before) >> 10);
}
