//! Authorities that do everything wrong, and one that gives advice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{Asked, Authority, Said, problem, said};
use super::support::{TestAuthority, TestServer, wait_until};
use super::{LIMIT, config, free_port, listen, s_client, wait_for_line};

const NAME: &str = "turn.example.org";

type Behaviour = (&'static str, fn(&Asked, &str) -> Option<Said>, &'static [&'static str]);

#[test]
fn an_authority_that_is_gone_slow_or_mad_is_told_and_holds_up_nothing() {
    let behaviours: [Behaviour; 7] = [
        (
            "an error of a proxy",
            |_, _| Some((502, "Content-Type: text/html\r\n".to_owned(), b"<h1>no</h1>".to_vec())),
            &["HTTP status 502", "kind=\"authority\""],
        ),
        ("no end", |_, _| Some((200, String::new(), vec![b' '; 300 << 10])), &["longer than 256 KiB"]),
        (
            "no answer",
            |_, _| {
                std::thread::sleep(Duration::from_secs(600));
                None
            },
            &["has not answered within 30 seconds", "kind=\"unreachable\""],
        ),
        ("no JSON", |_, _| Some((200, String::new(), b"{".to_vec())), &["JSON"]),
        (
            "other places",
            |asked, _| {
                let directory = json!({ "newNonce": "ftp://x/", "newAccount": "x", "newOrder": "x" });
                (asked.path == "/dir").then(|| said(200, "", &directory))
            },
            &["not to be asked"],
        ),
        (
            "no nonce is ever good",
            |asked, _| {
                (asked.path == "/account").then(|| {
                    let (_, headers, body) = problem("badNonce", "no", "");
                    (400, headers, body)
                })
            },
            &["(badNonce)", "for the authority to mend"],
        ),
        (
            "an account is wanted first",
            |asked, _| (asked.path == "/account").then(|| problem("externalAccountRequired", "\u{1b}[31mfirst", "")),
            &["kind=\"account\"", "acme-eab-key-id"],
        ),
    ];
    let mut servers = Vec::new();
    for (what, say, expected) in behaviours {
        let state = tempfile::tempdir().unwrap();
        let (port, authority) = (free_port(), Authority::start(say));
        let tls = format!("acme = [\"{NAME}\"]\nacme-directory = \"{}\"\n", authority.directory);
        let server = TestServer::start(&config(state.path(), &listen(port, "transport = \"tls\""), &tls));
        servers.push((what, expected, state, port, authority, server));
    }
    for (what, expected, _state, port, _authority, server) in servers {
        let line = wait_for_line(&server, &["no certificate was had by ACME"]);
        let plain = line.replace("\u{1b}[3m", "").replace("\u{1b}[0m", "").replace("\u{1b}[2m", "");
        for part in expected {
            assert!(plain.contains(part), "{what}: {plain}");
        }
        assert!(!plain.contains("\u{1b}[31m"), "{what}: {plain}");
        let refused = s_client(port, NAME, &[]);
        assert!(refused.all_output().contains("access denied"), "{what}: {}", refused.all_output());
    }
}

#[test]
fn advice_to_renew_is_followed_the_old_certificate_is_named_and_serves_on_and_a_limit_is_waited_for() {
    let authority = Authority::start(|asked, _| match asked.path.as_str() {
        "/order" => Some(problem("rateLimited", "too many", "Retry-After: 3600\r\n")),
        path if path.starts_with("/advice/") => {
            let window =
                json!({ "suggestedWindow": { "start": "2021-01-03T00:00:00Z", "end": "2021-01-03T00:00:01Z" } });
            Some(said(200, "Retry-After: 21600\r\n", &window))
        }
        _ => None,
    });
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("acme");
    std::fs::create_dir(&folder).unwrap();
    let own = TestAuthority::issue(&[NAME]);
    std::fs::write(folder.join(format!("{NAME}.pem")), format!("{}{}", own.key_pem, own.certificate_pem)).unwrap();
    std::fs::set_permissions(folder.join(format!("{NAME}.pem")), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let record = folder.join(format!("{NAME}.json"));
    std::fs::write(&record, json!({ "directory": authority.directory, "issued-by": authority.directory }).to_string())
        .unwrap();
    let port = free_port();
    let tls = format!("acme = [\"{NAME}\"]\nacme-directory = \"{}\"\n", authority.directory);
    let server = TestServer::start(&config(state.path(), &listen(port, "transport = \"tls\""), &tls));
    let line = wait_for_line(&server, &["no certificate was had by ACME"]);
    assert!(line.contains("rate-limited") && line.contains("nothing is to be done but to wait"), "{line}");

    // RFC 9773 section 4.1: the key identifier of the authority, and the serial number, both as they are in the certificate.
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(own.certificate_pem.as_bytes());
    let der: rustls::pki_types::CertificateDer<'_> = der.unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let serial = {
        use base64::Engine as _;
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(certificate.raw_serial())
    };
    let asked = authority.asked();
    let advice = asked.iter().find_map(|asked| asked.path.strip_prefix("/advice/")).unwrap();
    assert!(advice.ends_with(&format!(".{serial}").to_lowercase()), "{advice} {serial}");
    let order = asked.iter().find(|asked| asked.path == "/order").unwrap();
    assert_eq!(order.payload["replaces"].as_str().unwrap().to_lowercase(), advice);
    assert_eq!(order.payload["identifiers"], json!([{ "type": "dns", "value": NAME }]));

    let wait = wait_until("what was noted", LIMIT, || {
        let noted: Value = serde_json::from_slice(&std::fs::read(&record).ok()?).ok()?;
        noted["wait-unix"].as_u64().filter(|wait| *wait > 0)
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 3500..=now + 3600).contains(&wait), "{wait} {now}");
    assert!(s_client(port, NAME, &[]).stdout.contains("BEGIN CERTIFICATE"), "the one there is serves on");
}
