//! Certificates that have run out, soon will, or are of another key; and keys that others may read.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};

use super::support::TestServer;
use super::{Examined, config_of, doctor, set_mode};

const DAY: Duration = Duration::from_secs(86_400);

fn server() -> TestServer {
    TestServer::start(
        "[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\", \"tls\"]\n\
         [tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n\
         [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nports = \"10000-29999\"\n\
         [[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n",
    )
}

/// What is said when the certificate has been replaced by one that is good for turn.example.org until then.
fn with_certificate(until: SystemTime, public_host: &str) -> Examined {
    let server = server();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["turn.example.org".to_owned()]).unwrap();
    (params.not_before, params.not_after) = ((SystemTime::now() - 90 * DAY).into(), until.into());
    std::fs::write(server.file("certificate.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(server.file("key.pem"), key.serialize_pem()).unwrap();
    doctor(&config_of(&server, ""), &["--public-host", public_host, "--ca", &server.file("authority.pem")])
}

#[test]
fn an_expired_certificate_fails_and_the_listeners_are_probed_all_the_same() {
    let examined = with_certificate(SystemTime::now() - 3 * DAY - DAY / 2, "turn.example.org");
    examined.expect("certificate", "fail", "expired 3 days ago").expect("chain", "warn", "self-signed");
    assert_eq!(examined.code, 2);
    assert!(examined.steps_at("tls").contains(&("echo-channel", "ok")), "{:#}", examined.json);
}

#[test]
fn a_certificate_that_ends_within_three_weeks_is_warned_about() {
    let examined = with_certificate(SystemTime::now() + 20 * DAY + DAY / 2, "turn.example.org");
    examined.expect("certificate", "warn", "expires in 20 days").expect(
        "certificate",
        "ok",
        "it is for turn.example.org",
    );
    let examined = with_certificate(SystemTime::now() + 21 * DAY + DAY / 2, "other.example.org");
    examined.expect("certificate", "ok", "good for 21 days").expect(
        "certificate",
        "fail",
        "it is not for other.example.org",
    );
}

#[test]
fn a_key_that_everybody_may_read_or_that_is_of_another_certificate_fails() {
    let server = server();
    let config = config_of(&server, "");
    set_mode(&server.file("key.pem"), 0o644);
    let examined = doctor(&config, &[]);
    examined.expect("files", "fail", "key.pem is open to everybody (mode 0644); run: chmod 640");
    assert_eq!(examined.code, 2);
    set_mode(&server.file("key.pem"), 0o600);
    std::fs::write(server.file("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    doctor(&config, &[]).expect("key", "fail", "it does not belong to the certificate");
}

#[test]
fn a_secret_that_everybody_may_read_stops_the_configuration_with_the_fix() {
    let server = server();
    let config = config_of(&server, "");
    set_mode(&server.file("secret"), 0o644);
    let examined = doctor(&config, &[]);
    examined.expect("configuration", "fail", "secret is open to its group and everybody (mode 0644); run: chmod 600");
}
