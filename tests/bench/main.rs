//! The load generator against the server, in every mode: nothing may be lost, damaged or sent to the wrong place.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bad_path;
#[path = "../support/mod.rs"]
mod support;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use support::{Interactive, Spec, TestServer, Transport, run, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// A server that answers as many unauthenticated requests as come.
fn server() -> TestServer {
    let mut spec = Spec::local();
    spec.extra_toml = "[limits]\nunauthenticated-replies-per-second = \"unlimited\"\n\
                       [quota]\nallocations-per-user-per-second = \"unlimited\"\n"
        .to_owned();
    spec.start()
}

fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.arg("bench");
    command
}

/// Runs a short measurement and returns its report.
fn measure(server: &TestServer, mode: &str, transport: Transport, more: &[&str]) -> Value {
    let mut command = bench();
    command.args([mode, &server.address(transport, "127.0.0.1").to_string(), "--transport", transport.name()]);
    command.args(["--secret-file", &server.file("secret"), "--user", "load", "--ca", &server.file("authority.pem")]);
    command.args(["--server-pid", &server.process_id().to_string(), "--format", "json"]);
    command.args(["--clients", "4", "--window", "16", "--warm-up", "0.1", "--duration", "0.3"]).args(more);
    let finished = run(&mut command, LIMIT);
    assert_eq!(finished.code, Some(0), "{}\n{}", finished.all_output(), server.log());
    serde_json::from_str(&finished.stdout).unwrap()
}

