//! Any sequence of inputs: no panic, the books agree, everything comes back, strangers get bounded answers.

use proptest::prelude::*;
use turnstone::addr::{Family, Transport};
use turnstone::policy::{BandwidthLimits, QuotaLimits, RateLimit};
use turnstone::stun::{AttributeType, Class, Method};
use turnstone::turn::{
    AllocationFilter, DatagramPath, Encapsulation, EndReason, Event, OnExpiry, Path, ToClient, ToPeer,
};

use crate::harness::*;

const CLIENTS: usize = 4;
/// The peer that stands for a port of this host.
const HOST: u8 = 200;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Allocate {
        client: usize,
        attributes: Vec<(usize, Vec<u8>)>,
    },
    Refresh {
        client: usize,
        lifetime: Option<u32>,
        family: Option<u8>,
    },
    Permit {
        client: usize,
        peers: Vec<u8>,
        ipv6: bool,
    },
    Bind {
        client: usize,
        channel: u16,
        peer: u8,
        ipv6: bool,
    },
    /// An allocation with so many peers that they are no longer looked up one by one.
    Settle {
        client: usize,
    },
    /// A release, and another allocation.
    Cycle {
        client: usize,
    },
    /// Data in one of the channels that settled clients have.
    Burst {
        client: usize,
        channel: u16,
        packets: usize,
    },
    /// Data to a port of this host, which is denied though its address has a permission.
    SendToHost {
        client: usize,
    },
    Send {
        client: usize,
        peer: u8,
    },
    ChannelData {
        client: usize,
        bytes: Vec<u8>,
    },
    FromPeer {
        relay: usize,
        peer: u8,
    },
    Icmp {
        relay: usize,
        peer: u8,
        kind: u8,
    },
    Repeat {
        back: usize,
    },
    Mutate {
        at: usize,
        with: u8,
    },
    Raw {
        client: usize,
        bytes: Vec<u8>,
    },
    Gone {
        client: usize,
    },
    Kick {
        client: usize,
    },
    Pass {
        secs: u64,
        attended: bool,
    },
    Reload {
        deny: bool,
        expiry: u8,
        max_peers: usize,
    },
    PortsRunOut {
        left: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let attribute = (0..6usize, prop::collection::vec(prop_oneof![Just(0), Just(1), Just(2), any::<u8>()], 0..9));
    prop_oneof![
        4 => (client.clone(), prop::collection::vec(attribute, 0..3))
            .prop_map(|(client, attributes)| Step::Allocate { client, attributes }),
        3 => (client.clone(), prop::option::of(prop_oneof![Just(0), any::<u32>()]), prop::option::of(0..4u8))
            .prop_map(|(client, lifetime, family)| Step::Refresh { client, lifetime, family }),
        3 => (client.clone(), prop::collection::vec(0..30u8, 0..12), any::<bool>())
            .prop_map(|(client, peers, ipv6)| Step::Permit { client, peers, ipv6 }),
        3 => (client.clone(), 0x3FFE..0x4010u16, 0..20u8, any::<bool>())
            .prop_map(|(client, channel, peer, ipv6)| Step::Bind { client, channel, peer, ipv6 }),
        3 => client.clone().prop_map(|client| Step::Settle { client }),
        1 => client.clone().prop_map(|client| Step::Cycle { client }),
        3 => (client.clone(), 0x4000..0x400Cu16, prop_oneof![3 => Just(1usize), 1 => Just(140)])
            .prop_map(|(client, channel, packets)| Step::Burst { client, channel, packets }),
        2 => client.clone().prop_map(|client| Step::SendToHost { client }),
        2 => (client.clone(), 0..20u8).prop_map(|(client, peer)| Step::Send { client, peer }),
        2 => (client.clone(), prop::collection::vec(prop_oneof![Just(0x40), Just(0), any::<u8>()], 0..40))
            .prop_map(|(client, bytes)| Step::ChannelData { client, bytes }),
        2 => (0..8usize, 0..20u8).prop_map(|(relay, peer)| Step::FromPeer { relay, peer }),
        1 => (0..8usize, 0..20u8, 0..13u8).prop_map(|(relay, peer, kind)| Step::Icmp { relay, peer, kind }),
        2 => (0..4usize).prop_map(|back| Step::Repeat { back }),
        3 => (0..200usize, any::<u8>()).prop_map(|(at, with)| Step::Mutate { at, with }),
        1 => (client.clone(), prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(client, bytes)| Step::Raw { client, bytes }),
        1 => client.clone().prop_map(|client| Step::Gone { client }),
        1 => client.prop_map(|client| Step::Kick { client }),
        3 => (prop_oneof![0..5u64, 0..700u64, 0..8000u64], any::<bool>())
            .prop_map(|(secs, attended)| Step::Pass { secs, attended }),
        1 => (any::<bool>(), 0..3u8, 0..30usize)
            .prop_map(|(deny, expiry, max_peers)| Step::Reload { deny, expiry, max_peers }),
        1 => (0..6usize).prop_map(|left| Step::PortsRunOut { left }),
    ]
}

