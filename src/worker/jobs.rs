//! Questions and orders that go over all allocations, worked off in parts between packets.

use std::collections::VecDeque;

use super::Worker;
use super::mailbox::Reply;
use crate::clock::Now;
use crate::turn::{AllocationView, Judgement, Kick, Listing, Totals, UserTotal};

/// Allocations looked at in one round: some 30 microseconds.
const LOOKED_AT: usize = 256;
/// Allocations and peers judged by a new snapshot in one round: 200 microseconds when none of them is in the CPU's cache.
const JUDGED: usize = 256;
/// Allocations of which those that are meant are ended in one round: as much, for closing sockets.
const ENDED: usize = 32;

pub(super) enum Job {
    List(Listing, Reply<Vec<AllocationView>>),
    Users(Totals, Reply<Vec<UserTotal>>),
    Kick(Kick, usize, Reply<usize>),
}

/// What is to be done, one after the other.
#[derive(Default)]
pub(super) struct Jobs {
    queue: VecDeque<Job>,
    judgements: Vec<Reply<Judgement>>,
}

impl Jobs {
    pub(super) fn add(&mut self, job: Job) {
        self.queue.push_back(job);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.judgements.is_empty()
    }

    /// Tells when every allocation has been judged by the snapshot that has just come.
    pub(super) fn tell_judgement(&mut self, reply: Reply<Judgement>) {
        self.judgements.push(reply);
    }
}

impl Worker {
    /// A part of the first job, and of the judgement if there is one.
    pub(super) fn work_on_jobs(&mut self, now: Now) {
        if self.jobs.is_empty() {
            return;
        }
        if !self.jobs.judgements.is_empty()
            && let Some(judgement) = self.server.judge(now, JUDGED, &mut self.relays)
        {
            // Who hears of it may read the counters next.
            self.report();
            self.jobs.judgements.drain(..).for_each(|reply| reply(judgement));
        }
        if let Some(job) = self.jobs.queue.pop_front()
            && let Some(unfinished) = self.work_on(now, job)
        {
            self.jobs.queue.push_front(unfinished);
        }
    }

    fn work_on(&mut self, now: Now, job: Job) -> Option<Job> {
        match job {
            Job::List(mut listing, reply) => {
                self.server.list(now, &mut listing, LOOKED_AT);
                if !listing.is_done() {
                    return Some(Job::List(listing, reply));
                }
                // The record of an allocation's start goes before others of it.
                self.report();
                reply(listing.into_found());
            }
            Job::Users(mut totals, reply) => {
                self.server.add_up(now, &mut totals, LOOKED_AT);
                if !totals.is_done() {
                    return Some(Job::Users(totals, reply));
                }
                reply(totals.into_users());
            }
            Job::Kick(mut kick, before, reply) => {
                let kicked = self.server.kick(now, &mut kick, ENDED, &mut self.relays);
                kicked.iter().for_each(|client| self.close_client(now, client));
                let ended = before + kicked.len();
                if !kick.is_done() {
                    return Some(Job::Kick(kick, ended, reply));
                }
                self.report();
                reply(ended);
            }
        }
        None
    }
}
