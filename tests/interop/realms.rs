//! Several realms and several certificates, as programs that we did not write see them: coturn's `turnutils_uclient` in two realms by two
//! listeners, `openssl s_client` by server names and signature algorithms, and keys as coturn's `turnadmin -k` makes them.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::behind_proxies::scrape;
use crate::proxy::free_ports;
use crate::support::openssl::{CertificateFolder, certificate, handshake, realm_by};
use crate::support::{Finished, RELAY_PORTS, TestServer, Transport, require_tool, run, run_with_input};
use crate::uclient::{Peer, assert_nothing_lost};

const LIMIT: Duration = Duration::from_secs(40);

/// Two realms: that of `[auth]`, and `b.example` at the second UDP listener and by a server name.
fn two_realms(users: &str, more: &str) -> TestServer {
    TestServer::start(&format!(
        r#"
        rfc5766-channel-numbers = true
        {more}
        [[listen]]
        address = "127.0.0.1:0"
        transport = "udp"
        [[listen]]
        address = "127.0.0.2:0"
        transport = "udp"
        realm = "b.example"
        [[listen]]
        address = "127.0.0.1:0"
        transport = "tls"
        [tls]
        certificate = "@DIR@/certificate.pem"
        key = "@DIR@/key.pem"
        [relay]
        ipv4 = "127.0.0.1"
        ipv6 = "off"
        ports = "{}-{}"
        [auth]
        realm = "a.example"
        {users}
        [[realm]]
        name = "b.example"
        sni = ["turn.b.example"]
        [[realm.users]]
        name = "alice"
        password = "of the other realm"
        "#,
        RELAY_PORTS.0, RELAY_PORTS.1
    ))
}

const ALICE: &str = "[[auth.users]]\nname = \"alice\"\npassword = \"of this realm\"";

fn listener(server: &TestServer, ip: &str) -> SocketAddr {
    let all = server.listeners();
    let found = all.iter().find(|(transport, address)| *transport == Transport::Udp && address.ip().to_string() == ip);
    found.unwrap().1
}

fn uclient(at: SocketAddr, password: &str, peer: &Peer) -> Finished {
    let mut command = Command::new(require_tool("turnutils_uclient", "coturn"));
    command
        .args(["-u", "alice", "-w", password, "-p", &at.port().to_string(), "-n", "25", "-z", "10", "-c"])
        .args(peer.flags())
        .arg(at.ip().to_string());
    run(&mut command, LIMIT)
}

#[test]
fn uclient_is_served_in_each_realm_by_its_listener_and_not_with_the_other_realm_s_password() {
    let server = two_realms(ALICE, "");
    let peer = Peer::start("127.0.0.1");
    let (here, there) = (listener(&server, "127.0.0.1"), listener(&server, "127.0.0.2"));
    assert_nothing_lost(&uclient(here, "of this realm", &peer));
    assert_nothing_lost(&uclient(there, "of the other realm", &peer));
    for (at, password) in [(here, "of the other realm"), (there, "of this realm")] {
        let refused = uclient(at, password, &peer);
        assert_ne!(refused.code, Some(0), "{}", refused.all_output());
    }
}

#[test]
fn uclient_is_served_as_a_user_whose_key_turnadmin_has_made() {
    let turnadmin = require_tool("turnadmin", "coturn");
    let made =
        run(Command::new(turnadmin).args(["-k", "-u", "alice", "-r", "a.example", "-p", "of this realm"]), LIMIT);
    let key = made.all_output().split_whitespace().find(|word| word.starts_with("0x")).unwrap().to_owned();
    assert_eq!(key.len(), 34, "{key}");
    let server = two_realms(&format!("[[auth.users]]\nname = \"alice\"\npassword = \"{key}\""), "");
    let peer = Peer::start("127.0.0.1");
    assert_nothing_lost(&uclient(listener(&server, "127.0.0.1"), "of this realm", &peer));
    // The key itself is no password.
    assert_ne!(uclient(listener(&server, "127.0.0.1"), &key, &peer).code, Some(0));
    // Our own command makes the same one, and its lines are taken by the server.
    let hash = run_with_input(
        Command::new(env!("CARGO_BIN_EXE_turnstone")).args([
            "credentials",
            "hash",
            "--realm",
            "a.example",
            "--md5",
            "alice",
        ]),
        "of this realm\n",
        LIMIT,
    );
    assert_eq!(hash.all_output().trim(), format!("# realm: a.example\nalice:{key}"));
}

#[test]
fn users_of_coturn_s_database_come_along_with_their_keys_as_import_says() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("turndb");
    let mut turnadmin = Command::new(require_tool("turnadmin", "coturn"));
    turnadmin.args(["-a", "-u", "alice", "-r", "a.example", "-p", "of this realm", "-b"]).arg(&database);
    let made = run(turnadmin.current_dir(directory.path()), LIMIT);
    assert_eq!(made.code, Some(0), "{}", made.all_output());
    let mut import = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    let said = run(import.args(["import", "--args", "--", "-n", "-b", database.to_str().unwrap()]), LIMIT);
    let words = said.all_output().split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, rest) = words.split_once("sqlite3 DATABASE \"").unwrap_or_else(|| panic!("{words}"));
    let select = rest.split('"').next().unwrap().replace("REALM", "a.example");
    let lines = run(Command::new(require_tool("sqlite3", "sqlite3")).arg(&database).arg(select), LIMIT);
    let line = lines.all_output().trim().to_owned();
    assert!(line.starts_with("alice:0x") && line.len() == 40, "{line}");
    let users = directory.path().join("users");
    std::fs::write(&users, format!("{line}\n")).unwrap();
    std::fs::set_permissions(&users, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let server = two_realms(&format!("users-file = \"{}\"", users.display()), "");
    let peer = Peer::start("127.0.0.1");
    assert_nothing_lost(&uclient(listener(&server, "127.0.0.1"), "of this realm", &peer));
    assert_ne!(uclient(listener(&server, "127.0.0.2"), "of this realm", &peer).code, Some(0), "another realm");
}

