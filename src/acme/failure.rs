//! Why there is no certificate, and what an operator can do.

use std::fmt;
use std::io;
use std::path::Path;

use instant_acme::{Error, Problem};

use super::exchange::ExchangeError;
use super::kind::Kind;
use crate::text::is_deceptive;

/// What an authority says is quoted up to so many characters.
const QUOTED_CHARS_MAX: usize = 400;

/// Why there is no certificate.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// What was said.
    said: String,
    /// Where the authority has asked, and how often it did so here.
    asked: Option<(u16, u64)>,
    /// When the authority wants to be asked again.
    pub(super) wait_unix: Option<u64>,
    /// Whether the authority does not know the account.
    pub(super) is_account_gone: bool,
    /// Whether the authority refused nothing but the nonces of a request.
    pub(super) is_nonce_refused: bool,
    /// How far it had come.
    at: Step,
}

/// What an operator reads of what an authority says of a problem (RFC 8555 section 6.7), if it is one.
pub fn read_problem(body: &[u8]) -> Option<String> {
    let problem = serde_json::from_slice(body).ok()?;
    Some(Failure::of_problem(&problem).to_string())
}

/// A step on the way to a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The authority's directory, and the account there.
    Account,
    /// The order, with a nonce.
    Order,
    /// What is done for the name that was ordered.
    Name,
}

impl Failure {
    pub(super) fn new(kind: Kind, said: impl fmt::Display) -> Self {
        Self {
            kind,
            said: quoted(&said.to_string()),
            asked: None,
            wait_unix: None,
            is_account_gone: false,
            is_nonce_refused: false,
            at: Step::Name,
        }
    }

    /// The state directory is not to be written to.
    pub(super) fn disk(path: &Path, error: &io::Error) -> Self {
        Self::new(Kind::Disk, format_args!("{}: {error}", path.display()))
    }

    /// What an exchange has come to. `wait_unix` is what it has said of when to ask again.
    pub(super) fn of(error: Error, wait_unix: Option<u64>) -> Self {
        let failure = match error {
            Error::Api(problem) => Self::of_problem(&problem),
            Error::Other(other) => match other.downcast_ref::<ExchangeError>() {
                Some(error) => Self::new(error.kind(), error),
                None => Self::new(Kind::Authority, other),
            },
            Error::Timeout(_) => Self::new(Kind::Authority, "it does not come to an end with the order in time"),
            other => Self::new(Kind::Authority, other),
        };
        Self { wait_unix, ..failure }
    }

    /// What the authority says of an order or of a challenge.
    pub(super) fn of_problem(problem: &Problem) -> Self {
        let kind = problem.r#type.as_deref().unwrap_or_default();
        let mut said = problem.detail.clone().unwrap_or_default();
        for part in &problem.subproblems {
            said = format!("{said}; {part}");
        }
        let short = kind.rsplit(':').next().unwrap_or_default();
        let (is_account_gone, is_nonce_refused) = (short == "accountDoesNotExist", short == "badNonce");
        Self {
            is_account_gone,
            is_nonce_refused,
            ..Self::new(Kind::of_problem(kind), format_args!("{said} ({short})"))
        }
    }

    /// Says how far it had come.
    pub(super) fn at(self, at: Step) -> Self {
        Self { at, ..self }
    }

    /// Of what fails before a name was looked at, other names would fail, too.
    pub(super) fn is_of_all(&self) -> bool {
        self.at != Step::Name && self.kind.may_be_of_all()
    }

    /// Whether it has to do with no name at all, as far as one can see.
    pub(super) fn is_of_account(&self) -> bool {
        self.at == Step::Account
    }

    /// Says where the authority has asked, and how often it did so here.
    pub(super) fn asked_at(self, port: u16, times: u64) -> Self {
        Self { asked: Some((port, times)), ..self }
    }
}

/// What was said, what was seen here, what to do.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)?;
        match self.asked {
            Some((port, 0)) => write!(f, "; it asks at port {port}, and nobody has asked here")?,
            Some((port, times)) => write!(f, "; it asks at port {port}, and was answered here {times} times")?,
            None => {}
        }
        write!(f, "; {}", self.kind.remedy())
    }
}

fn quoted(said: &str) -> String {
    let mut quoted: String =
        said.chars().take(QUOTED_CHARS_MAX).map(|c| if is_deceptive(c) { ' ' } else { c }).collect();
    if said.chars().nth(QUOTED_CHARS_MAX).is_some() {
        quoted.push_str("...");
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, detail: &str) -> Failure {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        let problem = serde_json::json!({ "type": kind, "detail": detail, "status": 403 });
        Failure::of(Error::Api(serde_json::from_value(problem).unwrap()), Some(7))
    }

    #[test]
    fn each_problem_has_a_kind_and_a_remedy() {
        for (kind, expected) in [
            ("rateLimited", Kind::RateLimited),
            ("dns", Kind::Dns),
            ("connection", Kind::Connection),
            ("unauthorized", Kind::WrongAnswer),
            ("incorrectResponse", Kind::WrongAnswer),
            ("tls", Kind::WrongAnswer),
            ("caa", Kind::Caa),
            ("rejectedIdentifier", Kind::Rejected),
            ("externalAccountRequired", Kind::Account),
            ("serverInternal", Kind::Authority),
            ("somethingNew", Kind::Authority),
        ] {
            let failure = problem(kind, "why");
            assert_eq!((failure.kind, failure.wait_unix), (expected, Some(7)), "{kind}");
            let text = failure.asked_at(443, 0).to_string();
            assert!(text.starts_with(&format!("why ({kind}); it asks at port 443, and nobody")), "{text}");
            assert!(text.ends_with(expected.remedy()), "{text}");
        }
        assert!(problem("accountDoesNotExist", "").is_account_gone);
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            assert!(!kind.label().is_empty());
        }
    }

    #[test]
    fn what_an_authority_says_cannot_fill_the_log_or_steer_a_terminal() {
        let failure = problem("malformed", &format!("\u{1b}[2J{}", "x".repeat(100_000)));
        let text = failure.to_string();
        assert!(text.len() < 700 && !text.contains('\u{1b}'), "{text}");
    }
}
