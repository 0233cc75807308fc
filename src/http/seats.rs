//! The seats of an endpoint's connections: a bounded number. Who is silent, or does not read, gives way when others wait; at once, where
//! one network has many that are silent, and where those give way at once who are unknown. Of these, the network goes first that has most,
//! and some are drawn by lot to stay: however many come from however many networks, one that needs time has a chance.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::limits::Limits;

/// How long an answer may take before it has to give way.
const ANSWER_MIN: Duration = Duration::from_secs(2);
/// How long a network is known, and how many are.
const KNOWN: Duration = Duration::from_secs(600);
const KNOWN_MAX: usize = 1024;
/// Of so many silent connections of networks that are unknown, one may stay.
const ONE_STAYS_OF: usize = 4;

/// The seats of one endpoint.
pub(super) struct Seats {
    max: usize,
    /// How long a connection may be without a request before it has to give way. One that has something to say has said it by then.
    silent_min: Duration,
    /// The same of one from a network that nobody has shown the token from.
    unknown_min: Duration,
    /// When others wait, silent connections of one network beyond so many give way at once.
    silent_of_network_max: usize,
    /// Who may stay, by a lot that nobody outside can know.
    lots: RandomState,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    next: u64,
    connections: Vec<Connection>,
    /// Networks that somebody has shown the token from of late, and when.
    known: HashMap<IpAddr, Instant>,
}

struct Connection {
    id: u64,
    network: Option<IpAddr>,
    /// Whether it comes from where somebody was expected from the beginning.
    is_expected: bool,
    since: Instant,
    has_asked: bool,
    task: Option<AbortHandle>,
}

/// One seat, given back when dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    id: u64,
}

impl Seats {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            max: limits.connections,
            silent_min: limits.silent,
            unknown_min: limits.silent_unknown,
            silent_of_network_max: limits.silent_of_network,
            lots: RandomState::new(),
            taken: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// A seat for one more connection, from there; one that is free, or that of a connection that has to give way, as soon as there is
    /// one. Only one task waits here: whoever accepts connections.
    pub(super) async fn take(self: &Arc<Self>, from: Option<IpAddr>, is_expected: bool) -> Seat {
        loop {
            match self.try_take((from, is_expected), Instant::now()) {
                Ok(id) => return Seat { seats: Arc::clone(self), id },
                Err(next) => tokio::select! {
                    () = self.freed.notified() => {}
                    () = sleep_until(next) => {}
                },
            }
        }
    }

    /// Says which task ends when the connection has to give way.
    pub(super) fn attach(&self, id: u64, task: AbortHandle) {
        if let Some(connection) = self.lock().find(id) {
            connection.task = Some(task);
        }
    }

    /// The id of a new seat, or the moment when the first connection has to give way.
    fn try_take(&self, (from, is_expected): (Option<IpAddr>, bool), now: Instant) -> Result<u64, Instant> {
        let mut taken = self.lock();
        let id = taken.next;
        let (network, has_asked) = (from.map(network_of), false);
        let connection = Connection { id, network, is_expected, since: now, has_asked, task: None };
        if taken.connections.len() >= self.max {
            taken.known.retain(|_, at| now.saturating_duration_since(*at) < KNOWN);
            let Some(leaving) = self.leaving(&taken, &connection, now) else {
                let next = taken.connections.iter().map(|connection| self.gives_way(&taken, connection)).min();
                return Err(next.unwrap_or(now + ANSWER_MIN));
            };
            if let Some(task) = taken.remove(leaving).and_then(|connection| connection.task) {
                task.abort();
            }
        }
        taken.next += 1;
        taken.connections.push(connection);
        Ok(id)
    }

    /// The connection that gives way to a new one.
    fn leaving(&self, taken: &Taken, new: &Connection, now: Instant) -> Option<u64> {
        let overdue = |has_asked: bool, least: Duration| {
            let is_overdue = move |of: &&Connection| of.has_asked == has_asked && of.since + least <= now;
            taken.connections.iter().filter(is_overdue).min_by_key(|connection| connection.since)
        };
        // What has not asked for anything goes first.
        let leaving = taken
            .of_the_crowd(self.silent_of_network_max)
            .or_else(|| overdue(false, self.silent_min))
            .or_else(|| self.of_the_unknown(taken, new, now))
            .or_else(|| overdue(true, ANSWER_MIN));
        leaving.map(|connection| connection.id)
    }

