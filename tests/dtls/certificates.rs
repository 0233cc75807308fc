//! Certificates and realms by server name, as `openssl s_client` sees them over DTLS.

use crate::support::openssl::{CertificateFolder, DTLS, certificate, handshake, realm_by};
use crate::support::wait_until;
use crate::{LIMIT, Server};

#[test]
fn certificates_are_chosen_by_server_name_and_by_what_the_client_can_verify_and_follow_their_files() {
    let folder = CertificateFolder::of_c_example();
    let server = Server::start("", &folder.toml());
    let shows = |flags: &[&str], subject: &str| {
        let said = handshake(server.address, &[DTLS, flags]);
        assert!(said.contains(subject), "{flags:?} shows no {subject}:\n{said}");
    };
    shows(&["-servername", "turn.c.example"], "subject-ecdsa");
    shows(&["-servername", "turn.c.example", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"], "subject-rsa");
    shows(&["-servername", "turn.c.example", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "subject-rsa");
    shows(&["-servername", "turn.c.example", "-cipher", "DHE-RSA-AES128-GCM-SHA256"], "subject-rsa");
    shows(&["-servername", "turn.c.example", "-sigalgs", "ECDSA+SHA256"], "subject-ecdsa");
    shows(&["-servername", "other.c.example"], "subject-wild");
    for flags in [&["-noservername"][..], &["-servername", "elsewhere.example"]] {
        shows(flags, "Turnstone test server");
    }
    // Who can verify none of those that are for it hears so at once.
    shows(&["-servername", "other.c.example", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"], "alert handshake failure");
    // One pair is renewed and another one broken at the same time: the broken one stays as it was.
    folder.put("wild", certificate("*.c.example", "subject-renewed", false));
    std::fs::write(folder.path("rsa-key.pem"), "no key").unwrap();
    server.inner.signal(rustix::process::Signal::USR2);
    wait_until("the renewed certificate", LIMIT, || {
        handshake(server.address, &[DTLS, &["-servername", "other.c.example"]])
            .contains("subject-renewed")
            .then_some(())
    });
    shows(&["-servername", "turn.c.example", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "subject-rsa");
    wait_until("what the operator hears of it", LIMIT, || server.inner.log().contains("rsa-key.pem").then_some(()));
}

#[test]
fn a_server_name_leads_to_its_realm_and_any_other_to_that_of_the_listener() {
    let realm = "[[realm]]\nname = \"b.example\"\nsni = [\"turn.b.example\"]\n[[realm.users]]\nname = \"alice\"\n\
                 password = \"of the other realm\"\n";
    let server = Server::start("", realm);
    for (flags, realm) in [
        (&["-servername", "turn.b.example"][..], "b.example"),
        (&["-servername", "TURN.B.example"], "b.example"),
        (&["-servername", "turn.a.example"], "turn.test"),
        (&["-noservername"], "turn.test"),
    ] {
        assert_eq!(realm_by(server.address, &[DTLS, flags]), realm, "{flags:?}");
    }
}
