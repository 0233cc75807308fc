//! `[hook]`: whom the server asks about usernames that it does not know, and whom it tells of allocations.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::AskPolicy;

use super::secret::WebhookToken;
use super::usage::WebhookUrl;
use super::value::Choices;

/// Whom the server asks, and within which bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Where it is.
    pub url: HookUrl,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<WebhookToken>,
    /// How long one question may take, from the name's resolution to the end of the answer.
    pub timeout: Duration,
    /// Questions that are asked at once.
    pub concurrency: usize,
    /// How long a credential is used before it is asked for again, if its answer does not say.
    pub known_for: Duration,
    /// How long a name is known to be nobody's.
    pub unknown_for: Duration,
}

/// What is told of allocations, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookEvents {
    /// Where the application is.
    pub url: HookUrl,
    /// Whether that is another place than where it is asked about users.
    pub is_elsewhere: bool,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<WebhookToken>,
    /// How long one event may take, from the name's resolution to the end of the answer.
    pub timeout: Duration,
    /// Events that are told at once.
    pub concurrency: usize,
    /// Which there are; at least one.
    pub wanted: Vec<HookEvent>,
}

/// What may be told of an allocation. The names are those of usage records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEvent {
    /// It was made.
    Start,
    /// It has ended.
    Stop,
}

pub(super) const HOOK_EVENTS: &Choices<HookEvent> = &[("start", HookEvent::Start), ("stop", HookEvent::Stop)];

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookUrl {
    /// An `https` URL, or `http` to loopback; and the address and port in it, if it has no name.
    Http(WebhookUrl, Option<SocketAddr>),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Without the query, which is shown nowhere.
impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url, _) => url.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How requests wait for who answers within `timeout`.
pub(super) fn ask_policy(timeout: Duration, known_for: Duration, unknown_for: Duration) -> AskPolicy {
    let secs = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let mut policy = AskPolicy::default();
    // A question may wait for its turn as long as it takes.
    policy.deadline_millis = u32::try_from(timeout.as_millis() * 2).unwrap_or(u32::MAX);
    policy.known_secs = secs(known_for);
    policy.unknown_secs = secs(unknown_for);
    policy
}

impl Hook {
    /// How requests wait for it.
    pub fn policy(&self) -> AskPolicy {
        ask_policy(self.timeout, self.known_for, self.unknown_for)
    }

    /// Puts back what only a restart changes: whether there is one.
    pub(super) fn keep_until_restart(new: &mut Option<Self>, running: &Option<Self>) {
        if new.is_some() != running.is_some() {
            new.clone_from(running);
        }
    }
}

impl HookEvents {
    /// Whether this is told.
    pub fn wants(&self, event: HookEvent) -> bool {
        self.wanted.contains(&event)
    }

    /// Puts back what only a restart changes: whether any are told.
    pub(super) fn keep_until_restart(new: &mut Option<Self>, running: &Option<Self>) {
        if new.is_some() != running.is_some() {
            new.clone_from(running);
        }
    }
}

impl HookUrl {
    /// The address and port in it, if it has no name.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Http(_, address) => *address,
            Self::Unix(_) => None,
        }
    }

    /// Whether there is something that is not shown.
    pub(super) fn has_query(&self) -> bool {
        matches!(self, Self::Http(url, _) if url.has_query())
    }
}