    /// One of the silent connections that give way because nobody knows them: the oldest of the network that has most of them, the new one counted.
    /// Where none has two, the oldest of those that are not drawn by lot to stay.
    fn of_the_unknown<'t>(&self, taken: &'t Taken, new: &Connection, now: Instant) -> Option<&'t Connection> {
        let is_unknown = |connection: &&Connection| !connection.has_asked && !taken.knows(connection);
        let gives_way = |connection: &&Connection| is_unknown(connection) && connection.since + self.unknown_min <= now;
        let unknown: Vec<_> = taken.connections.iter().filter(gives_way).collect();
        let mut counts = HashMap::<_, usize>::new();
        unknown.iter().copied().chain(Some(new).filter(is_unknown)).for_each(|connection| {
            *counts.entry(connection.network).or_default() += 1;
        });
        let count = |connection: &Connection| counts.get(&connection.network).copied().unwrap_or_default();
        let most = unknown.iter().map(|connection| count(connection)).max()?;
        let mut leaving: Vec<_> = unknown.into_iter().filter(|connection| count(connection) == most).collect();
        if most == 1 {
            leaving.sort_by_cached_key(|connection| self.lots.hash_one(connection.id));
            leaving.drain(..leaving.len() / ONE_STAYS_OF);
        }
        leaving.into_iter().min_by_key(|connection| connection.since)
    }

    /// When a connection has to give way.
    fn gives_way(&self, taken: &Taken, connection: &Connection) -> Instant {
        connection.since
            + match connection.has_asked {
                true => ANSWER_MIN,
                false if taken.knows(connection) => self.silent_min,
                false => self.unknown_min,
            }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Whether it comes from where somebody is known.
    fn knows(&self, connection: &Connection) -> bool {
        connection.is_expected || connection.network.is_none_or(|network| self.known.contains_key(&network))
    }

    /// The oldest silent connection of the network that has most of them, if they are more than these.
    fn of_the_crowd(&self, silent_max: usize) -> Option<&Connection> {
        // Nobody has more than all, as where all come from one host.
        if silent_max >= self.connections.len() {
            return None;
        }
        let silent =
            || self.connections.iter().filter(|connection| !connection.has_asked && connection.network.is_some());
        let mut counts = HashMap::<_, usize>::new();
        silent().for_each(|connection| *counts.entry(connection.network).or_default() += 1);
        let (count, network) = counts.into_iter().map(|(network, count)| (count, network)).max()?;
        let of_it = |connection: &&Connection| count > silent_max && connection.network == network;
        silent().filter(of_it).min_by_key(|connection| connection.since)
    }

    fn find(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    fn remove(&mut self, id: u64) -> Option<Connection> {
        let index = self.connections.iter().position(|connection| connection.id == id)?;
        Some(self.connections.swap_remove(index))
    }
}

/// An IPv4 address, or an IPv6 network of one host.
pub(crate) fn network_of(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !0 << 64).into()),
        v4 => v4,
    }
}

impl Seat {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Its connection has sent a request.
    pub(super) fn asked(&self) {
        if let Some(connection) = self.seats.lock().find(self.id) {
            connection.has_asked = true;
            connection.since = Instant::now();
        }
    }

    /// It has shown the right token: others from there are known for a while.
    pub(super) fn has_shown_token(&self) {
        let mut taken = self.seats.lock();
        let Some(network) = taken.find(self.id).and_then(|connection| connection.network) else { return };
        if taken.known.len() < KNOWN_MAX || taken.known.contains_key(&network) {
            taken.known.insert(network, Instant::now());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.seats.lock().remove(self.id).is_some() {
            self.seats.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT_MIN: Duration = Duration::from_millis(200);
    const NOWHERE: (Option<IpAddr>, bool) = (None, false);

    fn stranger(from: &str) -> (Option<IpAddr>, bool) {
        (Some(from.parse().unwrap()), false)
    }

    fn seats(connections: usize, silent_unknown: Duration, silent_of_network: usize) -> Arc<Seats> {
        let limits = Limits { connections, silent: SILENT_MIN, silent_unknown, silent_of_network, head: SILENT_MIN };
        Seats::new(&limits)
    }

    /// A connection that does nothing, for ever.
    fn sit(seats: &Arc<Seats>, id: u64) -> tokio::task::JoinHandle<()> {
        let seat = Seat { seats: Arc::clone(seats), id };
        let task = tokio::spawn(async move {
            let _seat = seat;
            std::future::pending::<()>().await;
        });
        seats.attach(id, task.abort_handle());
        task
    }

    async fn was_turned_out(task: tokio::task::JoinHandle<()>) -> bool {
        task.await.is_err_and(|error| error.is_cancelled())
    }

    #[test]
    fn the_oldest_silent_connection_gives_way_and_one_that_has_asked_only_after_all_of_them() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let seats = seats(3, SILENT_MIN, 3);
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let [asking, first, second] =
                [0, 10, 20].map(|millis| sit(&seats, seats.try_take(NOWHERE, at(millis)).unwrap()));
            if let Some(connection) = seats.lock().find(0) {
                connection.has_asked = true;
            }
            assert_eq!(seats.try_take(NOWHERE, at(30)), Err(at(210)), "nobody has had his time yet");
            let third = sit(&seats, seats.try_take(NOWHERE, at(210)).unwrap());
            assert!(was_turned_out(first).await);
            assert_eq!(seats.try_take(NOWHERE, at(211)), Err(at(220)));
            let fourth = sit(&seats, seats.try_take(NOWHERE, at(3000)).unwrap());
            assert!(was_turned_out(second).await);
            assert!(!third.is_finished() && !asking.is_finished());
            let fifth = sit(&seats, seats.try_take(NOWHERE, at(3001)).unwrap());
            assert!(was_turned_out(third).await);
            // The others are too young, and this answer takes too long.
            let _sixth = sit(&seats, seats.try_take(NOWHERE, at(3002)).unwrap());
            assert!(was_turned_out(asking).await);
            assert!(!fourth.is_finished() && !fifth.is_finished());
            assert_eq!(seats.lock().connections.len(), 3);
        });
    }

