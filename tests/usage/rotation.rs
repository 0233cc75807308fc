//! The file is put aside while records come in.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::Signal;

use crate::client::Allocated;
use crate::schema;
use crate::support::wait_until;
use crate::{LIMIT, file_in, spec};

#[test]
fn rotation_by_size_under_many_allocations_loses_nothing_and_has_nothing_twice() {
    const THREADS: usize = 4;
    const EACH: usize = 150;
    let folder = tempfile::tempdir().unwrap();
    let mut server =
        spec(&format!("{}\nrotate-bytes = \"64KiB\"\nkeep = \"unlimited\"", file_in(folder.path()))).start();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let server = &server;
            scope.spawn(move || {
                for number in 0..EACH {
                    Allocated::over_udp(server, &format!("u{thread}-{number}")).release();
                }
            });
        }
    });
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    let files = schema::files(folder.path());
    assert!(files.len() >= 4, "{files:?}");
    for file in &files[..files.len() - 1] {
        let len = fs::metadata(file).unwrap().len();
        // At most one record more than the limit.
        assert!((65_536..67_000).contains(&len), "{} has {len} bytes", file.display());
    }
    let records = schema::read(folder.path());
    schema::assert_dense(&records);
    let mut sessions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.0.get("session").is_some()) {
        sessions.entry(record.text("session")).or_default().push(record.kind());
    }
    assert_eq!(sessions.len(), THREADS * EACH);
    assert!(sessions.values().all(|kinds| kinds == &["start", "stop"]));
}

#[test]
fn only_so_many_files_are_kept_and_others_in_the_directory_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("usage-2026.txt"), "mine").unwrap();
    let mut server = spec(&format!("{}\nrotate-bytes = \"64KiB\"\nkeep = 2", file_in(folder.path()))).start();
    for number in 0..500 {
        Allocated::over_udp(&server, &format!("u{number}")).release();
    }
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    assert_eq!(schema::files(folder.path()).len(), 3);
    let seqs: Vec<_> = schema::read(folder.path()).iter().map(schema::Record::seq).collect();
    assert_eq!(seqs, (1002 - seqs.len() as u64 + 1..=1002).collect::<Vec<_>>(), "not the newest ones");
    assert!(folder.path().join("usage-2026.txt").exists());
    assert!(server.log().contains("usage records of less than a day deleted"), "{}", server.log());
}

#[test]
fn a_hang_up_opens_the_file_anew_for_a_program_that_has_moved_it() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        spec(&format!("{}\nrotate-bytes = \"off\"\nrotate-interval = \"off\"", file_in(folder.path()))).start();
    Allocated::over_udp(&server, "before").release();
    let path = folder.path().join("usage.jsonl");
    let stops = |text: &str, user: &str| text.contains("\"type\":\"stop\"") && text.contains(user);
    wait_until("the first record", LIMIT, || stops(&fs::read_to_string(&path).unwrap(), "before").then_some(()));
    let moved = folder.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    server.signal(Signal::HUP);
    wait_until("the file", LIMIT, || path.exists().then_some(()));
    Allocated::over_udp(&server, "after").release();
    wait_until("the second record", LIMIT, || stops(&fs::read_to_string(&path).unwrap(), "after").then_some(()));
    let text = fs::read_to_string(&moved).unwrap() + &fs::read_to_string(&path).unwrap();
    let records: Vec<_> = text.lines().map(schema::Record::parse).collect();
    schema::assert_dense(&records);
    assert_eq!(records.len(), 5);
}
