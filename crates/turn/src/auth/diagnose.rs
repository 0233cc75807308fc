//! Why a time-limited credential does not work: `credentials verify` in words (the mistakes are those that people make).

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{
    GeneralPurpose, GeneralPurposeConfig, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::text::is_deceptive;

use super::time_limited::{NOT_SECONDS, SharedSecret, TimeLimited, hmac_sha1};
use super::username_limits::{UsernameLimits, UsernameLimitsError};

/// What `credentials verify` found. `Display` gives one sentence, without secret or password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diagnosis {
    /// Valid under the secret of this id for so many more seconds.
    Valid {
        /// The secret's id.
        secret_id: String,
        /// Seconds left.
        seconds_left: u64,
    },
    /// The timestamp has passed.
    Expired {
        /// The secret under which the password is right; `None` when it is right under none.
        secret_id: Option<String>,
        /// How long ago.
        seconds_ago: u64,
    },
    /// Well-formed, but made with a secret that is not configured, or for another username.
    WrongSecret,
    /// The credential was made in another way than the scheme asks.
    Mistaken {
        /// The secret with which, those mistakes made, the password comes out; `None` when it does with none.
        secret_id: Option<String>,
        /// What is wrong; never empty.
        mistakes: Vec<Mistake>,
    },
    /// The password is a shared secret itself.
    SecretItself {
        /// The secret's id.
        secret_id: String,
    },
    /// Neither the username nor the password is of the scheme's form.
    NotACredential,
}

/// One way in which a credential differs from what the scheme asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mistake {
    /// The username has no timestamp.
    NoTimestamp,
    /// The timestamp counts milliseconds. Such a credential is refused: it would be good for tens of thousands of years.
    Milliseconds,
    /// Both sides of the colon are numbers, and the first reads as an expiry years away.
    Ambiguous,
    /// The username has a control character, or another one that deceives.
    Character,
    /// The password is in hexadecimal.
    Hex,
    /// The `=` at the end of the base64 is missing.
    Unpadded,
    /// The base64 has `-` and `_` in place of `+` and `/`.
    UrlSafe,
    /// The password has white space around it.
    Whitespace,
    /// The password is no HMAC in any known form.
    NotAnHmac,
    /// HMAC-SHA256 in place of HMAC-SHA1.
    HmacSha256,
    /// The HMAC covers only the user part.
    OnlyUser,
    /// The HMAC covers only the timestamp.
    OnlyTimestamp,
    /// The limits in the username cannot be read.
    Limits(UsernameLimitsError),
    /// The HMAC covers the username without its limits.
    WithoutLimits,
    /// The HMAC covers a newline after the username, or the username was given with one.
    UsernameNewline,
    /// The secret was base64-decoded before use.
    SecretBase64Decoded,
    /// The secret was hex-decoded before use.
    SecretHexDecoded,
    /// The secret was used with a newline at its end which the configured secret has not.
    SecretNewlineAdded,
    /// The configured secret ends with a newline, with which the password was not made.
    SecretNewlineConfigured,
}

impl Diagnosis {
    /// Whether the server accepts the credential as it should.
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Valid { .. })
    }
}

/// Says why a credential is refused, or that it is good.
pub fn diagnose(secrets: &[SharedSecret], username: &str, password: &str, now_unix: u64) -> Diagnosis {
    diagnose_parts(secrets, (username, username, None), password, now_unix)
}

/// The same where limits in the username are read.
pub fn diagnose_with_limits(secrets: &[SharedSecret], username: &str, password: &str, now_unix: u64) -> Diagnosis {
    let about_limits = UsernameLimits::split(username).err().map(Mistake::Limits);
    diagnose_parts(secrets, (username, UsernameLimits::plain(username), about_limits), password, now_unix)
}