    #[test]
    fn a_seat_that_is_given_back_is_taken_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let seats = seats(1, SILENT_MIN, 1);
            let first = seats.take(None, false).await;
            first.asked();
            let start = Instant::now();
            let (second, ()) = tokio::join!(seats.take(None, false), async { drop(first) });
            assert!(start.elapsed() < ANSWER_MIN / 2);
            drop(second);
            assert!(seats.lock().connections.is_empty());
        });
    }

    #[test]
    fn many_silent_connections_of_one_network_give_way_at_once_and_others_keep_their_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let seats = seats(6, SILENT_MIN, 2);
            let start = Instant::now();
            let mut millis = 0;
            let mut take = |from: &str| {
                millis += 1;
                seats.try_take(stranger(from), start + Duration::from_millis(millis))
            };
            let crowd =
                ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:3"].map(|from| sit(&seats, take(from).unwrap()));
            let node = sit(&seats, take("192.0.2.1").unwrap());
            let [near, _other] = ["192.0.2.2", "192.0.2.2"].map(|from| sit(&seats, take(from).unwrap()));
            // All seats are taken, and nobody has been silent for long.
            sit(&seats, take("192.0.2.3").unwrap());
            let [first, second, third] = crowd;
            assert!(was_turned_out(first).await);
            assert!(take("192.0.2.4").is_err(), "no network has more than two now");
            assert!(!second.is_finished() && !third.is_finished() && !node.is_finished() && !near.is_finished());
        });
    }

    #[test]
    fn who_has_not_shown_the_token_gives_way_at_once_to_anybody_and_who_has_keeps_his_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let seats = seats(3, Duration::ZERO, 3);
            let start = Instant::now();
            let take = |from: &str, millis| seats.try_take(stranger(from), start + Duration::from_millis(millis));
            let node = take("192.0.2.1", 0).unwrap();
            Seat { seats: Arc::clone(&seats), id: node }.has_shown_token();
            let again = sit(&seats, take("192.0.2.1", 1).unwrap());
            let strangers = [2, 3].map(|n: u64| sit(&seats, take(&format!("198.51.100.{n}"), n).unwrap()));
            // All seats are taken, each stranger's by an address of its own.
            let _next = sit(&seats, take("198.51.100.4", 4).unwrap());
            let [first, second] = strangers;
            assert!(was_turned_out(first).await && !second.is_finished() && !again.is_finished());
            let other = sit(&seats, take("192.0.2.1", 5).unwrap());
            assert!(was_turned_out(second).await && !again.is_finished() && !other.is_finished());
        });
    }

    /// How many of so many connections from there are still seated 300 ms after they came, as long as TLS takes over a long way, while every 4 ms
    /// one that says nothing comes from one of so many other networks, or from each time another one.
    fn kept(times: u64, from: (Option<IpAddr>, bool), networks: Option<u32>) -> usize {
        let seats = Seats::new(&Limits::FLEET);
        let start = Instant::now();
        let mut came: u32 = 0;
        let is_kept = |time: &u64| {
            let mut slow = None;
            for millis in (0..=700).step_by(4) {
                let at = start + Duration::from_millis(2000 * time + millis);
                let stranger = 0xc633_0000 + came % networks.unwrap_or(u32::MAX);
                seats.try_take((Some(IpAddr::V4(stranger.into())), false), at).unwrap();
                came += 1;
                match millis {
                    400 => slow = seats.try_take(from, at).ok(),
                    700 => return slow.is_some_and(|id| seats.lock().remove(id).is_some()),
                    _ => {}
                }
            }
            false
        };
        (0..times).filter(is_kept).count()
    }

    #[test]
    fn silent_connections_of_a_few_networks_turn_out_nobody_of_another_one_however_many_they_are() {
        let slow = stranger("192.0.2.1");
        assert_eq!(kept(20, slow, Some(8)), 20);
        assert_eq!(kept(20, slow, Some(60)), 20);
    }

    #[test]
    fn among_strangers_from_ever_new_networks_who_is_expected_keeps_his_time_and_one_who_is_not_has_a_chance() {
        let from = "192.0.2.1";
        assert_eq!(kept(20, (Some(from.parse().unwrap()), true), None), 20);
        // About one in twenty.
        let times = kept(200, stranger(from), None);
        assert!((1..100).contains(&times), "{times}");
    }
}
