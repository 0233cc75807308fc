//! How it is with the leases.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::node::Counts;

/// Counted by the task of the leases, read by the endpoints.
#[derive(Debug, Default)]
pub struct LeaseStats {
    asked: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    kept: AtomicU64,
    late: AtomicU64,
    users: AtomicU64,
    allocations: AtomicU64,
    servers: AtomicU64,
    is_lost: AtomicBool,
    is_wanted: AtomicBool,
}

/// How it is with the leases at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Calls by which a share was asked for, since the start.
    pub asked: u64,
    /// Of these, those by which there was nothing to be had, because the user's limit is reached.
    pub refused: u64,
    /// Calls that renewed a share, or gave one back.
    pub kept: u64,
    /// Calls without an answer in time.
    pub failed: u64,
    /// Allocates that have waited 200 ms for a share in vain, although the store answers.
    pub late: u64,
    /// Users with a share, or whose share is asked for.
    pub users: u64,
    /// Allocations in all shares of this server, made or not.
    pub allocations: u64,
    /// Servers that share, this one included; 0 if that was never known.
    pub servers: u64,
    /// Whether the store cannot say what is left.
    pub is_lost: bool,
    /// Whether there is a limit over all servers at all.
    pub is_wanted: bool,
}

impl LeaseStats {
    pub(super) fn set(&self, counts: Counts, (users, allocations): (usize, u64), (is_lost, servers): (bool, u32)) {
        self.asked.store(counts.asked, Ordering::Relaxed);
        self.refused.store(counts.refused, Ordering::Relaxed);
        self.failed.store(counts.failed, Ordering::Relaxed);
        self.kept.store(counts.kept, Ordering::Relaxed);
        self.late.store(counts.late, Ordering::Relaxed);
        self.users.store(users as u64, Ordering::Relaxed);
        self.allocations.store(allocations, Ordering::Relaxed);
        self.servers.store(servers.into(), Ordering::Relaxed);
        self.is_lost.store(is_lost, Ordering::Relaxed);
    }

    pub(super) fn want(&self, is_wanted: bool) {
        self.is_wanted.store(is_wanted, Ordering::Relaxed);
    }

    /// How it is.
    pub fn view(&self) -> LeaseView {
        LeaseView {
            asked: self.asked.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            kept: self.kept.load(Ordering::Relaxed),
            users: self.users.load(Ordering::Relaxed),
            allocations: self.allocations.load(Ordering::Relaxed),
            servers: self.servers.load(Ordering::Relaxed),
            is_lost: self.is_lost.load(Ordering::Relaxed),
            is_wanted: self.is_wanted.load(Ordering::Relaxed),
        }
    }
}
