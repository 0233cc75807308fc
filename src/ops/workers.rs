//! The workers as the control runtime sees them: what all of them are told, what they answer, and their threads.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::error::{RunError, WorkerEnd};
use crate::counters::{self, Counters};
use crate::net::sys;
use crate::turn::{AllocationFilter, Answer, AskId, Judgement, Settings};
use crate::usage::AskWorker;
use crate::worker::{Command, Mailbox, Worker, WorkerContext, WorkerListener};

/// How long the workers may take to judge their allocations before that is told.
const JUDGING_LIMIT: Duration = Duration::from_secs(10);

/// How long they may take to end allocations of what is revoked.
const ENDING_LIMIT: Duration = Duration::from_secs(4);

/// How long one may take to say some round trips.
const SAMPLING_LIMIT: Duration = Duration::from_secs(1);

/// How to reach the workers, and what they count, by their numbers.
#[derive(Clone)]
pub(super) struct Workers {
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
    pub(super) counters: Vec<Arc<Counters>>,
}

impl Workers {
    pub(super) fn new(count: usize) -> io::Result<Self> {
        let mailboxes = (0..count).map(|_| Mailbox::new().map(Arc::new)).collect::<io::Result<_>>()?;
        Ok(Self { mailboxes, counters: (0..count).map(|_| Arc::default()).collect() })
    }

    pub(super) fn tell(&self, order: impl Fn() -> Command) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.send(order()));
    }

    /// Asks every one for a sign of life, which it gives when it has carried out what it was told before.
    pub(super) fn ping(&self) -> Ping {
        let asked_micros = sys::clocks().0;
        let seen = self.mailboxes.iter().map(|mailbox| {
            let seen = Arc::new(AtomicU64::new(0));
            mailbox.send(Command::Ping(Arc::clone(&seen)));
            seen
        });
        Ping { asked_micros, seen: seen.collect() }
    }

    /// Hands a snapshot to every one.
    pub(super) fn apply(&self, settings: &Arc<Settings>) -> Judging {
        let judging = self.mailboxes.iter().map(|mailbox| {
            let (send, judgement) = oneshot::channel();
            let reply = Box::new(move |judgement| {
                let _ = send.send(judgement);
            });
            mailbox.send(Command::Apply(Arc::clone(settings), reply));
            judgement
        });
        Judging { workers: judging.collect(), before: None }
    }

    /// Round trips to some of the clients over TCP and TLS, in microseconds, as far as workers say them soon.
    pub(super) async fn some_round_trips(&self) -> Vec<u32> {
        let asked = self.mailboxes.iter().map(|mailbox| {
            let (send, answer) = oneshot::channel();
            mailbox.send(Command::RoundTrips(Box::new(move |found| drop(send.send(found)))));
            answer
        });
        let asked: Vec<_> = asked.collect();
        let mut all = Vec::new();
        for answer in asked {
            if let Ok(Ok(found)) = timeout(SAMPLING_LIMIT, answer).await {
                all.extend(found);
            }
        }
        all
    }

    /// Has every one end the allocations of what is revoked. Returns whether all have.
    pub(super) async fn end_revoked(&self) -> bool {
        let ending = self.mailboxes.iter().map(|mailbox| {
            let (send, ended) = oneshot::channel();
            let reply = Box::new(move |count| {
                let _ = send.send(count);
            });
            mailbox.send(Command::EndRevoked(reply));
            ended
        });
        let ending: Vec<_> = ending.collect();
        let all = async {
            for ended in ending {
                let _ = ended.await;
            }
        };
        timeout(ENDING_LIMIT, all).await.is_ok()
    }

    /// Takes answers to the questions of workers to them.
    pub(super) fn take_answers(&self) -> Box<dyn Fn(u16, AskId, Answer) + Send + Sync> {
        let mailboxes = self.mailboxes.clone();
        Box::new(move |worker, id, answer| {
            if let Some(mailbox) = mailboxes.get(usize::from(worker)) {
                mailbox.send(Command::Answered(id, answer));
            }
        })
    }

    pub(super) fn live_allocations(&self) -> u64 {
        counters::sum(&self.counters, |counters| counters.allocations.get())
    }

    /// Lets the writer of usage records ask a worker for its live allocations.
    pub(super) fn ask_for_usage(&self) -> AskWorker {
        let mailboxes = self.mailboxes.clone();
        Box::new(move |worker, after, limit, take| {
            let Some(mailbox) = mailboxes.get(worker) else { return };
            let reply = Box::new(move |views| take(sys::clocks().0, views));
            mailbox.send(Command::List { filter: AllocationFilter::default(), after, limit, reply });
        })
    }
}

/// Who has given a sign of life since it was asked for.
pub(super) struct Ping {
    pub(super) asked_micros: u64,
    seen: Vec<Arc<AtomicU64>>,
}

impl Ping {
    /// The number of one that has given none yet.
    pub(super) fn silent(&self) -> Option<usize> {
        self.seen.iter().position(|seen| seen.load(Ordering::Acquire) < self.asked_micros)
    }

    /// How many have given one.
    pub(super) fn answered(&self) -> usize {
        self.seen.iter().filter(|seen| seen.load(Ordering::Acquire) >= self.asked_micros).count()
    }
}

