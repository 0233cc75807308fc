//! The file of records: append, sync, put aside, open again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::UsageFile;

use super::lines::Lines;
use super::record::compact_timestamp;
use super::stats::UsageStats;

/// How long written records may be without a sync to the disk.
pub(super) const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// The time between tries to put the file aside while that fails.
const ROTATE_RETRY: Duration = Duration::from_secs(60);
/// Records that are deleted before they are so old may not have been read yet.
const YOUNG: Duration = Duration::from_secs(86_400);
/// The owner writes, the group reads, as log collectors need it.
const MODE: u32 = 0o640;

/// The file that is written to.
pub(super) struct RecordFile {
    settings: UsageFile,
    stats: Arc<UsageStats>,
    lines: Lines,
    open: Option<Open>,
    /// When something was written first that is not synced yet.
    unsynced: Option<Instant>,
    rotate_not_before: Option<Instant>,
}

struct Open {
    file: File,
    bytes: u64,
    /// Which period of `rotate_interval` its records are of.
    period: Option<u64>,
}

impl RecordFile {
    /// Opens the file.
    ///
    /// # Errors
    /// What the operator must put right; a full or failing disk is not among it, the file is then opened later.
    pub(super) fn new(settings: UsageFile, stats: Arc<UsageStats>) -> io::Result<Self> {
        let lines = Lines::new("the file of usage records", Arc::clone(&stats));
        let mut this = Self { settings, stats, lines, open: None, unsynced: None, rotate_not_before: None };
        match this.ensure_open() {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                this.lines.note_failure(&error);
            }
            Err(error) => return Err(error),
        }
        Ok(this)
    }

    /// Takes over what a reload may change.
    pub(super) fn apply(&mut self, new: &UsageFile) {
        self.settings = UsageFile { path: self.settings.path.clone(), ..new.clone() };
        self.rotate_not_before = None;
    }

    pub(super) fn push(&mut self, line: Arc<str>) {
        self.lines.push(line);
    }

    /// Writes what waits; puts the file aside before and after if it is due.
    pub(super) fn flush(&mut self, now: Instant) {
        if self.lines.must_wait(now) {
            return;
        }
        self.rotate_if_due(now);
        while !self.lines.is_empty() {
            if let Err(error) = self.ensure_open() {
                self.lines.note_failure(&error);
                return;
            }
            let Some(open) = &mut self.open else { return };
            let room = match self.settings.rotate_bytes {
                // A file that cannot be put aside grows on.
                Some(max) if self.rotate_not_before.is_none() => max.saturating_sub(open.bytes).max(1),
                _ => u64::MAX,
            };
            let (lines, bytes) = (self.lines.len(), self.lines.bytes());
            let written = self.lines.write(&mut open.file, room);
            open.bytes += (bytes - self.lines.bytes()) as u64;
            self.stats.count_written((lines - self.lines.len()) as u64);
            self.unsynced.get_or_insert(now);
            if written.is_err() {
                return;
            }
            self.rotate_if_due(now);
        }
    }

    /// When [`RecordFile::tick`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let sync = self.unsynced.map(|since| since + SYNC_INTERVAL);
        [sync, self.lines.retry_at()].into_iter().flatten().min()
    }

    /// Syncs and tries again, each when it is due.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.unsynced.is_some_and(|since| now >= since + SYNC_INTERVAL) {
            self.sync();
            self.follow_path();
        }
        if self.lines.retry_at().is_some_and(|retry_at| now >= retry_at) {
            // What failed may have been the file rather than the disk.
            self.open = None;
            match self.ensure_open() {
                Ok(()) => self.flush(now),
                Err(error) => self.lines.note_failure(&error),
            }
            if self.lines.is_empty() && self.open.is_some() {
                self.lines.note_success();
            }
        }
    }

    /// Writes and syncs what is left, for the last time.
    pub(super) fn finish(&mut self, now: Instant) {
        if let Some(retry_at) = self.lines.retry_at() {
            self.tick(retry_at.max(now));
        }
        self.sync();
        self.lines.give_up();
    }

    /// Brings what is written to the disk.
    pub(super) fn sync(&mut self) {
        self.unsynced = None;
        if let Some(open) = &self.open
            && let Err(error) = open.file.sync_data()
        {
            self.lines.note_failure(&error);
        }
    }

    /// Opens the path anew: another program has put the file aside.
    pub(super) fn reopen(&mut self) {
        self.sync();
        self.open = None;
        if let Err(error) = self.ensure_open() {
            self.lines.note_failure(&error);
        }
    }

    /// Opens the path anew if it is another file now, or none.
    fn follow_path(&mut self) {
        let Some(open) = &self.open else { return };
        let (Ok(ours), found) = (open.file.metadata(), fs::metadata(&self.settings.path)) else { return };
        if !found.is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino())) {
            self.reopen();
        }
    }

    fn ensure_open(&mut self) -> io::Result<()> {
        if self.open.is_none() {
            let (open, torn) = self.open_path()?;
            self.lines.set_torn(torn);
            self.open = Some(open);
        }
        Ok(())
    }

    /// Returns the file and whether its last line is torn.
    fn open_path(&self) -> io::Result<(Open, bool)> {
        let path = &self.settings.path;
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
        let metadata = file.metadata()?;
        let (bytes, mut last) = (metadata.len(), [b'\n']);
        if bytes > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let written = if bytes > 0 { metadata.modified()? } else { SystemTime::now() };
        Ok((Open { file, bytes, period: self.period(written) }, last != [b'\n']))
    }

    /// The number of the period that a time is in.
    fn period(&self, at: SystemTime) -> Option<u64> {
        let secs = self.settings.rotate_interval?.as_secs();
        at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().checked_div(secs)
    }

    fn rotate_if_due(&mut self, now: Instant) {
        let period = self.period(SystemTime::now());
        let Some(open) = &mut self.open else { return };
        if open.bytes == 0 || open.period.is_none() {
            open.period = period;
        }
        let is_full = self.settings.rotate_bytes.is_some_and(|max| open.bytes >= max);
        let is_old = period.is_some() && open.period != period;
        let may = self.rotate_not_before.is_none_or(|not_before| now >= not_before);
        if open.bytes == 0 || !(is_full || is_old) || !may {
            return;
        }
        self.rotate_not_before = None;
        if let Err(error) = self.rotate() {
            tracing::error!(%error, "the file of usage records cannot be put aside; it grows on");
            self.rotate_not_before = Some(now + ROTATE_RETRY);
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let names = Names::of(&self.settings.path);
        let aside = names.next(compact_timestamp(SystemTime::now()))?;
        self.sync();
        fs::rename(&self.settings.path, &aside)?;
        self.open = None;
        tracing::info!(file = %aside.display(), "usage records put aside");
        if let Some(keep) = self.settings.keep {
            names.prune(keep);
        }
        Ok(())
    }
}

