//! Everything out: runs to peers and clients, frames to streams, payload to other workers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::plan::{Pieces, Plan, Run, Via};
use super::{ListenerSocket, Worker};
use crate::addr::Family;
use crate::clock::Now;
use crate::counters::Counters;
use crate::net::sys::{self, PIECES_MAX, SendOptions, clocks, send, send_pieces, send_to};
use crate::net::{Arena, Span};

impl Worker {
    /// Ends the batch: sends what it has gathered; afterwards every receive slot and the scratch space are free.
    pub(super) fn flush(&mut self, now: Now) {
        self.send_gathered(now);
        self.next_slot = 0;
    }

    /// Sends what has been gathered so far and frees the scratch space. The receive slots stay taken: what is received is
    /// still being read, and what is gathered from it next must not be overwritten.
    pub(super) fn send_gathered(&mut self, now: Now) {
        self.flush_to_peers();
        self.flush_to_clients();
        self.flush_streams(now);
        self.flush_handovers();
        self.arena.reset_scratch();
        self.time_relayed(now);
    }

    /// Notes the time since the wake-up for every packet relayed since the last flush. One reading of the clock for all of
    /// them, and the same one tells the loop how long it may sleep.
    fn time_relayed(&mut self, now: Now) {
        self.flushed_micros = clocks().0;
        let packets = self.counters.payload.packets();
        let relayed = packets.wrapping_sub(self.timed_packets);
        if relayed > 0 {
            self.timed_packets = packets;
            self.counters.relay_times.observe(self.flushed_micros.saturating_sub(now.micros), relayed);
        }
    }

    /// Notes the time since the wake-up for every allocation whose answer has been sent.
    pub(super) fn time_setups(&mut self, now: Now) {
        if self.made > 0 {
            self.counters.setup_times.observe(self.flushed_micros.saturating_sub(now.micros), self.made);
            self.made = 0;
        }
    }

    fn flush_to_peers(&mut self) {
        if self.to_peers.is_empty() {
            return;
        }
        for run in self.to_peers.runs() {
            let Via::Relay(id) = run.way.via else { continue };
            // Closed in the same batch: what was sent before the release is lost with it.
            let Some(relay) = self.relays.get_mut(id) else { continue };
            if relay.has_become_busy(run.way.to, run.count) {
                self.relays.connect_busy(id, run.way.to);
            }
            let Some(relay) = self.relays.get(id) else { continue };
            let (socket, connected) = relay.fd_towards(run.way.to);
            let sender = Sender { socket, connected, arena: &self.arena, counters: &self.counters, gso: &mut self.gso };
            sender.send(&self.to_peers, run);
        }
        self.to_peers.clear();
    }

    fn flush_to_clients(&mut self) {
        if self.to_clients.is_empty() {
            return;
        }
        for run in self.to_clients.runs() {
            let Via::Listener(index) = run.way.via else { continue };
            let Some(ListenerSocket::Udp { socket, .. }) = self.listeners.get(index as usize) else { continue };
            let (socket, gso) = (socket.as_fd(), &mut self.gso);
            let sender = Sender { socket, connected: false, arena: &self.arena, counters: &self.counters, gso };
            sender.send(&self.to_clients, run);
        }
        self.to_clients.clear();
    }

    pub(super) fn flush_handovers(&mut self) {
        for (batch, mailbox) in self.handovers.iter_mut().zip(&self.context.mailboxes) {
            if !batch.is_empty() {
                let lost = mailbox.hand_over(batch);
                self.counters.mailbox_drops.add(lost as u64);
            }
        }
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
    use super::super::plan::{RunHint, Way};
    use super::*;
    use crate::turn::RelayId;
    use std::net::UdpSocket;
    use std::time::Duration;

    /// Sends five datagrams as one run; returns them as received, the fallbacks counted, and whether GSO is still on.
    fn send_run_of_five(prepare: impl Fn(&UdpSocket)) -> (Vec<Vec<u8>>, u64, bool) {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        prepare(&sender);
        let via = Via::Relay(RelayId { index: 0, generation: 0 });
        let to = receiver.local_addr().unwrap();
        let way = Way { via, to, from_ip: None, tos: 0, dont_fragment: false };
        let (mut arena, mut plan, mut hint) = (Arena::new(1, 8192), Plan::new(), RunHint::default());
        for (number, len) in [(1, 900), (2, 900), (3, 900), (4, 900), (5, 30)] {
            let payload = arena.store(&vec![number; len]).unwrap();
            plan.add(&mut hint, way, Pieces::whole(payload));
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
        let (received, fallbacks, gso) = send_run_of_five(|_| {});
        assert_eq!((received, fallbacks, gso), (five(), 0, true));
    }

    #[test]
    fn where_the_socket_refuses_segmentation_every_datagram_is_sent_by_itself() {
        let (received, fallbacks, _) = send_run_of_five(|socket| sys::set_no_checksum(socket.as_fd()).unwrap());
        assert_eq!((received, fallbacks), (five(), 1));
    }
}
