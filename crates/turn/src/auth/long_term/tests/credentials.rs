//! Static users, time-limited credentials, and the credential that an allocation holds.

use super::*;

#[test]
fn static_user_of_an_rfc_5389_client_gets_md5_and_sha1() {
    let credentials = credentials();
    let passed = Request::new(&credentials, "bob", "builder").send(&credentials).unwrap();
    assert_eq!(&*passed.identity.username, "bob");
    assert_eq!(&**passed.identity.user.name(), "bob");
    assert_eq!(passed.identity.expires_unix(), None);
    assert_eq!(passed.algorithm, PasswordAlgorithm::Md5);
    assert_eq!(passed.integrity, IntegrityKind::Sha1);
    assert_eq!(passed.key, key(PasswordAlgorithm::Md5, "bob", "builder"));
}

#[test]
fn static_user_of_an_rfc_8489_client_gets_sha256() {
    let credentials = credentials();
    let passed = Request::modern(&credentials, "bob", "builder").send(&credentials).unwrap();
    assert_eq!(passed.algorithm, PasswordAlgorithm::Sha256);
    assert_eq!(passed.integrity, IntegrityKind::Sha256);
    assert_eq!(passed.key, key(PasswordAlgorithm::Sha256, "bob", "builder"));
}

#[test]
fn key_of_one_algorithm_does_not_pass_for_the_other() {
    let credentials = credentials();
    let mut request = Request::modern(&credentials, "bob", "builder");
    request.key = key(PasswordAlgorithm::Md5, "bob", "builder");
    request.refused(&credentials, Reason::WrongPassword);
}

#[test]
fn response_integrity_follows_the_request() {
    let credentials = credentials();
    let legacy = Request::new(&credentials, "bob", "builder");
    let mut md5 = Request::modern(&credentials, "bob", "builder").with(AttributeType::PASSWORD_ALGORITHM, MD5_ENTRY);
    md5.key = key(PasswordAlgorithm::Md5, "bob", "builder");
    let (sha1, sha256) = (IntegrityKind::Sha1, IntegrityKind::Sha256);
    for (request, signed_with, answered_with) in [
        (&legacy, &[sha1][..], sha1),
        // Processed as MD5 by default, so MESSAGE-INTEGRITY it is (section 9.2.4, last paragraph).
        (&legacy, &[sha256], sha1),
        (&legacy, &[sha1, sha256], sha1),
        (&md5, &[sha256], sha256),
        (&md5, &[sha1, sha256], sha256),
        // The client that chose MD5 and signs with SHA-1 could not verify anything else.
        (&md5, &[sha1], sha1),
    ] {
        let passed = request.clone().signed(signed_with).send(&credentials).unwrap();
        assert_eq!(passed.algorithm, PasswordAlgorithm::Md5);
        assert_eq!(passed.integrity, answered_with, "{signed_with:?}");
    }
}

#[test]
fn sha256_counts_when_both_integrity_attributes_are_there() {
    let credentials = credentials();
    let both = [IntegrityKind::Sha1, IntegrityKind::Sha256];
    let mut bytes = Request::new(&credentials, "bob", "builder").signed(&both).encode();
    *bytes.last_mut().unwrap() ^= 1;
    let message = Message::parse(&bytes).unwrap();
    let refusal = credentials.authenticate(at(NOW_SECS), &client(5000), &message, None).unwrap_err();
    assert_eq!(refusal, Reason::WrongPassword);
}

#[test]
fn userhash_finds_static_users_with_and_without_secrets() {
    for credentials in [build(&[("bob", "builder")], &[]), credentials()] {
        let hash = userhash(b"bob", REALM.as_bytes());
        for request in [Request::new(&credentials, "bob", "builder"), Request::modern(&credentials, "bob", "builder")] {
            let request = request.without(AttributeType::USERNAME).with(AttributeType::USERHASH, &hash);
            assert_eq!(&*request.send(&credentials).unwrap().identity.username, "bob");
        }
    }
}