/// What files are called that were put aside: `usage-20261120T190000Z.jsonl`, and `usage-20261120T190000Z-2.jsonl` if there
/// is such a file.
struct Names {
    directory: PathBuf,
    /// `usage-`
    prefix: String,
    /// `.jsonl`
    suffix: String,
}

impl Names {
    fn of(path: &Path) -> Self {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let suffix = text(path.extension());
        Self {
            directory: directory.to_owned(),
            prefix: format!("{}-", text(path.file_stem())),
            suffix: if suffix.is_empty() { suffix } else { format!(".{suffix}") },
        }
    }

    /// A name that sorts behind all that are there. A number that has become free again would not.
    fn next(&self, stamp: String) -> io::Result<PathBuf> {
        let same = self.aside()?.into_iter().filter_map(|((taken, number), _)| (taken == stamp).then_some(number));
        Ok(self.directory.join(match same.max() {
            None => format!("{}{stamp}{}", self.prefix, self.suffix),
            Some(number) => format!("{}{stamp}-{}{}", self.prefix, number.saturating_add(1), self.suffix),
        }))
    }

    /// Deletes all but the newest.
    fn prune(&self, keep: usize) {
        if let Err(error) = self.try_prune(keep) {
            tracing::error!(%error, "old usage records cannot be deleted");
        }
    }

    fn try_prune(&self, keep: usize) -> io::Result<()> {
        let mut aside = self.aside()?;
        aside.sort_unstable();
        let surplus = aside.len().saturating_sub(keep);
        for (_, path) in aside.into_iter().take(surplus) {
            let age = fs::metadata(&path).and_then(|found| found.modified()).ok().and_then(|at| at.elapsed().ok());
            fs::remove_file(&path)?;
            if age.is_some_and(|age| age < YOUNG) {
                tracing::warn!(file = %path.display(), keep, "usage records of less than a day deleted; raise [usage] keep or rotate-bytes");
            } else {
                tracing::info!(file = %path.display(), "old usage records deleted");
            }
        }
        Ok(())
    }

