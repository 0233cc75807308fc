//! `top`: live on a terminal, once elsewhere.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::LocalModes;

use crate::support::{TestServer, Transport, wait_until};
use crate::terminal::Terminal;
use crate::wire::Wire;
use crate::{LIMIT, Pair, cells, config, on, printed, run};

/// Has clients of two users send while `work` is done: alice packets of 1000 bytes, bob every second of 100.
fn under_traffic<T>(server: &TestServer, work: impl FnOnce() -> T) -> T {
    let mut alice = Pair::new(server, Transport::Udp, "alice");
    let mut bob = Pair::new(server, Transport::Tcp, "bob");
    let _idle = Wire::allocated(server, Transport::Tls, "carol");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                alice.send_to_peer(2, 1000);
                bob.send_to_client(1, 100);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        // Also when the work fails.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&is_over);
        work()
    })
}

/// A figure such as `1.2 Mbit/s` or `12/s`, in units of one.
fn figure(cell: &str) -> f64 {
    let (number, unit) = cell.split_at(cell.find([' ', '/']).unwrap());
    let factor = match unit.trim_start() {
        "bit/s" | "/s" => 1.0,
        "kbit/s" => 1e3,
        "Mbit/s" => 1e6,
        "Gbit/s" => 1e9,
        unit => panic!("{unit:?} in {cell:?}"),
    };
    number.parse::<f64>().unwrap() * factor
}

#[test]
fn json_has_the_same_rates_as_numbers() {
    let server = TestServer::start(&config(""));
    let text = under_traffic(&server, || printed(&server, &["top", "--json", "--interval", "1s"]));
    let top: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&top["allocations"], &top["total_users"]), (&3.into(), &3.into()), "{text}");
    let alice = &top["users"][0];
    assert_eq!((&alice["user"], &alice["sessions"]), (&"alice".into(), &1.into()), "{text}");
    assert!(alice["to_peers_bits"].as_f64().unwrap() > 10_000.0, "{text}");
    assert!(top["to_peers"]["bits"].as_f64().unwrap() > 10_000.0, "{text}");
    assert!(top["refused"].is_object() && top["seconds"].as_f64().unwrap() >= 1.0, "{text}");
}

#[test]
fn without_a_terminal_it_prints_the_rates_of_one_interval() {
    let server = TestServer::start(&config(""));
    let text = under_traffic(&server, || printed(&server, &["top", "--interval", "1s"]));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("  serving  up "), "{text}");
    assert!(lines[1].starts_with("3 allocations, 3 users, 2 connections, ipv4 relay ports 3 of 20000"), "{text}");
    assert_eq!(lines[4], "refusals    0/s", "{text}");
    assert_eq!(cells(lines[6]), ["USER", "SESSIONS", "TO PEERS", "TO CLIENTS", "PACKETS", "TOTAL"]);
    let (alice, bob, carol) = (cells(lines[7]), cells(lines[8]), cells(lines[9]));
    assert_eq!((alice[0], bob[0], carol[0]), ("alice", "bob", "carol"), "{text}");
    // Every one of alice's packets is 8000 bits, every one of bob's 800.
    let (bits, packets) = (figure(alice[2]), figure(alice[4]));
    assert!(packets > 0.0 && (bits / packets / 8000.0 - 1.0).abs() < 0.1, "{text}");
    let (bits, packets) = (figure(bob[3]), figure(bob[4]));
    assert!(packets > 0.0 && (bits / packets / 800.0 - 1.0).abs() < 0.1, "{text}");
    assert_eq!((alice[3], bob[2]), ("0 bit/s", "0 bit/s"), "{text}");
    assert_eq!(carol[1..], ["1", "0 bit/s", "0 bit/s", "0/s", "0 B"], "{text}");
    let total = |line: &str| figure(cells(line)[1].split(", ").next().unwrap());
    assert!((total(lines[2]) / figure(alice[2]) - 1.0).abs() < 0.5, "{text}");
}

#[test]
fn users_are_ordered_as_asked_and_refusals_counted() {
    let server = TestServer::start(&config(""));
    let mut client = Wire::allocated(&server, Transport::Udp, "zoe").0;
    let _more: Vec<_> = (0..2).map(|_| Wire::allocated(&server, Transport::Udp, "many")).collect();
    let mut sent = Pair::new(&server, Transport::Udp, "bytes");
    sent.send_to_peer(3, 1000);
    let users = |sort: &str| {
        let text = printed(&server, &["top", "--once", "--interval", "200ms", "--sort", sort]);
        text.lines().skip(7).map(|line| cells(line)[0].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(users("bytes"), ["bytes", "many", "zoe"]);
    assert_eq!(users("sessions"), ["many", "bytes", "zoe"]);
    assert_eq!(users("user"), ["bytes", "many", "zoe"]);
    let is_over = AtomicBool::new(false);
    let text = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(client.permit("10.0.0.1:0"), Err(403));
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let finished = run(&server, &["top", "--once", "--interval", "1s"]);
        is_over.store(true, Ordering::Relaxed);
        finished.stdout
    });
    let line = text.lines().find(|line| line.starts_with("refusals")).unwrap();
    let (total, reasons) =
        line.trim_start_matches("refusals").trim().split_once(": ").unwrap_or_else(|| panic!("{text}"));
    assert_eq!(reasons, format!("peer-denied-by-default {total}"), "{text}");
    assert!(figure(total) > 0.0, "{text}");
    for bad in ["0s", "2h", "1", "soon"] {
        assert_eq!(run(&server, &["top", "--once", "--interval", bad]).code, Some(2), "{bad}");
    }
}

#[test]
fn on_a_terminal_it_goes_on_until_q_and_leaves_the_terminal_as_it_was() {
    let server = TestServer::start(&config(""));
    under_traffic(&server, || {
        let mut top = Terminal::run(&mut on(&server, &["top", "--interval", "200ms"]));
        top.shows("\u{1b}[?25l\u{1b}[2J\u{1b}[H");
        wait_until("a fourth picture", LIMIT, || (top.shown().matches("\u{1b}[Hturnstone").count() >= 4).then_some(()));
        assert!(!top.modes().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO));
        let shown = top.shown();
        let picture = shown.rsplit("\u{1b}[H").nth(1).unwrap();
        assert!(
            picture.contains("alice") && picture.contains("bob") && picture.ends_with("\u{1b}[K\u{1b}[J"),
            "{picture:?}"
        );
        assert!(picture.contains("kbit/s") || picture.contains("Mbit/s"), "{picture:?}");
        top.press("xq");
        assert_eq!(top.exit_code(), Some(0));
        assert!(top.modes().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
        top.shows("\u{1b}[?25h");
    });
}

#[test]
fn it_ends_on_an_interrupt_a_closed_output_and_with_the_server() {
    let mut server = TestServer::start(&config(""));
    let mut top = Terminal::run(&mut on(&server, &["top", "--interval", "1h"]));
    top.shows("\u{1b}[Hturnstone");
    kill_process(Pid::from_child(&top.child), Signal::INT).unwrap();
    assert_eq!(top.exit_code(), Some(0));
    assert!(top.modes().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));

    for args in [&["top", "--once", "--interval", "200ms"][..], &["status"], &["sessions"], &["status", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = on(&server, args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    }

    let mut top = Terminal::run(&mut on(&server, &["top", "--interval", "200ms"]));
    top.shows("\u{1b}[Hturnstone");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    assert_eq!(top.exit_code(), Some(3));
    assert!(top.modes().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    top.shows("error: no admin API at unix:");
}
