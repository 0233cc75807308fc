//! A drain that Chromium follows: two servers on one host, the browser on another. It does not follow a redirect to loopback.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::support::{Spec, TestServer, Transport, hold_allocation, wait_until};
use crate::{BROWSER_LIMIT, Browser, ice_server};

pub(crate) const FIRST: &str = "5.45.0.2";
pub(crate) const SECOND: &str = "5.45.0.3";
/// What clients over TLS call the first server. Chromium forgets it when it is redirected, and holds the alternate's certificate against
/// the alternate's address.
const NAME: &str = "turn.test";
const BYTES: usize = 1024 * 1024;

/// Both servers and the browser's host. Fields are dropped in order: the servers before their namespace.
pub(crate) struct Net {
    pub(crate) first: TestServer,
    pub(crate) second: TestServer,
    pub(crate) servers: Namespace,
    clients: Namespace,
}

impl Net {
    fn new() -> Net {
        let alternates = format!("[\"{SECOND}:3478\", \"tls://{SECOND}:5349\"]");
        Net::of(&[format!("[drain]\ndeadline = \"1h\"\nalternate-server = {alternates}\n"), String::new()])
    }

    /// With this besides in the configuration of each.
    pub(crate) fn of(more: &[String; 2]) -> Net {
        let (servers, clients) = (Namespace::create("servers"), Namespace::create("clients"));
        let addresses = [FIRST, SECOND].map(|ip| format!("{ip}/24"));
        servers.connect(("eth0", &addresses.each_ref().map(String::as_str)), &clients, ("eth0", &["5.45.0.9/24"]));
        let [first, second] = more;
        Net { first: server(&servers, FIRST, first), second: server(&servers, SECOND, second), servers, clients }
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::new(&[&self.first, &self.second].map(|server| server.file("authority.pem")))
    }

    pub(crate) fn browse(&self, browser: &Browser, runs: &[Value]) -> Value {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.clients.name()]).arg(&browser.node);
        browser.results(command, &json!({ NAME: FIRST }), runs)
    }

    /// A call by the first server only.
    pub(crate) fn call(&self, name: &str, url: &str) -> Value {
        json!({"name": name, "iceServers": [ice_server(url, &self.first.credentials("browser"))], "bytes": BYTES})
    }

    /// Lets the first server drain. It needs an allocation, or it ends.
    fn drain(&self) {
        self.first.signal(Signal::USR1);
        wait_until("the drain", BROWSER_LIMIT, || self.first.log().contains("draining").then_some(()));
    }

    /// An allocation of the first server's.
    fn hold(&self) {
        let socket = self.servers.enter(|| std::net::UdpSocket::bind((FIRST, 0)).unwrap());
        socket.connect((FIRST, 3478)).unwrap();
        hold_allocation(&socket, self.first.credentials("holder"));
    }
}

fn server(namespace: &Namespace, ip: &str, extra_toml: &str) -> TestServer {
    let listeners = [(Transport::Udp, 3478), (Transport::Tcp, 3478), (Transport::Tls, 5349)];
    Spec {
        listeners: listeners.map(|(transport, port)| (transport, format!("{ip}:{port}"))).to_vec(),
        relay_ipv4: Some(ip.to_owned()),
        relay_ipv6: None,
        dev: false,
        namespace: Some(namespace.name().to_owned()),
        certificate_names: vec![NAME.to_owned(), ip.to_owned()],
        extra_toml: extra_toml.to_owned(),
        ..Spec::local()
    }
    .start()
}

pub(crate) fn urls() -> [(&'static str, String); 3] {
    [
        ("udp", format!("turn:{FIRST}:3478?transport=udp")),
        ("tcp", format!("turn:{FIRST}:3478?transport=tcp")),
        ("tls", format!("turns:{NAME}:5349")),
    ]
}

pub(crate) fn assert_relayed_by(pair: &Value, ip: &str, transport: &str, result: &Value) {
    for (key, value) in [("local", "relay"), ("remote", "relay"), ("address", ip), ("relayProtocol", transport)] {
        assert_eq!(pair[key], value, "{result:#}");
    }
}

#[test]
fn chromium_follows_a_draining_server_to_the_alternate_over_udp_tcp_and_tls() {
    let net = Net::new();
    net.hold();
    net.drain();
    let runs: Vec<Value> = urls().iter().map(|(transport, url)| net.call(transport, url)).collect();
    let both = ice_server(&format!("turn:{SECOND}:3478?transport=udp"), &net.second.credentials("browser"));
    let mut listed = net.call("listed", &urls()[0].1);
    listed["iceServers"].as_array_mut().unwrap().push(both);
    let results = net.browse(&net.browser(), &[runs, vec![listed]].concat());
    for (run, transport) in [("udp", "udp"), ("tcp", "tcp"), ("tls", "tls"), ("listed", "udp")] {
        let result = &results[run];
        assert_eq!(result["connected"], true, "{result:#}\n{}\n{}", net.first.log(), net.second.log());
        assert_eq!(result["receivedSha256"], result["expectedSha256"], "{result:#}");
        assert_relayed_by(&result["pair"], SECOND, transport, result);
    }
}

#[test]
fn a_call_moves_from_a_draining_server_to_the_alternate_by_an_ice_restart() {
    let net = Net::new();
    let (browser, folder) = (net.browser(), TempDir::new().unwrap());
    let paths = urls().map(|(transport, _)| folder.path().join(transport));
    let runs = urls().into_iter().zip(&paths).map(|((transport, url), path)| {
        let mut call = net.call(transport, &url);
        call["restartWhen"] = json!(path);
        call
    });
    let runs: Vec<Value> = runs.collect();
    let results = std::thread::scope(|scope| {
        let results = scope.spawn(|| net.browse(&browser, &runs));
        let reached = || paths.iter().all(|path| path.with_extension("reached").exists());
        wait_until("the calls", BROWSER_LIMIT, || (reached() || results.is_finished()).then_some(()));
        net.drain();
        for path in &paths {
            std::fs::write(path, "").unwrap();
        }
        results.join().unwrap()
    });
    for (transport, _) in urls() {
        let result = &results[transport];
        assert_relayed_by(&result["pair"], FIRST, transport, result);
        assert_relayed_by(&result["restarted"], SECOND, transport, result);
        assert_eq!(result["restarted"]["receivedSha256"], result["expectedSha256"], "{result:#}");
    }
}