/// A world with clients whose nonces are renewed as they go stale.
struct Play {
    world: World,
    logins: Vec<Login>,
    /// The server that each client's packets come to, where there are two.
    homes: [usize; CLIENTS],
    /// The requests so far: who sent them, and their bytes.
    sent: Vec<(usize, Vec<u8>)>,
    allocated: usize,
    ended: usize,
    /// What the outside has seen since the last step, ids aside.
    seen: Vec<String>,
}

impl Play {
    fn new() -> Self {
        let mut world = World::with(|options| {
            options.max_peers = 12;
            options.quota = QuotaLimits { per_user: Some(2), total: Some(3), ..QuotaLimits::default() };
            options.bandwidth =
                BandwidthLimits { per_allocation: Some(10_000), per_user: Some(100_000), ..BandwidthLimits::default() };
        });
        let logins = vec![
            world.alice(client(0)),
            world.alice(client_over(Transport::Tcp, 1)).with_sha256(),
            world.guest(client(2), "carol", 1000),
            world.login(client(3), "bob", "builder"),
        ];
        Self { world, logins, homes: [0; CLIENTS], sent: Vec::new(), allocated: 0, ended: 0, seen: Vec::new() }
    }

    fn peer(n: u8, ipv6: bool) -> turnstone::addr::PeerAddr {
        match ipv6 {
            true => peer6(u16::from(n)),
            false if n == HOST => peer_at(format!("{RELAY_V4}:22").parse().unwrap()),
            false => peer(n),
        }
    }

    fn relay(&self, n: usize) -> Option<turnstone::turn::RelayId> {
        let mut all: Vec<_> = self.world.relays.open.iter().map(|(id, relayed)| (relayed.get(), *id)).collect();
        all.sort_unstable();
        all.get(n % all.len().max(1)).map(|(_, id)| *id)
    }

    /// Makes it the turn of the server that this client's packets come to.
    fn turn_to(&mut self, client: usize) -> turnstone::turn::Client {
        if self.world.relays.side != self.homes[client] {
            self.world.other_side();
        }
        self.logins[client].client
    }

    fn turn_to_relay(&mut self, relay: turnstone::turn::RelayId) {
        if self.world.relays.sides[&relay] != self.world.relays.side {
            self.world.other_side();
        }
    }

    /// Moves a client's allocation to the other server, as a whole or as to another process. Its packets come by another path there.
    fn change_sides(&mut self, client: usize, as_parts: bool) {
        let mut moved = self.turn_to(client);
        let ip = Some(moved.five_tuple.client.get().ip());
        let filter = AllocationFilter { client: ip, ..AllocationFilter::default() };
        let Some(view) = self.world.list(&filter, None, 1).pop() else { return };
        let (socket, to) = (1000 + self.sent.len() as u32, moved.five_tuple.client.get());
        moved.path = Path::Datagrams(DatagramPath { socket, to, from_ip: None });
        match as_parts {
            true => self.world.move_as_parts(view.id, moved),
            false => self.world.move_over(view.id, moved),
        }
        self.logins[client].client = moved;
        self.homes[client] = self.world.relays.side;
    }

    /// Hands in what a client has sent.
    fn hand_in(&mut self, client: usize, bytes: &[u8]) -> Answer {
        let sender = self.turn_to(client);
        let answer = self.world.hand_in(sender, bytes);
        self.seen.push(match &answer {
            Answer::Reply(reply) => format!("{:02x?}", reply.bytes),
            Answer::ToPeer(way, data) => format!("{} {data:?}", self.shown(way)),
            Answer::Dropped(dropped) => format!("{dropped:?}"),
            Answer::Waits => "waits".to_owned(),
            Answer::Detour(detour, reply) => format!("{detour:?} {:02x?}", reply.bytes),
            Answer::Binds(..) => panic!("there are no TCP relays"),
        });
        answer
    }

