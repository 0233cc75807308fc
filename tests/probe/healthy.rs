//! A server that works.

use serde_json::Value;

use super::LIMIT;
use super::support::{Spec, TestServer, Transport, free_port, wait_until};
use super::{Probe, url};

const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];
const OF_RELAY: [&str; 11] = [
    "allocate",
    "relayed-address",
    "allocate-second",
    "permission",
    "echo-send",
    "channel",
    "echo-channel",
    "relay-reach",
    "safety",
    "release",
    "integrity",
];

#[test]
fn every_step_succeeds_over_every_transport_and_family_and_nothing_is_left_behind() {
    let server = Spec::local().start();
    for (transport, ip) in TRANSPORTS.into_iter().flat_map(|transport| [(transport, "127.0.0.1"), (transport, "::1")]) {
        let probed = Probe::of_server(&server, transport, ip).arg("--strict").run();
        probed.expect_exit(0, "note").expect("relay-reach", "note", "at a loopback address");
        for step in probed.steps().into_iter().filter(|step| step["step"] != "relay-reach") {
            assert_eq!(step["status"], "ok", "{step:#}");
        }
        let names: Vec<_> = probed.steps().iter().map(|step| step["step"].as_str().unwrap()).collect();
        let tls: &[_] = if transport == Transport::Tls { &["tls", "certificate", "alpn"] } else { &[] };
        let reach = [&["resolve", "connect"][..], tls, &["binding", "unauthenticated", "third-party"]].concat();
        let offers: &[_] = if transport == Transport::Udp { &["mobility"] } else { &["mobility", "tcp-relay"] };
        assert_eq!(names, [&reach[..], &OF_RELAY, &OF_RELAY, offers].concat());
        let relays: Vec<_> = probed.steps().iter().filter_map(|step| step["relay"].as_str()).collect();
        assert_eq!(relays, [["ipv4"; 11], ["ipv6"; 11]].concat());
        assert!(probed.step("integrity")["facts"]["verified"].as_u64().unwrap() >= 10);
        assert_eq!(probed.step("binding")["facts"]["nat"], false);
        assert_eq!(probed.step("unauthenticated")["facts"]["realm"], server.realm());
        assert_eq!(probed.step("safety")["facts"]["refused"], serde_json::json!(["10.0.0.1", "169.254.169.254"]));
    }
    // Two allocations of two families over six ways.
    wait_until("24 ended allocations in the log", LIMIT, || {
        (server.log().matches("allocation ended").count() == 24).then_some(())
    });
}

#[test]
fn sha256_is_used_when_wanted() {
    let server = Spec::local().start();
    Probe::of_server(&server, Transport::Udp, "127.0.0.1").args(&["--sha256", "--strict"]).run().expect_exit(0, "note");
}

#[test]
fn a_static_user_is_as_good_as_a_secret() {
    let server = Spec::local().user("alice", "wonderland").start();
    let probe = Probe::of(&url(&server, Transport::Udp, "127.0.0.1")).with_password("alice", "wonderland");
    probe.run().expect_exit(0, "note");
}

#[test]
fn a_stun_server_is_asked_for_nothing_but_the_address() {
    // UDP and TLS on one port, as the reference shows it for stuns: URLs.
    let port = free_port();
    let listeners = [Transport::Udp, Transport::Tls].map(|transport| (transport, format!("127.0.0.1:{port}")));
    let server = Spec { listeners: listeners.to_vec(), ..Spec::local() }.start();
    for url in [format!("stun:{}", server.udp()), format!("stuns:{}", server.tls())] {
        let probed = Probe::of(&url).trusting(&server).run();
        probed.expect_exit(0, "ok").expect("binding", "ok", "no NAT in between");
        assert!(!probed.has_step("unauthenticated"));
        assert_eq!(probed.has_step("binding-udp"), url.starts_with("stuns"));
        if url.starts_with("stuns") {
            probed.expect("alpn", "ok", "stun.nat-discovery").expect("binding-udp", "ok", "as Chromium asks");
        }
    }
}

#[test]
fn a_stuns_url_whose_port_answers_no_udp_is_a_warning_as_chromium_would_wait() {
    let server = Spec::local().start();
    let probed = Probe::of(&format!("stuns:{}", server.tls())).trusting(&server).run();
    probed.expect_exit(0, "warn").expect("binding", "ok", "").expect(
        "binding-udp",
        "warn",
        "udp beside tls on this port",
    );
    // turns: is asked by TLS only.
    let probed = Probe::of(&format!("turns:{}", server.tls())).trusting(&server).run();
    assert!(!probed.has_step("binding-udp"));
}

#[test]
fn without_a_credential_the_probe_ends_at_the_401_and_says_so() {
    let server = Spec::local().start();
    let probed = Probe::of(&url(&server, Transport::Udp, "127.0.0.1")).arg("--strict").run();
    probed.expect_exit(0, "note").expect("allocate", "note", "no credential was given");
}

