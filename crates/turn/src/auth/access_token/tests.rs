//! Access tokens: the samples of RFC 7635, and what is refused.

use super::*;
use turnstone_stun::{AttributeType, Class, Encoder, IntegrityKind, Method, TransactionId};

/// RFC 7635 appendix A.
const SERVER: &str = "blackdow.carleon.gov";
const LONG_TERM_KEY: &[u8; 32] = b"HGkj32KJGiuy098sdfaqbNjOiaz71923";
const MAC_KEY: &[u8; 20] = b"ZksjpweoixXmvn67534m";
const NONCE: [u8; 12] = *b"h4j3k2l2n4b5";
const MADE: u64 = 1_410_984_813;
const LIFETIME: u32 = 3600;
const TOKEN_A256: &str = "000c68346a336b326c326e346235617ef134a3d5e44e9a19cc7dc104b0c03d03b2a551d8fdf5cd3b6dca6f10cfb77e5b2ddec84d293a5c50499359f0c2e26f76";
const TOKEN_A128: &str = "000c68346a336b326c326e3462357fb9e99f0827be3df1e1bd651493d3031d36df57079784aee5eacb65fad4f27fab1a3f97974b69f851b24bf5af09eda357e0";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key(id: &str, algorithm: TokenAlgorithm) -> TokenKey {
    TokenKey::new(id, algorithm, LONG_TERM_KEY).unwrap()
}

fn tokens(keys: Vec<TokenKey>) -> AccessTokens {
    AccessTokens { server_name: SERVER.to_owned(), keys }
}

fn session() -> SessionKey<'static> {
    SessionKey { key: MAC_KEY, made_unix: MADE, lifetime_secs: LIFETIME }
}

fn now(unix_secs: u64) -> Now {
    Now { micros: 0, unix_secs }
}

/// What comes of a request with this token, signed by this key.
fn verify(tokens: &AccessTokens, at: u64, id: &str, token: &[u8], signed_by: &[u8]) -> Result<Identity, Reason> {
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, Class::Request, Method::ALLOCATE, TransactionId([7; 12]))
        .attribute(AttributeType::USERNAME, id.as_bytes())
        .attribute(AttributeType::ACCESS_TOKEN, token)
        .integrity(IntegrityKind::Sha1, &Key::short_term(signed_by));
    tokens.verify(now(at), &Message::parse(&bytes).unwrap(), id.as_bytes(), token).map(|(identity, _)| identity)
}

#[test]
fn the_samples_of_the_rfc_are_opened_and_made() {
    for (algorithm, token) in [(TokenAlgorithm::A256Gcm, TOKEN_A256), (TokenAlgorithm::A128Gcm, TOKEN_A128)] {
        let (key, token) = (key("k", algorithm), unhex(token));
        let mut text = [0; SEALED_MAX];
        let of = tokens(vec![key.clone()]);
        let opened = of.open(&key, &token, &mut text).unwrap();
        assert_eq!((opened.key, opened.made_unix, opened.lifetime_secs), (&MAC_KEY[..], MADE, LIFETIME));
        assert_eq!(key.seal(SERVER, NONCE, &session()).unwrap(), token);
        assert_eq!(verify(&of, MADE, "k", &token, MAC_KEY).unwrap().expires_unix(), Some(MADE + 3600));
    }
}

/// `turnutils_uclient -J` of coturn 4.6.1 does so.
#[test]
fn the_first_sixteen_bytes_of_the_session_key_are_taken_as_coturn_signs_by_them_and_no_other_part() {
    let (of, token) = (tokens(vec![key("k", TokenAlgorithm::A256Gcm)]), unhex(TOKEN_A256));
    for len in 0..=MAC_KEY.len() {
        let found = verify(&of, MADE, "k", &token, &MAC_KEY[..len]);
        assert_eq!(found.is_ok(), matches!(len, 16 | 20), "{len} bytes");
    }
}

