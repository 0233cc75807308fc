//! Changing a server while clients use it.

use rustix::process::Signal;

use crate::client::{Allocated, connect};
use crate::support::{EchoPeer, TestAuthority, TestServer, tls_over, wait_until};
use crate::{LIMIT, Scrape, config, endpoint};

fn reload(server: &TestServer, text: &str) {
    let done = |log: &str| log.matches("configuration reloaded").count() + log.matches("reload refused").count();
    let before = done(&server.log());
    server.write_config(text);
    server.signal(Signal::HUP);
    wait_until("the reload", LIMIT, || (done(&server.log()) > before).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_what_it_changed_and_loses_no_allocation() {
    let server = TestServer::start(&config(""));
    let peer = EchoPeer::start("127.0.0.1");
    let client = Allocated::new(&server, "alice").await;
    client.echo(peer.address(), b"before").await;

    let more = "[quota]\nallocations-per-user = 1\n[drain]\ndeadline = \"5m\"\n";
    reload(&server, &config(more).replace("workers = 2", "workers = 3").replace("29999", "28000"));
    let log = server.log();
    let line = |key: &str| log.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {log}"));
    let applied = line("quota.allocations-per-user");
    assert!(applied.contains("INFO") && applied.contains("5000") && applied.contains("changed"), "{applied}");
    assert!(line("drain.deadline").contains("5m"));
    for key in ["workers", "relay.ports"] {
        let waiting = line(&format!("key={key}"));
        assert!(waiting.contains("WARN") && waiting.contains("only after a restart"), "{waiting}");
    }
    assert!(line("configuration reloaded").contains("generation=2"), "{log}");

    client.echo(peer.address(), b"after").await;
    let (second, _) = connect(&server, &server.credentials("alice")).await;
    let refused = second.allocate().await.err().unwrap().to_string();
    assert!(refused.contains("486"), "{refused}");
    let scrape = Scrape::of(&server);
    assert_eq!(scrape.get("turnstone_config_generation"), 2.0);
    assert_eq!(scrape.get("turnstone_config_reloads_total{result=\"applied\"}"), 1.0);
    assert_eq!(scrape.get("turnstone_workers"), 2.0);
    assert_eq!(scrape.get("turnstone_relay_ports{address=\"127.0.0.1\",family=\"ipv4\",state=\"free\"}"), 19_999.0);
    assert_eq!(scrape.get("turnstone_allocations{transport=\"udp\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_or_key_leaves_the_running_one_and_says_why_once() {
    let server = TestServer::start(&config(""));
    let peer = EchoPeer::start("127.0.0.1");
    let client = Allocated::new(&server, "alice").await;
    reload(&server, &config("[quota]\nallocations-per-user = -1\n"));
    let other = TestAuthority::issue(&["localhost"]);
    std::fs::write(server.file("other.pem"), &other.certificate_pem).unwrap();
    reload(&server, &config("[quota]\nallocations-per-user = 1\n").replace("certificate.pem", "other.pem"));
    let log = server.log();
    let refusals: Vec<_> = log.lines().filter(|line| line.contains("reload refused")).collect();
    assert_eq!(refusals.len(), 2, "{log}");
    assert!(refusals[0].contains("turnserver.toml:") && refusals[0].contains("allocations-per-user"), "{log}");
    assert!(refusals[1].contains("other.pem") && refusals[1].contains("key.pem"), "{log}");
    client.echo(peer.address(), b"still there").await;
    Allocated::new(&server, "alice").await;
    let scrape = Scrape::of(&server);
    assert_eq!(scrape.get("turnstone_config_reloads_total{result=\"refused\"}"), 2.0);
    assert_eq!(scrape.get("turnstone_config_generation"), 1.0);
}

#[test]
fn the_log_filter_changes_with_a_reload() {
    let server = TestServer::start(&config("[log]\nlevel = \"info\"\n"));
    reload(&server, &config("[log]\nlevel = \"info\"\n"));
    let reloads = |log: &str| log.matches("configuration reloaded").count();
    assert_eq!(reloads(&server.log()), 1);
    // From now on only errors are logged; the reload is applied all the same.
    server.write_config(&config("[log]\nlevel = \"error\"\n"));
    server.signal(Signal::HUP);
    let generation = |wanted: f64| (Scrape::of(&server).get("turnstone_config_generation") == wanted).then_some(());
    wait_until("the second reload", LIMIT, || generation(3.0));
    assert_eq!(reloads(&server.log()), 1, "{}", server.log());
    server.write_config(&config("[log]\nlevel = \"info\"\n"));
    server.signal(Signal::HUP);
    wait_until("the third reload", LIMIT, || (reloads(&server.log()) == 2).then_some(()));
}

#[test]
fn a_new_certificate_is_taken_when_its_files_change_and_a_bad_pair_keeps_the_old() {
    let server = TestServer::start(&config(""));
    let value = |name: &str| Scrape::of(&server).get(name);
    let (applied, refused) = (
        "turnstone_certificate_reloads_total{result=\"applied\"}",
        "turnstone_certificate_reloads_total{result=\"refused\"}",
    );
    let first = served_certificate(&server, "authority.pem");
    let other = TestAuthority::issue(&["localhost", "127.0.0.1"]);
    std::fs::write(server.file("certificate.pem"), &other.certificate_pem).unwrap();
    std::fs::write(server.file("other.pem"), &other.authority_pem).unwrap();
    wait_until("the refusal of the pair", LIMIT, || (value(refused) == 1.0).then_some(()));
    assert_eq!(served_certificate(&server, "authority.pem"), first);
    let kept = || server.log().matches("the old certificate stays").count();
    // The log is written by a thread of its own.
    wait_until("the line of the refusal", LIMIT, || (kept() > 0).then_some(()));
    assert_eq!(kept(), 1, "{}", server.log());
    std::fs::write(server.file("key.pem"), &other.key_pem).unwrap();
    wait_until("the new certificate", LIMIT, || (value(applied) == 1.0).then_some(()));
    let second = served_certificate(&server, "other.pem");
    assert_ne!(second, first);
    assert_eq!(value(refused), 1.0);
    assert!(endpoint(&server).starts_with("127.0.0.1:"));
}

#[test]
fn sigusr2_reads_the_certificate_at_once_and_nothing_else() {
    let server = TestServer::start(&config(""));
    let value = |name: &str| Scrape::of(&server).get(name);
    let first = served_certificate(&server, "authority.pem");
    // What would be refused as a whole is not looked at.
    server.write_config("nonsense");
    let other = TestAuthority::issue(&["localhost", "127.0.0.1"]);
    for (name, pem) in
        [("certificate.pem", &other.certificate_pem), ("key.pem", &other.key_pem), ("other.pem", &other.authority_pem)]
    {
        std::fs::write(server.file(name), pem).unwrap();
    }
    server.signal(Signal::USR2);
    let applied = "turnstone_certificate_reloads_total{result=\"applied\"}";
    wait_until("the new certificate", LIMIT, || (value(applied) == 1.0).then_some(()));
    assert_ne!(served_certificate(&server, "other.pem"), first);
    // Also when nothing has changed: a hook that waits for the line finds it.
    server.signal(Signal::USR2);
    wait_until("it again", LIMIT, || (value(applied) == 2.0).then_some(()));
    std::fs::write(server.file("key.pem"), "no key").unwrap();
    server.signal(Signal::USR2);
    let refused = "turnstone_certificate_reloads_total{result=\"refused\"}";
    wait_until("the refusal", LIMIT, || (value(refused) == 1.0).then_some(()));
    // Lines are written by a thread of their own.
    let log = wait_until("the refusal in the log", LIMIT, || {
        Some(server.log()).filter(|log| log.contains("the old certificate stays") && log.contains("SIGUSR2"))
    });
    assert_eq!((value("turnstone_config_generation"), log.matches("reload refused").count()), (1.0, 0), "{log}");
}

#[test]
fn sigusr2_without_a_certificate_ends_nothing() {
    let text = config("").replace(", \"tls\"", "");
    let text = text.split("[tls]").next().unwrap().to_owned() + "[relay]" + text.split("[relay]").nth(1).unwrap();
    let mut server = TestServer::start(&text);
    server.signal(Signal::USR2);
    wait_until("the line", LIMIT, || server.log().contains("[tls] is not configured").then_some(()));
    assert!(server.is_running());
    assert_eq!(Scrape::of(&server).get("turnstone_config_generation"), 1.0);
}

#[test]
fn no_core_is_dumped_of_the_server_and_its_memory_is_closed_to_its_user() {
    let server = TestServer::start(&config(""));
    let file = |name: &str| format!("/proc/{}/{name}", server.process_id());
    let limits = std::fs::read_to_string(file("limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
    // The kernel gives what belongs to a process that may not be dumped to root, whoever runs it. Here that is nobody.
    if !rustix::process::geteuid().is_root() {
        crate::support::skipped("only root can start a process of another user");
        return;
    }
    let owner = |args: &[&str]| {
        let mut child = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_turnstone")])
            .args(args)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let owner = wait_until("the process to be its own", LIMIT, || {
            let status = std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
            let environ = format!("/proc/{}/environ", child.id());
            let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(environ).unwrap());
            (status.starts_with(env!("CARGO_BIN_EXE_turnstone")) && owner == 0).then_some(owner)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        owner
    };
    // It waits for standard input, as a command that holds a secret may.
    assert_eq!(owner(&["import", "-"]), 0);
}

/// The server's own certificate, as a client gets it that trusts the authority in `authority`.
fn served_certificate(server: &TestServer, authority: &str) -> Vec<u8> {
    let socket = std::net::TcpStream::connect(server.tls()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut session = tls_over(socket, server.file(authority));
    while session.conn.is_handshaking() {
        session.conn.complete_io(&mut session.sock).unwrap();
    }
    session.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_pipe_in_place_of_a_file_refuses_the_reload_and_holds_up_nothing() {
    let more = |with: &str| config("").replace("[[auth.secrets]]", &format!("{with}\n[[auth.secrets]]"));
    let auth = "[auth]\nusers-file = \"@DIR@/users\"\nrevocations = \"@DIR@/revocations\"";
    let folder = tempfile::tempdir().unwrap();
    let auth = auth.replace("@DIR@", &folder.path().display().to_string());
    for name in ["users", "revocations"] {
        let path = folder.path().join(name);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let text = more(&auth);
    let server = TestServer::start(&text);
    let files = ["users", "revocations"].map(|name| folder.path().join(name));
    let others = ["secret", "certificate.pem", "key.pem", "turnserver.toml"].map(|name| server.file(name).into());
    let mut refused = 0;
    for path in files.into_iter().chain(others) {
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        refused += 1;
        server.signal(Signal::HUP);
        wait_until("the refusal", LIMIT, || {
            (server.log().matches("reload refused").count() == refused as usize).then_some(())
        });
        assert_eq!(Scrape::of(&server).get("turnstone_config_reloads_total{result=\"refused\"}"), f64::from(refused));
        let name = path.file_name().unwrap().to_str().unwrap();
        let log = server.log();
        assert!(log.lines().any(|line| line.contains(name) && line.contains("it is a pipe")), "{name}: {log}");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
    }
    reload(&server, &text);
    assert_eq!(Scrape::of(&server).get("turnstone_config_reloads_total{result=\"applied\"}"), 1.0);
}

#[test]
fn tcp_relays_that_a_reload_offers_are_warned_of_once() {
    let server = TestServer::start(&config(""));
    let text = config("").replace("ipv6 = \"off\"", "ipv6 = \"off\"\ntcp = true");
    let warnings = || server.log().matches("no descriptors were planned for connections with peers").count();
    reload(&server, &text);
    assert_eq!(warnings(), 1, "{}", server.log());
    reload(&server, &text);
    assert_eq!(warnings(), 1, "it has been said");
}
