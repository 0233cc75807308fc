//! What an operator gets wrong: credentials, ports, names, URLs.

use std::net::UdpSocket;

use super::support::{Spec, Transport, free_address, hold_allocation, run, wait_until};
use super::{LIMIT, Probe, url};

#[test]
fn a_wrong_password_fails_with_the_servers_401() {
    let server = Spec::local().start();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let probe = Probe::of(&url(&server, transport, "127.0.0.1")).trusting(&server);
        let probed = probe.with_password("alice", "wrong").run();
        probed.expect_exit(2, "fail").expect("allocate", "fail", "401").expect(
            "allocate",
            "fail",
            "wrong user or password",
        );
        assert_eq!(probed.step("allocate")["facts"]["error_code"], 401);
    }
}

#[test]
fn an_expired_credential_is_told_from_a_wrong_one() {
    let server = Spec::local().start();
    let url = url(&server, Transport::Udp, "127.0.0.1");
    let expired = server.expired_credentials("alice");
    let probed = Probe::of(&url).with_password(&expired.username, &expired.password).run();
    probed.expect_exit(2, "fail").expect("allocate", "fail", "the credential expired 3 min ago");
    let other = super::support::time_limited("another secret", "alice", 600);
    let probed = Probe::of(&url).with_password(&other.username, &other.password).run();
    probed.expect_exit(2, "fail").expect("allocate", "fail", "the server has another secret");
}

#[test]
fn who_has_suspended_himself_by_an_earlier_probe_is_told_of_it() {
    let server = Spec { extra_toml: "[guard]\nsuspend-after = 1\n".to_owned(), ..Spec::local() }.start();
    let probe = || Probe::of_server(&server, Transport::Udp, "127.0.0.1").args(&["-4", "--timeout", "2"]).run();
    probe();
    probe().expect_exit(2, "fail").expect("allocate", "fail", "turnstone suspensions lists and lifts them");
}

#[test]
fn a_server_that_drains_names_the_one_to_probe() {
    let other = Spec::local().start();
    let extra_toml = format!("[drain]\ndeadline = \"1h\"\nalternate-server = \"{}\"\n", other.udp());
    let server = Spec { extra_toml, ..Spec::local() }.start();
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    holder.connect(server.udp()).unwrap();
    hold_allocation(&holder, server.credentials("holder"));
    server.signal(rustix::process::Signal::USR1);
    wait_until("the drain", LIMIT, || server.log().contains("draining").then_some(()));
    let probed = Probe::of(&url(&server, Transport::Udp, "127.0.0.1")).run();
    probed.expect_exit(0, "note").expect("redirect", "note", &format!("new clients are sent to {} (300)", other.udp()));
    assert_eq!(probed.step("redirect")["facts"]["error_code"], 300);
    // The other one is probed next, and has what a client comes for.
    assert_eq!(probed.json["targets"][0]["addresses"][1]["address"], other.udp().to_string());
    probed.expect("unauthenticated", "ok", "401");
}

#[test]
fn a_server_whose_clients_may_not_talk_to_each_other_is_no_failure() {
    let extra_toml = "[peers]\nrelays = false\n".to_owned();
    let server = Spec { extra_toml, ..Spec::local() }.start();
    let words = "the server does not let its clients talk to each other";
    let probe = || Probe::of_server(&server, Transport::Udp, "127.0.0.1").args(&["-4", "--timeout", "2"]);
    let probed = probe().run();
    // Where peers on loopback are allowed, as here, a permission for the address is granted, and the ports are not.
    probed.expect_exit(0, "warn").expect("echo-send", "warn", words);
    assert!(!probed.has_step("channel"), "{:#}", probed.json);
    let (_, out, _) = probe().run_as_text();
    assert!(out.trim_end().lines().last().unwrap().starts_with("it allocates, and no data went"), "{out}");
}

#[test]
fn a_closed_port_is_named_for_what_it_is() {
    // Nobody listens there.
    let udp = free_address();
    let tcp = free_address();
    let probed = Probe::of(&format!("turn:{udp}")).run();
    probed.expect_exit(2, "fail").expect("binding", "fail", "nothing listens on this port");
    for url in [format!("turn:{tcp}?transport=tcp"), format!("turns:{tcp}"), format!("stuns:{tcp}")] {
        Probe::of(&url).run().expect_exit(2, "fail").expect("connect", "fail", "connection refused");
    }
}

#[test]
fn a_name_that_nobody_knows_fails_at_its_resolution() {
    let probed = Probe::of("turns:no-such-host.invalid").args(&["--timeout", "2"]).run();
    probed.expect_exit(2, "fail").expect("resolve", "fail", "cannot be resolved");
    assert_eq!(probed.json["targets"][0]["addresses"], serde_json::json!([]));
}

#[test]
fn a_family_that_a_server_has_not_is_a_failure_when_asked_for() {
    let probed = Probe::of("stun:127.0.0.1:9").arg("-6").run();
    probed.expect_exit(2, "fail").expect("resolve", "fail", "no IPv6 address");
    Probe::of("stun:[::1]:9").arg("-4").run().expect("resolve", "fail", "no IPv4 address");
}

#[test]
fn wrong_usage_is_refused_before_anything_is_sent() {
    let missing = ["stun:127.0.0.1:9", "--user", "a", "--password-env", "NO_SUCH_VARIABLE"];
    let cases: [(&[&str], &str); 11] = [
        (&[], "<URL>"),
        (&["turn://127.0.0.1"], "no //"),
        (&["http:127.0.0.1"], "http: is not"),
        (&["turn:127.0.0.1:99999"], "port \"99999\""),
        (&["turn:a@b"], "give --user"),
        (&["stun:127.0.0.1?transport=tcp"], "nothing after the port"),
        (&["stun:127.0.0.1", "-4", "-6"], "cannot be used with"),
        (&["stun:127.0.0.1", "--timeout", "0"], "not from 0.1 to 600"),
        (&["stun:127.0.0.1", "--user", "a"], "--user needs"),
        (&missing, "NO_SUCH_VARIABLE"),
        (&["stuns:127.0.0.1:9", "--ca", "no-such-file"], "no-such-file"),
    ];
    for (arguments, words) in cases {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"));
        let finished = run(command.arg("probe").args(arguments), LIMIT);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(words), "{arguments:?}: {}", finished.stderr);
    }
}

#[test]
fn no_secret_can_be_given_on_the_command_line() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"));
    let help = run(command.args(["probe", "--help"]), LIMIT).stdout;
    assert!(!help.contains("--secret ") && !help.contains("--password "), "{help}");
    for part in ["--secret-file", "--password-env", "Exit codes", "  2  a step failed", "--strict", "--no-safety"] {
        assert!(help.contains(part), "no {part} in:\n{help}");
    }
}
