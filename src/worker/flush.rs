//! Everything out: runs to peers, batches to clients, frames to streams, payload to other workers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::plan::{Plan, Run, Via};
use super::{ListenerSocket, Worker};
use crate::addr::Family;
use crate::clock::Now;
use crate::net::sys::{self, send, send_run, send_to};
use crate::net::{Arena, Span};
use crate::ops::counters::Counters;

/// Segments of one run; each is one piece, the payload.
const PIECES_MAX: usize = 64;

impl Worker {
    /// Sends what the batch has gathered; afterwards every receive slot and the scratch space are free.
    pub(super) fn flush(&mut self, now: Now) {
        self.flush_to_peers();
        self.flush_to_clients();
        self.flush_streams(now);
        self.flush_handovers();
        self.next_slot = 0;
        self.arena.reset_scratch();
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
            let Some(ListenerSocket::Udp { batch, .. }) = self.listeners.get_mut(index as usize) else { continue };
            let segmented = u16::try_from(run.segment_len).ok().filter(|_| run.count > 1 && self.gso);
            if run.count == 1 || segmented.is_some() {
                let pieces = self.to_clients.datagrams(run).flat_map(|datagram| datagram.spans());
                batch.push(run.way.to, run.way.from_ip, segmented, run.way.tos, pieces);
            } else {
                for datagram in self.to_clients.datagrams(run) {
                    batch.push(run.way.to, run.way.from_ip, None, run.way.tos, datagram.spans());
                }
            }
        }
        self.to_clients.clear();
        let (counters, gso) = (&self.counters, &mut self.gso);
        for listener in &mut self.listeners {
            let ListenerSocket::Udp { socket, batch, .. } = listener else { continue };
            if batch.is_empty() {
                continue;
            }
            let memory = self.arena.bytes();
            let fd = socket.as_fd();
            batch.send(fd, memory, |item, pieces, error| {
                counters.send_errors.add(1);
                let Some(len) = item.segment_len.filter(|_| segmentation_failed(&error)) else { return };
                counters.gso_fallbacks.add(1);
                if error.raw_os_error() == Some(libc::EIO) {
                    *gso = false;
                }
                resend_split(fd, memory, pieces, item.to, len, item.from_ip, item.tos);
            });
        }
    }

    fn flush_handovers(&mut self) {
        for (batch, mailbox) in self.handovers.iter_mut().zip(&self.context.mailboxes) {
            if !batch.packets.is_empty() {
                let lost = mailbox.hand_over(batch);
                self.counters.mailbox_drops.add(lost as u64);
            }
        }
    }
}

/// Sends runs from one relay socket.
struct Sender<'a> {
    socket: BorrowedFd<'a>,
    connected: bool,
    arena: &'a Arena,
    counters: &'a Counters,
    gso: &'a mut bool,
}

impl Sender<'_> {
    fn send(self, plan: &Plan, run: &Run) {
        if run.count > 1 && *self.gso && !run.way.dont_fragment {
            let mut pieces = [Span::default(); PIECES_MAX];
            let mut used = 0;
            for span in plan.datagrams(run).flat_map(|datagram| datagram.spans()) {
                if let Some(slot) = pieces.get_mut(used) {
                    *slot = span;
                    used += 1;
                }
            }
            let pieces = pieces.get(..used).unwrap_or_default();
            let segment_len = u16::try_from(run.segment_len).ok();
            let (memory, way) = (self.arena.bytes(), run.way);
            let send = || send_run(self.socket, memory, pieces, way.to, self.connected, segment_len, way.tos);
            match retry_after_icmp(send) {
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
        for datagram in plan.datagrams(run) {
            self.send_one(datagram.payload, run);
        }
    }

    /// Payload for a peer is always one piece.
    fn send_one(&self, payload: Span, run: &Run) {
        let to = run.way.to;
        if run.way.dont_fragment {
            // Rare (RFC 8656 section 11.2): the option is set for this datagram only.
            let _ = sys::set_dont_fragment(self.socket, Family::of(to.ip()));
        }
        let sent = retry_after_icmp(|| match run.way.tos {
            0 if self.connected => send(self.socket, self.arena.get(payload)),
            0 => send_to(self.socket, self.arena.get(payload), to),
            tos => send_run(self.socket, self.arena.bytes(), &[payload], to, self.connected, None, tos),
        });
        if sent.is_err() {
            self.counters.send_errors.add(1);
        }
        if run.way.dont_fragment {
            let _ = sys::set_no_path_mtu_discovery(self.socket, Family::of(to.ip()));
        }
    }
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

/// Sends the datagrams of a refused segmented send one by one.
fn resend_split(
    socket: BorrowedFd<'_>,
    memory: &[u8],
    pieces: &[Span],
    to: SocketAddr,
    segment_len: u16,
    from_ip: Option<std::net::IpAddr>,
    tos: u8,
) {
    let mut batch = sys::SendBatch::new();
    let mut datagram = Vec::new();
    let mut len = 0;
    for piece in pieces {
        let mut rest = *piece;
        while rest.len > 0 {
            let take = (u32::from(segment_len) - len).min(rest.len);
            datagram.push(rest.part(0, take as usize));
            rest = rest.part(take as usize, (rest.len - take) as usize);
            len += take;
            if len == u32::from(segment_len) {
                batch.push(to, from_ip, None, tos, datagram.drain(..));
                len = 0;
            }
        }
    }
    if !datagram.is_empty() {
        batch.push(to, from_ip, None, tos, datagram.drain(..));
    }
    batch.send(socket, memory, |_, _, _| {});
}
