//! `turnstone probe` against our server, against coturn, and against everything that is not what it should be: each gives its
//! verdict and its exit code.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod api;
mod certificates;
mod compare;
mod coturn;
mod faulty;
mod healthy;
mod ice_servers;
mod offers;
mod redirected;
mod refused;
#[path = "../support/mod.rs"]
mod support;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use support::{TestServer, Transport, run, run_with_input};

pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A probe of a URL with the time that a busy machine takes.
pub(crate) struct Probe {
    command: Command,
}

/// Its JSON and exit code.
pub(crate) struct Probed {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stderr: String,
}

impl Probe {
    pub(crate) fn of(url: &str) -> Probe {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
        command.args(["probe", url, "--format", "json"]).env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        Probe { command }
    }

    /// Of our server or coturn, with its secret and its authority.
    pub(crate) fn of_server(server: &TestServer, transport: Transport, ip: &str) -> Probe {
        Probe::of(&url(server, transport, ip)).trusting(server).with_secret(server)
    }

    pub(crate) fn arg(mut self, arg: &str) -> Probe {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Probe {
        self.command.args(args);
        self
    }

    pub(crate) fn trusting(self, server: &TestServer) -> Probe {
        self.args(&["--ca", &server.file("authority.pem")])
    }

    pub(crate) fn with_secret(self, server: &TestServer) -> Probe {
        self.args(&["--user", "probe", "--secret-file", &server.file("secret")])
    }

    /// With a secret in a variable of its environment.
    pub(crate) fn with_variable(mut self, value: &str) -> Probe {
        self.command.env("PROBE_PASSWORD", value);
        self
    }

    pub(crate) fn with_password(self, user: &str, password: &str) -> Probe {
        self.with_variable(password).args(&["--user", user, "--password-env", "PROBE_PASSWORD"])
    }

    pub(crate) fn run(self) -> Probed {
        self.run_with_input("")
    }

    /// With something to read on standard input.
    pub(crate) fn run_with_input(mut self, input: &str) -> Probed {
        let finished = run_with_input(&mut self.command, input, LIMIT);
        let json = serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}):\n{}", finished.all_output()));
        let probed = Probed { code: finished.code.unwrap(), json, stderr: finished.stderr };
        probed.must_be_consistent();
        probed
    }

    /// Whatever comes of it, with JSON on standard output if it is a comparison: exit code, standard output, standard error.
    pub(crate) fn run_as_is(mut self) -> (i32, String, String) {
        let finished = run(&mut self.command, LIMIT);
        (finished.code.unwrap(), finished.stdout, finished.stderr)
    }

    /// The text form: exit code, standard output, standard error.
    pub(crate) fn run_as_text(mut self) -> (i32, String, String) {
        let finished = run(self.command.args(["--format", "text"]), LIMIT);
        (finished.code.unwrap(), finished.stdout, finished.stderr)
    }
}

impl Probed {
    /// All steps of the first URL in order: those before an address is known, then those of each address.
    pub(crate) fn steps(&self) -> Vec<&Value> {
        self.steps_of(0)
    }

    /// Those of another target.
    pub(crate) fn steps_of(&self, index: usize) -> Vec<&Value> {
        let target = &self.json["targets"][index];
        let of = |value: &'_ Value| value["steps"].as_array().unwrap().iter().collect::<Vec<_>>().len();
        assert!(of(target) > 0, "{:#}", self.json);
        let mut steps: Vec<&Value> = target["steps"].as_array().unwrap().iter().collect();
        for address in target["addresses"].as_array().unwrap() {
            steps.extend(address["steps"].as_array().unwrap());
        }
        steps
    }

    pub(crate) fn step(&self, name: &str) -> &Value {
        let found = self.steps().into_iter().find(|step| step["step"] == name);
        found.unwrap_or_else(|| panic!("no step {name} in {:#}", self.json))
    }

    pub(crate) fn has_step(&self, name: &str) -> bool {
        self.steps().into_iter().any(|step| step["step"] == name)
    }

    /// The same of a target: its URL, and a step with its status and words.
    pub(crate) fn expect_at(&self, index: usize, url: &str, name: &str, status: &str, words: &str) -> &Probed {
        assert_eq!(self.json["targets"][index]["url"], url, "{:#}", self.json);
        let found = self.steps_of(index).into_iter().find(|step| step["step"] == name);
        let step = found.unwrap_or_else(|| panic!("no step {name} at {url} in {:#}", self.json));
        assert_eq!(step["status"], status, "{step:#}");
        assert!(step["message"].as_str().unwrap().contains(words), "no {words:?} in {step:#}");
        self
    }

    /// The step has this status, and its message these words.
    pub(crate) fn expect(&self, name: &str, status: &str, words: &str) -> &Probed {
        let step = self.step(name);
        assert_eq!(step["status"], status, "{:#}", self.json);
        assert!(step["message"].as_str().unwrap().contains(words), "no {words:?} in {step:#}");
        self
    }

    pub(crate) fn expect_exit(&self, code: i32, verdict: &str) -> &Probed {
        assert_eq!(
            (self.code, self.json["verdict"].as_str()),
            (code, Some(verdict)),
            "{:#}\n{}",
            self.json,
            self.stderr
        );
        self
    }

    /// The documented schema: every field is there, verdicts and counts are those of the steps.
    fn must_be_consistent(&self) {
        let json = &self.json;
        let rank = |status: &Value| ["ok", "note", "warn", "fail"].iter().position(|known| status == known).unwrap();
        assert_eq!(json["schema"], 1);
        assert!(json["started_unix"].as_u64().unwrap() > 1_700_000_000 && json["ms"].as_f64().unwrap() > 0.0);
        assert!(json["insecure"].is_boolean());
        let mut counts = [0; 4];
        let mut check = |steps: &Value| {
            let mut worst = 0;
            for step in steps.as_array().unwrap() {
                assert!(step["step"].is_string() && step["message"].is_string() && step["facts"].is_object(), "{step}");
                assert!(step["ms"].as_f64().unwrap() >= 0.0, "{step}");
                assert!(step["relay"].is_null() || ["ipv4", "ipv6"].contains(&step["relay"].as_str().unwrap()));
                worst = worst.max(rank(&step["status"]));
                counts[rank(&step["status"])] += 1;
            }
            worst
        };
        let mut worst = 0;
        for target in json["targets"].as_array().unwrap() {
            let mut of_target = check(&target["steps"]);
            for address in target["addresses"].as_array().unwrap() {
                let of_address = check(&address["steps"]);
                assert_eq!(rank(&address["verdict"]), of_address, "{json:#}");
                assert!(["udp", "tcp", "tls", "dtls"].contains(&address["transport"].as_str().unwrap()));
                of_target = of_target.max(of_address);
            }
            assert_eq!(rank(&target["verdict"]), of_target, "{json:#}");
            worst = worst.max(of_target);
        }
        assert_eq!(rank(&json["verdict"]), worst, "{json:#}");
        for (count, name) in counts.iter().zip(["ok", "note", "warn", "fail"]) {
            assert_eq!(json["counts"][name], *count, "{json:#}");
        }
    }
}

pub(crate) fn url(server: &TestServer, transport: Transport, ip: &str) -> String {
    let address = server.address(transport, ip);
    match transport {
        Transport::Udp => format!("turn:{address}"),
        Transport::Tcp => format!("turn:{address}?transport=tcp"),
        Transport::Tls => format!("turns:{address}"),
    }
}
