//! A server with fake relay sockets in virtual time, and clients that know how to talk to it.
//! Shared by the robustness and flood tests and the fuzz targets, none of which uses all of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use turnstone::addr::{ClientAddr, Family, FiveTuple, PeerAddr, RelayedAddr, Transport};
use turnstone::auth::{Credentials, NonceKeys, Users};
use turnstone::clock::{Now, SECOND};
use turnstone::policy::{BandwidthLimits, PeerAcl, PeerPolicies, PeerRules, QuotaLimits, Quotas, RateLimit};
use turnstone::reject::Dropped;
use turnstone::stun::{
    AttributeType, Class, Encoder, IntegrityKind, Key, Message, Method, PasswordAlgorithm, TransactionId,
};
use turnstone::turn::{
    Client, ConnectError, ConnectionId, DatagramPath, MessageKind, NatDiscovery, OpenRelay, Outcome, Path, PortRequest,
    RelayError, RelayId, Relays, ReservationToken, Server, Settings, SettingsBuilder, Shared, TcpRelays, ToPeer,
};
use turnstone::user::RealmId;
use turnstone::user::User;

use super::mutate::Rng;

const REALM: &str = "example.org";
const USER: &str = "alice";
const PASSWORD: &str = "correct horse";
const PORTS: (u16, u16) = (49152, 49663);

/// Relay sockets that exist only as entries of a table.
#[derive(Default)]
pub(crate) struct FakeRelays {
    open: BTreeMap<RelayId, SocketAddr>,
    free: Vec<RelayId>,
    reserved: BTreeMap<ReservationToken, (SocketAddr, User, u64)>,
    next_index: u32,
    next_token: u64,
    /// Whether all share one port.
    shares: bool,
    tcp: BTreeMap<RelayId, SocketAddr>,
    next_tcp: u32,
    /// Connections with peers, and those of them that no peer has answered yet.
    pub(crate) links: BTreeSet<ConnectionId>,
    pub(crate) connecting: Vec<ConnectionId>,
}

/// The id of the port that all share.
const SHARED_PORT: RelayId = RelayId { index: 100_000, generation: 0 };

impl FakeRelays {
    pub(crate) fn open_count(&self) -> usize {
        self.open.len() + self.tcp.len()
    }

    pub(crate) fn tcp_ids(&self) -> impl Iterator<Item = RelayId> + '_ {
        self.tcp.keys().copied()
    }

    /// Where datagrams of peers may come to.
    pub(crate) fn ids(&self) -> impl Iterator<Item = RelayId> + '_ {
        let shared = self.shares && !self.open.is_empty();
        shared.then_some(SHARED_PORT).into_iter().chain(self.open.keys().copied())
    }

    fn insert(&mut self, relayed: SocketAddr, reservation: Option<ReservationToken>) -> OpenRelay {
        let id = self.free.pop().unwrap_or_else(|| {
            self.next_index += 1;
            RelayId { index: self.next_index - 1, generation: 0 }
        });
        self.open.insert(id, relayed);
        OpenRelay { id, relayed: RelayedAddr::new(relayed), reservation }
    }

    fn is_free(&self, addr: SocketAddr) -> bool {
        !self.open.values().any(|&used| used == addr) && !self.reserved.values().any(|(held, ..)| *held == addr)
    }
}

impl Relays for FakeRelays {
    fn supports(&self, _family: Family) -> bool {
        true
    }

