//! The program over DTLS (RFC 7350): clients that we did not write, one port with plain STUN, certificates, limits, and hellos without a
//! cookie by the million. Datagrams of a proxy, too.
//!
//! Needs the cargo feature `dtls`.

// Helpers of tests fail by panicking; clippy counts only `#[test]` functions as tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod client;
mod foreign;
mod hellos;
mod mobility;
mod probed;
mod proxied;
mod sessions;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use support::{RELAY_PORTS, TestServer, free_address, wait_until};

const LIMIT: Duration = Duration::from_secs(40);

/// A server with UDP and DTLS on one port, and where its metrics are.
struct Server {
    inner: TestServer,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Server {
    fn start(listen: &str, extra: &str) -> Self {
        Self::start_with("", listen, extra)
    }

    fn start_with(top: &str, listen: &str, extra: &str) -> Self {
        let address = free_address();
        let metrics = free_address();
        let inner = TestServer::start(&format!("{top}{}", config(address, metrics, listen, extra)));
        Self { inner, address, metrics }
    }

    /// The value of a metric, by its name and labels.
    fn metric(&self, series: &str) -> u64 {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse::<f64>().unwrap() as u64
    }

    fn wait_for_metric(&self, series: &str, value: u64) {
        wait_until(&format!("{series} {value}"), LIMIT, || (self.metric(series) == value).then_some(()));
    }

    fn authority(&self) -> String {
        self.inner.file("authority.pem")
    }
}

fn config(address: SocketAddr, metrics: SocketAddr, listen: &str, extra: &str) -> String {
    let (low, high) = RELAY_PORTS;
    format!(
        "rfc5766-channel-numbers = true\n\
         [[listen]]\naddress = \"{address}\"\ntransport = [\"udp\", \"dtls\"]\n{listen}\n\
         [tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n\
         [relay]\nports = \"{low}-{high}\"\nipv4 = \"127.0.0.1\"\n\
         [metrics]\nlisten = \"{metrics}\"\n\
         [auth]\nrealm = \"turn.test\"\n[[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n{extra}"
    )
}

/// Resident memory of a process in bytes.
fn resident(process: u32) -> u64 {
    let statm = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("statm")).unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
