//! A fleet in virtual time: servers with the real [`Node`] and the real quotas, a store that takes its time for each call, calls of users that
//! come and go.
//!
//! Not all of the fleet of the page is played, but a part of it: so many servers fewer, and a store that is slower by as much. What a server
//! has to do, and how long its calls wait, is that of the whole.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::policy::{QuotaLimits, Quotas, Reservation, WithoutShare};
use crate::reject::Reason;
use crate::store::handle::{PAUSE_MAX, PAUSE_MIN, by_chance};
use crate::store::leases::call::Noted;
use crate::store::leases::node::{Node, Terms};
use crate::store::leases::tests::model::Model;
use crate::store::leases::window::Window;
use crate::user::User;

/// `[store] lease` and `timeout`, and how long an Allocate waits: the defaults.
const TERM_MICROS: u64 = 60_000_000;
const TIMEOUT_MICROS: u64 = 500_000;
const ALLOCATE_WAITS_MICROS: u64 = 200_000;
/// There and back.
const ROUND_TRIP_MICROS: u64 = 1_000;
const TICK_MICROS: u64 = 10_000;
const BEGIN_MICROS: u64 = 1_000_000_000;
/// So long does it take at most until all are there that are there from the start.
const FILL_TICKS_MAX: u64 = 40 * TICKS_PER_SECOND;
pub(super) const TICKS_PER_SECOND: u64 = 1_000_000 / TICK_MICROS;
/// What is played.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    /// Users with calls at a time. Each comes anew when his calls are over.
    pub(super) users: usize,
    pub(super) limit: u32,
    /// So many allocations does a user make at least, and at most.
    pub(super) allocations: (u32, u32),
    /// How long they last.
    pub(super) seconds: (u64, u64),
    /// Whether he makes each of them at another server.
    pub(super) is_spread: bool,
    /// How long the store has to do with a call about a share, and with a server that says that it is there; on how many shards.
    pub(super) call_micros: u64,
    pub(super) beat_micros: u64,
    pub(super) shards: usize,
    pub(super) without: WithoutShare,
    /// So many calls are under way at a server at once, whatever becomes of them: not as it is, but as it was.
    pub(super) fixed_window: Option<usize>,
}

/// What happens at a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// One of so many servers dies; its clients find out within 3 to 15 seconds, and go elsewhere.
    Die {
        one_of: usize,
    },
    /// Those that are dead start.
    Start,
    /// The store is gone, or comes back: with what it knew, or empty.
    Lose,
    Return {
        is_empty: bool,
    },
    /// One of so many servers cannot reach it, until it can again.
    CutOff {
        one_of: usize,
    },
    Join,
}

/// What was seen within a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    /// Calls that the store has carried out: about shares, by which something was to be had, and others; servers that say that they are there.
    pub(super) asked: u64,
    pub(super) kept: u64,
    pub(super) beats: u64,
    /// Calls that came to nothing.
    pub(super) failed: u64,
    /// Allocations made: by a share, or without one; refused by the quota, or because nobody could say.
    pub(super) made: u64,
    pub(super) without: u64,
    pub(super) refused: u64,
    /// Allocates that waited for the store longer than they may.
    pub(super) late: u64,
    /// The longest that a call has waited for its answer, in microseconds.
    pub(super) slowest_micros: u64,
    /// At its end: servers that cannot ask; allocations; the most that one user has.
    pub(super) lost: u64,
    pub(super) live: u64,
    pub(super) most: u64,
}

struct Server {
    name: String,
    quotas: Arc<Quotas>,
    node: Node<u64>,
    window: Window,
    under_way: usize,
    is_alive: bool,
    is_cut_off: bool,
    /// Whether there is a connection; if not, when it is tried again, and how long after that.
    is_connected: bool,
    connect_micros: u64,
    pause: Duration,
    is_lost: bool,
    beat_micros: u64,
    retry_micros: u64,
    live: u64,
}

struct Caller {
    user: User,
    live: Vec<(usize, Reservation)>,
    /// How often he has come: what belongs to an earlier time is over.
    round: u32,
}

/// What a server hears.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    Answer { id: u64, share: u32, others: u64, waited_micros: u64 },
    Failed { id: u64 },
    Beat { is_there: bool, was_known: bool },
}

