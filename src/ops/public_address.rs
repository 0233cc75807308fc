//! The public addresses of relays, looked for while the server runs: a task asks again and again, and says what to go by. What has been found
//! once is kept while nobody says anything better.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::log_budget::LogBudget;
use super::status::{PublicAddressStats, RelayFacts};
use crate::addr::Family;
use crate::config::{Finding, Relay};
use crate::net::sys;
use crate::public_address::{Answer, Asker, SourceKind};

/// Two rounds begin so far apart at least, however often the host's addresses change.
const SPACING: Duration = Duration::from_secs(5);
/// A new address is asked for twice; so long after the first time.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);
/// An address stays so long at least.
const HOLD: Duration = Duration::from_secs(60);
/// How long after the first failure to ask again, while there is no address; then twice as long, up to the interval.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What is found, and what was said of it.
pub(super) struct PublicAddresses {
    wanted: watch::Sender<Wanted>,
    rounds: mpsc::Receiver<Round>,
    task: JoinHandle<()>,
    known: [Known; 2],
    log: LogBudget,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// The address of each family that another one stands for outside.
    binds: [Option<IpAddr>; 2],
    /// How often the host's addresses have changed.
    changes: u64,
}

/// What came of asking for one family.
pub(super) struct Round {
    family: Family,
    verdict: Verdict,
    /// Who has failed, and what to say of it.
    failure: Option<String>,
}

/// What is known of one family.
#[derive(Clone, Debug, Default)]
struct Known {
    in_force: Option<Answer>,
    confirmed_unix: Option<u64>,
    failure: Option<String>,
}

impl PublicAddresses {
    /// Begins to look, if the configuration wants it.
    pub(super) fn start(finding: &Finding, stats: std::sync::Arc<PublicAddressStats>) -> Option<Self> {
        finding.by.as_ref()?;
        let (wanted, wants) = watch::channel(Wanted::default());
        let (send, rounds) = mpsc::channel(Family::ALL.len());
        let seeker = Seeker { finding: finding.clone(), asker: Asker::default(), stats, held: Default::default() };
        let task = tokio::spawn(seeker.seek(wants, send));
        Some(Self { wanted, rounds, task, known: Default::default(), log: LogBudget::default() })
    }

    /// Says which addresses of this host public ones are looked for, and whether the host's have changed: then it is asked again.
    pub(super) fn seek(&self, relay: &Relay, has_changed: bool) {
        self.wanted.send_if_modified(|wanted| {
            let binds = Family::ALL.map(|family| relay.sought(family).next());
            let is_new = wanted.binds != binds || has_changed;
            wanted.binds = binds;
            wanted.changes += u64::from(has_changed);
            is_new
        });
    }

    /// Waits for the next that there is to say.
    pub(super) async fn round(&mut self) -> Round {
        match self.rounds.recv().await {
            Some(round) => round,
            // It ends with the server.
            None => std::future::pending().await,
        }
    }

    /// Takes over what came of a round.
    pub(super) fn take(&mut self, round: Round, relay: &mut Relay, stats: &PublicAddressStats) {
        let Round { family, verdict, failure } = round;
        let Some(known) = self.known.get_mut(family as usize) else { return };
        let had_failed = known.failure.is_some();
        known.failure.clone_from(&failure);
        match (&failure, known.in_force) {
            // Readiness says it where there is none.
            (Some(failure), Some(kept)) if !had_failed => {
                let kept = kept.ip;
                self.log.tell(|more| {
                    tracing::warn!(%family, %kept, %failure, "nobody says what the public address is; the one of before stays{more}");
                });
            }
            (None, Some(_)) if had_failed => {
                self.log.tell(|more| tracing::info!(%family, "it is known again what the public address is{more}"));
            }
            _ => {}
        }
        let Verdict { adopt, is_confirmed } = verdict;
        if is_confirmed || adopt.is_some() {
            known.confirmed_unix = Some(sys::clocks().1);
        }
        let Some(Answer { ip, source }) = adopt else { return };
        let before = known.in_force.replace(Answer { ip, source });
        match before.filter(|before| before.ip != ip) {
            Some(before) => {
                stats.count_change(family);
                self.log.tell(|more| {
                    tracing::warn!(
                        %family, before = %before.ip, now = %ip, found_by = source.name(),
                        "the public address has changed, for new allocations{more}"
                    );
                });
            }
            None if before.is_none() => {
                self.log.tell(|more| {
                    tracing::info!(%family, address = %ip, found_by = source.name(), "the public address was found{more}");
                });
            }
            None => {}
        }
        relay.set_found(family, Some(ip));
    }

