//! Certificates and realms by server name, as `openssl s_client` sees them over DTLS.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use turnstone::stun::{AttributeType, Class, Encoder, Message, Method, TransactionId};

use crate::support::{require_tool, run, wait_until};
use crate::{LIMIT, Server};

/// A self-signed certificate for a name, whose subject says which one it is.
fn certificate(name: &str, subject: &str, is_rsa: bool) -> (String, String) {
    let key = match is_rsa {
        false => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        true => {
            let mut openssl = Command::new(require_tool("openssl", "openssl"));
            openssl.args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
            let pem = run(&mut openssl, LIMIT).stdout;
            KeyPair::from_pem_and_sign_algo(&pem, &PKCS_RSA_SHA256).unwrap()
        }
    };
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, subject);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// What `openssl s_client` says of a handshake.
fn handshake(server: &Server, flags: &[&str]) -> String {
    let mut command = Command::new(require_tool("openssl", "openssl"));
    command.args(["s_client", "-dtls1_2", "-connect", &server.address.to_string()]).args(flags);
    run(&mut command, LIMIT).all_output()
}

/// The realm that a client is challenged for which comes through `openssl s_client`.
fn realm_by(server: &Server, flags: &[&str]) -> String {
    let mut child = Command::new(require_tool("openssl", "openssl"))
        .args(["s_client", "-dtls1_2", "-quiet", "-connect", &server.address.to_string()])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut request = Vec::new();
    Encoder::new(&mut request, Class::Request, Method::ALLOCATE, TransactionId([7; 12]))
        .attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&request).unwrap();
    stdin.flush().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut answer = vec![0; 20];
    stdout.read_exact(&mut answer).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([answer[2], answer[3]]))];
    stdout.read_exact(&mut body).unwrap();
    answer.extend(body);
    let _ = child.kill();
    let _ = child.wait();
    let message = Message::parse(&answer).unwrap();
    String::from_utf8(message.get(AttributeType::REALM).unwrap().to_vec()).unwrap()
}

#[test]
fn certificates_are_chosen_by_server_name_and_by_what_the_client_can_verify_and_follow_their_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let put = |file: &str, (certificate, key): (String, String)| {
        std::fs::write(path(&format!("{file}.pem")), certificate).unwrap();
        std::fs::write(path(&format!("{file}-key.pem")), key).unwrap();
        std::fs::set_permissions(path(&format!("{file}-key.pem")), PermissionsExt::from_mode(0o600)).unwrap();
    };
    put("ecdsa", certificate("turn.c.example", "subject-ecdsa", false));
    put("rsa", certificate("turn.c.example", "subject-rsa", true));
    put("wild", certificate("*.c.example", "subject-wild", false));
    let pairs = ["rsa", "ecdsa", "wild"].map(|file| {
        let (certificate, key) = (path(&format!("{file}.pem")), path(&format!("{file}-key.pem")));
        format!("[[tls.certificates]]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n")
    });
    let server = Server::start("", &pairs.concat());
    let shows = |flags: &[&str], subject: &str| {
        let said = handshake(&server, flags);
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
    put("wild", certificate("*.c.example", "subject-renewed", false));
    std::fs::write(path("rsa-key.pem"), "no key").unwrap();
    server.inner.signal(rustix::process::Signal::USR2);
    wait_until("the renewed certificate", LIMIT, || {
        handshake(&server, &["-servername", "other.c.example"]).contains("subject-renewed").then_some(())
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
        assert_eq!(realm_by(&server, flags), realm, "{flags:?}");
    }
}