/// `plain` is the username without what is read as limits.
fn diagnose_parts(
    secrets: &[SharedSecret],
    (username, plain, about_limits): (&str, &str, Option<Mistake>),
    password: &str,
    now_unix: u64,
) -> Diagnosis {
    let time_limited = TimeLimited::parse(plain);
    let given = password.trim().as_bytes();
    let itself = secrets.iter().find(|secret| bool::from(secret.bytes.trim_ascii_end().ct_eq(given)));
    if let Some(secret) = itself {
        return Diagnosis::SecretItself { secret_id: secret.id.clone() };
    }
    let form = Form::read(password);
    if time_limited.is_none() && form.is_none() {
        return Diagnosis::NotACredential;
    }

    let about_time = match time_limited {
        None => Some(Mistake::NoTimestamp),
        Some(parsed) if parsed.expires_unix >= NOT_SECONDS => Some(Mistake::Milliseconds),
        Some(parsed) if parsed.is_ambiguous(now_unix) => Some(Mistake::Ambiguous),
        Some(_) => None,
    };
    let about_name = username.contains(is_deceptive).then_some(Mistake::Character);
    let made_with = form.as_ref().and_then(|form| explain(secrets, (username, plain), time_limited, form));
    let (secret_id, about_password) = match (made_with, &form) {
        (Some((id, mistakes)), _) => (Some(id), mistakes),
        (None, None) => (None, vec![Mistake::NotAnHmac]),
        // Of a password that is right under no secret, only a wrong form can be told.
        (None, Some(form)) => (None, form.mistakes.clone()),
    };

    let mistakes: Vec<_> = about_time.into_iter().chain(about_name).chain(about_limits).chain(about_password).collect();
    match (time_limited, secret_id) {
        (Some(parsed), secret_id) if mistakes.is_empty() && parsed.expires_unix < now_unix => {
            Diagnosis::Expired { secret_id, seconds_ago: now_unix.saturating_sub(parsed.expires_unix) }
        }
        (Some(parsed), Some(secret_id)) if mistakes.is_empty() => {
            Diagnosis::Valid { secret_id, seconds_left: parsed.expires_unix.saturating_sub(now_unix) }
        }
        (_, None) if mistakes.is_empty() => Diagnosis::WrongSecret,
        (_, secret_id) => Diagnosis::Mistaken { secret_id, mistakes },
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid { secret_id, seconds_left } => {
                write!(f, "valid: made with secret {secret_id:?}, expires in {}", Span(*seconds_left))
            }
            Self::Expired { secret_id: Some(id), seconds_ago } => {
                write!(f, "expired {} ago; the password is right (secret {id:?})", Span(*seconds_ago))
            }
            Self::Expired { secret_id: None, seconds_ago } => write!(
                f,
                "expired {} ago; besides, the password was made with none of the configured secrets",
                Span(*seconds_ago)
            ),
            Self::WrongSecret => f.write_str(
                "wrong secret: the password was made with none of the configured secrets, or for another username",
            ),
            Self::Mistaken { secret_id, mistakes } => {
                for (at, mistake) in mistakes.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "; " })?;
                    mistake.fmt(f)?;
                }
                match secret_id {
                    Some(id) => write!(f, "; otherwise it was made with secret {id:?}"),
                    None => f.write_str("; besides, the password matches none of the configured secrets"),
                }
            }
            Self::SecretItself { secret_id } => write!(
                f,
                "the password is the shared secret {secret_id:?} itself: it must be the base64 of HMAC-SHA1(secret, username), \
                 and the secret itself is for no client; if one had it, change it"
            ),
            Self::NotACredential => f.write_str(
                "not a time-limited credential: the username has no timestamp and the password is not an HMAC",
            ),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limits(error) => return write!(f, "the limits in the username cannot be read: {error}"),
            Self::WithoutLimits => {
                "the HMAC was made over the username without its limits instead of the whole username, so that nobody has signed them"
            }
            Self::NoTimestamp => "the username has no timestamp: it must be EXPIRY or EXPIRY:USER in Unix seconds",
            Self::Milliseconds => "the timestamp is in milliseconds instead of seconds, so the server refuses it",
            Self::Ambiguous => {
                "both sides of the colon are numbers, and the first would be an expiry years away, so the server refuses \
                 it: the form is EXPIRY:USER"
            }
            Self::Character => "the username has a control character or an invisible one, which no name may have",
            Self::Hex => "the password is in hex instead of base64",
            Self::Unpadded => "the password is base64 without its padding (=)",
            Self::UrlSafe => "the password is url-safe base64 instead of standard base64",
            Self::Whitespace => "the password has white space around it",
            Self::NotAnHmac => "the password is not an HMAC-SHA1 in base64 (28 characters)",
            Self::HmacSha256 => "the password is an HMAC-SHA256 instead of an HMAC-SHA1",
            Self::OnlyUser => "the HMAC was made over the user part alone instead of the whole username",
            Self::OnlyTimestamp => "the HMAC was made over the timestamp alone instead of the whole username",
            Self::UsernameNewline => {
                "there is a newline at the end of the username (as echo adds one; printf '%s' does not)"
            }
            Self::SecretBase64Decoded => "the secret was base64-decoded before use, instead of used as the text it is",
            Self::SecretHexDecoded => "the secret was hex-decoded before use, instead of used as the text it is",
            Self::SecretNewlineAdded => "the secret was used with a newline at its end",
            Self::SecretNewlineConfigured => {
                "the configured secret ends with a newline that the password was made without"
            }
        })
    }
}