    fn shown(&self, way: &ToPeer) -> String {
        let ToPeer { relay, peer, own_relay, dont_fragment } = way;
        assert_eq!(self.world.relays.sides[relay], self.world.relays.side, "no relay of another server is used");
        format!("{} {peer} {own_relay} {dont_fragment}", self.world.relays.open[relay])
    }

    fn ask(&mut self, client: usize, method: Method, build: impl FnOnce(&mut turnstone::stun::Encoder<'_>)) {
        let id = self.world.transaction_id();
        let request = self.logins[client].request(id, method, build);
        let reply = self.hand_in(client, &request).reply();
        if matches!(reply.code(), Some(438)) {
            self.logins[client].nonce = reply.get(AttributeType::NONCE).unwrap();
        } else if reply.integrity.is_some() {
            assert!(reply.is_signed_by(&self.logins[client]));
        }
        self.sent.push((client, request));
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Allocate { client, attributes } => self.ask(client, Method::ALLOCATE, |request| {
                request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
                for (kind, value) in &attributes {
                    let kind = [
                        AttributeType::LIFETIME,
                        AttributeType::EVEN_PORT,
                        AttributeType::RESERVATION_TOKEN,
                        AttributeType::REQUESTED_ADDRESS_FAMILY,
                        AttributeType::ADDITIONAL_ADDRESS_FAMILY,
                        AttributeType::REQUESTED_TRANSPORT,
                    ][*kind];
                    let mut value = value.clone();
                    if kind == AttributeType::ADDITIONAL_ADDRESS_FAMILY {
                        value = vec![2, 0, 0, 0];
                    }
                    request.attribute(kind, &value);
                }
            }),
            Step::Refresh { client, lifetime, family } => self.ask(client, Method::REFRESH, |request| {
                if let Some(lifetime) = lifetime {
                    request.u32(AttributeType::LIFETIME, lifetime);
                }
                if let Some(family) = family {
                    request.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
                }
            }),
            Step::Permit { client, peers, ipv6 } => self.ask(client, Method::CREATE_PERMISSION, |request| {
                for n in peers {
                    request.xor_address(AttributeType::XOR_PEER_ADDRESS, Self::peer(n, ipv6).get());
                }
            }),
            Step::Bind { client, channel, peer, ipv6 } => self.ask(client, Method::CHANNEL_BIND, |request| {
                request.u32(AttributeType::CHANNEL_NUMBER, u32::from(channel) << 16);
                request.xor_address(AttributeType::XOR_PEER_ADDRESS, Self::peer(peer, ipv6).get());
            }),
            Step::Settle { client } => {
                self.play(Step::Allocate { client, attributes: Vec::new() });
                self.play(Step::Permit { client, peers: vec![11, 12], ipv6: false });
                (0..10).for_each(|n| {
                    self.play(Step::Bind { client, channel: 0x4000 + u16::from(n), peer: n, ipv6: false });
                });
            }
            Step::Cycle { client } => {
                self.play(Step::Refresh { client, lifetime: Some(0), family: None });
                self.play(Step::Allocate { client, attributes: Vec::new() });
            }
            Step::Burst { client, channel, packets } => {
                let mut bytes = channel.to_be_bytes().to_vec();
                bytes.extend_from_slice(&500u16.to_be_bytes());
                bytes.resize(504, 7);
                (0..packets).for_each(|_| self.play(Step::ChannelData { client, bytes: bytes.clone() }));
            }
            Step::SendToHost { client } => {
                self.play(Step::Permit { client, peers: vec![HOST], ipv6: false });
                (0..2).for_each(|_| self.play(Step::Send { client, peer: HOST }));
            }
            Step::Send { client, peer } => {
                let id = self.world.transaction_id();
                let bytes = message(Class::Indication, Method::SEND, id, |indication| {
                    indication.xor_address(AttributeType::XOR_PEER_ADDRESS, Self::peer(peer, false).get());
                    indication.attribute(AttributeType::DATA, &[0; 500]);
                });
                self.hand_in(client, &bytes);
            }
            Step::ChannelData { client, bytes } => {
                let client = self.turn_to(client);
                match self.world.channel_data_raw(&client, &bytes) {
                    Ok((way, range)) => self.seen.push(format!("{} {:?}", self.shown(&way), &bytes[range])),
                    Err(dropped) => self.seen.push(format!("{dropped:?}")),
                }
            }
            Step::FromPeer { relay, peer } => {
                if let Some(relay) = self.relay(relay) {
                    self.turn_to_relay(relay);
                    let family = self.world.relays.open[&relay].family();
                    let way = self.world.inbound(relay, Self::peer(peer, family == Family::V6), 500);
                    self.seen.push(match way {
                        Ok(ToClient { client, encapsulation }) => {
                            assert!(self.logins.iter().any(|login| login.client == client), "by its path of now");
                            match encapsulation {
                                Encapsulation::Channel(number) => format!("{:?} {number}", client.five_tuple),
                                Encapsulation::Data { peer, .. } => format!("{:?} {peer}", client.five_tuple),
                            }
                        }
                        Err(dropped) => format!("{dropped:?}"),
                    });
                }
            }
            Step::Icmp { relay, peer, kind } => {
                if let Some(relay) = self.relay(relay) {
                    self.turn_to_relay(relay);
                    let peer = Self::peer(peer, kind < 4).get();
                    let mut out = Vec::new();
                    let to = self.world.server.handle_icmp(self.world.now, relay, peer, (kind, 1, [1; 4]), &mut out);
                    assert_eq!(to.is_some(), !out.is_empty());
                    self.seen.push(format!("{:?} {}", to.map(|to| to.five_tuple), out.len()));
                }
            }
            Step::Repeat { back } => {
                if let Some((client, request)) = self.sent.iter().rev().nth(back).cloned() {
                    let first = self.hand_in(client, &request).reply();
                    let is_udp = self.logins[client].client.five_tuple.transport == Transport::Udp;
                    if is_udp && first.integrity.is_some() {
                        assert_eq!(self.hand_in(client, &request).reply().code(), first.code());
                    }
                }
            }
            Step::Mutate { at, with } => {
                if let Some((client, mut request)) = self.sent.last().cloned() {
                    let at = at % request.len();
                    request[at] ^= with;
                    let before = self.world.allocations();
                    self.hand_in(client, &request);
                    if at >= 20 && with != 0 {
                        assert!(self.world.allocations() <= before, "a forged request made an allocation");
                    }
                }
            }
            Step::Raw { client, bytes } => {
                self.hand_in(client, &bytes);
            }
            Step::Gone { client } => {
                let five_tuple = self.turn_to(client).five_tuple;
                self.world.server.client_gone(self.world.now, &five_tuple, &mut self.world.relays);
            }
            Step::Kick { client } => {
                let ip = Some(self.logins[client].client.five_tuple.client.get().ip());
                let kicked = self.world.kick(&AllocationFilter { client: ip, ..AllocationFilter::default() }, None);
                self.seen.push(format!("{} kicked", kicked.len()));
            }
            Step::Pass { secs, attended: true } => self.world.pass(secs),
            Step::Pass { secs, attended: false } => self.world.pass_unattended(secs),
            Step::Reload { deny, expiry, max_peers } => self.world.reload(|options| {
                options.rules.denied = if deny { vec!["8.8.8.0-8.8.8.9".to_owned()] } else { Vec::new() };
                options.on_expiry = [OnExpiry::Keep, OnExpiry::NoRefresh, OnExpiry::Cut][usize::from(expiry)];
                options.max_peers = max_peers;
            }),
            Step::PortsRunOut { left } => self.world.relays.ports = (50_000..50_000 + left as u16).collect(),
        }
        self.take_events();
        assert_eq!(self.allocated - self.ended, self.world.allocations());
        assert_eq!(self.world.next_timeout().is_some(), self.world.allocations() > 0);
        self.world.check_books();
    }