#[test]
fn userhash_of_nobody_of_a_time_limited_name_or_of_a_wrong_length_is_unauthenticated() {
    let credentials = credentials();
    let password = mint(b"north", TIME_LIMITED);
    let request = Request::modern(&credentials, TIME_LIMITED, &password).without(AttributeType::USERNAME);
    for hash in [&userhash(b"nobody", REALM.as_bytes())[..], &userhash(TIME_LIMITED.as_bytes(), REALM.as_bytes())] {
        request.clone().with(AttributeType::USERHASH, hash).refused(&credentials, Reason::UnknownUser);
    }
    for hash in [&b""[..], &userhash(b"bob", REALM.as_bytes())[..31], &[0; 33]] {
        request.clone().with(AttributeType::USERHASH, hash).refused(&credentials, Reason::UnknownUser);
    }
}

#[test]
fn password_that_saslprep_changes_works_for_old_and_new_clients() {
    let credentials = build(&[("bob", "No. \u{2168}")], &[]);
    assert!(Request::modern(&credentials, "bob", "No. \u{2168}").send(&credentials).is_ok());
    assert!(Request::new(&credentials, "bob", "No. \u{2168}").send(&credentials).is_ok());
    assert!(Request::new(&credentials, "bob", "No. IX").send(&credentials).is_ok());
    Request::modern(&credentials, "bob", "No. IX").refused(&credentials, Reason::WrongPassword);
    let mut md5 = Request::modern(&credentials, "bob", "No. IX").with(AttributeType::PASSWORD_ALGORITHM, MD5_ENTRY);
    md5.key = key(PasswordAlgorithm::Md5, "bob", "No. IX");
    md5.refused(&credentials, Reason::WrongPassword);
}

#[test]
fn time_limited_credential_passes_under_each_secret_and_algorithm() {
    let credentials = credentials();
    for shared in ["north", "south"] {
        let password = mint(shared.as_bytes(), TIME_LIMITED);
        for (request, algorithm) in [
            (Request::new(&credentials, TIME_LIMITED, &password), PasswordAlgorithm::Md5),
            (Request::modern(&credentials, TIME_LIMITED, &password), PasswordAlgorithm::Sha256),
        ] {
            let passed = request.send(&credentials).unwrap();
            assert_eq!(&*passed.identity.username, TIME_LIMITED);
            assert_eq!(&**passed.identity.user.name(), "alice");
            assert_eq!(passed.identity.expires_unix(), Some(1_735_693_200));
            assert_eq!(passed.algorithm, algorithm);
        }
    }
    Request::new(&credentials, TIME_LIMITED, &mint(b"west", TIME_LIMITED)).refused(&credentials, Reason::WrongPassword);
}

#[test]
fn sample_credentials_of_other_implementations_pass() {
    let credentials = credentials();
    for (username, password, user) in [
        ("1735689600:alice", "HbvWA6hGDtdv3wflBolXLhvzs0w=", "alice"),
        ("1735689600", "vK3VkdJkUwA4MxbPUZFTbu9UJhk=", "1735689600"),
    ] {
        let passed = Request::new(&credentials, username, password).send(&credentials).unwrap();
        assert_eq!(&**passed.identity.user.name(), user);
    }
}

#[test]
fn expired_credential_is_refused_and_says_so() {
    let credentials = credentials();
    let right = Request::new(&credentials, EXPIRED, &mint(b"north", EXPIRED));
    right.refused(&credentials, Reason::CredentialExpired);
    // The clocks of servers that share nonces may differ by a few seconds, and by no more.
    right.send_at(&credentials, NOW_SECS - 5, None).unwrap();
    assert!(right.send_at(&credentials, NOW_SECS - 6, None).is_err(), "its nonce is from the future");
    Request::new(&credentials, EXPIRED, &mint(b"west", EXPIRED)).refused(&credentials, Reason::WrongPassword);
    assert_eq!(Reason::CredentialExpired.code().value(), 401);
}

#[test]
fn credential_whose_timestamp_counts_milliseconds_is_refused() {
    let credentials = credentials();
    let username = format!("{}:alice", NOW_SECS * 1000);
    let request = Request::new(&credentials, &username, &mint(b"north", &username));
    request.refused(&credentials, Reason::TimestampInMilliseconds);
}

