//! Rounds of a worker on real sockets.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::{ClientConfig, ClientConnection};

use super::*;
use crate::addr::{PeerAddr, Transport};
use crate::auth::NonceKeys;
use crate::client::{Answer, Client, Credential, Event, Request};
use crate::config::{Config, Host, Overrides, OwnAddresses, Source, Surroundings};
use crate::counters::Counters;
use crate::net::sys::{
    Descriptors, Outward, SendOptions, kernel_drops, raise_open_files, read_error_queue, send_pieces, send_to,
};
use crate::net::{RelayPorts, Span, bind_tcp_listener, bind_udp_listener};
use crate::stream::{ConnectionLimits, tls_configs};
use crate::turn::OwnSender;
use crate::turn::{AllocationFilter, RelayId, Shared};
use crate::worker::mailbox::{Between, HandoverBatch};
use crate::worker::peak::SLOTS_MIN;
use crate::worker::{Command, Mailbox, Reservations, WorkerContext, WorkerListener};

const CHANNEL: u16 = 0x4000;
/// The most that a round may count for: the bounds above, one source's share over each, and a listener's datagrams.
const ROUND_MAX: u32 = FRESH_MESSAGES + 4 * LISTED_MESSAGES + 5 * 64 + 64 * 9;

/// A worker that is driven round by round, with a listener for datagrams and one for streams on loopback.
pub(in crate::worker::run) struct Driven {
    pub(in crate::worker::run) worker: Worker,
    events: Events,
    listener: SocketAddr,
    streams: SocketAddr,
    encrypted: SocketAddr,
    trusting: Arc<ClientConfig>,
    counters: Arc<Counters>,
    pub(in crate::worker::run) mailbox: Arc<Mailbox>,
}

/// An allocation with a channel to a peer, and both ends.
pub(in crate::worker::run) struct Call {
    client: UdpSocket,
    peer: UdpSocket,
    relayed: SocketAddr,
}

