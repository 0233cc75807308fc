//! Records that wait for the webhook: a directory with a file a batch, the oldest sent first. They survive a restart.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::de::IgnoredAny;

use super::lines::Lines;
use super::stats::{Lost, UsageStats};

/// A batch is sent when it is so old or so large.
const BATCH_AGE: Duration = Duration::from_secs(1);
const BATCH_BYTES_MAX: u64 = 256 << 10;
/// Records that the webhook does not take even alone, and those before them; each of at most so many bytes.
const ASIDE: &str = "refused.ndjson";
const ASIDE_BEFORE: &str = "refused-before.ndjson";
const ASIDE_BYTES_MAX: u64 = 4 << 20;

/// The spool: filled by the writer, emptied by the sender.
pub(super) struct Spool {
    directory: PathBuf,
    server: String,
    bytes_max: u64,
    batch_bytes: u64,
    stats: Arc<UsageStats>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Batches that nothing is added to any more, the oldest first.
    sealed: VecDeque<Batch>,
    current: Option<Current>,
    lines: Lines,
    bytes: u64,
    next_number: u64,
    /// The first sealed batch is being sent.
    sending: bool,
    stopping: bool,
}

/// Records that are sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    path: PathBuf,
    bytes: u64,
    /// What its sender remembers of its failures.
    pub(super) failures: Failures,
}

/// How a batch has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    /// How many batches the webhook had taken when this one was set back, or divided, last.
    pub(super) taken_before: Option<u64>,
    /// How often it has failed though others were taken meanwhile.
    pub(super) suspicious: u32,
}

struct Current {
    batch: Batch,
    file: File,
    since: Instant,
}

