//! The service manager's side: readiness, status text, watchdog, and the store that keeps sockets over a restart (sd_notify).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::net::sys;

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

/// Has it keep these sockets over a restart, each under its name. It keeps at most `FileDescriptorStoreMax=` of them, and none
/// if the unit does not say that.
pub(super) fn keep(sockets: &[(String, BorrowedFd<'_>)]) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|_| !sockets.is_empty()) else { return };
    let sent = UnixDatagram::unbound().and_then(|manager| {
        manager.connect(path)?;
        sockets.iter().try_for_each(|(name, socket)| keep_one(&manager, name, *socket))
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot give the listeners to the service manager to keep: a restart will refuse clients");
    }
}

fn keep_one(manager: &UnixDatagram, name: &str, socket: BorrowedFd<'_>) -> io::Result<()> {
    // Not watched: an ICMP error at a socket would otherwise count as its end.
    let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n");
    sys::send_descriptor(manager.as_fd(), message.as_bytes(), socket)
}

/// Has it close what it keeps under this name.
pub(super) fn forget(name: &str) {
    send(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(&format!("FDNAME={name}"))]);
}

/// How many descriptors it keeps, where it says so (systemd 254).
pub(super) fn store_max() -> Option<usize> {
    std::env::var("FDSTORE").ok()?.parse().ok()
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