    /// The files that were put aside, in no order.
    fn aside(&self) -> io::Result<Vec<((String, u32), PathBuf)>> {
        let mut aside = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if let Some(order) = entry.file_name().to_str().and_then(|name| self.order(name)) {
                aside.push((order, entry.path()));
            }
        }
        Ok(aside)
    }

    /// What a file that was put aside is sorted by; `None` for any other file.
    fn order(&self, name: &str) -> Option<(String, u32)> {
        let middle = name.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?;
        let (stamp, number) = match middle.split_once('-') {
            Some((stamp, number)) => (stamp, number.parse().ok()?),
            None => (middle, 1),
        };
        let is_stamp = stamp.len() == 16
            && stamp.char_indices().all(|(index, c)| match index {
                8 => c == 'T',
                15 => c == 'Z',
                _ => c.is_ascii_digit(),
            });
        is_stamp.then(|| (stamp.to_owned(), number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path) -> UsageFile {
        UsageFile { path: folder.join("usage.jsonl"), rotate_bytes: Some(100), rotate_interval: None, keep: Some(3) }
    }

    fn written(folder: &Path) -> Vec<String> {
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort_by_key(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            Names::of(&folder.join("usage.jsonl")).order(&name).unwrap_or(("9".to_owned(), 0))
        });
        paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn a_full_file_is_put_aside_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = RecordFile::new(settings(folder.path()), Arc::default()).unwrap();
        for foreign in ["usage-notes.jsonl", "usage-20261120T190000Z.jsonl.gz"] {
            fs::write(folder.path().join(foreign), "mine").unwrap();
        }
        for number in 0..60 {
            file.push(Arc::from(format!("{number:019}\n")));
        }
        file.flush(Instant::now());
        for foreign in ["usage-notes.jsonl", "usage-20261120T190000Z.jsonl.gz"] {
            fs::remove_file(folder.path().join(foreign)).unwrap();
        }
        let left = written(folder.path());
        assert_eq!(left.len(), 3, "{left:?}");
        let expected: String = (45..60).map(|number| format!("{number:019}\n")).collect();
        assert_eq!(left.concat(), expected);
    }

    #[test]
    fn a_torn_last_line_is_ended_before_anything_is_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.jsonl");
        fs::write(&path, "{\"seq\":1}\n{\"se").unwrap();
        let mut file = RecordFile::new(settings(folder.path()), Arc::default()).unwrap();
        file.push(Arc::from("{\"seq\":1}\n"));
        file.flush(Instant::now());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"seq\":1}\n{\"se\n{\"seq\":1}\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = RecordFile::new(settings(folder.path()), Arc::default()).unwrap();
        let now = Instant::now();
        file.push(Arc::from("1\n"));
        file.flush(now);
        let path = folder.path().join("usage.jsonl");
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        file.tick(now + SYNC_INTERVAL);
        file.push(Arc::from("2\n"));
        file.flush(now);
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    }

    #[test]
    fn a_file_of_an_earlier_period_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.jsonl");
        let day = Duration::from_secs(86_400);
        File::create(&path).unwrap().set_modified(SystemTime::now() - day).unwrap();
        let daily = UsageFile { rotate_interval: Some(day), rotate_bytes: None, ..settings(folder.path()) };
        let write = |line: &str| {
            let mut file = RecordFile::new(daily.clone(), Arc::default()).unwrap();
            file.push(Arc::from(line));
            file.flush(Instant::now());
        };
        write("1\n");
        assert_eq!(written(folder.path()), ["1\n"], "an empty file is no reason to keep it");
        OpenOptions::new().append(true).open(&path).unwrap().set_modified(SystemTime::now() - day).unwrap();
        write("2\n");
        assert_eq!(written(folder.path()), ["1\n", "2\n"]);
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let special = UsageFile { path: "/dev/full".into(), ..settings(Path::new("/")) };
        assert!(RecordFile::new(special, Arc::default()).is_err());
        let absent = UsageFile { path: "/nonexistent/usage.jsonl".into(), ..settings(Path::new("/")) };
        assert!(RecordFile::new(absent, Arc::default()).is_err());
    }
}
