//! `turnstone serve`: what is printed and logged around a running server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{Place, ran};

/// Servers that look for a free port at the same moment may find the same.
fn usual_ports() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running server that is ended with the test.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(place: &Place, args: &[&str]) -> Self {
        Self::start_with(place, args, None)
    }

    fn start_with(place: &Place, args: &[&str], secret: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
        command.current_dir(place.path("")).env_clear().env("XDG_RUNTIME_DIR", place.path("")).arg("serve").args(args);
        command.envs(secret.map(|secret| ("TURNSTONE_SECRET", secret)));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The first line of standard output that begins with `start`.
    fn line(&mut self, start: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            if self.out.read_line(&mut line).unwrap() == 0 {
                panic!("no line {start:?} in:\n{seen}\n{}", self.errors());
            }
            if line.trim_start().starts_with(start) {
                return line.trim().to_owned();
            }
            seen += &line;
        }
    }

    /// What the line for a page hands to RTCPeerConnection.
    fn ice(&mut self) -> Value {
        let line = self.line("const pc = new RTCPeerConnection(");
        let argument = line.trim_start_matches("const pc = new RTCPeerConnection(").trim_end_matches(");");
        serde_json::from_str(argument).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn errors(&mut self) -> String {
        let mut errors = String::new();
        let _ = self.child.kill();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }

    /// Asks the server to stop, and returns its exit code and log.
    fn stop(mut self) -> (Option<i32>, String) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A STUN Binding request; whether it is answered with success.
fn answers_binding(address: &str) -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let request = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    socket.send_to(&request, address).unwrap();
    let mut reply = [0; 200];
    socket.recv(&mut reply).is_ok_and(|len| len > 20 && reply[..2] == [1, 1])
}