/// The workers judge their allocations by what was applied.
pub(super) struct Judging {
    workers: Vec<oneshot::Receiver<Judgement>>,
    /// What was in force before. A million users take a while to be given back: that must not fall to a worker.
    before: Option<Arc<Settings>>,
}

/// Why it is not known what came of that.
pub(super) enum Unjudged {
    /// The server stops.
    Stopping,
    /// A worker has not answered in time; it goes on judging.
    Late,
}

impl Judging {
    /// Keeps what was in force before until the workers have let go of it.
    pub(super) fn keeping(mut self, before: Arc<Settings>) -> Self {
        self.before = Some(before);
        self
    }

    /// What came of it, over all workers.
    pub(super) async fn end(self) -> Result<Judgement, Unjudged> {
        let sum = async {
            let mut sum = Judgement::default();
            for worker in self.workers {
                let of_worker = worker.await.map_err(|_| Unjudged::Stopping)?;
                sum.allocations += of_worker.allocations;
                sum.permissions_ended += of_worker.permissions_ended;
                sum.channels_ended += of_worker.channels_ended;
                sum.connections_ended += of_worker.connections_ended;
                sum.allocations_ended += of_worker.allocations_ended;
            }
            Ok(sum)
        };
        let judgement = timeout(JUDGING_LIMIT, sum).await.unwrap_or(Err(Unjudged::Late));
        // Nor to the control runtime.
        let _ = spawn_blocking(|| drop(self.before)).await;
        judgement
    }
}

/// The threads, by number.
pub(super) struct Threads {
    running: Vec<JoinHandle<io::Result<()>>>,
    end: mpsc::UnboundedSender<usize>,
    ended: mpsc::UnboundedReceiver<usize>,
}

impl Threads {
    /// Starts a worker on each list of sockets.
    pub(super) fn start(
        sockets: Vec<Vec<WorkerListener>>,
        workers: &Workers,
        context: &WorkerContext,
    ) -> Result<Self, RunError> {
        let mut threads = Self::new();
        for (number, (listeners, counters)) in sockets.into_iter().zip(&workers.counters).enumerate() {
            let failed = |error| RunError::WorkerStart { number, error };
            let worker =
                Worker::new(number as u16, listeners, Arc::clone(counters), context.clone()).map_err(failed)?;
            threads.spawn(|| worker.run()).map_err(failed)?;
        }
        Ok(threads)
    }

    fn new() -> Self {
        let (end, ended) = mpsc::unbounded_channel();
        Self { running: Vec::new(), end, ended }
    }

    /// Starts the next one.
    fn spawn(&mut self, run: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let number = self.running.len();
        let notice = EndNotice { number, end: self.end.clone() };
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let _notice = notice;
            run()
        });
        self.running.push(thread?);
        Ok(())
    }

    /// Waits for the end of one that nobody has told to stop.
    pub(super) async fn failure(&mut self) -> RunError {
        let number = self.ended.recv().await.unwrap_or_default();
        let end = if number < self.running.len() { Some(self.running.swap_remove(number).join()) } else { None };
        let end = match end {
            None | Some(Ok(Ok(()))) => WorkerEnd::Silent,
            Some(Ok(Err(error))) => WorkerEnd::Failed(error),
            Some(Err(payload)) => WorkerEnd::Panicked(message_of(&*payload)),
        };
        RunError::WorkerEnd { number, end }
    }

    /// Waits for all of them, which have been told to stop.
    pub(super) fn join(self) {
        for worker in self.running {
            let _ = worker.join();
        }
    }
}

/// What a panic says.
fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word").to_owned()
}

/// Says that a worker's thread has ended, however it ended.
struct EndNotice {
    number: usize,
    end: mpsc::UnboundedSender<usize>,
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        let _ = self.end.send(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_answered_since_the_question_is_silent() {
        let ping = Ping { asked_micros: 5, seen: [5, 4, 6].map(|seen| Arc::new(AtomicU64::new(seen))).to_vec() };
        assert_eq!((ping.silent(), ping.answered()), (Some(1), 2));
    }

    /// What ends the server, of two workers one of which runs on.
    async fn failure_of(run: fn() -> io::Result<()>) -> RunError {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let mut threads = Threads::new();
        let runs_on = move || {
            let _ = stopped.recv();
            Ok(())
        };
        threads.spawn(runs_on).unwrap();
        threads.spawn(run).unwrap();
        let failure = timeout(Duration::from_secs(20), threads.failure()).await.unwrap();
        drop(stop);
        threads.join();
        failure
    }

    #[tokio::test]
    async fn however_a_worker_ends_unasked_it_ends_the_server_with_its_reason_and_a_start_is_tried_again() {
        type Run = fn() -> io::Result<()>;
        let ends: [(Run, &str); 5] = [
            (|| panic!("slot {} of none", 7), "it panicked: slot 7 of none"),
            (|| panic!("at once"), "it panicked: at once"),
            (|| std::panic::panic_any(7), "it panicked: without a word"),
            (|| Err(io::Error::other("no epoll")), "no epoll"),
            (|| Ok(()), "it ended"),
        ];
        for (run, reason) in ends {
            let failure = failure_of(run).await;
            assert_eq!((failure.to_string(), failure.lasts()), (format!("worker 1: {reason}"), false));
        }
    }
}
