//! Tells the application of allocations that are made and that end, one event a request, and ends those that it does not want.
//!
//! Workers put events into a bounded queue and never wait. One task on the control runtime tells them, so many at once, again and again
//! for a minute where nobody takes them. While nobody answers, one at a time tries. What is lost on this way is counted.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::answer::{Verdict, read_to_event};
use super::exchange::{HookError, Target};
use super::stats::{EventStats, ToldOf};
use super::waiting::{Event, Waiting};
use crate::addr::{FiveTuple, RelayedAddr};
use crate::config::{HookEvent, HookEvents};
use crate::turn::{AllocationId, AllocationSummary};
use crate::usage::{Session, server_start_line};
use crate::user::User;

/// Events on their way from the workers: as many as allocations may end at once when the server stops.
const QUEUE_MAX: usize = 16_384;
/// An event that failed waits so long, and twice as long each time.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(8);
/// So many in a row without an answer, and one at a time tries, with pauses.
const SILENT_MAX: u32 = 5;
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// Between two lines in the log of one kind.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Ends an allocation; it must not block.
pub type EndAllocation = Box<dyn Fn(AllocationId) + Send + Sync>;

/// The workers' end.
#[derive(Clone)]
pub struct EventSender {
    queue: mpsc::Sender<Box<Session>>,
    shared: Arc<Shared>,
}

/// The supervisor's end: who is told, and of what, may change.
#[derive(Clone)]
pub struct EventControl(Arc<Shared>);

/// What tells.
pub struct Teller {
    queue: mpsc::Receiver<Box<Session>>,
    shared: Arc<Shared>,
    waiting: Waiting,
    /// The last event's number, and how many of those before were lost in the queue.
    seq: u64,
    gaps: u64,
    silence: Silence,
    refused_told: Option<Instant>,
}

struct Shared {
    telling: ArcSwap<Telling>,
    /// Tells this run of the server from every other.
    server: String,
    end: EndAllocation,
    stats: Arc<EventStats>,
}

struct Telling {
    events: HookEvents,
    target: Target,
}

/// What has come of telling one.
enum Outcome {
    Taken,
    /// The allocation is to end.
    Refused,
    /// It is not taken, and would not be another time.
    Rejected(HookError),
    /// The application may take it another time.
    Failed(HookError),
}

/// Nobody answers.
#[derive(Default)]
struct Silence {
    in_a_row: u32,
    /// Nothing is told until then.
    until: Option<Instant>,
    told_at: Option<Instant>,
    is_told: bool,
}

/// All ends of it. `server` is another text for each run.
pub fn tell(
    events: &HookEvents,
    server: String,
    stats: Arc<EventStats>,
    end: EndAllocation,
) -> (EventSender, EventControl, Teller) {
    let (send, queue) = mpsc::channel(QUEUE_MAX);
    let telling = ArcSwap::from_pointee(Telling::new(events));
    let shared = Arc::new(Shared { telling, server, end, stats });
    let teller = Teller {
        queue,
        shared: Arc::clone(&shared),
        waiting: Waiting::default(),
        seq: 0,
        gaps: 0,
        silence: Silence::default(),
        refused_told: None,
    };
    (EventSender { queue: send, shared: Arc::clone(&shared) }, EventControl(shared), teller)
}

impl EventSender {
    /// An allocation was made.
    pub fn started(
        &self,
        id: AllocationId,
        five_tuple: FiveTuple,
        identity: (Arc<str>, User),
        relayed: Vec<RelayedAddr>,
    ) {
        if self.wants(HookEvent::Start) {
            self.send(Session::start(SystemTime::now(), id, five_tuple, identity, relayed));
        }
    }

    /// An allocation has ended.
    pub fn ended(&self, summary: &AllocationSummary) {
        if self.wants(HookEvent::Stop) {
            self.send(Session::stop(SystemTime::now(), summary));
        }
    }

    fn wants(&self, event: HookEvent) -> bool {
        self.shared.telling.load().events.wants(event)
    }

    fn send(&self, session: Session) {
        if self.queue.try_send(Box::new(session)).is_err() {
            self.shared.stats.count(ToldOf::LostInQueue);
        }
    }
}

impl EventControl {
    /// Tells by these settings from now on.
    pub fn reload(&self, events: &HookEvents) {
        if self.0.telling.load().events != *events {
            self.0.telling.store(Arc::new(Telling::new(events)));
        }
    }
}

impl Telling {
    fn new(events: &HookEvents) -> Self {
        Self { events: events.clone(), target: Target::telling(events) }
    }
}

impl Teller {
    /// Tells until the workers are gone and everything is told.
    pub async fn run(mut self) {
        let mut running = JoinSet::new();
        let mut is_open = true;
        self.take(None);
        loop {
            let now = Instant::now();
            let most = self.at_once(now);
            while running.len() < most {
                // One user's events, which may be what the application hangs on, leave room for others'.
                let Some(event) = self.waiting.next(now, most.div_ceil(2)) else { break };
                running.spawn(Arc::clone(&self.shared).tell_of(event));
            }
            self.count();
            if !is_open && running.is_empty() && self.waiting.len() == 0 {
                return;
            }
            let due = [self.waiting.due(), self.silence.until.filter(|until| *until > now)].into_iter().flatten().min();
            tokio::select! {
                session = self.queue.recv(), if is_open => match session {
                    Some(session) => self.take(Some(session)),
                    None => is_open = false,
                },
                Some(told) = running.join_next(), if !running.is_empty() => {
                    if let Ok((event, outcome)) = told {
                        self.note(event, outcome, Instant::now());
                    }
                }
                () = sleep_until(due.unwrap_or(now).into()), if due.is_some() => {}
            }
        }
    }