impl Spool {
    /// Makes the directory if there is none, and takes over what waits in it.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(super) fn new(directory: &Path, bytes_max: u64, server: &str, stats: Arc<UsageStats>) -> io::Result<Self> {
        if !directory.is_dir() {
            DirBuilder::new().mode(0o750).create(directory)?;
        }
        let mut sealed = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_batch) {
                sealed.push(Batch::new(entry.path(), entry.metadata()?.len()));
            }
        }
        sealed.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        let bytes = sealed.iter().map(|batch| batch.bytes).sum();
        if !sealed.is_empty() {
            tracing::info!(batches = sealed.len(), bytes, "usage records of an earlier run wait for the webhook");
        }
        let state = State {
            sealed: sealed.into(),
            current: None,
            lines: Lines::new("the spool of usage records", Arc::clone(&stats)),
            bytes,
            next_number: 0,
            sending: false,
            stopping: false,
        };
        let spool = Self {
            directory: directory.to_owned(),
            server: server.to_owned(),
            bytes_max,
            batch_bytes: BATCH_BYTES_MAX.min(bytes_max / 8),
            stats,
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        spool.keep_to_size(&mut spool.lock());
        Ok(spool)
    }

    /// Adds lines and writes them.
    pub(super) fn append(&self, lines: impl Iterator<Item = Arc<str>>, now: Instant) {
        let mut state = self.lock();
        lines.for_each(|line| state.lines.push(line));
        if !state.lines.must_wait(now) {
            self.flush(&mut state, now);
        }
    }

    /// When [`Spool::tick`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lock().lines.retry_at()
    }

    /// Tries again what failed, when it is time.
    pub(super) fn tick(&self, now: Instant) {
        let mut state = self.lock();
        if state.lines.retry_at().is_some_and(|retry_at| now >= retry_at) {
            self.seal(&mut state);
            self.flush(&mut state, now);
        }
    }

    /// The oldest batch, as soon as there is one to send; `None` when the spool stops and is empty.
    pub(super) fn next(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            let age = state.current.as_ref().map(|current| current.since.elapsed());
            // What has failed does not keep others waiting until there is a whole batch of them.
            let has_untried = state.sealed.iter().any(|batch| batch.failures.taken_before.is_none());
            if !has_untried && age.is_some_and(|age| age >= BATCH_AGE || state.stopping) {
                self.seal(&mut state);
                if let Some(last) = state.sealed.pop_back() {
                    state.sealed.push_front(last);
                }
            }
            if let Some(batch) = state.sealed.front().cloned() {
                state.sending = true;
                return Some(batch);
            }
            if state.stopping {
                return None;
            }
            let wait = age.map_or(Duration::from_secs(3600), |age| BATCH_AGE.saturating_sub(age));
            let waited = self.changed.wait_timeout(state, wait.max(Duration::from_millis(1)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The batch has been sent, or is given up.
    pub(super) fn done(&self, batch: &Batch) {
        let mut state = self.lock();
        state.sending = false;
        if state.sealed.front().is_some_and(|front| front.path == batch.path) {
            self.remove(&mut state, 0);
        }
    }

    /// The batch has failed: others go before it, until something is taken.
    pub(super) fn set_back(&self, batch: Batch) {
        let mut state = self.lock();
        state.sending = false;
        if state.sealed.front().is_some_and(|front| front.path == batch.path) {
            state.sealed.rotate_left(1);
            if let Some(last) = state.sealed.back_mut() {
                *last = batch;
            }
        }
    }

    /// Puts what was set back in its place again.
    pub(super) fn restore_order(&self) {
        self.lock().sealed.make_contiguous().sort_unstable_by(|one, other| one.path.cmp(&other.path));
    }

    /// Batches that wait to be sent and get no more records.
    pub(super) fn sealed(&self) -> usize {
        self.lock().sealed.len()
    }

    /// Makes two batches of one, whose records are `body`; both take over when it failed last.
    ///
    /// # Errors
    /// They cannot be written; the batch is as it was.
    pub(super) fn divide(&self, batch: &Batch, body: &str) -> io::Result<()> {
        let middle = count_lines(body) as usize / 2;
        let at = body.split_inclusive('\n').take(middle).map(str::len).sum();
        let (first, second) = body.split_at_checked(at).unwrap_or((body, ""));
        let stem = batch.path.with_extension("");
        let part = |number: u8, text: &str| {
            let path = PathBuf::from(format!("{}-{number}.ndjson", stem.display()));
            write_new(&path, text).inspect_err(|_| drop(fs::remove_file(&path)))?;
            let failures = Failures { suspicious: 0, ..batch.failures };
            Ok::<_, io::Error>(Batch { failures, ..Batch::new(path, text.len() as u64) })
        };
        let first = part(0, first)?;
        let second = part(1, second).inspect_err(|_| drop(fs::remove_file(&first.path)))?;
        let mut state = self.lock();
        state.sending = false;
        if state.sealed.front().is_some_and(|front| front.path == batch.path) {
            self.remove(&mut state, 0);
        }
        for part in [second, first] {
            state.bytes += part.bytes;
            state.sealed.push_front(part);
        }
        self.stats.set_spool_bytes(state.bytes);
        Ok(())
    }

    /// Moves the batch's one record out of the way, into a file of its own kind.
    ///
    /// # Errors
    /// It cannot be written; the batch is as it was.
    pub(super) fn set_aside(&self, batch: &Batch, body: &str) -> io::Result<PathBuf> {
        let path = self.directory.join(ASIDE);
        if fs::metadata(&path).is_ok_and(|found| found.len() + body.len() as u64 > ASIDE_BYTES_MAX) {
            fs::rename(&path, self.directory.join(ASIDE_BEFORE))?;
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path)?;
        let before = file.metadata()?.len();
        // A full disk may take a part: it must not run into the whole record that comes later.
        file.write_all(body.as_bytes()).inspect_err(|_| drop(file.set_len(before)))?;
        self.done(batch);
        Ok(path)
    }

    /// Waits after a failure. Returns whether the spool stops.
    pub(super) fn pause(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        state.sending = false;
        while !state.stopping {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.stopping
    }

    /// Nothing comes any more: what is there may be sent at once.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        self.flush(&mut state, Instant::now());
        state.lines.give_up();
        if let Some(current) = &state.current {
            let _ = current.file.sync_data();
        }
        state.stopping = true;
        self.changed.notify_all();
    }

    fn flush(&self, state: &mut State, now: Instant) {
        while !state.lines.is_empty() {
            let State { current, lines, next_number, .. } = &mut *state;
            let current = match current {
                Some(current) => current,
                None => match self.begin(next_number, now) {
                    Ok(begun) => {
                        lines.set_torn(false);
                        current.insert(begun)
                    }
                    Err(error) => {
                        lines.note_failure(&error);
                        return;
                    }
                },
            };
            let room = self.batch_bytes.saturating_sub(current.batch.bytes).max(1);
            let before = lines.bytes();
            let result = lines.write(&mut current.file, room);
            let written = (before - lines.bytes()) as u64;
            current.batch.bytes += written;
            let is_full = current.batch.bytes >= self.batch_bytes;
            state.bytes += written;
            if is_full {
                self.seal(state);
            }
            self.keep_to_size(state);
            self.changed.notify_all();
            if result.is_err() {
                return;
            }
        }
        if !state.lines.must_wait(now) {
            state.lines.note_success();
        }
    }

    fn begin(&self, next_number: &mut u64, now: Instant) -> io::Result<Current> {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let name = format!("usage-{millis:015}-{}-{next_number:08}.ndjson", self.server);
        *next_number += 1;
        let path = self.directory.join(name);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o640).open(&path)?;
        Ok(Current { batch: Batch::new(path, 0), file, since: now })
    }

    fn seal(&self, state: &mut State) {
        let Some(Current { batch, .. }) = state.current.take() else { return };
        if batch.bytes == 0 {
            // At most the beginning of a line, which still waits: a full disk must not fill the folder with such files.
            let _ = fs::remove_file(&batch.path);
        } else {
            state.sealed.push_back(batch);
        }
    }

    /// Drops the oldest batches until the rest fits; not the one that is being sent.
    fn keep_to_size(&self, state: &mut State) {
        let oldest = usize::from(state.sending);
        while state.bytes > self.bytes_max
            && let Some(batch) = state.sealed.get(oldest).cloned()
        {
            let records = batch.read().map_or(0, |body| count_lines(&body));
            self.stats.count_lost(Lost::Spool, records);
            tracing::debug!(records, "the spool is full; its oldest usage records are dropped");
            self.remove(state, oldest);
        }
        self.stats.set_spool_bytes(state.bytes);
    }

    fn remove(&self, state: &mut State, index: usize) {
        let Some(batch) = state.sealed.remove(index) else { return };
        if let Err(error) = fs::remove_file(&batch.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(%error, file = %batch.path.display(), "usage records that were sent cannot be deleted; they will be sent again");
        }
        state.bytes = state.bytes.saturating_sub(batch.bytes);
        self.stats.set_spool_bytes(state.bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes, failures: Failures::default() }
    }

    /// Its records; what a crash or a full disk has torn is left out.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self) -> io::Result<String> {
        let bytes = fs::read(&self.path)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text
            .lines()
            .filter(|line| serde_json::from_str::<IgnoredAny>(line).is_ok())
            .flat_map(|line| [line, "\n"])
            .collect())
    }
}