/// When it hears it, in which order, and who: the server and its instance.
type ToHear = (u64, u64, usize, u32, Heard);

/// What somebody does.
#[derive(Clone, Copy)]
enum Turn {
    Come(u32),
    Go(u32, u32),
    /// An Allocate has waited for as long as it may.
    Late(u64),
}

pub(super) struct World {
    plan: Plan,
    servers: Vec<Server>,
    callers: Vec<Caller>,
    store: Model,
    known: Vec<bool>,
    is_store_there: bool,
    /// When each shard has done what it has to do.
    busy_until: Vec<u64>,
    now_micros: u64,
    fill_until_micros: u64,
    turns: VecDeque<Vec<Turn>>,
    heard: BinaryHeap<Reverse<ToHear>>,
    heard_count: u64,
    /// Allocates that wait: caller, round, server; `None` once they are decided.
    waiting: Vec<Option<(u32, u32, usize)>>,
    instances: u32,
    chance: Chance,
    second: Second,
}

impl World {
    /// All users come within `fill_secs`.
    pub(super) fn new(plan: Plan, seed: u64, fill_secs: u64) -> Self {
        let mut world = Self {
            plan,
            servers: Vec::new(),
            callers: Vec::new(),
            store: Model::default(),
            known: vec![false; plan.nodes],
            is_store_there: true,
            busy_until: vec![0; plan.shards],
            now_micros: BEGIN_MICROS,
            fill_until_micros: BEGIN_MICROS + fill_secs * 1_000_000,
            turns: VecDeque::new(),
            heard: BinaryHeap::new(),
            heard_count: 0,
            waiting: Vec::new(),
            instances: 0,
            chance: Chance(seed),
            second: Second::default(),
        };
        for n in 0..plan.nodes {
            let server = world.server(n);
            world.servers.push(server);
        }
        for n in 0..plan.users {
            world.callers.push(Caller { user: User::time_limited(format!("user-{n}")), live: Vec::new(), round: 0 });
            let ticks = world.chance.between(0, fill_secs * TICKS_PER_SECOND);
            world.at(ticks, Turn::Come(n as u32));
        }
        world
    }

    /// A second passes.
    pub(super) fn second(&mut self) -> Second {
        self.second = Second::default();
        for _ in 0..TICKS_PER_SECOND {
            self.tick();
        }
        self.second.lost = self.servers.iter().filter(|server| server.is_alive && server.is_lost).count() as u64;
        self.second.live = self.servers.iter().map(|server| server.live).sum();
        self.second.most = self.callers.iter().map(|caller| caller.live.len() as u64).max().unwrap_or_default();
        self.second
    }

    pub(super) fn happens(&mut self, fault: Fault) {
        let hit = |n: usize, one_of: usize| n.is_multiple_of(one_of);
        match fault {
            Fault::Die { one_of } => {
                (0..self.servers.len()).filter(|n| hit(*n, one_of)).for_each(|n| self.die(n));
            }
            Fault::Start => {
                for n in 0..self.servers.len() {
                    if !self.servers[n].is_alive {
                        self.servers[n] = self.server(n);
                    }
                }
            }
            Fault::Lose => self.is_store_there = false,
            Fault::Return { is_empty } => {
                self.is_store_there = true;
                self.busy_until.fill(self.now_micros);
                if is_empty {
                    self.store.flush();
                    self.known.fill(false);
                }
            }
            Fault::CutOff { one_of } => {
                self.servers.iter_mut().enumerate().for_each(|(n, server)| server.is_cut_off = hit(n, one_of));
            }
            Fault::Join => self.servers.iter_mut().for_each(|server| server.is_cut_off = false),
        }
    }

    fn server(&mut self, n: usize) -> Server {
        self.instances += 1;
        let quotas = Arc::new(Quotas::default());
        quotas.set_without_share(self.plan.without);
        quotas.set_fleet(true, 0);
        let node = Node::new(Arc::clone(&quotas), Terms { term_micros: TERM_MICROS });
        self.known[n] = false;
        let now_micros = self.now_micros;
        // They were not all started in the same moment.
        let first_micros = now_micros + self.chance.between(0, 1_000_000);
        Server {
            name: format!("turn{n}:{:016x}", self.instances),
            quotas,
            node,
            window: Window::default(),
            under_way: 0,
            is_alive: true,
            is_cut_off: false,
            is_connected: false,
            connect_micros: first_micros,
            pause: PAUSE_MIN,
            is_lost: true,
            beat_micros: first_micros,
            retry_micros: first_micros,
            live: 0,
        }
    }

