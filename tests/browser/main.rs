//! Headless Chromium against the running server: two peer connections that may only use relayed candidates, a data channel with
//! a checksum and a camera picture.

// Helpers of tests fail by panicking; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

// Of what it has, `tests/netns` uses more.
#[allow(dead_code)]
#[path = "../netns/namespace.rs"]
mod namespace;
#[path = "../support/mod.rs"]
mod support;

// Of what it has, `tests/admin` uses more.
#[allow(dead_code)]
#[path = "../admin/wire.rs"]
mod wire;

mod by_load;
mod credentials;
mod drain;
mod ice_servers;
mod page;
mod pasted;
mod shared;
mod stuns;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use support::{Credentials, Finished, Spec, TestServer, require_tool, run, run_with_input, target_dir};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
const BROWSER_LIMIT: Duration = Duration::from_secs(120);
const BYTES: usize = 10 * 1024 * 1024;

#[test]
fn chromium_relays_ten_megabytes_and_video_over_udp() {
    let server = Spec::local().start();
    relays(&server, &format!("turn:{}?transport=udp", server.udp()), "udp", Trust::TestAuthority);
}

#[test]
fn chromium_relays_ten_megabytes_and_video_over_relay_ports_that_are_shared() {
    calls_by_shared_ports("127.0.7.6", "3480-3483", &["udp"]);
}

/// Both sides of each call have one relayed address, the same: there is no other.
#[test]
fn chromium_calls_itself_through_one_relay_port_three_times_at_once() {
    calls_by_shared_ports("127.0.7.7", "3480", &["udp", "tcp", "tcp and udp"]);
}

/// Calls at the same time, each with the ways to the server that it is named by.
fn calls_by_shared_ports(relay_ip: &str, ports: &str, calls: &[&str]) {
    let server = Spec {
        relay_ipv4: Some(relay_ip.to_owned()),
        relay_ipv6: Some("off".to_owned()),
        relay_ports: Some(format!("shared:{ports}")),
        ..Spec::local()
    }
    .start();
    let credentials = server.credentials("browser");
    let url = |transport: &str| match transport {
        "udp" => format!("turn:{}?transport=udp", server.udp()),
        _ => format!("turn:{}?transport=tcp", server.tcp()),
    };
    let run = |name: &&str| {
        let servers: Vec<_> = name.split(" and ").map(|transport| ice_server(&url(transport), &credentials)).collect();
        json!({ "name": name, "iceServers": servers, "bytes": BYTES, "video": true })
    };
    let results = browse(&server, Trust::Nobody, &calls.iter().map(run).collect::<Vec<_>>());
    for name in calls {
        let result = &results[name];
        let relay_protocol = result["pair"]["relayProtocol"].as_str().unwrap_or_default();
        assert!(name.contains(relay_protocol), "{result:#}");
        assert_relayed(result, relay_protocol);
    }
}

#[test]
fn chromium_relays_ten_megabytes_and_video_over_tcp() {
    let server = Spec::local().start();
    relays(&server, &format!("turn:{}?transport=tcp", server.tcp()), "tcp", Trust::TestAuthority);
}

#[test]
fn chromium_relays_ten_megabytes_and_video_over_tls_by_host_name_and_by_address() {
    let server = Spec::local().start();
    relays(&server, &format!("turns:localhost:{}", server.tls().port()), "tls", Trust::TestAuthority);
    relays(&server, &format!("turns:{}?transport=tcp", server.tls()), "tls", Trust::TestAuthority);
}

#[test]
fn chromium_reaches_the_server_by_ipv6() {
    let server = Spec::local().start();
    let udp = server.address(support::Transport::Udp, "::1");
    relays(&server, &format!("turn:{udp}?transport=udp"), "udp", Trust::TestAuthority);
}

#[test]
fn chromium_with_a_wrong_or_expired_credential_gets_401_and_no_relayed_candidate() {
    let server = Spec::local().start();
    let wrong = Credentials { password: "guessed".to_owned(), ..server.credentials("mallory") };
    let urls = [
        format!("turn:{}?transport=udp", server.udp()),
        format!("turn:{}?transport=tcp", server.tcp()),
        format!("turns:localhost:{}", server.tls().port()),
    ];
    for refused in [wrong, server.expired_credentials("late")] {
        let runs: Vec<Value> = urls.iter().map(|url| refused_run(url, &refused)).collect();
        let results = browse(&server, Trust::TestAuthority, &runs);
        for url in &urls {
            assert_no_candidate(&results[url], 401);
        }
    }
}

#[test]
fn chromium_refuses_a_server_whose_certificate_it_does_not_trust() {
    let server = Spec::local().start();
    let url = format!("turns:localhost:{}", server.tls().port());
    let results = browse(&server, Trust::Nobody, &[refused_run(&url, &server.credentials("browser"))]);
    assert_no_candidate(&results[&url], 701);
}

