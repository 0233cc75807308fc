//! Requests as real clients encode them, judged by the whole mechanism.

mod credentials;
mod ladder;

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::addr::{ClientAddr, Transport};
use crate::auth::{StoredKeys, mint};
use turnstone_stun::{Class, Method, TransactionId};

const REALM: &str = "example.org";
const NOW_SECS: u64 = 1_735_689_600;
const NONCE_LIFETIME_SECS: u32 = 600;
const SHA256_ENTRY: &[u8] = &[0, 2, 0, 0];
const MD5_ENTRY: &[u8] = &[0, 1, 0, 0];
const TIME_LIMITED: &str = "1735693200:alice";
const EXPIRED: &str = "1735689599:alice";

fn at(unix_secs: u64) -> Now {
    Now { micros: 0, unix_secs }
}

fn client(port: u16) -> FiveTuple {
    let client = ClientAddr::new(SocketAddr::from(([192, 0, 2, 1], port)));
    FiveTuple { transport: Transport::Udp, client, server: SocketAddr::from(([192, 0, 2, 9], 3478)) }
}

fn secret(id: &str, bytes: &str) -> SharedSecret {
    SharedSecret::new(id, bytes)
}

fn build(users: &[(&str, &str)], secrets: &[&str]) -> Credentials {
    Credentials::builder(REALM, Arc::new(NonceKeys::new([1; 32], NONCE_LIFETIME_SECS)))
        .users(Users::from_pairs(REALM, users.iter().copied()).unwrap())
        .secrets(secrets.iter().map(|bytes| secret(bytes, bytes)).collect())
        .build()
        .unwrap()
}

/// One static user and two secrets.
fn credentials() -> Credentials {
    build(&[("bob", "builder")], &["south", "north"])
}

/// The NONCE of a challenge issued at `unix_secs`.
fn nonce(credentials: &Credentials, unix_secs: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut response = Encoder::new(&mut out, Class::Error, Method::ALLOCATE, TransactionId([9; 12]));
    credentials.challenge(at(unix_secs), &client(5000), &mut response);
    Message::parse(&out).unwrap().get(AttributeType::NONCE).unwrap().to_vec()
}

/// A request to be changed by a test before it is signed.
#[derive(Clone)]
struct Request {
    attributes: Vec<(AttributeType, Vec<u8>)>,
    key: Key,
    signed_with: Vec<IntegrityKind>,
}

impl Request {
    /// As a client of RFC 5389 sends it.
    fn new(credentials: &Credentials, username: &str, password: &str) -> Self {
        Self {
            attributes: vec![
                (AttributeType::REQUESTED_TRANSPORT, vec![17, 0, 0, 0]),
                (AttributeType::USERNAME, username.into()),
                (AttributeType::REALM, REALM.into()),
                (AttributeType::NONCE, nonce(credentials, NOW_SECS)),
            ],
            key: key(PasswordAlgorithm::Md5, username, password),
            signed_with: vec![IntegrityKind::Sha1],
        }
    }

    /// As a client of RFC 8489 sends it.
    fn modern(credentials: &Credentials, username: &str, password: &str) -> Self {
        let mut request = Self::new(credentials, username, password)
            .with(AttributeType::PASSWORD_ALGORITHMS, Offer::Both.list())
            .with(AttributeType::PASSWORD_ALGORITHM, SHA256_ENTRY)
            .signed(&[IntegrityKind::Sha256]);
        request.key = key(PasswordAlgorithm::Sha256, username, password);
        request
    }

    fn with(mut self, kind: AttributeType, value: &[u8]) -> Self {
        self.attributes.retain(|(present, _)| *present != kind);
        self.attributes.push((kind, value.to_vec()));
        self
    }

    fn without(mut self, kind: AttributeType) -> Self {
        self.attributes.retain(|(present, _)| *present != kind);
        self
    }

    fn signed(mut self, kinds: &[IntegrityKind]) -> Self {
        self.signed_with = kinds.to_vec();
        self
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, Class::Request, Method::ALLOCATE, TransactionId([3; 12]));
        for (kind, value) in &self.attributes {
            encoder.attribute(*kind, value);
        }
        for kind in &self.signed_with {
            encoder.integrity(*kind, &self.key);
        }
        out
    }

    fn send(&self, credentials: &Credentials) -> Result<Authenticated, Reason> {
        self.send_at(credentials, NOW_SECS, None)
    }

    fn send_at(
        &self,
        credentials: &Credentials,
        unix_secs: u64,
        held: Option<&Authenticated>,
    ) -> Result<Authenticated, Reason> {
        let bytes = self.encode();
        let held =
            held.map(|held| HeldCredential { identity: &held.identity, key: &held.key, algorithm: held.algorithm });
        credentials.authenticate(at(unix_secs), &client(5000), &Message::parse(&bytes).unwrap(), held)
    }

    #[track_caller]
    fn refused(&self, credentials: &Credentials, reason: Reason) {
        assert_eq!(self.send(credentials).unwrap_err(), reason);
    }
}

fn key(algorithm: PasswordAlgorithm, username: &str, password: &str) -> Key {
    Key::long_term(algorithm, username.as_bytes(), REALM.as_bytes(), password.as_bytes())
}

