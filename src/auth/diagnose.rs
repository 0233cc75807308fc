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

use super::rest::{SharedSecret, TimeLimited, hmac_sha1};

/// A timestamp from here on (the year 5138 in seconds, 1973 in milliseconds) is not in seconds.
const NOT_SECONDS: u64 = 100_000_000_000;

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
    /// Neither the username nor the password is of the scheme's form.
    NotACredential,
}

/// One way in which a credential differs from what the scheme asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The username has no timestamp.
    NoTimestamp,
    /// The timestamp counts milliseconds. Such a credential is accepted, for tens of thousands of years.
    Milliseconds,
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
    let time_limited = TimeLimited::parse(username);
    let form = Form::read(password);
    if time_limited.is_none() && form.is_none() {
        return Diagnosis::NotACredential;
    }

    let about_time = match time_limited {
        None => Some(Mistake::NoTimestamp),
        Some(parsed) if parsed.expires_unix >= NOT_SECONDS => Some(Mistake::Milliseconds),
        Some(_) => None,
    };
    let made_with = form.as_ref().and_then(|form| explain(secrets, username, time_limited, form));
    let (secret_id, about_password) = match (made_with, &form) {
        (Some((id, mistakes)), _) => (Some(id), mistakes),
        (None, None) => (None, vec![Mistake::NotAnHmac]),
        // Of a password that is right under no secret, only a wrong form can be told.
        (None, Some(form)) => (None, form.mistakes.clone()),
    };

    let mistakes: Vec<_> = about_time.into_iter().chain(about_password).collect();
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
            Self::NotACredential => f.write_str(
                "not a time-limited credential: the username has no timestamp and the password is not an HMAC",
            ),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTimestamp => "the username has no timestamp: it must be EXPIRY or EXPIRY:USER in Unix seconds",
            Self::Milliseconds => {
                "the timestamp is in milliseconds instead of seconds, so the credential never expires"
            }
            Self::Hex => "the password is in hex instead of base64",
            Self::Unpadded => "the password is base64 without its padding (=)",
            Self::UrlSafe => "the password is url-safe base64 instead of standard base64",
            Self::Whitespace => "the password has white space around it",
            Self::NotAnHmac => "the password is not an HMAC-SHA1 in base64 (28 characters)",
            Self::HmacSha256 => "the password is an HMAC-SHA256 instead of an HMAC-SHA1",
            Self::OnlyUser => "the HMAC was made over the user part alone instead of the whole username",
            Self::OnlyTimestamp => "the HMAC was made over the timestamp alone instead of the whole username",
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
    username: &str,
    time_limited: Option<TimeLimited<'_>>,
    form: &Form,
) -> Option<(String, Vec<Mistake>)> {
    let mut best: Option<(String, Vec<Mistake>)> = None;
    for secret in secrets {
        for (key, about_key) in readings_of_secret(&secret.bytes) {
            for (data, about_data) in readings_of_username(username, time_limited) {
                let (digest, about_hash) = match form.digest.len() {
                    20 => (hmac_sha1(&key, data.as_bytes()).to_vec(), None),
                    _ => (hmac_sha256(&key, data.as_bytes())?, Some(Mistake::HmacSha256)),
                };
                let mistakes = form.mistakes.iter().copied().chain(about_hash).chain(about_data).chain(about_key);
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

fn readings_of_username<'a>(
    username: &'a str,
    time_limited: Option<TimeLimited<'a>>,
) -> Vec<(&'a str, Option<Mistake>)> {
    let mut readings = vec![(username, None)];
    if let (Some(parsed), Some((before, after))) = (time_limited, username.split_once(':')) {
        let timestamp = if parsed.user == after { before } else { after };
        readings.push((parsed.user, Some(Mistake::OnlyUser)));
        readings.push((timestamp, Some(Mistake::OnlyTimestamp)));
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
