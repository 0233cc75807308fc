//! The webhook gets every record, whatever it answers and whenever it is there.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use turnstone::client::Answer;

use crate::client::Allocated;
use crate::hook::{Hook, Reply, read_request};
use crate::schema::{self, Record};
use crate::support::{EchoPeer, TestAuthority, free_address, wait_until};
use crate::{LIMIT, file_in, metric, spec};

fn usage(url: &str, folder: &std::path::Path) -> String {
    format!("webhook = \"{url}\"\nwebhook-timeout = \"2s\"\nspool-directory = \"{}\"", folder.join("spool").display())
}

fn spooled(folder: &std::path::Path) -> usize {
    std::fs::read_dir(folder.join("spool")).unwrap().count()
}

#[test]
fn records_are_posted_as_json_lines_with_the_token_and_are_those_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let hook = Hook::start(|_| Reply::Status(204));
    let token = "webhook-token = \"t0ken-for-billing\"";
    let more = format!("{}\n{}\n{token}", usage(&hook.url(), folder.path()), file_in(folder.path()));
    let mut server = spec(&more).start();
    let peer = EchoPeer::start("127.0.0.1");
    let mut client = Allocated::over_udp(&server, "alice");
    client.echo(peer.address(), [200; 25]);
    client.release();
    let taken = hook.wait_for("stop", 1);
    assert_eq!(taken.last().unwrap().traffic("to_client"), client.echoed);
    for post in hook.posts() {
        assert_eq!(post.path, "/usage");
        for header in ["content-type: application/x-ndjson", "authorization: Bearer t0ken-for-billing"] {
            assert!(post.headers.iter().any(|given| given == header), "no {header} in {:?}", post.headers);
        }
    }
    assert!(metric(&server, "turnstone_usage_webhook_batches_total{result=\"taken\"}") >= 1.0);
    wait_until("an empty spool", LIMIT, || (spooled(folder.path()) == 0).then_some(()));
    assert_eq!(metric(&server, "turnstone_usage_spool_bytes"), 0.0);
    assert!(!server.log().contains("t0ken"), "the token is in the log");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    assert_eq!(hook.wait_for("server-stop", 1), schema::read(folder.path()), "webhook and file differ");
    assert_eq!(spooled(folder.path()), 0);
}

#[test]
fn neither_token_nor_query_is_in_the_log_at_any_level_or_in_what_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    // The first answer makes it log a failure.
    let hook = Hook::start(|number| Reply::Status(if number == 0 { 500 } else { 204 }));
    let url = format!("{}?key=qu3ry", hook.url());
    let mut spec = spec(&format!("{}\nwebhook-token = \"t0ken\"", usage(&url, folder.path())));
    spec.extra_toml += "[log]\nlevel = \"trace\"\n";
    let server = spec.start();
    Allocated::over_udp(&server, "alice").release();
    hook.wait_for("stop", 1);
    assert!(hook.posts().iter().all(|post| post.path == "/usage?key=qu3ry"));
    server.signal(Signal::HUP);
    wait_until("the reload", LIMIT, || server.log().contains("configuration reloaded").then_some(()));
    let log = server.log();
    assert!(log.contains("the webhook does not take usage records"), "{log}");
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"))
        .args(["config", "show", "--config", &server.file("turnserver.toml")])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("# webhook: its query is not shown"), "{shown}");
    for secret in ["qu3ry", "t0ken"] {
        assert!(!log.contains(secret) && !shown.contains(secret), "{secret} in\n{shown}\n{log}");
    }
}

#[test]
fn what_was_answered_with_an_error_is_sent_again_as_it_was() {
    for (status, header) in
        [(500, ""), (429, "Retry-After: 1"), (503, "Retry-After: 0"), (401, ""), (307, "Location: /other")]
    {
        let folder = tempfile::tempdir().unwrap();
        let hook = Hook::start(move |number| match number {
            0 | 1 => Reply::With(status, if header.is_empty() { "X-Test: 1".to_owned() } else { header.to_owned() }),
            _ => Reply::Status(200),
        });
        let server = spec(&usage(&hook.url(), folder.path())).start();
        Allocated::over_udp(&server, "alice").release();
        let taken = hook.wait_for("stop", 1);
        schema::assert_dense(&taken);
        let posts = hook.posts();
        assert!(posts.iter().all(|post| post.path == "/usage"), "a redirect was followed");
        assert_eq!(posts[0].body, posts[2].body, "{status}");
        assert_eq!(metric(&server, "turnstone_usage_webhook_batches_total{result=\"failed\"}"), 2.0);
        assert_eq!(metric(&server, "turnstone_usage_records_lost_total{reason=\"webhook-refused\"}"), 0.0);
    }
}

#[test]
fn a_webhook_that_hangs_delays_no_packet_and_gets_everything_once_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let hook = Hook::start(|number| if number < 2 { Reply::Hang } else { Reply::Status(200) });
    let server = spec(&usage(&hook.url(), folder.path())).start();
    let peer = EchoPeer::start("127.0.0.1");
    let mut client = Allocated::over_udp(&server, "alice");
    hook.wait_for_posts(1);
    let mut slowest = Duration::ZERO;
    for _ in 0..500 {
        let began = Instant::now();
        client.echo(peer.address(), [160]);
        slowest = slowest.max(began.elapsed());
    }
    // The machine may be busy; a webhook's 2 seconds are another matter.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert_eq!(hook.taken(), []);
    client.release();
    let taken = hook.wait_for("stop", 1);
    schema::assert_dense(&taken);
    assert_eq!(taken.last().unwrap().traffic("to_peers"), client.echoed);
}

