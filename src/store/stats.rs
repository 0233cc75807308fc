//! How it is with the store.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::Value;

use super::error::StoreError;
use crate::clock::span;
use crate::wall_clock::unix_now;

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandResult {
    /// An answer.
    Answered,
    /// The store said no.
    Refused,
    /// No answer in time.
    TimedOut,
    /// There was no connection.
    Lost,
}

impl CommandResult {
    /// Every one, for metrics that start at zero.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Refused, Self::TimedOut, Self::Lost];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::TimedOut => "timed-out",
            Self::Lost => "lost",
        }
    }

    pub(super) fn of(answer: &Result<Value, StoreError>) -> Self {
        match answer {
            Ok(_) => Self::Answered,
            Err(StoreError::Lost) => Self::Lost,
            Err(StoreError::TimedOut) => Self::TimedOut,
            Err(StoreError::Refused(_) | StoreError::Unexpected(_) | StoreError::Unusable(_)) => Self::Refused,
        }
    }
}

/// What came of a question about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserResult {
    /// A credential.
    Known,
    /// There is no such user.
    Unknown,
    /// The store was lost, and the user was known from before.
    Kept,
    /// Nobody could say.
    Failed,
}

impl UserResult {
    /// Every one, for metrics that start at zero.
    pub const ALL: [Self; 4] = [Self::Known, Self::Unknown, Self::Kept, Self::Failed];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Unknown => "unknown",
            Self::Kept => "kept",
            Self::Failed => "failed",
        }
    }
}

/// What the store is used for: each may be refused while all else works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Shares of quotas over all servers.
    Quotas,
    /// What is revoked here is put there.
    RevocationsWritten,
    /// What others revoke is read there.
    RevocationsRead,
    /// What was read of them is put in force.
    RevocationsInForce,
    /// The key of nonces.
    NonceKey,
    /// Shared secrets.
    Secrets,
    /// Static users.
    Users,
    /// What stands there for single users.
    UserValues,
    /// Its clock and this server's say the same.
    Clock,
}

impl Part {
    /// Every one, for metrics that start at zero.
    pub const ALL: [Self; 9] = [
        Self::Quotas,
        Self::RevocationsWritten,
        Self::RevocationsRead,
        Self::RevocationsInForce,
        Self::NonceKey,
        Self::Secrets,
        Self::Users,
        Self::UserValues,
        Self::Clock,
    ];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Quotas => "quotas",
            Self::RevocationsWritten => "revocations-written",
            Self::RevocationsRead => "revocations-read",
            Self::RevocationsInForce => "revocations-in-force",
            Self::NonceKey => "nonce-key",
            Self::Secrets => "secrets",
            Self::Users => "users",
            Self::UserValues => "user-values",
            Self::Clock => "clock",
        }
    }
}

/// How it is with a part.
#[derive(Debug, Default)]
struct Trouble {
    problem: Option<String>,
    told: Option<Instant>,
    /// When it was seen last.
    seen: Option<Instant>,
    /// It has been told, and not yet that it is over.
    is_told: bool,
}

/// Counted by the store's tasks, read by the endpoints.
#[derive(Debug, Default)]
pub struct StoreStats {
    commands: [AtomicU64; CommandResult::ALL.len()],
    users: [AtomicU64; UserResult::ALL.len()],
    secrets: AtomicU64,
    revocations: AtomicU64,
    connections: AtomicU64,
    is_connected: AtomicBool,
    /// Since when it is, or is not.
    since_unix: AtomicU64,
    latency_micros: AtomicU64,
    problem: Mutex<Option<String>>,
    troubles: Mutex<BTreeMap<Part, Trouble>>,
    /// Realms that nobody gets into with a time-limited credential.
    without_secrets: Mutex<Vec<String>>,
}

/// A problem of one part is told once in so long, however often it comes and goes.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// How long a user is shown who cannot be used: nobody may ask for him again.
const SHOWN_FOR: Duration = Duration::from_secs(600);

/// Clocks that differ by more are told.
const CLOCKS_DIFFER_SECS: u64 = 60;