    fn open(&mut self, now_micros: u64, family: Family, port: PortRequest<'_>) -> Result<OpenRelay, RelayError> {
        self.reserved.retain(|_, (_, _, until)| *until > now_micros);
        let ip = relay_ip(family);
        if self.shares {
            return match port {
                PortRequest::Any => Ok(self.insert(SocketAddr::new(ip, PORTS.0), None)),
                PortRequest::Even | PortRequest::EvenAndReserveNext { .. } => Err(RelayError::SharedPorts),
            };
        }
        let found = (PORTS.0..PORTS.1).map(|port| SocketAddr::new(ip, port)).find(|&addr| {
            let even = addr.port() % 2 == 0;
            let next = SocketAddr::new(ip, addr.port() + 1);
            self.is_free(addr)
                && match port {
                    PortRequest::Any => true,
                    PortRequest::Even => even,
                    PortRequest::EvenAndReserveNext { .. } => even && self.is_free(next),
                }
        });
        let relayed = found.ok_or(RelayError::NoPort)?;
        let reservation = match port {
            PortRequest::EvenAndReserveNext { user, .. } => {
                self.next_token += 1;
                let token = self.next_token.to_be_bytes();
                let next = SocketAddr::new(ip, relayed.port() + 1);
                self.reserved.insert(token, (next, user.clone(), now_micros + 30 * SECOND));
                Some(token)
            }
            PortRequest::Any | PortRequest::Even => None,
        };
        Ok(self.insert(relayed, reservation))
    }

    fn open_reserved(
        &mut self,
        now_micros: u64,
        token: ReservationToken,
        user: &User,
    ) -> Result<OpenRelay, RelayError> {
        match self.reserved.get(&token) {
            Some((_, owner, until)) if owner == user && *until > now_micros => {}
            _ => return Err(RelayError::UnknownToken),
        }
        let (relayed, ..) = self.reserved.remove(&token).ok_or(RelayError::UnknownToken)?;
        Ok(self.insert(relayed, None))
    }

    fn shared_port(&self, _relay: RelayId) -> Option<RelayId> {
        self.shares.then_some(SHARED_PORT)
    }

    fn close(&mut self, relay: RelayId) {
        assert!(self.open.remove(&relay).is_some(), "{relay:?} closed twice");
        self.free.push(RelayId { generation: relay.generation + 1, ..relay });
    }

    fn open_tcp(&mut self, _: &FiveTuple, family: Family) -> Result<OpenRelay, RelayError> {
        self.next_tcp += 1;
        let (id, relayed) =
            (RelayId { index: self.next_tcp, generation: 0 }, SocketAddr::new(relay_ip(family), 49_152));
        self.tcp.insert(id, relayed);
        Ok(OpenRelay { id, relayed: RelayedAddr::new(relayed), reservation: None })
    }

    fn close_tcp(&mut self, relay: RelayId) {
        assert!(self.tcp.remove(&relay).is_some(), "{relay:?} closed twice");
    }

    fn connect(
        &mut self,
        relay: RelayId,
        connection: ConnectionId,
        peer: PeerAddr,
        _: bool,
    ) -> Result<(), ConnectError> {
        assert!(self.tcp.contains_key(&relay));
        if peer.get().port().is_multiple_of(7) {
            return Err(ConnectError::System);
        }
        assert!(self.links.insert(connection));
        self.connecting.push(connection);
        Ok(())
    }

    fn disconnect(&mut self, connection: ConnectionId) {
        assert!(self.links.remove(&connection), "{connection:?} closed twice");
        self.connecting.retain(|other| *other != connection);
    }
}

fn relay_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, 10]),
        Family::V6 => "2001:db8::10".parse().unwrap(),
    }
}

/// A server in virtual time.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) relays: FakeRelays,
    pub(crate) now: Now,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) shared: Shared,
    settings: Settings,
}

impl World {
    pub(crate) fn new(seed: u64, unauthenticated: Option<RateLimit>) -> Self {
        Self::of(seed, settings(unauthenticated).build())
    }

    /// One that offers what is off by default, too; every other one has one relay port for all.
    pub(crate) fn offering_all(seed: u64, unauthenticated: Option<RateLimit>) -> Self {
        let pair = |[one, other]: [&str; 2]| {
            let addresses = [one, other].map(|ip| ip.parse().unwrap());
            NatDiscovery { addresses, external: addresses, ports: [3478, 3479] }
        };
        let pairs = vec![pair(["192.0.2.10", "192.0.2.11"]), pair(["2001:db8::10", "2001:db8::11"])];
        let mut world = Self::of(seed, settings(unauthenticated).nat_discovery(pairs).rfc3489(true).build());
        world.relays.shares = seed.is_multiple_of(2);
        world
    }

