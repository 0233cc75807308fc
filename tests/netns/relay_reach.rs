//! `probe` from another host notices what the echo between two relays does not: closed relay ports, and an `external-ip` that is wrong.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::internet::{Internet, PORT, SERVER};
use crate::namespace::Namespace;
use crate::support::{Spec, TestServer, Transport, require_tool, run};

const LIMIT: Duration = Duration::from_secs(60);
const HOST: &str = "5.44.1.1";
const CLIENT: &str = "5.44.1.2";
const OTHER: &str = "5.44.1.3";
const TRANSPORTS: [&str; 2] = ["udp", "tcp"];

fn two_hosts() -> (Namespace, Namespace) {
    let (host, client) = (Namespace::create("server"), Namespace::create("client"));
    host.connect(("eth0", &[&format!("{HOST}/24")]), &client, ("eth0", &[&format!("{CLIENT}/24")]));
    (host, client)
}

/// With the default peer policy, and this more in `[relay]` and behind it.
fn server_on(host: &Namespace, more_relay: &str, extra_toml: &str) -> TestServer {
    spec_on(host, more_relay, extra_toml).start()
}

fn spec_on(host: &Namespace, more_relay: &str, extra_toml: &str) -> Spec {
    Spec {
        listeners: [Transport::Udp, Transport::Tcp].map(|transport| (transport, format!("0.0.0.0:{PORT}"))).to_vec(),
        relay_ipv4: Some(format!("{HOST}\"\n{more_relay}#")),
        relay_ipv6: None,
        dev: false,
        namespace: Some(host.name().to_owned()),
        extra_toml: extra_toml.to_owned(),
        ..Spec::local()
    }
}

fn drop_udp(host: &Namespace, hook: &str, what: &str) {
    host.nft(&format!(
        "table inet closed {{\n chain {hook} {{\n type filter hook {hook} priority filter;\n {what} drop\n }}\n }}\n"
    ));
}

/// The exit code, and status and words of `relay-reach`. Between its two relays data goes all the same.
fn reach_from(client: &Namespace, server: &TestServer, ip: &str, transport: &str) -> (i32, String, String) {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", client.name(), env!("CARGO_BIN_EXE_turnstone"), "probe"]);
    command.args([&format!("turn:{ip}:{PORT}?transport={transport}"), "--user", "probe", "--secret-file"]);
    command.args([&server.file("secret"), "--format", "json"]);
    let finished = run(&mut command, LIMIT);
    let json: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    let steps = json["targets"][0]["addresses"][0]["steps"].as_array().unwrap();
    let step = |name: &str| steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("{json:#}"));
    assert_eq!(step("echo-send")["status"], "ok", "{json:#}");
    let reach = step("relay-reach");
    let text = |name: &str| reach[name].as_str().unwrap().to_owned();
    (finished.code.unwrap(), text("status"), text("message"))
}

fn expect(found: &(i32, String, String), code: i32, status: &str, words: &str) {
    assert_eq!((found.0, &*found.1), (code, status), "{}", found.2);
    assert!(found.2.contains(words), "no {words:?} in {}", found.2);
}

#[test]
fn relay_ports_that_are_closed_to_the_outside_fail_whatever_goes_from_relay_to_relay() {
    let (host, client) = two_hosts();
    let server = server_on(&host, "", "");
    for transport in TRANSPORTS {
        expect(&reach_from(&client, &server, HOST, transport), 0, "ok", "peers get through");
    }
    drop_udp(&host, "input", "iifname eth0 udp dport 10000-29999");
    for transport in TRANSPORTS {
        let found = reach_from(&client, &server, HOST, transport);
        expect(&found, 2, "fail", "nothing that peers send to UDP 5.44.1.1:");
        expect(&found, 2, "fail", "though what the relay sends arrives here: open UDP 49152-65535");
    }
    // Where no UDP at all gets to the server, it may be the client's network that lets none out.
    drop_udp(&host, "input", "iifname eth0 udp dport 3478");
    expect(&reach_from(&client, &server, HOST, "tcp"), 0, "warn", "the network here may let no UDP out");
}

#[test]
fn relay_ports_that_nothing_leaves_from_fail() {
    let (host, client) = two_hosts();
    let server = server_on(&host, "", "");
    drop_udp(&host, "output", "oifname eth0 udp sport 10000-29999");
    expect(&reach_from(&client, &server, HOST, "tcp"), 2, "fail", "let UDP out from the server's relay ports");
}

#[test]
fn an_external_address_that_is_not_the_servers_fails() {
    let (host, client) = two_hosts();
    let server = server_on(&host, "external-ip = [\"5.44.1.77\"]\n", "");
    let found = reach_from(&client, &server, HOST, "udp");
    expect(&found, 2, "fail", "and what the relay sends comes from 5.44.1.1:");
    expect(&found, 2, "fail", "external-ip is not this server's public address (it was asked at 5.44.1.1)");
}

#[test]
fn an_address_that_may_be_anybodys_gets_one_datagram() {
    let (host, client) = two_hosts();
    let server = server_on(&host, "external-ip = [\"5.44.1.77\"]\n", "");
    client.nft(
        "table inet counted {\n counter sent { }\n chain output {\n type filter hook output priority filter;\n \
         ip daddr 5.44.1.77 counter name sent\n }\n }\n",
    );
    let found = reach_from(&client, &server, HOST, "udp");
    expect(&found, 2, "fail", "(sent once, as the address may be anybody's");
    let nft = require_tool("nft", "nftables");
    let counted =
        run(Command::new("ip").args(["netns", "exec", client.name()]).arg(nft).args(["list", "counters"]), LIMIT);
    // The IP and UDP headers, and the data.
    assert!(counted.stdout.contains("packets 1 bytes 201"), "{counted:?}");
}

#[test]
fn an_address_that_sends_here_is_sent_to_again_where_a_datagram_is_lost() {
    let (host, client) = two_hosts();
    host.ip(&["address", "add", &format!("{OTHER}/24"), "dev", "eth0"]);
    let server = Spec { relay_ipv4: Some(OTHER.to_owned()), ..spec_on(&host, "", "") }.start();
    drop_udp(&host, "input", "iifname eth0 udp dport 10000-29999 numgen inc mod 2 0");
    for transport in TRANSPORTS {
        expect(&reach_from(&client, &server, HOST, transport), 0, "ok", "to 5.44.1.3:");
    }
}

#[test]
fn who_is_no_peer_and_the_servers_own_host_learn_nothing_and_fail_nothing() {
    let (host, client) = two_hosts();
    let server = server_on(&host, "", "[peers]\ndenied = [\"5.44.1.2/32\"]\n");
    expect(&reach_from(&client, &server, HOST, "udp"), 0, "note", "does not let its clients reach this host's address");
    for _ in 0..6 {
        // Whatever port it draws: of the server's own addresses, those of relays are peers.
        let found = reach_from(&host, &server, HOST, "udp");
        expect(&found, 0, "note", "this host is seen from 5.44.1.1, the server's own address");
    }
}

#[test]
fn a_symmetric_nat_in_front_of_the_probe_hides_nothing() {
    let internet = Internet::with_server();
    let reach = |transport| reach_from(&internet.hosts[0], &internet.server, SERVER[0], transport);
    for transport in TRANSPORTS {
        expect(&reach(transport), 0, "ok", "(5.44.1.2:");
    }
    drop_udp(&internet.core, "input", "iifname != lo udp dport 10000-29999");
    expect(&reach("udp"), 2, "fail", ": open UDP 49152-65535");
}
