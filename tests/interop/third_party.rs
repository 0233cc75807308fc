//! Third-party authorization (RFC 7635): coturn's `turnutils_uclient` and `turnutils_oauth`, and a client and an authorization server
//! written from the RFC in another language.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use turnstone::auth::{SessionKey, TokenAlgorithm, TokenKey};

use crate::support::aiortc::python;
use crate::support::{Credentials, Spec, Transport, require_tool, run};
use crate::uclient::{Peer, assert_nothing_lost, spec, uclient};

const LIMIT: Duration = Duration::from_secs(40);

/// What `turnutils_uclient -J` has built in; it takes one of the three at random.
const KEYS_OF_UCLIENT: &str = r#"
[[auth.token-keys]]
id = "north"
key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK"

[[auth.token-keys]]
id = "union"
algorithm = "A128GCM"
key = "MTIzNDU2Nzg5MDEyMzQ1Ngo="

[[auth.token-keys]]
id = "oldempire"
key = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK"
"#;

fn with_keys(keys: &str) -> Spec {
    Spec { extra_toml: format!("{keys}\n[admin]\nlisten = \"unix:admin.sock\"\n"), ..spec() }
}

#[test]
fn uclient_allocates_with_access_tokens_over_every_transport() {
    let server = with_keys(KEYS_OF_UCLIENT).start();
    let nobody = Credentials { username: "nobody".to_owned(), password: "nothing".to_owned() };
    std::thread::scope(|scope| {
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
            // Several, because the key is taken at random.
            for _ in 0..4 {
                let (server, nobody) = (&server, &nobody);
                scope.spawn(move || {
                    let peer = Peer::start("127.0.0.1");
                    let flags = [&peer.flags()[..], &["-c", "-J"]].concat();
                    assert_nothing_lost(&uclient(server, transport, "127.0.0.1", nobody, &flags));
                });
            }
        }
    });
}

#[test]
fn a_client_from_the_text_of_the_rfc_is_served_and_refused_as_it_says() {
    let server = with_keys(
        "[[auth.token-keys]]\nid = \"k1\"\nkey = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\nnot-after = \"2099-01-01T00:00:00Z\"\n",
    )
    .start();
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let said = third_party(&server.udp().port().to_string(), server.realm(), "k1", key);
    let expected = [
        &format!("challenge 401 {}", server.realm()),
        "other-server 401",
        "other-key 401",
        "unknown-key 401",
        "expired 401",
        "not-a-token 401",
        "other-session 401",
        "allocate 0 True",
        "permission 0",
        "refresh 0",
        "new-token 0 600",
        "by-new-key 0",
        "by-old-key 401",
        "end 0",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn where_no_tokens_are_taken_one_is_an_unknown_attribute() {
    let server = spec().start();
    let said = third_party(&server.udp().port().to_string(), server.realm(), "none", "AAAAAAAAAAAAAAAAAAAAAA==");
    assert_eq!(said.lines().collect::<Vec<_>>(), ["challenge 401 -", "unexpected 420 001b"]);
}

fn third_party(port: &str, name: &str, key_id: &str, key: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/third_party.py");
    let finished = run(Command::new(python()).arg(script).args([port, name, key_id, key]), LIMIT);
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    finished.stdout
}

/// Sample of RFC 7635 appendix A, made and opened by coturn.
#[test]
fn coturns_tool_makes_and_opens_the_tokens_that_we_make() {
    let long_term = b"HGkj32KJGiuy098sdfaqbNjOiaz71923";
    let session = SessionKey { key: b"ZksjpweoixXmvn67534m", made_unix: 1_410_984_813, lifetime_secs: 3600 };
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    for (name, algorithm) in [("A256GCM", TokenAlgorithm::A256Gcm), ("A128GCM", TokenAlgorithm::A128Gcm)] {
        let key = TokenKey::new("north", algorithm, long_term).unwrap();
        let token = encode(&key.seal("blackdow.carleon.gov", *b"h4j3k2l2n4b5", &session).unwrap());
        let oauth = |arguments: &[&str]| {
            let mut command = Command::new(require_tool("turnutils_oauth", "coturn"));
            command.args(["-v", "-i", "blackdow.carleon.gov", "-j", "north", "-k", &encode(long_term), "-n", name]);
            command.args(["-l", "1410984000", "-m", "864000000"]).args(arguments);
            let finished = run(&mut command, LIMIT);
            assert_eq!(finished.code, Some(0), "{}", finished.all_output());
            finished.all_output()
        };
        let opened = oauth(&["-d", "-t", &token]);
        assert!(
            opened.contains("unixtime: 1410984813") && opened.contains("mac key: ZksjpweoixXmvn67534m"),
            "{opened}"
        );
        let (nonce, mac_key) = (encode(b"h4j3k2l2n4b5"), encode(session.key));
        let made = oauth(&["-e", "-o", &nonce, "-p", &mac_key, "-q", "92470300704768", "-r", "3600"]);
        assert!(made.contains(&token), "{made}\n{token}");
    }
}
