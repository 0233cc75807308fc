//! What the server asks of whoever runs it, and what comes back.

use std::sync::Arc;

use crate::addr::FiveTuple;
use crate::auth::KnownCredential;
use crate::user::User;

use super::output::{Client, Outcome};

/// Names a question of one server, for its answer. Never reused for another of that server; other servers have the same names for
/// questions of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskId(pub(super) u64);

/// A question, to be answered by [`Server::answer`](crate::Server::answer).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// Names the question. It is asked again under the same name if a client comes after its deadline and there is no answer yet.
    pub id: AskId,
    /// What is asked.
    pub question: Question,
    /// The client whose request waits for the answer, or the first of them; the answer is for all of them.
    pub client: FiveTuple,
    /// When the first who wait for the answer give up, in monotonic microseconds. A later answer still serves who comes after them.
    pub deadline_micros: u64,
}

/// What a request may wait for.
///
/// Two requests that wait for the same question are one question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Question {
    /// The credential of a username that nobody configured: [`Answer::Known`] or [`Answer::Unknown`]. Nobody has proved to be that user
    /// yet, but the client receives at its address.
    Credential {
        /// The username, as in USERNAME. It has no character that deceives.
        username: Arc<str>,
        /// The server's realm.
        realm: Arc<str>,
    },
    /// How much of a user's limit over several servers is this server's: [`Answer::ShareSet`]. The user has authenticated.
    Share {
        /// Whom quotas count on.
        user: User,
        /// The limit.
        limit: u32,
    },
}

/// The answer to a question.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// The credential. It is kept for as long as it says, or as
    /// [`AskPolicy::known_secs`](crate::auth::AskPolicy::known_secs) does.
    Known(KnownCredential),
    /// There is no such user. Those who wait are refused with 401, as if nobody had been asked
    /// ([`Reason::UnknownUser`](crate::reject::Reason::UnknownUser)); so is who comes in the next seconds.
    Unknown,
    /// [`Quotas::set_share`](crate::policy::Quotas::set_share) or [`refuse_share`](crate::policy::Quotas::refuse_share) has what there is to
    /// know of the user's share. If it has been used up since, it is asked for again.
    ShareSet,
    /// Nobody could say. Of a share: those who wait get what [`WithoutShare`](crate::policy::WithoutShare) allows. Of a credential: those who wait are refused with 500, "a temporary error. The client should try again" (RFC 8489 section 14.8),
    /// and the next who comes has it asked again ([`Reason::CredentialUnavailable`](crate::reject::Reason::CredentialUnavailable)).
    Failed,
}

/// A request that has waited, and what became of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Late {
    /// Who sent it, by the path it came on last.
    pub client: Client,
    /// The request.
    pub request: Box<[u8]>,
    /// [`Outcome::Reply`], or [`Outcome::Dropped`] when the budget for answers to strangers is used up or TURN is offered no more.
    pub outcome: Outcome,
}

/// What has become of requests that waited, and of answers, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitCounts {
    /// Requests that have begun to wait: each of them waits still, or is in one of the four that follow.
    pub parked: u64,
    /// They had an answer in time, [`Answer::Failed`] included.
    pub answered: u64,
    /// They had none before their deadline.
    pub timed_out: u64,
    /// Their client's connection closed before, or the allocation on their 5-tuple moved to another server.
    pub gone: u64,
    /// Their client sent something else under the same transaction id.
    pub replaced: u64,
    /// Copies of a request that waited already.
    pub repeated: u64,
    /// Requests that would have had to wait, but as many did as may, in all or of their network or client, or they were too long.
    pub refused: u64,
    /// Questions handed out by [`Server::poll_ask`](crate::Server::poll_ask).
    pub asked: u64,
    /// Answers that nobody waited for any more.
    pub late_answers: u64,
    /// Answers to no question: made up, or answered before.
    pub stray_answers: u64,
}

/// What waits and what is kept at this moment. All of it is bounded by [`AskPolicy`](crate::auth::AskPolicy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// Requests that wait.
    pub requests: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Questions without an answer, those included that nobody waits for any more.
    pub questions: usize,
    /// Credentials that are kept.
    pub known: usize,
    /// Usernames that are kept as those of nobody.
    pub unknown: usize,
}