#[test]
fn challenge_offers_sha256_before_md5_and_a_nonce_that_says_so() {
    let credentials = credentials();
    let mut out = Vec::new();
    let mut response = Encoder::new(&mut out, Class::Error, Method::ALLOCATE, TransactionId([9; 12]));
    credentials.challenge(at(NOW_SECS), &client(5000), &mut response);
    let message = Message::parse(&out).unwrap();
    assert_eq!(message.get(AttributeType::REALM), Some(REALM.as_bytes()));
    assert_eq!(message.get(AttributeType::PASSWORD_ALGORITHMS), Some(&[SHA256_ENTRY, MD5_ENTRY].concat()[..]));
    assert!(message.get(AttributeType::NONCE).unwrap().starts_with(b"obMatJos2AAAB"));
    assert_eq!(message.attributes().count(), 3);
}

#[test]
fn anonymity_bit_is_set_only_with_users_and_without_secrets() {
    let cookie = |credentials: &Credentials| String::from_utf8(nonce(credentials, NOW_SECS)[..13].to_vec()).unwrap();
    assert_eq!(cookie(&build(&[("bob", "builder")], &[])), "obMatJos2AAAD");
    assert_eq!(cookie(&build(&[("bob", "builder")], &["north"])), "obMatJos2AAAB");
    assert_eq!(cookie(&build(&[], &["north"])), "obMatJos2AAAB");
    assert_eq!(cookie(&build(&[], &[])), "obMatJos2AAAB");
}

#[test]
fn realm_and_secrets_are_checked_when_built() {
    let build = |realm: &str, secrets| {
        let nonce_keys = Arc::new(NonceKeys::new([1; 32], 600));
        Credentials::builder(realm, nonce_keys).secrets(secrets).build()
    };
    assert_eq!(build("e\u{301}", vec![]).unwrap().realm(), "\u{e9}");
    assert_eq!(build("", vec![]).unwrap_err(), CredentialsError::Realm);
    assert_eq!(build("a\"b", vec![]).unwrap_err(), CredentialsError::Realm);
    assert_eq!(build("a\nb", vec![]).unwrap_err(), CredentialsError::Realm);
    assert!(build(&"\u{e9}".repeat(127), vec![]).is_ok());
    assert_eq!(build(&"r".repeat(128), vec![]).unwrap_err(), CredentialsError::RealmTooLong);
    let empty = build(REALM, vec![secret("north", "x"), secret("void", "")]).unwrap_err();
    assert_eq!(empty, CredentialsError::EmptySecret("void".to_owned()));
}

#[test]
fn debug_shows_neither_secrets_nor_passwords() {
    let credentials = build(&[("bob", "builder")], &[]);
    let mut shown = format!("{credentials:?}");
    let users = Users::from_pairs(REALM, [("bob", "builder")]).unwrap();
    let secrets = vec![secret("id-of-it", "north")];
    let nonce_keys = Arc::new(NonceKeys::new([0x55; 32], 600));
    let builder = Credentials::builder(REALM, nonce_keys).users(users).secrets(secrets);
    shown += &format!("{builder:?}");
    shown += &format!("{:?}", builder.build().unwrap());
    shown += &format!("{:?}", Request::new(&credentials, "bob", "builder").send(&credentials).unwrap());
    for hidden in ["builder", "north", "85, 85", "0x55"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert!(shown.contains("id-of-it"));
}

fn any_request(credentials: &Credentials) -> impl Strategy<Value = Request> + use<> {
    prop::sample::select(vec![
        Request::new(credentials, "bob", "builder"),
        Request::modern(credentials, "bob", "builder"),
        Request::new(credentials, TIME_LIMITED, &mint(b"north", TIME_LIMITED)),
        Request::modern(credentials, TIME_LIMITED, &mint(b"south", TIME_LIMITED)),
        Request::modern(credentials, "bob", "builder")
            .without(AttributeType::USERNAME)
            .with(AttributeType::USERHASH, &userhash(b"bob", REALM.as_bytes())),
    ])
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.encode()))
    }
}

proptest! {
    #[test]
    fn message_changed_anywhere_is_refused(
        request in any_request(&credentials()),
        index: prop::sample::Index,
        to: u8,
    ) {
        let credentials = credentials();
        let mut bytes = request.encode();
        prop_assert!(credentials.authenticate(at(NOW_SECS), &client(5000), &Message::parse(&bytes).unwrap(), None).is_ok());
        let index = index.index(bytes.len());
        prop_assume!(bytes[index] != to);
        bytes[index] = to;
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert!(credentials.authenticate(at(NOW_SECS), &client(5000), &message, None).is_err());
        }
    }

    #[test]
    fn request_with_any_other_nonce_is_stale(request in any_request(&credentials()), nonce: Vec<u8>) {
        let request = request.with(AttributeType::NONCE, &nonce);
        prop_assert_eq!(request.send(&credentials()).unwrap_err(), Reason::StaleNonce);
    }

    #[test]
    fn only_the_right_password_passes(username in "[a-z0-9:]{0,40}", password in "[ -~]{0,40}", modern: bool) {
        let credentials = credentials();
        prop_assume!(username != "bob" || password != "builder");
        let request = if modern { Request::modern } else { Request::new };
        prop_assert!(request(&credentials, &username, &password).send(&credentials).is_err());
    }
}
