//! Servers that send clients to others.

use super::support::{Spec, TestServer, Transport};
use super::{Probe, url};

fn redirecting(to: &TestServer, share: u8) -> TestServer {
    let extra_toml =
        format!("[redirect]\nalternate-server = [\"udp://{}\", \"tls://{}\"]\nshare = {share}\n", to.udp(), to.tls());
    Spec { extra_toml, ..Spec::local() }.start()
}

#[test]
fn the_other_server_is_probed_from_end_to_end() {
    let other = Spec::local().start();
    let server = redirecting(&other, 100);
    let both = ["authority.pem"; 2]
        .iter()
        .zip([&server, &other])
        .map(|(name, of)| std::fs::read_to_string(of.file(name)).unwrap());
    let authorities = server.file("both.pem");
    std::fs::write(&authorities, both.collect::<String>()).unwrap();
    for transport in [Transport::Udp, Transport::Tls] {
        let probe = Probe::of(&url(&server, transport, "127.0.0.1")).args(&["--ca", &authorities]);
        let probed = probe.with_secret(&other).run();
        probed.expect_exit(0, "note").expect("redirect", "note", "which is probed next");
        let addresses = &probed.json["targets"][0]["addresses"];
        let at = other.address(transport, "127.0.0.1").to_string();
        assert_eq!((addresses.as_array().unwrap().len(), &addresses[1]["address"]), (2, &at.into()));
        probed.expect("echo-channel", "ok", "").expect("mobility", "ok", "off");
        assert_eq!(probed.step("redirect")["facts"]["alternate_server"], addresses[1]["address"]);
    }
}

#[test]
fn a_share_of_clients_sent_elsewhere_does_not_keep_the_others_from_their_relays() {
    let other = Spec::local().start();
    let server = redirecting(&other, 50);
    let probed = Probe::of(&url(&server, Transport::Udp, "127.0.0.1")).with_secret(&server).run();
    // Whichever of the two the first client got to.
    assert_eq!(probed.code, 0, "{:#}", probed.json);
    assert!(probed.has_step("echo-channel"), "{:#}", probed.json);
}
