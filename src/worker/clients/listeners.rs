//! The listener sockets of one worker.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::addr::{ClientAddr, FiveTuple, Transport};
use crate::clock::Now;
use crate::config::ListenOptions;
use crate::dtls::record::is_dtls;
use crate::net::sys::{Datagram, Epoll, Interest, kernel_drops};
use crate::turn::{Client, DatagramPath, Path};
use crate::user::RealmId;
use crate::worker::inbox::Inbox;
use crate::worker::token::Token;

/// Datagrams taken from a listener at once, at most.
pub(in crate::worker) const DEPTH_MAX: usize = 64;
/// Messages that one read of a listener should not bring many more of, each datagram being up to 64 that the kernel has
/// coalesced.
const READ_MESSAGES: usize = 512;

/// How long a listener rests when the process is out of descriptors.
const ACCEPT_PAUSE_MICROS: u64 = 100_000;

/// A listener socket of one worker.
pub struct WorkerListener {
    /// What it serves, at least one; if more, they are told apart by their first bytes.
    pub transports: Vec<Transport>,
    /// The address it is bound to, with the real port.
    pub address: SocketAddr,
    /// The socket: UDP bound, or TCP listening.
    pub socket: OwnedFd,
    /// What else the configuration says of it.
    pub options: Arc<ListenOptions>,
}

/// All listeners of a worker.
pub(super) struct Listeners {
    epoll: Arc<Epoll>,
    sockets: Vec<ListenerSocket>,
    /// When listeners that rest are watched again.
    resting: Vec<(u64, u32)>,
}

enum ListenerSocket {
    Datagrams(DatagramListener),
    Streams(StreamListener),
}

/// Where connections of clients come in.
struct StreamListener {
    socket: TcpListener,
    has_tcp: bool,
    has_tls: bool,
    options: Arc<ListenOptions>,
}

/// A connection, accepted.
pub(super) struct Newly {
    pub(super) socket: TcpStream,
    pub(super) remote: SocketAddr,
    /// Whether it may begin with messages, and with a TLS handshake.
    pub(super) has_tcp: bool,
    pub(super) has_tls: bool,
    /// Whether it begins with the header of a proxy.
    pub(super) is_proxied: bool,
    /// The realm that it comes in by, unless its handshake asks for another one.
    pub(super) realm: RealmId,
    /// If it may be for a web server.
    pub(super) options: Option<Arc<ListenOptions>>,
}

impl Listeners {
    pub(super) fn new(epoll: Arc<Epoll>, listeners: Vec<WorkerListener>) -> io::Result<Self> {
        let mut sockets = Vec::with_capacity(listeners.len());
        for (number, listener) in listeners.into_iter().enumerate() {
            let WorkerListener { transports, address, socket, options } = listener;
            epoll.add(socket.as_fd(), Token::Listener(number as u32).pack(), Interest::Read)?;
            let has = |transport| transports.contains(&transport);
            let takes = match (has(Transport::Udp), has(Transport::Dtls)) {
                (true, false) => Some(Takes::Plain),
                (false, true) => Some(Takes::Dtls),
                (true, true) => Some(Takes::Both),
                (false, false) => None,
            };
            sockets.push(if let Some(takes) = takes {
                ListenerSocket::Datagrams(DatagramListener::new(socket, address, takes, options))
            } else {
                let (has_tcp, has_tls) = (has(Transport::Tcp), has(Transport::Tls));
                ListenerSocket::Streams(StreamListener { socket: socket.into(), has_tcp, has_tls, options })
            });
        }
        Ok(Self { epoll, sockets, resting: Vec::new() })
    }

    pub(super) fn datagrams(&mut self, number: u32) -> Option<&mut DatagramListener> {
        match self.sockets.get_mut(number as usize)? {
            ListenerSocket::Datagrams(listener) => Some(listener),
            ListenerSocket::Streams(_) => None,
        }
    }

