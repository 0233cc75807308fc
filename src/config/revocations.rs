//! Revocations as they are written: in a request to the admin API, on a line of a file, on a line of what the server keeps for itself.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::auth::{IssuedBefore, Revocation, Revocations, Revoked, TimeLimited, UsernameLimits};
use crate::regular_file;
use crate::text::{is_deceptive, json};
use crate::wall_clock::unix_now;

use super::access::parse_moment;
use super::denied::{Wanted, why};
use super::error::{ConfigError, Place, Problem};
use super::snapshot::Config;

/// The longest name: that of USERNAME (RFC 8489 section 14.3).
const NAME_BYTES_MAX: usize = 508;
/// The longest line of a file.
const LINE_BYTES_MAX: usize = 4096;
/// The largest file.
const FILE_MIB_MAX: u64 = 64;
/// Revocations in a file; no more can be in force.
const LISTED_MAX: usize = Revocations::MAX;
/// Problems of a file that are told one by one.
const PROBLEMS_MAX: usize = 20;
/// No credential is good for longer, and nothing is revoked for longer unless a file says so.
const LONGEST_SECS: u64 = 10 * 366 * 86_400;
/// How long something is revoked by a request that does not say.
const USUAL_SECS: u64 = 30 * 86_400;
/// How long what cannot be good any more is still looked up: for clocks that are set back, and to end allocations that outlive their
/// credential.
const AFTERWARDS_SECS: u64 = 300;

/// A revocation as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenRevocation {
    /// A whole username.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The id of a shared secret or of a key of access tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `true` is everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub everybody: Option<bool>,
    /// The realm; that of `[auth]` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// Only what was issued before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<Moment>,
    /// For how long credentials are good that are issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_secs: Option<u64>,
    /// Until when it is revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
}

/// A moment in Unix seconds, written so or as `2026-11-30T12:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub u64);

/// Why what is written cannot be revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// More than a line may have.
    #[error("it is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not JSON, or with a field that there is not.
    #[error("{0}; expected an object such as {{\"user\": \"alice\"}}")]
    Form(String),
    /// None or several of those that say what is revoked.
    #[error("expected one of username, user, key, or everybody: true")]
    Whose,
    /// A name that no credential can have.
    #[error("{0} is empty, longer than {NAME_BYTES_MAX} bytes, or has a character that no name may have")]
    Name(&'static str),
    /// There is no such realm.
    #[error("there is no realm {0:?}")]
    Realm(String),
    /// Everybody for good.
    #[error("everybody needs issued_before; to refuse all there are, turn = false")]
    EverybodyForGood,
    /// One credential, and when it was issued.
    #[error("a username is one credential; issued_before is for user, key and everybody")]
    OneCredential,
    /// One without the other.
    #[error("lifetime_secs is for issued_before")]
    LifetimeAlone,
    /// Nobody says how long credentials are good.
    #[error(
        "issued_before needs lifetime_secs, for how long your service issues credentials at most: usernames say only when they expire \
         ([auth] credential-lifetime-max would say it for all)"
    )]
    NoLifetime,
    /// Something that is longer than anything, or nothing at all.
    #[error("{0} is not from 1 second to 10 years")]
    OutOfRange(&'static str),
    /// A time of which another one decides.
    #[error("until follows from {0} and cannot be given")]
    UntilFollows(&'static str),
    /// A moment that has passed.
    #[error("until has passed already")]
    Over,
}

/// Who has written it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenBy {
    /// Somebody who asks for it now.
    Request,
    /// The operator, in a file: it is in force as long as it is there.
    File,
    /// The server itself, which has checked it before.
    Server,
}

impl WrittenRevocation {
    /// Reads one line.
    ///
    /// # Errors
    /// It is not of the form.
    pub fn of_line(text: &str) -> Result<Self, RevocationError> {
        if text.len() > LINE_BYTES_MAX {
            return Err(RevocationError::TooLong);
        }
        // Of serde's place the column would be left, which says little.
        let form = |error: serde_json::Error| {
            let text = error.to_string();
            RevocationError::Form(text.split(" at line ").next().unwrap_or_default().to_owned())
        };
        serde_json::from_str(text).map_err(form)
    }

    /// What says whom it is about, and no more.
    pub fn of_whom(whose: &Revoked) -> Self {
        let mut written = Self::default();
        match whose {
            Revoked::Username(name) => written.username = Some(name.to_string()),
            Revoked::User(name) => written.user = Some(name.to_string()),
            Revoked::Key(id) => written.key = Some(id.to_string()),
            Revoked::Everybody => written.everybody = Some(true),
        }
        written
    }

