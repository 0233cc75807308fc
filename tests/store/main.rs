//! `[store]`: servers that share a Redis, which is killed, paused, failed over and emptied under them.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

// Of what they have, others use more.
#[allow(dead_code)]
#[path = "../admin/wire.rs"]
mod wire;

mod connection;
mod failover;
mod large;
mod lying;
mod moved;
mod quota;
mod redis;
mod revocations;
mod rights;
mod shared;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

pub(crate) use support::metric;
use support::{Credentials, Finished, Spec, TestServer, Transport, run};
use wire::Wire;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A server with a store, its admin API and its metrics.
pub(crate) fn with_store(store: &str) -> Spec {
    Spec {
        extra_toml: format!(
            "[metrics]\nlisten = \"unix:metrics.sock\"\n[admin]\nlisten = \"unix:admin.sock\"\n[store]\n{store}\n"
        ),
        workers: 1,
        ..Spec::local()
    }
}

/// A command on the running server.
pub(crate) fn turnstone(server: &TestServer, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(arguments).arg("--admin").arg(format!("unix:{}", server.file("admin.sock")));
    run(&mut command, LIMIT)
}

/// What `turnstone store status --json` says.
pub(crate) fn store_status(server: &TestServer) -> Value {
    let finished = turnstone(server, &["store", "status", "--json"]);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

/// Waits until the server is connected with its store, or is not.
pub(crate) fn wait_connected(server: &TestServer, is_connected: bool) {
    let mut last = Value::Null;
    for _ in 0..LIMIT.as_millis() / 20 {
        last = store_status(server);
        if last["connected"] == is_connected {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!(
        "connected is not {is_connected}: {last}
{}",
        server.log()
    );
}

/// A client of this credential with an allocation, or the code of the refusal.
pub(crate) fn allocate(server: &TestServer, credentials: &Credentials) -> Result<Wire, u16> {
    let mut wire = Wire::connect(server, Transport::Udp, credentials);
    wire.allocate().map(|_| wire)
}
