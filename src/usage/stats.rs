//! What became of the records, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a record is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The writer was too far behind.
    Queue,
    /// The file, or the spool, could not be written for so long that memory for it ran out.
    Disk,
    /// The spool was full: the webhook has not answered for too long.
    Spool,
    /// The webhook did not take it even alone; it is set aside in a file.
    Refused,
}

impl Lost {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 4] = [Self::Queue, Self::Disk, Self::Spool, Self::Refused];

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Queue => "queue-full",
            Self::Disk => "disk",
            Self::Spool => "spool-full",
            Self::Refused => "webhook-refused",
        }
    }
}

/// Counts since the start; read by anyone.
#[derive(Debug, Default)]
pub struct UsageStats {
    written: AtomicU64,
    write_errors: AtomicU64,
    lost: [AtomicU64; Lost::ALL.len()],
    sent: AtomicU64,
    failed: AtomicU64,
    spool_bytes: AtomicU64,
}

impl UsageStats {
    /// Records written to the file.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Writes to file or spool that failed; what they were to write is tried again.
    pub fn write_errors(&self) -> u64 {
        self.write_errors.load(Ordering::Relaxed)
    }

    /// Records lost.
    pub fn lost(&self, why: Lost) -> u64 {
        self.lost.get(why as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Batches that the webhook has taken, and attempts that failed.
    pub fn webhook(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Bytes that wait for the webhook.
    pub fn spool_bytes(&self) -> u64 {
        self.spool_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn count_written(&self, records: u64) {
        self.written.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn count_write_error(&self) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_lost(&self, why: Lost, records: u64) {
        if let Some(count) = self.lost.get(why as usize) {
            count.fetch_add(records, Ordering::Relaxed);
        }
    }

    pub(super) fn count_attempt(&self, taken: bool) {
        let counter = if taken { &self.sent } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_spool_bytes(&self, bytes: u64) {
        self.spool_bytes.store(bytes, Ordering::Relaxed);
    }
}
