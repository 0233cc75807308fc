//! What the admin API's answers are made from: the workers, the supervisor, and what the control runtime knows.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use super::super::fleet::Fleet;
use super::super::history::History;
use super::super::listeners::Bound;
use super::super::orders::{self, Order, Orders};
use super::super::revocations::Revoker;
use super::super::status::Status;
use super::super::workers::Workers;
use super::error::Refused;
use super::questions::Questions;
use crate::counters::Counters;
use crate::net::{RelayPorts, sys};
use crate::policy::Guard;

pub(in crate::ops) struct Api {
    pub(super) status: Arc<Status>,
    pub(super) workers: Questions,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) relay_ports: Arc<RelayPorts>,
    pub(super) guard: Arc<Guard>,
    pub(super) revoker: Arc<Revoker>,
    pub(super) bound: Bound,
    pub(super) clock: Clock,
    pub(super) history: Option<Arc<History>>,
    pub(super) fleet: Option<Arc<Fleet>>,
    orders: mpsc::Sender<Order>,
}

impl Api {
    /// What is shown, and the orders that the supervisor has to carry out.
    pub(in crate::ops) fn new(
        status: Arc<Status>,
        workers: Workers,
        relay_ports: Arc<RelayPorts>,
        guard: Arc<Guard>,
        revoker: Arc<Revoker>,
        bound: Bound,
        (history, fleet): (Option<Arc<History>>, Option<Arc<Fleet>>),
    ) -> (Self, Orders) {
        let (orders, received) = orders::channel();
        let Workers { mailboxes, counters } = workers;
        let workers = Questions::new(mailboxes);
        (
            Self {
                status,
                workers,
                counters,
                relay_ports,
                guard,
                revoker,
                bound,
                clock: Clock::new(),
                history,
                fleet,
                orders,
            },
            received,
        )
    }

    /// The supervisor's answer.
    pub(super) async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Refused> {
        let (send, answer) = oneshot::channel();
        self.orders.send(order(send)).await.map_err(|_| Refused::stopping())?;
        answer.await.map_err(|_| Refused::stopping())
    }
}

/// From the workers' monotonic clock to the calendar. The distance of the two is read once, so that a moment is shown alike
/// every time.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    unix_minus_monotonic_micros: u64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_micros = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX);
        Self { unix_minus_monotonic_micros: unix_micros.saturating_sub(sys::clocks().0) }
    }

    pub(super) fn unix_secs(&self, micros: u64) -> u64 {
        micros.saturating_add(self.unix_minus_monotonic_micros) / 1_000_000
    }
}
