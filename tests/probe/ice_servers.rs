//! The `iceServers` of a page: what browsers do with each entry, and whether it works.

use std::time::{SystemTime, UNIX_EPOCH};

use super::support::free_port;
use super::support::{Credentials, Spec, TestServer, Transport, run_with_input, time_limited, wait_until};
use super::{LIMIT, Probe};

fn entry(urls: &str, credentials: &Credentials) -> String {
    format!("{{ urls: {urls}, username: '{}', credential: \"{}\" }}", credentials.username, credentials.password)
}

fn of_stdin(server: &TestServer, block: &str) -> super::Probed {
    Probe::of("-").trusting(server).run_with_input(block)
}

/// UDP and TLS on one port, as the reference shows it for stuns: URLs.
fn server_with_udp_beside_tls() -> TestServer {
    let port = free_port();
    let at = |transport, port| (transport, format!("127.0.0.1:{port}"));
    let listeners = vec![at(Transport::Udp, port), at(Transport::Tls, port), at(Transport::Tcp, 0)];
    Spec { listeners, ..Spec::local() }.start()
}

#[test]
fn a_block_from_a_pages_code_is_probed_as_browsers_use_it_each_entry_with_its_credential() {
    let server = server_with_udp_beside_tls();
    let (at, at_tcp, good) = (server.udp(), server.tcp(), server.credentials("alice"));
    let wrong = Credentials { password: "wrong".to_owned(), ..server.credentials("bob") };
    let block = format!(
        "const pc = new RTCPeerConnection({{\n  iceServers: [\n    {{ urls: 'stuns:{at}' }}, // as Chromium\n    {},\n    {},\n  ],\n}});\n",
        entry(&format!("['turn:{at_tcp}?transport=tcp', 'turns:{at}?transport=udp']"), &good),
        entry(&format!("`turn:{at}`"), &wrong),
    );
    let probed = of_stdin(&server, &block);
    probed.expect_exit(2, "fail");
    probed.expect_at(
        0,
        "iceServers",
        "ice-servers",
        "fail",
        "3 entries with 4 URLs; new RTCPeerConnection throws because of stuns:",
    );
    let stuns = format!("stuns:{at}");
    probed.expect_at(1, &stuns, "browser", "fail", "not supported by Firefox; Chromium asks port");
    probed.expect_at(1, &stuns, "binding", "ok", "seen as 127.0.0.1:");
    assert_eq!(probed.json["targets"][1]["addresses"][0]["transport"], "udp");
    let tcp = format!("turn:{at_tcp}?transport=tcp");
    probed.expect_at(2, &tcp, "credential", "ok", "expires in").expect_at(2, &tcp, "echo-channel", "ok", "");
    let tls = format!("turns:{at}?transport=udp");
    probed.expect_at(3, &tls, "browser", "warn", "browsers speak no DTLS").expect_at(3, &tls, "echo-channel", "ok", "");
    assert_eq!(probed.json["targets"][3]["addresses"][0]["transport"], "tls");
    probed.expect_at(4, &format!("turn:{at}?transport=udp"), "allocate", "fail", "401");
    assert!(!probed.json.to_string().contains(&good.password) && !probed.stderr.contains(&good.password));
}

#[test]
fn what_throws_in_a_browser_fails_though_the_server_is_well() {
    let server = Spec::local().start();
    let at = server.udp();
    let probed = of_stdin(
        &server,
        &format!("[{{urls: ['stun:{at}', 'turn:{at}'], username: 'u'}}, {{urls: 'stun:{at}?transport=udp'}}]"),
    );
    probed.expect_exit(2, "fail").expect("ice-servers", "fail", "the page gets none of them");
    probed.expect_at(1, &format!("stun:{at}"), "binding", "ok", "");
    probed.expect_at(2, &format!("turn:{at}"), "browser", "fail", "InvalidAccessError: credential is missing");
    assert_eq!(probed.json["targets"][2]["addresses"], serde_json::json!([]));
    probed.expect_at(3, &format!("stun:{at}?transport=udp"), "browser", "fail", "SyntaxError");
}

