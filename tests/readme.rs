//! What the README tells people to copy works as it stands.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

#[path = "support/skip.rs"]
mod skip;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use skip::skipped;

const README: &str = include_str!("../README.md");
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The first block of a language that has `needle` in it.
fn block(language: &str, needle: &str) -> &'static str {
    README
        .split(&format!("```{language}\n"))
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap())
        .find(|block| block.contains(needle))
        .unwrap_or_else(|| panic!("the README has no {language} block with {needle}"))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error} (tests/run installs it)"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `username password` on one line must pass the server's own judgement.
fn must_be_valid(printed: &str) {
    let (username, password) = printed.trim().split_once(' ').unwrap_or_else(|| panic!("{printed:?}"));
    assert!(username.ends_with(":alice"), "{username}");
    let verdict = Command::new(env!("CARGO_BIN_EXE_turnstone"))
        .args(["credentials", "verify", username, password])
        .env("TURNSTONE_SECRET", SECRET)
        .env("TURNSTONE_CONFIG", empty_config().path())
        .output()
        .unwrap();
    assert!(verdict.status.success(), "{verdict:?}");
}

fn empty_config() -> &'static tempfile::NamedTempFile {
    static FILE: std::sync::OnceLock<tempfile::NamedTempFile> = std::sync::OnceLock::new();
    FILE.get_or_init(|| tempfile::NamedTempFile::new().unwrap())
}

/// The line that `serve --dev` prints for a page.
fn line_of_serve_dev() -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(["serve", "--dev"]).env_clear().stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("RTCPeerConnection"));
    server.kill().unwrap();
    server.wait().unwrap();
    line.unwrap()
}

/// A browser's view of a line: every RTCIceServer has its fields (W3C WebRTC, RTCConfiguration), and prints their form.
const PAGE: &str = r#"
class RTCPeerConnection {
  constructor(config) {
    for (const server of config.iceServers) {
      const urls = [server.urls].flat();
      if (urls.length === 0 || urls.some((url) => !/^turns?:[^ ]+:[0-9]+[?]transport=(udp|tcp)$/.test(url))) throw new TypeError(urls);
      if (typeof server.username !== "string" || typeof server.credential !== "string") throw new TypeError("no credential");
    }
    console.log(config.iceTransportPolicy, Object.keys(config).join(), config.iceServers.map((s) => Object.keys(s).join()).join());
  }
}
"#;

#[test]
fn the_line_of_serve_dev_works_as_it_stands_and_is_what_is_shown() {
    let printed = line_of_serve_dev();
    let shown = block("js", "RTCPeerConnection");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let forms = [&printed, shown].map(|line| output(Command::new("node").args(["-e", &format!("{PAGE}\n{line}")])));
    assert_eq!(forms[0], forms[1], "{printed}\n{shown}");
    assert!(forms[0].starts_with("relay "), "{}", forms[0]);
}

#[test]
fn the_credentials_made_in_node_are_valid() {
    let code = format!(
        "{}\nconst made = turnCredentials({SECRET:?}, 'alice');\nconsole.log(made.username, made.credential);",
        block("js", "createHmac")
    );
    must_be_valid(&output(Command::new("node").args(["--input-type=module", "-e", &code])));
}

#[test]
fn the_credentials_made_in_python_are_valid() {
    let code = format!(
        "{}\nmade = turn_credentials({SECRET:?}, 'alice')\nprint(made['username'], made['credential'])",
        block("python", "hmac")
    );
    must_be_valid(&output(Command::new("python3").args(["-c", &code])));
}

#[test]
fn the_credentials_made_in_go_are_valid() {
    if Command::new("go").arg("version").output().is_err() {
        skipped("go is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("main.go");
    let imports = "\"crypto/hmac\"\n\"crypto/sha1\"\n\"encoding/base64\"\n\"fmt\"\n\"time\"";
    let code = format!(
        "package main\nimport (\n{imports}\n)\n{}\nfunc main() {{\nfmt.Println(turnCredentials({SECRET:?}, \"alice\", time.Hour))\n}}\n",
        block("go", "hmac")
    );
    std::fs::write(&file, code).unwrap();
    must_be_valid(&output(Command::new("go").arg("run").arg(&file).env("GOCACHE", folder.path())));
}

#[test]
fn the_toml_of_the_readme_is_accepted() {
    let blocks: Vec<_> = README.split("```toml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("turnserver.toml");
        // The certificate of the example does not exist here; everything else is judged.
        let text = block.lines().filter(|line| !line.contains(".pem") && !line.starts_with("[tls]"));
        let text = text.collect::<Vec<_>>().join("\n").replace("\"tls\"", "\"tcp\"");
        std::fs::write(&file, text).unwrap();
        let checked = Command::new(env!("CARGO_BIN_EXE_turnstone"))
            .args(["config", "show", "--relay-ipv4", "192.0.2.1", "--config"])
            .arg(&file)
            .env("TURNSTONE_SECRET", SECRET)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{block}\n{checked:?}");
    }
}

#[test]
fn every_file_the_readme_links_to_exists() {
    for link in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        if !link.starts_with("http") {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(link);
            assert!(path.exists(), "{link} does not exist");
        }
    }
}