/// The records of a batch that was read.
pub(super) fn count_lines(body: &str) -> u64 {
    body.lines().count() as u64
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)?;
    file.write_all(text.as_bytes())
}

fn is_batch(name: &str) -> bool {
    name.starts_with("usage-") && name.ends_with(".ndjson")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(folder: &Path, bytes_max: u64, stats: &Arc<UsageStats>) -> Spool {
        Spool::new(&folder.join("spool"), bytes_max, "0a1b2c3d", Arc::clone(stats)).unwrap()
    }

    fn numbers(range: std::ops::Range<u64>) -> impl Iterator<Item = Arc<str>> {
        range.map(|number| Arc::from(format!("{number:9}\n")))
    }

    fn take_all(spool: &Spool) -> Vec<u64> {
        spool.stop();
        let mut found = Vec::new();
        while let Some(batch) = spool.next() {
            let body = batch.read().unwrap();
            found.extend(body.lines().map(|line| line.trim().parse::<u64>().unwrap()));
            spool.done(&batch);
        }
        found
    }

    #[test]
    fn records_come_out_in_order_and_once_over_a_restart() {
        let (folder, stats) = (tempfile::tempdir().unwrap(), Arc::default());
        let first = spool(folder.path(), 1 << 20, &stats);
        first.append(numbers(0..30_000), Instant::now());
        let batch = first.next().unwrap();
        let sent = batch.read().unwrap().lines().count() as u64;
        first.done(&batch);
        drop(first);
        let second = spool(folder.path(), 1 << 20, &stats);
        second.append(numbers(30_000..30_010), Instant::now());
        assert_eq!(take_all(&second), (sent..30_010).collect::<Vec<_>>());
        assert!(sent > 0 && sent < 30_000);
        assert_eq!((stats.spool_bytes(), fs::read_dir(folder.path().join("spool")).unwrap().count()), (0, 0));
    }

    #[test]
    fn a_full_spool_drops_its_oldest_batches_and_counts_them() {
        let (folder, stats) = (tempfile::tempdir().unwrap(), Arc::default());
        let spool = spool(folder.path(), 8000, &stats);
        spool.append(numbers(0..2000), Instant::now());
        let left = take_all(&spool);
        assert_eq!(left.last(), Some(&1999));
        assert!(left.len() <= 800 && left.len() >= 600, "{}", left.len());
        assert_eq!(left, (2000 - left.len() as u64..2000).collect::<Vec<_>>());
        assert_eq!(stats.lost(Lost::Spool), 2000 - left.len() as u64);
    }

    #[test]
    fn what_a_crash_has_torn_is_not_sent() {
        let (folder, stats) = (tempfile::tempdir().unwrap(), Arc::default());
        let directory = folder.path().join("spool");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("usage-1-x-1.ndjson"), "1\n2\n{\"tor").unwrap();
        assert_eq!(take_all(&spool(folder.path(), 1 << 20, &stats)), [1, 2]);
    }

    fn lines_of(folder: &Path, name: &str) -> Vec<String> {
        fs::read_to_string(folder.join("spool").join(name))
            .unwrap()
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()
    }

    #[test]
    fn a_batch_is_divided_until_its_records_are_alone_and_what_is_left_stays_in_order_over_a_restart() {
        let (folder, stats) = (tempfile::tempdir().unwrap(), Arc::default());
        let first = spool(folder.path(), 1 << 20, &stats);
        first.append(numbers(0..5), Instant::now());
        first.stop();
        let before = stats.spool_bytes();
        for expected in [vec![0, 1], vec![0]] {
            let batch = first.next().unwrap();
            first.divide(&batch, &batch.read().unwrap()).unwrap();
            let found: Vec<u64> =
                first.next().unwrap().read().unwrap().lines().map(|n| n.trim().parse().unwrap()).collect();
            assert_eq!(found, expected);
        }
        assert_eq!(stats.spool_bytes(), before);
        let alone = first.next().unwrap();
        first.set_aside(&alone, &alone.read().unwrap()).unwrap();
        drop(first);
        assert_eq!(take_all(&spool(folder.path(), 1 << 20, &stats)), [1, 2, 3, 4]);
        assert_eq!(lines_of(folder.path(), ASIDE), ["0"]);
        assert_eq!(stats.spool_bytes(), 0);
    }

    #[test]
    fn what_is_set_aside_is_bounded() {
        let (folder, stats) = (tempfile::tempdir().unwrap(), Arc::default());
        let spool = spool(folder.path(), 1 << 20, &stats);
        let line = format!("\"{}\"\n", "x".repeat(1 << 20));
        for _ in 0..20 {
            spool.append(std::iter::once(Arc::from("1\n")), Instant::now());
            spool.seal(&mut spool.lock());
            let batch = spool.next().unwrap();
            spool.set_aside(&batch, &line).unwrap();
        }
        let kept: u64 = [ASIDE, ASIDE_BEFORE]
            .iter()
            .map(|name| fs::metadata(folder.path().join("spool").join(name)).unwrap().len())
            .sum();
        assert!((ASIDE_BYTES_MAX..=2 * ASIDE_BYTES_MAX).contains(&kept), "{kept}");
    }

    #[test]
    fn a_batch_that_is_set_back_comes_after_the_others_until_the_order_is_restored() {
        let (folder, stats) = (tempfile::tempdir().unwrap(), Arc::default());
        let spool = spool(folder.path(), 1 << 20, &stats);
        for number in 0..3 {
            spool.append(numbers(number..number + 1), Instant::now());
            spool.seal(&mut spool.lock());
        }
        let mut failed = spool.next().unwrap();
        failed.failures.suspicious = 7;
        spool.set_back(failed.clone());
        assert_eq!(spool.next().unwrap().read().unwrap().trim(), "1");
        spool.restore_order();
        assert_eq!(spool.next().unwrap(), failed);
        assert_eq!((spool.sealed(), take_all(&spool)), (3, vec![0, 1, 2]));
    }
}