    fn take_events(&mut self) {
        let mut shown = Vec::new();
        for event in self.world.events() {
            match event {
                Event::Allocated { five_tuple, username, relayed, .. } => {
                    self.allocated += 1;
                    shown.push(format!("{five_tuple:?} {username} {relayed:?}"));
                }
                Event::Ended(mut summary) => {
                    self.ended += 1;
                    summary.id = "0-0".parse().unwrap();
                    shown.push(format!("{summary:?}"));
                }
                Event::LoopCut { .. } | Event::Suspended { .. } => panic!("nobody looks for that here: {event:?}"),
                Event::Refused(refusal) => shown.push(format!("{refusal:?} {}", refusal.times)),
                Event::Moved { .. } => panic!("no client has asked for a ticket"),
                Event::RouteBound { .. } | Event::RouteGone { .. } => {}
            }
        }
        // What ends at one moment ends in any order.
        shown.sort();
        self.seen.extend(shown);
    }

    /// The allocations as an operator sees them, by their 5-tuples.
    fn views(&mut self) -> Vec<String> {
        let mut views = Vec::new();
        for _ in 0..2 {
            for mut view in self.world.list(&AllocationFilter::default(), None, 100) {
                view.id = "0-0".parse().unwrap();
                views.push(format!("{view:?}"));
            }
            self.world.other_side();
        }
        views.sort();
        views.dedup();
        views
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_keeps_the_books_and_gives_everything_back(
        steps in prop::collection::vec(step(), 1..80),
        shut_down in any::<bool>(),
    ) {
        let mut play = Play::new();
        for step in steps {
            play.play(step);
        }
        if shut_down {
            play.world.server.end_all(play.world.now, EndReason::Shutdown, &mut play.world.relays);
        } else {
            play.world.pass(10_000);
        }
        prop_assert_eq!(play.world.server.allocations(), 0);
        prop_assert_eq!(play.world.relays.open.len(), 0);
        prop_assert_eq!(play.world.shared.quotas.in_use(), 0);
        prop_assert_eq!(play.world.shared.quotas.users(), 0);
        prop_assert_eq!(play.world.server.next_timeout(), None);
        // Reserved ports come back in their time, when somebody asks for a port.
        play.world.pass(31);
        play.world.relays.ports = (50_000..50_200).collect();
        play.world.reload(|options| *options = Options::default());
        play.world.allocated(77);
        prop_assert_eq!(play.world.relays.taken_ports(), 1);
    }

    #[test]
    fn moved_between_servers_at_any_moment_an_allocation_is_what_it_was(
        steps in prop::collection::vec((step(), prop::collection::vec((0..CLIENTS, any::<bool>()), 0..3)), 1..60),
    ) {
        let (mut one, mut two) = (Play::new(), Play::new());
        two.world.split();
        for (step, moves) in steps {
            for (client, as_parts) in moves {
                two.change_sides(client, as_parts);
                two.world.check_books();
            }
            one.play(step.clone());
            two.play(step.clone());
            prop_assert_eq!(&one.seen, &two.seen, "after {:?}", step);
            prop_assert_eq!(one.views(), two.views());
            one.seen.clear();
            two.seen.clear();
        }
        for play in [&mut one, &mut two] {
            play.play(Step::Pass { secs: 10_000, attended: true });
        }
        prop_assert_eq!(&one.seen, &two.seen);
        prop_assert_eq!(two.world.relays.open.len(), 0);
        prop_assert_eq!((two.world.shared.quotas.in_use(), two.world.shared.quotas.users()), (0, 0));
    }

    #[test]
    fn a_reload_in_parts_leaves_no_route_that_it_denies_whatever_comes_in_between(
        before in prop::collection::vec(step(), 1..60),
        meanwhile in prop::collection::vec(step(), 1..20),
        part in 1..8usize,
    ) {
        let mut play = Play::new();
        before.into_iter().for_each(|step| play.play(step));
        play.world.begin_reload(|options| options.rules.denied = vec!["8.8.8.0-8.8.8.9".to_owned()]);
        let mut steps = meanwhile.into_iter().filter(|step| !matches!(step, Step::Reload { .. }));
        loop {
            let done = play.world.server.judge(play.world.now, part, &mut play.world.relays);
            if done.is_some() {
                break;
            }
            if let Some(step) = steps.next() {
                play.play(step);
            }
        }
        for view in play.world.list(&AllocationFilter::default(), None, 1000) {
            let detail = play.world.server.show(play.world.now, view.id).unwrap();
            let mut peers: Vec<_> = detail.permissions.iter().map(|(ip, _)| *ip).collect();
            peers.extend(detail.channels.iter().map(|(_, peer, _)| peer.ip()));
            let denied = |ip: &std::net::IpAddr| *ip >= peer(0).ip() && *ip <= peer(9).ip();
            prop_assert!(!peers.iter().any(denied), "{peers:?}");
        }
    }

    #[test]
    fn servers_that_hear_of_a_reload_one_after_the_other_leave_no_route_that_it_denies_wherever_allocations_go(
        before in prop::collection::vec(step(), 1..60),
        meanwhile in prop::collection::vec((0..6u8, 0..CLIENTS, any::<bool>(), step()), 1..40),
        part in 1..8usize,
    ) {
        let mut play = Play::new();
        play.world.split();
        before.into_iter().for_each(|step| play.play(step));
        play.world.announce_reload(|options| options.rules.denied = vec!["8.8.8.0-8.8.8.9".to_owned()]);
        let mut has_heard = [false; 2];
        let rest = (0..2).flat_map(|side| [(0, 0, side == 1, None), (1, 0, side == 1, None)]);
        let parts = meanwhile.into_iter().map(|(what, client, other, step)| (what, client, other, Some(step)));
        for (what, client, other, step) in parts.chain(rest) {
            let last = step.is_none();
            match (what, step) {
                (0 | 1, _) => {
                    if play.world.relays.side != usize::from(other) {
                        play.world.other_side();
                    }
                    let heard = &mut has_heard[usize::from(other)];
                    if what == 0 && !std::mem::replace(heard, true) {
                        play.world.server.apply(std::sync::Arc::clone(&play.world.settings));
                    } else {
                        let most = if last { usize::MAX } else { part };
                        play.world.server.judge(play.world.now, most, &mut play.world.relays);
                    }
                }
                (2..=4, _) => play.change_sides(client, other),
                (_, Some(Step::Reload { .. }) | None) => {}
                (_, Some(step)) => play.play(step),
            }
        }
        for _ in 0..2 {
            prop_assert!(!play.world.server.is_judging());
            for view in play.world.list(&AllocationFilter::default(), None, 1000) {
                let detail = play.world.server.show(play.world.now, view.id).unwrap();
                let permitted = detail.permissions.iter().map(|(ip, _)| *ip);
                let bound = detail.channels.iter().map(|(_, peer, _)| peer.ip());
                let denied = |ip: std::net::IpAddr| ip >= peer(0).ip() && ip <= peer(9).ip();
                prop_assert!(!permitted.chain(bound).any(denied), "{detail:?}");
            }
            play.world.other_side();
        }
        play.world.check_books();
    }

    #[test]
    fn strangers_get_at_most_one_bounded_answer_and_leave_no_trace(
        messages in prop::collection::vec(
            (0..0x1000u16, any::<bool>(), prop::collection::vec((0..0x40u16, prop::collection::vec(any::<u8>(), 0..60)), 0..6)),
            1..60,
        ),
        noise in prop::collection::vec((0..60usize, 0..200usize, any::<u8>()), 0..30),
    ) {
        let limit = RateLimit { per_second: 5, burst: 20 };
        let mut world = World::with(|options| options.unauthenticated = Some(limit));
        let mut answers = 0;
        for (n, (method, request, attributes)) in messages.into_iter().enumerate() {
            let class = if request { Class::Request } else { Class::Indication };
            // Mostly methods that exist.
            let method = Method::new(if method % 3 == 0 { method } else { method % 10 });
            let id = world.transaction_id();
            let mut bytes = message(class, method, id, |message| {
                for (kind, value) in &attributes {
                    message.attribute(AttributeType(*kind), value);
                }
            });
            for (_, at, with) in noise.iter().filter(|(message, ..)| *message == n) {
                let at = at % bytes.len();
                bytes[at] ^= with;
            }
            if let Answer::Reply(reply) = world.hand_in(client(n as u16), &bytes) {
                answers += 1;
                prop_assert!(reply.bytes.len() <= 200, "{} bytes", reply.bytes.len());
                prop_assert!(reply.integrity.is_none());
            }
        }
        prop_assert!(answers <= 20);
        prop_assert_eq!(world.server.allocations(), 0);
        prop_assert_eq!(world.relays.open.len(), 0);
        prop_assert_eq!(world.server.next_timeout(), None);
        prop_assert!(world.events().is_empty());
    }
}