    /// Why there is no public address, or no confirmation of it.
    pub(super) fn failure(&self, family: Family) -> Option<&str> {
        self.known.get(family as usize)?.failure.as_deref()
    }
}

impl Drop for PublicAddresses {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The relay addresses as they are, for who asks.
pub(super) fn facts(public: Option<&PublicAddresses>, relay: &Relay) -> Vec<RelayFacts> {
    let facts = Family::ALL.into_iter().flat_map(|family| {
        let known = public.and_then(|public| public.known.get(family as usize)).cloned().unwrap_or_default();
        relay.binds(family).map(move |bind| {
            let is_sought = relay.sought(family).any(|sought| sought == bind);
            let source = match known.in_force {
                _ if relay.written(bind).is_some() => "external-ip",
                _ if !is_sought => SourceKind::Interface.name(),
                Some(answer) => answer.source.name(),
                None => "none",
            };
            let known = if is_sought { known.clone() } else { Known::default() };
            RelayFacts {
                family,
                bind,
                external: relay.at(bind).map(|address| address.external),
                source,
                confirmed_unix: known.confirmed_unix,
                failure: known.failure,
            }
        })
    });
    facts.collect()
}

/// The task.
struct Seeker {
    finding: Finding,
    asker: Asker,
    stats: std::sync::Arc<PublicAddressStats>,
    held: [Held; 2],
}

impl Seeker {
    async fn seek(mut self, mut wanted: watch::Receiver<Wanted>, rounds: mpsc::Sender<Round>) {
        loop {
            let started = Instant::now();
            let binds = wanted.borrow_and_update().binds;
            let mut next = self.finding.interval;
            for (family, bind) in Family::ALL.into_iter().zip(binds) {
                let (Some(bind), Some(held)) = (bind, self.held.get_mut(family as usize)) else { continue };
                let asked = self.asker.ask(&self.finding, bind).await;
                self.stats.count(&asked);
                for (source, failure) in &asked.failures {
                    tracing::debug!(%family, %bind, asked = source.name(), %failure, "no public address");
                }
                if let Some(Answer { ip, source }) = asked.answer {
                    tracing::debug!(%family, %bind, asked = source.name(), %ip, "a public address");
                }
                let failure = asked.answer.is_none().then(|| told(&asked.failures, bind));
                let (verdict, again) = held.judge(asked.answer, Instant::now());
                next = next.min(again.unwrap_or(next));
                if rounds.send(Round { family, verdict, failure }).await.is_err() {
                    return;
                }
            }
            let at = Instant::now() + next;
            tokio::select! {
                () = sleep_until(at) => {}
                changed = wanted.changed() => match changed {
                    // Changes come in groups.
                    Ok(()) => sleep_until(started + SPACING).await,
                    Err(_) => return,
                },
            }
        }
    }
}

/// Why nobody says it, in one line.
fn told(failures: &[(SourceKind, impl fmt::Display)], bind: IpAddr) -> String {
    match failures {
        [] => format!("{bind} is no public one, and external-ip-sources in [relay] names nobody to ask"),
        failures => failures.iter().map(|(_, failure)| failure.to_string()).collect::<Vec<_>>().join("; "),
    }
}

/// What to make of an answer, or of none.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// The address to go by from now on.
    adopt: Option<Answer>,
    /// Whether the one in force was named again.
    is_confirmed: bool,
}

/// The address of one family that is gone by, and the one that may follow.
#[derive(Debug, Default)]
struct Held {
    in_force: Option<Answer>,
    changed_at: Option<Instant>,
    /// What was said once.
    candidate: Option<IpAddr>,
    failures: u32,
}

