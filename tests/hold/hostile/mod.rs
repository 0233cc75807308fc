//! The hostile clients: a module a kind. Each counts what it has done, so that a test in which nobody attacked does not pass.

mod churn;
mod connections;
mod forged;
mod frames;
mod hellos;
mod local;
mod loops;
mod names;
mod ports;
mod unread;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::client::Target;

type Kind = fn(&Target, &Until<'_>) -> u64;

const KINDS: [(&str, Kind); 15] = [
    ("requests over TCP whose answers nobody reads", unread::over_tcp),
    ("the same over TLS", unread::over_tls),
    ("empty frames over UDP to allocations of all workers", frames::over_udp),
    ("frames of one byte over TCP under a bandwidth cap", frames::over_tcp),
    ("data for the server's own listeners", loops::to_listeners),
    ("connections of ten addresses that are held", connections::held),
    ("connections that are opened and closed", connections::churned),
    ("ClientHellos without an end", hellos::endless),
    ("ClientHellos, hundreds at once", hellos::many),
    ("allocations made and ended", churn::made_and_ended),
    ("user names with control characters", names::poisoned),
    ("requests from forged networks", forged::networks),
    ("nonsense from forged networks", forged::nonsense),
    ("allocations of one user, as many as it gets", ports::taken),
    ("silent connections to [metrics] and [admin]", local::silent),
];

/// Until when to attack.
pub(crate) struct Until<'t>(&'t AtomicBool);

impl Until<'_> {
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A pause between two rounds; what only holds something needs no more than a few a second.
    pub(crate) fn rest(&self, millis: u64) {
        std::thread::sleep(Duration::from_millis(millis));
    }
}

/// All kinds at work.
pub(crate) struct Hostile<'s>(Vec<(&'static str, ScopedJoinHandle<'s, u64>)>);

pub(crate) fn start<'s>(scope: &'s Scope<'s, '_>, target: &'s Target, stop: &'s AtomicBool) -> Hostile<'s> {
    let start = |(name, kind): (&'static str, Kind)| {
        let attack = move || {
            // Of the thread alone, on Linux.
            rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19).unwrap();
            kind(target, &Until(stop))
        };
        (name, scope.spawn(attack))
    };
    Hostile(KINDS.into_iter().map(start).collect())
}

impl Hostile<'_> {
    pub(crate) fn finish(self) -> Deeds {
        Deeds(self.0.into_iter().map(|(name, thread)| (name, thread.join().unwrap())).collect())
    }
}

/// What each kind has done.
pub(crate) struct Deeds(Vec<(&'static str, u64)>);

impl Deeds {
    pub(crate) fn assert_all_were_busy(&self) {
        for (name, done) in &self.0 {
            assert!(*done >= 10, "{name}: {done}");
        }
    }
}

impl fmt::Display for Deeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hostile:")?;
        self.0.iter().try_for_each(|(name, done)| write!(f, "\n  {done:>9} {name}"))
    }
}
