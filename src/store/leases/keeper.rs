//! What carries the calls of [`Node`] to the store, and answers back to the workers: one task of the control runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::call::{Call, Noted};
use super::node::{Node, Terms};
use super::stats::LeaseStats;
use super::window::Window;
use crate::net::sys::clocks;
use crate::policy::Quotas;
use crate::store::{Part, Script, Store, StoreError};
use crate::turn::{Answer, AskId};
use crate::user::User;

/// Questions of workers that wait for their turn.
const WAITING_MAX: usize = 4096;
/// Calls under way at once for a server that gives everything back.
const LEAVING_MAX: usize = 128;
/// How often it is looked what can be given back.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often a store that does not answer is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a server that stops takes to give everything back. What it does not manage is free when its term is over.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// Takes an answer to a worker; it must not block.
pub type TakeAnswer = Box<dyn Fn(u16, AskId, Answer) + Send + Sync>;

/// The worker's end.
#[derive(Clone)]
pub struct LeaseSender {
    worker: u16,
    asks: mpsc::Sender<Asked>,
}

/// A question of a worker: who has which limit.
struct Asked {
    by: (u16, AskId),
    user: User,
    limit: u32,
}

impl LeaseSender {
    /// That of a worker.
    #[must_use]
    pub fn of_worker(&self, worker: u16) -> Self {
        Self { worker, ..self.clone() }
    }

    /// Hands a question over.
    ///
    /// # Errors
    /// As many wait as may: this one is not asked.
    pub fn ask(&self, id: AskId, user: User, limit: u32) -> Result<(), AskId> {
        self.asks.try_send(Asked { by: (self.worker, id), user, limit }).map_err(|_| id)
    }
}

/// The supervisor's end.
#[derive(Clone)]
pub struct LeaseControl {
    is_wanted: Arc<AtomicBool>,
    default_realm: watch::Sender<String>,
}

impl LeaseControl {
    /// Whether there is a limit that is shared at all. While there is none, the store hears nothing of this server.
    pub fn want(&self, is_wanted: bool) {
        self.is_wanted.store(is_wanted, Ordering::Relaxed);
    }

    /// The realm of `[auth]` has this name now: the shares of its users are noted by it.
    pub fn set_default_realm(&self, name: &str) {
        self.default_realm.send_if_modified(|before| {
            let has_changed = before != name;
            name.clone_into(before);
            has_changed
        });
    }
}

/// What keeps the leases.
pub struct LeaseKeeper {
    asks: mpsc::Receiver<Asked>,
    node: Node<(u16, AskId)>,
    courier: Arc<Courier>,
    quotas: Arc<Quotas>,
    is_wanted: Arc<AtomicBool>,
    default_realm: watch::Receiver<String>,
    term: Duration,
    take: TakeAnswer,
    stats: Arc<LeaseStats>,
    window: Window,
    /// Whether the store cannot be asked; among how many servers limits are shared, if that was ever known.
    is_lost: bool,
    is_told: bool,
    servers: u32,
    was_there: bool,
    /// Whether the store has said no to the last share.
    is_refused: bool,
    /// How many had waited in vain when that was looked at last.
    late: u64,
}

/// What a task of its own brings back.
enum Brought {
    Answer { id: u64, sent_micros: u64, answer: Result<Noted, StoreError> },
    Servers(Result<(bool, u32), StoreError>),
}

/// All ends of it. `term` is how long a share is good that is not renewed, `instance` is of this start of the server alone;
/// `default_realm` is the name of that of `[auth]`.
pub fn leases(
    store: Store,
    quotas: Arc<Quotas>,
    (term, instance): (Duration, u64),
    default_realm: &str,
    stats: Arc<LeaseStats>,
    take: TakeAnswer,
) -> (LeaseSender, LeaseControl, LeaseKeeper) {
    let (send, asks) = mpsc::channel(WAITING_MAX);
    let term_micros = u64::try_from(term.as_micros()).unwrap_or(u64::MAX);
    let node = Node::new(Arc::clone(&quotas), Terms { term_micros });
    let is_wanted = Arc::new(AtomicBool::new(false));
    let (name, default_realm) = watch::channel(default_realm.to_owned());
    let control = LeaseControl { is_wanted: Arc::clone(&is_wanted), default_realm: name };
    let courier = Courier {
        server: format!("{}:{instance:016x}", store.node()),
        share: Script::new(include_str!("script.lua")),
        servers: Script::new(include_str!("servers.lua")),
        term_millis: term_micros / 1000,
        store,
    };
    let keeper = LeaseKeeper {
        asks,
        node,
        courier: Arc::new(courier),
        quotas,
        is_wanted,
        default_realm,
        term,
        take,
        stats,
        window: Window::default(),
        // Until the store has said something, nobody waits for it.
        is_lost: true,
        is_told: false,
        servers: 0,
        was_there: false,
        is_refused: false,
        late: 0,
    };
    keeper.quotas.set_fleet(true, 0);
    keeper.publish();
    (LeaseSender { worker: 0, asks: send }, control, keeper)
}