/// What is wrong when the clocks of the store and of this server differ.
pub(super) fn clock_problem(store_unix: u64, now_unix: u64) -> Option<String> {
    let differ_secs = store_unix.abs_diff(now_unix);
    let how = if now_unix > store_unix { "ahead of" } else { "behind" };
    (differ_secs > CLOCKS_DIFFER_SECS).then(|| {
        format!(
            "this server's clock is {} {how} the store's: credentials and revocations end at another time here than elsewhere; have both hosts \
             set their clocks by NTP (timedatectl says whether they do)",
            span(differ_secs)
        )
    })
}

/// How it is with the store at this moment.
#[derive(Clone, Debug)]
pub struct StoreView {
    /// Whether it answers.
    pub is_connected: bool,
    /// Since when that is so, in Unix seconds.
    pub since_unix: u64,
    /// How many connections there have been.
    pub connections: u64,
    /// How long it took to answer the last time.
    pub latency: Duration,
    /// Why it was lost the last time, or could not be reached.
    pub problem: Option<String>,
}

impl StoreStats {
    pub(super) fn count(&self, result: CommandResult) {
        if let Some(count) = self.commands.get(result as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_user(&self, result: UserResult) {
        if let Some(count) = self.users.get(result as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn set_secrets(&self, count: usize) {
        self.secrets.store(count as u64, Ordering::Relaxed);
    }

    /// So much is revoked by what it says.
    pub fn set_revocations(&self, count: usize) {
        self.revocations.store(count as u64, Ordering::Relaxed);
    }

    /// How much is revoked by what it says.
    pub fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::Relaxed)
    }

    /// What the store says to a part is of no use. Returns whether that is to be told now.
    pub fn trouble(&self, part: Part, problem: &dyn Display) -> bool {
        let (mut troubles, now) = (self.troubles(), Instant::now());
        let trouble = troubles.entry(part).or_default();
        trouble.problem = Some(problem.to_string());
        trouble.seen = Some(now);
        let is_due = trouble.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_EVERY);
        if is_due {
            trouble.told = Some(now);
        }
        // What is wrong with secrets is told whenever it changes.
        trouble.is_told |= is_due || part == Part::Secrets;
        is_due
    }

    /// A part has what it wants. What was told of it is told to be over, but of users: that one is found says nothing of another.
    pub fn is_well(&self, part: Part) {
        let mut troubles = self.troubles();
        let Some(trouble) = troubles.get_mut(&part) else { return };
        let was_told = trouble.problem.take().is_some() && std::mem::take(&mut trouble.is_told);
        drop(troubles);
        if was_told && !matches!(part, Part::Users | Part::UserValues) {
            tracing::info!(part = part.label(), "what the store has refused, or had wrong, works again");
        }
    }

    /// Compares its clock with this server's. Returns what is to be told, once when they begin to differ.
    pub(super) fn compare_clocks(&self, store_unix: u64, now_unix: u64) -> Option<String> {
        let Some(problem) = clock_problem(store_unix, now_unix) else {
            self.is_well(Part::Clock);
            return None;
        };
        let is_news = self.differing_clocks().is_none();
        (self.trouble(Part::Clock, &problem) && is_news).then_some(problem)
    }

    /// That its clock and this server's differ.
    pub fn differing_clocks(&self) -> Option<String> {
        self.troubles().get(&Part::Clock)?.problem.clone()
    }

    /// What is wrong with which part, while the store answers.
    pub fn problems(&self) -> BTreeMap<Part, String> {
        let mut problems = self.refused();
        problems.extend(self.unusable_user().map(|problem| (Part::UserValues, problem)));
        problems.extend(self.differing_clocks().map(|problem| (Part::Clock, problem)));
        if let Some(problem) = self.no_secret() {
            problems.entry(Part::Secrets).or_insert(problem);
        }
        problems
    }

    /// What the store refuses, or has something else for than is expected.
    pub fn refused(&self) -> BTreeMap<Part, String> {
        let troubles = self.troubles();
        let of_store = troubles.iter().filter(|(part, _)| !matches!(part, Part::UserValues | Part::Clock));
        of_store.filter_map(|(part, trouble)| Some((*part, trouble.problem.clone()?))).collect()
    }

    /// A user whose value cannot be used, who was asked for of late: the store refuses nothing by that, and any stranger may ask for him.
    pub fn unusable_user(&self) -> Option<String> {
        let troubles = self.troubles();
        let trouble = troubles.get(&Part::UserValues)?;
        let is_of_late = trouble.seen.is_some_and(|seen| seen.elapsed() < SHOWN_FOR);
        trouble.problem.clone().filter(|_| is_of_late)
    }

    /// These realms have no secret: the configuration has none, and the store neither.
    pub fn set_without_secrets(&self, realms: Vec<String>) {
        *self.without_secrets.lock().unwrap_or_else(PoisonError::into_inner) = realms;
    }

    /// That a realm has no secret.
    pub fn no_secret(&self) -> Option<String> {
        let realms = self.without_secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<_> = realms.iter().map(|realm| format!("{realm:?}")).collect();
        (!names.is_empty())
            .then(|| format!("no secret is in force: the store has none for the realm {}", names.join(", ")))
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<Part, Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.turn(true);
    }

    pub(super) fn answered(&self, latency: Duration) {
        self.latency_micros.store(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn lost(&self, problem: &str) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.to_owned());
        if self.is_connected.load(Ordering::Relaxed) || self.since_unix.load(Ordering::Relaxed) == 0 {
            self.turn(false);
        }
    }

    fn turn(&self, is_connected: bool) {
        self.since_unix.store(unix_now(), Ordering::Relaxed);
        self.is_connected.store(is_connected, Ordering::Relaxed);
    }

    /// How often a command came to this.
    pub fn commands(&self, result: CommandResult) -> u64 {
        self.commands.get(result as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How often a question about a user came to this.
    pub fn users(&self, result: UserResult) -> u64 {
        self.users.get(result as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many shared secrets of it are in force.
    pub fn secrets(&self) -> u64 {
        self.secrets.load(Ordering::Relaxed)
    }

    /// How it is.
    pub fn view(&self) -> StoreView {
        StoreView {
            is_connected: self.is_connected.load(Ordering::Relaxed),
            since_unix: self.since_unix.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            latency: Duration::from_micros(self.latency_micros.load(Ordering::Relaxed)),
            problem: self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_a_minute_are_told_once_and_shown_until_they_do_not() {
        let stats = StoreStats::default();
        assert_eq!((stats.compare_clocks(1000, 1060), stats.compare_clocks(1060, 1000)), (None, None));
        let told = stats.compare_clocks(1_000_000, 1_000_000 - 3 * 86_400).unwrap();
        assert!(told.contains("3 days behind the store's") && told.contains("timedatectl"), "{told}");
        assert_eq!(stats.compare_clocks(1_000_002, 1_000_002 - 3 * 86_400), None);
        assert_eq!(stats.problems(), [(Part::Clock, told)].into());
        assert!(stats.refused().is_empty(), "the store refuses nothing by that");
        assert_eq!(stats.compare_clocks(1000, 1001), None);
        assert!(stats.problems().is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_part_is_told_once_a_minute_and_shown_until_it_is_well() {
        let stats = StoreStats::default();
        let problem = StoreError::Refused("NOPERM".to_owned());
        assert!(stats.trouble(Part::Quotas, &problem) && !stats.trouble(Part::Quotas, &problem));
        assert!(stats.trouble(Part::Users, &problem));
        assert_eq!(stats.problems().into_keys().collect::<Vec<_>>(), [Part::Quotas, Part::Users]);
        stats.is_well(Part::Quotas);
        assert!(!stats.trouble(Part::Quotas, &problem), "it comes and goes");
        stats.is_well(Part::Quotas);
        stats.is_well(Part::Users);
        assert!(stats.problems().is_empty());
    }

    #[test]
    fn that_a_realm_has_no_secret_is_a_problem_and_no_refusal() {
        let stats = StoreStats::default();
        stats.set_without_secrets(vec!["example.org".to_owned(), "b".to_owned()]);
        let told = "no secret is in force: the store has none for the realm \"example.org\", \"b\"";
        assert_eq!(stats.problems(), [(Part::Secrets, told.to_owned())].into());
        assert!(stats.refused().is_empty());
        let refusal = StoreError::Refused("NOPERM".to_owned());
        stats.trouble(Part::Secrets, &refusal);
        assert_eq!(stats.problems(), [(Part::Secrets, refusal.to_string())].into());
        stats.is_well(Part::Secrets);
        stats.set_without_secrets(Vec::new());
        assert!(stats.problems().is_empty());
    }
}
