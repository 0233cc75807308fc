//! `iceServers` that an API answers: ours, and one that does everything wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};

use super::support::{TestServer, credentials_endpoint, free_address};
use super::{LIMIT, Probe};

const KEY: &str = "tsk_cHJvYmUta2V5LW9mLXRoZS10ZXN0cy0wMTIzNDU2Nzg5";

fn server(more: &str) -> TestServer {
    let hash: String = Sha256::digest(KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    TestServer::start(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\", \"tls\"]\n\
         [tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n\
         [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"::1\"\nports = \"10000-29999\"\n\
         [credentials]\nlisten = \"127.0.0.1:0\"\n{more}\n[[credentials.keys]]\nid = \"probe\"\nsha256 = \"{hash}\"\n\
         [[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n"
    ))
}

/// A server of one answer; what it was asked comes back.
fn answering(answer: String) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).unwrap();
        // A client that has read enough closes the connection.
        let _ = stream.write_all(answer.as_bytes());
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    (address, served)
}

fn refused(url: &str, more: &[&str]) -> String {
    let (code, out, err) = Probe::of(url).args(more).run_as_is();
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(!err.contains(KEY), "{err}");
    err
}

#[test]
fn an_api_where_nobody_listens_is_said_in_words() {
    let closed = free_address();
    let said = refused(&format!("http://{closed}/v1/credentials"), &[]);
    assert!(said.contains("connection refused: nothing listens on this port"), "{said}");
}

#[test]
fn the_credentials_api_is_asked_over_tls_and_its_servers_are_probed() {
    let server = server("");
    let url = format!("https://{}/v1/credentials", credentials_endpoint(&server, LIMIT));
    let key = server.file("key");
    std::fs::write(&key, KEY).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let probe = || Probe::of(&url).trusting(&server);
    let probed = probe().args(&["--post", r#"{"user": "probe", "ttl": 600}"#, "--api-key-file", &key]).run();
    probed.expect_exit(0, "note").expect("ice-servers", "ok", "1 entry with 3 URLs");
    let (udp, tcp) = (format!("turn:{}?transport=udp", server.udp()), format!("turn:{}?transport=tcp", server.tcp()));
    probed.expect_at(1, &udp, "credential", "ok", "expires in").expect_at(1, &udp, "echo-channel", "ok", "");
    probed.expect_at(2, &tcp, "echo-channel", "ok", "");
    probed.expect_at(3, &format!("turns:{}?transport=tcp", server.tls()), "echo-channel", "ok", "");
    assert!(!probed.json.to_string().contains(KEY));
    // What is refused comes with what helps.
    let ca = server.file("authority.pem");
    let get = refused(&url, &["--ca", &ca, "--api-key-file", &key]);
    assert!(get.contains("HTTP status 405") && get.contains("--post BODY"), "{get}");
    let keyless = refused(&url, &["--ca", &ca, "--post", "{\"user\": \"probe\"}"]);
    assert!(keyless.contains("HTTP status 401") && keyless.contains("--api-key-env"), "{keyless}");
    let untrusted = refused(&url, &["--post", "{}", "--api-key-file", &key, "--insecure"]);
    assert!(
        untrusted.contains(&format!("{url}: the certificate is not trusted: its issuer is not known here")),
        "{untrusted}"
    );
}

#[test]
fn the_shapes_of_other_services_are_taken() {
    let server = server("tls = false\nshapes = [\"cloudflare\", \"twilio\", \"metered\", \"turn-rest\"]");
    let at = format!("http://{}", credentials_endpoint(&server, LIMIT));
    let header = server.file("header");
    let basic = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("probe:{KEY}"))
    };
    std::fs::write(&header, format!("Authorization: Basic {basic}")).unwrap();
    std::fs::set_permissions(&header, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let twilio = format!("{at}/2010-04-01/Accounts/probe/Tokens.json");
    Probe::of(&twilio)
        .trusting(&server)
        .args(&["--post", "Ttl=600", "--api-key-file", &header])
        .run()
        .expect_exit(0, "note");
    let cloudflare = format!("{at}/v1/turn/keys/probe/credentials/generate-ice-servers");
    std::fs::write(&header, KEY).unwrap();
    Probe::of(&cloudflare)
        .trusting(&server)
        .args(&["--post", "{\"ttl\": 600}", "--api-key-file", &header])
        .run()
        .expect_exit(0, "note");
    Probe::of(&format!("{at}/api/v1/turn/credentials?apiKey={KEY}")).trusting(&server).run().expect_exit(0, "note");
    Probe::of(&format!("{at}/?service=turn&username=probe&key={KEY}")).trusting(&server).run().expect_exit(0, "note");
}

#[test]
fn an_answer_is_bounded_in_size_and_time_and_a_redirection_gets_no_key() {
    let to_nowhere = "HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/ice?k=v\r\nContent-Length: 0\r\n\r\n";
    let (address, served) = answering(to_nowhere.to_owned());
    let key = ["--api-key-env", "PROBE_PASSWORD"];
    let probe = Probe::of(&format!("http://{address}/ice")).with_variable(KEY).args(&key);
    let (code, _, err) = probe.run_as_is();
    assert!(code == 2 && err.contains("HTTP status 302 to https://elsewhere.example/ice;"), "{err}");
    assert!(
        served
            .join()
            .unwrap()
            .to_ascii_lowercase()
            .contains(&format!("authorization: bearer {}", KEY.to_ascii_lowercase()))
    );

    let (address, _served) = answering(format!("HTTP/1.1 200 OK\r\n\r\n[{}", " ".repeat(200_000)));
    assert!(refused(&format!("http://{address}/"), &[]).contains("limit"), "a body without end");
    let (address, _served) =
        answering("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>".to_owned());
    assert!(refused(&format!("http://{address}/"), &[]).contains("line 1, column"));

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    assert!(refused(&url, &["--timeout", "0.3"]).contains("timeout"));
}

#[test]
fn a_key_goes_nowhere_without_tls() {
    let probe = Probe::of("http://192.0.2.1/ice").with_variable(KEY).args(&["--api-key-env", "PROBE_PASSWORD"]);
    let (code, _, err) = probe.run_as_is();
    assert!(code == 2 && err.contains("without TLS"), "{err}");
}
