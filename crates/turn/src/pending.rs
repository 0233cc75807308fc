//! Requests that wait for an answer from outside, and the questions they wait for.
//!
//! What is pending is a request with its client, and the question that it waits for. Where the answer is a fact, the request is handled
//! again; where it is an action, which RFC 6062 has, the same table keeps the transaction until its response can be written, and the kind
//! of the question says which.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::addr::FiveTuple;
use crate::auth::AskPolicy;
use crate::policy::networks;
use turnstone_stun::{Message, TransactionId};

use super::ask::{Ask, AskId, Question, WaitCounts};
use super::facts::{Fact, Facts};
use super::output::Client;

/// The longest request that waits. RFC 8489 lets USERNAME, REALM and NONCE have 508, 763 and 763 bytes.
const REQUEST_BYTES_MAX: usize = 2304;
/// Questions kept for each request that may wait: half of them are such that nobody waits for any more, whose answer may still come.
const QUESTIONS_PER_REQUEST: usize = 2;
/// Requests of one 5-tuple that wait at once. Clients have one transaction at a time, but for some that send the next requests along.
const OF_CLIENT_MAX: usize = 8;
/// Requests that are let go in one [`Pending::expire`]: the answers to them cost more than the look at their deadlines.
const EXPIRED_AT_ONCE_MAX: usize = 64;

/// The requests that wait. There is nothing of it as long as none has.
#[derive(Default)]
pub(super) struct Pending {
    /// What has been answered before.
    pub(super) facts: Facts,
    /// What has just been answered, for the request that is handled again: it may be too short-lived to be kept.
    pub(super) at_hand: Option<(Question, Fact)>,
    /// What the request that is handled again has behind it, if it has waited for its user's share.
    pub(super) share: Option<ShareWait>,
    pub(super) counts: WaitCounts,
    /// In the order of their arrival.
    parked: BTreeMap<u64, Parked>,
    bytes: usize,
    of_client: HashMap<FiveTuple, Vec<u64>>,
    /// How many are parked of a network and those around it.
    of_network: HashMap<(u32, u64), usize>,
    /// When who gives up, in microseconds.
    deadlines: BTreeSet<(u64, u64)>,
    /// Those that wait no more.
    ready: BTreeMap<u64, Fate>,
    questions: BTreeMap<AskId, Asking>,
    ids: HashMap<Question, AskId>,
    to_ask: BTreeSet<AskId>,
    /// Asked, and nobody waits any more.
    abandoned: BTreeSet<AskId>,
    next: u64,
}

/// A request that waits.
pub(super) struct Parked {
    pub(super) client: Client,
    pub(super) request: Box<[u8]>,
    transaction: TransactionId,
    waits_for: AskId,
    /// Whether that is a share of a limit, and not a credential.
    pub(super) for_share: bool,
    pub(super) deadline_micros: u64,
}

/// What a request has behind it that has waited for its user's share.
#[derive(Clone, Copy)]
pub(super) struct ShareWait {
    /// Until when it may wait if the share is used up again.
    pub(super) until_micros: u64,
    /// Whether nobody could say.
    pub(super) is_late: bool,
}

/// Why a request waits no more.
#[derive(Clone)]
pub(super) enum Fate {
    /// This is known now.
    Told(Question, Fact),
    /// The share of its user has been set.
    ShareSet,
    /// Nobody could say.
    Failed,
    /// Nobody has said.
    TimedOut,
}

/// As many requests wait as may.
pub(super) struct Full;

struct Asking {
    question: Question,
    client: FiveTuple,
    /// Until when the answer is awaited: afterwards it is asked again.
    deadline_micros: u64,
    waiting: BTreeSet<u64>,
}

impl Pending {
    /// Whether a copy of this request waits already. Another request of the same transaction takes the place of the one that waits:
    /// a transaction has one answer.
    pub(super) fn is_copy(&mut self, client: &Client, message: &Message<'_>) -> bool {
        let Some(seqs) = self.of_client.get(&client.five_tuple) else { return false };
        let is_same = |parked: &Parked| parked.transaction == message.transaction_id();
        let Some(seq) = seqs.iter().copied().find(|seq| self.parked.get(seq).is_some_and(is_same)) else {
            return false;
        };
        if let Some(parked) = self.parked.get_mut(&seq)
            && *parked.request == *message.as_bytes()
        {
            // The client is where its last copy came from.
            parked.client = *client;
            self.counts.repeated += 1;
            return true;
        }
        self.give_up(seq);
        self.counts.replaced += 1;
        false
    }

