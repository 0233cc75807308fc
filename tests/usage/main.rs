//! Usage records of the program: what they say agrees with what clients sent, whatever happens to server, disk and webhook.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod churn;
mod client;
mod crash;
mod disk;
mod hook;
mod poison;
mod records;
mod reload;
mod rotation;
mod schema;
mod webhook;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use support::{Spec, TestServer, wait_until};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A server on loopback with these lines in `[usage]`, for hundreds of clients that come from one address at once.
pub(crate) fn spec(usage: &str) -> Spec {
    let mut spec = Spec::local();
    spec.extra_toml = format!(
        "[metrics]\nlisten = \"127.0.0.1:0\"\n[limits]\nunauthenticated-replies-per-second = \"unlimited\"\n\
         [usage]\n{usage}\n"
    );
    spec
}

/// The value of a sample in `/metrics`, written as there.
pub(crate) fn metric(server: &TestServer, name: &str) -> f64 {
    let line = wait_until("the endpoint in the log", LIMIT, || {
        server.log().lines().find(|line| line.contains("serving /metrics")).map(str::to_owned)
    });
    let port = line.replace('\u{1b}', "").rsplit("127.0.0.1:").next().unwrap().trim().to_owned();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let sample = response.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    sample.unwrap_or_else(|| panic!("no {name} in {response}")).parse().unwrap()
}

/// The file in `folder`, for the configuration.
pub(crate) fn file_in(folder: &Path) -> String {
    format!("file = \"{}\"", folder.join("usage.jsonl").display())
}

#[test]
fn nothing_is_recorded_unless_asked_for_and_every_series_is_there_and_zero() {
    let mut spec = spec("");
    spec.extra_toml = "[metrics]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let server = spec.start();
    for name in ["records_total", "write_errors_total", "spool_bytes"] {
        assert_eq!(metric(&server, &format!("turnstone_usage_{name}")), 0.0);
    }
    for reason in ["queue-full", "disk", "spool-full", "webhook-refused"] {
        assert_eq!(metric(&server, &format!("turnstone_usage_records_lost_total{{reason=\"{reason}\"}}")), 0.0);
    }
    for result in ["taken", "failed"] {
        assert_eq!(metric(&server, &format!("turnstone_usage_webhook_batches_total{{result=\"{result}\"}}")), 0.0);
    }
}
