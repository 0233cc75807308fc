//! What `turnstone probe` says that browsers do with a page's servers, held against Chromium and Firefox.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{require_tool, run, run_with_input, target_dir};
use crate::{BROWSER_LIMIT, INSTALL_LIMIT, must_succeed};

const NONE: &str = "";
const SYNTAX: &str = "SyntaxError";
const ACCESS: &str = "InvalidAccessError";
const TYPE: &str = "TypeError";

/// Lists of servers, and what Chromium and Firefox throw at each; nobody listens there.
fn cases() -> Vec<(String, &'static str, &'static str)> {
    let mut cases = Vec::new();
    for (list, chromium, firefox) in [
        ("[{ urls: 'stun:127.0.0.1:4999' }]", NONE, NONE),
        ("[{ urls: ['stun:127.0.0.1:4999', 'stun:127.0.0.1:4999'] }]", NONE, NONE),
        ("[{ url: 'stun:127.0.0.1:4999' }]", NONE, NONE),
        ("[{ urls: 'stuns:127.0.0.1:4999' }]", NONE, "NotSupportedError"),
        ("[{ urls: 'stun:127.0.0.1:4999?transport=udp' }]", SYNTAX, SYNTAX),
        ("{ urls: 'stun:127.0.0.1:4999' }", TYPE, TYPE),
        ("[{}]", TYPE, TYPE),
        ("[{ urls: [] }]", SYNTAX, SYNTAX),
        ("[{ urls: '' }]", SYNTAX, SYNTAX),
        ("[{ urls: 'turn:127.0.0.1:4999' }]", ACCESS, ACCESS),
        ("[{ urls: 'turn:127.0.0.1:4999', username: 'u' }]", ACCESS, ACCESS),
        ("[{ urls: 'turn:127.0.0.1:4999', username: '', credential: 'p' }]", ACCESS, NONE),
        ("[{ urls: 'turn:127.0.0.1:4999', username: 'u', credential: '' }]", ACCESS, ACCESS),
        ("[{ urls: 'turn:127.0.0.1:4999', username: 7, credential: null }]", NONE, NONE),
        ("[{ urls: 'turn:127.0.0.1:4999', username: 'u', credential: {}, credentialType: 'oauth' }]", NONE, TYPE),
    ] {
        cases.push((list.to_owned(), chromium, firefox));
    }
    for (url, chromium, firefox) in [
        ("turn:127.0.0.1:4999", NONE, NONE),
        ("turns:127.0.0.1:4999?transport=udp", NONE, NONE),
        ("turn:[::1]:4999", NONE, NONE),
        ("Turn:127.0.0.1:4999?transport=tcp", NONE, NONE),
        ("turn:127.0.0.1:4999?transport=UDP", NONE, SYNTAX),
        ("turn:127.0.0.1:4999?transport=tls", SYNTAX, SYNTAX),
        ("turn:127.0.0.1:4999?x=1", SYNTAX, SYNTAX),
        ("turn:127.0.0.1:53", NONE, NONE),
        ("turn:127.0.0.1:443?transport=tcp", NONE, NONE),
        ("turn:127.0.0.1:25", NONE, SYNTAX),
        ("stun:127.0.0.1:5060", NONE, SYNTAX),
        ("turn:127.0.0.1:10080", NONE, SYNTAX),
        ("turn:127.0.0.1:995", NONE, SYNTAX),
        ("turn:127.0.0.1:500", NONE, NONE),
        ("turn:127.0.0.1:", SYNTAX, NONE),
        ("turn:127.0.0.1:0", SYNTAX, SYNTAX),
        ("turn:127.0.0.1:65536", SYNTAX, SYNTAX),
        ("turn://127.0.0.1", SYNTAX, SYNTAX),
        ("turn:u@127.0.0.1", SYNTAX, SYNTAX),
        ("turn:::1", SYNTAX, SYNTAX),
        ("turn:a..b", NONE, NONE),
        ("turn:192.0.2", NONE, NONE),
        ("turn:a~b", NONE, NONE),
        ("http:127.0.0.1", SYNTAX, SYNTAX),
    ] {
        cases.push((format!("[{{ urls: '{url}', username: 'u', credential: 'p' }}]"), chromium, firefox));
    }
    let long =
        |bytes| format!("[{{ urls: 'turn:127.0.0.1:4999', username: '{}', credential: 'p' }}]", "u".repeat(bytes));
    cases.push((long(509), NONE, NONE));
    cases.push((long(510), ACCESS, ACCESS));
    cases
}

#[test]
fn probe_says_of_each_list_whether_a_browser_throws() {
    let (node, target) = (require_tool("node", "nodejs"), target_dir());
    require_tool("firefox-esr", "firefox-esr");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    must_succeed(&run(Command::new(tests.join("setup.sh")).env("CARGO_TARGET_DIR", &target), INSTALL_LIMIT));
    let (home, cases) = (tempfile::tempdir().unwrap(), cases());
    let lists: Vec<&str> = cases.iter().map(|(list, _, _)| list.as_str()).collect();
    let input = json!({"modules": target.join("test-browser"), "home": home.path(), "lists": lists}).to_string();
    let finished = run_with_input(Command::new(node).arg(tests.join("ice_servers.mjs")), &input, BROWSER_LIMIT);
    must_succeed(&finished);
    let thrown: Value = serde_json::from_str(&finished.stdout).unwrap();
    for (index, (list, chromium, firefox)) in cases.iter().enumerate() {
        let found = (thrown["chromium"][index].as_str().unwrap(), thrown["firefox"][index].as_str().unwrap());
        assert_eq!(found, (*chromium, *firefox), "{list}: a browser has changed its mind");
        assert_eq!(says_that_it_throws(list), !chromium.is_empty() || !firefox.is_empty(), "{list}");
    }
}

fn says_that_it_throws(list: &str) -> bool {
    let mut probe = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    // The list is a property in the page: what is an object there, is no array.
    let block = format!("{{ iceServers: {list} }}");
    let finished = run_with_input(probe.args(["probe", "-", "--json", "--timeout", "0.2"]), &block, BROWSER_LIMIT);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{}", finished.all_output()));
    let targets = report["targets"].as_array().unwrap();
    targets.iter().flat_map(|target| target["steps"].as_array().unwrap()).any(|step| !step["facts"]["throws"].is_null())
}
