//! Running the server: from a valid configuration to the end of the last worker.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::drain::{self, Draining};
use super::error::RunError;
use super::hooks::Hooks;
use super::listeners::Bound;
use super::notify;
use super::orders::{ConfigView, DrainDeadline, DrainView, Order, Orders, Overview};
use super::readings::Ended;
use super::reload;
use super::self_test;
use super::server::Server;
use super::start::{Started, start};
use super::workers::Ping;
use crate::config::{Config, WrittenBy, revocation, revoked_realm};
use crate::net::sys;
use crate::turn::EndReason;
use crate::wall_clock::unix_now;
use crate::worker::Command;

/// How often revocations are looked at that may be over.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Runs until SIGTERM or SIGINT, or until a drain that SIGTERM or SIGUSR1 began is over.
///
/// # Errors
/// [`RunError`] when a socket cannot be opened or a worker fails.
pub fn run(config: Config, mut hooks: Hooks<'_>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(async {
        // Signals first: one that comes during the start is not lost.
        let signals = Signals::new().map_err(RunError::Signals)?;
        let mut started = start(config, std::mem::take(&mut hooks.inherited), hooks.page_port.take())?;
        let status = started.bound.to_string();
        let workers = started.server.workers.mailboxes.len();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), workers, "{status}");
        if started.server.follow_addresses(None) {
            hooks.ready(&started.bound);
        }
        supervise(started, signals, &mut hooks).await
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }
}

async fn supervise(started: Started, mut signals: Signals, hooks: &mut Hooks<'_>) -> Result<(), RunError> {
    let Started { mut server, bound, mut threads, tasks, mut orders } = started;
    let interval = notify::watchdog_interval();
    let mut tick = tokio::time::interval(interval.unwrap_or(Duration::from_secs(3600)));
    let mut drain_tick = tokio::time::interval(drain::LOOK_INTERVAL);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut forget_tick = tokio::time::interval(FORGET_INTERVAL);
    for tick in [&mut tick, &mut drain_tick, &mut second, &mut forget_tick] {
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut asked: Option<Ping> = None;
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => {
                let deadline = server.config.drain.deadline;
                if server.draining.is_some() || deadline.is_zero() {
                    break;
                }
                server.drain_until(Some(deadline));
            }
            _ = signals.user_1.recv() => {
                if server.draining.is_some() {
                    break;
                }
                server.drain_until(server.configured_deadline());
            }
            _ = signals.interrupt.recv() => break,
            // What the certificate hooks of coturn send.
            _ = signals.user_2.recv() => reload::reload_certificate(&mut server),
            () = server.certificates.due(), if server.config.tls.is_some() => reload::follow_certificate(&mut server),
            () = server.revocations_watch.due(), if server.config.auth.revocations_file.is_some() => reload::follow_revocations(&mut server),
            name = server.acme.issued() => reload::take_issued(&mut server, name),
            () = server.secrets_watch.due(), if server.config.follow_secrets => reload::follow_secrets(&mut server),
            Ended { kind, found, again } = server.readings.ended() => {
                match found {
                    Some(then) => then(&mut server, hooks),
                    None => tracing::error!(files = kind.name(), "reading them has failed by a bug: what is in force stays"),
                }
                if again {
                    reload::read_again(&mut server, hooks, kind);
                }
            }
            _ = forget_tick.tick() => server.revoker.forget_what_is_over(),
            () = server.addresses.due() => {
                if server.follow_addresses(None) {
                    hooks.ready(&bound);
                }
            }
            round = Server::public_addresses_round(&mut server.public) => {
                if server.follow_addresses(Some(round)) {
                    hooks.ready(&bound);
                }
            }
            followed = Server::store_changed(&mut server.following) => server.follow_store(&followed),
            _ = drain_tick.tick(), if server.draining.is_some() => {
                if server.has_drained() {
                    break;
                }
            }
            _ = second.tick(), if server.is_measured() => server.measure(),
            // What comes of it is in the log.
            _ = signals.hang_up.recv() => reload::reload_unasked(&mut server, hooks),
            Some(order) = next_order(&mut orders) => {
                if obey(&mut server, &bound, order, hooks) {
                    // The answer goes out before the drain can be over.
                    drain_tick.reset();
                }
            }
            _ = tick.tick(), if interval.is_some() => {
                // Only when every worker has answered the last question does the service manager hear from us.
                if asked.as_ref().is_none_or(|asked| asked.silent().is_none()) {
                    notify::watchdog();
                    asked = Some(server.workers.ping());
                } else {
                    tracing::warn!("a worker does not answer");
                }
            }
            failure = threads.failure() => return Err(failure),
        }
    }
    tracing::info!("stopping");
    notify::stopping();
    server.workers.tell(|| Command::Stop(EndReason::Shutdown));
    // The runtime goes on meanwhile: what workers leave behind finds room.
    let _ = tokio::task::spawn_blocking(move || threads.join()).await;
    if let Some(leases) = server.leases.take() {
        leases.end().await;
    }
    server.revoker.keep_stored().await;
    if let Some(usage) = server.usage.take() {
        usage.stop();
    }
    if let Some(telling) = server.telling.take() {
        telling.finish().await;
    }
    for task in tasks {
        task.abort();
        let _ = task.await;
    }
    Ok(())
}

/// The next order of the admin API, if there is one.
async fn next_order(orders: &mut Option<Orders>) -> Option<Order> {
    orders.as_mut()?.recv().await
}

/// Carries out an order, whose giver may have gone away. Returns whether it was about a drain.
fn obey(server: &mut Server, bound: &Bound, order: Order, hooks: &Hooks<'_>) -> bool {
    let is_drain = matches!(order, Order::Drain { .. });
    match order {
        Order::Overview(answer) => {
            let drain = server.draining.as_ref().map(|draining| DrainView { deadline_unix: draining.deadline_unix() });
            let (config_file, log_filter) = (hooks.config_file.clone(), hooks.log.filter());
            let _ = answer.send(Overview { config_file, log_filter, drain });
        }
        Order::Config(answer) => {
            let _ = answer.send(ConfigView { generation: server.status.generation(), toml: server.config.to_toml() });
        }
        Order::Reload { dry_run: true, answer } => {
            reload::dry_run(server, hooks, Box::new(move |answered| drop(answer.send(answered))));
        }
        Order::Reload { dry_run: false, answer } => {
            reload::reload(server, hooks, Box::new(move |reloaded| drop(answer.send(reloaded))));
        }
        Order::Drain { deadline, answer } => {
            let deadline = match deadline {
                DrainDeadline::Configured => server.configured_deadline(),
                DrainDeadline::None => None,
                DrainDeadline::After(time) => Some(time),
            };
            let _ = answer.send(Draining::deadline_unix(server.drain_until(deadline)));
        }
        Order::SelfTest(answer) => {
            let _ = answer.send(self_test::servers(&server.config, bound, sys::clocks().1));
        }
        Order::CheckRevocation { written, answer } => {
            let _ = answer.send(revocation(&server.config, &written, WrittenBy::Request, unix_now()));
        }
        Order::Realm { name, answer } => {
            let _ = answer.send(revoked_realm(&server.config, Some(&name)));
        }
        Order::LogFilter { filter, answer } => {
            let result = hooks.log.set_filter(&filter);
            if result.is_ok() {
                tracing::info!(?filter, "the log's filter was changed by the admin API");
            }
            let _ = answer.send(result);
        }
    }
    is_drain
}
