//! Tells the application of allocations that are made and that end, one event a request, and ends those that it does not want.
//!
//! Workers put events into a bounded queue and never wait. One task on the control runtime tells them, so many at once, again and again
//! for a minute where nobody takes them. While nobody answers, that many try and then there is a pause. What is lost on this way is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::answer::{Verdict, read_to_event};
use super::exchange::{HookError, Target};
use super::silence::{May, Silence};
use super::stats::{BROKEN_KEPT, EventStats, ToldOf};
use super::waiting::{Event, Waiting};
use crate::addr::{FiveTuple, RelayedAddr};
use crate::config::{HookEvent, HookEvents};
use crate::turn::{AllocationId, AllocationSummary};
use crate::usage::{Session, server_start_line};
use crate::user::User;

/// Events on their way from the workers: as many as allocations may end at once when the server stops.
const QUEUE_MAX: usize = 16_384;
/// An event that was answered, and not taken, waits so long, and twice as long each time.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(8);
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
    unanswered_told: Option<Instant>,
}

struct Shared {
    telling: ArcSwap<Telling>,
    /// Another one is told: what the one before did not answer is not held against it.
    has_changed: AtomicBool,
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

/// All ends of it. `server` is another text for each run.
pub fn tell(
    events: &HookEvents,
    server: String,
    stats: Arc<EventStats>,
    end: EndAllocation,
) -> (EventSender, EventControl, Teller) {
    let (send, queue) = mpsc::channel(QUEUE_MAX);
    let telling = ArcSwap::from_pointee(Telling::new(events));
    stats.health().begin(events.url.to_string());
    let shared = Arc::new(Shared { telling, has_changed: AtomicBool::new(false), server, end, stats });
    let teller = Teller {
        queue,
        shared: Arc::clone(&shared),
        waiting: Waiting::default(),
        seq: 0,
        gaps: 0,
        silence: Silence::default(),
        refused_told: None,
        unanswered_told: None,
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
            self.0.stats.health().begin(events.url.to_string());
            self.0.stats.broken().set(None);
            self.0.has_changed.store(true, Ordering::Release);
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
            while let Some(event) = self.next(running.len(), now) {
                running.spawn(Arc::clone(&self.shared).tell_of(event));
            }
            self.count();
            if !is_open && running.is_empty() && self.waiting.len() == 0 {
                return;
            }
            let due = [self.waiting.due(), self.silence.due(now)].into_iter().flatten().min();
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

    /// The next one, where so many are being told.
    fn next(&mut self, being_told: usize, now: Instant) -> Option<Event> {
        let at_once = self.shared.telling.load().target.concurrency();
        if being_told >= at_once {
            return None;
        }
        if self.shared.has_changed.swap(false, Ordering::AcqRel) {
            self.silence.end();
        }
        let only_known = match self.silence.may_begin(at_once, now) {
            May::Everybodys => false,
            May::OfKnown => true,
            May::Nobodys => return None,
        };
        let event = self.waiting.next(now, at_once, only_known)?;
        self.silence.begun(now);
        Some(event)
    }

    fn take(&mut self, session: Option<Box<Session>>) {
        self.take_at(session, Instant::now());
    }

    fn take_at(&mut self, session: Option<Box<Session>>, now: Instant) {
        // A gap in the numbers is as many lost events.
        let lost = self.shared.stats.of(ToldOf::LostInQueue);
        self.seq += 1 + (lost - self.gaps);
        self.gaps = lost;
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
        let health = self.shared.stats.health();
        match &problem {
            Some(problem) => {
                health.has_failed(!is_silent, event.session.as_ref().map(|session| session.user.name()), problem);
            }
            None => health.is_well(),
        }
        let problem = problem.unwrap_or_default();
        if is_silent {
            self.shared.stats.count(ToldOf::Retried);
            event.failures += 1;
            let whose = self.waiting.put_back_unanswered(event, now);
            self.silence.note(whose, now);
            return self.tell_of_silence(&problem, now);
        }
        if self.silence.end() {
            tracing::info!("the application of [hook] takes events again");
        }
        self.shared.stats.broken().set(None);
        if !problem.is_empty() {
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
        self.waiting.told(event, now);
    }

    fn tell_of_silence(&mut self, problem: &str, now: Instant) {
        self.shared.stats.broken().set(self.silence.is_of_all(now).then_some(now + BROKEN_KEPT));
        if self.silence.is_of_all(now) {
            if is_due(&mut self.silence.told_at, now) {
                self.silence.is_told = true;
                tracing::warn!(%problem, "the application of [hook] takes no events: they wait for a minute at most, and are then lost");
            }
        } else if is_due(&mut self.unanswered_told, now) {
            tracing::warn!(%problem, "the application of [hook] has not answered an event: it is told again, and those of users whom it answers go on (told once a minute)");
        }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::waiting::tests::session;
    use super::*;
    use crate::config::HookUrl;

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn teller(concurrency: usize) -> Teller {
        let events = HookEvents {
            url: HookUrl::Unix("/nowhere".into()),
            is_elsewhere: true,
            token: None,
            timeout: TIMEOUT,
            concurrency,
            wanted: vec![HookEvent::Start, HookEvent::Stop],
        };
        tell(&events, "server".to_owned(), Arc::default(), Box::new(|_| {})).2
    }

    /// An application in virtual time, which answers at once or not at all. Each user makes an allocation a second. Returns how late each event of
    /// `good` was told, and how many events were sent in each second.
    fn play(
        teller: &mut Teller,
        when: (Instant, u64),
        users: &[String],
        answers: impl Fn(&str) -> bool,
    ) -> (Vec<u64>, Vec<u64>) {
        play_with(teller, when, |_| users.to_vec(), answers)
    }

    /// The same with other users each second.
    fn play_with(
        teller: &mut Teller,
        (start, secs): (Instant, u64),
        users: impl Fn(u64) -> Vec<String>,
        answers: impl Fn(&str) -> bool,
    ) -> (Vec<u64>, Vec<u64>) {
        const STEP_MILLIS: u64 = 50;
        let mut running: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
        let (mut made, mut lags, mut sent) = (BTreeMap::new(), Vec::new(), vec![0; secs as usize]);
        for at in (0..secs * 1000).step_by(STEP_MILLIS as usize) {
            let now = start + Duration::from_millis(at);
            if at % 1000 == 0 {
                for user in users(at / 1000) {
                    made.insert(teller.seq + 1, at);
                    let id = teller.seq + 1;
                    teller.take_at(Some(session(&user, id, true)), now);
                }
            }
            while let Some(timed_out) = running.first_entry().filter(|first| *first.key() <= at) {
                timed_out
                    .remove()
                    .into_iter()
                    .for_each(|event| teller.note(event, Outcome::Failed(HookError::TimedOut), now));
            }
            loop {
                let being_told = running.values().map(Vec::len).sum();
                let Some(event) = teller.next(being_told, now) else { break };
                sent[(at / 1000) as usize] += 1;
                let name = event.session.as_ref().unwrap().user.name().to_string();
                if answers(&name) {
                    if name == "good" {
                        lags.extend(made.get(&event.seq).map(|made| at - made));
                    }
                    teller.note(event, Outcome::Taken, now);
                } else {
                    running.entry(at + TIMEOUT.as_millis() as u64).or_default().push(event);
                }
            }
            teller.count();
        }
        let end = start + Duration::from_secs(secs);
        for event in running.into_values().flatten() {
            teller.note(event, Outcome::Failed(HookError::TimedOut), end);
        }
        (lags, sent)
    }

    fn users(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("evil {n}")).chain(["good".to_owned()]).collect()
    }

    #[test]
    fn users_on_whom_the_application_hangs_delay_nobody_elses_events() {
        for (concurrency, late_secs) in [(16, 20), (4, 50)] {
            let mut teller = teller(concurrency);
            let (lags, _) = play(&mut teller, (Instant::now(), 120), &users(40), |user| user == "good");
            assert!(lags.len() >= 119, "{} of 120", lags.len());
            let worst = lags.iter().max().unwrap() / 1000;
            assert!(worst <= late_secs, "{concurrency} at once: {worst} s late");
            // Who hangs is known by then.
            let late: Vec<_> = lags.iter().rev().take(30).filter(|lag| **lag > 1000).collect();
            assert!(late.is_empty(), "{concurrency} at once: {late:?}");
        }
    }

    #[test]
    fn new_users_on_whom_the_application_hangs_delay_nobodys_events_whom_it_answers() {
        for (concurrency, a_second) in [(16, 5), (16, 20), (16, 500), (4, 20), (1, 20)] {
            let mut teller = teller(concurrency);
            let guests = |second: u64, count: u64| (0..count).map(move |n| format!("guest {}", second * count + n));
            let who = |second: u64| ["good".to_owned()].into_iter().chain(guests(second, a_second)).collect();
            let (lags, sent) = play_with(&mut teller, (Instant::now(), 120), who, |user| user == "good");
            let what = format!("{a_second} a second, {concurrency} at once: {} of 120, {lags:?}, {sent:?}", lags.len());
            assert!(lags.len() >= 119, "{what}");
            // As long as one that hangs has what there is: all places in the first moment, the only one at any time.
            let most = if concurrency == 1 { 2 * TIMEOUT } else { TIMEOUT };
            assert!(lags.iter().all(|lag| u128::from(*lag) <= most.as_millis()), "{what}");
            let late = lags.iter().skip(5).filter(|lag| **lag > 0).count();
            assert!(concurrency == 1 || late == 0, "{what}");
            assert!(!teller.shared.stats.is_broken());
            // The others are tried all the same.
            assert!(sent[60..].iter().sum::<u64>() > 60, "{what}");
        }
    }

    #[test]
    fn an_application_that_is_gone_is_asked_by_a_few_and_is_told_of_the_last_minute_once_it_is_back() {
        let (mut teller, start) = (teller(16), Instant::now());
        let everybody = users(1000);
        let (_, sent) = play(&mut teller, (start, 40), &everybody, |_| false);
        assert!(sent[10..].iter().sum::<u64>() <= 30 * 16 / 4 + 16, "{sent:?}");
        assert!(teller.shared.stats.is_broken());
        let (lags, _) = play(&mut teller, (start + Duration::from_secs(40), 20), &everybody, |_| true);
        assert!(!teller.shared.stats.is_broken());
        // What waited meanwhile had left no room at first.
        assert!(lags.len() >= 15, "{lags:?}");
        assert_eq!(teller.waiting.len(), 0);
    }

    #[test]
    fn one_user_alone_makes_nobody_wait_and_is_told_of_when_nobody_else_is_there() {
        let (mut teller, start) = (teller(16), Instant::now());
        let (_, sent) = play(&mut teller, (start, 40), &["evil 1".to_owned()], |_| false);
        assert!(sent[10..].iter().all(|sent| *sent <= 1), "{sent:?}");
        assert!(teller.shared.stats.is_broken());
        let (lags, _) = play(&mut teller, (start + Duration::from_secs(40), 40), &users(1), |user| user == "good");
        assert!(lags.len() == 40 && lags.iter().all(|lag| *lag == 0), "{lags:?}");
    }

    #[test]
    fn what_one_application_did_not_answer_is_not_held_against_the_next_one() {
        let (mut teller, start) = (teller(16), Instant::now());
        let _ = play(&mut teller, (start, 40), &users(1000), |_| false);
        assert!(teller.shared.stats.is_broken() && teller.silence.is_of_all(start + Duration::from_secs(40)));
        let control = EventControl(Arc::clone(&teller.shared));
        let before = teller.shared.telling.load().events.clone();
        control.reload(&before);
        assert!(teller.shared.stats.is_broken(), "it is the same");
        control.reload(&HookEvents { url: HookUrl::Unix("/elsewhere".into()), ..before });
        assert!(!teller.shared.stats.is_broken());
        let at = start + Duration::from_secs(40);
        assert!(teller.next(0, at).is_some() && !teller.silence.is_of_all(at));
    }
}
