//! What is read from outside: memory, what the kernel dropped, metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::PATIENCE;
use crate::support::{TestServer, wait_until};

/// Resident memory of the server's own in bytes: without the pages of its program file.
pub(crate) fn resident(server: &TestServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    kib.unwrap().parse::<u64>().unwrap() << 10
}

/// The most that it was in the first half of `time`, and until `stop`.
pub(crate) fn most_resident(server: &TestServer, time: Duration, stop: &AtomicBool) -> [u64; 2] {
    let (start, mut most) = (Instant::now(), [0; 2]);
    while !stop.load(Ordering::Relaxed) {
        let now = resident(server);
        most[1] = now.max(most[1]);
        if start.elapsed() < time / 2 {
            most[0] = most[1];
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    most
}

/// What it is as soon as it is no more than `goal`, or at the end of `limit`.
pub(crate) fn settled(server: &TestServer, goal: u64, limit: Duration) -> u64 {
    let end = Instant::now() + limit;
    while resident(server) > goal && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    resident(server)
}

/// Datagrams that the kernel dropped at IPv4 sockets on a port: proc_net_udp(5).
pub(crate) fn kernel_drops_at(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let port = format!(":{port:04X}");
    let sockets = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    sockets
        .filter(|fields| fields[1].ends_with(&port))
        .map(|fields| fields.last().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Packets that the kernel dropped before any socket had them, because a core's queue of what came over loopback was full: the second
/// column of softnet_stat, over all cores.
pub(crate) fn backlog_drops() -> u64 {
    let table = std::fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    let dropped = table.lines().filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok());
    dropped.sum()
}

/// The address of `[metrics]`, from the log.
pub(crate) fn endpoint(server: &TestServer) -> SocketAddr {
    let port = wait_until("the endpoint in the log", PATIENCE, || {
        let log = server.log().replace('\u{1b}', "");
        let line = log.lines().find(|line| line.contains("serving /metrics"))?;
        line.rsplit("127.0.0.1:").next()?.trim().parse::<u16>().ok()
    });
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The server's own counters.
pub(crate) struct Metrics(SocketAddr);

impl Metrics {
    pub(crate) fn of(server: &TestServer) -> Metrics {
        Metrics(endpoint(server))
    }

    /// Datagrams that the kernel dropped at listeners and relays.
    pub(crate) fn kernel_drops(&self) -> u64 {
        let text = get(self.0, "/metrics");
        let samples = text.lines().filter(|line| line.starts_with("turnstone_kernel_receive_drops_total{"));
        samples.map(|sample| sample.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }
}

/// Asks `/healthz` again and again; the longest that it took.
pub(crate) fn health(address: SocketAddr, stop: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        get(address, "/healthz");
        longest = longest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(250));
    }
    longest
}

/// The answer to a request, its head included.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    response
}