#[test]
fn chromium_carries_limits_in_its_username_unchanged_within_the_guard() {
    // Less than the reference calls plenty for a person, and here both ends of the call are one user.
    let extra_toml = "[[peers.policy]]\nname = \"open\"\n\n[guard]\npeers-per-user = 12\nnew-peers-per-minute = 12\n\
                      suspend-after = 3\nloop-packets-per-second = 1000\n";
    let server = Spec { username_limits: true, extra_toml: extra_toml.to_owned(), ..Spec::local() }.start();
    let credentials = server.credentials("browser;bw=900M;alloc=20;peers=open");
    relays_as(&server, &format!("turn:{}?transport=udp", server.udp()), "udp", &credentials, Trust::TestAuthority);
}

fn relays(server: &TestServer, url: &str, relay_protocol: &str, trust: Trust) {
    relays_as(server, url, relay_protocol, &server.credentials("browser"), trust);
}

fn relays_as(server: &TestServer, url: &str, relay_protocol: &str, credentials: &Credentials, trust: Trust) {
    let results = browse(
        server,
        trust,
        &[json!({
            "name": url,
            "iceServers": [ice_server(url, credentials)],
            "bytes": BYTES,
            "video": true,
        })],
    );
    assert_relayed(&results[url], relay_protocol);
}

fn assert_relayed(result: &Value, relay_protocol: &str) {
    assert_eq!(result["connected"], true, "{result:#}");
    assert_eq!(result["receivedSha256"], result["expectedSha256"], "{result:#}");
    assert!(result["expectedSha256"].is_string());
    assert_eq!(result["framesDecoded"].as_array().unwrap().len(), 4, "the picture stands still: {result:#}");
    assert_eq!(result["pair"]["local"], "relay", "{result:#}");
    assert_eq!(result["pair"]["remote"], "relay", "{result:#}");
    assert_eq!(result["pair"]["relayProtocol"], relay_protocol, "{result:#}");
}

fn refused_run(url: &str, credentials: &Credentials) -> Value {
    json!({"name": url, "iceServers": [ice_server(url, credentials)], "bytes": 0, "video": false, "expectRefusal": true})
}

fn assert_no_candidate(result: &Value, error_code: u64) {
    assert_eq!(result["candidates"], json!([]), "{result:#}");
    let errors = result["errors"].as_array().unwrap_or_else(|| panic!("{result:#}"));
    assert!(!errors.is_empty() && errors.iter().all(|error| error["errorCode"] == error_code), "{result:#}");
}

fn ice_server(url: &str, credentials: &Credentials) -> Value {
    json!({"urls": url, "username": credentials.username, "credential": credentials.password})
}

/// Which authorities the browser trusts besides its own list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    TestAuthority,
    Nobody,
}

/// Runs `relay.mjs` in a fresh browser and gives its results by the runs' names.
fn browse(server: &TestServer, trust: Trust, runs: &[Value]) -> Value {
    let authorities = match trust {
        Trust::TestAuthority => vec![server.file("authority.pem")],
        Trust::Nobody => Vec::new(),
    };
    let browser = Browser::new(&authorities);
    browser.results(Command::new(&browser.node), &json!({}), runs)
}

/// A browser with a home directory of its own.
struct Browser {
    home: TempDir,
    node: PathBuf,
}

impl Browser {
    /// One that trusts these authorities besides its own list.
    fn new(authority_files: &[String]) -> Browser {
        require_tool("chromium", "chromium");
        require_tool("npm", "npm");
        let node = require_tool("node", "nodejs");
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/setup.sh");
        must_succeed(&run(Command::new(setup).env("CARGO_TARGET_DIR", target_dir()), INSTALL_LIMIT));
        let home = TempDir::new().unwrap();
        trust_authorities(home.path(), authority_files);
        Browser { home, node }
    }

    /// `node` is the command that `relay.mjs` is an argument of; `resolve` has the addresses of host names.
    fn results(&self, mut node: Command, resolve: &Value, runs: &[Value]) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/relay.mjs");
        let modules = target_dir().join("test-browser");
        let input = json!({"modules": modules, "home": self.home.path(), "resolve": resolve, "runs": runs});
        let finished = run_with_input(node.arg(script), &input.to_string(), BROWSER_LIMIT);
        must_succeed(&finished);
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.all_output()))
    }
}

/// Chromium on Linux reads a user's own authorities from an NSS database in the home directory.
fn trust_authorities(home: &Path, authority_files: &[String]) {
    let certutil = require_tool("certutil", "libnss3-tools");
    let database = home.join(".pki/nssdb");
    std::fs::create_dir_all(&database).unwrap();
    let database = format!("sql:{}", database.display());
    let limit = Duration::from_secs(20);
    must_succeed(&run(Command::new(&certutil).args(["-d", &database, "-N", "--empty-password"]), limit));
    for (number, file) in authority_files.iter().enumerate() {
        let name = format!("test{number}");
        let add = ["-d", &database, "-A", "-n", &name, "-t", "C,,", "-i", file];
        must_succeed(&run(Command::new(&certutil).args(add), limit));
    }
}

fn must_succeed(finished: &Finished) {
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
}