#[test]
fn a_name_with_a_character_that_no_name_needs_is_400_once_its_mac_is_right() {
    let credentials = credentials();
    for name in ["a\0", "a\nb", "\u{7f}", "\u{9b}2J", "\u{202e}ecila", "\u{200e}", "a\u{feff}", "\u{2028}", "\u{e0041}"]
    {
        let username = format!("1735693200:{name}");
        let request = Request::new(&credentials, &username, &mint(b"north", &username));
        request.refused(&credentials, Reason::MalformedUsername);
        Request::new(&credentials, &username, &mint(b"west", &username)).refused(&credentials, Reason::WrongPassword);
    }
    assert_eq!(Reason::MalformedUsername.code().value(), 400);
    for name in ["zo\u{eb}", "\u{5d0}\u{5d1}", "\u{1f468}\u{200d}\u{1f469}", "\u{2764}\u{fe0f}", "a b", "a@b:c"] {
        let username = format!("1735693200:{name}");
        let passed = Request::new(&credentials, &username, &mint(b"north", &username)).send(&credentials).unwrap();
        assert_eq!(&**passed.identity.user.name(), name);
    }
}

#[test]
fn a_number_in_front_of_the_expiry_is_no_far_expiry() {
    let credentials = credentials();
    let send = |username: &str| Request::new(&credentials, username, &mint(b"north", username)).send(&credentials);
    assert_eq!(send("4915112345:1735693200").unwrap_err(), Reason::AmbiguousExpiry);
    assert_eq!(send("4915112345:1735600000").unwrap_err(), Reason::AmbiguousExpiry, "nor when it has expired");
    assert_eq!(&**send("1735693200:4915112345").unwrap().identity.user.name(), "4915112345");
    assert!(send("4915112345:alice").is_ok());
}

#[test]
fn a_static_and_a_time_limited_user_of_one_name_are_two_users() {
    let credentials = build(&[("alice", "wonderland")], &["north"]);
    let fixed = Request::new(&credentials, "alice", "wonderland").send(&credentials).unwrap().identity.user;
    let request = Request::new(&credentials, TIME_LIMITED, &mint(b"north", TIME_LIMITED));
    let guest = request.send(&credentials).unwrap().identity.user;
    assert_eq!(fixed.name(), guest.name());
    assert_ne!(fixed, guest);
}

#[test]
fn credential_is_good_in_its_last_second() {
    let credentials = credentials();
    let username = format!("{NOW_SECS}:alice");
    let request = Request::new(&credentials, &username, &mint(b"north", &username));
    assert!(request.send_at(&credentials, NOW_SECS, None).is_ok());
    assert_eq!(request.send_at(&credentials, NOW_SECS + 1, None).unwrap_err(), Reason::CredentialExpired);
}

#[test]
fn without_secrets_a_time_limited_name_is_unknown() {
    let credentials = build(&[("bob", "builder")], &[]);
    Request::new(&credentials, TIME_LIMITED, &mint(b"", TIME_LIMITED)).refused(&credentials, Reason::UnknownUser);
}

#[test]
fn static_user_goes_before_a_time_limited_reading_of_its_name() {
    let credentials = build(&[(TIME_LIMITED, "builder")], &["north"]);
    let passed = Request::new(&credentials, TIME_LIMITED, "builder").send(&credentials).unwrap();
    assert_eq!(passed.identity.expires_unix(), None);
    assert_eq!(&**passed.identity.user.name(), TIME_LIMITED);
    Request::new(&credentials, TIME_LIMITED, &mint(b"north", TIME_LIMITED))
        .refused(&credentials, Reason::WrongPassword);
}