    /// The line that says it.
    pub fn line(&self) -> String {
        json(self)
    }

    /// What is revoked, without its times.
    ///
    /// # Errors
    /// It says nothing, or more than one thing.
    pub fn whose(&self) -> Result<Revoked, RevocationError> {
        let checked = |name: &str, field| match name.len() {
            1..=NAME_BYTES_MAX if !name.contains(is_deceptive) => Ok(Arc::from(name)),
            _ => Err(RevocationError::Name(field)),
        };
        match (&self.username, &self.user, &self.key, self.everybody) {
            (Some(name), None, None, None) => checked(name, "username").map(Revoked::Username),
            (None, Some(name), None, None) => checked(name, "user").map(Revoked::User),
            (None, None, Some(id), None) => checked(id, "key").map(Revoked::Key),
            (None, None, None, Some(true)) => Ok(Revoked::Everybody),
            _ => Err(RevocationError::Whose),
        }
    }

    fn check(&self, by: WrittenBy, realm: Option<Arc<str>>, around: Around) -> Result<Revocation, RevocationError> {
        let Around { now_unix, lifetime_max_secs } = around;
        let whose = self.whose()?;
        let at_least = |until_unix: u64| until_unix.max(now_unix).saturating_add(AFTERWARDS_SECS);
        let in_range = |secs: u64, field| match secs {
            1..=LONGEST_SECS => Ok(secs),
            _ => Err(RevocationError::OutOfRange(field)),
        };
        let until = |follows_from: Option<&'static str>, usual_unix: u64| match (by, self.until, follows_from) {
            (WrittenBy::Server, Some(Moment(until)), _) => Ok(until),
            (_, Some(_), Some(field)) => Err(RevocationError::UntilFollows(field)),
            // A line that is over is no mistake of the file.
            (WrittenBy::File, Some(Moment(until)), None) => Ok(until),
            (_, Some(Moment(until)), None) if until <= now_unix => Err(RevocationError::Over),
            (_, Some(Moment(until)), None) => in_range(until - now_unix, "until").map(|_| until),
            (_, None, _) => Ok(usual_unix),
        };
        let for_good = match by {
            WrittenBy::File => u64::MAX,
            WrittenBy::Request | WrittenBy::Server => now_unix.saturating_add(USUAL_SECS),
        };
        let Some(Moment(unix)) = self.issued_before else {
            if self.lifetime_secs.is_some() {
                return Err(RevocationError::LifetimeAlone);
            }
            let until_unix = match &whose {
                Revoked::Everybody => return Err(RevocationError::EverybodyForGood),
                Revoked::Username(name) => match TimeLimited::parse(UsernameLimits::plain(name)) {
                    Some(of) => until(Some("the expiry in the username"), at_least(of.expires_unix.saturating_add(1)))?,
                    None => until(None, for_good)?,
                },
                Revoked::User(_) | Revoked::Key(_) => until(None, for_good)?,
            };
            return Ok(Revocation { realm, whose, issued_before: None, until_unix });
        };
        if matches!(whose, Revoked::Username(_)) {
            return Err(RevocationError::OneCredential);
        }
        let lifetime_secs = self.lifetime_secs.or(lifetime_max_secs).ok_or(RevocationError::NoLifetime)?;
        in_range(lifetime_secs, "lifetime_secs")?;
        // What a server has written was in range at that time, by that server's clock.
        if by != WrittenBy::Server && unix > now_unix.saturating_add(LONGEST_SECS) {
            return Err(RevocationError::OutOfRange("issued_before"));
        }
        let issued_before = IssuedBefore { unix, lifetime_secs };
        let until_unix = until(Some("issued_before and lifetime_secs"), at_least(issued_before.is_over_unix()))?;
        Ok(Revocation { realm, whose, issued_before: Some(issued_before), until_unix })
    }
}

/// What times are reckoned from.
#[derive(Clone, Copy)]
struct Around {
    now_unix: u64,
    lifetime_max_secs: Option<u64>,
}

