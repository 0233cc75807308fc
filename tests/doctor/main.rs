//! `turnstone doctor` on a host with a running server, a stopped one, and with everything that is not as it should be.
//!
//! What the test machine itself is like (its clock, its losses, its container) is not judged here.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod certificates;
mod firewall;
mod host;
#[path = "../netns/namespace.rs"]
// Its users there need more of it.
#[allow(dead_code)]
mod namespace;
mod running;
#[path = "../support/mod.rs"]
mod support;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use support::{TestServer, Transport, run};

const LIMIT: Duration = Duration::from_secs(120);
/// Checks whose result is the test machine's and not the server's.
const OF_THE_MACHINE: [&str; 6] = ["clock-sync", "udp-losses", "buffers", "backlog", "container", "descriptors"];

/// What the doctor said.
pub(crate) struct Examined {
    pub(crate) code: i32,
    pub(crate) json: Value,
}

/// Examines with this configuration file.
pub(crate) fn doctor(config: &str, arguments: &[&str]) -> Examined {
    examine(Command::new(env!("CARGO_BIN_EXE_turnstone")).arg("doctor"), config, arguments)
}

/// The same with a command that runs the doctor in some other way.
pub(crate) fn examine(command: &mut Command, config: &str, arguments: &[&str]) -> Examined {
    command.args(["--config", config, "--json", "--timeout", "20"]).args(arguments);
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    let finished = run(command, LIMIT);
    let json = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("not JSON ({error}):\n{}", finished.all_output()));
    let examined = Examined { code: finished.code.unwrap(), json };
    examined.must_be_consistent();
    examined
}

/// A configuration whose listeners are those that a server has really opened, in a file beside the server's own.
pub(crate) fn config_of(server: &TestServer, more: &str) -> String {
    let mut text = String::new();
    for (transport, address) in
        [(Transport::Udp, server.udp()), (Transport::Tcp, server.tcp()), (Transport::Tls, server.tls())]
    {
        text += &format!("[[listen]]\naddress = \"{address}\"\ntransport = \"{}\"\n", transport.name());
    }
    let own = std::fs::read_to_string(server.file("turnserver.toml")).unwrap();
    let rest = own.split_once("[tls]").map(|(_, rest)| format!("[tls]{rest}")).unwrap();
    write_config(server, "doctor.toml", &format!("{text}{rest}{more}"))
}

/// Writes a file that only its owner may read beside the server's own, and returns its path.
pub(crate) fn write_config(server: &TestServer, name: &str, text: &str) -> String {
    let path = server.file(name);
    std::fs::write(&path, text).unwrap();
    set_mode(&path, 0o600);
    path
}

pub(crate) fn set_mode(path: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

impl Examined {
    /// The findings of a check.
    pub(crate) fn of(&self, check: &str) -> Vec<&Value> {
        self.json["checks"].as_array().unwrap().iter().filter(|step| step["step"] == check).collect()
    }

    /// A finding of the check has this status, and its message these words.
    pub(crate) fn expect(&self, check: &str, status: &str, words: &str) -> &Examined {
        let found = self
            .of(check)
            .into_iter()
            .any(|step| step["status"] == status && step["message"].as_str().unwrap().contains(words));
        assert!(found, "no {status} of {check} with {words:?} in {:#}", self.json);
        self
    }

    /// All findings that are worse than a note, but for those of the test machine: where, and what.
    pub(crate) fn complaints(&self) -> Vec<(String, String)> {
        let mut steps: Vec<&Value> = self.json["checks"].as_array().unwrap().iter().collect();
        steps.retain(|step| !OF_THE_MACHINE.contains(&step["step"].as_str().unwrap()));
        for listener in self.json["listeners"].as_array().unwrap() {
            steps.extend(listener["steps"].as_array().unwrap());
            for address in listener["addresses"].as_array().unwrap() {
                steps.extend(address["steps"].as_array().unwrap());
            }
        }
        steps.retain(|step| step["status"] == "warn" || step["status"] == "fail");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        steps.into_iter().map(|step| (text(&step["step"]), text(&step["message"]))).collect()
    }

    /// The steps of a listener, by name and status.
    pub(crate) fn steps_at(&self, transport: &str) -> Vec<(&str, &str)> {
        let listeners = self.json["listeners"].as_array().unwrap();
        let at = listeners.iter().map(|l| &l["addresses"][0]).find(|address| address["transport"] == transport);
        let steps = at.unwrap_or_else(|| panic!("no {transport} in {:#}", self.json))["steps"].as_array().unwrap();
        steps.iter().map(|step| (step["step"].as_str().unwrap(), step["status"].as_str().unwrap())).collect()
    }

    /// Verdict, counts and exit code are those of the findings.
    fn must_be_consistent(&self) {
        let json = &self.json;
        assert_eq!(json["schema"], 1);
        let mut all: Vec<&Value> = json["checks"].as_array().unwrap().iter().collect();
        for listener in json["listeners"].as_array().unwrap() {
            for address in listener["addresses"].as_array().unwrap() {
                all.extend(address["steps"].as_array().unwrap());
            }
        }
        let count = |status: &str| all.iter().filter(|step| step["status"] == status).count();
        for status in ["ok", "note", "warn", "fail"] {
            assert_eq!(json["counts"][status], count(status), "{json:#}");
        }
        let verdict = match (count("fail"), count("warn"), count("note")) {
            (1.., ..) => "fail",
            (_, 1.., _) => "warn",
            (.., 1..) => "note",
            _ => "ok",
        };
        assert_eq!(json["verdict"], verdict, "{json:#}");
        let exits: &[i32] = if verdict == "fail" { &[2] } else { &[0, 1] };
        assert!(exits.contains(&self.code), "exit code {} for {json:#}", self.code);
    }
}
