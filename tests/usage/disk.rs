//! A full disk holds nothing up, and loses nothing that fits into memory.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::client::Allocated;
use crate::schema::{self, Record};
use crate::support::{EchoPeer, skipped, wait_until};
use crate::{LIMIT, file_in, metric, spec};

/// A file system of its own, as small as wanted.
struct Small<'f>(&'f Path);

impl Small<'_> {
    /// `None`, with a message, where nothing can be mounted.
    fn mount(folder: &Path) -> Option<Small<'_>> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Small(folder)),
            other => {
                skipped(&format!("nothing can be mounted here: {other:?}"));
                None
            }
        }
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}

#[test]
fn a_full_disk_stops_no_relay_and_what_waited_is_written_when_there_is_room() {
    const CLIENTS: usize = 400;
    if !rustix::process::geteuid().is_root() {
        skipped("only root can mount");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path()) else { return };
    let server = spec(&file_in(folder.path())).start();
    // Room for some records, which end in the middle of one.
    let filler = folder.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 1000]).is_ok() {}
    let peer = EchoPeer::start("127.0.0.1");
    let mut steady = Allocated::over_udp(&server, "steady");
    for number in 0..CLIENTS {
        Allocated::over_udp(&server, &format!("u{number}")).release();
        steady.echo(peer.address(), [100]);
    }
    assert!(metric(&server, "turnstone_usage_write_errors_total") >= 1.0);
    server.wait_for_log("cannot be written");
    assert_eq!(server.log().matches("cannot be written").count(), 1, "one line for one state");
    drop(file);
    fs::remove_file(&filler).unwrap();
    steady.release();
    let all = 2 + 2 * CLIENTS;
    let records = wait_until("all records", LIMIT, || {
        let text = fs::read_to_string(folder.path().join("usage.jsonl")).unwrap();
        // A line that was torn when the disk got full is there a second time, whole.
        let whole = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        let records: Vec<_> = text.lines().filter(whole).map(Record::parse).collect();
        (records.iter().filter(|record| record.kind() != "server-start").count() == all).then_some(records)
    });
    schema::assert_dense(&records);
    let last = records.iter().find(|record| record.kind() == "stop" && record.text("user") == "steady").unwrap();
    assert_eq!(last.traffic("to_peers"), steady.echoed);
    assert_eq!(metric(&server, "turnstone_usage_records_lost_total{reason=\"disk\"}"), 0.0);
    wait_until("its end in the log", LIMIT, || server.log().contains("can be written again").then_some(()));
    drop(server);
    drop(small);
}
