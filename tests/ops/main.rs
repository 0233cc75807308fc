//! What an operator does with a running server: look at it, change it, drain it. Against the program, with clients on it.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod client;
mod drain;
mod endpoint;
mod exposition;
mod health;
mod log_lines;
mod log_sink;
mod metrics;
mod notify;
mod relayed;
mod reload;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::TestServer;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A server on loopback with this configuration besides its listeners, relays and secret.
pub(crate) fn config(more: &str) -> String {
    format!(
        "workers = 2\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\", \"tls\"]\n\
         [tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n\
         [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nports = \"10000-29999\"\n\
         [[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n{more}"
    )
}

/// The address of the endpoint, from the log.
pub(crate) fn endpoint(server: &TestServer) -> String {
    let line = support::wait_until("the endpoint in the log", LIMIT, || {
        server
            .log()
            .lines()
            .find(|line| line.contains("serving /metrics") && line.contains("127.0.0.1:"))
            .map(str::to_owned)
    });
    let plain: String = line.replace("\u{1b}", "");
    plain.rsplit("127.0.0.1:").next().map(|port| format!("127.0.0.1:{}", port.trim())).unwrap()
}

/// Status line and whole response of one request.
pub(crate) fn http(address: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let status = response.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{response}"));
    (status, response)
}

pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    let (status, response) = http(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

/// The samples of one scrape: name with labels, and value.
pub(crate) struct Scrape(pub(crate) BTreeMap<String, f64>);

impl Scrape {
    pub(crate) fn of(server: &TestServer) -> Scrape {
        let (status, body) = get(&endpoint(server), "/metrics");
        assert_eq!(status, 200, "{body}");
        Scrape::read(&body)
    }

    /// The samples of an exposition in either format: their lines are the same.
    pub(crate) fn read(exposition: &str) -> Scrape {
        let samples = exposition.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        Scrape(samples.collect())
    }

    /// The sum over the samples of a metric that have this label, written `name="value"`.
    pub(crate) fn sum(&self, metric: &str, label: &str) -> f64 {
        let of_metric = |sample: &str| sample.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{'));
        let values: Vec<f64> = self
            .0
            .iter()
            .filter(|(sample, _)| of_metric(sample) && sample.split(['{', ',', '}']).any(|pair| pair == label))
            .map(|(_, value)| *value)
            .collect();
        assert!(!values.is_empty(), "no {metric} with {label} among {:#?}", self.0.keys());
        values.iter().sum()
    }

    /// The value of a sample written as in the exposition.
    pub(crate) fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name} among {:#?}", self.0.keys()))
    }
}
