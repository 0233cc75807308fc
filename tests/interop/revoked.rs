//! coturn's client while its credential is revoked by the operator's command: it is cut, and a new one does not come in.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Running, Spec, TestServer, Transport, require_tool, run, wait_until};
use crate::uclient::{Peer, uclient};

const LIMIT: Duration = Duration::from_secs(40);

fn turnstone(server: &TestServer, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(args).arg("--admin").arg(format!("unix:{}", server.file("admin.sock")));
    let finished = run(&mut command, LIMIT);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout
}

/// What has gone to peers so far.
fn to_peers(server: &TestServer) -> u64 {
    let status: serde_json::Value = serde_json::from_str(&turnstone(server, &["status", "--json"])).unwrap();
    status["traffic"]["to_peers"]["packets"].as_u64().unwrap()
}

#[test]
fn uclient_is_cut_in_the_middle_of_a_call_and_a_new_one_is_refused() {
    let server =
        Spec { extra_toml: "[admin]\nlisten = \"unix:admin.sock\"\n".to_owned(), ..crate::uclient::spec() }.start();
    let peer = Peer::start("127.0.0.1");
    for (transport, by) in [(Transport::Udp, "username"), (Transport::Tcp, "user")] {
        let leaked = server.credentials(&format!("leaked-{by}"));
        let mut command = Command::new(require_tool("turnutils_uclient", "coturn"));
        if transport == Transport::Tcp {
            command.arg("-t");
        }
        let port = server.address(transport, "127.0.0.1").port().to_string();
        command
            .args(["-u", &leaked.username, "-w", &leaked.password, "-p", &port])
            .args(["-n", "100000", "-z", "5", "-c"])
            .args(peer.flags())
            .arg("127.0.0.1");
        let before = to_peers(&server);
        let _call = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_until("a call", LIMIT, || (to_peers(&server) > before + 100).then_some(()));
        let user = format!("leaked-{by}");
        let told = match by {
            "username" => turnstone(&server, &["revoke", &leaked.username]),
            _ => turnstone(&server, &["revoke", "--user", &user]),
        };
        // It makes one or two.
        assert!(told.contains("ended 1 session") || told.contains("ended 2 sessions"), "{told}");
        let (after, sessions) = (to_peers(&server), turnstone(&server, &["sessions"]));
        assert_eq!(sessions, "no session\n");
        // It goes on sending, and nothing of it comes through.
        wait_until("what is dropped for want of an allocation", LIMIT, || {
            let status: serde_json::Value = serde_json::from_str(&turnstone(&server, &["status", "--json"])).unwrap();
            let dropped = status["dropped"]["no-allocation"].as_u64().unwrap_or_default();
            (transport == Transport::Tcp || dropped > 100).then_some(())
        });
        assert_eq!(to_peers(&server), after);
        let finished = uclient(&server, transport, "127.0.0.1", &leaked, &["-y"]);
        let output = finished.all_output();
        assert!(finished.code != Some(0) && output.contains("Cannot complete Allocation"), "{output}");
        let why = turnstone(&server, &["explain", &user]);
        assert!(why.contains("401") && why.contains("has been revoked"), "{why}");
    }
}
