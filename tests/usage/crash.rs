//! What is billed survives a crash.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::client::Allocated;
use crate::schema::{self, Record};
use crate::support::{EchoPeer, skipped, wait_until};
use crate::{LIMIT, file_in, spec};

const DOCUMENT: &str = include_str!("../../docs/usage-records.md");

/// The bill by user, as the document says: the last record of each session.
fn bill(records: &[Record]) -> BTreeMap<String, u64> {
    let mut last: BTreeMap<&str, &Record> = BTreeMap::new();
    for record in records.iter().filter(|record| record.0.get("session").is_some()) {
        last.insert(record.text("session"), record);
    }
    let mut bill = BTreeMap::new();
    for record in last.values() {
        *bill.entry(format!("{} {}", record.text("credential"), record.text("user"))).or_insert(0) +=
            record.traffic("to_peers").1 + record.traffic("to_client").1;
    }
    bill
}

/// What the document's own program says of the same records; `None` where there is no jq.
fn bill_by_jq(text: &str) -> Option<BTreeMap<String, u64>> {
    let program = DOCUMENT.split("```jq\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a jq program");
    let started = Command::new("jq")
        .args(["-R", "-s", "-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut jq) = started else {
        skipped("jq is not installed (apt-get install jq)");
        return None;
    };
    jq.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = jq.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn after_a_kill_the_bill_is_what_was_sent_up_to_the_last_interim_record() {
    let folder = tempfile::tempdir().unwrap();
    let usage = format!("{}\ninterim = \"10s\"", file_in(folder.path()));
    let peer = EchoPeer::start("127.0.0.1");
    let mut server = spec(&usage).start();
    let mut ended = Allocated::over_udp(&server, "carol");
    ended.echo(peer.address(), [100; 30]);
    ended.release();
    let mut alice = Allocated::over_udp(&server, "alice");
    alice.echo(peer.address(), [500; 40]);
    let mut bob = Allocated::over_tcp(&server, "bob");
    bob.echo(peer.address(), [300; 20]);
    let billed = [&alice, &bob, &ended].map(|client| 2 * client.echoed.1);
    wait_until("interim records of both", LIMIT, || {
        let records = schema::read(folder.path());
        (records.iter().filter(|record| record.kind() == "interim").count() == 2).then_some(())
    });
    // This is what the crash costs: at most what one interval saw.
    alice.echo(peer.address(), [900; 10]);
    server.signal(Signal::KILL);
    server.exit_code_within(LIMIT);
    let path = folder.path().join("usage.jsonl");
    // As if the crash had been one of the machine, too.
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"schema\":1,\"type\":\"inte").unwrap();
    drop(file);

    let second = spec(&usage).start();
    let mut again = Allocated::over_udp(&second, "alice");
    again.echo(peer.address(), [700; 10]);
    again.release();
    let text = wait_until("the stop record", LIMIT, || {
        let text = std::fs::read_to_string(&path).unwrap();
        (text.matches("\"type\":\"stop\"").count() == 2).then_some(text)
    });
    let (whole, torn): (Vec<_>, Vec<_>) =
        text.lines().partition(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
    assert_eq!(torn, ["{\"schema\":1,\"type\":\"inte"], "exactly the torn line is to be skipped");
    let records: Vec<_> = whole.into_iter().map(Record::parse).collect();
    schema::assert_dense(&records);
    let instances: Vec<_> =
        records.iter().filter(|record| record.kind() == "server-start").map(|record| record.text("server")).collect();
    assert_eq!(instances.len(), 2);
    assert_ne!(instances[0], instances[1]);
    assert!(!records.iter().any(|record| record.kind() == "server-stop" && record.text("server") == instances[0]));
    let expected = BTreeMap::from([
        ("time-limited alice".to_owned(), billed[0] + 2 * again.echoed.1),
        ("time-limited bob".to_owned(), billed[1]),
        ("time-limited carol".to_owned(), billed[2]),
    ]);
    assert_eq!(bill(&records), expected);
    if let Some(by_jq) = bill_by_jq(&text) {
        assert_eq!(by_jq, expected);
    }
}

#[test]
fn every_live_allocation_has_interim_records_in_pages_and_cumulative() {
    const CLIENTS: usize = 700;
    let folder = tempfile::tempdir().unwrap();
    let server = spec(&format!("{}\ninterim = \"10s\"", file_in(folder.path()))).start();
    let peer = EchoPeer::start("127.0.0.1");
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| Allocated::over_udp(&server, &format!("u{number}"))).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.echo(peer.address(), [1 + number]);
    }
    let records = wait_until("interim records with the last figures of all", LIMIT, || {
        let records = schema::read(folder.path());
        let full = |record: &&Record| record.kind() == "interim" && record.traffic("to_peers").0 == 1;
        let mut users: Vec<_> = records.iter().filter(full).map(|record| record.text("user").to_owned()).collect();
        users.sort();
        users.dedup();
        (users.len() == CLIENTS).then_some(records)
    });
    schema::assert_dense(&records);
    let mut started = BTreeMap::new();
    for record in &records {
        match record.kind() {
            "start" => assert_eq!(started.insert(record.text("session"), (0, 0)), None),
            "interim" => {
                let before = started.get_mut(record.text("session")).expect("a start record before");
                let now = record.traffic("to_peers");
                assert!(now >= *before, "{now:?} after {before:?}");
                *before = now;
                if now.0 == 1 {
                    assert_eq!(record.text("user"), format!("u{}", now.1 - 1));
                }
            }
            _ => {}
        }
    }
    assert_eq!(started.len(), CLIENTS);
}
