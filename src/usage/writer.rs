//! The writer's thread: numbers the facts, writes them as records, and asks for interim ones.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::turn::{AllocationId, AllocationView, is_told_alone};

use super::file::RecordFile;
use super::merged::Merged;
use super::queue::{AskWorker, Message, Orders, PAGE, Stop, UsageSender};
use super::record::{Session, server_line};
use super::spool::Spool;
use super::stats::{Lost, UsageStats};

/// Facts that are made records of before they are written.
const BATCH: usize = 1024;
/// The longest sleep; orders that did not find room in the queue wait no longer.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How often lost records are told in the log.
const LOST_LOG_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    pub(super) facts: Receiver<Message>,
    pub(super) orders: Arc<Mutex<Orders>>,
    pub(super) sender: UsageSender,
    pub(super) server: String,
    pub(super) workers: usize,
    pub(super) ask: AskWorker,
    pub(super) file: Option<RecordFile>,
    pub(super) spool: Option<Arc<Spool>>,
    pub(super) interim: Option<Duration>,
    pub(super) stats: Arc<UsageStats>,
}

/// What changes while the writer runs.
struct Progress {
    seq: u64,
    /// Facts lost in the queue that the numbers have a gap for.
    gaps: u64,
    round: u64,
    round_began: Instant,
    lost_told: [u64; Lost::ALL.len()],
    lost_told_at: Option<Instant>,
    merged: Merged,
    batch: Vec<Arc<str>>,
}

impl Writer {
    pub(super) fn run(mut self) {
        let mut progress = Progress {
            seq: 0,
            gaps: 0,
            round: 0,
            round_began: Instant::now(),
            lost_told: [0; Lost::ALL.len()],
            lost_told_at: None,
            merged: Merged::default(),
            batch: Vec::new(),
        };
        progress.add(&self.stats, |seq| server_line("server-start", SystemTime::now(), &self.server, seq));
        self.write(&mut progress);
        let mut stop = None;
        loop {
            let due = if stop.is_some() { Instant::now() } else { self.due(&progress) };
            let first = self.facts.recv_timeout(due.saturating_duration_since(Instant::now())).ok();
            let rest = std::iter::from_fn(|| self.facts.try_recv().ok());
            let taken: Vec<_> = first.into_iter().chain(rest).take(BATCH).collect();
            let is_drained = taken.len() < BATCH;
            for message in taken {
                self.take(message, &mut progress);
                // A page is many records: what waits in memory is bounded, and written before it must be dropped.
                if progress.batch.len() >= BATCH {
                    self.write(&mut progress);
                }
            }
            // What stops the writer comes after the last fact: it is in the queue at the latest now, and there is one more round.
            let ends = stop.filter(|_| is_drained);
            for (number, session, sessions) in progress.merged.take(Instant::now(), ends.is_some()) {
                let line = |seq| session.merged_line(number, sessions, &self.server, seq);
                progress.add(&self.stats, line);
            }
            if ends == Some(Stop::Complete) {
                progress.add(&self.stats, |seq| server_line("server-stop", SystemTime::now(), &self.server, seq));
            }
            self.write(&mut progress);
            if ends.is_some() {
                self.file.iter_mut().for_each(|file| file.finish(Instant::now()));
                progress.lost_told_at = None;
                progress.tell_losses(&self.stats, Instant::now());
                return;
            }
            stop = stop.or(self.obey());
            self.tick(&mut progress);
        }
    }

    /// When there is something to do though nothing comes in.
    fn due(&self, progress: &Progress) -> Instant {
        let interim = self.interim.map(|interim| progress.round_began + interim);
        let file = self.file.as_ref().and_then(RecordFile::due);
        let spool = self.spool.as_ref().and_then(|spool| spool.due());
        let due = [interim, file, spool, progress.merged.due()].into_iter().flatten().min();
        let latest = Instant::now() + SLEEP_MAX;
        due.map_or(latest, |due| due.min(latest))
    }

    fn take(&self, message: Message, progress: &mut Progress) {
        match message {
            Message::Fact(session) => progress.add(&self.stats, |seq| session.line(&self.server, seq)),
            Message::ToMerge(session) => progress.merged.add(Instant::now(), *session),
            Message::Page { round, worker, at, now_micros, views } => {
                if round == progress.round && views.len() == PAGE {
                    self.ask_for_page(round, worker, views.last().map(|view| view.id));
                }
                let told = |view: &AllocationView| is_told_alone(view.is_frequent, view.to_peers, view.to_client);
                for view in views.into_iter().filter(told) {
                    let session = Session::interim(at, now_micros, view);
                    progress.add(&self.stats, |seq| session.line(&self.server, seq));
                }
            }
            Message::Wake => {}
        }
    }

    /// Returns how to stop, if somebody has ordered it.
    fn obey(&mut self) -> Option<Stop> {
        let orders = std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(usage) = orders.apply {
            self.interim = usage.interim;
            if let (Some(file), Some(new)) = (&mut self.file, &usage.file) {
                file.apply(new);
            }
        }
        if orders.reopen
            && let Some(file) = &mut self.file
        {
            file.reopen();
        }
        orders.stop
    }

    fn write(&mut self, progress: &mut Progress) {
        if progress.batch.is_empty() {
            return;
        }
        let now = Instant::now();
        if let Some(spool) = &self.spool {
            spool.append(progress.batch.iter().cloned(), now);
        }
        let batch = progress.batch.drain(..);
        if let Some(file) = &mut self.file {
            batch.for_each(|line| file.push(line));
            file.flush(now);
        }
    }

    fn tick(&mut self, progress: &mut Progress) {
        let now = Instant::now();
        if let Some(file) = &mut self.file {
            file.tick(now);
        }
        if let Some(spool) = &self.spool {
            spool.tick(now);
        }
        if self.interim.is_some_and(|interim| now >= progress.round_began + interim) {
            progress.round += 1;
            progress.round_began = now;
            (0..self.workers).for_each(|worker| self.ask_for_page(progress.round, worker, None));
        }
        progress.tell_losses(&self.stats, now);
    }

    fn ask_for_page(&self, round: u64, worker: usize, after: Option<AllocationId>) {
        let sender = self.sender.clone();
        let take = move |now_micros, views: Vec<_>| {
            let records = views.len() as u64;
            let page = Message::Page { round, worker, at: SystemTime::now(), now_micros, views };
            // What does not fit comes with the next interim record, or the last one.
            sender.send(page, records, Instant::now());
        };
        (self.ask)(worker, after, PAGE, Box::new(take));
    }
}

impl Progress {
    fn add(&mut self, stats: &UsageStats, line: impl FnOnce(u64) -> String) {
        // A gap in the numbers tells how many are lost.
        let lost = stats.lost(Lost::Queue);
        self.seq += 1 + (lost - self.gaps);
        self.gaps = lost;
        self.batch.push(Arc::from(line(self.seq)));
    }

    fn tell_losses(&mut self, stats: &UsageStats, now: Instant) {
        let lost = Lost::ALL.map(|why| stats.lost(why));
        if lost == self.lost_told || self.lost_told_at.is_some_and(|told| now < told + LOST_LOG_INTERVAL) {
            return;
        }
        for ((why, before), after) in Lost::ALL.iter().zip(self.lost_told).zip(lost) {
            if after > before {
                tracing::error!(records = after - before, why = why.label(), "usage records are lost");
            }
        }
        self.lost_told = lost;
        self.lost_told_at = Some(now);
    }
}
