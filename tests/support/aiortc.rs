//! WebRTC peers made by aiortc, each a process of its own; the test carries their signalling.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::credentials::Credentials;
use super::process::{Interactive, require_tool, run, target_dir};

const INSTALL_LIMIT: Duration = Duration::from_secs(300);
/// Starting Python and gathering candidates: a second, or much more on a busy machine.
const GATHERING_LIMIT: Duration = Duration::from_secs(60);
const TRANSFER_LIMIT: Duration = Duration::from_secs(60);

/// One entry of a peer connection's `iceServers`.
#[derive(Clone, Debug)]
pub struct IceServer {
    pub url: String,
    pub credentials: Option<Credentials>,
}

/// What an aiortc process needs.
#[derive(Clone, Debug)]
pub struct PeerSetup {
    pub ice_servers: Vec<IceServer>,
    pub relay_only: bool,
    /// The network namespace it runs in.
    pub namespace: Option<String>,
    /// An authority to trust for `turns:`.
    pub authority_file: Option<String>,
}

/// Lets two peers connect and one send `bytes` to the other. Says the candidate types (local, remote) of the selected pair as
/// the offering side sees it, or `None` when ICE found no way within `ice_limit` (it gives up by itself only after a minute);
/// any other trouble, such as bytes that differ, fails the test.
pub fn connect_pair(
    offering: &PeerSetup,
    answering: &PeerSetup,
    bytes: usize,
    ice_limit: Duration,
) -> Option<(String, String)> {
    let python = python();
    let mut offering = start(&python, offering, "offer", bytes);
    let mut answering = start(&python, answering, "answer", bytes);
    let offer = offering.next_line(GATHERING_LIMIT);
    answering.send_line(&offer);
    let answer = answering.next_line(GATHERING_LIMIT);
    offering.send_line(&answer);

    let state = parse_json(&offering.line_within(ice_limit)?);
    if state["state"] == "failed" {
        return None;
    }
    let pair = &state["pair"];
    let pair = (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned());
    let digests = read_json(&mut offering, TRANSFER_LIMIT);
    assert!(digests["sent"].is_string(), "no digest came back but {digests}");
    assert_eq!(digests["sent"], digests["received"], "the data channel changed the bytes");
    Some(pair)
}

/// The candidates of an offer that a peer with this setup makes.
pub fn offered_candidates(setup: &PeerSetup) -> Vec<String> {
    let mut peer = start(&python(), setup, "offer", 0);
    let offer = read_json(&mut peer, GATHERING_LIMIT);
    let sdp = offer["sdp"].as_str().unwrap();
    sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:")).map(str::to_owned).collect()
}

fn start(python: &Path, setup: &PeerSetup, role: &str, bytes: usize) -> Interactive {
    let ice_servers: Vec<Value> = setup
        .ice_servers
        .iter()
        .map(|server| match &server.credentials {
            Some(login) => json!({"urls": server.url, "username": login.username, "credential": login.password}),
            None => json!({"urls": server.url}),
        })
        .collect();
    let policy = if setup.relay_only { "relay" } else { "all" };
    let config = json!({"role": role, "ice_servers": ice_servers, "policy": policy, "bytes": bytes});
    let mut command = match &setup.namespace {
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(python);
            command
        }
        None => Command::new(python),
    };
    if let Some(authority) = &setup.authority_file {
        command.env("SSL_CERT_FILE", authority);
    }
    command.arg(manifest_dir().join("tests/support/aiortc_peer.py")).arg(config.to_string());
    Interactive::start(&mut command)
}

/// The interpreter of the environment that `tests/interop/setup.sh` makes, which this does on demand.
/// The interpreter with aiortc and the `cryptography` package that it brings.
pub fn python() -> PathBuf {
    require_tool("python3", "python3-venv");
    let target = target_dir();
    let mut setup = Command::new(manifest_dir().join("tests/interop/setup.sh"));
    setup.env("CARGO_TARGET_DIR", &target);
    let finished = run(&mut setup, INSTALL_LIMIT);
    assert_eq!(finished.code, Some(0), "tests/interop/setup.sh failed:\n{}", finished.all_output());
    target.join("test-venv/bin/python")
}

fn read_json(peer: &mut Interactive, limit: Duration) -> Value {
    parse_json(&peer.next_line(limit))
}

fn parse_json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
}

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