#[test]
fn a_token_is_for_one_server_and_one_key_and_no_bit_of_it_may_change() {
    let of = tokens(vec![key("k", TokenAlgorithm::A256Gcm), key("l", TokenAlgorithm::A128Gcm)]);
    let token = unhex(TOKEN_A256);
    assert!(verify(&of, MADE, "k", &token, MAC_KEY).is_ok());
    assert_eq!(verify(&of, MADE, "l", &token, MAC_KEY), Err(Reason::TokenUnreadable));
    assert_eq!(verify(&of, MADE, "m", &token, MAC_KEY), Err(Reason::UnknownTokenKey));
    assert_eq!(verify(&of, MADE, "k", &token, b"another session key."), Err(Reason::WrongSessionKey));
    let elsewhere = AccessTokens { server_name: "other.example".to_owned(), ..of.clone() };
    assert_eq!(verify(&elsewhere, MADE, "k", &token, MAC_KEY), Err(Reason::TokenUnreadable));
    for at in 0..token.len() * 8 {
        let mut forged = token.clone();
        forged[at / 8] ^= 1 << (at % 8);
        // The first two bytes are the length of the nonce.
        let reason = if at < 16 { Reason::TokenMalformed } else { Reason::TokenUnreadable };
        assert_eq!(verify(&of, MADE, "k", &forged, MAC_KEY), Err(reason), "bit {at}");
    }
    for len in 0..token.len() {
        let reason = if len < 2 + NONCE_LEN + TAG_LEN { Reason::TokenMalformed } else { Reason::TokenUnreadable };
        assert_eq!(verify(&of, MADE, "k", &token[..len], MAC_KEY), Err(reason), "{len} bytes");
    }
}

/// CVE-2026-43994: coturn believed the token's own length of its nonce before it had looked at anything else.
#[test]
fn lengths_inside_a_token_are_not_believed() {
    let of = tokens(vec![key("k", TokenAlgorithm::A256Gcm)]);
    for nonce_len in [0_u16, 1, 11, 12, 13, 16, 255, 256, u16::MAX] {
        for len in [2, 14, 30, 62, 256, 1000, 60_000] {
            let mut token = vec![0xA5; len];
            token[..2].copy_from_slice(&nonce_len.to_be_bytes());
            let is_formed = nonce_len == 12 && (30..=2 + 12 + 16 + SEALED_MAX).contains(&len);
            let reason = if is_formed { Reason::TokenUnreadable } else { Reason::TokenMalformed };
            assert_eq!(verify(&of, MADE, "k", &token, MAC_KEY), Err(reason), "{nonce_len} of {len}");
        }
    }
    let with_key = |len: usize| {
        let session = SessionKey { key: &vec![7; len], ..session() };
        key("k", TokenAlgorithm::A256Gcm).seal(SERVER, NONCE, &session)
    };
    for len in [0, 15, 257, 70_000] {
        assert_eq!(with_key(len), None);
    }
    for len in [16, 20, 32, 64, 256] {
        assert!(verify(&of, MADE, "k", &with_key(len).unwrap(), &vec![7; len]).is_ok(), "{len} bytes");
    }
    // What an authorization server has sealed, but not as the RFC says: a key that is longer than the text.
    let cipher = Aes256Gcm::new_from_slice(LONG_TERM_KEY).unwrap();
    for (key_len, text_len) in
        [(20_u16, 33), (20, 35), (21, 34), (u16::MAX, 34), (0, 14), (5, 19), (20, 2), (0, 0), (0, 1)]
    {
        let mut text = vec![0; text_len];
        key_len.to_be_bytes().iter().zip(&mut text).for_each(|(from, to)| *to = *from);
        let tag = cipher.encrypt_inout_detached(&NONCE.into(), SERVER.as_bytes(), text.as_mut_slice().into()).unwrap();
        let token = [&[0, 12][..], &NONCE, &text, &tag].concat();
        assert_eq!(verify(&of, MADE, "k", &token, MAC_KEY), Err(Reason::TokenMalformed), "{key_len} of {text_len}");
    }
}