    fn of(seed: u64, settings: Settings) -> Self {
        let shared = Shared::default();
        let quotas = Arc::clone(&shared.quotas);
        let mut rng = Rng(seed);
        let server = Server::new(Arc::new(settings.clone()), shared.clone(), Box::new(move |out| rng.fill(out)));
        let now = Now { micros: 1_000 * SECOND, unix_secs: 1_800_000_000 };
        Self { server, relays: FakeRelays::default(), now, quotas, shared, settings }
    }

    pub(crate) fn message(&mut self, client: &Client, message: &[u8], reply: &mut Vec<u8>) -> Outcome {
        self.server.handle_message(self.now, client, message, &mut self.relays, reply)
    }

    /// Routes a datagram of ChannelData.
    pub(crate) fn channel_data(&mut self, client: &Client, datagram: &[u8]) -> Result<(ToPeer, Range<usize>), Dropped> {
        match MessageKind::of_datagram(datagram) {
            Some(MessageKind::ChannelData(message)) => {
                let way = self.server.route_channel_data(self.now, &client.five_tuple, message)?;
                Ok((way, message.payload()))
            }
            _ => Err(Dropped::Malformed),
        }
    }

    pub(crate) fn advance(&mut self, micros: u64) {
        self.now.micros += micros;
        self.now.unix_secs = 1_800_000_000 + self.now.micros / SECOND;
        while self.server.next_timeout().is_some_and(|due| due <= self.now.micros) {
            self.server.handle_timeout(self.now, &mut self.relays);
        }
    }

    /// Reloads with a peer rule more or less.
    pub(crate) fn reload(&mut self, denied: &[&str]) {
        self.settings = self.settings.with_peer_policies(Arc::new(PeerPolicies::new(peer_acl(denied))));
        self.server.apply(Arc::new(self.settings.clone()));
        // In parts, with whatever comes in between.
        self.server.judge(self.now, 1, &mut self.relays);
    }

    /// What must hold whatever came in.
    pub(crate) fn check(&self) {
        let live = self.server.allocations();
        assert_eq!(live, self.quotas.in_use() as usize, "quota differs from live allocations");
        assert_eq!(live, self.server.timers(), "timers differ from live allocations");
        let open = self.relays.open_count();
        assert!(open >= live && open <= 2 * live, "{open} relay sockets for {live} allocations");
    }
}

fn settings(unauthenticated: Option<RateLimit>) -> SettingsBuilder {
    let bandwidth =
        BandwidthLimits { per_allocation: Some(1_000_000), per_user: Some(4_000_000), ..BandwidthLimits::default() };
    Settings::builder(Arc::new(credentials()), peer_acl(&[]))
        .quota(QuotaLimits { per_user: Some(24), total: Some(30), ..QuotaLimits::default() })
        .bandwidth(bandwidth)
        .unauthenticated(unauthenticated)
        .max_peers_per_allocation(16)
        .mobility(true)
        .tcp_relays(Some(TcpRelays { connections_per_allocation: 4, connections_per_user: 12 }))
}

fn credentials() -> Credentials {
    let users = Users::from_pairs(REALM, [(USER, PASSWORD), ("bob", "another password")]).unwrap();
    let nonce_keys = Arc::new(NonceKeys::new([7; 32], 3600));
    Credentials::builder(REALM, nonce_keys).users(users).build().unwrap()
}

fn peer_acl(denied: &[&str]) -> Arc<PeerAcl> {
    let rules = PeerRules {
        denied: denied.iter().map(|&rule| rule.to_owned()).collect(),
        own_endpoints: vec![server_addr(Family::V4), server_addr(Family::V6)],
        relay_addresses: vec![relay_ip(Family::V4), relay_ip(Family::V6)],
        relay_ports: PORTS,
        ..PeerRules::default()
    };
    Arc::new(PeerAcl::compile(&rules).unwrap())
}

pub(crate) fn server_addr(family: Family) -> SocketAddr {
    SocketAddr::new(relay_ip(family), 3478)
}

