//! What a batch sends: runs of datagrams to peers and clients, gathered while it is routed and sent when the round says so.

use std::io;
use std::os::fd::BorrowedFd;

use super::inbox::Payload;
use super::plan::{Pieces, Plan, Run, Via, Way};
use super::relay_sockets::RelaySockets;
use crate::addr::Family;
use crate::counters::Counters;
use crate::net::sys::{self, PIECES_MAX, SendOptions, send, send_pieces, send_to};
use crate::net::{Arena, Span};
use crate::turn::{DatagramPath, RelayId, ToPeer};

/// The datagrams of a batch that wait to be sent.
pub(super) struct Outbox {
    to_peers: Plan,
    to_clients: Plan,
    /// The answer to the message that is being handled.
    reply: Vec<u8>,
    /// Whether the kernel segments what is sent as one (UDP GSO).
    gso: bool,
}

impl Outbox {
    pub(super) fn new(gso: bool) -> Self {
        Self { to_peers: Plan::new(), to_clients: Plan::new(), reply: Vec::with_capacity(2048), gso }
    }

    /// Room for an answer.
    pub(super) fn new_reply(&mut self) -> &mut Vec<u8> {
        self.reply.clear();
        &mut self.reply
    }

    /// The answer.
    pub(super) fn reply(&self) -> &[u8] {
        &self.reply
    }

    /// Gathers a datagram from a relay to a peer.
    pub(super) fn add_to_peer(&mut self, to: &ToPeer, payload: Payload) {
        let way = Way {
            via: Via::Relay(to.relay),
            to: to.peer.get(),
            from_ip: None,
            tos: payload.tos,
            dont_fragment: to.dont_fragment,
        };
        self.to_peers.add(to.relay, way, Pieces::whole(payload.span));
    }

    /// Gathers a datagram for a client, one of the flow from a relay, or one that is like no other, such as an answer.
    pub(super) fn add_to_client(&mut self, flow: Option<RelayId>, path: DatagramPath, tos: u8, pieces: Pieces) {
        let DatagramPath { socket, to, from_ip } = path;
        let way = Way { via: Via::Listener(socket), to, from_ip, tos, dont_fragment: false };
        match flow {
            Some(relay) => self.to_clients.add(relay, way, pieces),
            None => self.to_clients.add_single(way, pieces),
        }
    }

    /// Sends everything, and is empty. `listener` has the sockets that clients are reached from.
    pub(super) fn send<'a>(
        &mut self,
        arena: &Arena,
        relays: &mut RelaySockets,
        listener: impl Fn(u32) -> Option<BorrowedFd<'a>>,
        counters: &Counters,
    ) {
        let Self { to_peers, to_clients, gso, .. } = self;
        for run in to_peers.runs() {
            let Via::Relay(id) = run.way.via else { continue };
            let Some((socket, connected)) = relays.towards(id, run.way.to, run.count) else { continue };
            Sender { socket, connected, arena, counters, gso }.send(to_peers, run);
        }
        to_peers.clear();
        for run in to_clients.runs() {
            let Via::Listener(index) = run.way.via else { continue };
            let Some(socket) = listener(index) else { continue };
            Sender { socket, connected: false, arena, counters, gso }.send(to_clients, run);
        }
        to_clients.clear();
    }

    /// Gives memory back after a peak of relays; there are no more than `slots` now.
    pub(super) fn shrink(&mut self, slots: usize) {
        self.to_peers.shrink(slots);
        self.to_clients.shrink(slots);
    }
}

/// Sends runs from one socket.
struct Sender<'a> {
    socket: BorrowedFd<'a>,
    connected: bool,
    arena: &'a Arena,
    counters: &'a Counters,
    gso: &'a mut bool,
}

