//! A fleet in virtual time: servers with clocks that go wrong, calls and answers that are late, lost, doubled or out of order, a store that
//! stands still, forgets or is cut off, and servers that die.
//!
//! What is checked after each step is what `docs/store.md` promises. Of the allocations of a user, those are *excused* that
//! were made when nobody could say (`on-loss`), and those that a server had when the store lost its note, because the server was cut
//! off for too long or the store has forgotten. All others together are never more than the limit.

use std::sync::Arc;

use super::model::Model;
use crate::policy::{QuotaLimits, Quotas, Reservation, WithoutShare};
use crate::reject::Reason;
use crate::store::leases::call::{Call, Noted};
use crate::store::leases::node::{Node, Terms};
use crate::user::User;

pub(super) const TERM_MICROS: u64 = 60_000_000;
/// When a server gives up on a call.
const TIMEOUT_MICROS: u64 = 500_000;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Real time passes, in milliseconds.
    Wait(u32),
    /// An Allocate at a server, with a stricter limit of its credential perhaps.
    Allocate {
        server: u8,
        stricter: Option<u8>,
    },
    /// An allocation ends.
    End {
        server: u8,
        which: u8,
    },
    /// The store carries out one of the calls that are under way.
    CarryOut(u8),
    /// The same, and the call is still under way.
    CarryOutTwice(u8),
    /// One of the answers arrives.
    Answer(u8),
    /// One of them does not.
    LoseAnswer(u8),
    /// Calls and answers of a server come to nothing, or take their time, until it is joined again.
    CutOff(u8),
    Join(u8),
    /// It dies, and another one takes its place.
    Die(u8),
    /// The store stands still, and goes on.
    Pause,
    Resume,
    /// The store forgets everything.
    Flush,
    /// The store's clock is set forward.
    SetForward,
}

struct Server {
    name: String,
    quotas: Arc<Quotas>,
    node: Node<()>,
    /// How fast its clock is, in thousandths, and where it began.
    speed: u64,
    is_cut_off: bool,
    is_lost: bool,
    /// Calls that it waits for, and since when.
    calls: Vec<(u64, u64)>,
    /// Its allocations, and whether they are excused from the start.
    live: Vec<(Reservation, bool)>,
    /// Those that the store has lost its note of.
    lost: u64,
}

struct Answer {
    name: String,
    id: u64,
    noted: Option<Noted>,
    /// Whether the store has forgotten it since.
    is_forgotten: bool,
}

pub(super) struct Fleet {
    pub(super) limit: u32,
    pub(super) store: Model,
    /// Whether what is promised is looked at after each step.
    pub(super) is_checked: bool,
    user: User,
    servers: Vec<Server>,
    real_micros: u64,
    store_ahead_millis: u64,
    set_forward_micros: u64,
    is_paused: bool,
    /// Who has sent what.
    calls: Vec<(String, Call)>,
    answers: Vec<Answer>,
    died: usize,
    without: WithoutShare,
}

impl Fleet {
    pub(super) fn new(limit: u32, speeds: &[u64], without: WithoutShare) -> Self {
        let mut fleet = Self {
            limit,
            store: Model::default(),
            is_checked: true,
            user: User::fixed("ann"),
            servers: Vec::new(),
            real_micros: 1_000_000_000,
            store_ahead_millis: 5_000_000,
            set_forward_micros: 0,
            is_paused: false,
            calls: Vec::new(),
            answers: Vec::new(),
            died: 0,
            without,
        };
        fleet.servers = speeds.iter().enumerate().map(|(n, speed)| fleet.server(&format!("s{n}"), *speed)).collect();
        fleet
    }

    fn server(&self, name: &str, speed: u64) -> Server {
        let quotas = Arc::new(Quotas::default());
        quotas.set_without_share(self.without);
        quotas.set_fleet(false, self.servers.len().max(1) as u32);
        let node = Node::new(Arc::clone(&quotas), Terms { term_micros: TERM_MICROS });
        let (name, calls, live) = (name.to_owned(), Vec::new(), Vec::new());
        Server { name, quotas, node, speed, is_cut_off: false, is_lost: false, calls, live, lost: 0 }
    }