pub(crate) fn client(transport: Transport, addr: SocketAddr, socket: u32) -> Client {
    let server = server_addr(Family::of(addr.ip()));
    let path = Path::Datagrams(DatagramPath { socket, to: addr, from_ip: None });
    Client { five_tuple: FiveTuple { transport, client: ClientAddr::new(addr), server }, path, realm: RealmId::DEFAULT }
}

/// A request before it is signed.
#[derive(Clone, Default)]
pub(crate) struct Draft {
    pub(crate) method: u16,
    pub(crate) attributes: Vec<(u16, Vec<u8>)>,
}

/// What a client knows of its credential and the server's challenge.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) nonce: Vec<u8>,
    pub(crate) key: Key,
    pub(crate) username: &'static str,
}

impl Signer {
    pub(crate) fn alice(nonce: Vec<u8>) -> Self {
        Self { nonce, key: key(PASSWORD), username: USER }
    }

    pub(crate) fn forger(nonce: Vec<u8>) -> Self {
        Self { nonce, key: key("not the password"), username: USER }
    }
}

fn key(password: &str) -> Key {
    Key::long_term(PasswordAlgorithm::Md5, USER.as_bytes(), REALM.as_bytes(), password.as_bytes())
}

/// Encodes a draft; `signer` adds USERNAME, REALM, NONCE and MESSAGE-INTEGRITY.
pub(crate) fn encode(draft: &Draft, class: Class, id: [u8; 12], signer: Option<&Signer>, out: &mut Vec<u8>) {
    out.clear();
    let mut encoder = Encoder::new(out, class, Method::new(draft.method), TransactionId(id));
    for (kind, value) in &draft.attributes {
        encoder.attribute(AttributeType(*kind), value);
    }
    if let Some(signer) = signer {
        encoder
            .attribute(AttributeType::USERNAME, signer.username.as_bytes())
            .attribute(AttributeType::REALM, REALM.as_bytes())
            .attribute(AttributeType::NONCE, &signer.nonce)
            .integrity(IntegrityKind::Sha1, &signer.key);
    }
}

/// The nonce of a 401 or 438.
pub(crate) fn nonce_in(reply: &[u8]) -> Option<Vec<u8>> {
    Message::parse(reply).ok()?.get(AttributeType::NONCE).map(<[u8]>::to_vec)
}

/// XOR-PEER-ADDRESS for a transaction id.
pub(crate) fn xor_peer(addr: &str, id: [u8; 12]) -> Vec<u8> {
    let mut value = [0; 20];
    let len = turnstone::stun::encode_xor_address(addr.parse().unwrap(), TransactionId(id), &mut value);
    value[..len].to_vec()
}

/// Requests as real clients send them; the transaction id is always the same.
pub(crate) const ID: [u8; 12] = *b"robustness!!";