#[test]
fn a_webhook_that_is_not_there_gets_everything_when_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = spec(&usage(&format!("http://{address}/usage"), folder.path())).start();
    for number in 0..20 {
        Allocated::over_udp(&server, &format!("u{number}")).release();
    }
    wait_until("a failed attempt", LIMIT, || {
        (metric(&server, "turnstone_usage_webhook_batches_total{result=\"failed\"}") >= 1.0).then_some(())
    });
    assert!(metric(&server, "turnstone_usage_spool_bytes") > 0.0);
    let hook = Hook::on(TcpListener::bind(address).unwrap(), |_| Reply::Status(200));
    schema::assert_dense(&hook.wait_for("stop", 20));
}

#[test]
fn what_waits_survives_a_restart_and_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let configured = usage(&format!("http://{address}/usage"), folder.path());
    let mut first = spec(&configured).start();
    for number in 0..50 {
        Allocated::over_udp(&first, &format!("u{number}")).release();
    }
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code_within(LIMIT), Some(0));
    let mut second = spec(&configured).start();
    Allocated::over_udp(&second, "last").release();
    wait_until("a spooled stop record", LIMIT, || {
        let files = std::fs::read_dir(folder.path().join("spool")).unwrap();
        let text: String = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        (text.matches("\"type\":\"stop\"").count() == 51).then_some(())
    });
    second.signal(Signal::KILL);
    second.exit_code_within(LIMIT);

    let hook = Hook::on(TcpListener::bind(address).unwrap(), |_| Reply::Status(200));
    let third = spec(&configured).start();
    let taken = hook.wait_for("server-start", 3);
    schema::assert_dense(&taken);
    assert_eq!(taken.iter().filter(|record| record.kind() == "stop").count(), 51);
    let ends: BTreeMap<_, _> = taken.iter().map(|record| (record.text("server"), record.kind())).collect();
    assert_eq!(ends.values().filter(|kind| **kind == "server-stop").count(), 1, "of the one that was not killed");
    drop(third);
}

#[test]
fn a_spool_that_is_full_drops_the_oldest_and_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let url = format!("http://{address}/usage");
    let server = spec(&format!("{}\nspool-bytes-max = \"256KiB\"", usage(&url, folder.path()))).start();
    for number in 0..500 {
        Allocated::over_udp(&server, &format!("u{number}")).release();
    }
    let lost = || metric(&server, "turnstone_usage_records_lost_total{reason=\"spool-full\"}");
    wait_until("lost records", LIMIT, || (lost() > 0.0).then_some(()));
    assert!(metric(&server, "turnstone_usage_spool_bytes") <= 262_144.0);
    let hook = Hook::on(TcpListener::bind(address).unwrap(), |_| Reply::Status(200));
    let taken = wait_until("the last one", LIMIT, || {
        let taken = hook.taken();
        taken.iter().any(|record| record.seq() == 1001).then_some(taken)
    });
    assert_eq!(taken.len() as f64 + lost(), 1001.0);
}

#[test]
fn no_peer_has_the_address_of_the_webhook() {
    let folder = tempfile::tempdir().unwrap();
    let hook = Hook::start(|_| Reply::Status(200));
    let server = spec(&usage(&hook.url(), folder.path())).start();
    let mut client = Allocated::over_udp(&server, "alice");
    let refused = client.bind(hook.address).unwrap_err();
    assert!(format!("{refused:?}").contains("403"), "{refused:?}");
    // Loopback itself is allowed to this server.
    let peer = EchoPeer::start("127.0.0.1");
    assert_eq!(client.bind(peer.address()).unwrap(), Answer::Granted);
}

#[test]
fn over_https_the_certificate_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let authority = TestAuthority::issue(&["127.0.0.1"]);
    let (trusted, other) = (folder.path().join("authority.pem"), folder.path().join("other.pem"));
    std::fs::write(&trusted, &authority.authority_pem).unwrap();
    std::fs::write(&other, TestAuthority::issue(&["127.0.0.1"]).authority_pem).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/usage", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || serve_tls(&listener, &authority));
    let configured = usage(&url, folder.path());
    let started = |authorities: &std::path::Path| {
        let mut spec = spec(&configured);
        spec.environment.push(("SSL_CERT_FILE".to_owned(), authorities.display().to_string()));
        spec.start()
    };
    let mut distrustful = started(&other);
    wait_until("a refused certificate", LIMIT, || {
        (metric(&distrustful, "turnstone_usage_webhook_batches_total{result=\"failed\"}") >= 1.0).then_some(())
    });
    assert_eq!(metric(&distrustful, "turnstone_usage_webhook_batches_total{result=\"taken\"}"), 0.0);
    distrustful.signal(Signal::TERM);
    assert_eq!(distrustful.exit_code_within(LIMIT), Some(0));
    let server = started(&trusted);
    let records = served.join().unwrap();
    assert_eq!(records[0].kind(), "server-start");
    drop(server);
}

/// Serves TLS connections until one carries a request, and returns what it says.
fn serve_tls(listener: &TcpListener, authority: &TestAuthority) -> Vec<Record> {
    let chain = CertificateDer::pem_slice_iter(authority.certificate_pem.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(authority.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    loop {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut tls = BufReader::new(rustls::StreamOwned::new(connection, stream));
        if let Some(post) = read_request(&mut tls) {
            let _ = tls.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return post.records();
        }
    }
}
