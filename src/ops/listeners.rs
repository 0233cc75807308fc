//! Opening the listeners: sockets that were handed over from before a restart or by a socket unit are used again, the rest is
//! bound, and the service manager is given what it does not keep yet.
//!
//! While no process has them open but the service manager, datagrams wait in the sockets' buffers and connections in their
//! backlogs: across a restart no client is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::error::RunError;
use super::notify;
use crate::addr::{SocketKind, Transport};
use crate::config::{Config, Listener};
use crate::net::{Adopted, Inherited, bind_tcp_listener, bind_udp_listener, name_in_store};
use crate::net::{tune_tcp_listener, tune_udp_listener};
use crate::worker::WorkerListener;

/// What the server listens on, with real ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Each listener's transport and address, in the order of the configuration.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// Where the page is, if it is at a port.
    pub page: Option<SocketAddr>,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("listening on")?;
        self.listeners.iter().try_for_each(|(transport, address)| write!(f, " {transport}/{address}"))
    }
}

/// The listeners, open.
pub(super) struct Opened {
    pub(super) bound: Bound,
    /// Each worker's sockets.
    pub(super) per_worker: Vec<Vec<WorkerListener>>,
}

/// Opens every listener of the configuration, with a socket of its own for each worker.
///
/// When more sockets are inherited than there are workers now, some workers have several. Closing one would lose what waits in
/// it, and would make the kernel deal all clients to other sockets; the surplus goes when the service is stopped.
///
/// # Errors
/// A socket that cannot be opened.
pub(super) fn open(config: &Config, mut inherited: Inherited) -> Result<Opened, RunError> {
    let workers = config.workers.max(1);
    let mut bound = Bound { listeners: Vec::new(), page: None };
    let mut per_worker: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
    let mut groups = Vec::with_capacity(config.listeners.len());
    let mut adopted = 0;
    for listener in &config.listeners {
        let mut earlier: std::slice::IterMut<'_, Group> = groups.iter_mut();
        if let Some(group) = earlier.find(|group| group.listener.shares_socket(listener)) {
            group.transports.push(listener.transport);
            bound.listeners.push((listener.transport, listener.address));
            continue;
        }
        let group = Group::open(listener.clone(), &mut inherited, workers).map_err(|error| RunError::Listener {
            transport: listener.transport,
            address: listener.address,
            error,
        })?;
        bound.listeners.push((listener.transport, group.listener.address));
        adopted += group.sockets.iter().filter(|socket| !matches!(socket.origin, Origin::Bound(_))).count();
        groups.push(group);
    }
    if adopted > 0 {
        tracing::info!(sockets = adopted, "took over listener sockets");
    }
    // The store makes room before it is given more, and a name is free before it is used again.
    close_leftovers(inherited);
    give_to_keep(&groups);
    for group in groups {
        group.deal(&mut per_worker)?;
    }
    Ok(Opened { bound, per_worker })
}

/// The sockets on one listener's address.
struct Group {
    listener: Listener,
    /// All that it serves: its own, and those that share its sockets.
    transports: Vec<Transport>,
    kind: SocketKind,
    sockets: Vec<GroupSocket>,
}

struct GroupSocket {
    socket: OwnedFd,
    origin: Origin,
}

/// Where a socket comes from, with its number in the group.
#[derive(Clone, Copy)]
enum Origin {
    /// The store keeps it.
    Store(u32),
    /// A socket unit keeps it.
    SocketUnit,
    /// Nobody keeps it yet.
    Bound(u32),
}

