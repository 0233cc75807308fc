//! RFC 5769 section 2 and RFC 8489 appendix B.1 (as corrected by erratum 6268), read and written.
//!
//! The vectors 2.1 to 2.3 of RFC 5769 pad with spaces. Padding is covered by MESSAGE-INTEGRITY and FINGERPRINT, so they are
//! verified over the bytes as received; our encoder pads with zeros (RFC 8489 section 14 asks for it since), so what it writes
//! is compared with the padding masked, and its own MAC and CRC must verify. The others are reproduced byte for byte.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use turnstone::stun::{
    self, AttributeType, Class, Encoder, IntegrityKind, Key, Message, Method, ParseError, PasswordAlgorithm,
};

#[derive(Deserialize)]
struct File {
    vector: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    message: String,
    message_bytes: usize,
    message_type: u16,
    class: String,
    method: u16,
    transaction_id: String,
    #[serde(default = "yes")]
    must_parse: bool,
    credentials: Option<Credentials>,
    #[serde(default)]
    attribute: Vec<Attribute>,
}

#[derive(Deserialize)]
struct Credentials {
    mechanism: String,
    username: Option<String>,
    realm: Option<String>,
    password: String,
    hmac_key: String,
    md5_key_for_comparison: Option<String>,
    userhash: Option<String>,
}

#[derive(Deserialize)]
struct Attribute {
    r#type: u16,
    name: String,
    offset: usize,
    length: usize,
    value: String,
    padding: Option<String>,
    text: Option<String>,
    address: Option<IpAddr>,
    port: Option<u16>,
    algorithm: Option<u16>,
}

