//! What a name server answers to a question for the nodes of a fleet, and what a node says of itself.

use turnstone::fleet::{is_report, targets_in};

use crate::mutate::{Rng, mutate};

/// `_a._tcp.example.org`: two records, the second of which refers to the question's name.
const ANSWER: &[u8] =
    b"\x07\x09\x81\x80\x00\x01\x00\x02\x00\x00\x00\x00\x02_a\x04_tcp\x07example\x03org\x00\x00\x21\x00\x01\
    \xc0\x0c\x00\x21\x00\x01\x00\x00\x00\x3c\x00\x16\x00\x01\x00\x00\x25\xa8\x02t1\x07example\x03org\x00\
    \xc0\x0c\x00\x21\x00\x01\x00\x00\x00\x3c\x00\x0b\x00\x02\x00\x00\x25\xa8\x02t2\xc0\x14";
const REPORT: &[u8] =
    br#"{"name": "turn1", "version": "0.1.0", "instance": "0a", "started_unix": 1, "state": "serving", "ready": true,
    "sessions": 3, "bytes_per_sec": 1000, "refused_last_minute": 0, "load_percent": 12, "room": true,
    "clients": [{ "transport": "udp", "address": "203.0.113.1:3478" }], "problems": ["x"],
    "samples": {"interval_secs": 5, "sessions": [1], "bytes_per_sec": [2], "refused": [3]}}"#;

#[test]
fn mutated_answers_name_hosts_or_nothing() {
    let targets = targets_in(ANSWER).unwrap();
    assert_eq!(targets, [("t1.example.org".to_owned(), 9640), ("t2.example.org".to_owned(), 9640)]);
    let mut rng = Rng(crate::seed() ^ 21);
    let corpus = vec![ANSWER.to_vec()];
    let (mut named, mut refused) = (0, 0);
    for _ in 0..crate::inputs(2) {
        let mut bytes = ANSWER.to_vec();
        mutate(&mut rng, &mut bytes, &corpus);
        match targets_in(&bytes) {
            Ok(targets) => {
                assert!(targets.iter().all(|(host, port)| !host.is_empty() && host.len() <= 253 && *port > 0));
                named += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(named > 0 && refused > 0, "{named} {refused}");
}

#[test]
fn mutated_reports_of_nodes_are_taken_or_not() {
    assert!(is_report(REPORT));
    let mut rng = Rng(crate::seed() ^ 22);
    let corpus = vec![REPORT.to_vec()];
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..crate::inputs(1) {
        let mut bytes = REPORT.to_vec();
        mutate(&mut rng, &mut bytes, &corpus);
        if is_report(&bytes) { taken += 1 } else { refused += 1 }
    }
    assert!(taken > 0 && refused > 0, "{taken} {refused}");
}