#[test]
fn a_credential_that_ends_soon_or_has_ended_is_told() {
    let server = Spec::local().start();
    let at = server.udp();
    let of =
        |credentials: &Credentials| of_stdin(&server, &format!("[{}]", entry(&format!("'turn:{at}'"), credentials)));
    let name = format!("turn:{at}?transport=udp");
    let soon = of(&time_limited(server.secret(), "alice", 40));
    soon.expect_exit(0, "warn").expect_at(1, &name, "credential", "warn", "the credential expires in").expect_at(
        1,
        &name,
        "echo-send",
        "ok",
        "",
    );
    let over = of(&server.expired_credentials("alice"));
    over.expect_exit(2, "fail").expect_at(1, &name, "credential", "fail", "the credential expired 3 min ago");
    over.expect_at(1, &name, "allocate", "fail", "401");
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let in_ms = Credentials { username: format!("{now_ms}:alice"), password: "p".to_owned() };
    of(&in_ms).expect_at(1, &name, "credential", "warn", "in milliseconds");
}

#[test]
fn a_block_comes_from_a_file_or_an_argument_too_and_a_credential_there_is_warned_of() {
    let server = Spec::local().start();
    let block =
        format!("{{\"iceServers\": [{}]}}", entry(&format!("\"turn:{}\"", server.udp()), &server.credentials("a")));
    let path = server.file("ice.json");
    std::fs::write(&path, &block).unwrap();
    let of_file = Probe::of(&format!("@{path}")).arg("--strict").run();
    assert_eq!(of_file.expect_exit(0, "note").stderr, "");
    let of_argument = Probe::of(&block).run();
    of_argument.expect_exit(0, "note");
    assert!(of_argument.stderr.contains("every user of this host can read a command line"), "{}", of_argument.stderr);
    let stun = Probe::of(&format!("[{{urls: 'stun:{}'}}]", server.udp())).run();
    assert_eq!(stun.expect_exit(0, "ok").stderr, "");
    let (code, out, _) = Probe::of(&format!("@{path}")).run_as_text();
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("iceServers\n") && out.contains("\nit works: "), "{out}");
}

#[test]
fn what_is_not_well_is_repeated_where_it_is_read() {
    let server = Spec::local().start();
    let credentials = server.credentials("a");
    let urls = format!("[\"turn:{}\", \"turn:{}?transport=tcp\"]", server.udp(), server.tcp());
    let block = format!("[{}, {{urls: 'turn:{}'}}]", entry(&urls, &credentials), server.udp());
    let path = server.file("ice.json");
    std::fs::write(&path, &block).unwrap();
    let (code, out, _) = Probe::of(&format!("@{path}")).run_as_text();
    let (_, below) = out.split_once("\nFAILED: ").unwrap_or_else(|| panic!("{out}"));
    assert_eq!(code, 2, "{out}");
    assert!(below.contains("\nfail  iceServers: ice-servers: ") && below.contains(": browser: "), "{below}");
    let shown: Vec<_> = below.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert!(!shown.is_empty() && shown.iter().all(|status| ["warn", "fail"].contains(status)), "{below}");
    // One URL is seen at once.
    let (_, out, _) = Probe::of(&format!("stun:{}", server.tls())).run_as_text();
    assert!(out.contains("\nFAILED: ") && out.lines().last().unwrap().starts_with("FAILED: "), "{out}");
}

#[test]
fn what_the_program_prints_for_a_page_is_taken() {
    let server = Spec::local().start();
    let line = wait_until("the line for a page", LIMIT, || {
        server.log().lines().find(|line| line.contains("new RTCPeerConnection(")).map(str::to_owned)
    });
    let probed = of_stdin(&server, &line);
    // Three transports at two addresses would be more URLs than Firefox likes.
    probed.expect_exit(0, "note").expect("ice-servers", "ok", "1 entry with 4 URLs");
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    for (input, arguments, words) in [
        ("[{\n urls: TURN_URL }]", &["-"][..], "standard input: line 2, column 8: TURN_URL is a variable"),
        ("{}", &["-"], "standard input: no iceServers in it"),
        ("", &["@/no/such/file"], "/no/such/file: No such file"),
        ("[{urls: 'stun:127.0.0.1:9'}]", &["-", "stun:127.0.0.1"], "iceServers are probed alone"),
        ("[{urls: 'stun:127.0.0.1:9'}]", &["-", "-u", "a", "--password-env", "PATH"], "have credentials of their own"),
        ("", &["stun:127.0.0.1", "--post", "{}"], "are for an https:// URL"),
        ("", &["--compare", "stun:127.0.0.1"], "--compare takes two"),
        ("", &["--compare", "-", "-"], "only one of the two"),
        ("", &["https://u:p@127.0.0.1/"], "--api-key-file"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"));
        let finished = run_with_input(command.arg("probe").args(arguments), input, LIMIT);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(words), "{arguments:?}: {}", finished.stderr);
    }
}
