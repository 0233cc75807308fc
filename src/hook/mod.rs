//! `[hook]`: asks an application about usernames that nobody configured, over HTTP, HTTPS or a socket in the file system, and tells it
//! of allocations (`events`).
//!
//! Workers hand questions over and never wait: what finds no room is answered at once as something that nobody could say. One task on
//! the control runtime asks, so many at once, each for so long at most, in turns (`questions`), and nothing for a network's clients while the application
//! is out of order for them.

mod answer;
mod breaker;
mod events;
mod exchange;
mod health;
mod questions;
mod silence;
mod stats;
mod turns;
mod unanswered;
mod waiting;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde_json::json;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use answer::{Verdict, read as read_answer, read_to_event as read_event_answer};
pub use events::{EndAllocation, EventControl, EventSender, Teller, tell};
pub use exchange::HookError;
pub use health::{Health, HealthView, HookProblem};
pub use stats::{EventStats, HookStats, Told, ToldOf};

use crate::auth::KnownCredential;
use crate::config::Hook;
use crate::net::sys::clocks;
use crate::policy::{AnswerBudgets, RateLimit, RateLimiter};
use crate::text;
use crate::turn::{Answer, Ask, AskId, Question};

use breaker::{Breakers, Tell};
use exchange::Target;
use questions::{End, Questions, Whose};
use turns::network;

/// Questions on their way from the workers.
const QUEUE_MAX: usize = 1024;
/// Questions that are asked at once where there is no application.
const DIRECTORY_CONCURRENCY: usize = 64;

/// Somebody who knows users without an application, such as the store of a fleet.
pub type Directory = Box<dyn Fn(Question) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// Takes an answer to a worker; it must not block.
pub type TakeAnswer = Box<dyn Fn(u16, AskId, Answer) + Send + Sync>;

/// The worker's end.
#[derive(Clone)]
pub struct HookSender {
    worker: u16,
    questions: mpsc::Sender<(u16, Ask)>,
    stats: Arc<HookStats>,
}

impl HookSender {
    /// That of a worker.
    #[must_use]
    pub fn of_worker(&self, worker: u16) -> Self {
        Self { worker, ..self.clone() }
    }

    /// Hands a question over.
    ///
    /// # Errors
    /// As many wait as may: this one is not asked.
    pub fn ask(&self, ask: Ask) -> Result<(), AskId> {
        let id = ask.id;
        self.questions.try_send((self.worker, ask)).map_err(|_| {
            self.stats.count(Told::NoRoom);
            id
        })
    }
}

/// What asks.
pub struct Asker {
    questions: mpsc::Receiver<(u16, Ask)>,
    shared: Arc<Shared>,
}

/// The supervisor's end: who is asked may change.
#[derive(Clone)]
pub struct HookControl(Arc<Shared>);

struct Shared {
    /// Who is asked before the application is.
    directory: Option<Directory>,
    target: ArcSwapOption<Target>,
    breakers: Mutex<Breakers>,
    /// What each network may ask: as much as it may have answers to requests without credentials, whose nonce a question takes.
    networks: RateLimiter,
    take: TakeAnswer,
    stats: Arc<HookStats>,
}

/// All ends of it. The directory is asked first.
pub fn new(
    hook: Option<&Hook>,
    directory: Option<Directory>,
    stats: Arc<HookStats>,
    take: TakeAnswer,
) -> (HookSender, HookControl, Asker) {
    let (send, questions) = mpsc::channel(QUEUE_MAX);
    let target = ArcSwapOption::from(hook.map(|hook| Arc::new(Target::asking(hook))));
    if let Some(hook) = hook {
        stats.health().begin(hook.url.to_string());
    }
    let networks = RateLimiter::new(Some(RateLimit::default()), Arc::new(AnswerBudgets::default()));
    let breakers = Mutex::default();
    let shared = Arc::new(Shared { directory, target, breakers, networks, take, stats: Arc::clone(&stats) });
    let sender = HookSender { worker: 0, questions: send, stats };
    (sender, HookControl(Arc::clone(&shared)), Asker { questions, shared })
}

