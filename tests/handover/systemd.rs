//! The unit as it is shipped, installed by its script, under a systemd that is PID 1 of a namespace of its own.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::LIMIT;
use crate::clients::{Load, Waiting, is_answered, udp_socket};
use crate::manager::Listeners;
use crate::socket_unit::free_port;
use crate::support::Transport;
use crate::support::skipped;

/// A machine that runs nothing but systemd; it ends when dropped.
struct Machine {
    folder: tempfile::TempDir,
    unshare: Child,
    pid_1: String,
    /// All machines have the same cgroups below them, which only one systemd may rule at a time.
    _alone: std::fs::File,
}

impl Machine {
    /// `None`, with a message, where there cannot be one.
    fn start(configuration: &str) -> Option<Machine> {
        if !rustix::process::geteuid().is_root() {
            skipped("only root can make the namespaces that a systemd of its own needs");
            return None;
        }
        if !Path::new("/lib/systemd/systemd").exists() {
            skipped("systemd is not installed (apt-get install systemd)");
            return None;
        }
        let alone = std::fs::File::open("/sys/fs/cgroup").unwrap();
        rustix::fs::flock(&alone, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("configuration"), configuration).unwrap();
        std::fs::create_dir(file("machine")).unwrap();
        let output = std::fs::File::create(file("output")).unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut unshare = Command::new("unshare")
            .args(["--pid", "--mount", "--cgroup", "--ipc", "--uts", "--fork", "--kill-child"])
            .arg(sources.join("tests/handover/machine.sh"))
            .args([&file("machine"), sources, Path::new(env!("CARGO_BIN_EXE_turnstone")), &file("configuration")])
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + LIMIT;
        loop {
            let output = std::fs::read_to_string(file("output")).unwrap();
            let children = format!("/proc/{0}/task/{0}/children", unshare.id());
            let pid_1 = std::fs::read_to_string(children).unwrap_or_default().trim().to_owned();
            let is_over = unshare.try_wait().unwrap().is_some() || Instant::now() > deadline;
            if is_over && !output.contains("mounted") {
                let _ = unshare.kill();
                let _ = unshare.wait();
                skipped(&format!("this machine does not allow what a systemd of its own needs:\n{output}"));
                return None;
            }
            assert!(!is_over, "systemd did not start:\n{output}");
            if !pid_1.is_empty() && output.contains("Edit /etc/turnstone/turnserver.toml") {
                return Machine { folder, unshare, pid_1, _alone: alone }.wait_for_systemd(deadline);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_for_systemd(self, deadline: Instant) -> Option<Machine> {
        while !self.run(&["systemctl", "is-active", "idle.target"]).status.success() {
            assert!(Instant::now() < deadline, "systemd does not answer:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(self)
    }

    /// Runs a command inside.
    fn run(&self, command: &[&str]) -> Output {
        let namespaces = ["--mount", "--pid", "--cgroup", "--ipc", "--uts"];
        Command::new("nsenter").args(["--target", &self.pid_1]).args(namespaces).args(command).output().unwrap()
    }

    /// The same; it must succeed.
    fn must(&self, command: &[&str]) -> String {
        let output = self.run(command);
        if !output.status.success() {
            let status = self.run(&["systemctl", "status", "--no-pager", "turnstone"]);
            let status = String::from_utf8_lossy(&status.stdout);
            panic!("{command:?}: {output:?}\n{status}\n{}\n{}", self.output(), self.log());
        }
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn show(&self, property: &str) -> String {
        self.must(&["systemctl", "show", "turnstone", "--value", "--property", property])
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("output")).unwrap()
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.run(&["cat", "/run/log"]).stdout).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // PID 1 is killed with it, and everything inside with PID 1.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

fn configuration(port: u16) -> String {
    let listeners = ["127.0.0.1", "[::1]"]
        .map(|ip| format!("[[listen]]\naddress = \"{ip}:{port}\"\ntransport = [\"udp\", \"tcp\"]\n"));
    format!(
        "workers = 2\n{}[relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\n\
         [limits]\nunauthenticated-replies-per-second = \"unlimited\"\n\
         [[auth.secrets]]\nid = \"main\"\ncredential = \"secret\"\n",
        listeners.concat()
    )
}

#[test]
fn the_unit_starts_reloads_and_restarts_under_a_real_systemd_without_refusing_a_client() {
    let port = free_port().port();
    let Some(machine) = Machine::start(&configuration(port)) else { return };
    machine.must(&["systemctl", "start", "turnstone"]);
    let addresses: [SocketAddr; 2] = [([127, 0, 0, 1], port).into(), ([0, 0, 0, 0, 0, 0, 0, 1], port).into()];
    let listeners: Listeners =
        addresses.iter().flat_map(|address| [Transport::Udp, Transport::Tcp].map(|each| (each, *address))).collect();
    assert_eq!(machine.show("NFileDescriptorStore"), "8", "two workers, four listeners");

    let load = Load::start(&listeners, "");
    load.wait_for_answers(100);
    let mut process = machine.show("MainPID");
    for _ in 0..3 {
        machine.must(&["systemctl", "restart", "turnstone"]);
        load.wait_for_answers(100);
        let before = std::mem::replace(&mut process, machine.show("MainPID"));
        assert_ne!(before, process);
    }
    load.finish();
    // The unit starts a server that has failed again, after a second.
    machine.must(&["systemctl", "kill", "--signal=KILL", "turnstone"]);
    let waiting: Vec<_> = listeners.iter().map(|(transport, server)| Waiting::send(*transport, *server, "")).collect();
    waiting.into_iter().for_each(Waiting::must_be_answered);
    crate::support::wait_until("a server after the failure", LIMIT, || {
        (machine.show("ActiveState") == "active" && machine.show("MainPID") != process).then_some(())
    });
    process = machine.show("MainPID");
    machine.must(&["systemctl", "reload", "turnstone"]);
    crate::support::wait_until("the reload in the log", LIMIT, || {
        machine.log().contains("configuration reloaded").then_some(())
    });
    assert_eq!(machine.show("NFileDescriptorStore"), "8");

    // An upgrade leaves the old program running, and says what changes over.
    let install = "PREFIX=/usr BINARY=/run/source/turnstone sh /run/source/systemd/install.sh";
    let said = machine.must(&["sh", "-c", install]);
    assert!(said.contains("systemctl restart turnstone") && !said.contains("enable --now"), "{said}");
    assert_eq!(machine.show("MainPID"), process);

    // What is not valid is refused before the server hears of it.
    machine.must(&["sh", "-c", "echo nonsense >>/etc/turnstone/turnserver.toml"]);
    assert!(!machine.run(&["systemctl", "reload", "turnstone"]).status.success());
    assert_eq!((machine.show("MainPID"), machine.show("ActiveState").as_str()), (process, "active"));

    // A stop is no restart: the ports are closed.
    machine.must(&["systemctl", "stop", "turnstone"]);
    assert_eq!(machine.show("NFileDescriptorStore"), "0");
    assert_eq!(machine.show("Result"), "success", "{}", machine.log());
    let refused = is_answered(&udp_socket(addresses[0]), 1, LIMIT).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(TcpStream::connect(addresses[1]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn check_says_beforehand_what_the_sandbox_will_refuse_and_the_unit_does_not_try_that_again() {
    let text = configuration(free_port().port())
        .replace("credential = \"secret\"", "credential = \"secret\"\nfile = \"/etc/turnstone/secret\"");
    let Some(machine) = Machine::start(&text) else { return };
    let check = || {
        let output = machine.run(&["turnstone", "check"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let config = "/etc/turnstone/turnserver.toml";
    let write = |more: &str| {
        machine.must(&[
            "sh",
            "-c",
            &format!("printf '%s' '{text}{more}' >{config}; chgrp turnstone {config}; chmod 640 {config}"),
        ])
    };
    // The secret is root's, and a credential is what the service gets: nothing is wrong with that.
    write("");
    let (code, out) = check();
    assert!(code == Some(0) && out.contains("ok       service: user turnstone may use all"), "{out}");
    for (more, words) in [
        (
            "[usage]\nfile = \"/srv/usage.jsonl\"\n",
            "/srv/usage.jsonl: the service cannot write there: ProtectSystem= makes it read-only",
        ),
        (
            "[admin]\nlisten = \"unix:/var/admin.sock\"\n",
            "/var/admin.sock: the service cannot write there: ProtectSystem=",
        ),
        ("[auth]\nusers-file = \"/etc/users\"\n", "/etc/users: permission denied: user turnstone may not read it"),
        (
            "[auth]\nusers-file = \"/run/user/users\"\n",
            "/run/user/users: the service does not see it: ProtectHome= hides",
        ),
    ] {
        machine.must(&[
            "sh",
            "-c",
            "mkdir -p /run/user; umask 077; for f in /etc/users /run/user/users; do echo a:b >$f; done",
        ]);
        write(more);
        let (code, out) = check();
        assert!(code == Some(2) && out.contains(words), "no {words:?} in {out}");
        assert!(!machine.run(&["systemctl", "start", "turnstone"]).status.success());
        let state = || (machine.show("ActiveState"), machine.show("NRestarts"), machine.show("ExecMainStatus"));
        assert_eq!(state(), ("failed".to_owned(), "0".to_owned(), "2".to_owned()), "{}", machine.log());
    }
    let log = machine.log();
    for words in [
        "turnserver.toml:18:8: usage.file: /srv/usage.jsonl: read-only file system: under systemd only",
        "ReadWritePaths=/srv",
        "admin.listen: cannot listen on unix:/var/admin.sock: read-only file system",
        "cannot read /etc/users: permission denied: user turnstone may not read it; run: chown turnstone /etc/users",
    ] {
        assert!(log.contains(words), "no {words:?} in {log}");
    }
    // What it was told lets it through.
    write("[usage]\nfile = \"/srv/usage.jsonl\"\n[admin]\nlisten = \"unix:/run/turnstone/admin.sock\"\n");
    let drop_in = "/etc/systemd/system/turnstone.service.d/srv.conf";
    machine.must(&[
        "sh",
        "-c",
        &format!("printf '[Service]\\nReadWritePaths=/srv\\n' >{drop_in}; systemctl daemon-reload"),
    ]);
    let (code, out) = check();
    assert!(
        code == Some(2) && out.contains("user turnstone may make no file in /srv; run: chown turnstone /srv"),
        "{out}"
    );
    machine.must(&["chown", "turnstone", "/srv"]);
    let (code, out) = check();
    assert!(code == Some(0) && out.contains("ok       service: user turnstone may use all"), "{out}");
    machine.must(&["systemctl", "start", "turnstone"]);
    machine.must(&["systemctl", "reload", "turnstone"]);
    machine.must(&["sh", "-c", "test -S /run/turnstone/admin.sock && test -f /srv/usage.jsonl"]);
}