pub(crate) fn drafts() -> Vec<Draft> {
    let draft = |method: Method, attributes: &[(AttributeType, &[u8])]| Draft {
        method: method.value(),
        attributes: attributes.iter().map(|(kind, value)| (kind.0, value.to_vec())).collect(),
    };
    let udp: (AttributeType, &[u8]) = (AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let peer = |addr: &str| xor_peer(addr, ID);
    let tcp: (AttributeType, &[u8]) = (AttributeType::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    vec![
        draft(Method::BINDING, &[]),
        draft(Method::ALLOCATE, &[udp]),
        draft(
            Method::ALLOCATE,
            &[udp, (AttributeType::LIFETIME, &[0, 0, 3, 0x20]), (AttributeType::DONT_FRAGMENT, &[])],
        ),
        draft(Method::ALLOCATE, &[udp, (AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])]),
        draft(Method::ALLOCATE, &[udp, (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])]),
        draft(Method::ALLOCATE, &[udp, (AttributeType::EVEN_PORT, &[0x80])]),
        draft(Method::ALLOCATE, &[udp, (AttributeType::RESERVATION_TOKEN, &[0, 0, 0, 0, 0, 0, 0, 1])]),
        draft(Method::REFRESH, &[(AttributeType::LIFETIME, &[0, 0, 2, 0x58])]),
        draft(Method::REFRESH, &[(AttributeType::LIFETIME, &[0; 4])]),
        draft(Method::CREATE_PERMISSION, &[(AttributeType::XOR_PEER_ADDRESS, &peer("8.8.4.4:1000"))]),
        draft(
            Method::CREATE_PERMISSION,
            &[
                (AttributeType::XOR_PEER_ADDRESS, &peer("1.1.1.1:53")),
                (AttributeType::XOR_PEER_ADDRESS, &peer("[2620:fe::fe]:9")),
                (AttributeType::XOR_PEER_ADDRESS, &peer("10.0.0.1:9")),
            ],
        ),
        draft(
            Method::CHANNEL_BIND,
            &[
                (AttributeType::CHANNEL_NUMBER, &[0x40, 0, 0, 0]),
                (AttributeType::XOR_PEER_ADDRESS, &peer("8.8.4.4:1000")),
            ],
        ),
        draft(
            Method::CHANNEL_BIND,
            &[
                (AttributeType::CHANNEL_NUMBER, &[0x4F, 0xFF, 0, 0]),
                (AttributeType::XOR_PEER_ADDRESS, &peer("192.0.2.10:49152")),
            ],
        ),
        draft(
            Method::SEND,
            &[(AttributeType::XOR_PEER_ADDRESS, &peer("8.8.4.4:1000")), (AttributeType::DATA, b"to a peer")],
        ),
        draft(Method::BINDING, &[(AttributeType::CHANGE_REQUEST, &[0, 0, 0, 6])]),
        draft(Method::BINDING, &[(AttributeType::RESPONSE_PORT, &[0x9C, 0x40, 0, 0])]),
        draft(Method::BINDING, &[(AttributeType::PADDING, &[0; 200])]),
        draft(Method::ALLOCATE, &[udp, (AttributeType::MOBILITY_TICKET, &[])]),
        draft(Method::REFRESH, &[(AttributeType::MOBILITY_TICKET, &[7; 32])]),
        draft(Method::ALLOCATE, &[tcp]),
        draft(Method::CONNECT, &[(AttributeType::XOR_PEER_ADDRESS, &peer("8.8.4.4:1000"))]),
        draft(Method::CONNECT, &[(AttributeType::XOR_PEER_ADDRESS, &peer("1.1.1.1:53"))]),
        draft(Method::CONNECTION_BIND, &[(AttributeType::CONNECTION_ID, &[1, 2, 3, 4])]),
    ]
}

/// The drafts as bytes, unsigned and signed, with and without FINGERPRINT, and the server's answers to them.
pub(crate) fn corpus() -> Vec<Vec<u8>> {
    let mut corpus = Vec::new();
    let mut world = World::offering_all(1, None);
    let client = client(Transport::Udp, "198.51.100.1:5000".parse().unwrap(), 1);
    let mut reply = Vec::new();
    let mut bytes = Vec::new();
    encode(&drafts()[1], Class::Request, ID, None, &mut bytes);
    world.message(&client, &bytes, &mut reply);
    let signer = Signer::alice(nonce_in(&reply).expect("a challenge"));
    for draft in drafts() {
        let class = if draft.method == Method::SEND.value() { Class::Indication } else { Class::Request };
        for signer in [None, Some(&signer)] {
            encode(&draft, class, ID, signer, &mut bytes);
            corpus.push(bytes.clone());
            reply.clear();
            world.message(&client, &bytes, &mut reply);
            corpus.push(reply.clone());
        }
    }
    encode(&Draft { method: 1, ..Draft::default() }, Class::Request, ID, None, &mut bytes);
    bytes.extend_from_slice(&[0x80, 0x28, 0, 4, 0, 0, 0, 0]);
    corpus.push(bytes);
    // RFC 3489, with CHANGE-REQUEST and USERNAME.
    corpus.push(b"\x00\x01\x00\x10classic exchange\x00\x03\x00\x04\0\0\0\x06\x00\x06\x00\x04user".to_vec());
    corpus.push(b"\x40\x00\x00\x05hello\0\0\0".to_vec());
    corpus.retain(|message| !message.is_empty());
    corpus
}