    /// How many are told at once.
    fn at_once(&self, now: Instant) -> usize {
        match self.silence.until {
            Some(until) if now < until => 0,
            Some(_) => 1,
            None => self.shared.telling.load().target.concurrency(),
        }
    }

    fn take(&mut self, session: Option<Box<Session>>) {
        // A gap in the numbers is as many lost events.
        let lost = self.shared.stats.of(ToldOf::LostInQueue);
        self.seq += 1 + (lost - self.gaps);
        self.gaps = lost;
        let now = Instant::now();
        if !self.waiting.push(Event::new(self.seq, session, now), now) {
            self.shared.stats.count(ToldOf::NoRoom);
        }
    }

    fn note(&mut self, mut event: Event, outcome: Outcome, now: Instant) {
        let is_silent = matches!(&outcome, Outcome::Failed(error) if error.is_of_all());
        let problem = match &outcome {
            Outcome::Rejected(error) | Outcome::Failed(error) => {
                Some(self.shared.telling.load().target.redact(&error.to_string()))
            }
            Outcome::Taken | Outcome::Refused => None,
        };
        self.silence.note(is_silent, problem.as_deref(), now);
        self.shared.stats.set_broken(self.silence.until.is_some());
        if let Some(problem) = problem.filter(|_| !is_silent) {
            if is_due(&mut self.refused_told, now) {
                tracing::warn!(%problem, "the application of [hook] does not take an event as it should; its own log should say why (told once a minute)");
            } else {
                tracing::debug!(%problem, seq = event.seq, "the application of [hook] does not take an event");
            }
        }
        let stats = &self.shared.stats;
        match outcome {
            Outcome::Failed(_) => {
                stats.count(ToldOf::Retried);
                let wait = AGAIN_MIN.saturating_mul(1 << event.failures.min(6)).min(AGAIN_MAX);
                event.failures += 1;
                return self.waiting.put_back(event, now + wait);
            }
            Outcome::Taken => stats.count(ToldOf::Taken),
            Outcome::Rejected(_) => stats.count(ToldOf::Rejected),
            Outcome::Refused => {
                stats.count(ToldOf::Refused);
                event.session.iter().for_each(|session| (self.shared.end)(session.id));
            }
        }
        self.waiting.told(&event);
    }

    fn count(&mut self) {
        let stats = &self.shared.stats;
        stats.count_many(ToldOf::TooOld, self.waiting.take_too_old());
        stats.set_waiting(self.waiting.len());
    }
}

impl Shared {
    /// Tells one event.
    async fn tell_of(self: Arc<Self>, event: Event) -> (Event, Outcome) {
        let line = match &event.session {
            Some(session) => session.line(&self.server, event.seq),
            None => server_start_line(SystemTime::now(), &self.server, event.seq),
        };
        let telling = self.telling.load_full();
        let told = timeout(telling.target.timeout(), telling.target.post(line)).await;
        let is_start = event.session.as_ref().is_some_and(|session| session.is_start());
        let outcome = match told.unwrap_or(Err(HookError::TimedOut)) {
            Ok((status, body)) => match read_to_event(status, &body) {
                Ok(Verdict::End) if is_start => Outcome::Refused,
                Ok(_) => Outcome::Taken,
                Err(HookError::Status(status)) if is_for_a_while(status) => Outcome::Failed(HookError::Status(status)),
                Err(error) => Outcome::Rejected(error),
            },
            Err(error) if error.is_of_all() => Outcome::Failed(error),
            Err(error) => Outcome::Rejected(error),
        };
        (event, outcome)
    }
}

/// Whether a server that answers so may take the same another time.
fn is_for_a_while(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}

impl Silence {
    fn note(&mut self, is_silent: bool, problem: Option<&str>, now: Instant) {
        if !is_silent {
            self.in_a_row = 0;
            self.until = None;
            if std::mem::take(&mut self.is_told) {
                tracing::info!("the application of [hook] takes events again");
            }
            return;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if let Some(doublings) = self.in_a_row.checked_sub(SILENT_MAX) {
            self.until = Some(now + AGAIN_MIN.saturating_mul(1 << doublings.min(6)).min(PAUSE_MAX));
            let problem = problem.unwrap_or_default();
            if is_due(&mut self.told_at, now) {
                self.is_told = true;
                tracing::warn!(%problem, "the application of [hook] takes no events: they wait for a minute at most, and are then lost");
            }
        }
    }
}

fn is_due(told_at: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = told_at.is_none_or(|told| now.saturating_duration_since(told) >= LOG_INTERVAL);
    if is_due {
        *told_at = Some(now);
    }
    is_due
}

/// Of events that nobody has taken, it may be said how many there are; then nobody waits for them any more.
impl Drop for Teller {
    fn drop(&mut self) {
        let events = self.waiting.len() + self.queue.len();
        if events > 0 {
            tracing::warn!(events, "the application of [hook] was not told of everything before the server stopped");
        }
        self.shared.stats.count_many(ToldOf::TooOld, events as u64);
        self.shared.stats.set_waiting(0);
    }
}