impl Sender<'_> {
    fn send(self, plan: &Plan, run: &Run) {
        let way = &run.way;
        let options = SendOptions {
            to: way.to,
            connected: self.connected,
            from_ip: way.from_ip,
            segment_len: None,
            tos: way.tos,
        };
        if run.count > 1 && *self.gso && !way.dont_fragment {
            let mut pieces = [Span::default(); PIECES_MAX];
            let pieces = gather(&mut pieces, plan.datagrams(run));
            let options = SendOptions { segment_len: u16::try_from(run.segment_len).ok(), ..options };
            match retry_after_icmp(|| send_pieces(self.socket, self.arena.bytes(), pieces, &options)) {
                Ok(_) => return,
                Err(error) if segmentation_failed(&error) => {
                    self.counters.gso_fallbacks.add(1);
                    if error.raw_os_error() == Some(libc::EIO) {
                        *self.gso = false;
                    }
                }
                Err(_) => return self.counters.send_errors.add(1),
            }
        }
        if way.dont_fragment {
            // Rare (RFC 8656 section 11.2): the option is set for these datagrams only.
            let _ = sys::set_dont_fragment(self.socket, Family::of(way.to.ip()));
        }
        for datagram in plan.datagrams(run) {
            if self.send_one(datagram, &options).is_err() {
                self.counters.send_errors.add(1);
            }
        }
        if way.dont_fragment {
            let _ = sys::set_no_path_mtu_discovery(self.socket, Family::of(way.to.ip()));
        }
    }

    fn send_one(&self, datagram: Pieces, options: &SendOptions) -> io::Result<usize> {
        let mut pieces = [Span::default(); 3];
        let pieces = gather(&mut pieces, std::iter::once(datagram));
        let plain = options.tos == 0 && options.from_ip.is_none();
        retry_after_icmp(|| match pieces {
            [whole] if plain && options.connected => send(self.socket, self.arena.get(*whole)),
            [whole] if plain => send_to(self.socket, self.arena.get(*whole), options.to),
            pieces => send_pieces(self.socket, self.arena.bytes(), pieces, options),
        })
    }
}

/// Lists the pieces of datagrams; what has no bytes has no piece.
fn gather(list: &mut [Span], datagrams: impl Iterator<Item = Pieces>) -> &[Span] {
    let mut used = 0;
    for (slot, span) in list.iter_mut().zip(datagrams.flat_map(Pieces::spans)) {
        *slot = span;
        used += 1;
    }
    list.get(..used).unwrap_or_default()
}

/// A socket with IP_RECVERR reports an earlier ICMP error by failing the next send, whoever that is for: try once more.
fn retry_after_icmp(mut send: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    match send() {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EMSGSIZE | libc::EPROTO)
            ) =>
        {
            send()
        }
        other => other,
    }
}

/// Errors that mean "not as one segmented send": old kernels, tunnels, segments longer than the path allows.
fn segmentation_failed(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Protocol, Socket, Type};
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsFd;
    use std::time::Duration;

    fn socket(protocol: Protocol) -> UdpSocket {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(protocol)).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.into()
    }

    /// Sends five datagrams as one run; returns them as received, the fallbacks counted, and whether GSO is still on.
    fn send_run_of_five(protocol: Protocol, prepare: impl Fn(&UdpSocket)) -> (Vec<Vec<u8>>, u64, bool) {
        let [receiver, sender] = [(); 2].map(|()| socket(protocol));
        prepare(&sender);
        let relay = RelayId { index: 0, generation: 0 };
        let to = receiver.local_addr().unwrap();
        let way = Way { via: Via::Relay(relay), to, from_ip: None, tos: 0, dont_fragment: false };
        let (mut arena, mut plan) = (Arena::new(1, 8192), Plan::new());
        for (number, len) in [(1, 900), (2, 900), (3, 900), (4, 900), (5, 30)] {
            let payload = arena.store(&vec![number; len]).unwrap();
            plan.add(relay, way, Pieces::whole(payload));
        }
        let (counters, mut gso) = (Counters::default(), true);
        let run = plan.runs()[0];
        assert_eq!((plan.runs().len(), run.count), (1, 5));
        let socket = sender.as_fd();
        Sender { socket, connected: false, arena: &arena, counters: &counters, gso: &mut gso }.send(&plan, &run);
        let mut buffer = [0; 2048];
        let received = (0..5).map(|_| {
            let len = receiver.recv(&mut buffer).unwrap();
            buffer[..len].to_vec()
        });
        (received.collect(), counters.gso_fallbacks.get(), gso)
    }

    fn five() -> Vec<Vec<u8>> {
        [(1, 900), (2, 900), (3, 900), (4, 900), (5, 30)].map(|(number, len)| vec![number; len]).to_vec()
    }

    #[test]
    fn a_run_arrives_as_the_datagrams_it_was_made_of() {
        assert_eq!(send_run_of_five(Protocol::UDP, |_| {}), (five(), 0, true));
    }

    #[test]
    fn where_the_kernel_refuses_to_segment_one_run_its_datagrams_are_sent_one_by_one() {
        let sent = send_run_of_five(Protocol::UDP, |socket| sys::set_no_checksum(socket.as_fd()).unwrap());
        assert_eq!(sent, (five(), 1, true));
    }

    #[test]
    fn where_the_kernel_cannot_segment_it_is_not_asked_again() {
        // What UDP-Lite is answered is what a tunnel or a device without checksums is: EIO.
        assert_eq!(send_run_of_five(Protocol::UDPLITE, |_| {}), (five(), 1, false));
    }
}