fn yes() -> bool {
    true
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn all_vectors() -> Vec<Vector> {
    let files = [include_str!("rfc5769-vectors.toml"), include_str!("rfc8489-vectors.toml")];
    files.iter().flat_map(|text| toml::from_str::<File>(text).unwrap().vector).collect()
}

fn good_vectors() -> Vec<Vector> {
    let vectors: Vec<_> = all_vectors().into_iter().filter(|vector| vector.must_parse).collect();
    assert_eq!(vectors.len(), 5, "four of RFC 5769 and one of RFC 8489");
    vectors
}

fn key_of(vector: &Vector) -> Key {
    let credentials = vector.credentials.as_ref().unwrap();
    if credentials.mechanism == "short-term" {
        return Key::short_term(credentials.password.as_bytes());
    }
    let algorithm = if credentials.hmac_key.len() == 32 { PasswordAlgorithm::Md5 } else { PasswordAlgorithm::Sha256 };
    long_term(credentials, algorithm)
}

fn long_term(credentials: &Credentials, algorithm: PasswordAlgorithm) -> Key {
    let (username, realm) = (credentials.username.as_deref().unwrap(), credentials.realm.as_deref().unwrap());
    Key::long_term(algorithm, username.as_bytes(), realm.as_bytes(), credentials.password.as_bytes())
}

fn is_covered(attribute: &Attribute) -> bool {
    !matches!(attribute.name.as_str(), "MESSAGE-INTEGRITY" | "MESSAGE-INTEGRITY-SHA256" | "FINGERPRINT")
}

#[test]
fn every_field_of_the_published_messages_is_decoded() {
    for vector in good_vectors() {
        let bytes = hex(&vector.message);
        assert_eq!(bytes.len(), vector.message_bytes, "{}", vector.id);
        assert_eq!(bytes[..2], vector.message_type.to_be_bytes(), "{}", vector.id);
        let message = Message::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", vector.id));
        let class = if vector.class == "request" { Class::Request } else { Class::Success };
        assert_eq!(message.class(), class, "{}", vector.id);
        assert_eq!(message.method(), Method::new(vector.method), "{}", vector.id);
        assert_eq!(message.transaction_id().0.to_vec(), hex(&vector.transaction_id), "{}", vector.id);

        let decoded: Vec<_> = message.attributes().map(|a| (a.kind.0, a.value.to_vec())).collect();
        let expected: Vec<_> =
            vector.attribute.iter().filter(|a| is_covered(a)).map(|a| (a.r#type, hex(&a.value))).collect();
        assert_eq!(decoded, expected, "{}", vector.id);

        for attribute in &vector.attribute {
            let kind = AttributeType(attribute.r#type);
            if !matches!(attribute.name.as_str(), "PRIORITY" | "ICE-CONTROLLED") {
                assert_eq!(kind.name(), attribute.name, "{}", vector.id);
            }
            let value = hex(&attribute.value);
            assert_eq!(bytes[attribute.offset + 4..][..attribute.length], value[..], "{}", vector.id);
            if let Some(text) = &attribute.text {
                assert_eq!(message.get(kind).unwrap(), text.as_bytes(), "{}", vector.id);
            }
            if let (Some(ip), Some(port)) = (attribute.address, attribute.port) {
                let address = stun::decode_xor_address(message.get(kind).unwrap(), message.transaction_id());
                assert_eq!(address, Some(SocketAddr::new(ip, port)), "{}", vector.id);
            }
            if let Some(number) = attribute.algorithm {
                assert_eq!(PasswordAlgorithm::from_wire(number), Some(PasswordAlgorithm::Sha256));
                assert_eq!(value[..2], PasswordAlgorithm::Sha256.to_wire().to_be_bytes());
            }
        }
        assert_eq!(
            message.has_fingerprint(),
            vector.attribute.iter().any(|a| a.name == "FINGERPRINT"),
            "{}",
            vector.id
        );
    }
}

#[test]
fn keys_and_userhash_are_those_of_the_vectors() {
    for vector in good_vectors() {
        let credentials = vector.credentials.as_ref().unwrap();
        assert_eq!(key_of(&vector).as_bytes(), hex(&credentials.hmac_key), "{}", vector.id);
        if let Some(md5) = &credentials.md5_key_for_comparison {
            assert_eq!(long_term(credentials, PasswordAlgorithm::Md5).as_bytes(), hex(md5), "{}", vector.id);
        }
        if let Some(userhash) = &credentials.userhash {
            let username = credentials.username.as_deref().unwrap();
            let realm = credentials.realm.as_deref().unwrap();
            let ours = stun::userhash(username.as_bytes(), realm.as_bytes());
            assert_eq!(ours.to_vec(), hex(userhash), "{}", vector.id);
            let bytes = hex(&vector.message);
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.get(AttributeType::USERHASH), Some(&ours[..]), "{}", vector.id);
        }
    }
}

#[test]
fn integrity_verifies_with_the_key_and_with_no_other() {
    for vector in good_vectors() {
        let bytes = hex(&vector.message);
        let message = Message::parse(&bytes).unwrap();
        let sha256 = vector.attribute.iter().any(|a| a.name == "MESSAGE-INTEGRITY-SHA256");
        let kind = if sha256 { IntegrityKind::Sha256 } else { IntegrityKind::Sha1 };
        assert_eq!(message.integrity(), Some(kind), "{}", vector.id);
        assert!(message.verify_integrity(&key_of(&vector)), "{}", vector.id);
        assert!(!message.verify_integrity(&Key::short_term(b"another key")), "{}", vector.id);
    }
}

#[test]
fn any_changed_bit_of_a_published_message_is_noticed() {
    for vector in good_vectors() {
        let original = hex(&vector.message);
        let key = key_of(&vector);
        let integrity = vector.attribute.iter().find(|a| a.name.starts_with("MESSAGE-INTEGRITY")).unwrap();
        let covered_end = integrity.offset + 4 + integrity.length;
        for bit in 0..covered_end * 8 {
            let mut bytes = original.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let verified = Message::parse(&bytes).is_ok_and(|message| message.verify_integrity(&key));
            assert!(!verified, "{}: bit {bit} does not matter", vector.id);
        }
    }
}

#[test]
fn the_message_as_printed_in_appendix_b1_is_refused_for_its_length() {
    let vectors = all_vectors();
    let printed = vectors.iter().find(|vector| !vector.must_parse).unwrap();
    assert_eq!(Message::parse(&hex(&printed.message)).err(), Some(ParseError::BadLength));
}

#[test]
fn encoding_reproduces_the_published_messages_but_for_non_zero_padding() {
    let mut byte_for_byte = 0;
    for vector in good_vectors() {
        let original = hex(&vector.message);
        let key = key_of(&vector);
        let parsed = Message::parse(&original).unwrap();
        let mut ours = Vec::new();
        let mut encoder = Encoder::new(&mut ours, parsed.class(), parsed.method(), parsed.transaction_id());
        for attribute in &vector.attribute {
            match (attribute.name.as_str(), attribute.address, attribute.port) {
                ("MESSAGE-INTEGRITY", ..) => encoder.integrity(IntegrityKind::Sha1, &key),
                ("MESSAGE-INTEGRITY-SHA256", ..) => encoder.integrity(IntegrityKind::Sha256, &key),
                ("FINGERPRINT", ..) => encoder.fingerprint(),
                (_, Some(ip), Some(port)) => {
                    encoder.xor_address(AttributeType(attribute.r#type), SocketAddr::new(ip, port))
                }
                _ => encoder.attribute(AttributeType(attribute.r#type), &hex(&attribute.value)),
            };
        }
        let reparsed = Message::parse(&ours).unwrap();
        assert!(reparsed.verify_integrity(&key), "{}", vector.id);
        assert_eq!(reparsed.has_fingerprint(), parsed.has_fingerprint(), "{}", vector.id);

        let padding_is_zero =
            vector.attribute.iter().filter_map(|a| a.padding.as_deref()).all(|p| hex(p).iter().all(|&b| b == 0));
        if padding_is_zero {
            assert_eq!(ours, original, "{}", vector.id);
            byte_for_byte += 1;
        } else {
            let covered = vector.attribute.iter().take_while(|a| is_covered(a));
            let mut masked = original.clone();
            let mut end = 0;
            for attribute in covered {
                let value_end = attribute.offset + 4 + attribute.length;
                end = value_end.next_multiple_of(4);
                masked[value_end..end].fill(0);
            }
            assert_eq!(ours.len(), masked.len(), "{}", vector.id);
            assert_eq!(ours[..end], masked[..end], "{}", vector.id);
        }
    }
    assert_eq!(byte_for_byte, 2, "RFC 5769 section 2.4 and RFC 8489 appendix B.1");
}
