//! What we encode, the `stun` crate decodes, and the reverse; where both pad with zeros the bytes are the same.

use std::net::{IpAddr, SocketAddr};

use ::stun::agent::TransactionId as TheirId;
use ::stun::attributes::{ATTR_REALM, ATTR_USERNAME, AttrType};
use ::stun::error_code::ErrorCodeAttribute;
use ::stun::fingerprint::FINGERPRINT;
use ::stun::integrity::MessageIntegrity;
use ::stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter, METHOD_ALLOCATE,
    METHOD_BINDING, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_DATA, METHOD_REFRESH, METHOD_SEND,
    Message as Theirs, MessageClass, MessageType, Setter,
};
use ::stun::textattrs::TextAttribute;
use ::stun::uattrs::UnknownAttributes;
use ::stun::xoraddr::XorMappedAddress;
use proptest::prelude::*;
use turnstone::stun::{
    self, AttributeType, Class, Encoder, ErrorCode, IntegrityKind, Key, Message, Method, PasswordAlgorithm,
    TransactionId,
};

/// One attribute of a random message.
#[derive(Clone, Debug)]
enum Part {
    Raw(u16, Vec<u8>),
    XorAddress(u16, SocketAddr),
    Error(u16),
    Unknown(Vec<AttributeType>),
}

#[derive(Clone, Debug)]
struct Random {
    class: Class,
    method: u16,
    id: [u8; 12],
    parts: Vec<Part>,
    credential: Option<(String, String, String)>,
    fingerprint: bool,
}

fn part() -> impl Strategy<Value = Part> {
    // 0x8020 is an alias of XOR-MAPPED-ADDRESS to the other codec; integrity and fingerprint have their own places.
    let kind = any::<u16>()
        .prop_filter("has its own place", |kind| ![0x0008, 0x001C, 0x8028, 0x8020, 0x0006, 0x0014].contains(kind));
    let address = (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    let error = prop::sample::select(vec![300_u16, 400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 486, 500, 508]);
    prop_oneof![
        4 => (kind, prop::collection::vec(any::<u8>(), 0..70)).prop_map(|(kind, value)| Part::Raw(kind, value)),
        2 => (prop::sample::select(vec![0x0020_u16, 0x0012, 0x0016]), address).prop_map(|(k, a)| Part::XorAddress(k, a)),
        1 => error.prop_map(Part::Error),
        1 => prop::collection::vec(any::<u16>().prop_map(AttributeType), 0..8).prop_map(Part::Unknown),
    ]
}

fn message() -> impl Strategy<Value = Random> {
    let class = prop::sample::select(vec![Class::Request, Class::Indication, Class::Success, Class::Error]);
    let credential = prop::option::of(("[a-z0-9:]{1,20}", "[a-z.]{1,20}", "[ -~]{1,30}"));
    (class, 0_u16..0x1000, any::<[u8; 12]>(), prop::collection::vec(part(), 0..8), credential, any::<bool>()).prop_map(
        |(class, method, id, parts, credential, fingerprint)| Random {
            class,
            method,
            id,
            parts,
            credential,
            fingerprint,
        },
    )
}

fn encode_ours(random: &Random) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, random.class, Method::new(random.method), TransactionId(random.id));
    for part in &random.parts {
        match part {
            Part::Raw(kind, value) => encoder.attribute(AttributeType(*kind), value),
            Part::XorAddress(kind, addr) => encoder.xor_address(AttributeType(*kind), *addr),
            Part::Error(code) => encoder.error_code(ErrorCode::new(*code).unwrap()),
            Part::Unknown(types) => encoder.unknown_attributes(types),
        };
    }
    if let Some((username, realm, password)) = &random.credential {
        encoder.attribute(AttributeType::USERNAME, username.as_bytes());
        encoder.attribute(AttributeType::REALM, realm.as_bytes());
        let key = Key::long_term(PasswordAlgorithm::Md5, username.as_bytes(), realm.as_bytes(), password.as_bytes());
        encoder.integrity(IntegrityKind::Sha1, &key);
    }
    if random.fingerprint {
        encoder.fingerprint();
    }
    out
}

fn their_class(class: Class) -> MessageClass {
    match class {
        Class::Request => CLASS_REQUEST,
        Class::Indication => CLASS_INDICATION,
        Class::Success => CLASS_SUCCESS_RESPONSE,
        Class::Error => CLASS_ERROR_RESPONSE,
    }
}

/// The type as the other codec understands ours; its methods cannot be made from a number.
fn their_type(class: Class, method: u16) -> MessageType {
    let mut ours = Vec::new();
    Encoder::new(&mut ours, class, Method::new(method), TransactionId([0; 12]));
    let mut theirs = MessageType::default();
    theirs.read_value(u16::from_be_bytes([ours[0], ours[1]]));
    theirs
}

fn encode_theirs(random: &Random) -> Vec<u8> {
    let mut message = Theirs::new();
    message.transaction_id = TheirId(random.id);
    message.set_type(their_type(random.class, random.method));
    message.write_header();
    for part in &random.parts {
        match part {
            Part::Raw(kind, value) => message.add(AttrType(*kind), value),
            Part::XorAddress(kind, addr) => {
                XorMappedAddress { ip: addr.ip(), port: addr.port() }.add_to_as(&mut message, AttrType(*kind)).unwrap()
            }
            Part::Error(code) => {
                let reason = ErrorCode::new(*code).unwrap().phrase().as_bytes().to_vec();
                let code = ::stun::error_code::ErrorCode(*code);
                ErrorCodeAttribute { code, reason }.add_to(&mut message).unwrap();
            }
            Part::Unknown(types) => {
                let types = types.iter().map(|kind| AttrType(kind.0)).collect();
                UnknownAttributes(types).add_to(&mut message).unwrap();
            }
        }
    }
    if let Some((username, realm, password)) = &random.credential {
        TextAttribute::new(ATTR_USERNAME, username.clone()).add_to(&mut message).unwrap();
        TextAttribute::new(ATTR_REALM, realm.clone()).add_to(&mut message).unwrap();
        their_integrity(username, realm, password).add_to(&mut message).unwrap();
    }
    if random.fingerprint {
        FINGERPRINT.add_to(&mut message).unwrap();
    }
    message.raw
}

