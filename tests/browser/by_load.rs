//! Browsers that go from a node above its load to one of its fleet with room: two nodes on one host, Chromium on another one, since it
//! does not follow a redirect to loopback. Firefox runs the self-test of the first node's page, on the host of both.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use turnstone::stun::{Class, Encoder, ErrorCode, Message, Method, TransactionId};

use crate::drain::{FIRST, Net, SECOND, assert_relayed_by, urls};
use crate::page::{TOKEN, page_of};
use crate::support::{hold_allocation, require_tool, run_with_input, target_dir, wait_until};
use crate::{BROWSER_LIMIT, Browser, LIMIT, must_succeed};

/// So many allocations the first node takes before it sends newcomers away. The second one takes what the browsers want.
const MOST: [usize; 2] = [2, 100];

/// Both nodes, the first of which sends newcomers to the second one.
fn loaded(folder: &TempDir) -> (Net, Vec<UdpSocket>) {
    let url = |n: usize| format!("unix:{}/{n}.sock", folder.path().display());
    let node = |n: usize| {
        format!(
            "[fleet]\nname = \"turn{n}\"\nlisten = \"{}\"\nnodes = [\"{}\", \"{}\"]\n[redirect]\nfleet = true\nfrom-allocations = {}\n",
            url(n),
            url(1),
            url(2),
            MOST[n - 1]
        )
    };
    let page = format!("[admin]\nlisten = \"127.0.0.1:0\"\npage = true\ntoken = \"{TOKEN}\"\n");
    let net = Net::of(&[node(1) + &page, node(2)]);
    let held = (0..MOST[0]).map(|_| {
        let socket = net.servers.enter(|| UdpSocket::bind((FIRST, 0)).unwrap());
        socket.connect((FIRST, 3478)).unwrap();
        hold_allocation(&socket, net.first.credentials("holder"));
        socket
    });
    let held = held.collect();
    // It has said that it has room, and takes everybody for a while.
    let is_sent_away = || {
        let newcomer = net.servers.enter(|| UdpSocket::bind((FIRST, 0)).unwrap());
        newcomer.set_read_timeout(Some(LIMIT)).unwrap();
        newcomer.connect((FIRST, 3478)).unwrap();
        let (mut request, mut answer) = (Vec::new(), [0; 1024]);
        Encoder::new(&mut request, Class::Request, Method::ALLOCATE, TransactionId([7; 12]));
        newcomer.send(&request).unwrap();
        let length = newcomer.recv(&mut answer).unwrap();
        Message::parse(&answer[..length]).unwrap().error_code() == Some(ErrorCode::TRY_ALTERNATE)
    };
    wait_until("newcomers to be sent away", LIMIT, || is_sent_away().then_some(()));
    (net, held)
}

#[test]
fn chromium_goes_from_a_node_above_its_load_to_one_with_room_over_udp_tcp_and_tls() {
    let folder = TempDir::new().unwrap();
    let (net, _held) = loaded(&folder);
    let runs: Vec<Value> = urls().iter().map(|(transport, url)| net.call(transport, url)).collect();
    let results = net.browse(&net.browser(), &runs);
    for (transport, _) in urls() {
        let result = &results[transport];
        assert_eq!(result["connected"], true, "{result:#}\n{}\n{}", net.first.log(), net.second.log());
        assert_eq!(result["receivedSha256"], result["expectedSha256"], "{result:#}");
        assert_relayed_by(&result["pair"], SECOND, transport, result);
    }
}

#[test]
fn firefox_goes_from_a_node_above_its_load_to_one_with_room_over_udp_and_tcp() {
    require_tool("firefox-esr", "firefox-esr");
    let folder = TempDir::new().unwrap();
    let (net, _held) = loaded(&folder);
    // Of several addresses it uses the one that the rest of the world is reached from.
    net.servers.default_route("5.45.0.9");
    let browser = Browser::new(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/firefox.mjs");
    let listeners = ["udp", "tcp"].map(|transport| format!(":{FIRST}:3478?transport={transport}"));
    let input = json!({
        "modules": target_dir().join("test-browser"),
        "home": browser.home.path(),
        "url": format!("{}#token={TOKEN}", page_of(&net.first)),
        "listeners": listeners,
    });
    let mut command = Command::new("ip");
    command.args(["netns", "exec", net.servers.name()]).arg(&browser.node).arg(script);
    let finished = run_with_input(&mut command, &input.to_string(), BROWSER_LIMIT);
    must_succeed(&finished);
    let result: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.all_output()));
    let good = result["good"].as_array().unwrap_or_else(|| panic!("{result:#}"));
    for of in good {
        assert_eq!(of["outcome"], "works", "{result:#}\n{}\n{}", net.first.log(), net.second.log());
    }
    for transport in ["udp", "tcp"] {
        let line = format!("transport={transport}");
        let ended = |log: String| log.lines().any(|ended| ended.contains("allocation ended") && ended.contains(&line));
        wait_until("the end of the allocations", LIMIT, || ended(net.second.log()).then_some(()));
        assert!(!ended(net.first.log()), "{}", net.first.log());
    }
}
