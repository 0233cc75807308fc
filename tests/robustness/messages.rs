//! Mutated bytes into the message parser.

use turnstone::stun::{self, AttributeType, Encoder, ErrorCode, IntegrityKind, Key, Message};

use turnstone::turn::innermost;

use crate::mutate::{Rng, mutate, repair_length};
use crate::world;

/// What a message is worth once it has parsed: every reader of a value is called on every attribute.
fn read_all(bytes: &[u8]) -> bool {
    let Ok(message) = Message::parse(bytes) else { return false };
    let mut total = 0;
    for attribute in message.attributes() {
        total += 4 + attribute.value.len();
        let _ = stun::decode_address(attribute.value);
        let _ = stun::decode_xor_address(attribute.value, message.transaction_id());
        let _ = ErrorCode::decode(attribute.value);
        assert!(message.get(attribute.kind).is_some());
    }
    assert!(20 + total <= bytes.len());
    let unknown = message.unknown_required(|kind| kind == AttributeType::USERNAME);
    assert!(unknown.types().iter().all(|kind| kind.comprehension_required()));
    let _ = format!("{message:?}");
    true
}

/// Encoding what was read and reading it again gives the same.
fn survives_a_round_trip(bytes: &[u8], scratch: &mut Vec<u8>) {
    let Ok(message) = Message::parse(bytes) else { return };
    scratch.clear();
    let mut encoder = Encoder::new(scratch, message.class(), message.method(), message.transaction_id());
    for attribute in message.attributes() {
        encoder.attribute(attribute.kind, attribute.value);
    }
    let again = Message::parse(scratch).expect("what we encode parses");
    assert!(again.attributes().eq(message.attributes()));
    assert_eq!((again.class(), again.method()), (message.class(), message.method()));
}

#[test]
fn no_mutated_message_upsets_the_parser() {
    let mut rng = Rng(crate::seed());
    let corpus = world::corpus();
    let never = Key::short_term(b"a key that signed none of these");
    let (mut input, mut scratch) = (Vec::new(), Vec::new());
    let (count, mut parsed) = (crate::inputs(45), 0);
    for _ in 0..count {
        input.clone_from(rng.pick(&corpus));
        mutate(&mut rng, &mut input, &corpus);
        if rng.chance(2) {
            repair_length(&mut input);
        }
        assert!(innermost(&input).0.len() <= input.len());
        if read_all(&input) {
            parsed += 1;
            survives_a_round_trip(&input, &mut scratch);
            assert!(!Message::parse(&input).unwrap().verify_integrity(&never), "a forged MAC verified: {input:02x?}");
        }
    }
    assert!(parsed > count / 50, "only {parsed} of {count} inputs got past the parser: the mutations are too coarse");
}

#[test]
fn a_mutated_message_never_verifies_unless_what_is_covered_is_unchanged() {
    let mut rng = Rng(crate::seed() ^ 1);
    let key = Key::short_term(b"the key");
    for kind in [IntegrityKind::Sha1, IntegrityKind::Sha256] {
        let mut original = Vec::new();
        Encoder::new(&mut original, stun::Class::Request, stun::Method::ALLOCATE, stun::TransactionId([1; 12]))
            .attribute(AttributeType::USERNAME, b"alice")
            .u32(AttributeType::LIFETIME, 600)
            .integrity(kind, &key);
        let corpus = vec![original.clone()];
        for _ in 0..crate::inputs(5) / 2 {
            let mut input = original.clone();
            mutate(&mut rng, &mut input, &corpus);
            repair_length(&mut input);
            let Ok(message) = Message::parse(&input) else { continue };
            if message.verify_integrity(&key) {
                let expected = Message::parse(&original).unwrap();
                assert!(message.attributes().eq(expected.attributes()), "{input:02x?}");
                assert_eq!(message.transaction_id(), expected.transaction_id());
                assert_eq!((message.class(), message.method()), (expected.class(), expected.method()));
            }
        }
    }
}
