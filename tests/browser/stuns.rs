//! What Chromium does with a `stuns:` URL, which is why udp belongs beside tls.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Spec, TestServer, Transport, free_port, require_tool, run, run_with_input, target_dir};
use crate::{BROWSER_LIMIT, INSTALL_LIMIT, must_succeed};

/// What gathering may take where every server answers; where one does not, Chromium waits for more than nine seconds.
const PROMPT_MS: u64 = 5000;

#[test]
fn chromium_asks_the_port_of_a_stuns_url_by_plain_udp_and_hangs_where_nobody_answers() {
    let port = free_port();
    let served = |transports: &[Transport]| {
        let listeners = transports.iter().map(|transport| (*transport, format!("127.0.0.1:{port}"))).collect();
        Spec { listeners, ..Spec::local() }.start()
    };
    let with_udp = served(&[Transport::Udp, Transport::Tls]);
    let result = gather(&with_udp);
    assert_eq!((&result["isComplete"], &result["errors"]), (&json!(true), &json!([])), "{result:#}");
    drop(with_udp);
    // Somebody must drop what is sent there: a closed port is refused at once, as no firewall does.
    let _silent = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let without = served(&[Transport::Tls]);
    let result = gather(&without);
    assert_eq!(result["isComplete"], false, "it speaks TLS now? then the udp is no longer needed: {result:#}");
}

fn gather(server: &TestServer) -> Value {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let target = target_dir();
    must_succeed(&run(Command::new(tests.join("setup.sh")).env("CARGO_TARGET_DIR", &target), INSTALL_LIMIT));
    let url = format!("stuns:{}", server.tls());
    let input = json!({"modules": target.join("test-browser"), "url": url, "limitMs": PROMPT_MS});
    let node = require_tool("node", "nodejs");
    let finished = run_with_input(Command::new(node).arg(tests.join("stuns.mjs")), &input.to_string(), BROWSER_LIMIT);
    must_succeed(&finished);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.all_output()))
}
