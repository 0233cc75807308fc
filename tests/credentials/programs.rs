//! Programs that make credentials themselves, or ask for them: each is run with what is printed for it, and what it hands out is used.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Credentials, Running, TestServer, Transport, free_port, require_tool, run, skipped, target_dir, wait_until,
};
use crate::wire::Wire;
use crate::xmpp::services;
use crate::{KEY, LIMIT, PLAIN, config};

/// They take their time on a busy machine.
const RUN_LIMIT: Duration = Duration::from_secs(180);

struct Place {
    server: TestServer,
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let server = TestServer::start(&config(&format!("{PLAIN}\nshapes = [\"turn-rest\"]"), ""));
        Place { server, folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A new folder.
    fn sub(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        fs::create_dir(&path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What is printed for a program. Listeners of tests are on ports that are not written down.
    fn printed(&self, format: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
        command.args(["credentials", "--format", format, "--ttl", "1h"]);
        for listener in [
            format!("udp://{}", self.server.udp()),
            format!("tcp://{}", self.server.tcp()),
            format!("tls://{}", self.server.tls()),
        ] {
            command.args(["--listen", &listener]);
        }
        let printed = run(command.args(["--config", &self.server.file("turnserver.toml")]), RUN_LIMIT);
        assert_eq!(printed.code, Some(0), "{}", printed.all_output());
        printed.stdout
    }

    /// Runs a program until the test is over.
    fn start(&self, command: &mut Command) -> Running {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        command.current_dir(self.folder.path()).env("HOME", self.folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Running(command.spawn().unwrap())
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// Each kind of relay that an XMPP server announces is one of the server's listeners, and its credential is good there.
    fn must_announce_every_listener(&self, port: u16, domain: &str) {
        let found = services(port, domain);
        let is_there = |kind: &str, transport: &str, port: u16| {
            let port = port.to_string();
            let mut same = found.iter().filter(|service| service["type"] == kind && service["port"] == port);
            same.find(|service| service["transport"] == transport).unwrap_or_else(|| panic!("no {kind} in {found:?}"))
        };
        let stun = is_there("stun", "udp", self.server.udp().port());
        assert!(!stun.contains_key("password"), "{found:?}");
        for (kind, transport, port, over) in [
            ("turn", "udp", self.server.udp().port(), Transport::Udp),
            ("turn", "tcp", self.server.tcp().port(), Transport::Tcp),
            ("turns", "tcp", self.server.tls().port(), Transport::Tls),
        ] {
            let service = is_there(kind, transport, port);
            assert_eq!(service["host"], "127.0.0.1");
            assert!(["1", "true"].contains(&&*service["restricted"]), "{found:?}");
            let credentials =
                Credentials { username: service["username"].clone(), password: service["password"].clone() };
            Wire::connect(&self.server, over, &credentials).allocate().unwrap();
        }
    }
}

/// The folder of this machine's kind in which a package has libraries whose names begin so.
fn libraries(of: &str) -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let has = |folder: &PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(of))
    };
    let mut of_machines = folders.filter(|folder| folder.to_string_lossy().ends_with("-linux-gnu"));
    of_machines.find(has).unwrap_or_else(|| panic!("no {of} in /usr/lib"))
}

/// One request to a program on this host; the JSON of its answer.
fn http(port: u16, method: &str, path: &str, headers: &[&str], body: &Value) -> Value {
    let mut command = Command::new(require_tool("curl", "curl"));
    command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "60", "--request", method]);
    for header in headers {
        command.args(["--header", header]);
    }
    if !body.is_null() {
        command.args(["--json", &body.to_string()]);
    }
    let finished = run(command.arg(format!("http://127.0.0.1:{port}{path}")), RUN_LIMIT);
    assert_eq!(finished.code, Some(0), "{path}: {}", finished.all_output());
    serde_json::from_str(&finished.stdout).unwrap()
}

fn wait_for(port: u16, place: &Place) {
    let is_up = || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop);
    let started = std::panic::catch_unwind(|| wait_until("a program", RUN_LIMIT, is_up));
    assert!(started.is_ok(), "{}", place.log());
}

/// The configuration of a Prosody for anybody, with this at its end.
fn prosody_config(place: &Place, port: u16, modules: &str, printed: &str) -> String {
    let data = place.sub(&format!("data-{port}"));
    fs::create_dir(Path::new(&data).join("certs")).unwrap();
    format!(
        "run_as_root = true\npidfile = \"{data}/pid\"\ndata_path = \"{data}\"\ncertificates = \"{data}/certs\"\n\
         c2s_ports = {{ {port} }}\ns2s_ports = {{}}\ninterfaces = {{ \"127.0.0.1\" }}\nc2s_require_encryption = false\n\
         authentication = \"anonymous\"\nmodules_disabled = {{ \"s2s\" }}\nmodules_enabled = {{ \"disco\", \"saslauth\", {modules} }}\n\
         {printed}\nVirtualHost \"example.org\"\n"
    )
}

