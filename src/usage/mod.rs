//! Usage records: what each allocation has used, as JSON lines in a file and to a webhook, at its start, at intervals and at
//! its end, so that what is billed survives a crash. `docs/usage-records.md` has the schema.
//!
//! Workers put facts into a bounded queue and never wait; one thread makes records of them and writes them to the file and
//! to the webhook's spool, another one empties the spool.

mod file;
mod lines;
mod merged;
mod queue;
mod record;
mod spool;
mod stats;
mod webhook;
mod writer;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use queue::{AskWorker, TakePage, UsageSender};
pub(crate) use record::{Session, server_start_line};
pub use stats::{Lost, UsageStats};

use crate::config::{Unusable, Usage, Wanted};

use file::RecordFile;
use queue::{Orders, Stop};
use spool::Spool;
use webhook::{Sender, Token};
use writer::Writer;

/// How long the end of the server waits for the writer, and then for the webhook.
const WRITER_LIMIT: Duration = Duration::from_secs(5);
const WEBHOOK_LIMIT: Duration = Duration::from_secs(3);

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
        let (sender, facts) = UsageSender::new(Arc::clone(&stats));
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
        self.sender.wake();
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
    use super::queue::tests::summary;
    use super::*;

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