#[test]
fn a_token_is_good_for_its_lifetime_and_five_seconds_on_either_side() {
    let of = tokens(vec![key("k", TokenAlgorithm::A256Gcm)]);
    let token = unhex(TOKEN_A256);
    let left = |at: u64| verify(&of, at, "k", &token, MAC_KEY).map(|identity| identity.expires_unix().unwrap() - at);
    assert_eq!(left(MADE), Ok(3600));
    assert_eq!(left(MADE + 5), Ok(3600));
    assert_eq!(left(MADE + 6), Ok(3599));
    assert_eq!(left(MADE + 3604), Ok(1));
    assert_eq!(left(MADE + 3605), Err(Reason::TokenExpired));
    // The formula is one of distances: a clock that is behind.
    assert_eq!(left(MADE - 3604), Ok(1));
    for at in [0, MADE - 3605, MADE + 4000, u64::MAX] {
        assert_eq!(left(at), Err(Reason::TokenExpired));
    }
    let for_ever = SessionKey { made_unix: u64::MAX >> FRACTION_BITS, lifetime_secs: u32::MAX, ..session() };
    let token = key("k", TokenAlgorithm::A256Gcm).seal(SERVER, NONCE, &for_ever).unwrap();
    assert_eq!(verify(&of, MADE, "k", &token, MAC_KEY), Err(Reason::TokenExpired));
}

#[test]
fn a_key_is_good_between_its_moments() {
    let bounded = key("k", TokenAlgorithm::A256Gcm).valid(Some(MADE), Some(MADE + 10));
    let (of, token) = (tokens(vec![bounded]), unhex(TOKEN_A256));
    for (at, expected) in [(MADE - 1, false), (MADE, true), (MADE + 10, true), (MADE + 11, false)] {
        let found = verify(&of, at, "k", &token, MAC_KEY);
        assert_eq!(found.is_ok(), expected);
        assert!(expected || found == Err(Reason::TokenKeyExpired));
    }
}

#[test]
fn who_has_another_token_is_another_user() {
    let of = tokens(vec![key("k", TokenAlgorithm::A256Gcm)]);
    let user = |nonce: u8| {
        let token = of.keys[0].seal(SERVER, [nonce; 12], &session()).unwrap();
        verify(&of, MADE, "k", &token, MAC_KEY).unwrap()
    };
    assert_eq!(user(1), user(1));
    assert_ne!(user(1).user, user(2).user);
    assert_eq!(user(1).username, user(2).username);
    assert!(user(1).user.name().starts_with("k/") && user(1).user.name().len() == 14);
}

#[test]
fn a_key_is_never_shown() {
    let shown = format!("{:?}", tokens(vec![key("k", TokenAlgorithm::A256Gcm)]));
    assert!(shown.contains("TokenKey(\"k\", ..)"), "{shown}");
    assert_eq!(TokenKey::new("k", TokenAlgorithm::A256Gcm, &[0; 31]), Err(TokenKeyTooShort(31)));
    assert!(TokenKey::new("k", TokenAlgorithm::A128Gcm, &[0; 16]).is_ok());
}

#[test]
fn a_token_is_diagnosed_in_words() {
    let mut of = tokens(vec![key("j", TokenAlgorithm::A128Gcm), key("k", TokenAlgorithm::A256Gcm)]);
    let token = unhex(TOKEN_A256);
    let key_id = "k".to_owned();
    assert_eq!(
        of.diagnose(now(MADE + 600), &token),
        TokenDiagnosis::Valid { key_id: key_id.clone(), seconds_left: 3005 }
    );
    assert_eq!(of.diagnose(now(MADE + 4000), &token), TokenDiagnosis::Expired { key_id: key_id.clone() });
    assert_eq!(of.diagnose(now(MADE - 4000), &token), TokenDiagnosis::Future { key_id: key_id.clone() });
    of.keys[1] = of.keys[1].clone().valid(None, Some(MADE));
    assert_eq!(of.diagnose(now(MADE + 1), &token), TokenDiagnosis::KeyExpired { key_id });
    of.server_name = "turn.example.org".to_owned();
    let found = of.diagnose(now(MADE), &token).to_string();
    assert!(found.contains("for \"turn.example.org\""), "{found}");
}