#[test]
fn prosody_gets_a_relay_by_what_is_printed_for_it_and_hands_out_credentials() {
    let prosodyctl = require_tool("prosodyctl", "prosody");
    let place = Place::new();
    let port = free_port();
    let text = prosody_config(&place, port, "\"turn_external\"", &place.printed("prosody"));
    let file = place.write("prosody.cfg.lua", &text);
    let check = |file: &str| {
        let mut command = Command::new(&prosodyctl);
        run(command.args(["--root", "--config", file, "check", "turn"]).current_dir(place.folder.path()), RUN_LIMIT)
    };
    let good = check(&file);
    assert!(good.code == Some(0) && good.stdout.contains("Success!"), "{}", good.all_output());
    let wrong = place.write("wrong.cfg.lua", &text.replace(place.server.secret(), "another secret, as long as that"));
    let refused = check(&wrong);
    assert!(refused.code != Some(0) && refused.stdout.contains("401"), "{}", refused.all_output());

    let _prosody = place.start(Command::new(require_tool("prosody", "prosody")).args(["-F", "--config", &file]));
    wait_for(port, &place);
    let found = services(port, "example.org");
    // It has one port for TCP and UDP, which tests' listeners have not: what it says of TLS is a listener of its own.
    let of = |kind: &str| found.iter().find(|service| service["type"] == kind).unwrap_or_else(|| panic!("{found:?}"));
    for (kind, port, over) in
        [("turn", place.server.udp().port(), Transport::Udp), ("turns", place.server.tls().port(), Transport::Tls)]
    {
        let service = of(kind);
        assert_eq!((&*service["host"], service["port"].parse()), ("127.0.0.1", Ok(port)));
        let credentials = Credentials { username: service["username"].clone(), password: service["password"].clone() };
        Wire::connect(&place.server, over, &credentials).allocate().unwrap();
    }
}

#[test]
fn the_prosody_of_jitsi_meet_announces_every_listener() {
    let prosody = require_tool("prosody", "prosody");
    let place = Place::new();
    let port = free_port();
    let text = prosody_config(&place, port, "\"external_services\"", &place.printed("jitsi"));
    let file = place.write("prosody.cfg.lua", &text);
    let _prosody = place.start(Command::new(prosody).args(["-F", "--config", &file]));
    wait_for(port, &place);
    place.must_announce_every_listener(port, "example.org");
}

#[test]
fn ejabberd_announces_every_listener() {
    require_tool("ejabberdctl", "ejabberd");
    let place = Place::new();
    let port = free_port();
    let text = format!(
        "hosts: [localhost]\nlisten:\n  - {{port: {port}, ip: \"127.0.0.1\", module: ejabberd_c2s}}\n\
         auth_method: anonymous\nanonymous_protocol: sasl_anon\nacl:\n  local: {{user_regexp: \"\"}}\n\
         access_rules:\n  local: {{allow: local}}\n{}",
        place.printed("ejabberd")
    );
    let file = place.write("ejabberd.yml", &text);
    let (spool, log) = (place.sub("spool"), place.sub("logs") + "/ejabberd.log");
    // As ejabberdctl does it, but for the user and the name of the node, which are for a whole host.
    let mut command = Command::new("erl");
    command.args(["-noinput", "-mnesia", "dir", &format!("\"{spool}\""), "-s", "ejabberd"]);
    command.env("ERL_LIBS", libraries("ejabberd-")).env("EJABBERD_CONFIG_PATH", file).env("EJABBERD_LOG_PATH", log);
    let _ejabberd = place.start(command.env("ERL_CRASH_DUMP", place.folder.path().join("dump")));
    wait_for(port, &place);
    place.must_announce_every_listener(port, "localhost");
}

