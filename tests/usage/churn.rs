//! One user makes allocations by the thousand; what others are billed by stays, and so does what that one is billed by.

use rustix::process::Signal;

use crate::client::Allocated;
use crate::schema;
use crate::support::EchoPeer;
use crate::{LIMIT, file_in, spec};

#[test]
fn allocations_by_the_thousand_that_carry_next_to_nothing_are_summed_up_and_nobody_s_figures_are_lost() {
    const CYCLES: u64 = 1600;
    const ONE_BY_ONE: u64 = 1000;
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec(&file_in(folder.path()));
    spec.extra_toml += "[quota]\nallocations-per-user-burst = 100000\n";
    let mut server = spec.start();
    let peer = EchoPeer::start("127.0.0.1");
    let mut honest = Allocated::over_udp(&server, "honest");
    honest.echo(peer.address(), [500; 10]);
    let began = std::time::Instant::now();
    let mut bytes = 0;
    for number in 0..CYCLES {
        let mut client = Allocated::over_udp(&server, "churn");
        if number % 100 == 99 {
            client.echo(peer.address(), [160; 3]);
        }
        bytes += client.echoed.1;
        client.release();
    }
    // One of them that relays as people do has records of its own.
    let mut busy = Allocated::over_udp(&server, "churn");
    busy.echo(peer.address(), [1000; 20]);
    bytes += busy.echoed.1;
    busy.release();
    honest.release();
    let seconds = began.elapsed().as_secs();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));

    let records = schema::read(folder.path());
    schema::assert_dense(&records);
    let of = |user: &str, kind: &str| -> Vec<_> {
        let named = |record: &&schema::Record| record.0.get("user").is_some_and(|name| name == user);
        records.iter().filter(named).filter(|record| record.kind() == kind).collect()
    };
    let [stop] = of("honest", "stop")[..] else { panic!("not one stop of the honest user") };
    assert_eq!(stop.traffic("to_peers"), honest.echoed);
    let starts = of("churn", "start").len() as u64;
    assert!((ONE_BY_ONE..=ONE_BY_ONE + seconds + 2).contains(&starts), "{starts} in {seconds} s");
    let stops = of("churn", "stop");
    let merged: Vec<_> = stops.iter().filter(|stop| stop.0.get("sessions").is_some()).collect();
    let stands_for: u64 = merged.iter().map(|stop| stop.0["sessions"].as_u64().unwrap()).sum();
    assert_eq!(stands_for + (stops.len() - merged.len()) as u64, CYCLES + 1);
    assert!(!merged.is_empty() && merged.len() as u64 <= seconds / 60 + 1, "{merged:?}");
    // The busy one, without a start of its own.
    assert!(stops.iter().any(|stop| stop.0.get("sessions").is_none() && stop.traffic("to_peers") == busy.echoed));
    let billed: u64 = stops.iter().map(|stop| stop.traffic("to_peers").1).sum();
    assert_eq!(billed, bytes);
    let sessions: std::collections::BTreeSet<_> = stops.iter().map(|stop| stop.text("session")).collect();
    assert_eq!(sessions.len(), stops.len(), "a session has two stops");

    server.wait_for_log("allocations ended that users with very many had made");
    let lines =
        server.log().lines().filter(|line| line.contains("allocation ended") && line.contains(":churn")).count();
    assert!((lines as u64) <= ONE_BY_ONE + seconds + 3, "{lines}");
}