fn their_integrity(username: &str, realm: &str, password: &str) -> MessageIntegrity {
    MessageIntegrity::new_long_term_integrity(username.to_owned(), realm.to_owned(), password.to_owned())
}

#[test]
fn the_methods_of_turn_have_the_same_types_in_both_codecs() {
    let methods = [
        (Method::BINDING, METHOD_BINDING),
        (Method::ALLOCATE, METHOD_ALLOCATE),
        (Method::REFRESH, METHOD_REFRESH),
        (Method::SEND, METHOD_SEND),
        (Method::DATA, METHOD_DATA),
        (Method::CREATE_PERMISSION, METHOD_CREATE_PERMISSION),
        (Method::CHANNEL_BIND, METHOD_CHANNEL_BIND),
    ];
    for (ours, theirs) in methods {
        for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
            assert_eq!(their_type(class, ours.value()), MessageType::new(theirs, their_class(class)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn both_codecs_write_the_same_bytes(random in message()) {
        prop_assert_eq!(encode_ours(&random), encode_theirs(&random));
    }

    #[test]
    fn the_other_codec_reads_what_we_write(random in message()) {
        let bytes = encode_ours(&random);
        let mut theirs = Theirs::new();
        theirs.unmarshal_binary(&bytes).unwrap();
        prop_assert_eq!(theirs.typ.class, their_class(random.class));
        prop_assert_eq!(theirs.typ.value(), u16::from_be_bytes([bytes[0], bytes[1]]));
        prop_assert_eq!(theirs.transaction_id.0, random.id);
        let ours = Message::parse(&bytes).unwrap();
        let read: Vec<_> = ours.attributes().map(|a| (a.kind.0, a.value.to_vec())).collect();
        let their_read: Vec<_> =
            theirs.attributes.0.iter().take(read.len()).map(|a| (a.typ.0, a.value.clone())).collect();
        prop_assert_eq!(read, their_read);
        if let Some((username, realm, password)) = &random.credential {
            their_integrity(username, realm, password).check(&mut theirs).unwrap();
            prop_assert!(their_integrity(username, realm, "not the password").check(&mut theirs).is_err());
        }
        if random.fingerprint {
            FINGERPRINT.check(&theirs).unwrap();
        }
    }

    #[test]
    fn we_read_what_the_other_codec_writes(random in message()) {
        let bytes = encode_theirs(&random);
        let ours = Message::parse(&bytes).unwrap();
        prop_assert_eq!(ours.class(), random.class);
        prop_assert_eq!(ours.method(), Method::new(random.method));
        prop_assert_eq!(ours.transaction_id(), TransactionId(random.id));
        prop_assert_eq!(ours.has_fingerprint(), random.fingerprint);
        prop_assert_eq!(ours.integrity(), random.credential.is_some().then_some(IntegrityKind::Sha1));
        for (part, attribute) in random.parts.iter().zip(ours.attributes()) {
            match part {
                Part::Raw(kind, value) => {
                    prop_assert_eq!((attribute.kind, attribute.value), (AttributeType(*kind), &value[..]));
                }
                Part::XorAddress(kind, addr) => {
                    prop_assert_eq!(attribute.kind, AttributeType(*kind));
                    prop_assert_eq!(stun::decode_xor_address(attribute.value, ours.transaction_id()), Some(*addr));
                }
                Part::Error(code) => {
                    let (decoded, phrase) = ErrorCode::decode(attribute.value).unwrap();
                    prop_assert_eq!(decoded.value(), *code);
                    prop_assert_eq!(phrase, decoded.phrase().as_bytes());
                }
                Part::Unknown(types) => {
                    let bytes: Vec<u8> = types.iter().flat_map(|kind| kind.0.to_be_bytes()).collect();
                    prop_assert_eq!(attribute.value, &bytes[..]);
                }
            }
        }
        if let Some((username, realm, password)) = &random.credential {
            let key = |password: &str| {
                Key::long_term(PasswordAlgorithm::Md5, username.as_bytes(), realm.as_bytes(), password.as_bytes())
            };
            prop_assert!(ours.verify_integrity(&key(password)));
            prop_assert!(!ours.verify_integrity(&key("not the password")));
        }
    }

    #[test]
    fn whatever_we_accept_of_random_changes_the_other_codec_accepts_too(
        random in message(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode_ours(&random);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if Message::parse(&bytes).is_ok() {
            let mut theirs = Theirs::new();
            prop_assert!(theirs.unmarshal_binary(&bytes).is_ok());
        }
    }

    #[test]
    fn addresses_agree_in_both_directions(ip in any::<IpAddr>(), port in any::<u16>(), id in any::<[u8; 12]>()) {
        let addr = SocketAddr::new(ip, port);
        let mut value = [0; 20];
        let len = stun::encode_xor_address(addr, TransactionId(id), &mut value);
        let mut theirs = Theirs::new();
        theirs.transaction_id = TheirId(id);
        theirs.write_header();
        theirs.add(AttrType(0x0020), &value[..len]);
        let mut read = XorMappedAddress::default();
        read.get_from(&theirs).unwrap();
        prop_assert_eq!((read.ip, read.port), (ip, port));
        prop_assert_eq!(stun::decode_xor_address(&value[..len], TransactionId(id)), Some(addr));
    }
}