#[test]
fn held_credential_outlives_its_expiry_and_its_secret() {
    let before = credentials();
    let password = mint(b"north", TIME_LIMITED);
    let expired_at = NOW_SECS + 3601;
    let rotated = build(&[], &["west"]);
    for request in [Request::new(&before, TIME_LIMITED, &password), Request::modern(&before, TIME_LIMITED, &password)] {
        let held = request.send(&before).unwrap();
        assert!(request.send_at(&rotated, NOW_SECS, Some(&held)).is_ok());
        assert_eq!(request.send_at(&rotated, NOW_SECS, None).unwrap_err(), Reason::WrongPassword);

        let later = request.with(AttributeType::NONCE, &nonce(&before, expired_at));
        let passed = later.send_at(&before, expired_at, Some(&held)).unwrap();
        assert_eq!(passed.identity, held.identity);
        assert_eq!(passed.key, held.key);
        assert_eq!(later.send_at(&before, expired_at, None).unwrap_err(), Reason::CredentialExpired);
    }
}

#[test]
fn held_credential_of_a_removed_user_is_found_by_userhash_too() {
    let before = credentials();
    let request = Request::modern(&before, "bob", "builder")
        .without(AttributeType::USERNAME)
        .with(AttributeType::USERHASH, &userhash(b"bob", REALM.as_bytes()));
    let held = request.send(&before).unwrap();
    let after = build(&[], &["north"]);
    assert_eq!(request.send_at(&after, NOW_SECS, None).unwrap_err(), Reason::UnknownUser);
    assert_eq!(request.send_at(&after, NOW_SECS, Some(&held)).unwrap().identity, held.identity);
}

#[test]
fn held_key_is_good_for_its_own_username_only() {
    let credentials = credentials();
    let held = Request::new(&credentials, "bob", "builder").send(&credentials).unwrap();
    let mut forged = Request::new(&credentials, TIME_LIMITED, "builder");
    forged.key = held.key.clone();
    assert_eq!(forged.send_at(&credentials, NOW_SECS, Some(&held)).unwrap_err(), Reason::WrongPassword);
}

#[test]
fn held_key_is_good_for_its_own_algorithm_only() {
    let credentials = credentials();
    let held = Request::new(&credentials, "bob", "builder").send(&credentials).unwrap();
    let mut mixed = Request::modern(&credentials, "bob", "builder");
    mixed.key = held.key.clone();
    assert_eq!(mixed.send_at(&credentials, NOW_SECS, Some(&held)).unwrap_err(), Reason::WrongPassword);
}

#[test]
fn other_user_authenticates_beside_a_held_credential() {
    let credentials = credentials();
    let held = Request::new(&credentials, "bob", "builder").send(&credentials).unwrap();
    let request = Request::new(&credentials, TIME_LIMITED, &mint(b"north", TIME_LIMITED));
    let passed = request.send_at(&credentials, NOW_SECS, Some(&held)).unwrap();
    assert_eq!(&*passed.identity.username, TIME_LIMITED);
}

#[test]
fn same_user_with_a_new_password_or_algorithm_authenticates_beside_a_held_credential() {
    let before = credentials();
    let held = Request::new(&before, "bob", "builder").send(&before).unwrap();
    let after = build(&[("bob", "rebuilt")], &["north"]);
    let passed = Request::new(&after, "bob", "rebuilt").send_at(&after, NOW_SECS, Some(&held)).unwrap();
    assert_ne!(passed.key, held.key);
    let other = Request::modern(&before, "bob", "builder").send_at(&before, NOW_SECS, Some(&held)).unwrap();
    assert_eq!(other.algorithm, PasswordAlgorithm::Sha256);
    Request::new(&after, "bob", "wrong").refused(&after, Reason::WrongPassword);
}

/// Bob, stored as these keys of his password.
fn stored(md5: bool, sha256: bool) -> Credentials {
    let both = StoredKeys::of_password("bob", REALM, "builder").unwrap();
    let keys = StoredKeys::new(both.md5().copied().filter(|_| md5), both.sha256().copied().filter(|_| sha256)).unwrap();
    let mut users = Users::of_realm(REALM);
    users.insert_keys("bob", &keys).unwrap();
    users.insert("carol", "crayon").unwrap();
    let secrets = vec![secret("north", "north")];
    let builder = Credentials::builder(REALM, Arc::new(NonceKeys::new([1; 32], NONCE_LIFETIME_SECS)));
    builder.users(users).secrets(secrets).build().unwrap()
}

