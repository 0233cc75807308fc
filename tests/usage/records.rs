//! What start and stop records say, and when.

use rustix::process::Signal;

use crate::client::Allocated;
use crate::schema::{self, Record};
use crate::support::{EchoPeer, wait_until};
use crate::{LIMIT, file_in, metric, spec};

fn of<'r>(records: &'r [Record], kind: &str, user: &str) -> Vec<&'r Record> {
    let is = |record: &&Record| record.kind() == kind && record.0["user"] == user;
    records.iter().filter(is).collect()
}

#[test]
fn start_and_stop_of_udp_and_tcp_allocations_agree_with_what_the_clients_did() {
    let folder = tempfile::tempdir().unwrap();
    let server = spec(&file_in(folder.path())).start();
    let peer = EchoPeer::start("127.0.0.1");
    let mut udp = Allocated::over_udp(&server, "alice");
    udp.echo(peer.address(), (0..200).map(|round| 1 + round * 5));
    udp.release();
    let mut tcp = Allocated::over_tcp(&server, "bob");
    tcp.echo(peer.address(), (0..50).map(|round| 1000 - round));
    let (tcp_local, tcp_relayed, tcp_echoed) = (tcp.local, tcp.relayed, tcp.echoed);
    drop(tcp);
    let records = wait_until("both stop records", LIMIT, || {
        let records = schema::read(folder.path());
        (records.iter().filter(|record| record.kind() == "stop").count() == 2).then_some(records)
    });
    schema::assert_dense(&records);
    assert_eq!(records[0].kind(), "server-start");
    for (user, transport, local, relayed, echoed, reason, server_address) in [
        ("alice", "udp", udp.local, udp.relayed, udp.echoed, "released", server.udp()),
        ("bob", "tcp", tcp_local, tcp_relayed, tcp_echoed, "client-gone", server.tcp()),
    ] {
        let (starts, stops) = (of(&records, "start", user), of(&records, "stop", user));
        assert_eq!((starts.len(), stops.len()), (1, 1), "{user}");
        let (start, stop) = (starts[0], stops[0]);
        for record in [start, stop] {
            assert_eq!(record.text("transport"), transport);
            assert_eq!(record.text("client"), local.to_string());
            assert_eq!(record.text("server_address"), server_address.to_string());
            assert_eq!(record.0["relayed"], serde_json::json!([relayed.to_string()]));
            assert!(record.text("username").ends_with(&format!(":{user}")), "{record:?}");
        }
        assert_eq!(start.text("session"), stop.text("session"));
        assert!(stop.text("session").starts_with(&format!("{}-", stop.text("server"))));
        assert_eq!((start.traffic("to_peers"), start.traffic("to_client")), ((0, 0), (0, 0)));
        assert_eq!((stop.traffic("to_peers"), stop.traffic("to_client")), (echoed, echoed), "{user}");
        assert_eq!(stop.text("reason"), reason);
        let duration = stop.0["duration_secs"].as_f64().unwrap();
        assert!(duration > 0.0 && duration < 60.0, "{duration}");
        assert!(stop.text("started_at") <= stop.text("at") && start.text("at") <= stop.text("at"));
    }
    assert_eq!(metric(&server, "turnstone_usage_records_total"), 5.0);
}

#[test]
fn the_file_is_for_owner_and_group() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let _server = spec(&file_in(folder.path())).start();
    let mode = std::fs::metadata(folder.path().join("usage.jsonl")).unwrap().permissions().mode();
    // The umask may take away more.
    assert_eq!(mode & 0o7777 & !0o640, 0, "{mode:o}");
}

#[test]
fn a_stop_records_every_allocation_that_it_ends_however_many() {
    const CLIENTS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let mut server = spec(&file_in(folder.path())).start();
    let clients: Vec<_> = (0..CLIENTS).map(|_| Allocated::over_udp(&server, "crowd")).collect();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    drop(clients);
    let records = schema::read(folder.path());
    schema::assert_dense(&records);
    let stops = of(&records, "stop", "crowd");
    assert_eq!(stops.len(), CLIENTS);
    assert!(stops.iter().all(|stop| stop.text("reason") == "shutdown"));
    assert_eq!(records.last().unwrap().kind(), "server-stop");
}

#[test]
fn a_drain_records_the_end_of_the_last_allocation_before_the_server_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec(&file_in(folder.path()));
    spec.extra_toml.push_str("[drain]\ndeadline = \"1h\"\n");
    let mut server = spec.start();
    let mut client = Allocated::over_udp(&server, "late");
    server.signal(Signal::TERM);
    wait_until("the drain", LIMIT, || server.log().contains("draining").then_some(()));
    client.refresh();
    assert!(server.is_running());
    client.release();
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    let records = schema::read(folder.path());
    assert_eq!(of(&records, "stop", "late")[0].text("reason"), "released");
    assert_eq!(records.last().unwrap().kind(), "server-stop");
}

#[test]
fn a_file_that_cannot_be_written_stops_the_start_and_the_check_and_is_named() {
    for place in ["/nonexistent/usage.jsonl", "/dev/full"] {
        let toml = format!(
            "[relay]\nipv4 = \"127.0.0.1\"\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"udp\"\n\
             [[auth.users]]\nname = \"a\"\npassword = \"correct horse battery\"\n[usage]\nfile = \"{place}\"\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("turnserver.toml");
        std::fs::write(&config, toml).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        for command in ["check", "serve"] {
            let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"));
            let output = program.arg(command).arg("--config").arg(&config).output().unwrap();
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let names_it = ["usage records", "usage.file", "file in [usage]"].iter().any(|name| said.contains(name));
            assert!(said.contains(place) && names_it, "{command}: {said}");
            assert_ne!(output.status.code(), Some(0), "{command}: {said}");
        }
    }
}