/// The bytes a password stands for, and what is wrong with how it is written.
struct Form {
    digest: Vec<u8>,
    mistakes: Vec<Mistake>,
}

impl Form {
    /// `None` when the password is not the text of 20 or 32 bytes.
    fn read(password: &str) -> Option<Self> {
        let trimmed = password.trim();
        let (digest, written) = read_digest(trimmed)?;
        let whitespace = (trimmed.len() != password.len()).then_some(Mistake::Whitespace);
        Some(Self { digest, mistakes: whitespace.into_iter().chain(written.iter().copied()).collect() })
    }
}

fn read_digest(text: &str) -> Option<(Vec<u8>, &'static [Mistake])> {
    let is_digest = |bytes: &Vec<u8>| matches!(bytes.len(), 20 | 32);
    // Hex first: 40 or 64 hex digits are also base64, though never of 20 or 32 bytes.
    if let Some(bytes) = from_hex(text.as_bytes()).filter(is_digest) {
        return Some((bytes, &[Mistake::Hex]));
    }
    let readings: [(&GeneralPurpose, &[Mistake]); 4] = [
        (&STANDARD, &[]),
        (&STANDARD_NO_PAD, &[Mistake::Unpadded]),
        (&URL_SAFE, &[Mistake::UrlSafe]),
        (&URL_SAFE_NO_PAD, &[Mistake::UrlSafe, Mistake::Unpadded]),
    ];
    readings.into_iter().find_map(|(engine, mistakes)| Some((engine.decode(text).ok().filter(is_digest)?, mistakes)))
}

/// Looks for the secret and the fewest mistakes with which the password comes out.
fn explain(
    secrets: &[SharedSecret],
    (username, plain): (&str, &str),
    time_limited: Option<TimeLimited<'_>>,
    form: &Form,
) -> Option<(String, Vec<Mistake>)> {
    let mut best: Option<(String, Vec<Mistake>)> = None;
    let usernames = readings_of_username((username, plain), time_limited);
    for secret in secrets {
        for (key, about_key) in readings_of_secret(&secret.bytes) {
            for (data, about_data) in &usernames {
                let (digest, about_hash) = match form.digest.len() {
                    20 => (hmac_sha1(&key, data.as_bytes()).to_vec(), None),
                    _ => (hmac_sha256(&key, data.as_bytes())?, Some(Mistake::HmacSha256)),
                };
                let mistakes = form.mistakes.iter().copied().chain(about_hash).chain(*about_data).chain(about_key);
                let fewer = best.as_ref().is_none_or(|(_, found)| mistakes.clone().count() < found.len());
                if fewer && bool::from(digest.ct_eq(&form.digest)) {
                    best = Some((secret.id.clone(), mistakes.collect()));
                }
            }
        }
    }
    best
}

fn readings_of_secret(secret: &[u8]) -> Vec<(Zeroizing<Vec<u8>>, Option<Mistake>)> {
    let trimmed = secret.trim_ascii_end();
    let mut readings = vec![(secret.to_vec(), None)];
    for newline in ["\n", "\r\n"] {
        readings.push(([secret, newline.as_bytes()].concat(), Some(Mistake::SecretNewlineAdded)));
    }
    if trimmed.len() < secret.len() {
        readings.push((trimmed.to_vec(), Some(Mistake::SecretNewlineConfigured)));
    }
    readings.extend(from_hex(trimmed).map(|key| (key, Some(Mistake::SecretHexDecoded))));
    for alphabet in [alphabet::STANDARD, alphabet::URL_SAFE] {
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let decoded = GeneralPurpose::new(&alphabet, config).decode(trimmed).ok();
        readings.extend(decoded.map(|key| (key, Some(Mistake::SecretBase64Decoded))));
    }
    readings.into_iter().map(|(key, mistake)| (Zeroizing::new(key), mistake)).collect()
}