impl LeaseKeeper {
    /// Keeps them until the workers are gone; then everything is given back.
    pub async fn run(mut self) {
        let mut under_way: JoinSet<Brought> = JoinSet::new();
        let mut look = interval(LOOK_INTERVAL);
        let mut retry = interval(RETRY_INTERVAL);
        // A server that is silent for a term does not count any more.
        let mut beat = interval(self.term / 12);
        let mut connections = self.courier.store.connections();
        for ticks in [&mut look, &mut retry, &mut beat] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                asked = self.asks.recv() => match asked {
                    Some(asked) => self.ask(asked),
                    None => break,
                },
                Some(brought) = under_way.join_next(), if !under_way.is_empty() => match brought {
                    Ok(brought) => self.take_in(brought),
                    Err(_) => continue,
                },
                Ok(()) = connections.changed(), if self.is_wanted() => self.say_here(&mut under_way),
                Ok(()) = self.default_realm.changed() => self.move_shares(),
                _ = look.tick() => {}
                _ = beat.tick(), if self.is_wanted() && !self.is_lost => self.say_here(&mut under_way),
                _ = retry.tick(), if self.is_wanted() && self.is_lost => self.say_here(&mut under_way),
            }
            // More that has been asked goes along.
            while self.window.room(under_way.len()) > 0
                && let Ok(asked) = self.asks.try_recv()
            {
                self.ask(asked);
            }
            self.send_calls(&mut under_way);
            self.publish();
        }
        under_way.abort_all();
        let _ = timeout(LEAVE_LIMIT, self.leave()).await;
    }

    fn key(&self, call: &Call) -> String {
        self.courier.store.key(&call.key(&self.default_realm.borrow()))
    }

    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    fn ask(&mut self, Asked { by, user, limit }: Asked) {
        let refused = if self.is_lost { Err(by) } else { self.node.ask(clocks().0, &user, limit, by) };
        if let Err((worker, id)) = refused {
            (self.take)(worker, id, Answer::Failed);
        }
    }

    /// The realm of `[auth]` has another name, and so have the keys of its users: what is noted under the old ones is free when its term is
    /// over.
    fn move_shares(&mut self) {
        for ((worker, waiting), _) in self.node.renew_elsewhere(clocks().0) {
            (self.take)(worker, waiting, Answer::Failed);
        }
    }

    fn say_here(&self, under_way: &mut JoinSet<Brought>) {
        let courier = Arc::clone(&self.courier);
        under_way.spawn(async move { Brought::Servers(courier.say_here(courier.term_millis).await) });
    }

    /// Sends what is due. While the store cannot be asked, that waits: all of it is told when it can.
    fn send_calls(&mut self, under_way: &mut JoinSet<Brought>) {
        let room = self.window.room(under_way.len());
        if self.is_lost || room == 0 {
            return;
        }
        let sent_micros = clocks().0;
        for call in self.node.poll_calls(sent_micros, room) {
            let (courier, key) = (Arc::clone(&self.courier), self.key(&call));
            under_way.spawn(async move {
                Brought::Answer { id: call.id, sent_micros, answer: courier.carry(&call, &key).await }
            });
        }
    }

    fn take_in(&mut self, brought: Brought) {
        let now_micros = clocks().0;
        match brought {
            Brought::Answer { id, sent_micros, answer } => {
                match &answer {
                    Err(StoreError::Lost | StoreError::TimedOut) => self.window.failed(),
                    _ => self.window.answered(now_micros, now_micros.saturating_sub(sent_micros)),
                }
                match &answer {
                    Err(problem @ (StoreError::Lost | StoreError::TimedOut)) => self.lose(problem),
                    Err(problem) => {
                        self.is_refused = true;
                        if self.courier.store.stats().trouble(Part::Quotas, problem) {
                            tracing::warn!(%problem, "the store does not note a share of a limit over all servers: this user's, perhaps others', new allocations are made as [store] on-loss says (told once a minute)");
                        }
                    }
                    Ok(noted) if noted.was_mended => {
                        let problem = StoreError::Unexpected("no shares of a user under the key of them");
                        if self.courier.store.stats().trouble(Part::Quotas, &problem) {
                            tracing::warn!(%problem, "somebody else has written there: the key was deleted, and each server notes its share anew (told once a minute)");
                        }
                    }
                    Ok(_) => self.is_refused = false,
                }
                for ((worker, waiting), is_known) in self.node.answered(now_micros, id, answer.ok()) {
                    (self.take)(worker, waiting, if is_known { Answer::ShareSet } else { Answer::Failed });
                }
            }
            Brought::Servers(Err(problem)) => self.lose(&problem),
            Brought::Servers(Ok((was_known, servers))) => {
                self.is_told = false;
                // Whether shares are noted shows with the next one, if anybody has one.
                self.is_refused &= self.node.totals().0 > 0;
                let late = self.node.counts().late;
                let since = late - std::mem::replace(&mut self.late, late);
                if since > 0 && !self.is_refused {
                    self.tell_late(since);
                } else if !self.is_refused {
                    self.courier.store.stats().is_well(Part::Quotas);
                }
                if std::mem::take(&mut self.is_lost) {
                    tracing::info!(servers, "limits over all servers are shared out by the store");
                }
                // What it has forgotten, or has not heard for a while, is said anew.
                if !was_known || self.servers == 0 {
                    if std::mem::replace(&mut self.was_there, true) && !was_known {
                        tracing::warn!(
                            "the store has lost what it knew of this server's share of quotas: it is said anew"
                        );
                    }
                    self.node.renew_all(now_micros);
                }
                self.servers = servers;
                self.quotas.set_fleet(false, servers);
            }
        }
    }

    /// So many Allocates have waited in vain since that was looked at last, although the store answers.
    fn tell_late(&self, allocates: u64) {
        let problem = format!(
            "{allocates} Allocates waited 200 ms for the store in vain: it is too far away for so many, or has too much to do"
        );
        if self.courier.store.stats().trouble(Part::Quotas, &problem) {
            tracing::warn!(%problem, "limits over all servers are as [store] on-loss says for these (told once a minute)");
        }
    }

    fn lose(&mut self, problem: &StoreError) {
        self.is_lost = true;
        if *problem != StoreError::Lost {
            self.courier.store.stats().trouble(Part::Quotas, problem);
        }
        // That there is no connection yet is told by who connects.
        let is_news = self.was_there || *problem != StoreError::Lost;
        if is_news && !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(%problem, "what is left of limits over all servers cannot be asked: new allocations are made as [store] on-loss says, and those there are go on");
        }
        self.quotas.set_fleet(true, self.servers);
    }

    fn publish(&self) {
        self.stats.set(self.node.counts(), self.node.totals(), (self.is_lost, self.servers));
        self.stats.want(self.is_wanted());
    }

    /// Gives everything back.
    async fn leave(&mut self) {
        if self.servers == 0 {
            return;
        }
        let mut under_way = JoinSet::new();
        for call in self.node.give_back_all(clocks().0) {
            let (courier, key) = (Arc::clone(&self.courier), self.key(&call));
            if under_way.len() >= LEAVING_MAX {
                under_way.join_next().await;
            }
            under_way.spawn(async move { courier.carry(&call, &key).await.is_ok() });
        }
        while under_way.join_next().await.is_some() {}
        let _ = self.courier.say_here(0).await;
    }
}

