//! `turnstone check` on certificates: good, expired, mismatched, out of order.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{Place, Ran};

const DAY: Duration = Duration::from_secs(86_400);

struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Authority { certificate, issuer: Issuer::new(params, key) }
}

/// A certificate for turn.example.org from `from` to `until`, in days from now and half a day more, and its key.
fn leaf(authority: &Authority, from: i64, until: i64) -> (String, String) {
    let days = |days: i64| match u32::try_from(days) {
        Ok(days) => SystemTime::now() + DAY * days + DAY / 2,
        Err(_) => SystemTime::now() - DAY * u32::try_from(-days).unwrap() - DAY / 2,
    };
    let mut params = CertificateParams::new(["turn.example.org".to_owned(), "*.turn.example.net".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (days(from).into(), days(until).into());
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &authority.issuer).unwrap().pem(), key.serialize_pem())
}

fn check(chain: &str, key: &str, key_mode: u32, public_host: &str) -> Ran {
    let place = Place::new();
    place.file("chain.pem", chain, 0o644);
    place.file("key.pem", key, key_mode);
    place.append("[tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n");
    place.run(&["check", "--public-host", public_host])
}

fn has(ran: &Ran, line: &str) {
    assert!(ran.out.lines().any(|found| found.contains(line)), "lacks {line}:\n{}{}", ran.out, ran.err);
}

#[test]
fn a_good_chain_passes() {
    let authority = authority("issuer");
    let (leaf, key) = leaf(&authority, -1, 90);
    let chain = leaf + &authority.certificate.pem();
    for (host, mode) in [("turn.example.org", 0o600), ("a.turn.example.net", 0o640)] {
        let ran = check(&chain, &key, mode, host);
        assert_eq!(ran.code, 0, "{}", ran.out);
        has(&ran, "ok       certificate: good for 90 days, until 20");
        has(&ran, "ok       chain: 2 certificates in order");
        has(&ran, &format!("ok       certificate: it is for {host}"));
        has(&ran, "ok       key: it belongs to the certificate");
        assert!(ran.out.contains("0 errors, "), "{}", ran.out);
    }
}

#[test]
fn expired_early_and_soon_expiring_certificates_are_named() {
    let authority = authority("issuer");
    for (from, until, code, line) in [
        (-90, -3, 2, "error    certificate: expired 3 days ago, on 20"),
        (2, 90, 2, "error    certificate: not valid before 20"),
        (-80, 5, 0, "warning  certificate: expires in 5 days, on 20"),
    ] {
        let (leaf, key) = leaf(&authority, from, until);
        let ran = check(&(leaf + &authority.certificate.pem()), &key, 0o600, "turn.example.org");
        assert_eq!(ran.code, code, "{}", ran.out);
        has(&ran, line);
    }
}

#[test]
fn a_key_of_another_certificate_is_an_error() {
    let authority = authority("issuer");
    let ((chain, _), (_, other_key)) = (leaf(&authority, -1, 90), leaf(&authority, -1, 90));
    let ran = check(&(chain + &authority.certificate.pem()), &other_key, 0o600, "turn.example.org");
    assert_eq!(ran.code, 2);
    has(&ran, "error    key: it does not belong to the certificate");
}

#[test]
fn a_chain_in_the_wrong_order_is_an_error_and_a_lone_certificate_a_warning() {
    let issuer = authority("issuer");
    let (leaf, key) = leaf(&issuer, -1, 90);
    let ran = check(&(issuer.certificate.pem() + &leaf), &key, 0o600, "turn.example.org");
    assert_eq!(ran.code, 2);
    has(&ran, "error    chain: certificate 1 is issued by");
    has(&check(&leaf, &key, 0o600, "turn.example.org"), "warning  chain: there is no intermediate certificate");
    let unrelated = leaf + &authority("somebody else").certificate.pem();
    has(
        &check(&unrelated, &key, 0o600, "turn.example.org"),
        "error    chain: certificate 1 is issued by \"CN=issuer\"",
    );
}

#[test]
fn a_certificate_for_another_host_is_an_error() {
    let authority = authority("issuer");
    let (leaf, key) = leaf(&authority, -1, 90);
    let ran = check(&(leaf + &authority.certificate.pem()), &key, 0o600, "other.example.org");
    assert_eq!(ran.code, 2);
    has(&ran, "error    certificate: it is not for other.example.org, the public-host of [auth]");
}

#[test]
fn a_self_signed_certificate_is_warned_about() {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["turn.example.org".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let ran = check(&certificate.pem(), &key.serialize_pem(), 0o600, "turn.example.org");
    has(&ran, "warning  chain: the certificate is self-signed: browsers refuse it");
    assert_eq!(ran.code, 0);
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let authority = authority("issuer");
    let (leaf, key) = leaf(&authority, -1, 90);
    for (chain, key, mode, line) in [
        ("", key.as_str(), 0o600, "chain.pem has no certificate in PEM"),
        ("garbage", &key, 0o600, "chain.pem has no certificate in PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            0o600,
            "number 1 of the chain is malformed",
        ),
        (&leaf, "", 0o600, "key.pem has no private key in PEM without a passphrase"),
        (&leaf, &leaf, 0o600, "key.pem has no private key in PEM"),
        (&leaf, &key, 0o644, "key.pem is open to everybody (mode 0644); run: chmod 640"),
    ] {
        let ran = check(chain, key, mode, "turn.example.org");
        assert_eq!(ran.code, 2, "{}", ran.out);
        has(&ran, line);
    }
}

#[test]
fn a_missing_certificate_is_an_error_of_check() {
    let place = Place::new();
    place.append("[tls]\ncertificate = \"no.pem\"\nkey = \"no-key.pem\"\n");
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 2);
    has(&ran, "error    certificate: cannot read no.pem: ");
    has(&ran, "error    key: cannot read no-key.pem: no such file or directory");
}

#[test]
fn files_that_may_be_half_renewed_let_the_unit_try_again_and_absent_ones_do_not() {
    let authority = authority("issuer");
    let ((chain, _), (_, key)) = (leaf(&authority, -1, 90), leaf(&authority, -1, 90));
    let half = chain.get(..chain.len() / 2).unwrap();
    for (found, code) in [(Some(chain.as_str()), 3), (Some(half), 3), (None, 2)] {
        let place = Place::new();
        place.file("key.pem", &key, 0o600);
        place.append("[tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n");
        if let Some(found) = found {
            place.file("chain.pem", found, 0o644);
        }
        let ran = place.run(&["serve", "--listen", "udp://127.0.0.1:0"]);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.err.contains("turnserver.toml:13:") && ran.err.contains("chain.pem"), "{}", ran.err);
    }
}
