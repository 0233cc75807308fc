//! Certificates by ACME: of Pebble, the small certificate authority of Let's Encrypt's people, which asks the server as a real one does, and
//! of authorities that do everything wrong.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod authority;
mod issued;
mod pebble;
mod wrong;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::{Finished, TestServer, run, wait_until};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A configuration with these listeners, and this in `[tls]`.
pub(crate) fn config(state: &Path, listen: &str, tls: &str) -> String {
    format!(
        "state-directory = \"{}\"\nworkers = 2\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"udp\"\n{listen}\n\
         [tls]\nacme-agree-to-terms = true\n{tls}\n[relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nports = \"10000-29999\"\n\
         [[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n[admin]\nlisten = \"unix:@DIR@/admin.sock\"\n",
        state.display()
    )
}

/// A listener on loopback.
pub(crate) fn listen(port: u16, rest: &str) -> String {
    format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\n{rest}\n")
}

/// What `openssl s_client` says of a port.
pub(crate) fn s_client(port: u16, name: &str, more: &[&str]) -> Finished {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", name, "-showcerts"]).args(more);
    run(&mut command, LIMIT)
}

/// Waits until the log has a line with all of these.
pub(crate) fn wait_for_line(server: &TestServer, parts: &[&str]) -> String {
    wait_until(&format!("{parts:?} in the log"), LIMIT, || {
        let log = server.log();
        log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
    })
}

/// `turnstone status`, or another command on the running server.
pub(crate) fn ask(server: &TestServer, arguments: &[&str]) -> Finished {
    let admin = format!("unix:{}", server.file("admin.sock"));
    run(Command::new(env!("CARGO_BIN_EXE_turnstone")).args(arguments).args(["--admin", &admin]), LIMIT)
}