#[test]
fn janus_asks_the_api_and_allocates_a_relay() {
    let janus = require_tool("janus", "janus");
    let place = Place::new();
    let api = crate::api::Api::of(&place.server).address;
    let (configs, plugins, transports) = (place.sub("configs"), place.sub("plugins"), place.sub("transports"));
    let libraries = libraries("janus").join("janus");
    for (folder, kind, name) in
        [(&plugins, "plugins", "libjanus_echotest.so"), (&transports, "transports", "libjanus_http.so")]
    {
        symlink(libraries.join(kind).join(name), Path::new(folder).join(name)).unwrap();
    }
    let none = place.sub("none");
    let general = format!(
        "general: {{ configs_folder = \"{configs}\"; plugins_folder = \"{plugins}\"; transports_folder = \"{transports}\"; \
         events_folder = \"{none}\"; loggers_folder = \"{none}\"; }}\n"
    );
    // It asks by POST unless it is told otherwise.
    let nat = format!("nat: {{\n    turn_rest_api = \"http://{api}/\"\n    turn_rest_api_key = \"{KEY}\"\n}}\n");
    let file = place.write("configs/janus.jcfg", &format!("{general}{nat}"));
    let port = free_port();
    let http_text = format!("general: {{ base_path = \"/janus\"; http = true; port = {port}; ip = \"127.0.0.1\"; }}\n");
    place.write("configs/janus.transport.http.jcfg", &http_text);
    let _janus =
        place.start(Command::new(janus).args([&format!("--config={file}"), &format!("--configs-folder={configs}")]));
    wait_for(port, &place);

    let post = |path: &str, mut body: Value| {
        body["transaction"] = json!("t");
        http(port, "POST", &format!("/janus{path}"), &[], &body)
    };
    let session = post("", json!({"janus": "create"}))["data"]["id"].clone();
    let attach = json!({"janus": "attach", "plugin": "janus.plugin.echotest", "opaque_id": "alice"});
    let handle = post(&format!("/{session}"), attach)["data"]["id"].clone();
    let fingerprint = ["AB"; 32].join(":");
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n\
         a=sendrecv\r\na=rtcp-mux\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {fingerprint}\r\n\
         a=setup:actpass\r\na=rtpmap:111 opus/48000/2\r\n"
    );
    let offer = json!({"janus": "message", "body": {"audio": true}, "jsep": {"type": "offer", "sdp": sdp}});
    post(&format!("/{session}/{handle}"), offer);
    let answer = wait_until("an answer to the offer", RUN_LIMIT, || {
        let event = http(port, "GET", &format!("/janus/{session}?maxev=1"), &[], &Value::Null);
        Some(event["jsep"]["sdp"].as_str()?.to_owned())
    });
    let relayed = answer.lines().find(|line| line.contains(" typ relay "));
    let relayed = relayed.unwrap_or_else(|| panic!("no relay in {answer}: {}", place.log()));
    assert!(relayed.contains(" 127.0.0.1 "), "{relayed}");
    // By whom is known, too.
    let admin = format!("unix:{}", place.server.file("admin.sock"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    let sessions = run(command.args(["sessions", "--json", "--admin", &admin]), LIMIT);
    assert!(sessions.stdout.contains("\"alice\""), "{}", sessions.all_output());
}

/// Not everybody has 250 MB for it: `tests/credentials/synapse-setup.sh` makes its environment.
#[test]
fn synapse_hands_out_credentials_by_what_is_printed_for_it() {
    let python = target_dir().join("test-venv-synapse/bin/python");
    if !python.exists() {
        return skipped("Synapse is not there; tests/credentials/synapse-setup.sh installs it (250 MB in target/)");
    }
    let place = Place::new();
    let port = free_port();
    let text = format!(
        "server_name: localhost\npid_file: pid\nreport_stats: false\nsigning_key_path: key\nmedia_store_path: media\n\
         macaroon_secret_key: a\nform_secret: b\ntrusted_key_servers: []\n\
         database: {{name: sqlite3, args: {{database: db}}}}\n\
         listeners:\n  - {{port: {port}, bind_addresses: [127.0.0.1], type: http, tls: false, resources: [{{names: [client]}}]}}\n\
         enable_registration: true\nenable_registration_without_verification: true\n{}",
        place.printed("synapse")
    );
    let file = place.write("homeserver.yaml", &text);
    let synapse = |more: &[&str]| {
        let mut command = Command::new(&python);
        command.args(["-m", "synapse.app.homeserver", "--config-path", &file]).args(more);
        command.current_dir(place.folder.path());
        command
    };
    let made = run(&mut synapse(&["--generate-keys"]), RUN_LIMIT);
    assert_eq!(made.code, Some(0), "{}", made.all_output());
    let _synapse = place.start(&mut synapse(&[]));
    wait_for(port, &place);
    let account = json!({"username": "alice", "password": "correct horse", "auth": {"type": "m.login.dummy"}});
    let account = http(port, "POST", "/_matrix/client/v3/register", &[], &account);
    let bearer = format!("Authorization: Bearer {}", account["access_token"].as_str().unwrap());
    let relay = http(port, "GET", "/_matrix/client/v3/voip/turnServer", &[&bearer], &Value::Null);
    assert_eq!((&relay["ttl"], relay["uris"].as_array().unwrap().len()), (&json!(3600), 3), "{relay}");
    let text = |name: &str| relay[name].as_str().unwrap().to_owned();
    let credentials = Credentials { username: text("username"), password: text("password") };
    assert!(credentials.username.ends_with(":@alice:localhost"), "{relay}");
    for over in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        Wire::connect(&place.server, over, &credentials).allocate().unwrap();
    }
}