impl Held {
    /// Judges an answer. Returns when to ask again, where that is before the interval is over.
    fn judge(&mut self, answer: Option<Answer>, now: Instant) -> (Verdict, Option<Duration>) {
        const NOTHING: Verdict = Verdict { adopt: None, is_confirmed: false };
        let Some(answer) = answer else {
            self.candidate = None;
            let again = RETRY_AFTER.saturating_mul(2_u32.saturating_pow(self.failures));
            self.failures = self.failures.saturating_add(1);
            return (NOTHING, self.in_force.is_none().then_some(again));
        };
        self.failures = 0;
        let Some(before) = self.in_force else {
            self.in_force = Some(answer);
            return (Verdict { adopt: Some(answer), is_confirmed: true }, None);
        };
        if before.ip == answer.ip {
            self.candidate = None;
            let adopt = (before.source != answer.source).then_some(answer);
            self.in_force = Some(answer);
            return (Verdict { adopt, is_confirmed: true }, None);
        }
        let held_for = self.changed_at.map(|at| (at + HOLD).saturating_duration_since(now)).unwrap_or_default();
        if self.candidate == Some(answer.ip) && held_for.is_zero() {
            *self = Self { in_force: Some(answer), changed_at: Some(now), candidate: None, failures: 0 };
            return (Verdict { adopt: Some(answer), is_confirmed: true }, None);
        }
        self.candidate = Some(answer.ip);
        (NOTHING, Some(held_for.max(CONFIRM_AFTER)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &str) -> Option<Answer> {
        Some(Answer { ip: text.parse().unwrap(), source: SourceKind::Stun })
    }

    /// What is gone by after each of these answers, five seconds apart; and how often that has changed.
    fn play(answers: &[Option<Answer>]) -> (Vec<Option<IpAddr>>, usize) {
        let (mut held, mut now, mut changes) = (Held::default(), Instant::now(), 0);
        let mut in_force = Vec::new();
        for answer in answers {
            let before = held.in_force.map(|answer| answer.ip);
            held.judge(*answer, now);
            let after = held.in_force.map(|answer| answer.ip);
            changes += usize::from(before.is_some() && before != after);
            in_force.push(after);
            now += CONFIRM_AFTER;
        }
        (in_force, changes)
    }

    #[test]
    fn the_first_answer_is_taken_and_another_one_when_it_is_given_twice() {
        let (old, new) = ("5.44.1.1", "5.44.1.2");
        let (in_force, _) = play(&[says(old), says(new), says(old), says(new), None, says(new), says(new)]);
        let shown: Vec<_> = in_force.iter().flatten().map(ToString::to_string).collect();
        assert_eq!(shown, [old, old, old, old, old, old, new]);
    }

    #[test]
    fn nobody_who_answers_takes_away_what_was_found() {
        let (in_force, changes) = play(&[None, says("5.44.1.1"), None, None, None]);
        assert_eq!((in_force[0], in_force[4], changes), (None, Some("5.44.1.1".parse().unwrap()), 0));
    }

    #[test]
    fn an_address_that_flaps_changes_once_a_minute_at_most() {
        let answers: Vec<_> = (0..240).map(|n| says(if n / 2 % 2 == 0 { "5.44.1.1" } else { "5.44.1.2" })).collect();
        let (_, changes) = play(&answers);
        assert!((10..=20).contains(&changes), "{changes} in twenty minutes");
    }

    #[test]
    fn while_there_is_none_it_is_asked_again_soon_and_then_later() {
        let mut held = Held::default();
        let mut again = || held.judge(None, Instant::now()).1;
        assert_eq!([again(), again(), again()], [5, 10, 20].map(|secs| Some(Duration::from_secs(secs))));
        (0..100).for_each(|_| assert!(again().is_some()));
        assert!(again() > Some(Duration::from_secs(3600)), "the interval bounds it");
        held.judge(says("5.44.1.1"), Instant::now());
        assert_eq!(held.judge(None, Instant::now()).1, None);
    }

    #[tokio::test]
    async fn what_is_found_becomes_the_relay_address_and_a_change_is_counted() {
        let (wanted, _) = watch::channel(Wanted::default());
        let (_send, rounds) = mpsc::channel(1);
        let task = tokio::spawn(async {});
        let mut public = PublicAddresses { wanted, rounds, task, known: Default::default(), log: LogBudget::default() };
        let bind: IpAddr = "10.0.0.5".parse().unwrap();
        let mut relay = Relay {
            finding: Finding { by: Some(crate::config::FoundBy::Auto), ..Finding::default() },
            waiting: vec![bind],
            ..Relay::default()
        };
        let stats = PublicAddressStats::default();
        let round = |adopt, failure: Option<&str>| Round {
            family: Family::V4,
            verdict: Verdict { adopt, is_confirmed: adopt.is_some() },
            failure: failure.map(str::to_owned),
        };
        public.take(round(None, Some("nobody")), &mut relay, &stats);
        assert_eq!(facts(Some(&public), &relay)[0].source, "none");
        for (found, changes) in [("5.44.1.1", 0), ("5.44.1.2", 1)] {
            public.take(round(says(found), None), &mut relay, &stats);
            let external = relay.of(Family::V4).map(|address| address.external.to_string()).collect::<Vec<_>>();
            assert_eq!((external, stats.changes(Family::V4)), (vec![found.to_owned()], changes));
        }
        public.take(round(None, Some("nobody")), &mut relay, &stats);
        let [fact] = &facts(Some(&public), &relay)[..] else { panic!() };
        assert_eq!((fact.source, fact.failure.as_deref()), ("stun", Some("nobody")));
        assert_eq!(fact.external, Some("5.44.1.2".parse().unwrap()));
    }
}