impl Driven {
    pub(in crate::worker::run) fn new() -> Self {
        let source = Source {
            text: "[relay]\nports = \"20000-29999\"\n[limits]\nunauthenticated-replies-per-second = \"unlimited\"\n\
                   [quota]\nallocations-per-user-burst = 10000\n\
                   [[auth.users]]\nname = \"ann\"\npassword-env = \"PASSWORD\"\n"
                .to_owned(),
            ..Source::absent("none")
        };
        let env = |name: &str| (name == "PASSWORD").then(|| "wonderland".to_owned());
        let around =
            Surroundings { host: Host { cores: 1, ipv4: None, ipv6: None, has_ipv6: false }, env: &env, dev: true };
        let config = Config::parse(&source, &Overrides::default(), &around).unwrap().config;
        let own = OwnAddresses::default();
        let settings = config.settings(Arc::new(NonceKeys::new([7; 32], 3600)), own).unwrap();
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let (tls, trusting) = tls_configs();
        // What a test sends to a relay that is gone must not arrive at the one that another test has on its port.
        static DRIVEN: AtomicU8 = AtomicU8::new(1);
        let loopback = IpAddr::from([127, 78, 0, DRIVEN.fetch_add(1, Ordering::Relaxed)]);
        let context = WorkerContext {
            settings: Arc::new(settings),
            shared: Shared::default(),
            relay_ports: RelayPorts::new(&[(loopback, loopback)], (20_000, 29_999)),
            reservations: Arc::new(Reservations::new(10)),
            whereabouts: Arc::default(),
            shortages: Arc::default(),
            connection_limits: ConnectionLimits::new(1000, None, None),
            tls: Arc::new(ArcSwapOption::new(Some(tls))),
            dtls: Arc::default(),
            streams: config.streams,
            mailboxes: vec![Arc::clone(&mailbox)],
            descriptors: Descriptors::share_out(1 << 16, 0, 1000, 1000, Outward::default()),
            hook: None,
            leases: None,
            events: None,
            usage: None,
            loopback_peers: true,
            relay_choice: config.relay.choice,
            shared_ports: config.relay.shared,
            gso: false,
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let bound = [
            (Transport::Udp, bind_udp_listener(any)),
            (Transport::Tcp, bind_tcp_listener(any)),
            (Transport::Tls, bind_tcp_listener(any)),
        ];
        let listeners = bound.map(|(transport, socket)| {
            let socket = socket.unwrap();
            let address = socket2::SockRef::from(&socket).local_addr().unwrap().as_socket().unwrap();
            WorkerListener { transports: vec![transport], address, socket, options: Arc::default() }
        });
        let [listener, streams, encrypted] = [0, 1, 2].map(|number: usize| listeners[number].address);
        let counters = Arc::new(Counters::default());
        let worker = Worker::new(0, listeners.into(), Arc::clone(&counters), context).unwrap();
        Self { worker, events: Events::new(256), listener, streams, encrypted, trusting, counters, mailbox }
    }

    /// One round, which must have something to do; returns what it counts for.
    pub(in crate::worker::run) fn round(&mut self) -> u32 {
        self.worker.round(&mut self.events).unwrap();
        assert!(self.worker.pace.spent() <= ROUND_MAX, "{} in one round", self.worker.pace.spent());
        self.worker.pace.spent()
    }

    /// Rounds until the worker would sleep.
    fn settle(&mut self) {
        while self.worker.has_backlog() {
            self.round();
        }
    }

    pub(in crate::worker::run) fn call(&mut self) -> Call {
        self.call_from("127.0.0.1")
    }

    fn call_from(&mut self, client: &str) -> Call {
        let [client, peer] = [client, "127.0.0.1"].map(|ip| UdpSocket::bind((ip, 0)).unwrap());
        client.connect(self.listener).unwrap();
        client.set_nonblocking(true).unwrap();
        let credential =
            Credential { username: "ann".to_owned(), password: "wonderland".to_owned().into(), sha256: false };
        let mut turn = Client::new(Some(Arc::new(credential)), [7; 16]);
        let mut ask = |request| {
            let (mut out, mut buffer) = (Vec::new(), [0; 2048]);
            turn.start(request, &mut out);
            loop {
                client.send(&out).unwrap();
                let len = loop {
                    self.worker.round(&mut self.events).unwrap();
                    if let Ok(len) = client.recv(&mut buffer) {
                        break len;
                    }
                };
                out.clear();
                if let Event::Done(answer) = turn.receive(&buffer[..len], &mut out).unwrap() {
                    return answer;
                }
            }
        };
        let allocated = ask(Request::Allocate { family: None, lifetime_secs: None });
        let Answer::Allocated { relayed, .. } = allocated else { panic!("{allocated:?}") };
        ask(Request::ChannelBind { channel: CHANNEL, peer: peer.local_addr().unwrap() });
        Call { client, peer, relayed }
    }

    fn relayed(&self) -> u64 {
        self.counters.payload.packets()
    }
}

#[test]
fn floods_on_many_relays_are_worked_off_in_rounds_and_keep_nobody_else_waiting() {
    let mut driven = Driven::new();
    let calls: Vec<Call> = (0..24).map(|_| driven.call()).collect();
    let quiet = driven.call();
    for call in &calls {
        for _ in 0..100 {
            call.peer.send_to(b"flood", call.relayed).unwrap();
        }
    }
    let mut rounds = 0;
    let mut buffer = [0; 2048];
    driven.round();
    assert!(driven.worker.has_backlog(), "2400 messages are more than a round");
    while driven.worker.has_backlog() {
        // Whoever has little to send has his turn in the very next round, datagrams of clients and of peers alike.
        quiet.client.send(&[0x40, 0, 0, 1, 7]).unwrap();
        quiet.peer.send_to(b"voice", quiet.relayed).unwrap();
        driven.round();
        quiet.peer.set_nonblocking(true).unwrap();
        assert_eq!(quiet.peer.recv(&mut buffer).unwrap(), 1, "round {rounds}");
        assert_eq!(quiet.client.recv(&mut buffer).unwrap(), 9, "round {rounds}");
        rounds += 1;
    }
    assert!(rounds >= 3, "{rounds}");
    let kernel = driven.counters.relay_drops.get();
    assert_eq!(driven.relayed() + kernel, 2400 + 2 * rounds, "nothing is lost by waiting");
}

#[test]
fn connections_that_pipeline_requests_have_a_part_of_each_round_each_in_turn() {
    const REQUESTS: usize = 150;
    let mut driven = Driven::new();
    let quiet = driven.call();
    let mut streams: Vec<_> = (0..10).map(|_| TcpStream::connect(driven.streams).unwrap()).collect();
    while driven.counters.connections.get() < 10 {
        driven.round();
    }
    for stream in &mut streams {
        stream.set_nonblocking(true).unwrap();
        stream.write_all(&b"\0\x01\0\0\x21\x12\xa4\x42transaction.".repeat(REQUESTS)).unwrap();
    }
    let mut answers = [0; 10];
    let mut buffer = [0; 65_536];
    let mut rounds = 0;
    driven.round();
    while driven.worker.has_backlog() {
        quiet.client.send(&[0x40, 0, 0, 1, 7]).unwrap();
        driven.round();
        quiet.peer.set_nonblocking(true).unwrap();
        assert_eq!(quiet.peer.recv(&mut buffer).unwrap(), 1, "round {rounds}");
        for (stream, answers) in streams.iter_mut().zip(&mut answers) {
            *answers += stream.read(&mut buffer).unwrap_or(0) / 32;
        }
        let (least, most) = (answers.iter().min().unwrap(), answers.iter().max().unwrap());
        assert!(most - least <= 16, "{answers:?} after {rounds} rounds");
        rounds += 1;
    }
    assert_eq!(answers, [REQUESTS; 10]);
    assert!(rounds >= 10 * REQUESTS as u32 * 9 / (LISTED_MESSAGES + 64) - 1, "{rounds}");
}

#[test]
fn a_connection_over_tls_is_served_when_it_has_arrived_and_what_is_no_handshake_is_counted() {
    let mut driven = Driven::new();
    let mut socket = TcpStream::connect(driven.encrypted).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut client = ClientConnection::new(Arc::clone(&driven.trusting), "localhost".try_into().unwrap()).unwrap();
    // Leaves with the end of the handshake.
    client.writer().write_all(b"\0\x01\0\0\x21\x12\xa4\x42transaction.").unwrap();
    let mut answer = Vec::new();
    while answer.len() < 32 {
        while client.wants_write() {
            client.write_tls(&mut socket).unwrap();
        }
        match client.read_tls(&mut socket) {
            Ok(count) => assert!(count > 0, "closed"),
            Err(_) => {
                driven.round();
            }
        }
        client.process_new_packets().unwrap();
        let _ = client.reader().read_to_end(&mut answer);
    }
    assert_eq!(answer[..2], [1, 1], "{answer:?}");
    let mut socket = TcpStream::connect(driven.encrypted).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut alert = [0; 100];
    while socket.read(&mut alert).is_err() {
        driven.round();
    }
    assert_eq!(alert[0], 21);
    assert_eq!((driven.counters.tls_failures.get(), driven.counters.connections.get()), (1, 1));
}

#[test]
fn strangers_whose_connections_are_always_readable_keep_no_datagram_waiting() {
    let mut driven = Driven::new();
    let quiet = driven.call();
    quiet.peer.set_nonblocking(true).unwrap();
    let mut streams = Vec::new();
    // More than one wait can bring.
    for open in 1..=600 {
        streams.push(TcpStream::connect(driven.streams).unwrap());
        while driven.counters.connections.get() < open {
            driven.round();
        }
    }
    for stream in &mut streams {
        stream.write_all(&b"\0\x01\0\0\x21\x12\xa4\x42transaction.".repeat(20)).unwrap();
    }
    let mut buffer = [0; 2048];
    let mut rounds = 0;
    driven.round();
    while driven.worker.has_backlog() {
        quiet.client.send(&[0x40, 0, 0, 1, 7]).unwrap();
        quiet.peer.send_to(b"voice", quiet.relayed).unwrap();
        driven.round();
        assert_eq!(quiet.peer.recv(&mut buffer).unwrap(), 1, "round {rounds}");
        assert_eq!(quiet.client.recv(&mut buffer).unwrap(), 9, "round {rounds}");
        rounds += 1;
    }
    assert!(rounds >= 100, "{rounds}");
    for stream in &mut streams {
        let mut answers = [0; 20 * 32];
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_exact(&mut answers).unwrap();
    }
}

#[test]
fn icmp_errors_without_end_keep_no_datagram_of_their_relay_waiting() {
    let mut driven = Driven::new();
    let Call { client, peer, relayed } = driven.call();
    // Its port is nobody else's, but takes nothing from the relay any more.
    peer.connect(client.local_addr().unwrap()).unwrap();
    for _ in 0..40 {
        client.send(&[0x40, 0, 0, 1, 7]).unwrap();
    }
    while driven.relayed() < 40 {
        driven.round();
    }
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.send_to(b"voice", relayed).unwrap();
    driven.round();
    let told = driven.counters.icmp_errors.get();
    assert!((1..20).contains(&told), "{told} errors were told");
    assert_eq!(driven.relayed(), 41, "the datagram waits for all errors to be told");
    driven.settle();
    assert!(driven.counters.icmp_errors.get() > told);
}

#[test]
fn an_icmp_error_that_found_no_room_in_the_queue_keeps_no_datagram_waiting() {
    let mut driven = Driven::new();
    let Call { peer, relayed, .. } = driven.call();
    let owner = driven.worker.relays.owner(relayed).unwrap();
    let id = RelayId { index: owner.index, generation: owner.generation };
    // Small ones last, so that there is no room for an error either.
    let sent = 8000;
    for number in 0..sent {
        peer.send_to(&[7; 1200][..if number < sent / 2 { 1200 } else { 0 }], relayed).unwrap();
    }
    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    elsewhere.connect(peer.local_addr().unwrap()).unwrap();
    let nobody = elsewhere.local_addr().unwrap();
    let socket = driven.worker.relays.get(id).unwrap().reading_fd(false).unwrap();
    send_to(socket, b"voice", nobody).unwrap();
    assert_eq!(read_error_queue(socket), None, "the buffer has room left");
    let lost = u64::from(kernel_drops(socket).unwrap());
    driven.round();
    driven.settle();
    assert_eq!((driven.relayed() + lost, driven.counters.icmp_errors.get()), (sent, 0));
    assert!(lost > 0);
}

#[test]
fn after_a_peak_memory_is_given_back_and_the_calls_that_stay_go_on() {
    raise_open_files();
    let mut driven = Driven::new();
    let before = driven.call();
    let strangers = |driven: &mut Driven| driven.call_from("127.0.0.2");
    let peak: Vec<Call> = (0..40).map(|_| strangers(&mut driven)).collect();
    let amidst = driven.call();
    let after: Vec<Call> = (0..SLOTS_MIN).map(|_| strangers(&mut driven)).collect();
    assert_eq!(driven.worker.relays.slots(), 42 + SLOTS_MIN);
    for call in after.iter().rev().chain(&peak) {
        let gone = AllocationFilter { relayed: Some(call.relayed), ..AllocationFilter::default() };
        driven.mailbox.send(Command::Kick(gone, None, Box::new(|_| {})));
    }
    while driven.counters.allocations.get() > 2 {
        driven.round();
    }
    let slots = driven.worker.relays.slots();
    assert!((42..SLOTS_MIN / 3).contains(&slots), "{slots} slots are left");
    let next = driven.call();
    // What still comes for those that are gone finds nobody; the next one may have a port of theirs.
    for call in peak.iter().chain(&after).filter(|call| call.relayed != next.relayed) {
        call.peer.send_to(b"late", call.relayed).unwrap();
        call.client.send(&[0x40, 0, 0, 1, 7]).unwrap();
    }
    let mut buffer = [0; 64];
    for call in [before, amidst, next] {
        call.client.send(&[0x40, 0, 0, 1, 7]).unwrap();
        call.peer.send_to(b"voice", call.relayed).unwrap();
        call.peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let relayed = driven.relayed();
        while driven.relayed() < relayed + 2 {
            driven.round();
        }
        assert_eq!((call.peer.recv(&mut buffer).unwrap(), call.client.recv(&mut buffer).unwrap()), (1, 9));
    }
}

#[test]
fn what_finds_no_room_in_a_mailbox_is_counted() {
    let mut driven = Driven::new();
    let call = driven.call();
    let between = between(&call);
    for _ in 0..20_000 {
        let _ = driven.worker.mail.add(0, between, 0, b"");
    }
    call.client.send(&[0x40, 0, 0, 1, 7]).unwrap();
    driven.round();
    let lost = driven.counters.mailbox_drops.get();
    assert!((1..20_000).contains(&lost), "{lost}");
    driven.round();
    driven.settle();
    assert_eq!(driven.relayed() + lost, 1 + 20_000);
}

/// From the peer of a call, as if it were a relay of another worker.
fn between(call: &Call) -> Between {
    let from = PeerAddr::new(call.peer.local_addr().unwrap()).unwrap();
    let relay = RelayId { index: 0, generation: 0 };
    Between { from, sender: OwnSender { worker: Some(1), relay }, to: call.relayed }
}

#[test]
fn what_another_worker_hands_over_is_worked_off_in_slices() {
    let mut driven = Driven::new();
    let call = driven.call();
    let between = between(&call);
    let mut batch = HandoverBatch::default();
    for _ in 0..3000 {
        batch.push(between, 0, b"");
    }
    assert_eq!(driven.mailbox.hand_over(&mut batch), 0);
    let mut rounds = 0;
    loop {
        driven.round();
        rounds += 1;
        if !driven.worker.has_backlog() {
            break;
        }
    }
    assert!(rounds >= 3000 / LISTED_MESSAGES, "{rounds}");
    assert_eq!(driven.relayed(), 3000);
    batch.push(between, 0, b"later");
    driven.mailbox.hand_over(&mut batch);
    driven.round();
    driven.settle();
    assert_eq!(driven.relayed(), 3001, "the mailbox wakes the worker again");
}

#[test]
fn trains_of_coalesced_datagrams_count_for_what_is_in_them() {
    let mut driven = Driven::new();
    let call = driven.call();
    // Each send is one train of 50 datagrams of 20 bytes.
    let message = [&[0x40, 0, 0, 16][..], &[7; 16]].concat().repeat(50);
    let to = driven.listener;
    let options = SendOptions { to, connected: true, from_ip: None, segment_len: Some(20), tos: 0 };
    // The first read cannot know what comes; from then on few trains are asked for.
    let mut most = Vec::new();
    for (trains, wanted) in [(4, 200), (40, 2200)] {
        for _ in 0..trains {
            send_pieces(call.client.as_fd(), &message, &[Span { at: 0, len: 1000 }], &options).unwrap();
        }
        while driven.relayed() < wanted {
            let before = driven.relayed();
            driven.worker.round(&mut driven.events).unwrap();
            most.push(driven.relayed() - before);
        }
    }
    assert!(most.iter().all(|messages| *messages <= 550), "{most:?}");
}