    fn die(&mut self, n: usize) {
        self.servers[n].is_alive = false;
        self.servers[n].live = 0;
        for caller in 0..self.callers.len() {
            let had = self.callers[caller].live.len();
            self.callers[caller].live.retain(|(server, _)| *server != n);
            if self.callers[caller].live.len() < had && self.callers[caller].live.is_empty() {
                self.callers[caller].round += 1;
                let ticks = self.chance.between(3 * TICKS_PER_SECOND, 15 * TICKS_PER_SECOND);
                self.at(ticks, Turn::Come(caller as u32));
            }
        }
    }

    fn at(&mut self, ticks: u64, turn: Turn) {
        let ticks = ticks as usize;
        while self.turns.len() <= ticks {
            self.turns.push_back(Vec::new());
        }
        self.turns[ticks].push(turn);
    }

    fn tick(&mut self) {
        self.now_micros += TICK_MICROS;
        for turn in self.turns.pop_front().unwrap_or_default() {
            match turn {
                Turn::Come(caller) => self.come(caller),
                Turn::Go(caller, round) => self.go(caller, round),
                Turn::Late(who) => self.late(who),
            }
        }
        while let Some(Reverse((at_micros, ..))) = self.heard.peek()
            && *at_micros <= self.now_micros
        {
            if let Some(Reverse((_, _, n, instance, heard))) = self.heard.pop()
                && self.servers[n].is_alive
                && self.servers[n].name.ends_with(&format!("{instance:016x}"))
            {
                self.hear(n, heard);
            }
        }
        for n in 0..self.servers.len() {
            self.go_on(n);
        }
    }

    /// What a server does of itself, as `LeaseKeeper` and `StoreKeeper` have it.
    fn go_on(&mut self, n: usize) {
        let now_micros = self.now_micros;
        if !self.servers[n].is_alive {
            return;
        }
        let can_reach = self.is_store_there && !self.servers[n].is_cut_off;
        let server = &mut self.servers[n];
        if !server.is_connected && server.connect_micros <= now_micros {
            if can_reach {
                (server.is_connected, server.pause) = (true, PAUSE_MIN);
                self.beat(n);
            } else {
                let pause = by_chance(server.pause, self.chance.next());
                server.connect_micros = now_micros + pause.as_micros() as u64;
                server.pause = (server.pause * 2).min(PAUSE_MAX);
            }
        }
        let server = &mut self.servers[n];
        if server.beat_micros <= now_micros {
            server.beat_micros += TERM_MICROS / 12;
            if !server.is_lost {
                self.beat(n);
            }
        }
        let server = &mut self.servers[n];
        if server.retry_micros <= now_micros {
            server.retry_micros += 1_000_000;
            if server.is_lost && server.is_connected {
                self.beat(n);
            }
        }
        let server = &mut self.servers[n];
        let room = match self.plan.fixed_window {
            Some(window) => window.saturating_sub(server.under_way),
            None => server.window.room(server.under_way),
        };
        if server.is_lost || room == 0 {
            return;
        }
        for call in server.node.poll_calls(now_micros, room) {
            let server = &mut self.servers[n];
            server.under_way += 1;
            let instance = instance_of(&server.name);
            let is_asking = call.need > call.floor;
            let shard = shard_of(call.user.name(), self.plan.shards);
            let Some(done_micros) = self.carried_out(n, shard, self.plan.call_micros) else {
                self.hears(now_micros + TIMEOUT_MICROS, n, instance, Heard::Failed { id: call.id });
                continue;
            };
            *(if is_asking { &mut self.second.asked } else { &mut self.second.kept }) += 1;
            let name = &self.servers[n].name;
            let arguments = call.arguments(TERM_MICROS / 1000);
            let answer = self.store.call(done_micros / 1000, &call.key("example.org"), name, arguments);
            let answered_micros = done_micros + ROUND_TRIP_MICROS / 2;
            let waited_micros = answered_micros - now_micros;
            self.second.slowest_micros = self.second.slowest_micros.max(waited_micros);
            if waited_micros > TIMEOUT_MICROS {
                self.hears(now_micros + TIMEOUT_MICROS, n, instance, Heard::Failed { id: call.id });
            } else if let Some(Noted { share, id, others, .. }) = Noted::read(&answer) {
                assert_eq!(id, call.id);
                self.hears(answered_micros, n, instance, Heard::Answer { id, share, others, waited_micros });
            }
        }
    }

