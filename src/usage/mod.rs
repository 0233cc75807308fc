//! Usage records: what each allocation has used, as JSON lines in a file and to a webhook, at its start, at intervals and at
//! its end, so that what is billed survives a crash. `docs/usage-records.md` has the schema.
//!
//! Workers put facts into a bounded queue and never wait; one thread makes records of them and writes them to the file and
//! to the webhook's spool, another one empties the spool.

mod file;
mod lines;
mod merged;
mod record;
mod spool;
mod stats;
mod webhook;
mod writer;

use std::io;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

pub use stats::{Lost, UsageStats};

use crate::addr::{FiveTuple, RelayedAddr};
use crate::config::{Unusable, Usage, Wanted};
use crate::traffic::Traffic;
use crate::turn::{AllocationId, AllocationSummary, AllocationView, is_told_alone};
use crate::user::User;

use file::RecordFile;
use record::{Kind, Session};
use spool::Spool;
use webhook::{Sender, Token};
use writer::Writer;

/// Facts that may wait for the writer. An allocation's start and end are one each.
const QUEUE_MAX: usize = 16_384;
/// How many allocations a worker is asked for at a time, so that it is soon back at its packets.
const PAGE: usize = 256;
/// How long workers that stop, and relay nothing any more, wait for room in the queue, for all their records together.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How long the end of the server waits for the writer, and then for the webhook.
const WRITER_LIMIT: Duration = Duration::from_secs(5);
const WEBHOOK_LIMIT: Duration = Duration::from_secs(3);

/// Takes a worker's live allocations: the monotonic time in microseconds, and one page of them.
pub type TakePage = Box<dyn FnOnce(u64, Vec<AllocationView>) + Send>;

/// Asks a worker for its live allocations after an id, at most so many, by id.
pub type AskWorker = Box<dyn Fn(usize, Option<AllocationId>, usize, TakePage) + Send>;

enum Message {
    Fact(Box<Session>),
    /// The end of an allocation that gets no record of its own.
    ToMerge(Box<Session>),
    /// A page of a worker's live allocations, asked for in this round.
    Page {
        round: u64,
        worker: usize,
        at: SystemTime,
        now_micros: u64,
        views: Vec<AllocationView>,
    },
    /// There are new orders.
    Wake,
}

/// What the control side wants of the writer.
#[derive(Default)]
struct Orders {
    reopen: bool,
    apply: Option<Usage>,
    stop: Option<Stop>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Every allocation has ended with a record.
    Complete,
    /// Something has failed.
    Failure,
}

/// Where workers leave what they know; cheap to clone, never waits.
#[derive(Clone)]
pub struct UsageSender {
    queue: SyncSender<Message>,
    stats: Arc<UsageStats>,
    /// Until when workers that stop wait; set by the first of their records.
    stop_until: Arc<OnceLock<Instant>>,
}

impl UsageSender {
    /// An allocation was made, not of a user who makes too many for a record each.
    pub fn started(
        &self,
        id: AllocationId,
        five_tuple: FiveTuple,
        identity: (Arc<str>, User),
        relayed: Vec<RelayedAddr>,
    ) {
        let (username, user) = identity;
        let session = Session {
            kind: Kind::Start,
            at: SystemTime::now(),
            id,
            five_tuple,
            username,
            user,
            relayed,
            age_micros: 0,
            to_peers: Traffic::default(),
            to_client: Traffic::default(),
            throttled: 0,
        };
        self.send(Message::Fact(Box::new(session)), 1, Instant::now());
    }

    /// An allocation has ended. A worker that stops has no packets to hold up: it waits for room in the queue, some seconds
    /// at most.
    pub fn ended(&self, summary: &AllocationSummary, stops: bool) {
        let session = Session::stop(SystemTime::now(), summary);
        let now = Instant::now();
        let until = if stops { *self.stop_until.get_or_init(|| now + STOP_WAIT) } else { now };
        let alone = is_told_alone(summary.is_frequent, summary.to_peers, summary.to_client);
        let message = if alone { Message::Fact(Box::new(session)) } else { Message::ToMerge(Box::new(session)) };
        self.send(message, 1, until);
    }

