//! Mutated and invented conversations into the server's state machine, in virtual time.

use std::net::SocketAddr;

use turnstone::addr::{PeerAddr, Transport};
use turnstone::clock::SECOND;
use turnstone::stun::{Class, MAGIC_COOKIE, Message, Method};
use turnstone::turn::{Client, ConnectError, ConnectionId, EndReason, Outcome};

use crate::mutate::{Rng, mutate, repair_length};
use crate::world::{self, Draft, ID, Signer, World};

struct Talker {
    client: Client,
    signer: Option<Signer>,
}

/// How far the inputs got: a run that only ever met 401 would prove little.
#[derive(Debug, Default)]
struct Reached {
    allocated: u64,
    refreshed: u64,
    permitted: u64,
    bound: u64,
    sent: u64,
    routed_to_peer: u64,
    routed_to_client: u64,
    icmp: u64,
    refused: u64,
    detoured: u64,
    classic: u64,
    connected: u64,
    accepted: u64,
    connections_bound: u64,
}

impl Reached {
    fn everything(&self) -> bool {
        #[rustfmt::skip]
        let Self { allocated, refreshed, permitted, bound, sent, routed_to_peer, routed_to_client, icmp, refused, detoured, classic, .. } = self;
        let Self { connected, accepted, connections_bound, .. } = self;
        let counts = [allocated, refreshed, permitted, bound, sent, routed_to_peer, routed_to_client, icmp, refused];
        let others = [detoured, classic, connected, accepted, connections_bound];
        counts.into_iter().chain(others).all(|count| *count > 0)
    }
}

