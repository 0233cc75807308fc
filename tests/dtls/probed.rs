//! `turnstone probe` and `turnstone doctor` over DTLS.

use std::process::Command;

use serde_json::Value;

use crate::support::run;
use crate::{LIMIT, Server};

fn turnstone(arguments: &[&str]) -> (Option<i32>, Value) {
    let finished = run(Command::new(env!("CARGO_BIN_EXE_turnstone")).args(arguments), LIMIT);
    let json =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.all_output()));
    (finished.code, json)
}

fn statuses(steps: &Value) -> Vec<(String, String)> {
    let text = |step: &Value, key: &str| step[key].as_str().unwrap().to_owned();
    steps.as_array().unwrap().iter().map(|step| (text(step, "step"), text(step, "status"))).collect()
}

#[test]
fn a_server_is_probed_from_end_to_end_over_dtls() {
    let server = Server::start("", "");
    let url = format!("turns:{}?transport=udp", server.address);
    let (authority, secret) = (server.authority(), server.inner.file("secret"));
    let login = ["--user", "probe", "--secret-file", &secret, "--json"];
    let (code, json) = turnstone(&[&["probe", &url, "--ca", &authority][..], &login].concat());
    let of_address = &json["targets"][0]["addresses"][0];
    assert_eq!((code, of_address["transport"].as_str()), (Some(0), Some("dtls")), "{json:#}");
    let found = statuses(&of_address["steps"]);
    for step in ["tls", "certificate", "alpn", "binding", "unauthenticated", "echo-send", "echo-channel", "mobility"] {
        assert!(found.contains(&(step.to_owned(), "ok".to_owned())), "{step}: {json:#}");
    }
    assert!(json.to_string().contains("DTLS 1.2") && json.to_string().contains("\"chosen\":\"stun.turn\""), "{json:#}");
    // One that nobody here trusts is a failure, as over TLS.
    let (code, json) = turnstone(&["probe", &url, "--json"]);
    let found = statuses(&json["targets"][0]["addresses"][0]["steps"]);
    let is_refused = found.contains(&("certificate".to_owned(), "fail".to_owned()));
    assert!(code == Some(2) && is_refused && found.iter().all(|(step, _)| step != "binding"), "{json:#}");
}

#[test]
fn a_port_without_dtls_is_said_to_be_none() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("turns:{}?transport=udp", silent.local_addr().unwrap());
    let (code, json) = turnstone(&["probe", &url, "--json", "--timeout", "1"]);
    assert_eq!(code, Some(2));
    assert!(json.to_string().contains("no answer to the DTLS handshake"), "{json:#}");
}

#[test]
fn the_doctor_tries_dtls_listeners_and_datagrams_behind_a_proxy_too() {
    let server = Server::start("proxy-from = [\"127.0.0.1\"]", "");
    let (config, authority) = (server.inner.file("turnserver.toml"), server.authority());
    let (_, json) = turnstone(&["doctor", "--config", &config, "--ca", &authority, "--json"]);
    let listeners = json["listeners"].as_array().unwrap();
    let of: Vec<_> = listeners.iter().map(|target| target["addresses"][0]["transport"].as_str().unwrap()).collect();
    assert_eq!(of, ["udp", "dtls"], "{json:#}");
    for target in listeners {
        let found = statuses(&target["addresses"][0]["steps"]);
        assert!(found.contains(&("binding".to_owned(), "ok".to_owned())), "{target:#}");
    }
}