    /// When the store has carried something out that is sent now; `None`: never.
    fn carried_out(&mut self, n: usize, shard: usize, cost_micros: u64) -> Option<u64> {
        if !self.is_store_there || self.servers[n].is_cut_off {
            return None;
        }
        let arrives_micros = self.now_micros + ROUND_TRIP_MICROS / 2;
        let busy_until = &mut self.busy_until[shard];
        *busy_until = arrives_micros.max(*busy_until) + cost_micros;
        Some(*busy_until)
    }

    /// The server says that it is there.
    fn beat(&mut self, n: usize) {
        let instance = instance_of(&self.servers[n].name);
        let now_micros = self.now_micros;
        let done_micros = self.carried_out(n, 0, self.plan.beat_micros);
        let was_known = self.known[n];
        let in_time = done_micros.map(|done_micros| done_micros + ROUND_TRIP_MICROS / 2);
        if done_micros.is_some() {
            self.known[n] = true;
            self.second.beats += 1;
        }
        match in_time.filter(|at_micros| at_micros - now_micros <= TIMEOUT_MICROS) {
            Some(at_micros) => self.hears(at_micros, n, instance, Heard::Beat { is_there: true, was_known }),
            None => self.hears(now_micros + TIMEOUT_MICROS, n, instance, Heard::Beat { is_there: false, was_known }),
        }
    }

    fn hears(&mut self, at_micros: u64, n: usize, instance: u32, heard: Heard) {
        self.heard_count += 1;
        self.heard.push(Reverse((at_micros, self.heard_count, n, instance, heard)));
    }

    fn hear(&mut self, n: usize, heard: Heard) {
        let now_micros = self.now_micros;
        let servers = self.servers.iter().filter(|server| server.is_alive).count() as u32;
        let server = &mut self.servers[n];
        let (id, noted) = match heard {
            Heard::Beat { is_there: false, .. } => return self.lose(n),
            Heard::Beat { was_known, .. } => {
                let was_lost = std::mem::take(&mut server.is_lost);
                if !was_known || was_lost {
                    server.node.renew_all(now_micros);
                }
                return server.quotas.set_fleet(false, servers);
            }
            Heard::Answer { id, share, others, waited_micros } => {
                server.window.answered(now_micros, waited_micros);
                (id, Some(Noted { share, id, others, was_mended: false }))
            }
            Heard::Failed { id } => {
                server.window.failed();
                (id, None)
            }
        };
        server.under_way -= 1;
        if noted.is_none() {
            self.second.failed += 1;
            self.lose(n);
        }
        for (who, is_known) in self.servers[n].node.answered(now_micros, id, noted) {
            self.decide(who, !is_known);
        }
    }

    fn lose(&mut self, n: usize) {
        let server = &mut self.servers[n];
        let servers = self.plan.nodes as u32;
        server.is_lost = true;
        server.quotas.set_fleet(true, servers);
        // The next question whether the connection is good is not answered either.
        if (!self.is_store_there || server.is_cut_off) && server.is_connected {
            server.is_connected = false;
            server.connect_micros = self.now_micros + TIMEOUT_MICROS;
        }
    }

