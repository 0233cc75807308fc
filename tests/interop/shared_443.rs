//! One port for TURN and a web site: by nginx or haproxy in front, as `docs/behind-a-proxy.md` has it, or by `web` alone.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::behind_proxies::{assert_served, scrape};
use crate::proxy::{Proxy, free_ports};
use crate::support::{Spec, TestServer, require_tool, run, wait_until};
use crate::uclient::spec;

const WEB_NAME: &str = "localhost";
const TURN_NAME: &str = "turn.test";

fn server(listen: &str) -> TestServer {
    let mut spec = Spec { extra_toml: listen.to_owned(), ..spec() };
    spec.certificate_names.push(TURN_NAME.to_owned());
    spec.start()
}

fn certificate(server: &TestServer) -> (String, String) {
    (server.file("certificate.pem"), server.file("key.pem"))
}

/// A web server behind a PROXY header, which answers with the address of its client.
fn web_site(port: u16) -> String {
    format!(
        "server {{ listen 127.0.0.1:{port} ssl http2 proxy_protocol; ssl_certificate @DIR@/certificate.pem; \
         ssl_certificate_key @DIR@/key.pem; location / {{ return 200 \"web for $proxy_protocol_addr\\n\"; }} }}"
    )
}

/// What a browser would get by this name.
fn fetch(server: &TestServer, name: &str, port: u16, from: &str, flags: &[&str]) -> (Option<i32>, String) {
    let finished = run(
        Command::new(require_tool("curl", "curl"))
            .args(["-sS", "--max-time", "20", "--interface", from, "--cacert", &server.file("authority.pem")])
            .args(["--resolve", &format!("{name}:{port}:127.0.0.1")])
            .args(flags)
            .arg(format!("https://{name}:{port}/")),
        Duration::from_secs(30),
    );
    (finished.code, format!("{}{}", finished.stdout, finished.stderr))
}

fn assert_both_are_served(server: &TestServer, port: u16) {
    for (number, flags) in [["--http2"], ["--http1.1"], ["--no-alpn"]].iter().enumerate() {
        let from = Ipv4Addr::new(127, 0, 3, number as u8 + 1).to_string();
        let got = fetch(server, WEB_NAME, port, &from, flags);
        assert_eq!(got, (Some(0), format!("web for {from}\n")), "{flags:?}");
    }
    let got = fetch(server, TURN_NAME, port, "127.0.3.4", &["--http2"]);
    assert_eq!(got, (Some(0), "web for 127.0.3.4\n".to_owned()), "what is asked for counts more than the name");
    // This client offers http/1.1, too.
    assert_served(server, port, "127.0.3.9", true);
    wait_until("the line of its session", Duration::from_secs(20), || {
        server.log().contains("127.0.3.9:").then_some(())
    });
}

#[test]
fn nginx_shares_443_by_alpn_and_server_name() {
    let [port, web, shared] = free_ports();
    let server = server(&format!(
        "[[listen]]\naddress = \"127.0.0.1:{port}\"\ntransport = \"tls\"\nproxy-from = \"127.0.0.1\"\n"
    ));
    let stream = format!(
        "map $ssl_preread_alpn_protocols $by_alpn {{ ~\\bstun\\.turn\\b turn; ~\\bh2\\b web; ~\\bhttp/1\\.1\\b web; default $by_name; }} \
         map $ssl_preread_server_name $by_name {{ {WEB_NAME} web; default turn; }} \
         upstream web {{ server 127.0.0.1:{web}; }} upstream turn {{ server 127.0.0.1:{port}; }} \
         server {{ listen 127.0.0.1:{shared}; ssl_preread on; proxy_pass $by_alpn; proxy_protocol on; }}"
    );
    let (certificate, key) = certificate(&server);
    let _nginx = Proxy::nginx(&stream, &web_site(web), (&certificate, &key), shared);
    assert_both_are_served(&server, shared);
}

#[test]
fn haproxy_shares_443_by_alpn_and_server_name() {
    let [port, web, unused, shared] = free_ports();
    let server = server(&format!(
        "[[listen]]\naddress = \"127.0.0.1:{port}\"\ntransport = \"tls\"\nproxy-from = \"127.0.0.1\"\n"
    ));
    let (certificate, key) = certificate(&server);
    let stream = format!("server {{ listen 127.0.0.1:{unused}; return nothing; }}");
    let _web = Proxy::nginx(&stream, &web_site(web), (&certificate, &key), web);
    let _haproxy = Proxy::haproxy(
        &format!(
            "frontend shared\n  bind 127.0.0.1:{shared}\n  tcp-request inspect-delay 5s\n\
             \x20 tcp-request content accept if {{ req.ssl_hello_type 1 }}\n\
             \x20 use_backend turn if {{ req.ssl_alpn -m sub stun.turn }}\n\
             \x20 use_backend web if {{ req.ssl_alpn -m sub h2 http/1.1 }} or {{ req.ssl_sni -i {WEB_NAME} }}\n\
             \x20 default_backend turn\n\
             backend web\n  server s 127.0.0.1:{web} send-proxy-v2\nbackend turn\n  server s 127.0.0.1:{port} send-proxy-v2\n"
        ),
        shared,
    );
    assert_both_are_served(&server, shared);
}

