//! The unit as it is shipped, installed by its script, under a systemd that is PID 1 of a namespace of its own.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use crate::LIMIT;
use crate::clients::{Load, Waiting, is_answered, udp_socket};
use crate::manager::Listeners;
use crate::socket_unit::free_port;
use crate::support::Transport;
use crate::support::machine::{Machine, Plan};

/// A machine with Turnstone installed by its script, and this configuration.
fn machine(configuration: &str) -> Option<Machine> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let configured = folder.path().join("configuration");
    std::fs::write(&configured, configuration).unwrap();
    let machine = Machine::start(&Plan {
        root: Path::new("/"),
        wrapper: &[],
        setup: "set -eu\nPREFIX=/usr BINARY=/run/source/turnstone sh /run/source/systemd/install.sh\n\
                cp /run/source/configuration /etc/turnstone/turnserver.toml\n",
        files: &[
            &sources.join("systemd"),
            &sources.join("turnserver.toml"),
            Path::new(env!("CARGO_BIN_EXE_turnstone")),
            &configured,
        ],
    })?;
    assert!(machine.output().contains("Edit /etc/turnstone/turnserver.toml"), "{}", machine.output());
    Some(machine)
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
    let Some(machine) = machine(&configuration(port)) else { return };
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
    let Some(machine) = machine(&text) else { return };
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