    pub(super) fn take(&mut self, step: &Step) {
        let count = self.servers.len();
        let at = |server: &u8| usize::from(*server) % count;
        match step {
            Step::Wait(millis) => self.wait(u64::from(*millis)),
            Step::Allocate { server, stricter } => self.allocate(at(server), stricter.map(u32::from)),
            Step::End { server, which } => {
                let live = &mut self.servers[at(server)].live;
                if !live.is_empty() {
                    drop(live.swap_remove(usize::from(*which) % live.len()));
                }
            }
            Step::CarryOut(which) => self.carry_out(*which, false),
            Step::CarryOutTwice(which) => self.carry_out(*which, true),
            Step::Answer(which) => self.answer(*which),
            Step::LoseAnswer(which) if !self.answers.is_empty() => {
                drop(self.answers.swap_remove(usize::from(*which) % self.answers.len()));
            }
            Step::LoseAnswer(_) => {}
            Step::CutOff(server) => self.servers[at(server)].is_cut_off = true,
            Step::Join(server) => self.servers[at(server)].is_cut_off = false,
            Step::Die(server) => {
                self.died += 1;
                let name = format!("{}+{}", self.servers[at(server)].name, self.died);
                self.servers[at(server)] = self.server(&name, self.servers[at(server)].speed);
                // It knows the fleet by the time that it takes clients, or has the least share.
                let servers = count as u32;
                self.servers[at(server)].quotas.set_fleet(false, servers);
            }
            Step::Pause => self.is_paused = true,
            Step::Resume => self.is_paused = false,
            Step::Flush => {
                self.store.flush();
                self.answers.iter_mut().for_each(|answer| answer.is_forgotten = true);
                for n in 0..count {
                    self.servers[n].lost = self.counted(n);
                }
            }
            Step::SetForward => {
                if self.real_micros - self.set_forward_micros > 2 * TERM_MICROS {
                    self.set_forward_micros = self.real_micros;
                    self.pass(|fleet| fleet.store_ahead_millis += 4_000);
                }
            }
        }
        self.go_on();
        self.check(step);
    }