#[test]
fn each_realm_has_its_own_peers_and_counts_as_uclient_finds() {
    let [metrics] = free_ports();
    let peer = Peer::start("127.0.0.1");
    let server = TestServer::start(&format!(
        r#"
        rfc5766-channel-numbers = true
        [[listen]]
        address = "127.0.0.1:0"
        transport = "udp"
        [[listen]]
        address = "127.0.0.2:0"
        transport = "udp"
        realm = "b.example"
        [relay]
        ipv4 = "127.0.0.1"
        ipv6 = "off"
        ports = "{}-{}"
        [[peers.policy]]
        name = "of-b"
        denied-ports = [{}]
        [auth]
        realm = "a.example"
        [[auth.users]]
        name = "alice"
        password = "of this realm"
        [[realm]]
        name = "b.example"
        peers = "of-b"
        [[realm.users]]
        name = "alice"
        password = "of the other realm"
        [metrics]
        listen = "127.0.0.1:{metrics}"
        "#,
        RELAY_PORTS.0,
        RELAY_PORTS.1,
        peer.port()
    ));
    let (here, there) = (listener(&server, "127.0.0.1"), listener(&server, "127.0.0.2"));
    assert_nothing_lost(&uclient(here, "of this realm", &peer));
    let denied = uclient(there, "of the other realm", &peer);
    assert!(denied.code != Some(0) && denied.all_output().contains("403"), "{}", denied.all_output());
    let metrics = scrape(metrics);
    let value = |name: &str, realm: &str| {
        let series = format!("{name}{{realm=\"{realm}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap_or_else(|| panic!("no {series} in {metrics}")).parse::<f64>().unwrap()
    };
    for realm in ["a.example", "b.example"] {
        assert!(value("turnstone_realm_allocations_made_total", realm) >= 1.0, "{realm}");
    }
    assert_eq!(value("turnstone_realm_refusals_total", "a.example"), 0.0);
    assert!(value("turnstone_realm_refusals_total", "b.example") >= 1.0);
}

#[test]
fn a_server_name_leads_to_its_realm_and_any_other_to_that_of_the_listener() {
    let server = two_realms(ALICE, "");
    let tls = server.tls();
    assert_eq!(realm_by(tls, &[&["-servername", "turn.b.example"]]), "b.example");
    assert_eq!(realm_by(tls, &[&["-servername", "TURN.B.example"]]), "b.example");
    assert_eq!(realm_by(tls, &[&["-servername", "turn.a.example"]]), "a.example");
    assert_eq!(realm_by(tls, &[&["-noservername"]]), "a.example");
}

#[test]
fn certificates_are_chosen_by_server_name_and_by_what_the_client_can_verify_and_follow_their_files() {
    let folder = CertificateFolder::of_c_example();
    let server = TestServer::start(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"tls\"\n[relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\n\
         [tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n{}\
         [[auth.secrets]]\nfile = \"@DIR@/secret\"\n",
        folder.toml()
    ));
    let tls = server.tls();
    let shows = |flags: &[&str], subject: &str| {
        let said = handshake(tls, &[flags]);
        assert!(said.contains(subject), "{flags:?} shows no {subject}:\n{said}");
    };
    shows(&["-servername", "turn.c.example"], "subject-ecdsa");
    shows(&["-servername", "turn.c.example", "-sigalgs", "RSA-PSS+SHA256"], "subject-rsa");
    shows(&["-servername", "turn.c.example", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "subject-rsa");
    shows(&["-servername", "other.c.example"], "subject-wild");
    for flags in [&["-noservername"][..], &["-servername", "elsewhere.example"]] {
        shows(flags, "Turnstone test server");
    }
    // One pair is renewed and another one broken at the same time: the broken one stays as it was.
    folder.put("wild", certificate("*.c.example", "subject-renewed", false));
    std::fs::write(folder.path("ecdsa-key.pem"), "no key").unwrap();
    server.signal(rustix::process::Signal::USR2);
    crate::support::wait_until("the renewed certificate", Duration::from_secs(20), || {
        handshake(tls, &[&["-servername", "other.c.example"]]).contains("subject-renewed").then_some(())
    });
    shows(&["-servername", "turn.c.example"], "subject-ecdsa");
    crate::support::wait_until("what the operator hears of it", Duration::from_secs(20), || {
        server.log().contains("ecdsa-key.pem").then_some(())
    });
}

#[test]
fn post_quantum_key_exchange_is_negotiated_with_a_client_that_offers_it() {
    let server = two_realms(ALICE, "");
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // As browsers offer it: first, and X25519 for others.
    provider.kx_groups =
        vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768, rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut roots = rustls::RootCertStore::empty();
    let authority: rustls::pki_types::CertificateDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_file(server.file("authority.pem")).unwrap();
    roots.add(authority).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tls = rustls::ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
    let mut stream = std::net::TcpStream::connect(server.tls()).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).unwrap();
    }
    let group = tls.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}
