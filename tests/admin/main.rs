//! The admin API of the program, with clients on it. Every answer that a test gets is held against the OpenAPI document.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

// Of what it has, `tests/ops` uses more.
#[allow(dead_code)]
#[path = "../ops/client.rs"]
mod client;

mod access;
mod api;
mod control;
mod document;
mod page;
mod refusals;
mod revocations;
mod sessions;
mod suspensions;
mod users;
mod wire;

use std::time::Duration;

use support::{TestServer, wait_until};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A server on loopback with the admin API on a socket, and this configuration besides its listeners, relays and secret.
pub(crate) fn config(more: &str) -> String {
    with_admin("listen = \"unix:admin.sock\"", more)
}

/// The same with the admin API on a port.
pub(crate) fn config_with_port(more: &str) -> String {
    with_admin(&format!("listen = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\""), more)
}

pub(crate) const TOKEN: &str = "b7c1f0a4d2e94c55a0c3";

fn with_admin(admin: &str, more: &str) -> String {
    format!(
        "workers = 2\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\", \"tls\"]\n\
         [tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n\
         [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nports = \"10000-29999\"\n\
         [admin]\n{admin}\n[[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n{more}"
    )
}

/// Waits until the log has this text so many times; it is written by a thread of its own.
pub(crate) fn logged(server: &TestServer, times: usize, text: &str) {
    wait_until(&format!("{text:?} {times} times in the log"), LIMIT, || {
        (server.log().matches(text).count() == times).then_some(())
    });
}
