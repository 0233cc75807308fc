//! Asks the nodes: who looks at them, who may take clients of this one, and who is silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::nodes::{Fleet, Node, lock, random};
use crate::config::FleetConfig;
use crate::fleet::{Asked, Nodes};

/// One question and its answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How many nodes are asked for room in a second: two of them are drawn for each client, and more make no better choice.
const ASKED_FOR_ROOM: usize = 8;
/// How often a page has all of them asked, and for how long after it was last fetched.
const WATCH_TICKS: u64 = 2;
const WATCHED: Duration = Duration::from_secs(15);
/// How long who opens the page waits for the first answers.
const FIRST_LIMIT: Duration = Duration::from_millis(1500);
/// How long another node's word that it has room is good, from before it was asked.
const ROOM_IS_GOOD: Duration = Duration::from_secs(3);
/// Who has not been asked for so long is asked how he is, so many in a second: all of them within half a minute.
const ASKED_AGAIN: Duration = Duration::from_secs(30);
/// The same of one that did not answer: somebody may wait for it.
const SILENT_AGAIN: Duration = Duration::from_secs(10);
const ASKED_AGAIN_MAX: usize = FleetConfig::NODES_MAX.div_ceil(ASKED_AGAIN.as_secs() as usize);

/// What a node is asked for beside its state.
#[derive(Clone, Copy, Default)]
struct Wanted {
    /// Whether it takes clients of this one.
    room: bool,
    /// Its last minutes.
    samples: bool,
}

impl Fleet {
    /// Asks for ever.
    pub(in crate::ops) async fn run(self: Arc<Self>) {
        tokio::join!(self.follow_members(), self.ask_for_ever());
    }

    async fn ask_for_ever(self: &Arc<Self>) {
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for ticks in 0_u64.. {
            tick.tick().await;
            lock(&self.hook).look(&self.status.hook, Instant::now());
            let by_load = self.settled.load().by_load().is_some();
            let (nodes, wanted) = match ticks.is_multiple_of(WATCH_TICKS) && self.is_watched() {
                true => (self.nodes(), Wanted { room: by_load, samples: true }),
                false if by_load => (self.some(ASKED_FOR_ROOM), Wanted { room: true, samples: false }),
                false => Default::default(),
            };
            for node in nodes {
                tokio::spawn(Arc::clone(self).ask(node, wanted));
            }
            for node in self.overdue() {
                tokio::spawn(Arc::clone(self).ask(node, Wanted::default()));
            }
            self.note_networks();
            self.publish();
            self.status.fleet.set_nodes(self.counted());
        }
    }

    /// The nodes as they are known, for somebody who looks at them: they are asked from now on. The first time he waits for answers a little.
    pub(in crate::ops) async fn watch(self: &Arc<Self>) {
        let was_watched = self.is_watched();
        *lock(&self.watched_until) = Some(Instant::now() + WATCHED);
        if !was_watched {
            let wanted = Wanted { room: false, samples: true };
            let ask = |node| tokio::spawn(Arc::clone(self).ask(node, wanted));
            let asked: Vec<_> = self.nodes().into_iter().map(ask).collect();
            // Questions go on that are not answered by then.
            let all = async {
                for answer in asked {
                    let _ = answer.await;
                }
            };
            let _ = timeout(FIRST_LIMIT, all).await;
        }
    }

    /// So many nodes, drawn by chance: most of them of those that have answered last time, so that others that hang, however many they
    /// are, do not take their turns.
    fn some(&self, count: usize) -> Vec<Arc<Node>> {
        let is_silent = |node: &Arc<Node>| lock(&node.seen).failure.is_some();
        let (silent, answering): (Vec<_>, Vec<_>) = self.nodes().into_iter().partition(is_silent);
        let few = silent.len().min(count / 4);
        let mut drawn = Self::drawn(answering, count - few);
        drawn.extend(Self::drawn(silent, few));
        drawn
    }

