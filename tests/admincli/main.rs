//! The operator's commands, run against the program with clients on it.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

// Of what it has, `tests/admin` uses more.
#[allow(dead_code)]
#[path = "../admin/wire.rs"]
mod wire;

mod control;
mod explain;
mod fleet;
mod nodes;
mod revoke;
mod sessions;
mod terminal;
mod top;
mod whereabouts;

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use support::{Finished, TestServer, Transport};
use wire::Wire;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const TOKEN: &str = "b7c1f0a4d2e94c55a0c3";

/// A server on loopback with the admin API on a socket, and this configuration besides.
pub(crate) fn config(more: &str) -> String {
    with_admin("listen = \"unix:admin.sock\"", more)
}

pub(crate) fn with_admin(admin: &str, more: &str) -> String {
    format!(
        "workers = 2\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\", \"tls\"]\n\
         [tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n\
         [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nports = \"10000-29999\"\n\
         [admin]\n{admin}\n[[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n{more}"
    )
}

/// `turnstone`, without any variable of whoever runs the tests.
pub(crate) fn turnstone(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(args).env_clear();
    command
}

/// A command that finds the server through its configuration.
pub(crate) fn on(server: &TestServer, args: &[&str]) -> Command {
    let mut command = turnstone(args);
    command.arg("--config").arg(server.file("turnserver.toml"));
    command
}

/// Runs it to its end.
pub(crate) fn run(server: &TestServer, args: &[&str]) -> Finished {
    support::run(&mut on(server, args), LIMIT)
}

/// What a command prints that succeeds, and says nothing else.
pub(crate) fn printed(server: &TestServer, args: &[&str]) -> String {
    let finished = run(server, args);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{args:?}: {finished:?}");
    finished.stdout
}

/// The API's answer.
pub(crate) fn json(server: &TestServer, args: &[&str]) -> Value {
    let text = printed(server, &[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The cells of a table's line: two spaces or more part them.
pub(crate) fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// A client with a channel to a peer.
pub(crate) struct Pair {
    pub(crate) client: Wire,
    pub(crate) relayed: SocketAddr,
    pub(crate) peer: UdpSocket,
}

impl Pair {
    pub(crate) fn new(server: &TestServer, transport: Transport, user: &str) -> Pair {
        let (mut client, relayed) = Wire::allocated(server, transport, user);
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        client.bind(0x4001, peer.local_addr().unwrap()).unwrap();
        Pair { client, relayed, peer }
    }

    /// Sends so many payloads of this length, all of which arrive.
    pub(crate) fn send_to_peer(&mut self, packets: usize, bytes: usize) {
        for _ in 0..packets {
            self.client.send_on(0x4001, &vec![7; bytes]);
            assert_eq!(self.peer.recv_from(&mut [0; 2048]).unwrap(), (bytes, self.relayed));
        }
    }

    /// The same the other way.
    pub(crate) fn send_to_client(&mut self, packets: usize, bytes: usize) {
        for _ in 0..packets {
            self.peer.send_to(&vec![7; bytes], self.relayed).unwrap();
            assert_eq!(self.client.receive().unwrap().len(), 4 + bytes);
        }
    }
}
