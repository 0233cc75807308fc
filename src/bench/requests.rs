//! Requests that need no allocation: Binding, and Allocate without credentials.

use std::net::SocketAddr;

use crate::stun::{AttributeType, Class, Encoder, ErrorCode, Message, Method, TransactionId};

use super::error::BenchError;
use super::leg::Dial;
use super::measure::Run;
use super::options::{Mode, Options};
use super::poll::Poll;
use super::relay::open_legs;
use super::stats::{Arrival, Sequence};
use crate::addr::Framing;
use crate::net::sys::{RecvBuffers, SendBuffers};

/// Where the transaction id is in a message.
const ID: std::ops::Range<usize> = 8..20;
/// The send time in a transaction id counts in units of 64 ns and comes round after 275 s.
const TIME_SHIFT: u32 = 6;

/// Sends requests until the measurement is over, and checks every answer.
///
/// # Errors
/// Of the sockets.
pub(super) fn run(options: &Options, dial: &Dial, run: &mut Run<'_>) -> Result<(), BenchError> {
    let mut legs = open_legs(options, dial)?;
    let mut flows: Vec<Flow> = legs.iter().map(|_| Flow::default()).collect();
    let mut epoll = Poll::new().map_err(BenchError::io("epoll"))?;
    for (index, leg) in legs.iter().enumerate() {
        epoll.add(leg, index as u64).map_err(BenchError::io("epoll"))?;
    }
    let template = template(options.mode);
    let (mut inbox, mut outbox) = (RecvBuffers::new(options.gro), SendBuffers::new());
    let (mut cursor, mut stream_frames) = (0, Vec::new());
    loop {
        let now_ns = run.clock.now_ns();
        if !run.advance(now_ns)? {
            return Ok(());
        }
        if std::mem::take(&mut run.forgive) {
            flows.iter_mut().for_each(|flow| flow.credited = flow.next);
        }
        let burst = u64::from(options.burst);
        let mut budget = run.budget(now_ns);
        while budget >= burst {
            let (Some(leg), Some(flow)) = (legs.get_mut(cursor), flows.get_mut(cursor)) else { break };
            let now_ns = run.clock.now_ns();
            stream_frames.clear();
            for _ in 0..burst {
                let id = flow.next_id(cursor, now_ns);
                let write = |out: &mut Vec<u8>| {
                    let start = out.len();
                    out.extend_from_slice(&template);
                    if let Some(slot) = out.get_mut(start + ID.start..start + ID.end) {
                        slot.copy_from_slice(&id);
                    }
                };
                if leg.framing() == Framing::Stream {
                    write(&mut stream_frames);
                    continue;
                }
                if outbox.is_full() {
                    outbox.flush(leg).map_err(BenchError::io("sending"))?;
                }
                outbox.push(None, None, write);
            }
            match leg.framing() {
                Framing::Stream => leg.send(&stream_frames).map_err(BenchError::io("sending"))?,
                Framing::Datagrams => outbox.flush(leg).map_err(BenchError::io("sending"))?,
            }
            run.sent(burst);
            budget -= burst;
            cursor = (cursor + 1) % legs.len().max(1);
        }
        let ready = run.wait(&mut epoll, now_ns, true).map_err(BenchError::io("epoll"))?;
        for index in (0..ready).filter_map(|i| epoll.ready(i)) {
            let index = index as usize;
            let (Some(leg), Some(flow)) = (legs.get_mut(index), flows.get_mut(index)) else { continue };
            leg.flush().map_err(BenchError::io("sending"))?;
            let now_ns = run.clock.now_ns();
            leg.recv(&mut inbox, |bytes| flow.judge(run, options.mode, index, bytes, now_ns))
                .map_err(BenchError::io("receiving"))?;
        }
    }
}

/// One client's requests.
#[derive(Default)]
struct Flow {
    next: u64,
    arrivals: Sequence,
    credited: u64,
    /// The client's address as the server first saw it; it must stay the same.
    mapped: Option<SocketAddr>,
}

impl Flow {
    /// A transaction id that says whose the request is, its number and when it was sent.
    fn next_id(&mut self, flow: usize, now_ns: u64) -> [u8; 12] {
        let number = self.next;
        self.next += 1;
        let [f0, f1, f2, f3] = (flow as u32).to_be_bytes();
        let [n0, n1, n2, n3] = (number as u32).to_be_bytes();
        let [t0, t1, t2, t3] = ((now_ns >> TIME_SHIFT) as u32).to_be_bytes();
        [f0, f1, f2, f3, n0, n1, n2, n3, t0, t1, t2, t3]
    }

    fn judge(&mut self, run: &mut Run<'_>, mode: Mode, index: usize, bytes: &[u8], now_ns: u64) {
        let Ok(message) = Message::parse(bytes) else {
            run.counts.damaged += 1;
            return;
        };
        let TransactionId([f0, f1, f2, f3, n0, n1, n2, n3, t0, t1, t2, t3]) = message.transaction_id();
        if u32::from_be_bytes([f0, f1, f2, f3]) as usize != index {
            run.counts.misrouted += 1;
            return;
        }
        if !self.is_right(mode, &message) {
            run.refused(|| {
                let code = message.error_code().map_or(String::new(), |code| format!(" {code}"));
                format!("answered by {:?}{code}", message.class())
            });
        }
        let sent = u32::from_be_bytes([t0, t1, t2, t3]);
        let age = ((now_ns >> TIME_SHIFT) as u32).wrapping_sub(sent);
        let sent_ns = now_ns.saturating_sub(u64::from(age) << TIME_SHIFT);
        // The wire has the low half of the number; the request is one of the last four billion.
        let back = (self.next as u32).wrapping_sub(u32::from_be_bytes([n0, n1, n2, n3]));
        let Some(number) = self.next.checked_sub(u64::from(back)) else {
            run.counts.damaged += 1;
            return;
        };
        let credits = (number + 1).saturating_sub(self.credited);
        self.credited += credits;
        let arrival: Arrival = self.arrivals.arrive(number);
        run.arrived(arrival, sent_ns, now_ns, credits);
    }

    fn is_right(&mut self, mode: Mode, message: &Message<'_>) -> bool {
        if mode == Mode::Stun {
            let mapped = message.xor_address(AttributeType::XOR_MAPPED_ADDRESS);
            let same = mapped.is_some() && self.mapped.is_none_or(|first| Some(first) == mapped);
            self.mapped = self.mapped.or(mapped);
            return same && message.class() == Class::Success && message.method() == Method::BINDING;
        }
        let challenge = message.get(AttributeType::REALM).is_some() && message.get(AttributeType::NONCE).is_some();
        challenge && message.error_code() == Some(ErrorCode::UNAUTHENTICATED) && message.method() == Method::ALLOCATE
    }
}

fn template(mode: Mode) -> Vec<u8> {
    let mut out = Vec::new();
    let zero = TransactionId([0; 12]);
    match mode {
        Mode::Flood => {
            Encoder::new(&mut out, Class::Request, Method::ALLOCATE, zero)
                .u32(AttributeType::REQUESTED_TRANSPORT, 17 << 24);
        }
        _ => {
            Encoder::new(&mut out, Class::Request, Method::BINDING, zero);
        }
    }
    out
}
