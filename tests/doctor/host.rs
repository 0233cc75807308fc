//! The host around the server: addresses that nobody outside can reach.

use std::process::Command;

use super::namespace::Namespace;
use super::support::{Spec, TestServer, Transport};
use super::{Examined, examine};

pub(crate) const PORT: u16 = 3478;

/// A host with one cable and this address, and a server on it.
pub(crate) fn host_with_server(ip: &str, more_relay: &str) -> (TestServer, Namespace, Namespace) {
    let (host, other) = (Namespace::create("host"), Namespace::create("other"));
    host.connect(("eth0", &[&format!("{ip}/24")]), &other, ("eth0", &[]));
    let server = Spec {
        listeners: [Transport::Udp, Transport::Tcp].map(|t| (t, format!("0.0.0.0:{PORT}"))).to_vec(),
        relay_ipv4: Some(format!("{ip}\"\nipv6 = \"off\"\n{more_relay}#")),
        relay_ipv6: None,
        dev: false,
        namespace: Some(host.name().to_owned()),
        ..Spec::local()
    }
    .start();
    (server, host, other)
}

pub(crate) fn doctor_in(host: &Namespace, server: &TestServer) -> Examined {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host.name(), env!("CARGO_BIN_EXE_turnstone"), "doctor"]);
    examine(&mut command, &server.file("turnserver.toml"), &[])
}

#[test]
fn a_private_relay_address_without_external_ip_is_warned_about() {
    let (server, host, _other) = host_with_server("10.0.1.2", "");
    let examined = doctor_in(&host, &server);
    examined.expect("relay-address", "warn", "10.0.1.2 is a private address, and external-ip is not set");
    assert!(examined.steps_at("udp").contains(&("echo-channel", "ok")), "{:#}", examined.json);
}

#[test]
fn behind_a_one_to_one_nat_the_relays_are_reached_by_their_external_address() {
    let (server, host, _other) = host_with_server("10.0.1.2", "external-ip = [\"5.44.1.1\"]\n");
    let examined = doctor_in(&host, &server);
    examined.expect("relay-address", "note", "must forward UDP 10000-29999 to 10.0.1.2 with unchanged ports");
    for transport in ["udp", "tcp"] {
        let steps = examined.steps_at(transport);
        assert!(steps.contains(&("echo-send", "ok")) && steps.contains(&("echo-channel", "ok")), "{steps:?}");
    }
}

#[test]
fn a_public_address_has_nothing_against_it() {
    let (server, host, _other) = host_with_server("5.44.1.1", "");
    let examined = doctor_in(&host, &server);
    examined.expect("relay-address", "ok", "5.44.1.1 is public").expect("firewall", "ok", "nftables has no rules");
    assert_eq!(examined.complaints(), [], "{:#}", examined.json);
}