struct Chaos {
    reached: Reached,
    world: World,
    rng: Rng,
    drafts: Vec<Draft>,
    corpus: Vec<Vec<u8>>,
    talkers: Vec<Talker>,
    peers: Vec<SocketAddr>,
    input: Vec<u8>,
    reply: Vec<u8>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
        let talkers = (0..40_u16).map(|number| {
            let text = if number % 5 == 0 { "[2001:db8::5]" } else { "198.51.100.7" };
            let addr: SocketAddr = format!("{text}:{}", 2000 + number).parse().unwrap();
            let client = world::client(transports[usize::from(number) % 3], addr, u32::from(number));
            Talker { client, signer: None }
        });
        let peers = ["8.8.4.4:1000", "1.1.1.1:53", "[2620:fe::fe]:9", "10.0.0.1:9", "192.0.2.10:49152", "127.0.0.1:1"];
        Self {
            reached: Reached::default(),
            world: World::offering_all(seed, None),
            rng: Rng(seed),
            drafts: world::drafts(),
            corpus: world::corpus(),
            talkers: talkers.collect(),
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            input: Vec::new(),
            reply: Vec::new(),
        }
    }

    fn step(&mut self) {
        let talker = self.rng.below(self.talkers.len());
        match self.rng.below(256) {
            0..=79 => self.signed_draft(talker),
            80..=139 => self.mutated_message(talker),
            140..=189 => self.channel_data(talker),
            190..=227 => self.peer_sends(),
            228..=247 => self.icmp(),
            248 => {
                let five_tuple = self.talkers[talker].client.five_tuple;
                self.world.server.client_gone(self.world.now, &five_tuple, &mut self.world.relays);
            }
            249 => {
                let secs = *self.rng.pick(&[1, 31, 300, 601, 4000]);
                self.world.advance(secs * SECOND);
            }
            250 => {
                let denied: &[&[&str]] = &[&[], &["8.8.0.0/16"], &["::/0", "1.1.1.1-1.1.1.9"]];
                self.world.reload(denied[self.rng.below(denied.len())]);
            }
            251 | 252 => self.tcp_relay_hears(),
            _ => self.world.advance(self.rng.below(50_000) as u64),
        }
        while let Some(notice) = self.world.server.poll_notice() {
            Message::parse(&notice.message).expect("a notice is a message");
        }
        while self.world.server.poll_event().is_some() {}
    }

    /// A request with changed attributes and a true MAC: what an authenticated client can do wrong.
    fn signed_draft(&mut self, talker: usize) {
        let mut draft = self.rng.pick(&self.drafts).clone();
        if self.rng.chance(2) {
            self.change_attributes(&mut draft);
        }
        let class = if draft.method == Method::SEND.value() { Class::Indication } else { Class::Request };
        let mut id = ID;
        if self.rng.chance(4) {
            self.rng.fill(&mut id);
        }
        if draft.method == Method::CONNECTION_BIND.value()
            && let Some(connection) = self.any_connection()
            && let Some((_, id)) = draft.attributes.first_mut()
        {
            *id = connection.value().to_be_bytes().to_vec();
        }
        let signer = self.talkers[talker].signer.clone();
        world::encode(&draft, class, id, signer.as_ref(), &mut self.input);
        self.feed(talker);
    }

    fn change_attributes(&mut self, draft: &mut Draft) {
        match self.rng.below(6) {
            0 => {
                let kind = if self.rng.chance(2) { self.rng.below(0x30) } else { self.rng.below(0x1_0000) };
                let len = self.rng.below(24);
                draft.attributes.push((kind as u16, self.rng.bytes(len)));
            }
            1 => drop(draft.attributes.pop()),
            2 => {
                let extra = self.rng.pick(&self.drafts).attributes.clone();
                draft.attributes.extend(extra);
            }
            3 => draft.method = self.rng.below(16) as u16,
            _ => {
                if !draft.attributes.is_empty() {
                    let at = self.rng.below(draft.attributes.len());
                    mutate(&mut self.rng, &mut draft.attributes[at].1, &self.corpus);
                    draft.attributes[at].1.truncate(256);
                }
            }
        }
    }

    fn mutated_message(&mut self, talker: usize) {
        self.input.clone_from(self.rng.pick(&self.corpus));
        mutate(&mut self.rng, &mut self.input, &self.corpus);
        if self.rng.chance(2) {
            repair_length(&mut self.input);
        }
        self.feed(talker);
    }

    fn feed(&mut self, talker: usize) {
        self.reply.clear();
        let client = self.talkers[talker].client;
        let outcome = self.world.message(&client, &self.input, &mut self.reply);
        match outcome {
            Outcome::Reply | Outcome::Detour(_) if self.input[4..8] != MAGIC_COOKIE.to_be_bytes() => {
                // A client of RFC 3489.
                assert!(matches!(self.reply[..2], [0x01, 0x01 | 0x11]), "an answer is a message");
                assert_eq!(self.reply[4..20], self.input[4..20], "an answer to something else");
                assert!(self.reply.len() <= 100, "an answer of {} bytes", self.reply.len());
                self.reached.classic += 1;
            }
            Outcome::Reply | Outcome::Detour(_) => {
                self.reached.detoured += u64::from(matches!(outcome, Outcome::Detour(_)));
                let reply = Message::parse(&self.reply).expect("an answer is a message");
                assert_eq!(reply.transaction_id().0, self.input[8..20], "an answer to something else");
                assert!(matches!(reply.class(), Class::Success | Class::Error));
                assert!(self.reply.len() <= 1200, "an answer of {} bytes", self.reply.len());
                match (reply.class(), reply.method()) {
                    (Class::Success, Method::ALLOCATE) => self.reached.allocated += 1,
                    (Class::Success, Method::REFRESH) => self.reached.refreshed += 1,
                    (Class::Success, Method::CREATE_PERMISSION) => self.reached.permitted += 1,
                    (Class::Success, Method::CHANNEL_BIND) => self.reached.bound += 1,
                    (Class::Error, _) => self.reached.refused += 1,
                    _ => {}
                }
                if let Some(nonce) = world::nonce_in(&self.reply) {
                    self.talkers[talker].signer = Some(Signer::alice(nonce));
                }
            }
            Outcome::ToPeer(_, payload) => {
                assert!(payload.start <= payload.end && payload.end <= self.input.len());
                assert!(self.reply.is_empty());
                self.reached.sent += 1;
            }
            Outcome::Waits => assert_eq!(Message::parse(&self.input).unwrap().method(), Method::CONNECT),
            Outcome::Binds(binding) => {
                assert!(self.world.server.bind_connection(binding.connection), "it is here");
                self.reached.connections_bound += 1;
            }
            Outcome::Elsewhere(_) => panic!("there is one server"),
            Outcome::Dropped(_) => assert!(self.reply.is_empty(), "dropped, yet answered"),
        }
    }

    fn channel_data(&mut self, talker: usize) {
        let channel = *self.rng.pick(&[0x4000_u16, 0x4FFF, 0x4001]);
        let len = self.rng.below(40);
        let mut input = channel.to_be_bytes().to_vec();
        input.extend_from_slice(&(len as u16).to_be_bytes());
        input.extend_from_slice(&self.rng.bytes(len));
        if self.rng.chance(3) {
            mutate(&mut self.rng, &mut input, &self.corpus);
        }
        let client = self.talkers[talker].client;
        if let Ok((_, payload)) = self.world.channel_data(&client, &input) {
            assert!(payload.start == 4 && payload.end <= input.len());
            self.reached.routed_to_peer += 1;
        }
    }

    fn peer_sends(&mut self) {
        let Some(relay) = self.any_relay() else { return };
        let Ok(peer) = PeerAddr::new(*self.rng.pick(&self.peers)) else { return };
        let len = self.rng.below(1500);
        if self.world.server.route_from_peer(self.world.now, relay, peer, &vec![0xEE; len]).is_ok() {
            self.reached.routed_to_client += 1;
        }
    }

    /// A connection of a TCP relay has an end, or one of a peer has come, or one is no more.
    fn tcp_relay_hears(&mut self) {
        let now = self.world.now;
        if let Some(id) = self.world.relays.connecting.pop() {
            let result = if self.rng.chance(3) { Err(ConnectError::Failed) } else { Ok(()) };
            self.reached.connected += u64::from(result.is_ok());
            if result.is_err() {
                self.world.relays.links.remove(&id);
            }
            assert!(self.world.server.connected(now, id, result), "it is known until it is closed");
        }
        let relay = self.world.relays.tcp_ids().nth(self.rng.below(4));
        if let (Some(relay), Ok(peer)) = (relay, PeerAddr::new(*self.rng.pick(&self.peers)))
            && let Ok((id, gave_way)) = self.world.server.accepted(now, relay, peer)
        {
            if let Some(gave_way) = gave_way {
                assert!(self.world.relays.links.remove(&gave_way));
            }
            assert!(self.world.relays.links.insert(id));
            self.reached.accepted += 1;
        }
        if self.rng.chance(4)
            && let Some(id) = self.any_connection()
        {
            self.world.relays.links.remove(&id);
            self.world.relays.connecting.retain(|other| *other != id);
            self.world.server.connection_gone(id);
        }
    }

    fn any_connection(&mut self) -> Option<ConnectionId> {
        self.world.relays.links.iter().copied().nth(self.rng.below(4))
    }

    fn icmp(&mut self) {
        let Some(relay) = self.any_relay() else { return };
        let peer = *self.rng.pick(&self.peers);
        let (kind, code) = (self.rng.next() as u8, self.rng.next() as u8);
        self.reply.clear();
        let icmp = (kind, code, [0, 0, 5, 0xDC]);
        let client = self.world.server.handle_icmp(self.world.now, relay, peer, icmp, &mut self.reply);
        assert_eq!(client.is_some(), !self.reply.is_empty());
        if client.is_some() {
            assert_eq!(Message::parse(&self.reply).expect("a Data indication").method(), Method::DATA);
            self.reached.icmp += 1;
        }
    }

    /// A relay socket that is open, or (late events) was.
    fn any_relay(&mut self) -> Option<turnstone::turn::RelayId> {
        let open = self.world.relays.ids().nth(self.rng.below(8));
        if self.rng.chance(8) {
            return Some(turnstone::turn::RelayId { index: self.rng.below(40) as u32, generation: 0 });
        }
        open
    }
}