/// Every unit that was sent arrived, as it was sent, where it was to arrive; and all figures are there.
fn assert_clean(report: &Value) {
    // A stall is no fault: on a busy machine nothing moves for a while.
    for fault in ["lost", "late", "duplicate", "damaged", "misrouted", "refused"] {
        assert_eq!(report[fault], 0, "{fault} in {report:#}");
    }
    assert!(report["received"].as_u64().unwrap() > 10, "{report:#}");
    assert_eq!(report["received"], report["sent"], "{report:#}");
    assert!((0.25..5.0).contains(&report["seconds"].as_f64().unwrap()), "{report:#}");
    let latency = &report["latency_us"];
    let quantiles = ["p50", "p90", "p99", "p999", "max"].map(|name| latency[name].as_f64().unwrap());
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{report:#}");
    let per_unit = report["server"]["cpu_us_per_unit"].as_f64().unwrap();
    assert!(per_unit > 0.1 && per_unit < 100_000.0, "{report:#}");
    assert!(report["server"]["resident_bytes"].as_u64().unwrap() > 1_000_000, "{report:#}");
}

/// A run that does not come to its figures: exit code and what is said.
fn fails(server: &TestServer, mode: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut command = bench();
    command.args([mode, &server.udp().to_string(), "--warm-up", "0", "--duration", "0.3"]);
    command.args(["--secret-file", &server.file("secret"), "--user", "load"]).args(more);
    let finished = run(&mut command, LIMIT);
    (finished.code, finished.all_output())
}

#[test]
fn what_a_server_refuses_comes_with_what_it_needs_under_test() {
    let mut spec = Spec::local();
    spec.dev = false;
    spec.extra_toml = "[quota]\nallocations-per-user = 2\n".to_owned();
    let server = spec.start();
    let (code, said) = fails(&server, "client-to-peer", &["--clients", "1", "--peer-ip", "127.8.8.8"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("refused: 403") && said.contains("hint: ") && said.contains("--dev"), "{said}");
    let (code, said) = fails(&server, "allocate", &["--clients", "8", "--transport", "udp"]);
    assert!(code == Some(3) || said.contains("486"), "{code:?} {said}");
    let (code, said) = fails(&server, "hold", &["--clients", "3"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("486") && said.contains("allocations-per-user = \"unlimited\""), "{said}");
}

#[test]
fn a_loss_by_the_limit_on_strangers_is_named_and_nothing_at_all_is_a_failure() {
    let mut spec = Spec::local();
    spec.extra_toml =
        "[limits]\nunauthenticated-replies-per-second = 1\nunauthenticated-replies-burst = 20\n".to_owned();
    let server = spec.start();
    let (code, said) = fails(&server, "stun", &["--clients", "1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("perhaps") && said.contains("unauthenticated-replies-per-second"), "{said}");
    assert!(said.contains("1 client,"), "{said}");
    // The budget is used up for a long time.
    let (code, said) = fails(&server, "stun", &["--clients", "1", "--rate", "100", "--duration", "0.1"]);
    assert!(code == Some(1) || said.contains("lost") && !said.contains("100.0000 %"), "{code:?} {said}");
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut command = bench();
    command.args([
        "stun",
        &nobody.local_addr().unwrap().to_string(),
        "--clients",
        "1",
        "--warm-up",
        "0",
        "--duration",
        "0.2",
    ]);
    let finished = run(&mut command, LIMIT);
    assert_eq!(finished.code, Some(1), "{}", finished.all_output());
    assert!(finished.stderr.contains("error: none of "), "{}", finished.all_output());
}

#[test]
fn every_packet_of_every_relaying_mode_arrives_over_udp() {
    let server = server();
    for mode in ["client-to-peer", "peer-to-client", "round-trip", "relay-to-relay"] {
        let report = measure(&server, mode, Transport::Udp, &[]);
        assert_clean(&report);
        assert_eq!(report["mode"], mode);
        assert_eq!(report["payload_bytes"], 160);
    }
}

#[test]
fn every_packet_of_every_relaying_mode_arrives_over_streams() {
    let server = server();
    for transport in [Transport::Tcp, Transport::Tls] {
        for mode in ["client-to-peer", "peer-to-client", "round-trip", "relay-to-relay"] {
            assert_clean(&measure(&server, mode, transport, &["--size", "1201"]));
        }
    }
}

#[test]
fn indications_carry_the_same_packets_as_channels() {
    let server = server();
    for mode in ["client-to-peer", "peer-to-client", "round-trip", "relay-to-relay"] {
        assert_clean(&measure(&server, mode, Transport::Udp, &["--indications", "--size", "101"]));
    }
}

#[test]
fn segmented_bursts_arrive_whole_and_in_order() {
    let server = server();
    let burst = ["--burst", "8", "--size", "1200", "--gso", "--gro"];
    for mode in ["client-to-peer", "peer-to-client", "relay-to-relay"] {
        assert_clean(&measure(&server, mode, Transport::Udp, &burst));
    }
}

#[test]
fn a_fixed_rate_is_kept_and_may_be_waited_for_asleep() {
    let server = server();
    let report = measure(&server, "round-trip", Transport::Udp, &["--rate", "500", "--sleep", "--duration", "1"]);
    assert_clean(&report);
    let per_second = report["sent"].as_f64().unwrap() / report["seconds"].as_f64().unwrap();
    assert!((400.0..600.0).contains(&per_second), "{report:#}");
    assert_eq!(report["window"], Value::Null);
}

#[test]
fn requests_without_allocation_are_all_answered() {
    let server = server();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        assert_clean(&measure(&server, "stun", transport, &[]));
    }
    assert_clean(&measure(&server, "flood", Transport::Udp, &[]));
}

#[test]
fn allocations_are_made_and_ended_again_and_again() {
    let server = server();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let report = measure(&server, "allocate", transport, &[]);
        assert_clean(&report);
        assert_eq!(report["unit"], "cycle");
    }
}

#[test]
fn held_allocations_are_weighed_and_released() {
    let server = server();
    let report = measure(&server, "hold", Transport::Udp, &["--clients", "40"]);
    let hold = &report["hold"];
    assert!(hold["resident_bytes_held"].as_u64() >= hold["resident_bytes_at_start"].as_u64(), "{report:#}");
    assert!(hold["idle_cpu_percent"].as_f64().unwrap() < 50.0, "{report:#}");
    assert!(hold["set_up_cpu_us_per_allocation"].as_f64().unwrap() > 0.0, "{report:#}");
    assert_eq!(report["received"], 40);
    wait_until("40 ended allocations in the log", LIMIT, || {
        (server.log().matches("allocation ended").count() == 40).then_some(())
    });
}

#[test]
fn the_table_names_what_was_measured() {
    let server = server();
    let mut command = bench();
    command.args(["stun", &server.udp().to_string(), "--clients", "1", "--warm-up", "0", "--duration", "0.2"]);
    let finished = run(&mut command, LIMIT);
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    for part in ["stun over udp to 127.0.0.1:", "requests/s", "lost", "latency, us", "generator CPU"] {
        assert!(finished.stdout.contains(part), "no {part:?} in:\n{}", finished.stdout);
    }
    assert_eq!(finished.stderr, "");
}

#[test]
fn a_refusal_says_what_the_server_said() {
    let server = server();
    let mut command = bench();
    command.args(["client-to-peer", &server.udp().to_string(), "--user", "load", "--password-env", "LOAD_PASSWORD"]);
    let finished = run(command.env("LOAD_PASSWORD", "wrong"), LIMIT);
    assert_eq!(finished.code, Some(3), "{}", finished.all_output());
    assert!(finished.stderr.contains("Allocate refused: 401"), "{}", finished.stderr);
}

#[test]
fn options_that_cannot_be_are_refused_before_anything_is_sent() {
    let cases: [(&[&str], &str); 5] = [
        (&["client-to-peer", "127.0.0.1:9", "--size", "10"], "size must be"),
        (&["client-to-peer", "127.0.0.1:9", "--burst", "60", "--gso", "--size", "1200"], "more than one GSO send"),
        (&["relay-to-relay", "127.0.0.1:9", "--clients", "3"], "even number"),
        (&["client-to-peer", "127.0.0.1:9", "--burst", "9", "--window", "8"], "does not hold one burst"),
        (&["client-to-peer", "127.0.0.1:9", "--user", "somebody"], "--user needs"),
    ];
    for (arguments, message) in cases {
        let finished = run(bench().args(arguments), LIMIT);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.all_output());
        assert!(finished.stderr.contains(message), "{arguments:?}: {}", finished.stderr);
    }
}

#[test]
fn the_forwarder_carries_packets_both_ways() {
    let mut forwarder = Interactive::start(bench().args(["--forwarder", "127.0.0.1:0"]));
    let line = forwarder.next_line(LIMIT);
    let address = line.strip_prefix("forwarding on ").unwrap().to_owned();
    let relaying = ["client-to-peer", "peer-to-client", "round-trip"];
    let modes = relaying.iter().flat_map(|mode| [(*mode, "udp"), (*mode, "tcp")]);
    for (mode, transport) in modes.chain([("stun", "udp")]) {
        let mut command = bench();
        command.args([mode, &address, "--transport", transport, "--size", "157"]);
        command.args(["--clients", "4", "--window", "16", "--warm-up", "0", "--duration", "0.2"]);
        let finished = run(command.args(["--format", "json"]), LIMIT);
        assert_eq!(finished.code, Some(0), "{}", finished.all_output());
        let report: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(report["lost"], 0, "{report:#}");
        assert!(report["received"].as_u64().unwrap() > 10, "{report:#}");
    }
}

#[test]
fn what_a_bad_path_does_to_packets_is_seen_and_told_apart() {
    let server = server();
    let path = bad_path::BadPath::to(server.udp());
    let mut command = bench();
    command.args(["client-to-peer", &path.address().to_string(), "--secret-file", &server.file("secret")]);
    command.args(["--clients", "2", "--rate", "1000", "--warm-up", "0", "--duration", "1", "--format", "json"]);
    let finished = run(&mut command, LIMIT);
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let done = path.done();
    let count = |name: &str| report[name].as_u64().unwrap();
    assert!(done.dropped > 20 && done.damaged > 20 && done.repeated > 20 && done.swapped > 20, "{done:?}");
    assert_eq!(count("damaged"), done.damaged, "{report:#}\n{done:?}");
    assert_eq!(count("duplicate"), done.repeated, "{report:#}\n{done:?}");
    assert_eq!(count("late"), done.swapped, "{report:#}\n{done:?}");
    assert_eq!(count("lost"), done.dropped + done.damaged, "{report:#}\n{done:?}");
    assert_eq!(count("sent"), count("received") + count("lost"));
}