#[test]
fn a_tls_listener_passes_on_what_is_for_its_web_server_and_serves_the_rest() {
    let [port, web, unused, metrics] = free_ports();
    let server = server(&format!(
        "[[listen]]\naddress = \"127.0.0.1:{port}\"\ntransport = [\"tcp\", \"tls\"]\nweb = \"127.0.0.1:{web}\"\n\
         web-proxy-header = true\nturn-names = \"{TURN_NAME}\"\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n"
    ));
    let (certificate, key) = certificate(&server);
    // Nobody there yet.
    assert_ne!(fetch(&server, WEB_NAME, port, "127.0.3.1", &[]).0, Some(0));
    let stream = format!("server {{ listen 127.0.0.1:{unused}; return nothing; }}");
    let nginx = Proxy::nginx(&stream, &web_site(web), (&certificate, &key), web);
    assert_both_are_served(&server, port);
    assert_served(&server, port, "127.0.3.10", false);
    // Our name without a word of what it is for: that it is HTTP shows too late to go on unread.
    let (code, answer) = fetch(&server, TURN_NAME, port, "127.0.3.2", &["--no-alpn", "-i"]);
    assert!(code == Some(0) && answer.starts_with("HTTP/1.1 421 ") && answer.contains("not the web"), "{answer}");
    let text = wait_until("the counters", Duration::from_secs(10), || {
        let text = scrape(metrics);
        text.contains("turnstone_web_connections 0").then_some(text)
    });
    for line in [
        "turnstone_web_connections_passed_total 5",
        "turnstone_web_connections_closed_total{reason=\"unreachable\"} 1",
        "turnstone_web_connections_closed_total{reason=\"misdirected\"} 1",
    ] {
        assert!(text.contains(line), "no {line} in:\n{text}");
    }
    let told = || server.log().matches("cannot be reached").count();
    wait_until("the line about the web server", Duration::from_secs(20), || (told() > 0).then_some(()));
    assert_eq!(told(), 1, "{}", server.log());
    drop(nginx);
    assert_ne!(fetch(&server, WEB_NAME, port, "127.0.3.1", &[]).0, Some(0));
    assert_served(&server, port, "127.0.3.11", true);
    // What it takes for itself stays whole over a transfer of some size, in both directions at once.
    let mirror = TcpListener::bind(("127.0.0.1", web)).unwrap();
    let mirroring = std::thread::spawn(move || {
        let (stream, _) = mirror.accept().unwrap();
        let mut stream = std::io::BufReader::new(stream);
        // Header and ClientHello; the rest comes back as it came.
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    });
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let hello = client_hello();
    client.write_all(&hello).unwrap();
    client.write_all(&vec![7; 3_000_000]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let header = 16 + 12;
    assert_eq!(mirroring.join().unwrap(), (header + hello.len() + 3_000_000) as u64);
}

#[test]
fn connections_to_the_web_server_that_are_idle_hold_two_sockets_each_and_nothing_else() {
    const CONNECTIONS: usize = 60;
    let [port, web] = free_ports();
    let server = server(&format!(
        "[[listen]]\naddress = \"127.0.0.1:{port}\"\ntransport = \"tls\"\nweb = \"127.0.0.1:{web}\"\n"
    ));
    let site = TcpListener::bind(("127.0.0.1", web)).unwrap();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", server.process_id())).unwrap().count();
    let (before, hello) = (open(), client_hello());
    let mut both = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(&hello).unwrap();
        let (mut at_site, _) = site.accept().unwrap();
        let mut got = vec![0; hello.len()];
        at_site.read_exact(&mut got).unwrap();
        assert!(got == hello, "it comes as it was sent");
        // Something both ways, all of which is read: then there is silence.
        at_site.write_all(&[1; 100_000]).unwrap();
        client.read_exact(&mut vec![0; 100_000]).unwrap();
        both.push((client, at_site));
    }
    // One pipe for each worker, with two ends, is kept for the next one.
    let wanted = 2 * CONNECTIONS..=2 * CONNECTIONS + 8;
    wait_until("nothing but sockets", Duration::from_secs(20), || wanted.contains(&(open() - before)).then_some(()));
    drop(both);
    wait_until("their end", Duration::from_secs(20), || (open() <= before + 8).then_some(()));
}

/// A ClientHello that asks for HTTP/1.1.
fn client_hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}