    fn send(&self, mut message: Message, records: u64, until: Instant) {
        loop {
            message = match self.queue.try_send(message) {
                Ok(()) => return,
                Err(TrySendError::Full(message)) if Instant::now() < until => message,
                Err(_) => {
                    self.stats.count_lost(Lost::Queue, records);
                    return;
                }
            };
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The running threads; dropping it is a stop without the last word of the allocations.
pub struct UsageRecords {
    sender: UsageSender,
    orders: Arc<Mutex<Orders>>,
    token: Token,
    spool: Option<Arc<Spool>>,
    writer: Option<JoinHandle<()>>,
    webhook: Option<JoinHandle<()>>,
}

impl UsageRecords {
    /// Opens file and spool and starts the threads. `server` is another eight hexadecimal digits for each run of the server.
    ///
    /// # Errors
    /// With the path, when the operator must put something right; a full disk is waited for instead.
    pub fn start(
        config: &Usage,
        server: &str,
        workers: usize,
        stats: Arc<UsageStats>,
        ask: AskWorker,
    ) -> Result<Self, Unusable> {
        let (queue, facts) = sync_channel(QUEUE_MAX);
        let sender = UsageSender { queue, stats: Arc::clone(&stats), stop_until: Arc::default() };
        let orders = Arc::new(Mutex::new(Orders::default()));
        let token: Token = Arc::new(Mutex::new(config.webhook.as_ref().and_then(|webhook| webhook.token.clone())));
        let file = config.file.clone().map(|file| {
            let path = file.path.clone();
            RecordFile::new(file, Arc::clone(&stats))
                .map_err(|error| Unusable::path("usage.file", &path, Wanted::Write, &error))
        });
        let file = file.transpose()?;
        let spool = config.webhook.as_ref().map(|webhook| {
            let directory = &webhook.spool_directory;
            Spool::new(directory, webhook.spool_bytes_max, server, Arc::clone(&stats))
                .map(Arc::new)
                .map_err(|error| Unusable::path("usage.spool-directory", directory, Wanted::Write, &error))
        });
        let spool = spool.transpose()?;
        let failed = |error: io::Error| {
            let message = format!("cannot start a thread: {error}");
            Unusable { key: "usage", message, lasts: false }
        };
        let webhook = config.webhook.as_ref().zip(spool.clone()).map(|(webhook, spool)| {
            let sender = Sender::new(webhook, Arc::clone(&token), spool, Arc::clone(&stats));
            thread::Builder::new().name("usage-webhook".to_owned()).spawn(move || sender.run())
        });
        let webhook = webhook.transpose().map_err(failed)?;
        let writer = Writer {
            facts,
            orders: Arc::clone(&orders),
            sender: sender.clone(),
            server: server.to_owned(),
            workers,
            ask,
            file,
            spool: spool.clone(),
            interim: config.interim,
            stats,
        };
        let writer = thread::Builder::new().name("usage".to_owned()).spawn(move || writer.run()).map_err(failed)?;
        Ok(Self { sender, orders, token, spool, writer: Some(writer), webhook })
    }

    /// For the workers.
    pub fn sender(&self) -> UsageSender {
        self.sender.clone()
    }

    /// Takes over what a reload changed, and opens the file anew for those who have put it aside.
    pub fn reload(&self, config: Option<&Usage>) {
        if let Some(webhook) = config.and_then(|config| config.webhook.as_ref()) {
            self.token.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&webhook.token);
        }
        self.order(|orders| {
            orders.reopen = true;
            orders.apply = config.cloned();
        });
    }

    /// Writes everything that the workers, which have ended, have left, and stops. Waits some seconds at most; what the webhook
    /// has not taken by then stays in the spool.
    pub fn stop(mut self) {
        self.finish(Stop::Complete);
    }

    fn finish(&mut self, stop: Stop) {
        let Some(writer) = self.writer.take() else { return };
        self.order(|orders| orders.stop = Some(stop));
        if !join_within(writer, WRITER_LIMIT) {
            tracing::error!("the disk is too slow: the last usage records are not written");
        }
        if let (Some(spool), Some(webhook)) = (&self.spool, self.webhook.take()) {
            spool.stop();
            if !join_within(webhook, WEBHOOK_LIMIT) {
                tracing::info!("the webhook has not taken every usage record; the rest stays in the spool");
            }
        }
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        // When the queue is full, the writer is awake.
        let _ = self.sender.queue.try_send(Message::Wake);
    }
}

impl Drop for UsageRecords {
    fn drop(&mut self) {
        self.finish(Stop::Failure);
    }
}

/// Returns whether the thread has ended in time.
fn join_within(thread: JoinHandle<()>, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    while !thread.is_finished() {
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = thread.join();
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{ClientAddr, Transport};
    use crate::turn::EndReason;

    fn summary(id: u64) -> AllocationSummary {
        let address = "127.0.0.1:3478".parse().unwrap();
        AllocationSummary {
            id: AllocationId::new(0, id).unwrap(),
            five_tuple: FiveTuple { transport: Transport::Udp, client: ClientAddr::new(address), server: address },
            username: Arc::from("1:alice"),
            user: User::time_limited("alice"),
            is_frequent: false,
            relayed: Vec::new(),
            duration_micros: 1,
            to_peers: Traffic::default(),
            to_client: Traffic::default(),
            throttled: 0,
            reason: EndReason::Shutdown,
        }
    }

    #[test]
    fn a_writer_that_hangs_holds_no_worker_up_and_the_end_of_all_only_once() {
        let (queue, _facts) = sync_channel(1);
        let sender = UsageSender { queue, stats: Arc::default(), stop_until: Arc::default() };
        let began = Instant::now();
        (0..1000).for_each(|id| sender.ended(&summary(id), false));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(sender.stats.lost(Lost::Queue), 999);
        let began = Instant::now();
        (0..1000).for_each(|id| sender.ended(&summary(id), true));
        let waited = began.elapsed();
        assert!(waited >= STOP_WAIT && waited < STOP_WAIT * 2, "{waited:?}");
        assert_eq!(sender.stats.lost(Lost::Queue), 1999);
    }

    #[test]
    fn what_was_lost_leaves_a_gap_as_large_in_the_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.jsonl");
        let file =
            crate::config::UsageFile { path: path.clone(), rotate_bytes: None, rotate_interval: None, keep: None };
        let config = Usage { file: Some(file), webhook: None, interim: None };
        let stats = Arc::new(UsageStats::default());
        let ask: AskWorker = Box::new(|_, _, _, _| {});
        let records = UsageRecords::start(&config, "0a1b2c3d", 1, Arc::clone(&stats), ask).unwrap();
        let sender = records.sender();
        let seqs = || -> Vec<u64> {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap())
                .collect()
        };
        sender.ended(&summary(1), false);
        let until = Instant::now() + Duration::from_secs(20);
        while seqs().len() < 2 && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
        stats.count_lost(Lost::Queue, 7);
        sender.ended(&summary(2), false);
        records.stop();
        assert_eq!(seqs(), [1, 2, 10, 11]);
    }
}
