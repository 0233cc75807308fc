//! `probe --compare`: what differs between two servers, and nothing else.

use serde_json::Value;
use turnstone::import::import_coturn;

use super::Probe;
use super::support::{Spec, TestServer, Transport, require_tool};

fn compared(a: &str, b: &str) -> Probe {
    Probe::of(a).arg(b).args(&["--compare"])
}

/// `target/address/step/relay: what` of each difference.
fn lines(json: &Value) -> Vec<String> {
    let line = |found: &Value| {
        let text = |name: &str| found[name].as_str().unwrap_or("-").to_owned();
        let what: Vec<_> = found["what"].as_array().unwrap().iter().map(|what| what.as_str().unwrap()).collect();
        format!("{}/{}/{}/{}: {}", text("target"), text("address"), text("step"), text("relay"), what.join(","))
    };
    json["differences"].as_array().unwrap().iter().map(line).collect()
}

fn run(probe: Probe) -> (i32, Value) {
    let (code, out, err) = probe.run_as_is();
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}")))
}

#[test]
fn a_server_does_not_differ_from_one_that_is_set_up_alike() {
    let a = Spec::local().start();
    let b = Spec::local().start();
    let [at_a, at_b] = [&a, &b].map(|server| format!("turn:{}", server.udp()));
    let (code, json) = run(compared(&at_a, &at_b).with_secret(&a));
    assert_eq!((code, lines(&json)), (0, Vec::new()), "{json:#}");
    assert!(json["a"]["counts"]["ok"].as_u64().unwrap() > 20 && json["a"]["counts"] == json["b"]["counts"], "{json:#}");
    let (code, out, _) = compared(&at_a, &at_b).with_secret(&a).run_as_text();
    assert_eq!((code, out.lines().last()), (0, Some("nothing differs")), "{out}");
}

#[test]
fn what_differs_is_told_and_is_the_exit_code() {
    let a = Spec::local().start();
    let b =
        Spec { top_toml: "mobility = true".to_owned(), relay_ipv6: Some("off".to_owned()), ..Spec::local() }.start();
    let [at_a, at_b] = [&a, &b].map(|server| format!("turn:{}", server.udp()));
    let (code, json) = run(compared(&at_a, &at_b).with_secret(&a));
    let found = lines(&json);
    assert_eq!(code, 1, "{found:#?}");
    let place = "turn?transport=udp/ipv4";
    for expected in [format!("{place}/mobility/-: error_code,offered"), format!("{place}/echo-send/ipv6: missing")] {
        assert!(found.contains(&expected), "{found:#?}");
    }
    assert!(
        found.iter().any(|line| line.starts_with(&format!("{place}/allocate/ipv6: status,error_code"))),
        "{found:#?}"
    );
    assert!(!found.iter().any(|line| line.contains("/ipv4:")), "its IPv4 relays are alike: {found:#?}");
    let (code, out, _) = compared(&at_a, &at_b).with_secret(&a).run_as_text();
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("turn?transport=udp over IPv4, mobility: error_code, offered\n  A  ok"), "{out}");
    assert!(out.trim_end().ends_with(&format!("{} differences", found.len())), "{out}");
}

#[test]
fn two_that_fail_alike_are_no_success() {
    let (code, json) = run(compared("turn:nothing.invalid", "turn:nothing-either.invalid").args(&["--timeout", "3"]));
    assert_eq!((code, lines(&json)), (2, Vec::new()), "{json:#}");
}

#[test]
fn the_lists_of_two_pages_are_compared_url_by_url() {
    let server = Spec::local().start();
    let block = |urls: &[String]| format!("[{{urls: {urls:?}}}]");
    let (udp, other) = (format!("stun:{}", server.udp()), format!("stun:127.0.0.1:{}", server.tls().port()));
    let (code, json) =
        run(compared(&block(std::slice::from_ref(&udp)), &block(&[udp.clone(), other])).args(&["--timeout", "2"]));
    assert_eq!((code, lines(&json)), (1, vec!["stun/-/-/-: missing".to_owned()]), "{json:#}");
}

#[test]
fn coturn_and_its_import_differ_in_what_the_import_makes_safe() {
    require_tool("turnserver", "coturn");
    let coturn = Spec::local().start_coturn();
    let conf = std::fs::read_to_string(coturn.file("turnserver.conf")).unwrap();
    let toml = import_coturn(&conf, &[]).toml;
    let directory = std::path::Path::new(&coturn.file("x")).parent().unwrap().display().to_string();
    let (plain, tls) = (coturn.udp().port(), coturn.tls().port());
    let toml = toml
        .replace("/run/turnstone/", &format!("{directory}/"))
        .replace(&format!(":{plain}\""), ":0\"")
        .replace(&format!(":{tls}\""), ":0\"");
    let ours = TestServer::start(&toml);
    for transport in [Transport::Udp, Transport::Tcp] {
        let [at_coturn, at_ours] = [&coturn, &ours].map(|server| super::url(server, transport, "127.0.0.1"));
        let (code, json) = run(compared(&at_coturn, &at_ours).with_secret(&coturn));
        let found = lines(&json);
        assert_eq!((code, &json["b"]["verdict"]), (1, &"note".into()), "{found:#?}\n{toml}");
        let safety = json["differences"].as_array().unwrap().iter().find(|found| found["step"] == "safety").unwrap();
        assert_eq!((&safety["a"]["status"], &safety["b"]["status"]), (&"warn".into(), &"ok".into()));
        for alike in ["binding", "allocate", "echo-send", "echo-channel"] {
            assert!(!found.iter().any(|line| line.contains(&format!("/{alike}/"))), "{found:#?}");
        }
    }
}