/// Asks the store.
struct Courier {
    store: Store,
    server: String,
    share: Script,
    servers: Script,
    term_millis: u64,
}

impl Courier {
    async fn carry(&self, call: &Call, key: &str) -> Result<Noted, StoreError> {
        let mut arguments = vec![call.holder(&self.server)];
        arguments.extend(call.arguments(self.term_millis).iter().map(ToString::to_string));
        let answer = self.store.script(&self.share, &[key.to_owned()], &arguments).await?;
        let answer = numbers(&answer).and_then(|numbers| Noted::read(&numbers));
        answer.ok_or(StoreError::Unexpected("no share of a quota"))
    }

    /// Says that this server is there for so long.
    async fn say_here(&self, millis: u64) -> Result<(bool, u32), StoreError> {
        let arguments = [self.server.clone(), millis.to_string()];
        let answer = self.store.script(&self.servers, &[self.store.key("q-nodes")], &arguments).await?;
        match numbers(&answer).as_deref() {
            Some([was_known, servers]) => Ok((*was_known != 0, u32::try_from(*servers).unwrap_or_default())),
            _ => Err(StoreError::Unexpected("no number of servers")),
        }
    }
}

fn numbers(value: &Value) -> Option<Vec<i64>> {
    let Value::Array(values) = value else { return None };
    values.iter().map(|value| if let Value::Int(number) = value { Some(*number) } else { None }).collect()
}
