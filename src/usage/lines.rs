//! Lines on their way to a file: what a failing disk does not take waits in memory, bounded, and is tried again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stats::{Lost, UsageStats};

/// Bytes that may wait in memory for a disk that takes nothing.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// Bytes written by one call.
const CHUNK_BYTES: usize = 256 << 10;
/// The time between tries while the disk fails.
const RETRY: Duration = Duration::from_secs(1);

/// Lines that are not written yet.
pub(super) struct Lines {
    /// What they are, for the log.
    name: &'static str,
    stats: Arc<UsageStats>,
    waiting: VecDeque<Arc<str>>,
    waiting_bytes: usize,
    /// The file ends in the middle of a line.
    torn: bool,
    /// Set while writing fails: when to try again, and how many lines have been lost since.
    failing: Option<Failing>,
}

struct Failing {
    retry_at: Instant,
    lost: u64,
}

impl Lines {
    pub(super) fn new(name: &'static str, stats: Arc<UsageStats>) -> Self {
        Self { name, stats, waiting: VecDeque::new(), waiting_bytes: 0, torn: false, failing: None }
    }

    /// Adds a line, its end included; the oldest go when too much waits.
    pub(super) fn push(&mut self, line: Arc<str>) {
        self.waiting_bytes = self.waiting_bytes.saturating_add(line.len());
        self.waiting.push_back(line);
        while self.waiting_bytes > WAITING_BYTES_MAX && self.pop().is_some() {
            self.stats.count_lost(Lost::Disk, 1);
            if let Some(failing) = &mut self.failing {
                failing.lost += 1;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of the lines that wait.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether a failure forbids to try now.
    pub(super) fn must_wait(&self, now: Instant) -> bool {
        self.failing.as_ref().is_some_and(|failing| now < failing.retry_at)
    }

    /// When to try again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.failing.as_ref().map(|failing| failing.retry_at)
    }

    /// The file is another one, or its last line is whole again.
    pub(super) fn set_torn(&mut self, torn: bool) {
        self.torn = torn;
    }

    /// How many lines wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nothing will be written any more: what waits is lost.
    pub(super) fn give_up(&mut self) {
        let records = self.waiting.len() as u64;
        if records > 0 {
            self.stats.count_lost(Lost::Disk, records);
            tracing::error!(records, "{} cannot be written; its last records are lost", self.name);
        }
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    /// Writes what waits, up to about `limit` bytes.
    ///
    /// # Errors
    /// That of the first write that failed; what it had to write still waits.
    pub(super) fn write(&mut self, out: &mut impl Write, limit: u64) -> io::Result<()> {
        let mut bytes = 0_u64;
        while !self.waiting.is_empty() && bytes < limit {
            let (done, result) = self.write_chunk(out, limit - bytes);
            bytes += done;
            if let Err(error) = result {
                self.note_failure(&error);
                return Err(error);
            }
        }
        self.note_success();
        Ok(())
    }

    /// Notes that opening, writing or syncing failed.
    pub(super) fn note_failure(&mut self, error: &io::Error) {
        self.stats.count_write_error();
        if self.failing.is_none() {
            tracing::error!(%error, "{} cannot be written; records wait in memory", self.name);
        }
        let lost = self.failing.as_ref().map_or(0, |failing| failing.lost);
        let retry_at = Instant::now() + RETRY;
        self.failing = Some(Failing { retry_at, lost });
    }

    /// Notes that the disk can be written again.
    pub(super) fn note_success(&mut self) {
        if let Some(Failing { lost, .. }) = self.failing.take() {
            tracing::info!(lost, "{} can be written again", self.name);
        }
    }

    /// Returns how many bytes were written, and whether all went well.
    fn write_chunk(&mut self, out: &mut impl Write, limit: u64) -> (u64, io::Result<()>) {
        let mut chunk = Vec::new();
        if self.torn {
            chunk.push(b'\n');
        }
        let limit = CHUNK_BYTES.min(usize::try_from(limit).unwrap_or(CHUNK_BYTES));
        for line in &self.waiting {
            chunk.extend_from_slice(line.as_bytes());
            if chunk.len() >= limit {
                break;
            }
        }
        let (written, result) = write_all(out, &chunk);
        let mut rest = written;
        if self.torn && rest > 0 {
            self.torn = false;
            rest -= 1;
        }
        while let Some(front) = self.waiting.front() {
            // A line that lacks nothing but its end is whole once the end is there, which `torn` sees to.
            if rest == 0 || rest + 1 < front.len() {
                break;
            }
            self.torn = rest < front.len();
            rest = rest.saturating_sub(front.len());
            self.pop();
        }
        self.torn |= rest > 0;
        (written as u64, result)
    }

    fn pop(&mut self) -> Option<Arc<str>> {
        let line = self.waiting.pop_front()?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(line.len());
        Some(line)
    }
}

/// Returns how many bytes were written, and whether those were all.
fn write_all(out: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => return (done, Err(ErrorKind::WriteZero.into())),
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A disk with room for so many bytes.
    struct Disk {
        room: usize,
        content: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.content.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn waiting(lines: &[&str]) -> Lines {
        let mut waiting = Lines::new("test", Arc::default());
        lines.iter().for_each(|line| waiting.push(Arc::from(*line)));
        waiting
    }

    proptest! {
        #[test]
        fn wherever_the_disk_gets_full_every_line_is_there_once_and_whole(rooms in prop::collection::vec(0_usize..12, 0..20)) {
            let all = ["{\"a\":1}\n", "{\"bb\":22}\n", "{\"c\":3}\n", "{\"dddd\":4444}\n"];
            let mut lines = waiting(&all);
            let mut disk = Disk { room: 0, content: Vec::new() };
            for room in rooms.into_iter().chain([1000]) {
                disk.room = room;
                let _ = lines.write(&mut disk, u64::MAX);
            }
            prop_assert!(lines.is_empty());
            // The last one may lack its end, which the next write or the next start brings.
            let text = String::from_utf8(disk.content).unwrap();
            let whole: Vec<_> = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).collect();
            let expected: Vec<_> = all.iter().map(|line| line.trim_end()).collect();
            prop_assert_eq!(whole, expected, "{:?}", text);
        }
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes_first() {
        let mut lines = waiting(&[]);
        let line: Arc<str> = Arc::from(format!("\"{}\"\n", "x".repeat(1021)));
        for _ in 0..8 * 1024 {
            lines.push(Arc::clone(&line));
        }
        lines.push(Arc::from("\"last\"\n"));
        assert_eq!((lines.stats.lost(Lost::Disk), lines.bytes()), (1, (8 << 20) - 1024 + 7));
        let mut disk = Disk { room: usize::MAX, content: Vec::new() };
        assert_eq!(lines.len(), 8 * 1024);
        lines.write(&mut disk, u64::MAX).unwrap();
        assert!(disk.content.ends_with(b"\"last\"\n"));
    }
}