    fn come(&mut self, caller: u32) {
        let Plan { allocations: (least, most), seconds: (shortest, longest), nodes, is_spread, .. } = self.plan;
        let round = self.callers[caller as usize].round;
        let count = self.chance.between(least.into(), u64::from(most) + 1);
        let mut n = 0;
        for number in 0..count {
            if number == 0 || is_spread {
                // One that is dead does not answer: the next one.
                n = self.chance.between(0, nodes as u64) as usize;
                while !self.servers[n].is_alive {
                    n = (n + 1) % nodes;
                }
            }
            self.waiting.push(Some((caller, round, n)));
            let who = self.waiting.len() as u64 - 1;
            if self.wants_share(who) {
                let (user, limit) = (self.callers[caller as usize].user.clone(), self.plan.limit);
                if self.servers[n].node.ask(self.now_micros, &user, limit, who).is_err() {
                    self.decide(who, true);
                }
                self.at(ALLOCATE_WAITS_MICROS / TICK_MICROS, Turn::Late(who));
            }
        }
        let mut ticks = self.chance.between(shortest * TICKS_PER_SECOND, longest * TICKS_PER_SECOND);
        if self.now_micros < self.fill_until_micros {
            // Those that are there from the start have been there for some time; the long ones are more of them.
            while self.chance.between(0, longest * TICKS_PER_SECOND) > ticks {
                ticks = self.chance.between(shortest * TICKS_PER_SECOND, longest * TICKS_PER_SECOND);
            }
            ticks = FILL_TICKS_MAX + self.chance.between(0, ticks);
        }
        self.at(ticks, Turn::Go(caller, round));
    }

    /// All his calls end, and somebody comes for him.
    fn go(&mut self, caller: u32, round: u32) {
        let of = &mut self.callers[caller as usize];
        if of.round != round {
            return;
        }
        of.round += 1;
        for (n, _) in of.live.drain(..) {
            self.servers[n].live -= 1;
        }
        self.at(TICKS_PER_SECOND, Turn::Come(caller));
    }

    fn late(&mut self, who: u64) {
        if self.waiting[who as usize].is_some() {
            self.second.late += 1;
            self.decide(who, true);
        }
    }

    /// Whether the store has to be asked.
    fn wants_share(&mut self, who: u64) -> bool {
        let Some((_, _, n)) = self.waiting[who as usize] else { return false };
        match self.reserve(who) {
            Err(true) if !self.servers[n].is_lost => true,
            outcome => {
                self.count(who, outcome);
                false
            }
        }
    }

    /// It waits no more. `is_late`: nobody could say.
    fn decide(&mut self, who: u64, is_late: bool) {
        let Some((_, _, n)) = self.waiting[who as usize] else { return };
        let servers = self.plan.nodes as u32;
        let was_lost = self.servers[n].is_lost;
        self.servers[n].quotas.set_fleet(is_late || was_lost, servers);
        let outcome = self.reserve(who);
        self.servers[n].quotas.set_fleet(was_lost, servers);
        self.count(who, outcome);
    }

    /// An allocation without a share, or with one; or none: whether nobody could say.
    fn reserve(&mut self, who: u64) -> Result<bool, bool> {
        let Some((caller, round, n)) = self.waiting[who as usize] else { return Err(false) };
        let (server, caller) = (&mut self.servers[n], &mut self.callers[caller as usize]);
        if !server.is_alive || caller.round != round {
            return Err(false);
        }
        let limits = QuotaLimits { fleet_per_user: Some(self.plan.limit), ..QuotaLimits::default() };
        let before = server.quotas.made_without_share();
        match server.quotas.reserve(limits, &caller.user, self.now_micros) {
            Ok(reservation) => {
                caller.live.push((n, reservation));
                server.live += 1;
                Ok(server.quotas.made_without_share() > before)
            }
            Err(reason) => Err(reason == Reason::FleetUnavailable),
        }
    }

    fn count(&mut self, who: u64, outcome: Result<bool, bool>) {
        self.waiting[who as usize] = None;
        *match outcome {
            Ok(false) => &mut self.second.made,
            Ok(true) => &mut self.second.without,
            Err(_) => &mut self.second.refused,
        } += 1;
    }
}

fn instance_of(name: &str) -> u32 {
    name.rsplit(':').next().and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap()
}

fn shard_of(name: &str, shards: usize) -> usize {
    name.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % shards
}

/// Chance that is the same each time (splitmix64).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From the one to what is below the other.
    pub(super) fn between(&mut self, least: u64, below: u64) -> u64 {
        least + self.next() % (below - least).max(1)
    }
}