impl From<&Revocation> for WrittenRevocation {
    fn from(of: &Revocation) -> Self {
        Self {
            realm: of.realm.as_deref().map(str::to_owned),
            issued_before: of.issued_before.map(|issued| Moment(issued.unix)),
            lifetime_secs: of.issued_before.map(|issued| issued.lifetime_secs),
            until: Some(Moment(of.until_unix)).filter(|until| until.0 < u64::MAX),
            ..Self::of_whom(&of.whose)
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMoment;
        impl Visitor<'_> for OfMoment {
            type Value = Moment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a moment such as \"2026-11-30T12:00:00Z\", or Unix seconds")
            }

            fn visit_u64<E: serde::de::Error>(self, unix_secs: u64) -> Result<Moment, E> {
                Ok(Moment(unix_secs))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Moment, E> {
                parse_moment(text).map(Moment).map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(OfMoment).map_err(D::Error::custom)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// Makes a revocation of what is written.
///
/// # Errors
/// What is wrong with it.
pub fn revocation(
    config: &Config,
    written: &WrittenRevocation,
    by: WrittenBy,
    now_unix: u64,
) -> Result<Revocation, RevocationError> {
    let realm = match &written.realm {
        // Of a realm that is no more, what is kept costs nothing, and it may come back.
        Some(name) if by == WrittenBy::Server => {
            Some(name.as_str()).filter(|name| *name != config.auth.realm).map(Arc::from)
        }
        name => revoked_realm(config, name.as_deref())?,
    };
    let lifetime_max_secs = config.auth.credential_lifetime_max.map(|max| max.as_secs());
    written.check(by, realm, Around { now_unix, lifetime_max_secs })
}

/// What revokes one time-limited credential.
///
/// # Errors
/// What is wrong with the username.
pub fn revocation_of(username: &str, realm: Option<Arc<str>>, now_unix: u64) -> Result<Revocation, RevocationError> {
    let written = WrittenRevocation { username: Some(username.to_owned()), ..WrittenRevocation::default() };
    written.check(WrittenBy::Request, realm, Around { now_unix, lifetime_max_secs: None })
}

/// What revokes all credentials of a user that have been issued by now, each for so long at most.
///
/// # Errors
/// What is wrong with the name.
pub fn revocation_of_user(
    user: &str,
    lifetime_secs: u64,
    realm: Option<Arc<str>>,
    now_unix: u64,
) -> Result<Revocation, RevocationError> {
    let written = WrittenRevocation {
        user: Some(user.to_owned()),
        // Of this very second, too.
        issued_before: Some(Moment(now_unix.saturating_add(1))),
        lifetime_secs: Some(lifetime_secs),
        ..WrittenRevocation::default()
    };
    written.check(WrittenBy::Request, realm, Around { now_unix, lifetime_max_secs: None })
}

/// What a realm is called in a [`Revocation`].
///
/// # Errors
/// There is none of this name.
pub fn revoked_realm(config: &Config, name: Option<&str>) -> Result<Option<Arc<str>>, RevocationError> {
    match name.filter(|name| *name != config.auth.realm) {
        None => Ok(None),
        Some(name) if config.realms.iter().any(|realm| realm.name == name) => Ok(Some(name.into())),
        Some(name) => Err(RevocationError::Realm(name.to_owned())),
    }
}

/// Reads the file of `[auth] revocations` as it is now; nothing if there is none.
///
/// # Errors
/// Every problem of it, with its place.
pub fn read_revocations(config: &Config) -> Result<Arc<[Revocation]>, ConfigError> {
    let Some(path) = &config.auth.revocations_file else { return Ok(Arc::default()) };
    let now_unix = unix_now();
    let mut problems = Vec::new();
    let listed = read_lines(path, LISTED_MAX, &mut problems, |line| {
        revocation(config, &WrittenRevocation::of_line(line)?, WrittenBy::File, now_unix)
    });
    match problems.is_empty() {
        true => Ok(listed.into()),
        false => Err(ConfigError { problems }),
    }
}

/// Reads what each line of a file says, so many at most; empty lines and those that begin with `#` say nothing. What is wrong with a line is
/// among the problems, and the others are read on.
pub fn read_lines<T>(
    path: &Path,
    most: usize,
    problems: &mut Vec<Problem>,
    check: impl Fn(&str) -> Result<T, RevocationError>,
) -> Vec<T> {
    let name = path.display().to_string();
    match regular_file::open(path) {
        Ok(file) => lines_of(file, &name, most, problems, check),
        Err(error) => {
            let message = format!("cannot read the file: {}", why(path, Wanted::Read, &error));
            problems.push(Problem { place: Place::Source(name), message });
            Vec::new()
        }
    }
}

/// Reads a list, a revocation a line, of what is read already.
pub fn read_listed(
    from: impl Read,
    name: &str,
    problems: &mut Vec<Problem>,
    check: impl Fn(&WrittenRevocation) -> Result<Revocation, RevocationError>,
) -> Vec<Revocation> {
    lines_of(from, name, LISTED_MAX, problems, |line| check(&WrittenRevocation::of_line(line)?))
}

/// Reads what each line says, so many at most.
fn lines_of<T>(
    from: impl Read,
    name: &str,
    most: usize,
    problems: &mut Vec<Problem>,
    check: impl Fn(&str) -> Result<T, RevocationError>,
) -> Vec<T> {
    let mut reader = BufReader::new(from.take((FILE_MIB_MAX << 20) + 1));
    let (mut listed, mut line, mut total) = (Vec::new(), Vec::new(), 0);
    let mut told = Told { name, problems, untold: 0 };
    for number in 1.. {
        line.clear();
        match read_until_end_of_line(&mut reader, &mut line) {
            Ok(0) => {
                told.end(number);
                break;
            }
            Ok(count) => total += count,
            Err(error) => {
                told.last(number, format!("cannot read on: {error}"));
                break;
            }
        }
        if total > FILE_MIB_MAX << 20 {
            told.last(number, format!("the file is larger than {FILE_MIB_MAX} MiB"));
            break;
        }
        match read_line(&line, &check) {
            Ok(None) => {}
            Ok(Some(_)) if listed.len() >= most => {
                told.last(number, format!("more than {most} revocations"));
                break;
            }
            Ok(Some(revocation)) => listed.push(revocation),
            Err(message) => told.tell(number, message),
        }
    }
    listed
}

/// What is told of a file's problems: not every one of a million.
struct Told<'t> {
    name: &'t str,
    problems: &'t mut Vec<Problem>,
    untold: usize,
}

impl Told<'_> {
    fn tell(&mut self, line: usize, message: String) {
        match self.problems.len() {
            0..PROBLEMS_MAX => self.last(line, message),
            _ => self.untold += 1,
        }
    }

    fn last(&mut self, line: usize, message: String) {
        let place = Place::At { file: self.name.to_owned(), line, column: 1 };
        self.problems.push(Problem { place, message });
    }

    fn end(&mut self, line: usize) {
        if self.untold > 0 {
            self.last(line, format!("and {} lines more", self.untold));
        }
    }
}

/// Reads a line, of which no more is kept than tells that it is too long. Returns how much was read.
fn read_until_end_of_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<u64> {
    let mut rest = Vec::new();
    let mut total = reader.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', line)?;
    let mut is_ended = total == 0 || line.ends_with(b"\n");
    while !is_ended {
        rest.clear();
        let count = reader.take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut rest)?;
        total += count;
        is_ended = count == 0 || rest.ends_with(b"\n");
    }
    Ok(total as u64)
}