impl Group {
    fn open(mut listener: Listener, inherited: &mut Inherited, workers: usize) -> io::Result<Self> {
        let kind = listener.transport.socket_kind();
        let mut sockets = Vec::with_capacity(workers);
        for Adopted { socket, number } in inherited.adopt(kind, listener.address) {
            match kind {
                SocketKind::Udp => tune_udp_listener(&socket, listener.address.ip())?,
                SocketKind::Tcp => tune_tcp_listener(&socket)?,
            }
            sockets.push(GroupSocket { socket, origin: number.map_or(Origin::SocketUnit, Origin::Store) });
        }
        let used: Vec<_> = sockets.iter().filter_map(|socket: &GroupSocket| socket.origin.number()).collect();
        let mut free = (0..).filter(|number| !used.contains(number));
        let is_inherited = !sockets.is_empty();
        while sockets.len() < workers {
            let bound = match kind {
                SocketKind::Udp => bind_udp_listener(listener.address),
                SocketKind::Tcp => bind_tcp_listener(listener.address),
            };
            let socket = match bound {
                Ok(socket) => socket,
                // A socket unit's sockets are another user's, beside whose none can be bound.
                Err(error) if is_inherited && is_foreign(&error) => break,
                Err(error) => return Err(error),
            };
            // A port of 0 was chosen by the first socket.
            let local = socket2::SockRef::from(&socket).local_addr()?;
            listener.address = local.as_socket().unwrap_or(listener.address);
            sockets.push(GroupSocket { socket, origin: Origin::Bound(free.next().unwrap_or_default()) });
        }
        Ok(Self { transports: vec![listener.transport], listener, kind, sockets })
    }

    /// Gives each worker its sockets. If there are too few, workers share those of TCP; a UDP socket has one worker, or else a
    /// client's datagrams would come to several.
    fn deal(self, per_worker: &mut [Vec<WorkerListener>]) -> Result<(), RunError> {
        let Listener { address, transport, options } = self.listener;
        let (have, want) = (self.sockets.len(), per_worker.len());
        if have < want && self.kind == SocketKind::Udp {
            tracing::warn!(
                listener = %format_args!("{transport}/{address}"), sockets = have, workers = want,
                "not every worker can serve this listener: its socket unit belongs to another user, and should have \
                 ReusePort=yes and ListenDatagram= once for each worker"
            );
        }
        let mut shared = Vec::new();
        if self.kind == SocketKind::Tcp {
            for GroupSocket { socket, .. } in self.sockets.iter().cycle().take(want.saturating_sub(have)) {
                let copy = socket.try_clone();
                shared.push(copy.map_err(|error| RunError::Share { transport, address, error })?);
            }
        }
        let sockets = self.sockets.into_iter().map(|socket| socket.socket).chain(shared);
        for (index, socket) in sockets.enumerate() {
            if let Some(listeners) = per_worker.get_mut(index % want) {
                let (transports, options) = (self.transports.clone(), Arc::clone(&options));
                listeners.push(WorkerListener { transports, address, socket, options });
            }
        }
        Ok(())
    }
}

impl Origin {
    fn number(self) -> Option<u32> {
        match self {
            Self::Store(number) | Self::Bound(number) => Some(number),
            Self::SocketUnit => None,
        }
    }
}

fn is_foreign(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn give_to_keep(groups: &[Group]) {
    let sockets = groups.iter().flat_map(|group| group.sockets.iter().map(move |socket| (group, socket)));
    let new: Vec<_> = sockets
        .clone()
        .filter_map(|(group, socket)| match socket.origin {
            Origin::Bound(number) => {
                Some((name_in_store(group.kind, group.listener.address, number), socket.socket.as_fd()))
            }
            Origin::Store(_) | Origin::SocketUnit => None,
        })
        .collect();
    notify::keep(&new);
    let kept = sockets.filter(|(_, socket)| socket.origin.number().is_some()).count();
    if let Some(max) = notify::store_max().filter(|max| *max < kept) {
        tracing::warn!(
            sockets = kept,
            max,
            "the service manager keeps fewer sockets than there are: raise FileDescriptorStoreMax= or a restart will lose packets"
        );
    }
}

/// Closes what no listener wants, here and at the service manager's; one line for each address.
fn close_leftovers(inherited: Inherited) {
    let mut closed: BTreeMap<(bool, String), (usize, String)> = BTreeMap::new();
    for leftover in inherited.leftovers() {
        notify::forget(&leftover.name);
        let entry = closed.entry((leftover.was_listener, leftover.what.clone()));
        entry.or_insert_with(|| (0, leftover.name.clone())).0 += 1;
    }
    for ((was_listener, what), (sockets, name)) in closed {
        if was_listener {
            tracing::info!(sockets, "closed a listener that is no longer configured: {what}");
        } else {
            tracing::warn!(
                sockets, name = ?name,
                "closed what the service manager passed but no listener is configured for: {what}"
            );
        }
    }
}