#[test]
fn no_conversation_upsets_the_server_and_what_it_used_comes_back() {
    let count = crate::inputs(30);
    let reached = converse(crate::seed() | 1, count);
    assert!(count < 500_000 || reached.everything(), "the conversations do not get everywhere: {reached:?}");
}

#[test]
fn no_conversation_upsets_a_server_whose_allocations_share_a_relay_port() {
    converse(crate::seed() & !1, crate::inputs(10));
}

fn converse(seed: u64, count: u64) -> Reached {
    let mut chaos = Chaos::new(seed);
    for number in 0..count {
        chaos.step();
        if number % 256 == 0 {
            chaos.world.check();
        }
    }
    chaos.world.check();
    println!("{:?}", chaos.reached);
    chaos.world.server.end_all(chaos.world.now, EndReason::Shutdown, &mut chaos.world.relays);
    assert_eq!(chaos.world.server.allocations(), 0);
    assert_eq!(chaos.world.quotas.in_use(), 0);
    assert_eq!(chaos.world.relays.open_count(), 0);
    assert!(chaos.world.relays.links.is_empty() && chaos.world.shared.connection_ids.is_empty());
    chaos.reached
}

#[test]
fn without_any_traffic_everything_expires_and_comes_back() {
    let mut chaos = Chaos::new(crate::seed() ^ 2);
    while chaos.world.server.allocations() < 5 {
        chaos.step();
    }
    chaos.world.advance(3601 * SECOND);
    chaos.world.check();
    assert_eq!(chaos.world.server.allocations(), 0);
    assert_eq!(chaos.world.relays.open_count(), 0);
}