fn read_line<T>(line: &[u8], check: impl Fn(&str) -> Result<T, RevocationError>) -> Result<Option<T>, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("the line is longer than {LINE_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    check(text).map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn checked(text: &str, by: WrittenBy) -> Result<Revocation, String> {
        let around = Around { now_unix: NOW, lifetime_max_secs: None };
        let written = WrittenRevocation::of_line(text).map_err(|error| error.to_string())?;
        written.check(by, None, around).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_revoked_goes_when_no_credential_needs_it_any_more() {
        let until = |text: &str| checked(text, WrittenBy::Request).unwrap().until_unix - NOW;
        assert_eq!(until(r#"{"username": "1700003600:alice"}"#), 3901);
        assert_eq!(until(r#"{"username": "1700003600:alice;bw=2M"}"#), 3901);
        assert_eq!(until(r#"{"username": "1700003600;bw=2M"}"#), 3901);
        assert_eq!(until(r#"{"username": "1600000000:alice"}"#), 300, "its allocation may live on");
        assert_eq!(until(r#"{"username": "alice"}"#), USUAL_SECS);
        assert_eq!(until(r#"{"user": "alice", "until": "2023-11-15T22:13:20Z"}"#), 86_400);
        assert_eq!(until(r#"{"user": "alice", "issued_before": 1700000000, "lifetime_secs": 86400}"#), 86_700);
        assert_eq!(until(r#"{"everybody": true, "issued_before": 1600000000, "lifetime_secs": 1}"#), 300);
        let by_file = checked(r#"{"user": "alice"}"#, WrittenBy::File).unwrap();
        assert_eq!(by_file.until_unix, u64::MAX, "as long as it is in the file");
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_says_why() {
        for (text, problem) in [
            ("", "expected an object"),
            ("[]", "expected an object"),
            (r#"{"user": "a"} x"#, "expected an object"),
            (r#"{"usr": "alice"}"#, "unknown field `usr`"),
            (r#"{"user": "alice", "user": "bob"}"#, "duplicate field `user`"),
            ("{}", "expected one of username"),
            (r#"{"user": "alice", "key": "main"}"#, "expected one of username"),
            (r#"{"everybody": false}"#, "expected one of username"),
            (r#"{"everybody": true}"#, "everybody needs issued_before"),
            (r#"{"user": ""}"#, "user is empty"),
            (r#"{"user": "a\u0007"}"#, "has a character"),
            (r#"{"user": "a", "lifetime_secs": 60}"#, "lifetime_secs is for issued_before"),
            (r#"{"user": "a", "issued_before": 1700000000}"#, "issued_before needs lifetime_secs"),
            (r#"{"user": "a", "issued_before": 1700000000, "lifetime_secs": 0}"#, "lifetime_secs is not from"),
            (r#"{"user": "a", "issued_before": 17000000000, "lifetime_secs": 9}"#, "issued_before is not from"),
            (r#"{"user": "a", "issued_before": "now", "lifetime_secs": 9}"#, "expected a moment such as"),
            (r#"{"user": "a", "issued_before": 1, "lifetime_secs": 9, "until": 1800000000}"#, "until follows from"),
            (r#"{"username": "a", "issued_before": 1, "lifetime_secs": 9}"#, "a username is one credential"),
            (r#"{"username": "1700003600:a", "until": 1800000000}"#, "until follows from the expiry"),
            (r#"{"user": "a", "until": 1700000000}"#, "until has passed"),
            (r#"{"user": "a", "until": 9999999999}"#, "until is not from"),
        ] {
            let told = checked(text, WrittenBy::Request).unwrap_err();
            assert!(told.contains(problem), "{text}: {told}");
        }
    }

    #[test]
    fn what_the_server_writes_it_reads_back_the_same() {
        for text in [
            r#"{"username": "1700003600:alice"}"#,
            r#"{"user": "al\"ice"}"#,
            r#"{"key": "main", "issued_before": 1700000000, "lifetime_secs": 86400}"#,
            r#"{"everybody": true, "issued_before": 1700000000, "lifetime_secs": 86400}"#,
        ] {
            let revocation = checked(text, WrittenBy::Request).unwrap();
            let written = WrittenRevocation::from(&revocation).line();
            assert_eq!(checked(&written, WrittenBy::Server), Ok(revocation.clone()), "{written}");
        }
    }

    #[test]
    fn a_file_is_read_to_its_end_with_its_problems_by_line_and_never_without_bound() {
        let read = |text: &[u8]| {
            let mut problems = Vec::new();
            let check = |written: &WrittenRevocation| {
                written.check(WrittenBy::File, None, Around { now_unix: NOW, lifetime_max_secs: Some(60) })
            };
            let listed = read_listed(text, "list", &mut problems, check).len();
            (listed, problems.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let good = b"# who left\n\n{\"user\": \"alice\"}\r\n  {\"key\": \"old\", \"issued_before\": 5}\n";
        assert_eq!(read(good), (2, vec![]));
        let (listed, problems) = read(b"{\"user\": \"a\"}\n{\"user\": 5}\nuser bob\n\xff\n{\"user\": \"b\"}");
        assert_eq!((listed, problems.len()), (2, 3));
        assert!(problems[0].starts_with("list:2:1: ") && problems[2].contains("list:4:1: the line is not UTF-8"));
        let (_, problems) = read(&b"x\n".repeat(1000));
        assert_eq!((problems.len(), &*problems[PROBLEMS_MAX]), (PROBLEMS_MAX + 1, "list:1001:1: and 980 lines more"));
        let (listed, problems) = read(&[&[b'x'; 3 * LINE_BYTES_MAX], &good[..]].concat());
        assert_eq!((listed, &problems[..]), (2, &["list:1:1: the line is longer than 4096 bytes".to_owned()][..]));
        let longest = format!("{{\"user\": \"{}\"}}", "\\u0061".repeat(500));
        assert!(longest.len() < LINE_BYTES_MAX && read(longest.as_bytes()) == (1, vec![]));
    }
}