#[test]
fn a_user_of_stored_keys_is_as_good_as_one_of_a_password() {
    let credentials = stored(true, true);
    for request in [Request::new(&credentials, "bob", "builder"), Request::modern(&credentials, "bob", "builder")] {
        let passed = request.send(&credentials).unwrap();
        assert_eq!((&*passed.identity.username, passed.identity.user), ("bob", User::fixed("bob")));
    }
    Request::new(&credentials, "bob", "wonderland").refused(&credentials, Reason::WrongPassword);
    Request::modern(&credentials, "bob", "wonderland").refused(&credentials, Reason::WrongPassword);
}

#[test]
fn with_an_md5_key_among_the_users_md5_is_all_that_is_offered_to_anybody() {
    let credentials = stored(true, false);
    Request::new(&credentials, "bob", "builder").send(&credentials).unwrap();
    // As a client of RFC 8489 does by this offer, for static users and for others.
    let minted = mint(b"north", TIME_LIMITED);
    for (name, password) in [("bob", "builder"), ("carol", "crayon"), (TIME_LIMITED, minted.as_str())] {
        let md5 = Request::new(&credentials, name, password)
            .with(AttributeType::PASSWORD_ALGORITHMS, MD5_ENTRY)
            .with(AttributeType::PASSWORD_ALGORITHM, MD5_ENTRY)
            .signed(&[IntegrityKind::Sha256]);
        assert_eq!(md5.send(&credentials).unwrap().algorithm, PasswordAlgorithm::Md5, "{name}");
        // One that picks SHA-256 has seen another offer than ours.
        Request::modern(&credentials, name, password).refused(&credentials, Reason::PasswordAlgorithmMismatch);
        let sha256 = md5.with(AttributeType::PASSWORD_ALGORITHM, SHA256_ENTRY);
        sha256.refused(&credentials, Reason::PasswordAlgorithmMismatch);
    }
}

#[test]
fn with_a_sha256_key_alone_a_client_of_rfc_5389_is_refused_by_its_own_reason() {
    let credentials = stored(false, true);
    let sha256 = |name, password| {
        Request::modern(&credentials, name, password).with(AttributeType::PASSWORD_ALGORITHMS, SHA256_ENTRY)
    };
    sha256("bob", "builder").send(&credentials).unwrap();
    sha256("carol", "crayon").send(&credentials).unwrap();
    Request::new(&credentials, "bob", "builder").refused(&credentials, Reason::NoKeyOfAlgorithm);
    // Others have an MD5 key, too, and such clients know of no offer.
    Request::new(&credentials, "carol", "crayon").send(&credentials).unwrap();
}

#[test]
fn a_nonce_from_before_the_offer_changed_is_stale_so_that_its_client_hears_of_the_new_one() {
    let (before, after) = (stored(true, true), stored(true, false));
    Request::modern(&before, "bob", "builder").send(&before).unwrap();
    Request::modern(&before, "bob", "builder").refused(&after, Reason::StaleNonce);
}

#[test]
fn keys_of_another_realm_and_keys_without_a_common_algorithm_are_refused() {
    let build = |users: Users| {
        Credentials::builder(REALM, Arc::new(NonceKeys::new([1; 32], 600))).users(users).build().map(drop)
    };
    let elsewhere = Users::from_pairs("elsewhere.example", [("bob", "builder")]).unwrap();
    assert_eq!(build(elsewhere), Err(CredentialsError::UsersOfAnotherRealm("elsewhere.example".to_owned())));
    let mut users = Users::of_realm(REALM);
    users.insert_keys("old", &StoredKeys::new(Some([1; 16]), None).unwrap()).unwrap();
    users.insert_keys("new", &StoredKeys::new(None, Some([1; 32])).unwrap()).unwrap();
    let error = build(users).unwrap_err();
    assert!(error.to_string().contains("\"old\" has only an MD5 key"), "{error}");
}