    pub(super) fn datagram_fd(&self, number: u32) -> Option<BorrowedFd<'_>> {
        match self.sockets.get(number as usize)? {
            ListenerSocket::Datagrams(listener) => Some(listener.socket.as_fd()),
            ListenerSocket::Streams(_) => None,
        }
    }

    /// The listener to send datagrams from an address by, and the address, where the listener has more than one.
    pub(super) fn at(&self, address: SocketAddr) -> Option<(u32, Option<IpAddr>)> {
        let numbered = (0..).zip(&self.sockets);
        let mut found = numbered.filter_map(|(number, socket)| match socket {
            ListenerSocket::Datagrams(listener) if listener.address == address => Some((number, None)),
            ListenerSocket::Datagrams(listener) if covers(listener.address, address) => {
                Some((number, Some(address.ip())))
            }
            _ => None,
        });
        found.next()
    }

    /// Accepts a connection.
    pub(super) fn accept(&self, number: u32) -> Option<io::Result<Newly>> {
        match self.sockets.get(number as usize)? {
            ListenerSocket::Streams(listener) => Some(listener.accept()),
            ListenerSocket::Datagrams(_) => None,
        }
    }

    /// Out of descriptors or memory: a level-triggered listener would spin, so it rests a moment.
    pub(super) fn rest(&mut self, now: Now, number: u32) {
        self.watch(number, Interest::None);
        self.resting.push((now.micros + ACCEPT_PAUSE_MICROS, number));
    }

    /// Has those watched again that have rested.
    pub(super) fn resume(&mut self, now: Now) {
        while let Some((due, number)) = self.resting.first().copied() {
            if due > now.micros {
                return;
            }
            self.resting.remove(0);
            self.watch(number, Interest::Read);
        }
    }

    fn watch(&self, number: u32, interest: Interest) {
        if let Some(ListenerSocket::Streams(StreamListener { socket, .. })) = self.sockets.get(number as usize) {
            let _ = self.epoll.modify(socket.as_fd(), Token::Listener(number).pack(), interest);
        }
    }

    /// When [`Self::resume`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<u64> {
        self.resting.iter().map(|entry| entry.0).min()
    }
}

impl StreamListener {
    fn accept(&self) -> io::Result<Newly> {
        let (socket, remote) = self.socket.accept()?;
        let ip = ClientAddr::new(remote).get().ip();
        let is_proxied = self.options.proxy_from.iter().any(|network| network.contains(&ip));
        let realm = self.options.realm_id();
        let options = self.options.web.is_some().then(|| Arc::clone(&self.options));
        let (has_tcp, has_tls) = (self.has_tcp, self.has_tls);
        Ok(Newly { socket, remote, has_tcp, has_tls, is_proxied, realm, options })
    }
}

/// Where datagrams of clients come in.
pub(in crate::worker) struct DatagramListener {
    socket: OwnedFd,
    address: SocketAddr,
    /// The realm that its clients come in by.
    realm: RealmId,
    /// The kernel's drops at it that have been counted.
    drops: u32,
    /// How many datagrams to ask for.
    depth: usize,
    takes: Takes,
    options: Arc<ListenOptions>,
}

/// What a listener for datagrams serves; of both, the first byte says which it is (RFC 7983 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Takes {
    /// STUN and TURN.
    Plain,
    /// The same in DTLS.
    Dtls,
    /// Both.
    Both,
}

impl Takes {
    /// Whether a datagram is one of DTLS.
    pub(in crate::worker) fn is_dtls(self, datagram: &[u8]) -> bool {
        self != Self::Plain && is_dtls(datagram)
    }
}

impl DatagramListener {
    fn new(socket: OwnedFd, address: SocketAddr, takes: Takes, options: Arc<ListenOptions>) -> Self {
        // A socket from before a restart has dropped datagrams that were counted then.
        let drops = kernel_drops(socket.as_fd()).unwrap_or_default();
        let realm = options.realm_id();
        Self { socket, address, realm, drops, depth: DEPTH_MAX, takes, options }
    }