impl HookControl {
    /// Asks by these settings from now on.
    pub fn reload(&self, hook: &Hook) {
        if !self.0.target.load().as_ref().is_some_and(|target| target.is_of(hook)) {
            self.0.target.store(Some(Arc::new(Target::asking(hook))));
            *self.0.breakers() = Breakers::default();
            self.0.stats.health().begin(hook.url.to_string());
            self.0.stats.broken().set(None);
        }
    }
}

impl Asker {
    /// Asks until the workers are gone.
    pub async fn run(mut self) {
        let mut running = JoinSet::new();
        let mut questions = Questions::default();
        loop {
            let at_once = self.shared.concurrency();
            while running.len() < at_once
                && let Some((place, question)) = questions.next(at_once, Instant::now())
            {
                let answer = Arc::clone(&self.shared).answer(question);
                running.spawn(async move { (place, answer.await) });
            }
            tokio::select! {
                question = self.questions.recv() => match question {
                    Some((worker, ask)) => {
                        let of = whose(&ask);
                        if let Err((worker, ask)) = questions.push(of, (worker, ask), Instant::now()) {
                            self.shared.stats.count(Told::NoRoom);
                            self.shared.was_not_asked(&ask, "too many others waited for their turn to be asked about");
                            (self.shared.take)(worker, ask.id, Answer::Failed);
                        }
                    }
                    None => return,
                },
                Some(answered) = running.join_next(), if !running.is_empty() => {
                    if let Ok((place, end)) = answered {
                        questions.done(place, end, Instant::now());
                    }
                }
            }
        }
    }
}

impl Shared {
    /// Asks one question, and brings its answer.
    async fn answer(self: Arc<Self>, (worker, ask): (u16, Ask)) -> End {
        let now_micros = clocks().0;
        if ask.deadline_micros <= now_micros {
            // Nobody waits any more; who comes next asks anew.
            self.stats.count(Told::TooLate);
            self.was_not_asked(&ask, "it had no turn to be asked about in time, because of others");
            return End::NotAsked;
        }
        let client = ask.client.client.get().ip();
        if !self.networks.allow(now_micros, client) {
            self.stats.count(Told::TooOften);
            self.was_not_asked(&ask, "it was not asked, because the client's network asks about too many names");
            (self.take)(worker, ask.id, Answer::Failed);
            return End::NotAsked;
        }
        let target = self.target.load_full();
        let mut is_known_elsewhere = false;
        if let Some(directory) = &self.directory {
            match directory(ask.question.clone()).await {
                Answer::Unknown if target.is_some() => {}
                // Who is nobody to the application may be somebody there.
                Answer::Failed if target.is_some() => is_known_elsewhere = true,
                answer => {
                    let end = match answer {
                        Answer::Known(_) => End::Known,
                        Answer::Failed => End::Unanswered,
                        _ => End::Unknown,
                    };
                    (self.take)(worker, ask.id, answer);
                    return end;
                }
            }
        }
        let Some(target) = target else {
            (self.take)(worker, ask.id, Answer::Failed);
            return End::NotAsked;
        };
        if !self.breakers().may_ask(client, Instant::now()) {
            self.stats.count(Told::NotAsked);
            self.was_not_asked(
                &ask,
                "it was not asked, because it has not answered the last questions of the client's network; it will be asked again soon",
            );
            (self.take)(worker, ask.id, Answer::Failed);
            return End::NotAsked;
        }
        let asked = match question_of(&ask) {
            Some(question) => timeout(target.timeout(), target.post(question)).await,
            None => Ok(Err(HookError::Request)),
        };
        let answer = asked.unwrap_or(Err(HookError::TimedOut)).and_then(|(status, body)| answer::read(status, &body));
        let (tell, is_there, tells_failure) = {
            let (mut breakers, now) = (self.breakers(), Instant::now());
            let is_there = !answer.as_ref().is_err_and(HookError::is_of_all);
            let tell = breakers.note(client, is_there, now);
            self.stats.broken().set(breakers.broken_until());
            (tell, is_there, answer.is_err() && breakers.tells_failure(now))
        };
        let problem = answer.as_ref().err().map(|problem| target.redact(&problem.to_string()));
        match &problem {
            Some(problem) => self.stats.health().has_failed(is_there, username_of(&ask), problem),
            None => self.stats.health().is_well(),
        }
        match (tell, &problem) {
            (Tell::Broken(pause), Some(problem)) => {
                let secs = pause.as_secs();
                tracing::warn!(%problem, secs, "the hook does not answer: nobody of the network of who has asked is asked about for a while, and users of it that are not configured cannot allocate ([hook] url)");
            }
            (Tell::Mended, _) => tracing::info!("the hook answers again"),
            _ => {}
        }
        match problem {
            Some(_) if matches!(tell, Tell::Broken(_)) => {}
            Some(problem) if tells_failure && !is_there => {
                tracing::warn!(%problem, "the hook has not answered: this user, perhaps others, cannot allocate ([hook] url; told once a minute)");
            }
            Some(problem) if tells_failure => {
                tracing::warn!(%problem, "the hook has not answered as it should: this user, perhaps others, cannot allocate; the application's own log should say why (told once a minute)");
            }
            Some(problem) => tracing::debug!(%problem, "the hook has not answered as it should"),
            None => {}
        }
        let answer = match answer {
            Ok(Some(credential)) => Answer::Known(credential),
            Ok(None) if !is_known_elsewhere => Answer::Unknown,
            Ok(None) => Answer::Failed,
            Err(_) => Answer::Failed,
        };
        let (told, end) = match answer {
            Answer::Known(_) => (Told::Known, End::Known),
            Answer::Unknown => (Told::Unknown, End::Unknown),
            _ if is_there => (Told::Failed, End::Unknown),
            _ => (Told::Failed, End::Unanswered),
        };
        self.stats.count(told);
        (self.take)(worker, ask.id, answer);
        end
    }

