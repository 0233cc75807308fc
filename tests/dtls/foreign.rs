//! Clients that we did not write: coturn's `turnutils_uclient`, `openssl s_client`, and pion (Go).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{EchoPeer, Finished, require_tool, run, skipped, target_dir};
use crate::{LIMIT, Server};

const MESSAGES: &str = "25";

#[test]
fn uclients_exchange_data_over_dtls_by_channels_and_by_send_indications() {
    let server = Server::start("", "");
    std::thread::scope(|scope| {
        for flags in [&["-c"][..], &["-c", "-s"], &["-c", "-l", "1201"], &["-c", "-m", "4"], &[]] {
            let server = &server;
            scope.spawn(move || assert_nothing_lost(&uclient(server, flags)));
        }
    });
    assert!(server.metric("turnstone_dtls_handshakes_total{outcome=\"completed\"}") >= 5);
    // It tries DTLS 1.0 as well, which is refused.
}

fn uclient(server: &Server, flags: &[&str]) -> Finished {
    let mut command = Command::new(require_tool("turnutils_uclient", "coturn"));
    let credentials = server.inner.credentials("uclient");
    // From relay to relay: the two of a pair reach each other.
    command
        .args(["-S", "-y", "-u", &credentials.username, "-w", &credentials.password])
        .args(["-p", &server.address.port().to_string(), "-n", MESSAGES, "-z", "10"])
        .args(flags)
        .arg("127.0.0.1");
    run(&mut command, LIMIT)
}

fn assert_nothing_lost(finished: &Finished) {
    let output = finished.all_output();
    assert_eq!(finished.code, Some(0), "uclient failed:\n{output}");
    assert!(output.contains("Total lost packets 0 (0.000000%), total send dropped 0"), "{output}");
}

#[test]
fn uclient_keeps_its_allocation_by_its_ticket_from_session_to_session() {
    let server = Server::start_with("workers = 2\nmobility = true\n", "", "");
    let peer = EchoPeer::start("127.0.0.1");
    let run = || {
        let mut command = Command::new(require_tool("turnutils_uclient", "coturn"));
        let credentials = server.inner.credentials("uclient");
        command
            .args(["-S", "-M", "-c", "-u", &credentials.username, "-w", &credentials.password])
            .args(["-e", "127.0.0.1", "-r", &peer.address().port().to_string()])
            .args(["-p", &server.address.port().to_string(), "-n", MESSAGES, "-z", "10", "127.0.0.1"]);
        run(&mut command, LIMIT)
    };
    // One of four allocations ends it: it closes its session, frees that, and then closes and frees it again, by which time it is the new one.
    let mut runs = std::iter::repeat_with(run).take(40);
    let has_freed_twice = |run: &Finished| run.code.is_none() || run.all_output().contains("send: Success");
    assert_nothing_lost(&runs.find(|run| !has_freed_twice(run)).expect("uclient frees its session twice every time"));
    crate::support::wait_until("the line of the move", LIMIT, || {
        server.inner.log().contains("allocation moved with its client").then_some(())
    });
}

#[test]
fn openssl_verifies_the_chain_and_agrees_on_a_protocol() {
    let server = Server::start("", "");
    let finished = s_client(&server, &["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256", "-alpn", "stun.turn"]);
    let output = finished.all_output();
    for line in ["Verify return code: 0 (ok)", "ALPN protocol: stun.turn", "ECDHE-ECDSA-AES128-GCM-SHA256"] {
        assert!(output.contains(line), "no {line:?} in:\n{output}");
    }
    // DTLS 1.0 is not offered.
    let mut old = Command::new(require_tool("openssl", "openssl"));
    old.args(["s_client", "-dtls1", "-cipher", "ALL:@SECLEVEL=0", "-connect", &server.address.to_string()]);
    let output = run(&mut old, LIMIT).all_output();
    assert!(!output.contains("BEGIN CERTIFICATE"), "{output}");
}

fn s_client(server: &Server, flags: &[&str]) -> Finished {
    let mut command = Command::new(require_tool("openssl", "openssl"));
    command
        .args(["s_client", "-dtls1_2", "-connect", &server.address.to_string(), "-servername", "localhost"])
        .args(["-CAfile", &server.authority(), "-verify_return_error", "-verify_hostname", "localhost"])
        .args(flags);
    run(&mut command, LIMIT)
}

#[test]
fn pion_allocates_and_relays_over_dtls() {
    let packages = Path::new("/usr/share/gocode/src/github.com/pion/turn/v2");
    if !packages.is_dir() || Command::new("go").arg("version").output().is_err() {
        return skipped("needs Go and the packages golang-github-pion-dtls.v2-dev and golang-github-pion-turn.v2-dev");
    }
    let program = target_dir().join("pion-dtls-client");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dtls/pion/main.go");
    let mut build = Command::new("go");
    build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOFLAGS", "").env("CGO_ENABLED", "0");
    build.env("GOCACHE", target_dir().join("go-cache")).arg("build").arg("-o").arg(&program).arg(source);
    let built = run(&mut build, Duration::from_secs(300));
    assert_eq!(built.code, Some(0), "{}", built.all_output());

    let server = Server::start("", "");
    let peer = EchoPeer::start("127.0.0.1");
    let credentials = server.inner.credentials("pion");
    let mut client = Command::new(program);
    client.args([&server.address.to_string(), &server.authority(), &credentials.username, &credentials.password]);
    let finished = run(client.arg(peer.address().to_string()), LIMIT);
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    assert!(finished.stdout.contains("echoed 10"), "{}", finished.all_output());
}