    /// Until nothing is under way any more.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            self.go_on();
            if self.calls.is_empty() && self.answers.is_empty() {
                return;
            }
            self.carry_out(1, false);
            self.answer(0);
        }
        panic!("calls without end");
    }

    /// The call that was sent last is carried out and answered.
    pub(super) fn carry_out_last(&mut self) {
        if let Some(last) = self.calls.len().checked_sub(1) {
            self.carry_out(last as u8, false);
            self.answer(self.answers.len().saturating_sub(1) as u8);
            self.go_on();
        }
    }

    /// All faults are over, for long enough.
    pub(super) fn recover(&mut self) {
        self.is_paused = false;
        self.servers.iter_mut().for_each(|server| server.is_cut_off = false);
        for _ in 0..TERM_MICROS / 1_000_000 * 2 {
            self.wait(1_000);
            self.settle();
            self.check(&Step::Wait(1_000));
        }
    }

    pub(super) fn live(&self) -> u64 {
        self.servers.iter().map(|server| server.live.len() as u64).sum()
    }

    pub(super) fn noted(&self) -> u64 {
        self.store.sum(self.store_millis(), &self.key())
    }

    pub(super) fn allocate(&mut self, server: usize, stricter: Option<u32>) {
        if !self.reserve(server, stricter) {
            return;
        }
        let limit = self.limit.min(stricter.unwrap_or(u32::MAX));
        let (user, now_micros) = (self.user.clone(), self.now(server));
        self.servers[server].node.ask(now_micros, &user, limit, ()).unwrap();
        self.go_on();
    }

    /// Returns whether the share has to be asked for.
    fn reserve(&mut self, server: usize, stricter: Option<u32>) -> bool {
        let now_micros = self.now(server);
        let server = &mut self.servers[server];
        let fleet_per_user = Some(self.limit.min(stricter.unwrap_or(u32::MAX)));
        let limits = QuotaLimits { fleet_per_user, ..QuotaLimits::default() };
        let without = server.quotas.share_totals().made_without;
        match server.quotas.reserve(limits, &self.user, now_micros) {
            Ok(reservation) => {
                let is_excused = server.quotas.share_totals().made_without > without;
                server.live.push((reservation, is_excused));
                false
            }
            Err(reason) => reason == Reason::FleetUnavailable && !server.is_lost,
        }
    }

    fn key(&self) -> String {
        Call { user: self.user.clone(), id: 0, floor: 0, need: 0, wish: 0, limit: 0 }.key("example.org")
    }

    fn now(&self, server: usize) -> u64 {
        self.real_micros * self.servers[server].speed / 1000
    }

    fn store_millis(&self) -> u64 {
        self.real_micros / 1000 + self.store_ahead_millis
    }

    /// What a server may have without asking.
    fn counted(&self, server: usize) -> u64 {
        let now_micros = self.now(server);
        let server = &self.servers[server];
        let share = server.quotas.share(&self.user).filter(|share| now_micros < share.until_micros);
        share.map_or(0, |share| u64::from(share.allocations)).max(server.live.len() as u64)
    }

    /// A client comes, and the store is asked for it at once, if need be.
    pub(super) fn fill(&mut self, server: usize) {
        for _ in 0..self.limit + 2 {
            let before = self.calls.len();
            self.allocate(server, None);
            if self.calls.len() > before {
                self.carry_out_last();
            }
        }
    }

    fn wait(&mut self, millis: u64) {
        // In pieces, as the server's own timer would have it.
        for piece in (0..millis).step_by(1_000) {
            self.pass(|fleet| fleet.real_micros += (millis - piece).min(1_000) * 1000);
            self.go_on();
        }
    }

    /// Time passes for the store; a note may be over.
    fn pass(&mut self, pass: impl FnOnce(&mut Self)) {
        let key = self.key();
        let noted = |fleet: &Self, n: usize| fleet.store.share(fleet.store_millis(), &key, &fleet.servers[n].name);
        let before: Vec<_> = (0..self.servers.len()).map(|n| noted(self, n).is_some()).collect();
        pass(self);
        for (n, was_noted) in before.into_iter().enumerate() {
            if was_noted && noted(self, n).is_none() {
                let live = self.servers[n].live.len() as u64;
                assert!(self.counted(n) == live, "a server counts on a share that the store gives to others");
                self.servers[n].lost = live;
            }
        }
    }

    /// What the servers do of themselves: they give up on calls, and send what is due.
    fn go_on(&mut self) {
        for n in 0..self.servers.len() {
            let now_micros = self.now(n);
            let servers = self.servers.len() as u32;
            let server = &mut self.servers[n];
            let (late, calls) =
                server.calls.iter().partition(|(_, at_micros)| at_micros + TIMEOUT_MICROS <= now_micros);
            server.calls = calls;
            let late: Vec<(u64, u64)> = late;
            for (id, _) in late {
                server.node.answered(now_micros, id, None);
                server.is_lost = true;
                server.quotas.set_fleet(true, servers);
            }
            for call in server.node.poll_calls(now_micros, 16) {
                server.calls.push((call.id, now_micros));
                self.calls.push((server.name.clone(), call));
            }
        }
    }

    fn carry_out(&mut self, which: u8, is_doubled: bool) {
        if self.is_paused || self.calls.is_empty() {
            return;
        }
        let at = usize::from(which) % self.calls.len();
        let (name, call) = match is_doubled {
            true => self.calls[at].clone(),
            false => self.calls.swap_remove(at),
        };
        if self.servers.iter().any(|server| server.name == name && server.is_cut_off) {
            // On its way still, or lost: chance has it.
            if which.is_multiple_of(2) && !is_doubled {
                self.calls.push((name, call));
            }
            return;
        }
        let now_millis = self.store_millis();
        let answer = self.store.call(now_millis, &self.key(), &name, call.arguments(TERM_MICROS / 1000));
        self.answers.push(Answer { name, id: call.id, noted: Noted::read(&answer), is_forgotten: false });
    }

    fn answer(&mut self, which: u8) {
        if self.answers.is_empty() {
            return;
        }
        let Answer { name, id, noted, is_forgotten } =
            self.answers.swap_remove(usize::from(which) % self.answers.len());
        let Some(n) = self.servers.iter().position(|server| server.name == name) else { return };
        let (now_micros, servers) = (self.now(n), self.servers.len() as u32);
        let server = &mut self.servers[n];
        if server.is_cut_off {
            return;
        }
        server.calls.retain(|(call, _)| *call != id);
        if std::mem::take(&mut server.is_lost) {
            server.quotas.set_fleet(false, servers);
            server.node.renew_all(now_micros);
        }
        let waited = server.node.answered(now_micros, id, noted);
        if is_forgotten {
            self.servers[n].lost = self.counted(n);
        }
        for _ in waited {
            self.reserve(n, None);
        }
    }

    fn check(&mut self, step: &Step) {
        if !self.is_checked {
            return;
        }
        let (key, now_millis) = (self.key(), self.store_millis());
        let sum = self.store.sum(now_millis, &key);
        let mut counted = 0;
        for n in 0..self.servers.len() {
            let may_have = self.counted(n);
            let noted = self.store.share(now_millis, &key, &self.servers[n].name).unwrap_or_default();
            let name = &self.servers[n].name;
            let is_lowered = self.calls.iter().any(|(of, call)| of == name && u64::from(call.floor) < may_have);
            let server = &mut self.servers[n];
            let live = server.live.len() as u64;
            assert!(live <= u64::from(self.limit), "{step:?}: a server has {live} of {}", self.limit);
            server.lost = server.lost.min(may_have);
            if sum <= u64::from(self.limit) && may_have <= noted && !is_lowered {
                // Its allocations are all noted, within the limit, and will stay so: nothing is to be excused any more.
                server.lost = 0;
                server.live.iter_mut().for_each(|(_, is_excused)| *is_excused = false);
            }
            let excused = server.live.iter().filter(|(_, is_excused)| *is_excused).count() as u64;
            counted += live.saturating_sub(server.lost + excused);
        }
        let all: Vec<_> = self.servers.iter().map(|server| (server.live.len(), server.lost)).collect();
        assert!(counted <= u64::from(self.limit), "{step:?}: {counted} of {}; {all:?}", self.limit);
    }
}