    fn was_not_asked(&self, ask: &Ask, why: &str) {
        if self.target.load().is_some() {
            self.stats.health().was_not_asked(username_of(ask), why);
        }
    }

    fn concurrency(&self) -> usize {
        let of_directory = self.directory.as_ref().map_or(0, |_| DIRECTORY_CONCURRENCY);
        self.target.load().as_ref().map_or(of_directory, |target| target.concurrency())
    }

    fn breakers(&self) -> std::sync::MutexGuard<'_, Breakers> {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn username_of(ask: &Ask) -> Option<&Arc<str>> {
    match &ask.question {
        Question::Credential { username, .. } => Some(username),
        _ => None,
    }
}

fn whose(ask: &Ask) -> Whose {
    let name = match &ask.question {
        Question::Credential { username, realm } => Some((Arc::clone(realm), Arc::clone(username))),
        _ => None,
    };
    Whose { network: network(ask.client.client.get().ip()), name }
}

/// A question, as it is sent.
fn question_of(ask: &Ask) -> Option<String> {
    let Question::Credential { username, realm } = &ask.question else { return None };
    Some(question(username, realm, &ask.client.client.to_string(), ask.client.transport.name()))
}

fn question(username: &str, realm: &str, client: &str, transport: &str) -> String {
    text::json(&json!({ "username": username, "realm": realm, "client": client, "transport": transport }))
}

/// What has come of asking once.
pub struct Probed {
    /// How long that took.
    pub took: Duration,
    /// The answer; `None` is that there is no such user.
    pub answer: Result<Option<KnownCredential>, HookError>,
}

/// Asks about a name once, for `turnstone doctor`; to be called outside of every runtime.
#[must_use]
pub fn probe(hook: &Hook, username: &str, realm: &str, limit: Duration) -> Probed {
    let (target, began) = (Target::asking(hook), Instant::now());
    let limit = limit.min(target.timeout());
    let asked = async {
        let question = question(username, realm, "127.0.0.1:9", "udp");
        let posted = timeout(limit, target.post(question)).await.unwrap_or(Err(HookError::TimedOut));
        posted.and_then(|(status, body)| answer::read(status, &body))
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    let answer = runtime.map_err(HookError::Connect).and_then(|runtime| runtime.block_on(asked));
    Probed { took: began.elapsed(), answer }
}
