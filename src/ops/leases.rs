//! Quotas over all servers of a fleet, as the supervisor has them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::status::Status;
use super::workers::Workers;
use crate::config::{Config, StoreConfig};
use crate::policy::Quotas;
use crate::store::Store;
use crate::store::leases::{LeaseControl, LeaseSender, leases};
use crate::worker::fill_from_system;

/// How long the server waits at its end for its shares to be given back.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// What keeps this server's shares.
pub(super) struct Leases {
    control: LeaseControl,
    task: JoinHandle<()>,
}

impl Leases {
    /// Keeps them for the workers, by the store.
    pub(super) fn start(
        (store, settings): (&Store, &StoreConfig),
        config: &Config,
        quotas: &Arc<Quotas>,
        status: &Status,
        workers: &Workers,
    ) -> (LeaseSender, Self) {
        // Its shares are those of this start: what an earlier one had is over when its term is.
        let mut instance = [0; 8];
        fill_from_system(&mut instance);
        let terms = (settings.lease, u64::from_be_bytes(instance));
        let (quotas, stats) = (Arc::clone(quotas), Arc::clone(&status.leases));
        quotas.set_without_share(settings.on_loss);
        let (sender, control, keeper) =
            leases(store.clone(), quotas, terms, &config.auth.realm, stats, workers.take_answers());
        control.want(has_fleet_quota(config));
        (sender, Self { control, task: tokio::spawn(keeper.run()) })
    }

    /// Another configuration is in force.
    pub(super) fn reload(&self, config: &Config) {
        self.control.set_default_realm(&config.auth.realm);
        self.control.want(has_fleet_quota(config));
    }

    /// The workers are gone, and with them all allocations.
    pub(super) async fn end(self) {
        let _ = timeout(LEAVE_LIMIT, self.task).await;
    }
}

/// Whether any limit is shared with other servers.
pub(super) fn has_fleet_quota(config: &Config) -> bool {
    let of_realms = config.realms.iter().map(|realm| realm.quota.of(config.quota));
    std::iter::once(config.quota).chain(of_realms).any(|quota| quota.fleet_per_user.is_some())
}