#[test]
fn a_relay_of_one_family_is_noted_and_no_fault() {
    let server = TestServer::start(
        "[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"udp\"\n[relay]\nports = \"10000-29999\"\n\
         ipv4 = \"127.0.0.1\"\nipv6 = \"off\"\n[[auth.secrets]]\nid = \"a\"\nfile = \"@DIR@/secret\"\n",
    );
    let probed = Probe::of_server(&server, Transport::Udp, "127.0.0.1").arg("--strict").run();
    probed.expect_exit(0, "note");
    let of_ipv6: Vec<&Value> = probed.steps().into_iter().filter(|step| step["relay"] == "ipv6").collect();
    assert_eq!(of_ipv6.len(), 1);
    assert_eq!((&of_ipv6[0]["status"], &of_ipv6[0]["facts"]["error_code"]), (&"note".into(), &440.into()));
}

#[test]
fn a_quota_of_one_allocation_is_a_warning() {
    let server = TestServer::start(
        "[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"udp\"\n[relay]\nports = \"10000-29999\"\n\
         ipv4 = \"127.0.0.1\"\nipv6 = \"off\"\n[quota]\nallocations-per-user = 1\n\
         [[auth.secrets]]\nid = \"a\"\nfile = \"@DIR@/secret\"\n",
    );
    let probe = || Probe::of_server(&server, Transport::Udp, "127.0.0.1");
    let probed = probe().run();
    probed.expect_exit(0, "warn").expect("allocate-second", "warn", "quota").expect("release", "ok", "given back");
    probe().arg("--strict").run().expect_exit(1, "warn");
}

#[test]
fn two_clients_reach_each_other_on_one_shared_relay_port_and_on_two() {
    for (ip, ports, is_one) in [("127.0.7.7", "3480", true), ("127.0.7.8", "3480-3483", false)] {
        let server = TestServer::start(&format!(
            "workers = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"udp\"\n[relay]\nports = \"shared:{ports}\"\n\
             ipv4 = \"{ip}\"\nipv6 = \"off\"\n[[auth.secrets]]\nid = \"a\"\nfile = \"@DIR@/secret\"\n"
        ));
        let probed = Probe::of_server(&server, Transport::Udp, "127.0.0.1").arg("--strict").arg("--no-safety").run();
        probed.expect_exit(0, "note").expect("allocate-second", "ok", "relayed address");
        assert_eq!(probed.step("allocate-second")["message"].as_str().unwrap().contains("as the first one"), is_one);
        probed.expect("echo-send", "ok", "").expect("echo-channel", "ok", "").expect("release", "ok", "given back");
    }
}

#[test]
fn the_safety_requests_can_be_left_out() {
    let server = Spec::local().start();
    let probed = Probe::of_server(&server, Transport::Udp, "127.0.0.1").arg("--no-safety").run();
    probed.expect_exit(0, "note");
    assert!(!probed.has_step("safety"));
}

#[test]
fn several_urls_are_probed_one_after_the_other_and_the_worst_decides() {
    let server = Spec::local().start();
    let stun = format!("stun:{}", server.udp());
    let probed = Probe::of(&stun).args(&["turn:nothing.invalid", "--timeout", "2"]).run();
    probed.expect_exit(2, "fail").expect("binding", "ok", "");
    assert_eq!(probed.json["targets"][0]["verdict"], "ok");
    assert_eq!(probed.json["targets"][1]["verdict"], "fail");
}

#[test]
fn without_a_credential_it_says_that_nothing_was_relayed() {
    let server = Spec::local().start();
    let (code, out, err) = Probe::of(&format!("turn:{}", server.udp())).run_as_text();
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let summary = out.trim_end().lines().last().unwrap();
    assert!(summary.starts_with("it answers, and NOTHING WAS RELAYED (a credential is needed"), "{out}");
    let (_, out, _) = Probe::of(&format!("stun:{}", server.udp())).run_as_text();
    assert!(out.contains("\nit works: "), "STUN relays nothing anyway: {out}");
}

#[test]
fn a_credential_made_on_the_server_is_enough() {
    let server = Spec::local().start();
    let mut credentials = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"));
    credentials.args(["credentials", "--user", "probe", "--json", "--config", &server.file("turnserver.toml")]);
    let made = super::support::run(&mut credentials, LIMIT);
    assert_eq!(made.code, Some(0), "{}", made.all_output());
    let mut probe = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"));
    probe.args(["probe", &format!("turn:{}", server.udp()), "--credential", "-", "--no-safety"]);
    let probed = super::support::run_with_input(&mut probe, &made.stdout, LIMIT);
    assert_eq!(probed.code, Some(0), "{}", probed.all_output());
    assert!(probed.stdout.contains("\nit works"), "{}", probed.all_output());
}

#[test]
fn the_text_form_shows_each_step_with_its_time_and_ends_with_a_summary() {
    let server = Spec::local().start();
    let (code, out, err) = Probe::of_server(&server, Transport::Tls, "127.0.0.1").run_as_text();
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with(&format!("turns:{}?transport=tcp\n", server.tls())), "{out}");
    for name in OF_RELAY {
        let line = out.lines().find(|line| line.contains(&format!("{name} ipv6"))).unwrap_or_else(|| panic!("{out}"));
        let status = if name == "relay-reach" { "note " } else { "ok " };
        assert!(line.trim_start().starts_with(status) && line.contains(" ms  "), "{line}");
    }
    assert!(out.trim_end().lines().last().unwrap().starts_with("it works: "), "{out}");
}
