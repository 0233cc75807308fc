//! RFC 8489 section 9.2.4, rung by rung.

use super::*;

#[test]
fn request_without_integrity_is_challenged() {
    let credentials = credentials();
    let request = Request::new(&credentials, "bob", "builder").signed(&[]);
    request.refused(&credentials, Reason::MissingIntegrity);
    assert_eq!(Reason::MissingIntegrity.code().value(), 401);
}

#[test]
fn request_without_user_realm_or_nonce_is_bad() {
    let credentials = credentials();
    for missing in [AttributeType::USERNAME, AttributeType::REALM, AttributeType::NONCE] {
        Request::new(&credentials, "bob", "builder")
            .without(missing)
            .refused(&credentials, Reason::IncompleteCredential);
    }
    assert_eq!(Reason::IncompleteCredential.code().value(), 400);
}

#[test]
fn credential_after_the_integrity_attribute_does_not_count() {
    let credentials = credentials();
    let mut bytes = Request::new(&credentials, "bob", "builder").without(AttributeType::NONCE).encode();
    bytes.extend([0, 0x15, 0, 29]);
    bytes.extend(nonce(&credentials, NOW_SECS));
    bytes.extend([0; 3]);
    let length = u16::try_from(bytes.len() - 20).unwrap();
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let message = Message::parse(&bytes).unwrap();
    let refusal = credentials.authenticate(at(NOW_SECS), &client(5000), &message, None).unwrap_err();
    assert_eq!(refusal, Reason::IncompleteCredential);
}

#[test]
fn first_attribute_of_a_type_counts() {
    let credentials = credentials();
    let mut request = Request::new(&credentials, "bob", "builder");
    for (kind, value) in [(AttributeType::USERNAME, "eve"), (AttributeType::REALM, "x"), (AttributeType::NONCE, "x")] {
        request.attributes.push((kind, value.into()));
    }
    assert_eq!(&*request.send(&credentials).unwrap().identity.username, "bob");
    request.attributes.reverse();
    request.refused(&credentials, Reason::StaleNonce);
}

#[test]
fn username_counts_beside_userhash() {
    let credentials = credentials();
    let hash = userhash(b"bob", REALM.as_bytes());
    let request = Request::new(&credentials, TIME_LIMITED, &mint(b"north", TIME_LIMITED));
    let passed = request.with(AttributeType::USERHASH, &hash).send(&credentials).unwrap();
    assert_eq!(&*passed.identity.username, TIME_LIMITED);
}

#[test]
fn stale_nonce_goes_before_a_wrong_user_and_a_wrong_password() {
    let credentials = credentials();
    for (username, password) in [("bob", "builder"), ("bob", "wrong"), ("nobody", "wrong"), (TIME_LIMITED, "wrong")] {
        let request = Request::new(&credentials, username, password);
        let last = NOW_SECS + u64::from(NONCE_LIFETIME_SECS);
        assert_ne!(request.send_at(&credentials, last, None).err(), Some(Reason::StaleNonce));
        assert_eq!(request.send_at(&credentials, last + 1, None).unwrap_err(), Reason::StaleNonce);
        request.with(AttributeType::NONCE, b"somebody else's").refused(&credentials, Reason::StaleNonce);
    }
    assert_eq!(Reason::StaleNonce.code().value(), 438);
}

#[test]
fn nonce_of_another_client_is_stale() {
    let credentials = credentials();
    let bytes = Request::new(&credentials, "bob", "builder").encode();
    let message = Message::parse(&bytes).unwrap();
    let other = client(5001);
    assert_eq!(credentials.authenticate(at(NOW_SECS), &other, &message, None).unwrap_err(), Reason::StaleNonce);
}

#[test]
fn password_algorithms_that_differ_from_the_offer_are_a_bid_down() {
    let credentials = credentials();
    let request = Request::modern(&credentials, "bob", "builder");
    let offered = AttributeType::PASSWORD_ALGORITHMS;
    let chosen = AttributeType::PASSWORD_ALGORITHM;
    let swapped = [MD5_ENTRY, SHA256_ENTRY].concat();
    let longer = [Offer::Both.list(), &[0, 3, 0, 0]].concat();
    for list in [MD5_ENTRY, SHA256_ENTRY, b"", &swapped, &longer] {
        request.clone().with(offered, list).refused(&credentials, Reason::PasswordAlgorithmMismatch);
    }
    for entry in [&b""[..], &[0, 2], &[0, 3, 0, 0], &[0, 0, 0, 0], &[0, 2, 0, 4], Offer::Both.list()] {
        request.clone().with(chosen, entry).refused(&credentials, Reason::PasswordAlgorithmMismatch);
    }
    request.clone().without(offered).refused(&credentials, Reason::PasswordAlgorithmMismatch);
    request.without(chosen).refused(&credentials, Reason::PasswordAlgorithmMismatch);
    assert_eq!(Reason::PasswordAlgorithmMismatch.code().value(), 400);
}

#[test]
fn nonce_whose_feature_bits_were_cleared_is_stale() {
    let credentials = credentials();
    let mut cleared = nonce(&credentials, NOW_SECS);
    cleared[12] = b'A';
    let request = Request::new(&credentials, "bob", "builder").with(AttributeType::NONCE, &cleared);
    request.refused(&credentials, Reason::StaleNonce);
}

#[test]
fn other_realm_is_unauthenticated() {
    let credentials = credentials();
    for realm in ["example.com", "", "\"example.org\""] {
        Request::new(&credentials, "bob", "builder")
            .with(AttributeType::REALM, realm.as_bytes())
            .refused(&credentials, Reason::WrongRealm);
    }
    assert_eq!(Reason::WrongRealm.code().value(), 401);
}

#[test]
fn unknown_user_and_wrong_password_have_the_same_answer() {
    let credentials = credentials();
    Request::new(&credentials, "nobody", "builder").refused(&credentials, Reason::UnknownUser);
    Request::new(&credentials, "bob", "wrong").refused(&credentials, Reason::WrongPassword);
    Request::new(&credentials, TIME_LIMITED, "wrong").refused(&credentials, Reason::WrongPassword);
    assert_eq!(Reason::UnknownUser.code(), Reason::WrongPassword.code());
    assert_eq!(Reason::UnknownUser.code().value(), 401);
}

#[test]
fn username_that_cannot_be_one_is_unauthenticated() {
    let credentials = build(&[(&"n".repeat(508), "builder")], &["north"]);
    assert!(Request::new(&credentials, &"n".repeat(508), "builder").send(&credentials).is_ok());
    let too_long = format!("1735693200:{}", "n".repeat(498));
    let password = mint(b"north", &too_long);
    Request::new(&credentials, &too_long, &password).refused(&credentials, Reason::UnknownUser);
    let fits = &too_long[..508];
    assert!(Request::new(&credentials, fits, &mint(b"north", fits)).send(&credentials).is_ok());
    Request::new(&credentials, "bob", "builder")
        .with(AttributeType::USERNAME, b"1735693200:\xFF")
        .refused(&credentials, Reason::UnknownUser);
    Request::new(&credentials, "", "").refused(&credentials, Reason::UnknownUser);
}

#[test]
fn key_of_an_unknown_user_lets_nobody_in() {
    let credentials = credentials();
    for mut request in [Request::new(&credentials, "nobody", ""), Request::modern(&credentials, "nobody", "")] {
        request.key = credentials.nobody.clone();
        request.refused(&credentials, Reason::UnknownUser);
    }
}
