//! The service manager's side: readiness, status text, watchdog, and the store that keeps sockets over a restart (sd_notify).
//!
//! It is told by a thread of its own: one that does not read, because it starts anew or hangs, holds nobody up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::net::sys;

/// Messages that may wait for it; what is beyond is dropped. A sign of life is sent again in its time.
const WAITING_MAX: usize = 64;
/// How long the start waits until it has taken the sockets.
const KEEP_LIMIT: Duration = Duration::from_secs(1);

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
    let Some(manager) = manager().filter(|_| !sockets.is_empty()) else { return };
    let (done, kept) = sync_channel(1);
    let owned = sockets.iter().map(|(name, socket)| Ok((name.clone(), socket.try_clone_to_owned()?)));
    let sent = owned.collect::<io::Result<Vec<_>>>().and_then(|sockets| {
        let full = |_| io::Error::from(io::ErrorKind::WouldBlock);
        manager.try_send(Message::Keep(sockets, done)).map_err(full)?;
        kept.recv_timeout(KEEP_LIMIT).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
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
    let Some(manager) = manager() else { return };
    let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
    if manager.try_send(Message::Text(lines.join("\n"))).is_err() {
        static TOLD: OnceLock<()> = OnceLock::new();
        TOLD.get_or_init(|| tracing::warn!("the service manager does not read what it is told (NOTIFY_SOCKET)"));
    }
}

enum Message {
    Text(String),
    Keep(Vec<(String, OwnedFd)>, SyncSender<io::Result<()>>),
}

/// The way to the thread that tells it, in order; `None` without a service manager.
fn manager() -> Option<&'static SyncSender<Message>> {
    static MANAGER: OnceLock<Option<SyncSender<Message>>> = OnceLock::new();
    let start = || {
        std::env::var_os("NOTIFY_SOCKET")?;
        let (send, messages) = sync_channel(WAITING_MAX);
        let started = thread::Builder::new().name("notify".to_owned()).spawn(move || deliver(&messages));
        started.inspect_err(|error| tracing::warn!(%error, "cannot tell the service manager anything")).ok()?;
        Some(send)
    };
    MANAGER.get_or_init(start).as_ref()
}

fn deliver(messages: &Receiver<Message>) {
    // Once is enough until it is back.
    let mut is_unreachable = false;
    for message in messages {
        match message {
            Message::Text(text) => {
                let result = sd_notify::notify(&[NotifyState::Custom(&text)]);
                let was_unreachable = std::mem::replace(&mut is_unreachable, result.is_err());
                if let (Err(error), false) = (result, was_unreachable) {
                    tracing::warn!(%error, "cannot reach the service manager");
                }
            }
            Message::Keep(sockets, done) => {
                let path = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
                let sent = UnixDatagram::unbound().and_then(|manager| {
                    manager.connect(path)?;
                    sockets.iter().try_for_each(|(name, socket)| keep_one(&manager, name, socket.as_fd()))
                });
                // The start may have given up waiting.
                let _ = done.try_send(sent);
            }
        }
    }
}
