//! Questions and orders that go over all allocations, worked off in parts between packets.

use std::collections::VecDeque;

use super::clients::Clients;
use super::mailbox::Reply;
use super::observers::Observers;
use super::relay_sockets::RelaySockets;
use crate::clock::Now;
use crate::turn::{AllocationView, Judgement, Kick, Listing, Server, Totals, UserTotal};

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

    /// Works on a part of the first job, and of the judgement if there is one.
    pub(super) fn work(
        &mut self,
        now: Now,
        server: &mut Server,
        relays: &mut RelaySockets,
        clients: &mut Clients,
        observers: &mut Observers,
    ) {
        if !self.judgements.is_empty()
            && let Some(judgement) = server.judge(now, JUDGED, relays)
        {
            // Who hears of it may read the counters next.
            observers.report(server);
            self.judgements.drain(..).for_each(|reply| reply(judgement));
        }
        let Some(job) = self.queue.pop_front() else { return };
        let unfinished = match job {
            Job::List(mut listing, reply) => {
                server.list(now, &mut listing, LOOKED_AT);
                if listing.is_done() {
                    // The record of an allocation's start goes before others of it.
                    observers.report(server);
                    return reply(listing.into_found());
                }
                Job::List(listing, reply)
            }
            Job::Users(mut totals, reply) => {
                server.add_up(now, &mut totals, LOOKED_AT);
                if totals.is_done() {
                    return reply(totals.into_users());
                }
                Job::Users(totals, reply)
            }
            Job::Kick(mut kick, before, reply) => {
                let kicked = server.kick(now, &mut kick, ENDED, relays);
                kicked.iter().for_each(|client| clients.end(client));
                let ended = before + kicked.len();
                if kick.is_done() {
                    observers.report(server);
                    return reply(ended);
                }
                Job::Kick(kick, ended, reply)
            }
        };
        self.queue.push_front(unfinished);
    }
}
