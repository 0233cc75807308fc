//! coturn, as Debian has it.

use super::Probe;
use super::support::{Spec, Transport, require_tool};

#[test]
fn coturn_is_probed_from_end_to_end_and_its_open_private_networks_are_seen() {
    require_tool("turnserver", "coturn");
    let server = Spec::local().start_coturn();
    for (transport, ip) in [
        (Transport::Udp, "127.0.0.1"),
        (Transport::Udp, "::1"),
        (Transport::Tcp, "127.0.0.1"),
        (Transport::Tcp, "::1"),
        (Transport::Tls, "127.0.0.1"),
    ] {
        let probed = Probe::of_server(&server, transport, ip).run();
        // It relays to any private address unless told otherwise.
        probed.expect_exit(0, "warn").expect("safety", "warn", "10.0.0.1, 169.254.169.254");
        for step in ["binding", "unauthenticated", "permission", "echo-send", "echo-channel", "integrity"] {
            probed.expect(step, "ok", "");
        }
        // It answers Refresh 0 with success, and requests on the allocation afterwards as well.
        assert_ne!(probed.step("release")["status"], "warn", "{:#}", probed.json);
        assert!(probed.step("binding")["facts"]["software"].as_str().unwrap().contains("Coturn"), "{:#}", probed.json);
    }
}

#[test]
fn coturn_answers_a_stuns_url_by_tls_and_as_chromium_asks() {
    require_tool("turnserver", "coturn");
    let server = Spec::local().start_coturn();
    let probed = Probe::of(&format!("stuns:{}", server.tls())).trusting(&server).run();
    probed.expect_exit(0, "ok").expect("binding", "ok", "").expect("binding-udp", "ok", "as Chromium asks");
}

#[test]
fn coturn_refuses_a_wrong_password_and_an_expired_credential() {
    require_tool("turnserver", "coturn");
    let server = Spec::local().start_coturn();
    let url = format!("turn:{}", server.udp());
    let wrong = Probe::of(&url).with_password("alice", "wrong").run();
    wrong.expect_exit(2, "fail").expect("allocate", "fail", "401");
    let expired = server.expired_credentials("alice");
    let expired = Probe::of(&url).with_password(&expired.username, &expired.password).run();
    expired.expect_exit(2, "fail").expect("allocate", "fail", "the credential expired 3 min ago");
}

#[test]
fn coturn_without_loopback_peers_does_not_relay_between_its_clients_here() {
    require_tool("turnserver", "coturn");
    let mut spec = Spec::local();
    spec.dev = false;
    let server = spec.start_coturn();
    let probed = Probe::of_server(&server, Transport::Udp, "127.0.0.1").run();
    probed.expect_exit(0, "warn").expect("permission", "warn", "403");
    assert!(!probed.has_step("echo-send"));
}