#[test]
fn dev_prints_ice_servers_that_are_listened_on() {
    let _alone = usual_ports();
    let place = Place::new();
    let mut server = Running::start(&place, &["--dev"]);
    let ice = server.ice();
    assert_eq!(ice["iceTransportPolicy"], "relay");
    let entry = &ice["iceServers"][0];
    assert!(entry["username"].as_str().unwrap().ends_with(":dev"));
    assert_eq!(entry["credential"].as_str().unwrap().len(), 28);
    let urls: Vec<_> = entry["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    assert_eq!(urls.len(), 2, "{urls:?}");
    let address = |url: &str| url.strip_prefix("turn:").unwrap().split('?').next().unwrap().to_owned();
    assert!(urls[0].ends_with("?transport=udp") && answers_binding(&address(urls[0])), "{urls:?}");
    assert!(urls[1].ends_with("?transport=tcp") && TcpStream::connect(address(urls[1])).is_ok(), "{urls:?}");
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn dev_takes_a_secret_that_ones_own_code_knows_and_who_has_none_is_told_so() {
    let _alone = usual_ports();
    let place = Place::new();
    let credentials = |secret: Option<&str>| {
        let mut command = place.command(&["credentials", "--user", "alice", "--json"]);
        command.env("XDG_RUNTIME_DIR", place.path("")).envs(secret.map(|secret| ("TURNSTONE_SECRET", secret)));
        ran(&mut command)
    };
    let hint = "hint: a serve --dev of yours runs";
    let alone = credentials(None);
    assert!(alone.code == 2 && !alone.err.contains(hint), "{}", alone.err);
    let mut server = Running::start_with(&place, &["--dev"], Some("0123456789abcdef"));
    let entry = &server.ice()["iceServers"][0];
    let beside = credentials(None);
    assert!(
        beside.code == 2 && beside.err.contains(hint) && beside.err.contains("TURNSTONE_SECRET="),
        "{}",
        beside.err
    );
    let made: Value = serde_json::from_str(&credentials(Some("0123456789abcdef")).ok()).unwrap();
    assert!(made["username"].as_str().unwrap().ends_with(":alice"), "{made}");
    let (name, password) = (entry["username"].as_str().unwrap(), entry["credential"].as_str().unwrap());
    let mut verify = place.command(&["credentials", "verify", name, password]);
    assert_eq!(
        ran(verify.env("TURNSTONE_SECRET", "0123456789abcdef")).code,
        0,
        "the server's own is made with it, too"
    );
    server.stop();
}

#[test]
fn dev_prints_where_the_page_is_with_a_token_that_its_data_needs() {
    let _alone = usual_ports();
    let place = Place::new();
    let mut server = Running::start(&place, &["--dev"]);
    let said = server.line("the page: ");
    let (address, token) = said.strip_prefix("the page: http://").unwrap().split_once("/#token=").unwrap();
    assert!(address.starts_with("127.0.0.1:") && token.len() == 32, "{said}");
    let get = |path: &str, more: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{more}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/", "").contains("<title>Turnstone</title>"));
    assert!(get("/v1/status", "").starts_with("HTTP/1.1 401 "));
    let good = format!("Authorization: Bearer {token}\r\n");
    assert!(get("/v1/status", &good).contains("\"state\":\"serving\""));
    assert!(get("/v1/history", &good).contains("\"samples\":["));
    let (_, log) = server.stop();
    assert!(!log.contains(token), "{log}");
}

#[test]
fn dev_says_why_it_took_another_port() {
    let _alone = usual_ports();
    let place = Place::new();
    let usual = loop {
        match UdpSocket::bind("127.0.0.1:3478") {
            Ok(socket) => break socket,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut server = Running::start(&place, &["--dev"]);
    let said = server.line("not on port 3478: ");
    let expected = "not on port 3478: udp 127.0.0.1:3478: another program has it (ss -lnp 'sport = :3478' shows which)";
    assert_eq!(said, expected);
    drop(usual);
}

#[test]
fn a_dev_server_is_found_by_the_commands_on_a_running_server() {
    let _alone = usual_ports();
    let place = Place::new();
    let is_installed = std::path::Path::new("/etc/turnstone/turnserver.toml").exists();
    if is_installed || std::os::unix::net::UnixStream::connect("/run/turnstone/admin.sock").is_ok() {
        return;
    }
    let status = || ran(place.command(&["status"]).env("XDG_RUNTIME_DIR", place.path("")));
    assert!(status().err.contains("no admin API at unix:/run/turnstone/admin.sock"), "{}", status().err);
    let mut first = Running::start(&place, &["--dev"]);
    let said = first.line("turnstone status, sessions, top and explain see it (--admin unix:");
    assert!(said.contains(&format!("turnstone-dev/{}.sock", first.child.id())), "{said}");
    let found = status().ok();
    assert!(found.contains(&first.child.id().to_string()), "{found}");
    let mut second = Running::start(&place, &["--dev"]);
    second.ice();
    let several = status();
    assert_eq!(several.code, 2, "{}", several.out);
    assert!(
        several.err.contains("several servers run with --dev") && several.err.matches("--admin unix:").count() == 2
    );
    // What a killed server leaves is no server.
    second.errors();
    assert_eq!(status().code, 0);
}

#[test]
fn dev_with_a_file_keeps_its_settings_and_makes_a_credential_of_its_secret() {
    let place = Place::new();
    let args = ["--dev", "--config", "turnserver.toml", "--listen", "udp://127.0.0.1:0"];
    let mut server = Running::start(&place, &args);
    let listening = server.line("listening on udp 127.0.0.1:");
    let ice = server.ice();
    let entry = &ice["iceServers"][0];
    let text = |key: &str| entry[key].as_str().unwrap();
    let verified = place.run(&["credentials", "verify", text("username"), text("credential")]);
    assert_eq!(verified.code, 0, "{}", verified.out);
    let port = listening.rsplit(':').next().unwrap();
    assert_eq!(entry["urls"][0], format!("turn:203.0.113.5:{port}?transport=udp"));
    assert!(answers_binding(&format!("127.0.0.1:{port}")));
}

#[test]
fn dev_with_a_file_has_the_urls_of_the_realm_whose_secret_it_uses() {
    let place = Place::new();
    let text = "[auth]\npublic-host = \"turn.a.example\"\n[[auth.secrets]]\nfile = \"secret\"\n\
                [[realm]]\nname = \"b\"\npublic-host = \"turn.b.example\"\n[[realm.secrets]]\nfile = \"secret\"\n\
                [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\n\
                [[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"udp\"\n\
                [[listen]]\naddress = \"127.0.0.2:0\"\ntransport = \"udp\"\nrealm = \"b\"\n";
    place.file("realms.toml", text, 0o600);
    let mut server = Running::start(&place, &["--dev", "--config", "realms.toml"]);
    let listening = server.line("listening on udp 127.0.0.1:");
    let port = listening.rsplit(':').next().unwrap();
    let urls = &server.ice()["iceServers"][0]["urls"];
    assert_eq!(urls, &serde_json::json!([format!("turn:turn.a.example:{port}?transport=udp")]));
}

#[test]
fn a_json_log_is_one_object_a_line_with_warnings_in_it() {
    let place = Place::new();
    let args = [
        "--dev",
        "--config",
        "turnserver.toml",
        "--listen",
        "udp://127.0.0.1:0",
        "--log-format",
        "json",
        "--secret-file",
        "secret",
    ];
    let mut server = Running::start(&place, &args);
    server.ice();
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{log}"))).collect();
    let warning = lines.iter().find(|line| line["level"] == "WARN").unwrap_or_else(|| panic!("{log}"));
    assert_eq!(warning["place"], "--secret-file");
    assert_eq!(warning["message"], "replaces every [[auth.secrets]] of the file");
}

#[test]
fn a_bad_configuration_stops_the_start_with_2_and_only_its_problems() {
    let place = Place::with("foo = 1\nworkers = -1");
    let ran = place.run(&["serve"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.err);
    assert!(
        lines[0]
            .starts_with("turnserver.toml:1:1: unknown key \"foo\" at the top level; expected one of admin, auth, ")
    );
    assert!(lines[1].starts_with("turnserver.toml:2:11: workers at the top level: -1 is out of range; expected "));
}

#[test]
fn a_listener_that_is_taken_stops_the_start_with_3() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("tcp://{}", taken.local_addr().unwrap());
    let ran = place.run(&["serve", "--listen", &listen]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains(&listen["tcp://".len()..]), "{}", ran.err);
}

#[test]
fn a_private_key_that_everybody_can_read_stops_the_start() {
    let place = Place::new();
    place.file("key.pem", "key", 0o644);
    place.append("[tls]\ncertificate = \"c.pem\"\nkey = \"key.pem\"\n");
    let ran = place.run(&["serve"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.starts_with(
            "error: turnserver.toml:15:7: key in [tls]: key.pem is open to everybody (mode 0644); run: chmod 640"
        ),
        "{}",
        ran.err
    );
}

#[test]
fn what_stays_wrong_ends_the_start_with_2_and_place_reason_and_remedy() {
    for (more, words) in [
        (
            "[usage]\nfile = \"nowhere/usage.jsonl\"\n",
            "turnserver.toml:14:8: usage.file: nowhere/usage.jsonl: no such file or directory: its directory nowhere is not there",
        ),
        (
            "[admin]\nlisten = \"unix:secret/admin.sock\"\n",
            "turnserver.toml:14:10: admin.listen: cannot listen on unix:secret/admin.sock: not a directory",
        ),
    ] {
        let place = Place::new();
        place.append(more);
        let ran = place.run(&["serve", "--listen", "udp://127.0.0.1:0"]);
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains(words), "{}", ran.err);
    }
}

/// The same program as another user, who may read what everybody may.
fn as_nobody(place: &Place, args: &[&str]) -> Option<super::Ran> {
    if !rustix::process::geteuid().is_root() {
        super::skip::skipped("only root can start a process of another user");
        return None;
    }
    let mut command = assert_cmd::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    command.arg(env!("CARGO_BIN_EXE_turnstone")).args(args).current_dir(place.path(""));
    Some(ran(&mut command))
}

#[test]
fn a_user_who_may_not_read_or_write_is_named_with_what_helps() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let place = Place::new();
    mode(&place.path(""), 0o755);
    let args = ["serve", "--config", "turnserver.toml", "--listen", "udp://127.0.0.1:0"];
    let Some(ran) = as_nobody(&place, &args) else { return };
    let secret = place.path("secret");
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(
        ran.err.contains("turnserver.toml:12:8: in [[auth.secrets]] cannot read secret: permission denied: user nobody may not read it; run: chown nobody secret"),
        "{}",
        ran.err
    );
    std::os::unix::fs::chown(&secret, Some(65534), None).unwrap();
    place.append("[usage]\nfile = \"usage.jsonl\"\n");
    mode(&place.path("turnserver.toml"), 0o644);
    let ran = as_nobody(&place, &args).unwrap();
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(
        ran.err.contains(
            "turnserver.toml:14:8: usage.file: usage.jsonl: permission denied: user nobody may make no file in ."
        ),
        "{}",
        ran.err
    );
    mode(&place.path("turnserver.toml"), 0o600);
    let ran = as_nobody(&place, &args).unwrap();
    assert!(
        ran.code == 2 && ran.err.contains("user nobody may not read it; run: chgrp nobody turnserver.toml"),
        "{}",
        ran.err
    );
    mode(&place.path(""), 0o700);
    let absolute = place.path("turnserver.toml").display().to_string();
    let ran = as_nobody(&place, &["serve", "--config", &absolute]).unwrap();
    let closed = format!("user nobody may not enter {}", place.path("").display().to_string().trim_end_matches('/'));
    assert!(ran.code == 2 && ran.err.contains(&closed), "{}", ran.err);
}

#[test]
fn without_a_configuration_the_way_to_try_it_is_shown() {
    let place = Place::new();
    let ran = ran(&mut place.command(&["serve"]));
    if std::path::Path::new("/etc/turnstone/turnserver.toml").exists() {
        return;
    }
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("turnstone serve --dev"), "{}", ran.err);
    assert!(ran.err.contains("/etc/turnstone/turnserver.toml (absent): nobody could authenticate"), "{}", ran.err);
}