    /// Receives what is there, up to some number; returns how many datagrams it was.
    pub(in crate::worker) fn receive(&self, inbox: &mut Inbox) -> io::Result<usize> {
        inbox.receive(self.socket.as_fd(), self.depth)
    }

    /// The client that has sent a datagram to this listener, which is the worker's `number`th.
    pub(in crate::worker) fn client(&self, number: u32, datagram: &Datagram) -> Option<Client> {
        let is_any = self.address.ip().is_unspecified();
        let server = server_address(self.address, datagram.local_ip);
        let client = ClientAddr::new(datagram.source);
        // Source port 0 cannot be answered.
        (datagram.source.port() != 0).then_some(())?;
        let five_tuple = FiveTuple { transport: Transport::Udp, client, server };
        let from_ip = is_any.then(|| server.ip());
        Some(Client {
            five_tuple,
            path: Path::Datagrams(DatagramPath { socket: number, to: client.get(), from_ip }),
            realm: self.realm,
        })
    }

    /// Whether a datagram comes from a proxy, and has a header in front of its payload.
    #[inline]
    pub(in crate::worker) fn is_proxied(&self, datagram: &Datagram) -> bool {
        let proxies = &self.options.proxy_from;
        !proxies.is_empty() && {
            let ip = ClientAddr::new(datagram.source).get().ip();
            proxies.iter().any(|network| network.contains(&ip))
        }
    }

    /// What it serves.
    pub(in crate::worker) fn takes(&self) -> Takes {
        self.takes
    }

    /// Takes note of a read that brought `count` datagrams, `messages` in all.
    pub(in crate::worker) fn note_read(&mut self, count: usize, messages: usize) {
        self.depth = next_depth(self.depth, count, messages);
    }

    /// Takes over what the kernel reports of its drops; returns how many are new.
    pub(in crate::worker) fn new_drops(&mut self, drops: u32) -> u32 {
        drops.wrapping_sub(std::mem::replace(&mut self.drops, drops))
    }
}

/// How many datagrams to ask a listener for after a read of `count` that were `messages` in all: fewer while the kernel
/// coalesces many, so that a client who sends trains of 64 keeps the loop no longer than others; and more again by one at a time,
/// so that few of his trains find the loop unprepared.
fn next_depth(depth: usize, count: usize, messages: usize) -> usize {
    let each = messages.div_ceil(count.max(1)).max(1);
    (READ_MESSAGES / each).min(depth + 1).clamp(4, DEPTH_MAX)
}

/// Whether a socket that is bound to every address of a family can send from one.
fn covers(bound: SocketAddr, address: SocketAddr) -> bool {
    bound.ip().is_unspecified() && bound.is_ipv4() == address.is_ipv4() && bound.port() == address.port()
}

fn server_address(bound: SocketAddr, local_ip: Option<IpAddr>) -> SocketAddr {
    match local_ip {
        Some(ip) if bound.ip().is_unspecified() => SocketAddr::new(ip, bound.port()),
        _ => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trains_lower_the_depth_of_a_listener_at_once_and_it_grows_again_one_by_one() {
        assert_eq!(next_depth(DEPTH_MAX, 64, 64), DEPTH_MAX);
        assert_eq!(next_depth(DEPTH_MAX, 3, 3), DEPTH_MAX, "a short read says nothing of trains");
        let mut depth = next_depth(DEPTH_MAX, 64, 64 * 64);
        assert_eq!(depth, 8, "eight trains of 64 at once");
        for grown in 9..=DEPTH_MAX {
            depth = next_depth(depth, depth, depth);
            assert_eq!(depth, grown);
        }
        assert_eq!(next_depth(depth, 0, 0), DEPTH_MAX);
    }
}
