//! A record that the webhook cannot stomach: the others arrive, those behind it too, and it is set aside and named.

use std::fs;
use std::path::Path;

use crate::client::Allocated;
use crate::hook::{Hook, Reply};
use crate::schema::Record;
use crate::support::{TestServer, wait_until};
use crate::{LIMIT, metric, spec};

const POISON: &str = "\"user\":\"poison\"";

fn usage(url: &str, folder: &Path) -> String {
    format!("webhook = \"{url}\"\nwebhook-timeout = \"2s\"\nspool-directory = \"{}\"", folder.join("spool").display())
}

fn aside(folder: &Path) -> Vec<Record> {
    let text = fs::read_to_string(folder.join("spool/refused.ndjson")).unwrap_or_default();
    text.lines().map(Record::parse).collect()
}

fn stops_of(records: &[Record], user: &str) -> usize {
    records.iter().filter(|record| record.kind() == "stop" && record.text("user") == user).count()
}

fn lost(server: &TestServer) -> f64 {
    metric(server, "turnstone_usage_records_lost_total{reason=\"webhook-refused\"}")
}

fn batches(folder: &Path) -> usize {
    let files = fs::read_dir(folder.join("spool")).unwrap();
    files.filter(|file| file.as_ref().unwrap().file_name().to_str().unwrap().starts_with("usage-")).count()
}

#[test]
fn a_record_that_is_refused_is_found_and_set_aside_and_the_others_of_its_batch_arrive_in_order() {
    for status in [400, 413, 422] {
        let folder = tempfile::tempdir().unwrap();
        let hook = Hook::judging(move |body| Reply::Status(if body.contains(POISON) { status } else { 200 }));
        let server = spec(&usage(&hook.url(), folder.path())).start();
        for number in 0..30 {
            Allocated::over_udp(&server, &format!("u{number}")).release();
            if number % 10 == 5 {
                Allocated::over_udp(&server, "poison").release();
            }
        }
        let taken = hook.wait_for("stop", 30);
        assert!((0..30).all(|number| stops_of(&taken, &format!("u{number}")) == 1));
        let seqs: Vec<u64> = taken.iter().map(Record::seq).collect();
        assert!(seqs.is_sorted(), "{seqs:?}");
        wait_until("the poison aside", LIMIT, || (aside(folder.path()).len() == 6).then_some(()));
        wait_until("an empty spool", LIMIT, || (batches(folder.path()) == 0).then_some(()));
        assert!(aside(folder.path()).iter().all(|record| record.text("user") == "poison"));
        assert_eq!(lost(&server), 6.0);
        server.wait_for_log("refused.ndjson");
        let named =
            || server.log().lines().filter(|line| line.contains("set aside") && line.contains("poison")).count();
        wait_until("each of them in the log", LIMIT, || (named() >= 6).then_some(()));
        let log = server.log();
        assert_eq!(named(), 6, "{log}");
        assert!(log.contains(&format!("HTTP status {status}")) && log.contains("refused.ndjson"), "{log}");
    }
}

#[test]
fn a_record_that_makes_the_webhook_fail_holds_up_neither_its_batch_nor_those_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let hook = Hook::judging(|body| Reply::Status(if body.contains(POISON) { 500 } else { 200 }));
    let server = spec(&usage(&hook.url(), folder.path())).start();
    for number in 0..10 {
        Allocated::over_udp(&server, &format!("u{number}")).release();
        if number == 5 {
            Allocated::over_udp(&server, "poison").release();
        }
    }
    // Nothing else comes meanwhile: parts of the batch show that the webhook is not out of order.
    let taken = hook.wait_for("stop", 10);
    assert!((0..10).all(|number| stops_of(&taken, &format!("u{number}")) == 1));
    // Whoever comes later is not held up, and shows that the webhook is not what is out of order.
    let mut later = 0;
    wait_until("the poison aside", LIMIT, || {
        Allocated::over_udp(&server, "later").release();
        later += 1;
        std::thread::sleep(std::time::Duration::from_millis(300));
        (aside(folder.path()).len() == 2).then_some(())
    });
    let taken = hook.wait_for("stop", 10 + later);
    assert_eq!(stops_of(&taken, "later"), later);
    assert_eq!((stops_of(&taken, "poison"), lost(&server)), (0, 2.0));
    assert!(aside(folder.path()).iter().all(|record| record.text("user") == "poison"));
}

#[test]
fn a_webhook_that_fails_with_everything_loses_nothing_however_long() {
    let folder = tempfile::tempdir().unwrap();
    let failing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let fails = std::sync::Arc::clone(&failing);
    let hook =
        Hook::judging(move |_| Reply::Status(if fails.load(std::sync::atomic::Ordering::Relaxed) { 500 } else { 200 }));
    let server = spec(&usage(&hook.url(), folder.path())).start();
    for number in 0..20 {
        Allocated::over_udp(&server, &format!("u{number}")).release();
    }
    // Long enough for batches to be set back and divided.
    hook.wait_for_posts(5);
    failing.store(false, std::sync::atomic::Ordering::Relaxed);
    let mut seqs: Vec<u64> = hook.wait_for("stop", 20).iter().map(Record::seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=41).collect::<Vec<_>>());
    assert_eq!((aside(folder.path()).len(), lost(&server)), (0, 0.0));
}

#[test]
fn a_webhook_that_refuses_everything_has_few_records_set_aside_and_gets_the_rest_once_it_takes_them() {
    const USERS: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let refusing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let refuses = std::sync::Arc::clone(&refusing);
    let hook = Hook::judging(move |_| {
        Reply::Status(if refuses.load(std::sync::atomic::Ordering::Relaxed) { 400 } else { 200 })
    });
    let server = spec(&usage(&hook.url(), folder.path())).start();
    (0..USERS).for_each(|number| Allocated::over_udp(&server, &format!("u{number}")).release());
    hook.wait_for_posts(66);
    refusing.store(false, std::sync::atomic::Ordering::Relaxed);
    wait_until("an empty spool", LIMIT, || (batches(folder.path()) == 0).then_some(()));
    let aside = aside(folder.path());
    assert!((1..64).contains(&aside.len()) && lost(&server) == aside.len() as f64, "{}", aside.len());
    let mut seqs: Vec<u64> = hook.taken().iter().chain(&aside).map(Record::seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=1 + 2 * USERS).collect::<Vec<_>>());
}
