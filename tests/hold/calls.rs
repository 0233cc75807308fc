//! Honest calls: 50 packets a second to a peer that echoes, numbered and timed.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use turnstone::client::{Answer, Request};

use crate::client::{Client, Target};
use crate::measure::kernel_drops_at;
use crate::support::{EchoPeer, Transport};

const CHANNEL: u16 = 0x4000;
const INTERVAL: Duration = Duration::from_millis(20);
/// An audio packet.
const PAYLOAD: usize = 160;
/// Bindings and allocations are refreshed so often.
const REFRESH: Duration = Duration::from_secs(60);
/// How long the last packets of a call have to come back.
const LINGER: Duration = Duration::from_secs(3);
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
pub(crate) const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

/// What became of all calls.
pub(crate) struct Calls {
    calls: Vec<Call>,
    /// Datagrams that the kernel dropped at sockets of clients and peers.
    pub(crate) drops_here: u64,
}

struct Call {
    transport: Transport,
    sent: u64,
    received: u64,
    /// Packets that came twice, or that nobody had sent.
    strange: u64,
    round_trips_micros: Vec<u32>,
    drops: u64,
}

/// Calls that are up and silent.
pub(crate) struct Begun {
    clients: Vec<(Transport, Client, Request)>,
    peers: [EchoPeer; 3],
}

/// A few calls that end again.
pub(crate) fn warm_up(target: &Target) {
    begin(target, 12).hold(Duration::from_secs(2));
}

/// So many calls.
pub(crate) fn begin(target: &Target, count: usize) -> Begun {
    let peers = TRANSPORTS.map(|_| EchoPeer::start("127.0.0.1"));
    let clients = (0..count).map(|number| {
        let (transport, peer) = (TRANSPORTS[number % 3], &peers[number % 3]);
        let mut client = Client::connect(target, transport, &format!("honest-{number}"), HONEST).unwrap();
        client.allocate().unwrap().unwrap();
        let bind = Request::ChannelBind { channel: CHANNEL, peer: peer.address() };
        assert_eq!(client.ask(bind).unwrap(), Ok(Answer::Granted));
        (transport, client, bind)
    });
    Begun { clients: clients.collect(), peers }
}

impl Begun {
    /// Holds them all for so long.
    pub(crate) fn hold(self, time: Duration) -> Calls {
        let Begun { clients, peers } = self;
        let calls: Vec<Call> = std::thread::scope(|scope| {
            let calls: Vec<_> = clients
                .into_iter()
                .map(|(transport, client, bind)| scope.spawn(move || Call::hold(transport, client, bind, time)))
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let at_peers: u64 = peers.iter().map(|peer| kernel_drops_at(peer.address().port())).sum();
        let drops_here = at_peers + calls.iter().map(|call| call.drops).sum::<u64>();
        Calls { calls, drops_here }
    }
}

impl Call {
    fn hold(transport: Transport, mut client: Client, bind: Request, time: Duration) -> Call {
        let start = Instant::now();
        let mut call = Call { transport, sent: 0, received: 0, strange: 0, round_trips_micros: Vec::new(), drops: 0 };
        let mut seen = Vec::new();
        let (mut next, mut refresh) = (start, start + REFRESH);
        let (end, linger) = (start + time, start + time + LINGER);
        loop {
            let now = Instant::now();
            if now >= linger || (now >= end && call.received == call.sent) {
                break;
            }
            if now >= next && now < end {
                let micros = start.elapsed().as_micros() as u64;
                let mut payload = [7; PAYLOAD];
                payload[..8].copy_from_slice(&call.sent.to_be_bytes());
                payload[8..16].copy_from_slice(&micros.to_be_bytes());
                client.send_on(CHANNEL, &payload).unwrap();
                call.sent += 1;
                seen.push(false);
                next += INTERVAL;
            }
            if now >= refresh {
                refresh += REFRESH;
                client.start(bind).unwrap();
            }
            let until = if next < end { next } else { linger };
            let frame = client.receive(until).unwrap_or_else(|error| {
                panic!("a call over {}, after {:?}: {error}", transport.name(), start.elapsed())
            });
            let Some(frame) = frame else { continue };
            if frame[0] < 0x40 {
                client.hear(&frame).unwrap();
                continue;
            }
            let sent_at = u64::from_be_bytes(frame[12..20].try_into().unwrap());
            let number = u64::from_be_bytes(frame[4..12].try_into().unwrap());
            match seen.get_mut(number as usize) {
                Some(seen) if !*seen && frame.len() == 4 + PAYLOAD => {
                    *seen = true;
                    call.received += 1;
                    call.round_trips_micros.push((start.elapsed().as_micros() as u64 - sent_at) as u32);
                }
                _ => call.strange += 1,
            }
        }
        if transport == Transport::Udp {
            call.drops = kernel_drops_at(client.local_port());
        }
        let _ = client.ask(Request::Refresh { lifetime_secs: 0 });
        call
    }
}

impl Calls {
    /// Nothing is lost that the kernel did not drop.
    pub(crate) fn assert_nothing_lost_but(&self, drops: u64) {
        let (mut lost, mut strange) = (0, 0);
        for call in &self.calls {
            lost += call.sent - call.received;
            strange += call.strange;
            assert!(call.received > 0, "a call over {} was silent", call.transport.name());
        }
        assert_eq!(strange, 0, "packets that nobody had sent, or that came twice");
        assert!(lost <= drops, "{lost} packets lost, {drops} dropped by the kernel");
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls:", self.calls.len())?;
        for transport in TRANSPORTS {
            let of = || self.calls.iter().filter(move |call| call.transport == transport);
            let (sent, received) =
                of().fold((0, 0), |(sent, received), call| (sent + call.sent, received + call.received));
            let mut times: Vec<u32> = of().flat_map(|call| call.round_trips_micros.iter().copied()).collect();
            times.sort_unstable();
            let at = |share: f64| {
                let index = (times.len() as f64 * share) as usize;
                f64::from(times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or(0)) / 1000.0
            };
            write!(
                f,
                "\n  {}: {received} of {sent} came back; round trip in ms: median {:.1}, p99 {:.1}, worst {:.1}",
                transport.name(),
                at(0.5),
                at(0.99),
                at(1.0)
            )?;
        }
        Ok(())
    }
}