    fn drawn(mut nodes: Vec<Arc<Node>>, count: usize) -> Vec<Arc<Node>> {
        for place in 0..count.min(nodes.len()) {
            let rest = (nodes.len() - place) as u64;
            let drawn = place + usize::try_from(random() % rest).unwrap_or(0);
            nodes.swap(place, drawn);
        }
        nodes.truncate(count);
        nodes
    }

    /// Nodes that have not been asked for long, those for the longest time first.
    fn overdue(&self) -> Vec<Arc<Node>> {
        let nodes = self.nodes.load();
        let mut overdue: Vec<_> =
            nodes.iter().filter_map(|node| node.overdue_since().map(|asked| (asked, node))).collect();
        overdue.sort_by_key(|(asked, _)| *asked);
        overdue.into_iter().take(ASKED_AGAIN_MAX).map(|(_, node)| Arc::clone(node)).collect()
    }

    /// How the others are.
    fn counted(&self) -> Nodes {
        let unnamed = self.unnamed.load().len() as u64;
        let mut counted = Nodes { unnamed, load_percent: self.load_percent(), ..Nodes::default() };
        let now = Instant::now();
        for node in self.nodes.load().iter() {
            let seen = lock(&node.seen);
            match (&seen.report, &seen.failure) {
                (Some((report, _)), _) if self.is_self(report) => continue,
                (_, Some(_)) => counted.silent += 1,
                (Some(_), None) => counted.answering += 1,
                (None, None) => counted.unasked += 1,
            }
            counted.with_room += u64::from(seen.room_until.is_some_and(|until| now < until));
        }
        counted
    }

    async fn ask(self: Arc<Self>, node: Arc<Node>, wanted: Wanted) {
        // One that hangs is not asked again meanwhile.
        let Some(_turn) = Turn::of(&node.is_asked) else { return };
        let Ok(_place) = self.places.acquire().await else { return };
        let asked = Instant::now();
        lock(&node.seen).asked = Some(asked);
        let Wanted { room, samples } = wanted;
        let answer = node.asker.report(&format!("?room={room}&samples={samples}"), ASK_LIMIT).await;
        // A name has been looked up for it.
        self.note_networks();
        let came_of_it = Asked::of(&answer);
        self.status.fleet.count(came_of_it);
        if came_of_it == Asked::Untrusted {
            self.is_doubted.store(true, Ordering::Release);
            self.has_doubt.notify_one();
        }
        let mut seen = lock(&node.seen);
        match answer {
            Ok(report) => {
                let (is_self, report) = (self.is_self(&report), Arc::new(report));
                if room {
                    seen.room_until = (report.room && !is_self).then(|| asked + ROOM_IS_GOOD);
                }
                if report.samples.is_some() {
                    seen.samples = Some((Arc::clone(&report), asked));
                }
                if report.state != "serving" || !report.ready {
                    seen.room_until = None;
                }
                seen.report = Some((report, asked));
                seen.failure = None;
            }
            Err(error) => {
                (seen.failure, seen.room_until) = (Some(error.told()), None);
            }
        }
    }

    fn is_watched(&self) -> bool {
        lock(&self.watched_until).is_some_and(|until| Instant::now() < until)
    }
}

impl Node {
    /// When it was asked last, if it has to be asked again: `None` in it is never.
    fn overdue_since(&self) -> Option<Option<Instant>> {
        let seen = lock(&self.seen);
        let again = if seen.failure.is_some() { SILENT_AGAIN } else { ASKED_AGAIN };
        seen.asked.is_none_or(|asked| asked.elapsed() >= again).then_some(seen.asked)
    }
}

/// The turn of one question to a node, given back when it is dropped.
struct Turn<'n>(&'n AtomicBool);

impl<'n> Turn<'n> {
    fn of(is_asked: &'n AtomicBool) -> Option<Self> {
        (!is_asked.swap(true, Ordering::AcqRel)).then_some(Self(is_asked))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