    /// Has a request wait for the answer to a question.
    pub(super) fn park(
        &mut self,
        now_micros: u64,
        policy: &AskPolicy,
        client: &Client,
        message: &Message<'_>,
        question: Question,
    ) -> Result<(), Full> {
        let request = message.as_bytes();
        if request.len() > REQUEST_BYTES_MAX || !self.has_room(policy, &client.five_tuple) {
            self.counts.refused += 1;
            return Err(Full);
        }
        let deadline_micros = now_micros.saturating_add(u64::from(policy.deadline_millis) * 1000);
        let seq = self.next();
        let for_share = matches!(question, Question::Share { .. });
        let waits_for = self.asking(now_micros, policy, deadline_micros, (question, client.five_tuple));
        if let Some(asking) = self.questions.get_mut(&waits_for) {
            asking.waiting.insert(seq);
        }
        self.abandoned.remove(&waits_for);
        for (share, network) in networks(client.five_tuple.client.get().ip()) {
            *self.of_network.entry((share, network)).or_default() += 1;
        }
        self.of_client.entry(client.five_tuple).or_default().push(seq);
        self.deadlines.insert((deadline_micros, seq));
        self.bytes += request.len();
        let transaction = message.transaction_id();
        let request = request.into();
        let parked = Parked { client: *client, request, transaction, waits_for, for_share, deadline_micros };
        self.parked.insert(seq, parked);
        self.counts.parked += 1;
        Ok(())
    }

    /// The next question to ask.
    pub(super) fn ask(&mut self) -> Option<Ask> {
        let id = self.to_ask.pop_first()?;
        let Asking { question, client, deadline_micros, .. } = self.questions.get(&id)?;
        self.counts.asked += 1;
        Some(Ask { id, question: question.clone(), client: *client, deadline_micros: *deadline_micros })
    }

    /// Whether there is a question to ask.
    pub(super) fn has_ask(&self) -> bool {
        !self.to_ask.is_empty()
    }

    /// Takes a question that has its answer; `None` if there is none of this name (any more). [`Self::settle`] follows.
    pub(super) fn take_question(&mut self, id: AskId) -> Option<(Question, BTreeSet<u64>)> {
        let Some(asking) = self.forget(id) else {
            self.counts.stray_answers += 1;
            return None;
        };
        if asking.waiting.is_empty() {
            self.counts.late_answers += 1;
        }
        Some((asking.question, asking.waiting))
    }

    /// Lets requests go on.
    pub(super) fn settle(&mut self, waiting: BTreeSet<u64>, fate: &Fate) {
        for seq in waiting {
            if let Some(parked) = self.parked.get(&seq) {
                self.deadlines.remove(&(parked.deadline_micros, seq));
                self.ready.insert(seq, fate.clone());
            }
        }
    }

    /// Lets go who has waited long enough: the first of them, if they are many.
    pub(super) fn expire(&mut self, now_micros: u64) {
        for _ in 0..EXPIRED_AT_ONCE_MAX {
            let due = self.deadlines.first().copied().filter(|(deadline_micros, _)| *deadline_micros <= now_micros);
            let Some((deadline_micros, seq)) = due else { return };
            self.deadlines.remove(&(deadline_micros, seq));
            self.stop_waiting(seq);
            self.ready.insert(seq, Fate::TimedOut);
        }
    }

