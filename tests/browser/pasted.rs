//! The line that `serve --dev` prints, pasted into a page as it stands.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Running, require_tool, run, run_with_input, target_dir};
use crate::{BROWSER_LIMIT, INSTALL_LIMIT, must_succeed};

#[test]
fn chromium_gets_a_relayed_candidate_by_the_line_of_serve_dev() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(["serve", "--dev"]).env_clear().stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("RTCPeerConnection")).unwrap();

    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let target = target_dir();
    must_succeed(&run(Command::new(tests.join("setup.sh")).env("CARGO_TARGET_DIR", &target), INSTALL_LIMIT));
    let input = json!({"modules": target.join("test-browser"), "line": line});
    let node = require_tool("node", "nodejs");
    let finished = run_with_input(Command::new(node).arg(tests.join("pasted.mjs")), &input.to_string(), BROWSER_LIMIT);
    must_succeed(&finished);
    assert_eq!(finished.stdout.trim(), "relay", "{line}\n{}", finished.all_output());
}
