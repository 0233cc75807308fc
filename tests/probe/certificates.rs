//! Certificates that are not trusted, end, or ended.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

use super::support::{Spec, TestServer, Transport};
use super::{Probe, url};

/// A server whose certificate is for 127.0.0.1 and ends on a day; its authority is `ca.pem` in the folder.
fn server_until(folder: &Path, (year, month, day): (i32, u8, u8)) -> TestServer {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "An authority of the tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    std::fs::write(folder.join("ca.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    leaf.not_after = date_time_ymd(year, month, day);
    let certificate = leaf.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    let key_file = folder.join("key.pem");
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let folder = folder.display();
    TestServer::start(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"tls\"\n\
         [tls]\ncertificate = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n\
         [relay]\nports = \"10000-29999\"\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\n\
         [[auth.secrets]]\nid = \"a\"\nfile = \"@DIR@/secret\"\n"
    ))
}

#[test]
fn an_unknown_authority_ends_the_probe_before_anything_is_sent() {
    let server = Spec::local().start();
    let other = Spec::local().start();
    let probed = Probe::of(&url(&server, Transport::Tls, "127.0.0.1")).trusting(&other).with_secret(&server).run();
    probed.expect_exit(2, "fail").expect("certificate", "fail", "authority").expect("tls", "ok", "TLS 1.3");
    assert!(!probed.has_step("binding"));
    assert_eq!(probed.step("certificate")["facts"]["trusted"], false);
}

#[test]
fn an_authoritys_own_certificate_is_told_in_plain_words() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let server = server_until(folder.path(), (2050, 1, 1));
    std::fs::write(folder.path().join("cert.pem"), &pem).unwrap();
    std::fs::write(folder.path().join("ca.pem"), &pem).unwrap();
    std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    let text = std::fs::read_to_string(server.file("turnserver.toml")).unwrap();
    let server = TestServer::start(&text.replace(server.file("secret").as_str(), "@DIR@/secret"));
    let ca = folder.path().join("ca.pem");
    let probed = Probe::of(&url(&server, Transport::Tls, "127.0.0.1")).args(&["--ca", ca.to_str().unwrap()]).run();
    probed.expect_exit(2, "fail").expect("certificate", "fail", "an authority's certificate (CA:TRUE)");
    let said = probed.step("certificate")["message"].as_str().unwrap().to_owned();
    assert!(!said.contains("OtherError"), "{said}");
}

#[test]
fn insecure_goes_on_and_says_so_loudly() {
    let server = Spec::local().start();
    let other = Spec::local().start();
    let url = url(&server, Transport::Tls, "127.0.0.1");
    let probe = || Probe::of(&url).trusting(&other).with_secret(&server).arg("--insecure");
    let probed = probe().run();
    probed.expect_exit(0, "warn").expect("certificate", "warn", "NOT TRUSTED").expect(
        "echo-channel",
        "ok",
        "unchanged",
    );
    assert!(probed.json["insecure"].as_bool().unwrap() && probed.stderr.contains("--insecure"), "{}", probed.stderr);
    probe().arg("--strict").run().expect_exit(1, "warn");
    let trusted = Probe::of(&url).trusting(&server).with_secret(&server).arg("--insecure").run();
    trusted.expect_exit(0, "warn").expect("certificate", "warn", "NOT CHECKED");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let mut spec = Spec::local();
    spec.certificate_names = vec!["turn.example.org".to_owned()];
    let server = spec.start();
    let probed = Probe::of_server(&server, Transport::Tls, "127.0.0.1").run();
    probed.expect_exit(2, "fail").expect("certificate", "fail", "name");
}

#[test]
fn an_expired_certificate_is_refused_with_how_long_ago() {
    let folder = tempfile::tempdir().unwrap();
    let server = server_until(folder.path(), (2024, 5, 1));
    let ca = folder.path().join("ca.pem");
    let probed = Probe::of(&format!("turns:{}", server.tls())).args(&["--ca", ca.to_str().unwrap()]).run();
    probed.expect_exit(2, "fail").expect("certificate", "fail", "certificate expired");
    let facts = &probed.step("certificate")["facts"];
    assert_eq!(facts["not_after_unix"], 1_714_521_600);
    assert!(facts["days_left"].as_i64().unwrap() < -365, "{facts}");
}

#[test]
fn a_certificate_that_ends_soon_is_a_warning_with_its_days() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let folder = tempfile::tempdir().unwrap();
    let end = x509_day(now + 6 * 86_400);
    let server = server_until(folder.path(), end);
    let ca = folder.path().join("ca.pem");
    let probe = Probe::of(&format!("turns:{}", server.tls())).args(&["--ca", ca.to_str().unwrap()]);
    let probed = probe.with_secret(&server).run();
    probed.expect_exit(0, "warn").expect("certificate", "warn", "only valid for another");
    assert_eq!(probed.step("certificate")["facts"]["days_left"], 5);
}

#[test]
fn the_authorities_of_the_system_can_be_named_by_the_usual_variable() {
    let server = Spec::local().start();
    let mut probe = Probe::of(&format!("stuns:{}", server.tls()));
    probe.command.env("SSL_CERT_FILE", server.file("authority.pem"));
    probe.run().expect_exit(0, "warn").expect("certificate", "ok", "trusted");
}

/// The UTC day of a Unix time.
fn x509_day(unix_secs: u64) -> (i32, u8, u8) {
    let date = std::process::Command::new("date").args(["-u", "-d", &format!("@{unix_secs}"), "+%Y %m %d"]).output();
    let text = String::from_utf8(date.unwrap().stdout).unwrap();
    let parts: Vec<i32> = text.split_whitespace().map(|part| part.parse().unwrap()).collect();
    (parts[0], parts[1] as u8, parts[2] as u8)
}

#[test]
fn one_node_behind_a_public_name_is_asked_by_its_address() {
    let mut spec = Spec::local();
    spec.certificate_names = vec!["turn.example.org".to_owned()];
    let server = spec.start();
    let port = server.tls().port();
    let probe = |url: &str| Probe::of(url).trusting(&server).with_secret(&server);
    // The name is nowhere in any DNS.
    let named = format!("turns:turn.example.org:{port}");
    let probed = probe(&named).args(&["--connect-to", "127.0.0.1"]).run();
    probed.expect_exit(0, "note").expect("certificate", "ok", "trusted").expect("echo-channel", "ok", "unchanged");
    probed.expect("resolve", "ok", "127.0.0.1 (in place of turn.example.org, by --connect-to 127.0.0.1)");
    let elsewhere = format!("127.0.0.1:{port}");
    probe("turns:turn.example.org:1").args(&["--connect-to", &elsewhere]).run().expect_exit(0, "note");
    let by_address = format!("turns:127.0.0.1:{port}");
    let probed = probe(&by_address).args(&["--server-name", "turn.example.org"]).run();
    probed.expect_exit(0, "note").expect("certificate", "ok", "trusted");
    for (url, option, value) in
        [(&by_address, "--server-name", "turn.example.net"), (&by_address, "--connect-to", "127.0.0.1")]
    {
        probe(url).args(&[option, value]).run().expect_exit(2, "fail").expect("certificate", "fail", "name");
    }
    let probed = probe(&named).args(&["--connect-to", "127.0.0.1", "-6"]).run();
    probed.expect_exit(2, "fail").expect("resolve", "fail", "there is no IPv6 address");
}
