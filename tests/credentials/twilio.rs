//! Twilio's own package for Python, pointed at the server.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::api::Api;
use crate::support::{Credentials, TestServer, Transport, require_tool, run, target_dir};
use crate::wire::Wire;
use crate::{KEY, LIMIT, PLAIN, config};

const INSTALL_LIMIT: Duration = Duration::from_secs(300);

#[test]
fn twilio_s_package_gets_a_token_and_its_errors() {
    require_tool("python3", "python3-venv");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/credentials");
    let target = target_dir();
    let setup = run(Command::new(tests.join("setup.sh")).env("CARGO_TARGET_DIR", &target), INSTALL_LIMIT);
    assert_eq!(setup.code, Some(0), "{}", setup.all_output());
    let server = TestServer::start(&config(&format!("{PLAIN}\nshapes = [\"twilio\"]"), ""));
    let base_url = format!("http://{}", Api::of(&server).address);
    let client = |args: &[&str]| -> Value {
        let mut command = Command::new(target.join("test-venv-twilio/bin/python"));
        let finished = run(command.arg(tests.join("twilio_client.py")).arg(&base_url).args(args), LIMIT);
        assert_eq!(finished.code, Some(0), "{}", finished.all_output());
        serde_json::from_str(&finished.stdout).unwrap()
    };
    let token = client(&["backend", KEY, "3600"]);
    assert_eq!((&token["account_sid"], &token["ttl"]), (&"backend".into(), &"3600".into()));
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{token}")).to_owned();
    let credentials = Credentials { username: text(&token["username"]), password: text(&token["password"]) };
    Wire::connect(&server, Transport::Tls, &credentials).allocate().unwrap();
    let servers = token["ice_servers"].as_array().unwrap();
    assert_eq!(servers.len(), 4, "{servers:?}");
    assert_eq!(servers[0], serde_json::json!({"url": servers[0]["url"], "urls": format!("stun:{}", server.udp())}));
    assert_eq!(servers[1]["urls"], format!("turn:{}?transport=udp", server.udp()));
    assert!(servers[1..].iter().all(|entry| entry["credential"] == token["password"]));
    assert!(token["date_created"].as_f64().unwrap() > 1.7e9, "a date that the package can read: {token}");
    assert_eq!(client(&["backend", KEY])["ttl"], "86400");

    let wrong = client(&["backend", "tsk_wrong"]);
    assert_eq!((&wrong["status"], &wrong["code"]), (&401.into(), &20_003.into()), "{wrong}");
    let long = client(&["backend", KEY, "90000"]);
    assert_eq!(long["status"], 400);
    assert!(text(&long["message"]).contains("from 1 to 86400"), "{long}");
}
