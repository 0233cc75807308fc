//! Orders to the supervisor, which alone has the configuration, the log and the drain.

use tokio::sync::{mpsc, oneshot};

use super::AdminApi;
use super::error::Refused;
use crate::ops::run::{Hooks, RunningServer};

/// Orders that may wait.
const WAITING_MAX: usize = 16;

/// What the supervisor is asked or told, and where its answer goes.
pub(in crate::ops) enum Order {
    /// Say what only you know of the server's state.
    Overview(oneshot::Sender<Overview>),
}

/// The supervisor's end.
pub(in crate::ops) type Orders = mpsc::Receiver<Order>;

/// What only the supervisor knows.
pub(in crate::ops) struct Overview {
    pub(super) config_file: Option<String>,
    pub(super) log_level: String,
    pub(super) drain: Option<DrainView>,
}

/// A drain under way.
pub(in crate::ops) struct DrainView {
    pub(super) deadline_unix: Option<u64>,
}

pub(super) fn channel() -> (mpsc::Sender<Order>, Orders) {
    mpsc::channel(WAITING_MAX)
}

impl AdminApi {
    /// The supervisor's answer.
    pub(super) async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Refused> {
        let (send, answer) = oneshot::channel();
        self.orders.send(order(send)).await.map_err(|_| Refused::stopping())?;
        answer.await.map_err(|_| Refused::stopping())
    }
}

impl RunningServer {
    /// Carries out an order. Whoever gave it may have gone away.
    pub(in crate::ops) fn obey(&mut self, order: Order, hooks: &Hooks<'_>) {
        match order {
            Order::Overview(answer) => {
                let drain =
                    self.draining.as_ref().map(|draining| DrainView { deadline_unix: draining.deadline_unix() });
                let overview =
                    Overview { config_file: hooks.config_file.clone(), log_level: hooks.log.filter(), drain };
                drop(answer.send(overview));
            }
        }
    }
}