    /// When [`Self::expire`] is due.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_micros, _)| *deadline_micros)
    }

    /// Whether there is a request that waits no more.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next request that waits no more.
    pub(super) fn pop_ready(&mut self) -> Option<(Parked, Fate)> {
        loop {
            let (seq, fate) = self.ready.pop_first()?;
            if let Some(parked) = self.unpark(seq) {
                match fate {
                    Fate::Told(..) | Fate::ShareSet | Fate::Failed => self.counts.answered += 1,
                    Fate::TimedOut => self.counts.timed_out += 1,
                }
                return Some((parked, fate));
            }
        }
    }

    /// Forgets the requests of a client that cannot be reached any more.
    pub(super) fn forget_client(&mut self, five_tuple: &FiveTuple) {
        for seq in self.of_client.get(five_tuple).cloned().unwrap_or_default() {
            self.give_up(seq);
            self.counts.gone += 1;
        }
    }

    /// How many requests wait, their bytes, and how many questions have no answer.
    pub(super) fn len(&self) -> (usize, usize, usize) {
        (self.parked.len(), self.bytes, self.questions.len())
    }

    fn has_room(&self, policy: &AskPolicy, five_tuple: &FiveTuple) -> bool {
        let half = policy.waiting_max.div_ceil(2);
        let has_room = |(share, network): (u32, u64)| {
            let parked = self.of_network.get(&(share, network)).copied().unwrap_or_default();
            parked < policy.waiting_per_network_max.saturating_mul(share as usize).min(half)
        };
        self.parked.len() < policy.waiting_max
            && self.of_client.get(five_tuple).is_none_or(|seqs| seqs.len() < OF_CLIENT_MAX)
            && networks(five_tuple.client.get().ip()).all(has_room)
    }

    /// The question's name: one that waits for its answer already, or else a new one.
    fn asking(
        &mut self,
        now_micros: u64,
        policy: &AskPolicy,
        deadline_micros: u64,
        (question, client): (Question, FiveTuple),
    ) -> AskId {
        if let Some(id) = self.ids.get(&question).copied()
            && let Some(asking) = self.questions.get_mut(&id)
        {
            if asking.deadline_micros <= now_micros {
                (asking.deadline_micros, asking.client) = (deadline_micros, client);
                self.to_ask.insert(id);
            }
            return id;
        }
        while self.questions.len() >= policy.waiting_max.saturating_mul(QUESTIONS_PER_REQUEST)
            && let Some(oldest) = self.abandoned.first().copied()
        {
            self.forget(oldest);
        }
        let id = AskId(self.next());
        self.ids.insert(question.clone(), id);
        self.questions.insert(id, Asking { question, client, deadline_micros, waiting: BTreeSet::new() });
        self.to_ask.insert(id);
        id
    }

    /// Takes a request out that is not to be answered any more.
    fn give_up(&mut self, seq: u64) {
        if self.ready.remove(&seq).is_none() {
            self.stop_waiting(seq);
        }
        self.unpark(seq);
    }

    /// Its question has one less that waits for it.
    fn stop_waiting(&mut self, seq: u64) {
        let Some(id) = self.parked.get(&seq).map(|parked| parked.waits_for) else { return };
        let Some(asking) = self.questions.get_mut(&id) else { return };
        asking.waiting.remove(&seq);
        if !asking.waiting.is_empty() {
            return;
        }
        // A question that nobody has been asked yet need not be.
        if self.to_ask.contains(&id) {
            self.forget(id);
        } else {
            self.abandoned.insert(id);
        }
    }

    fn unpark(&mut self, seq: u64) -> Option<Parked> {
        let parked = self.parked.remove(&seq)?;
        self.deadlines.remove(&(parked.deadline_micros, seq));
        self.bytes -= parked.request.len();
        for key in networks(parked.client.five_tuple.client.get().ip()) {
            if let Some(count) = self.of_network.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.of_network.remove(&key);
                }
            }
        }
        if let Some(seqs) = self.of_client.get_mut(&parked.client.five_tuple) {
            seqs.retain(|other| *other != seq);
            if seqs.is_empty() {
                self.of_client.remove(&parked.client.five_tuple);
            }
        }
        Some(parked)
    }

    fn forget(&mut self, id: AskId) -> Option<Asking> {
        let asking = self.questions.remove(&id)?;
        self.ids.remove(&asking.question);
        self.to_ask.remove(&id);
        self.abandoned.remove(&id);
        Some(asking)
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
