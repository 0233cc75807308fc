//! The seats of an endpoint's connections: a bounded number. Who is silent, or does not read, gives way when others wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// How long an answer may take before it has to give way.
const ANSWER_MIN: Duration = Duration::from_secs(2);

/// The seats of one endpoint.
pub(super) struct Seats {
    max: usize,
    /// How long a connection may be without a request before it has to give way. One that has something to say has said it by then.
    silent_min: Duration,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    next: u64,
    connections: Vec<Connection>,
}

struct Connection {
    id: u64,
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
    pub(super) fn new(max: usize, silent_min: Duration) -> Arc<Self> {
        Arc::new(Self { max, silent_min, taken: Mutex::default(), freed: Notify::new() })
    }

    /// A seat for one more connection; one that is free, or that of the oldest connection that has to give way, as soon as there is
    /// one. Only one task waits here: whoever accepts connections.
    pub(super) async fn take(self: &Arc<Self>) -> Seat {
        loop {
            match self.try_take(Instant::now()) {
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
    fn try_take(&self, now: Instant) -> Result<u64, Instant> {
        let mut taken = self.lock();
        if taken.connections.len() >= self.max {
            let gives_way = |connection: &&Connection| connection.gives_way(self.silent_min) <= now;
            let candidates = || taken.connections.iter().filter(gives_way);
            // What has not asked for anything goes first.
            let leaving = candidates().min_by_key(|connection| (connection.has_asked, connection.since));
            let Some(leaving) = leaving.map(|connection| connection.id) else {
                let next = taken.connections.iter().map(|connection| connection.gives_way(self.silent_min)).min();
                return Err(next.unwrap_or(now + ANSWER_MIN));
            };
            if let Some(task) = taken.remove(leaving).and_then(|connection| connection.task) {
                task.abort();
            }
        }
        let id = taken.next;
        taken.next += 1;
        taken.connections.push(Connection { id, since: now, has_asked: false, task: None });
        Ok(id)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn find(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    fn remove(&mut self, id: u64) -> Option<Connection> {
        let index = self.connections.iter().position(|connection| connection.id == id)?;
        Some(self.connections.swap_remove(index))
    }
}

impl Connection {
    fn gives_way(&self, silent_min: Duration) -> Instant {
        self.since + if self.has_asked { ANSWER_MIN } else { silent_min }
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
            let seats = Seats::new(3, SILENT_MIN);
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let [asking, first, second] = [0, 10, 20].map(|millis| sit(&seats, seats.try_take(at(millis)).unwrap()));
            if let Some(connection) = seats.lock().find(0) {
                connection.has_asked = true;
            }
            assert_eq!(seats.try_take(at(30)), Err(at(210)), "nobody has had his time yet");
            let third = sit(&seats, seats.try_take(at(210)).unwrap());
            assert!(was_turned_out(first).await);
            assert_eq!(seats.try_take(at(211)), Err(at(220)));
            let fourth = sit(&seats, seats.try_take(at(3000)).unwrap());
            assert!(was_turned_out(second).await);
            assert!(!third.is_finished() && !asking.is_finished());
            let fifth = sit(&seats, seats.try_take(at(3001)).unwrap());
            assert!(was_turned_out(third).await);
            // The others are too young, and this answer takes too long.
            let _sixth = sit(&seats, seats.try_take(at(3002)).unwrap());
            assert!(was_turned_out(asking).await);
            assert!(!fourth.is_finished() && !fifth.is_finished());
            assert_eq!(seats.lock().connections.len(), 3);
        });
    }

    #[test]
    fn a_seat_that_is_given_back_is_taken_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let seats = Seats::new(1, SILENT_MIN);
            let first = seats.take().await;
            first.asked();
            let start = Instant::now();
            let (second, ()) = tokio::join!(seats.take(), async { drop(first) });
            assert!(start.elapsed() < ANSWER_MIN / 2);
            drop(second);
            assert!(seats.lock().connections.is_empty());
        });
    }
}
