//! Authorities that do everything wrong, and one that gives advice.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{Asked, Authority, Said, problem, said};
use super::support::free_port;
use super::support::{TestAuthority, TestServer, wait_until};
use super::{LIMIT, ask, config, listen, s_client, wait_for_line};

const NAME: &str = "turn.example.org";

/// A server that asks this authority for these names, whose state is kept here.
fn asking(state: &Path, authority: &Authority, names: &[&str]) -> String {
    let tls = format!("acme = {names:?}\nacme-directory = \"{}\"\n", authority.directory);
    config(state, &listen(free_port(), "transport = \"tls\""), &tls)
}

fn noted(state: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(state.join("acme").join(format!("{name}.json"))).unwrap()).unwrap()
}

fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn reload(server: &TestServer) -> String {
    let reloaded = ask(server, &["reload"]);
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.all_output());
    reloaded.stdout
}

type Behaviour = (&'static str, fn(&Asked, &str) -> Option<Said>, &'static [&'static str]);

#[test]
fn an_authority_that_is_gone_slow_or_mad_is_told_and_holds_up_nothing() {
    let behaviours: [Behaviour; 8] = [
        (
            "an error of a proxy",
            |_, _| Some((502, "Content-Type: text/html\r\n".to_owned(), b"<h1>no</h1>".to_vec())),
            &["HTTP status 502", "kind=\"authority\""],
        ),
        ("no end", |_, _| Some((200, String::new(), vec![b' '; 300 << 10])), &["longer than 256 KiB"]),
        (
            "promises without end",
            |_, _| Some((100, String::new(), b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1 << 17))),
            &["longer than 256 KiB, or has no end", "kind=\"authority\""],
        ),
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
fn nonces_that_are_refused_for_a_while_cost_no_attempt() {
    let left = AtomicU32::new(4);
    let authority = Authority::start(move |asked, _| match asked.path.as_str() {
        "/account" if left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() => {
            let (_, headers, body) = problem("badNonce", "no", "");
            Some((400, headers, body))
        }
        "/order" => Some(problem("rateLimited", "too many", "")),
        _ => None,
    });
    let state = tempfile::tempdir().unwrap();
    let server = TestServer::start(&asking(state.path(), &authority, &[NAME]));
    let line = wait_for_line(&server, &["no certificate was had by ACME"]);
    assert!(line.contains("(rateLimited)"), "{line}");
    assert_eq!(authority.asked().iter().filter(|asked| asked.path == "/account").count(), 5);
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

/// In how many seconds each name is asked for again, after a reload.
fn due_secs(server: &TestServer) -> Vec<u64> {
    reload(server);
    let status: Value = serde_json::from_str(&ask(server, &["status", "--json"]).stdout).unwrap();
    let due = |name: &Value| name["next_attempt_unix"].as_u64().unwrap().saturating_sub(now_unix());
    status["acme"].as_array().unwrap().iter().map(due).collect()
}

#[test]
fn what_hangs_in_place_of_a_file_holds_up_neither_the_server_nor_its_end() {
    let authority = Authority::start(|asked, _| (asked.path == "/order").then(|| problem("malformed", "no", "")));
    let state = tempfile::tempdir().unwrap();
    let mut server = TestServer::start(&asking(state.path(), &authority, &[NAME]));
    wait_for_line(&server, &["no certificate was had by ACME"]);
    wait_until("what was noted", LIMIT, || (!noted(state.path(), NAME)["failure"].is_null()).then_some(()));
    let folder = state.path().join("acme");
    let account = std::fs::read_dir(folder.join("accounts")).unwrap().next().unwrap().unwrap().path();
    for path in [folder.join(format!("{NAME}.json")), folder.join(format!("{NAME}.pem")), account] {
        let _ = std::fs::remove_file(&path);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    }
    reload(&server);
    // What was tried is forgotten, and tried again with an account that cannot be read.
    let line = wait_for_line(&server, &["no certificate was had by ACME", "it is a pipe"]);
    assert!(line.contains("disk"), "{line}");
    wait_until("the status", LIMIT, || ask(&server, &["status"]).stdout.contains("it is a pipe").then_some(()));
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
}

#[test]
fn directories_that_alternate_forget_nothing_that_was_tried() {
    let refuses = |asked: &Asked, _: &str| {
        (asked.path == "/order").then(|| problem("rateLimited", "too many", "Retry-After: 7200\r\n"))
    };
    let (one, other) = (Authority::start(refuses), Authority::start(refuses));
    let state = tempfile::tempdir().unwrap();
    let text = asking(state.path(), &one, &[NAME]);
    let server = TestServer::start(&text);
    wait_for_line(&server, &["no certificate was had by ACME"]);
    for n in 0..6 {
        let text = if n % 2 == 0 { text.replace(&one.directory, &other.directory) } else { text.clone() };
        server.write_config(&text);
        reload(&server);
        wait_until("what is tried", LIMIT, || {
            let status = ask(&server, &["status"]).stdout;
            (status.contains("too many") && !status.contains("is under way")).then_some(())
        });
    }
    let orders = |authority: &Authority| authority.asked().iter().filter(|asked| asked.path == "/order").count();
    assert_eq!((orders(&one), orders(&other)), (1, 1));
    let told = || server.log().matches("no certificate was had by ACME").count();
    wait_until("both to be told", LIMIT, || (told() >= 2).then_some(()));
    assert_eq!(told(), 2);
    let noted = noted(state.path(), NAME);
    assert!(noted["wait-unix"].as_u64() > Some(now_unix() + 7000), "{noted}");
    assert_eq!(noted["elsewhere"][0]["directory"], one.directory);
    assert!(noted["elsewhere"][0]["wait-unix"].as_u64() > Some(now_unix() + 7000), "{noted}");
}

#[test]
fn what_an_authority_refuses_to_the_account_is_asked_once_and_not_for_each_name() {
    let authority = Authority::start(|asked, _| {
        (asked.path == "/account").then(|| problem("rateLimited", "too many", "Retry-After: 7200\r\n"))
    });
    let names: Vec<_> = (0..20).map(|n| format!("turn-{n}.example.org")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let state = tempfile::tempdir().unwrap();
    let text = asking(state.path(), &authority, &names);
    let server = TestServer::start(&text);
    wait_for_line(&server, &["no certificate was had by ACME"]);
    assert!(due_secs(&server).iter().all(|secs| (7000..=7200).contains(secs)), "{:?}", due_secs(&server));
    drop(server);
    // What was noted of one name is known after a restart.
    let server = TestServer::start(&text);
    wait_for_line(&server, &["there is no certificate yet", "turn-19"]);
    assert!(due_secs(&server).iter().all(|secs| (7000..=7200).contains(secs)), "{:?}", due_secs(&server));
    let accounts = authority.asked().iter().filter(|asked| asked.path == "/account").count();
    assert_eq!(accounts, 1);
    assert_eq!(server.log().matches("no certificate was had by ACME").count(), 0);
}

#[test]
fn orders_that_are_refused_to_one_name_hold_up_others_a_minute_and_to_two_as_long_as_the_authority_wants() {
    let authority = Authority::start(|asked, _| {
        (asked.path == "/order").then(|| problem("rateLimited", "too many", "Retry-After: 7200\r\n"))
    });
    let names = ["a.example.org", "b.example.org", "c.example.org"];
    let state = tempfile::tempdir().unwrap();
    let text = asking(state.path(), &authority, &names);
    let server = TestServer::start(&text);
    wait_for_line(&server, &["no certificate was had by ACME"]);
    let first = wait_until("what was noted", LIMIT, || {
        let noted = noted(state.path(), names[0]);
        (noted["wait-unix"].as_u64() > Some(0)).then_some(noted)
    });
    assert!((now_unix()..now_unix() + 70).contains(&first["retry-all-unix"].as_u64().unwrap()), "{first}");
    assert_eq!(first["wait-all-unix"], 0);
    let due = due_secs(&server);
    assert!((7000..=7200).contains(&due[0]) && due[1] <= 66 && due[2] <= 66, "{due:?}");
    drop(server);
    // As if that minute were over.
    let path = state.path().join("acme").join(format!("{}.json", names[0]));
    let mut over = first;
    over["retry-all-unix"] = 0.into();
    std::fs::write(&path, over.to_string()).unwrap();
    let server = TestServer::start(&text);
    wait_for_line(&server, &["no certificate was had by ACME"]);
    assert!(due_secs(&server).iter().all(|secs| (7000..=7200).contains(secs)), "{:?}", due_secs(&server));
    let orders = authority.asked().iter().filter(|asked| asked.path == "/order").count();
    assert_eq!(orders, 2);
}

#[test]
fn an_authority_that_is_not_reached_is_tried_again_within_minutes_and_a_reload_says_when() {
    let port = free_port();
    let state = tempfile::tempdir().unwrap();
    let tls = format!("acme = [\"{NAME}\"]\nacme-directory = \"http://127.0.0.1:{port}/dir\"\n");
    let server = TestServer::start(&config(state.path(), &listen(free_port(), "transport = \"tls\""), &tls));
    wait_for_line(&server, &["no certificate was had by ACME", "unreachable"]);
    let noted =
        wait_until("what was noted", LIMIT, || Some(noted(state.path(), NAME)).filter(|noted| noted["uncounted"] == 1));
    assert_eq!((&noted["attempts-unix"], &noted["failures"]), (&json!([]), &json!(0)), "{noted}");
    let retry = noted["retry-unix"].as_u64().unwrap();
    assert!((now_unix() + 30..=now_unix() + 66).contains(&retry), "{noted}");
    let told = reload(&server);
    assert!(told.contains(&format!("certificate of {NAME} by ACME: the next attempt is due in ")), "{told}");
    let status = ask(&server, &["status"]).stdout;
    assert!(status.contains("which has no certificate yet: 1 attempt failed, the next attempt is due in "), "{status}");
}

#[test]
fn a_damaged_account_is_set_aside_and_another_one_is_made() {
    let authority = Authority::start(|asked, _| (asked.path == "/order").then(|| problem("malformed", "no", "")));
    let state = tempfile::tempdir().unwrap();
    let text = asking(state.path(), &authority, &[NAME]);
    let folder = state.path().join("acme/accounts");
    let damage: [fn(&str) -> String; 2] = [
        |text| text[..text.len() / 2].to_owned(),
        |text| {
            let mut account: Value = serde_json::from_str(text).unwrap();
            let key = account["credentials"]["key_pkcs8"].as_str().unwrap();
            account["credentials"]["key_pkcs8"] = key[..key.len() / 8 * 4].into();
            account.to_string()
        },
    ];
    drop({
        let server = TestServer::start(&text);
        wait_for_line(&server, &["no certificate was had by ACME"]);
        server
    });
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    for (n, damage) in damage.into_iter().enumerate() {
        let good = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, damage(&good)).unwrap();
        std::fs::remove_file(state.path().join("acme").join(format!("{NAME}.json"))).unwrap();
        let server = TestServer::start(&text);
        wait_for_line(&server, &["is damaged: it is set aside, and another one is made"]);
        wait_for_line(&server, &["no certificate was had by ACME", "(malformed)"]);
        let accounts = authority.asked().iter().filter(|asked| asked.path == "/account").count();
        assert_eq!(accounts, n + 2);
        assert_ne!(std::fs::read_to_string(&file).unwrap(), good);
        assert!(file.with_extension("damaged").is_file());
    }
}