fn readings_of_username(
    (username, plain): (&str, &str),
    time_limited: Option<TimeLimited<'_>>,
) -> Vec<(String, Option<Mistake>)> {
    let mut readings = vec![(username.to_owned(), None)];
    let trimmed = username.trim_end_matches(['\n', '\r']);
    match trimmed.len() < username.len() {
        true => readings.push((trimmed.to_owned(), Some(Mistake::UsernameNewline))),
        false => {
            readings.extend(["\n", "\r\n"].map(|end| (format!("{username}{end}"), Some(Mistake::UsernameNewline))))
        }
    }
    if plain.len() < username.len() {
        readings.push((plain.to_owned(), Some(Mistake::WithoutLimits)));
    }
    if let (Some(parsed), Some((before, after))) = (time_limited, plain.split_once(':')) {
        let timestamp = if parsed.user == after { before } else { after };
        readings.push((parsed.user.to_owned(), Some(Mistake::OnlyUser)));
        readings.push((timestamp.to_owned(), Some(Mistake::OnlyTimestamp)));
    }
    readings
}

fn hmac_sha256(secret: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(data);
    Some(mac.finalize().into_bytes().to_vec())
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok()).collect()
}

/// A length of time in words: the largest unit that fits, rounded down.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            secs @ ..120 => write!(f, "{secs} s"),
            secs @ ..7_200 => write!(f, "{} min", secs / 60),
            secs @ ..172_800 => write!(f, "{} h", secs / 3_600),
            secs => write!(f, "{} days", secs / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::time_limited::mint;
    use super::*;

    const NOW: u64 = 1_735_689_600;
    const LATER: &str = "1735693200:alice";
    const EARLIER: &str = "1735689420:alice";

    fn secret(id: &str, bytes: &[u8]) -> SharedSecret {
        SharedSecret::new(id, bytes)
    }

    fn secrets() -> Vec<SharedSecret> {
        vec![secret("new", b"south"), secret("old", b"north")]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[track_caller]
    fn expect(username: &str, password: &str, expected: &[Mistake], says: &str) {
        let found = diagnose(&secrets(), username, password, NOW);
        let mistaken = Diagnosis::Mistaken { secret_id: Some("old".to_owned()), mistakes: expected.to_vec() };
        assert_eq!(found, mistaken);
        assert!(!found.is_valid());
        assert!(found.to_string().contains(says), "{found}");
    }

    #[test]
    fn valid_credential_names_its_secret_and_the_time_left() {
        let found = diagnose(&secrets(), LATER, &mint(b"north", LATER), NOW);
        assert_eq!(found, Diagnosis::Valid { secret_id: "old".to_owned(), seconds_left: 3600 });
        assert!(found.is_valid());
        assert_eq!(found.to_string(), r#"valid: made with secret "old", expires in 60 min"#);
        let swapped = "alice:1735693200";
        assert!(diagnose(&secrets(), swapped, &mint(b"south", swapped), NOW).is_valid());
    }

    #[test]
    fn numbers_on_both_sides_and_characters_that_deceive_are_named() {
        let ambiguous = "4915112345:1735693200";
        expect(ambiguous, &mint(b"north", ambiguous), &[Mistake::Ambiguous], "EXPIRY:USER");
        let hidden = "1735693200:al\u{202e}ice";
        expect(hidden, &mint(b"north", hidden), &[Mistake::Character], "invisible");
        let other_form = "1735693200:4915112345";
        assert!(diagnose(&secrets(), other_form, &mint(b"north", other_form), NOW).is_valid());
    }

    #[test]
    fn credential_is_valid_in_its_last_second() {
        let username = NOW.to_string();
        let password = mint(b"north", &username);
        assert!(diagnose(&secrets(), &username, &password, NOW).is_valid());
        assert!(!diagnose(&secrets(), &username, &password, NOW + 1).is_valid());
    }

    #[test]
    fn expired_credential_says_since_when_and_whether_the_password_was_right() {
        let right = diagnose(&secrets(), EARLIER, &mint(b"north", EARLIER), NOW);
        assert_eq!(right, Diagnosis::Expired { secret_id: Some("old".to_owned()), seconds_ago: 180 });
        assert_eq!(right.to_string(), r#"expired 3 min ago; the password is right (secret "old")"#);
        let wrong = diagnose(&secrets(), EARLIER, &mint(b"west", EARLIER), NOW);
        assert_eq!(wrong, Diagnosis::Expired { secret_id: None, seconds_ago: 180 });
        assert!(wrong.to_string().contains("none of the configured secrets"));
    }

    #[test]
    fn wrong_secret_is_told() {
        let found = diagnose(&secrets(), LATER, &mint(b"west", LATER), NOW);
        assert_eq!(found, Diagnosis::WrongSecret);
        assert!(found.to_string().starts_with("wrong secret"));
        assert_eq!(diagnose(&[], LATER, &mint(b"north", LATER), NOW), Diagnosis::WrongSecret);
    }

    #[test]
    fn hex_instead_of_base64_is_told() {
        let digest = hmac_sha1(b"north", LATER.as_bytes());
        expect(LATER, &hex(&digest), &[Mistake::Hex], "hex instead of base64");
        expect(LATER, &hex(&digest).to_uppercase(), &[Mistake::Hex], "hex");
    }

    #[test]
    fn hex_of_a_wrong_secret_is_told_without_a_secret() {
        let found = diagnose(&secrets(), LATER, &hex(&hmac_sha1(b"west", LATER.as_bytes())), NOW);
        assert_eq!(found, Diagnosis::Mistaken { secret_id: None, mistakes: vec![Mistake::Hex] });
        assert!(found.to_string().contains("matches none"));
    }

    #[test]
    fn missing_padding_and_the_url_safe_alphabet_are_told() {
        // A user whose password has one of the characters in which the alphabets differ.
        let username =
            (0..).map(|n| format!("1735693200:u{n}")).find(|name| mint(b"north", name).contains('/')).unwrap();
        let password = mint(b"north", &username);
        expect(&username, password.trim_end_matches('='), &[Mistake::Unpadded], "without its padding");
        let url_safe = password.replace('+', "-").replace('/', "_");
        expect(&username, &url_safe, &[Mistake::UrlSafe], "url-safe");
        let both = url_safe.trim_end_matches('=');
        expect(&username, both, &[Mistake::UrlSafe, Mistake::Unpadded], "url-safe");
    }

    #[test]
    fn white_space_around_the_password_is_told() {
        expect(LATER, &format!("{}\n", *mint(b"north", LATER)), &[Mistake::Whitespace], "white space");
    }

    #[test]
    fn milliseconds_are_told_with_the_right_and_with_a_wrong_password() {
        let username = "1735693200000:alice";
        expect(username, &mint(b"north", username), &[Mistake::Milliseconds], "milliseconds instead of seconds");
        let wrong = diagnose(&secrets(), username, &mint(b"west", username), NOW);
        assert_eq!(wrong, Diagnosis::Mistaken { secret_id: None, mistakes: vec![Mistake::Milliseconds] });
    }

    #[test]
    fn hmac_sha256_is_told() {
        let digest = hmac_sha256(b"north", LATER.as_bytes()).unwrap();
        expect(LATER, &STANDARD.encode(&digest), &[Mistake::HmacSha256], "HMAC-SHA256 instead of");
        expect(LATER, &hex(&digest), &[Mistake::Hex, Mistake::HmacSha256], "hex");
    }

    #[test]
    fn username_without_a_timestamp_is_told() {
        expect("alice", &mint(b"north", "alice"), &[Mistake::NoTimestamp], "no timestamp");
    }

    #[test]
    fn hmac_over_a_part_of_the_username_is_told() {
        expect(LATER, &mint(b"north", "alice"), &[Mistake::OnlyUser], "user part alone");
        expect(LATER, &mint(b"north", "1735693200"), &[Mistake::OnlyTimestamp], "timestamp alone");
        expect("alice:1735693200", &mint(b"north", "1735693200"), &[Mistake::OnlyTimestamp], "timestamp alone");
    }

    #[test]
    fn decoded_secrets_are_told() {
        let found = |configured: &str, used: &[u8]| {
            diagnose(&[secret("a", configured.as_bytes())], LATER, &mint(used, LATER), NOW)
        };
        let told = |mistake| Diagnosis::Mistaken { secret_id: Some("a".to_owned()), mistakes: vec![mistake] };
        let bytes = [0xfb, 0xef, 0xbe, 1, 2];
        for configured in [STANDARD.encode(bytes), STANDARD_NO_PAD.encode(bytes), URL_SAFE.encode(bytes)] {
            assert_eq!(found(&configured, &bytes), told(Mistake::SecretBase64Decoded), "{configured}");
        }
        assert_eq!(found(&hex(&bytes), &bytes), told(Mistake::SecretHexDecoded));
        assert!(told(Mistake::SecretHexDecoded).to_string().contains("hex-decoded"));
    }

    #[test]
    fn newline_at_the_end_of_the_secret_is_told_on_either_side() {
        for used in [&b"north\n"[..], b"north\r\n"] {
            expect(LATER, &mint(used, LATER), &[Mistake::SecretNewlineAdded], "newline at its end");
        }
        let found = diagnose(&[secret("a", b"north\n")], LATER, &mint(b"north", LATER), NOW);
        let mistakes = vec![Mistake::SecretNewlineConfigured];
        assert_eq!(found, Diagnosis::Mistaken { secret_id: Some("a".to_owned()), mistakes });
    }

    #[test]
    fn explanation_with_the_fewest_mistakes_is_taken() {
        let mut both = [secret("newline", b"north\n"), secret("plain", b"north")];
        for _ in 0..2 {
            let found = diagnose(&both, LATER, &mint(b"north", LATER), NOW);
            assert_eq!(found, Diagnosis::Valid { secret_id: "plain".to_owned(), seconds_left: 3600 });
            both.reverse();
        }
    }

    #[test]
    fn a_newline_at_the_end_of_the_username_is_told_on_either_side() {
        for end in ["\n", "\r\n"] {
            let with_newline = format!("{LATER}{end}");
            expect(
                LATER,
                &mint(b"north", &with_newline),
                &[Mistake::UsernameNewline],
                "newline at the end of the username",
            );
            expect(
                &with_newline,
                &mint(b"north", LATER),
                &[Mistake::Character, Mistake::UsernameNewline],
                "newline at the end of the username",
            );
        }
    }

    #[test]
    fn the_secret_itself_as_password_is_told_whatever_its_form_and_not_shown() {
        let hex = "0123456789abcdef0123456789abcdef01234567";
        for bytes in [&b"north"[..], hex.as_bytes()] {
            let secrets = [secret("new", b"south"), secret("old", bytes)];
            let given = String::from_utf8(bytes.to_vec()).unwrap();
            for (username, password) in [(LATER, given.clone()), ("alice", format!("{given}\n"))] {
                let found = diagnose(&secrets, username, &password, NOW);
                assert_eq!(found, Diagnosis::SecretItself { secret_id: "old".to_owned() });
                assert!(!found.is_valid() && !found.to_string().contains(&given), "{found}");
            }
        }
    }

    #[test]
    fn several_mistakes_at_once_are_all_told() {
        let password = hex(&hmac_sha1(b"north\n", b"1735693200000"));
        let all = [Mistake::Milliseconds, Mistake::Hex, Mistake::OnlyTimestamp, Mistake::SecretNewlineAdded];
        expect("1735693200000:alice", &password, &all, "; otherwise it was made with secret \"old\"");
    }

    #[test]
    fn what_is_no_credential_is_told() {
        let found = diagnose(&secrets(), "alice", "correct horse", NOW);
        assert_eq!(found, Diagnosis::NotACredential);
        assert!(found.to_string().starts_with("not a time-limited credential"));
        let password_only = diagnose(&secrets(), LATER, "correct horse", NOW);
        assert_eq!(password_only, Diagnosis::Mistaken { secret_id: None, mistakes: vec![Mistake::NotAnHmac] });
        assert!(diagnose(&secrets(), "", "", NOW).to_string().starts_with("not a"));
    }

    #[test]
    fn no_sentence_shows_the_secret_or_the_password() {
        let password = mint(b"north", LATER);
        for (username, password) in [(LATER, password.as_str()), (EARLIER, "hidden"), ("alice", "hidden")] {
            let found = diagnose(&secrets(), username, password, NOW);
            for said in [found.to_string(), format!("{found:?}")] {
                assert!(!said.contains("north") && !said.contains("south") && !said.contains(password), "{said}");
            }
        }
    }

    #[test]
    fn spans_are_told_in_the_largest_unit_that_fits() {
        let told = [119, 120, 7199, 7200, 172_799, 172_800].map(|secs| Span(secs).to_string());
        assert_eq!(told, ["119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
