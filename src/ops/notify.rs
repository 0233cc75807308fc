//! The service manager's side: readiness, status text and watchdog (sd_notify).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// Tells the service manager that every listener is bound, and what they are.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Status(status), NotifyState::Ready]);
}

/// Tells it that a reload begins.
pub(super) fn reloading() {
    if let Ok(state) = NotifyState::monotonic_usec_now() {
        send(&[NotifyState::Reloading, state]);
    }
}

/// What the server is doing, for `systemctl status`.
pub(super) fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// Asks it to wait at least so much longer, from now on, before it kills the server: a drain may take longer than
/// TimeoutStopSec.
pub(super) fn extend_timeout(time: Duration) {
    send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
}

/// Tells it that the server is stopping.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Sign of life.
pub(super) fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often the service manager wants a sign of life; half its limit.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(states: &[NotifyState<'_>]) {
    static UNREACHABLE: AtomicBool = AtomicBool::new(false);
    let result = sd_notify::notify(states);
    // Once is enough until it is back.
    let was_unreachable = UNREACHABLE.swap(result.is_err(), Ordering::Relaxed);
    if let (Err(error), false) = (result, was_unreachable) {
        tracing::warn!(%error, "cannot reach the service manager");
    }
}
