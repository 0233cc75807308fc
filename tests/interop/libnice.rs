//! libnice, the ICE stack of GNOME and of many C programs: two agents that may only use relayed candidates.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Credentials, Spec, TestServer, Transport, require_tool, run};

pub(crate) const MESSAGES: u64 = 100;

#[test]
fn libnice_agents_exchange_messages_over_relays_reached_by_udp_and_tcp() {
    let server = Spec::local().start();
    for transport in [Transport::Udp, Transport::Tcp] {
        let result = nice_pair(&server, transport, &server.credentials("libnice"));
        let gathered = result["gathered"].as_array().unwrap();
        assert!(gathered.iter().all(|line| line.as_str().unwrap().contains("typ relay")), "{result:#}");
        assert_eq!(result["received"], json!([MESSAGES, MESSAGES]), "over {}: {result:#}", transport.name());
    }
}

#[test]
fn libnice_gathers_nothing_with_a_wrong_or_expired_credential() {
    let server = Spec::local().start();
    let wrong = Credentials { password: "guessed".to_owned(), ..server.credentials("mallory") };
    for refused in [wrong, server.expired_credentials("late")] {
        assert_eq!(nice_pair(&server, Transport::Udp, &refused)["gathered"], json!([]));
    }
}

pub(crate) fn nice_pair(server: &TestServer, transport: Transport, credentials: &Credentials) -> Value {
    nice_pair_at(server.address(transport, "127.0.0.1"), transport.name(), credentials)
}

/// The same at any address; `tls` is what libnice takes for it: plain STUN.
pub(crate) fn nice_pair_at(address: SocketAddr, transport: &str, credentials: &Credentials) -> Value {
    // The bindings belong to the system's interpreter, which need not be the first one on the path.
    let python = Path::new("/usr/bin/python3");
    require_tool("python3", "python3");
    let importable = run(
        Command::new(python)
            .args(["-c", "import gi; gi.require_version('Nice', '0.1'); from gi.repository import Nice"]),
        Duration::from_secs(20),
    );
    assert_eq!(
        importable.code,
        Some(0),
        "this test needs libnice for Python: install the Debian packages gir1.2-nice-0.1 and python3-gi\n{}",
        importable.stderr
    );
    let config = json!({
        "host": address.ip(),
        "port": address.port(),
        "transport": transport,
        "username": credentials.username,
        "password": credentials.password,
        "messages": MESSAGES,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/nice_pair.py");
    let finished = run(Command::new(python).arg(script).arg(config.to_string()), Duration::from_secs(40));
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.all_output()))
}
