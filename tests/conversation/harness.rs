//! A server in virtual time and clients that speak to it.

#[path = "between.rs"]
mod between;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use turnstone::addr::{ClientAddr, Family, FiveTuple, PeerAddr, Transport};
use turnstone::auth::{AccessTokens, AskPolicy, Credentials, NonceKeys, Revocation, SharedSecret, Users, mint};
use turnstone::clock::{Now, SECOND};
use turnstone::policy::{BandwidthLimits, GuardLimits, PeerAcl, PeerPolicies, PeerRules, QuotaLimits};
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Class, Encoder, Key, Message, Method, PasswordAlgorithm, TransactionId};
use turnstone::traffic::Traffic;
use turnstone::turn::{
    AllocationFilter, AllocationId, AllocationIds, Client, ConnectionIds, DatagramPath, DefaultFamily, Event,
    FillRandom, Lifetimes, MessageKind, OnExpiry, Outcome, Parcel, Path, Realm, Redirect, RelayId, Returned, Server,
    Settings, SettingsBuilder, Shared, TcpRelays, ToClient, ToPeer,
};
use turnstone::user::RealmId;

pub use crate::fake_relays::FakeRelays;
pub use crate::wire::{Answer, Login, Reply, message};

pub const REALM: &str = "example.org";
pub const SECRET: &[u8] = b"an old and shared secret";
pub const START_UNIX: u64 = 1_700_000_000;
pub const RELAY_V4: &str = "5.45.96.1";
pub const RELAY_V6: &str = "2a03:4000::1";
pub const UDP: [u8; 4] = [17, 0, 0, 0];

/// A peer on the Internet.
pub fn peer(n: u8) -> PeerAddr {
    peer_at(SocketAddr::from(([8, 8, 8, n], 4000 + u16::from(n))))
}

/// An IPv6 peer on the Internet.
pub fn peer6(n: u16) -> PeerAddr {
    peer_at(SocketAddr::from(([0x2606, 0x4700, 0, 0, 0, 0, 0, n], 4000 + n)))
}

pub fn peer_at(addr: SocketAddr) -> PeerAddr {
    PeerAddr::new(addr).unwrap()
}

/// What was counted of payload.
pub fn traffic(packets: u64, bytes: u64) -> Traffic {
    Traffic { packets, bytes }
}

/// A client of its own address and port, over UDP.
pub fn client(n: u16) -> Client {
    client_over(Transport::Udp, n)
}

pub fn client_over(transport: Transport, n: u16) -> Client {
    let [high, low] = n.to_be_bytes();
    let five_tuple = FiveTuple {
        transport,
        client: ClientAddr::new(SocketAddr::from(([91, 20, high, low], 10_000 + n))),
        server: "5.45.96.1:3478".parse().unwrap(),
    };
    // Not the client's address: what is sent to it goes where the path says.
    let to = SocketAddr::from(([10, 9, high, low], 1));
    Client {
        five_tuple,
        path: Path::Datagrams(DatagramPath { socket: u32::from(n), to, from_ip: None }),
        realm: RealmId::DEFAULT,
    }
}

/// A world with many allocations, each with one channel.
pub fn crowd(count: u16) -> (World, Vec<(Client, RelayId)>) {
    let mut world = World::new();
    let mut all = Vec::new();
    for n in 0..count {
        world.relays.ports = vec![1024 + n];
        let login = world.allocated(n);
        let relay = world.relays.last.unwrap();
        assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), None);
        all.push((login.client, relay));
    }
    world.events();
    (world, all)
}

/// What a test may want otherwise.
#[derive(Clone)]
pub struct Options {
    pub rules: PeerRules,
    /// Peer policies by name; what is the host's own is that of `rules`.
    pub policies: Vec<(&'static str, PeerRules)>,
    pub lifetimes: Lifetimes,
    pub on_expiry: OnExpiry,
    pub quota: QuotaLimits,
    pub bandwidth: BandwidthLimits,
    pub guard: GuardLimits,
    pub unauthenticated: Option<turnstone::policy::RateLimit>,
    pub max_peers: usize,
    pub rfc5766_channel_numbers: bool,
    pub nat_discovery: Vec<turnstone::turn::NatDiscovery>,
    pub rfc3489: bool,
    pub software: Option<String>,
    pub tcp_relays: Option<TcpRelays>,
    /// Connections with peers that there may be, of all users.
    pub connections_max: usize,
    pub turn: bool,
    pub mobility: bool,
    pub redirect: Option<Arc<Redirect>>,
    pub users: Vec<(&'static str, &'static str)>,
    pub asks: Option<AskPolicy>,
    pub tokens: AccessTokens,
    pub realm: &'static str,
    pub secrets: Vec<&'static [u8]>,
    pub default_family: DefaultFamily,
    pub username_limits: bool,
    pub lifetime_max_secs: Option<u64>,
    /// The realms beside the default one.
    pub realms: Vec<RealmOptions>,
}

/// A realm beside the default one, with the secret of that one.
#[derive(Clone)]
pub struct RealmOptions {
    pub name: &'static str,
    pub users: Vec<(&'static str, &'static str)>,
    pub quota: QuotaLimits,
    pub bandwidth: BandwidthLimits,
    pub on_expiry: OnExpiry,
    pub peers: Option<&'static str>,
    pub username_limits: Option<bool>,
    pub server_names: Vec<&'static str>,
}

impl RealmOptions {
    pub fn named(name: &'static str) -> Self {
        Self {
            name,
            users: vec![("alice", "wonderland"), ("bob", "another")],
            quota: QuotaLimits::default(),
            bandwidth: BandwidthLimits::default(),
            on_expiry: OnExpiry::Keep,
            peers: None,
            username_limits: None,
            server_names: Vec::new(),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rules: PeerRules {
                own_endpoints: vec!["5.45.96.1:3478".parse().unwrap()],
                relay_addresses: vec![RELAY_V4.parse().unwrap(), RELAY_V6.parse().unwrap()],
                relay_ports: (49152, 65535),
                ..PeerRules::default()
            },
            policies: Vec::new(),
            lifetimes: Lifetimes::default(),
            on_expiry: OnExpiry::Keep,
            quota: QuotaLimits::default(),
            bandwidth: BandwidthLimits::default(),
            guard: GuardLimits::default(),
            unauthenticated: None,
            max_peers: 100,
            rfc5766_channel_numbers: false,
            nat_discovery: Vec::new(),
            rfc3489: false,
            software: None,
            tcp_relays: None,
            connections_max: usize::MAX,
            turn: true,
            mobility: false,
            redirect: None,
            users: vec![("alice", "wonderland"), ("bob", "builder")],
            asks: None,
            tokens: AccessTokens::default(),
            realm: REALM,
            secrets: vec![SECRET],
            default_family: DefaultFamily::default(),
            realms: Vec::new(),
            username_limits: false,
            lifetime_max_secs: None,
        }
    }
}

impl Options {
    fn credentials(&self, nonce_keys: &Arc<NonceKeys>) -> Credentials {
        let secrets = self.secrets.iter().enumerate();
        let secrets = secrets.map(|(n, bytes)| SharedSecret { id: n.to_string(), bytes: bytes.to_vec().into() });
        let builder = Credentials::builder(self.realm, Arc::clone(nonce_keys))
            .users(Users::from_pairs(self.realm, self.users.iter().copied()).unwrap())
            .secrets(secrets.collect())
            .access_tokens(self.tokens.clone())
            .username_limits(self.username_limits)
            .lifetime_max(self.lifetime_max_secs);
        match self.asks {
            Some(policy) => builder.asking(policy).build().unwrap(),
            None => builder.build().unwrap(),
        }
    }

    fn settings(&self, nonce_keys: &Arc<NonceKeys>) -> Arc<Settings> {
        let credentials = Arc::new(self.credentials(nonce_keys));
        let default = Arc::new(PeerAcl::compile(&self.rules).unwrap());
        let mut policies = PeerPolicies::new(Arc::clone(&default));
        for (name, rules) in &self.policies {
            let rules = PeerRules {
                own_endpoints: self.rules.own_endpoints.clone(),
                relay_addresses: self.rules.relay_addresses.clone(),
                relay_ports: self.rules.relay_ports,
                ..rules.clone()
            };
            policies = policies.with(name.parse().unwrap(), Arc::new(PeerAcl::compile(&rules).unwrap()));
        }
        let settings = Settings::builder(credentials, default)
            .peer_policies(policies)
            .lifetimes(self.lifetimes)
            .on_expiry(self.on_expiry)
            .quota(self.quota)
            .bandwidth(self.bandwidth)
            .guard(self.guard)
            .unauthenticated(self.unauthenticated)
            .max_peers_per_allocation(self.max_peers)
            .rfc5766_channel_numbers(self.rfc5766_channel_numbers)
            .nat_discovery(self.nat_discovery.clone())
            .rfc3489(self.rfc3489)
            .tcp_relays(self.tcp_relays)
            .software(self.software.clone())
            .default_family(self.default_family)
            .turn(self.turn)
            .mobility(self.mobility)
            .redirect(self.redirect.clone());
        let realm = |of: &RealmOptions| {
            let username_limits = of.username_limits.unwrap_or(self.username_limits);
            let same = Self { realm: of.name, users: of.users.clone(), username_limits, ..self.clone() };
            Realm::new(same.credentials(nonce_keys))
                .quota(of.quota)
                .bandwidth(of.bandwidth)
                .on_expiry(of.on_expiry)
                .peer_policy(of.peers.map(|name| name.parse().unwrap()))
                .server_names(of.server_names.iter().map(ToString::to_string).collect())
        };
        Arc::new(self.realms.iter().map(realm).fold(settings, SettingsBuilder::realm).build())
    }
}

/// The server, its surroundings and the clock.
pub struct World {
    pub server: Server,
    pub relays: FakeRelays,
    pub shared: Shared,
    pub now: Now,
    pub options: Options,
    /// Another server of the same process, whose turn it is not; see [`World::other_side`].
    pub elsewhere: Option<Server>,
    pub settings: Arc<Settings>,
    nonce_keys: Arc<NonceKeys>,
    next_transaction: u64,
}

/// Random numbers that are the same in every run.
fn fill_random(mut seed: u64) -> FillRandom {
    Box::new(move |out: &mut [u8]| {
        for byte in out {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (seed >> 56) as u8;
        }
    })
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        change(&mut options);
        let nonce_keys = Arc::new(NonceKeys::new([7; 32], 3600));
        let connection_ids = Arc::new(ConnectionIds::at_most(options.connections_max));
        let shared = Shared { connection_ids, ..Shared::default() };
        let settings = options.settings(&nonce_keys);
        Self {
            server: Server::new(Arc::clone(&settings), shared.clone(), fill_random(1)),
            elsewhere: None,
            settings,
            relays: FakeRelays::default(),
            shared,
            now: Now { micros: 5_000 * SECOND, unix_secs: START_UNIX },
            options,
            nonce_keys,
            next_transaction: 1,
        }
    }

    /// Puts a second server beside the first one, as another worker.
    pub fn split(&mut self) {
        let server = Server::new(Arc::clone(&self.settings), self.shared.clone(), fill_random(2));
        self.elsewhere = Some(server.with_ids(AllocationIds::of_worker(1)));
    }

    /// Makes it the other server's turn, if there are two.
    pub fn other_side(&mut self) {
        if let Some(elsewhere) = &mut self.elsewhere {
            std::mem::swap(&mut self.server, elsewhere);
            self.relays.side = 1 - self.relays.side;
        }
    }

    /// Does the same with each server.
    fn each_side(&mut self, mut what: impl FnMut(&mut Self)) {
        what(self);
        if self.elsewhere.is_some() {
            self.other_side();
            what(self);
            self.other_side();
        }
    }

    /// Takes an allocation out of the server whose turn it is and puts it in the other one, whose turn it is then.
    pub fn move_over(&mut self, id: AllocationId, client: Client) {
        let parcel = self.server.take_out(self.now, id).expect("it lives here");
        self.other_side();
        self.put_in(parcel, client).unwrap();
    }

    /// The same as if the other server were one of another process.
    pub fn move_as_parts(&mut self, id: AllocationId, client: Client) {
        let parcel = self.server.take_out(self.now, id).expect("it lives here");
        self.other_side();
        let mut parts = parcel.to_parts();
        parts.key = Key::short_term(parts.key.as_bytes());
        let arrived = Parcel::from_parts(self.now, parts, &self.settings, &self.shared);
        drop(parcel);
        self.put_in(arrived, client).unwrap();
    }

    /// Puts a parcel in, with its relay sockets.
    pub fn put_in(&mut self, parcel: Parcel, client: Client) -> Result<(), Returned> {
        let relays: Vec<RelayId> = parcel.relays().map(|relay| relay.id).collect();
        let moved: HashMap<_, _> = relays.iter().map(|relay| (*relay, self.relays.take_over(*relay))).collect();
        self.server.put_in(self.now, client, parcel, |relay| moved.get(&relay).copied(), &mut self.relays)
    }

    /// Reloads with changed options.
    pub fn reload(&mut self, change: impl FnOnce(&mut Options)) {
        self.begin_reload(change);
        self.each_side(|world| while world.server.judge(world.now, usize::MAX, &mut world.relays).is_none() {});
    }

    /// Changes the options, and leaves it to the test to have the allocations judged.
    pub fn begin_reload(&mut self, change: impl FnOnce(&mut Options)) {
        self.announce_reload(change);
        self.each_side(|world| world.server.apply(Arc::clone(&world.settings)));
    }

    /// Changes the options, and leaves it to the test to have each server hear of it.
    pub fn announce_reload(&mut self, change: impl FnOnce(&mut Options)) {
        change(&mut self.options);
        let settings = self.options.settings(&self.nonce_keys);
        self.settings = Arc::new(Settings::clone(&settings).counting_on(&self.settings));
    }

    /// The allocations that match, in one go.
    pub fn list(
        &self,
        filter: &AllocationFilter,
        after: Option<AllocationId>,
        limit: usize,
    ) -> Vec<turnstone::turn::AllocationView> {
        let mut listing = self.server.listing(filter.clone(), after, limit);
        self.server.list(self.now, &mut listing, usize::MAX);
        assert!(listing.is_done());
        listing.into_found()
    }

    /// What each user's allocations come to.
    pub fn user_totals(&self) -> Vec<turnstone::turn::UserTotal> {
        let mut totals = self.server.totals();
        self.server.add_up(self.now, &mut totals, usize::MAX);
        assert!(totals.is_done());
        totals.into_users()
    }

    /// Ends allocations in one go.
    pub fn kick(&mut self, filter: &AllocationFilter, id: Option<AllocationId>) -> Vec<Client> {
        let mut kicked = Vec::new();
        self.each_side(|world| {
            let mut kick = world.server.kicking(filter.clone(), id);
            kicked.extend(world.server.kick(world.now, &mut kick, usize::MAX, &mut world.relays));
            assert!(kick.is_done());
        });
        kicked
    }

    /// Revokes credentials, and ends their allocations in one go.
    pub fn revoke(&mut self, revocation: Revocation) -> Vec<Client> {
        self.shared.revocations.add(&revocation).unwrap();
        let mut ended = Vec::new();
        self.each_side(|world| {
            let mut kick = world.server.ending_revoked();
            ended.extend(world.server.kick(world.now, &mut kick, usize::MAX, &mut world.relays));
            assert!(kick.is_done());
        });
        ended
    }

    /// Lets time pass, with every timer at its time.
    pub fn pass(&mut self, secs: u64) {
        let end = self.now.micros + secs * SECOND;
        while let Some(due) = self.next_timeout().filter(|due| *due <= end) {
            self.set_micros(due.max(self.now.micros));
            // What is due at once is ended in parts.
            for _ in 0..1000 {
                self.each_side(|world| world.server.handle_timeout(world.now, &mut world.relays));
                if self.next_timeout().is_none_or(|next| next > self.now.micros) {
                    break;
                }
            }
            assert!(self.next_timeout().is_none_or(|next| next > self.now.micros), "the timer would spin");
        }
        self.set_micros(end);
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        [&self.server].into_iter().chain(&self.elsewhere)
    }

    /// When the first timer is due.
    pub fn next_timeout(&self) -> Option<u64> {
        self.servers().filter_map(Server::next_timeout).min()
    }

    /// Live allocations.
    pub fn allocations(&self) -> usize {
        self.servers().map(Server::allocations).sum()
    }

    /// The same, in milliseconds.
    pub fn pass_millis(&mut self, millis: u64) {
        let until = self.now.micros + millis * 1000;
        self.pass(0);
        self.set_micros(until);
    }

    /// Lets time pass while no timer is served, as under load.
    pub fn pass_unattended(&mut self, secs: u64) {
        self.set_micros(self.now.micros + secs * SECOND);
    }

    fn set_micros(&mut self, micros: u64) {
        self.now = Now { micros, unix_secs: START_UNIX + micros / SECOND - 5_000 };
    }

    /// Hands in raw bytes.
    pub fn hand_in(&mut self, client: Client, bytes: &[u8]) -> Answer {
        let mut reply = Vec::new();
        match self.server.handle_message(self.now, &client, bytes, &mut self.relays, &mut reply) {
            Outcome::Reply => Answer::Reply(Reply::read(reply)),
            Outcome::Detour(detour) => Answer::Detour(detour, Reply::read(reply)),
            Outcome::ToPeer(to_peer, range) => {
                assert!(reply.is_empty());
                self.server.note_sent(&to_peer, &bytes[range.clone()]);
                Answer::ToPeer(to_peer, bytes[range].to_vec())
            }
            Outcome::Waits => {
                assert!(reply.is_empty());
                Answer::Waits
            }
            Outcome::Elsewhere(_) => {
                assert!(reply.is_empty());
                self.pass_on(client, bytes)
            }
            Outcome::Binds(binding) => Answer::Binds(binding, Reply::read(reply)),
            Outcome::Dropped(dropped) => {
                assert!(reply.is_empty());
                Answer::Dropped(dropped)
            }
        }
    }

    pub fn transaction_id(&mut self) -> TransactionId {
        self.next_transaction += 1;
        let mut id = [0xAB; 12];
        id[..8].copy_from_slice(&self.next_transaction.to_be_bytes());
        TransactionId(id)
    }

    /// A request without credentials.
    pub fn bare(&mut self, method: Method, build: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
        message(Class::Request, method, self.transaction_id(), build)
    }

    /// Learns realm and nonce from the server, as a client's first request does.
    pub fn challenge(&mut self, client: Client) -> (String, Vec<u8>) {
        let bytes = self.bare(Method::ALLOCATE, |_| {});
        let reply = self.hand_in(client, &bytes).reply();
        assert_eq!(reply.code(), Some(401));
        (String::from_utf8(reply.get(AttributeType::REALM).unwrap()).unwrap(), reply.get(AttributeType::NONCE).unwrap())
    }

    /// A client that has its nonce.
    pub fn login(&mut self, client: Client, username: &str, password: &str) -> Login {
        let (realm, nonce) = self.challenge(client);
        let key = |algorithm| Key::long_term(algorithm, username.as_bytes(), realm.as_bytes(), password.as_bytes());
        Login {
            client,
            username: username.to_owned(),
            nonce,
            key: key(PasswordAlgorithm::Md5),
            sha256_key: key(PasswordAlgorithm::Sha256),
            algorithm: PasswordAlgorithm::Md5,
            realm,
        }
    }

    pub fn alice(&mut self, client: Client) -> Login {
        self.login(client, "alice", "wonderland")
    }

    /// A client with a time-limited credential.
    pub fn guest(&mut self, client: Client, user: &str, seconds: u64) -> Login {
        let username = format!("{}:{user}", self.now.unix_secs + seconds);
        let password = mint(SECRET, &username);
        self.login(client, &username, &password)
    }

    /// Sends an authenticated request; a response that must carry integrity is checked to.
    pub fn request(&mut self, login: &Login, method: Method, build: impl FnOnce(&mut Encoder<'_>)) -> Reply {
        let bytes = login.request(self.transaction_id(), method, build);
        let reply = self.hand_in(login.client, &bytes).reply();
        assert_eq!(reply.method, method);
        assert_eq!(reply.transaction_id, Message::parse(&bytes).unwrap().transaction_id());
        if reply.integrity.is_some() {
            assert!(reply.is_signed_by(login), "the response's integrity is wrong");
        } else {
            assert!(matches!(reply.code(), Some(400 | 401 | 438)), "{:?} without integrity", reply.code());
        }
        reply
    }

    /// Allocates as plainly as can be.
    pub fn allocate(&mut self, login: &Login) -> Reply {
        let reply = self.request(login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        });
        assert_eq!(reply.code(), None, "the allocation is refused");
        reply
    }

    /// A client with an allocation.
    pub fn allocated(&mut self, n: u16) -> Login {
        let login = self.alice(client(n));
        self.allocate(&login);
        login
    }

    /// A client with an IPv4 and an IPv6 relay.
    pub fn allocated_dual(&mut self, n: u16) -> Login {
        let login = self.alice(client(n));
        let reply = self.request(&login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
            request.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
        });
        assert_eq!(reply.code(), None);
        login
    }

    pub fn refresh(&mut self, login: &Login, lifetime_secs: Option<u32>) -> Reply {
        self.request(login, Method::REFRESH, |request| {
            if let Some(secs) = lifetime_secs {
                request.u32(AttributeType::LIFETIME, secs);
            }
        })
    }

    pub fn permit(&mut self, login: &Login, peers: &[PeerAddr]) -> Reply {
        self.request(login, Method::CREATE_PERMISSION, |request| {
            for peer in peers {
                request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer.get());
            }
        })
    }

    pub fn bind(&mut self, login: &Login, channel: u16, peer: PeerAddr) -> Reply {
        self.bind_raw(login, channel, peer.get())
    }

    pub fn bind_raw(&mut self, login: &Login, channel: u16, peer: SocketAddr) -> Reply {
        self.request(login, Method::CHANNEL_BIND, |request| {
            request.u32(AttributeType::CHANNEL_NUMBER, u32::from(channel) << 16);
            request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        })
    }

    pub fn send(&mut self, client: Client, peer: PeerAddr, data: &[u8]) -> Answer {
        self.send_raw(client, peer.get(), data)
    }

    pub fn send_raw(&mut self, client: Client, peer: SocketAddr, data: &[u8]) -> Answer {
        let bytes = message(Class::Indication, Method::SEND, self.transaction_id(), |indication| {
            indication.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
            indication.attribute(AttributeType::DATA, data);
        });
        self.hand_in(client, &bytes)
    }

    pub fn channel_data(&mut self, client: Client, channel: u16, data: &[u8]) -> Result<(ToPeer, Vec<u8>), Dropped> {
        let mut bytes = channel.to_be_bytes().to_vec();
        bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        bytes.extend_from_slice(data);
        self.channel_data_raw(&client, &bytes).map(|(to_peer, range)| (to_peer, bytes[range].to_vec()))
    }

    /// Routes a datagram of ChannelData.
    pub fn channel_data_raw(&mut self, client: &Client, datagram: &[u8]) -> Result<(ToPeer, Range<usize>), Dropped> {
        match MessageKind::of_datagram(datagram) {
            Some(MessageKind::ChannelData(message)) => {
                let to_peer = self.server.route_channel_data(self.now, &client.five_tuple, message)?;
                self.server.note_sent(&to_peer, &datagram[message.payload()]);
                Ok((to_peer, message.payload()))
            }
            _ => Err(Dropped::Malformed),
        }
    }

    /// Media of so many bytes.
    pub fn inbound(&mut self, relay: RelayId, peer: PeerAddr, len: usize) -> Result<ToClient, Dropped> {
        self.server.route_from_peer(self.now, relay, peer, &vec![0xEE; len])
    }

    /// The open relay of a family; there is one.
    pub fn relay(&self, family: Family) -> RelayId {
        let mut found = self.relays.open.iter().filter(|(_, relayed)| relayed.family() == family);
        let (id, _) = found.next().expect("an open relay");
        assert!(found.next().is_none(), "more than one relay is open");
        *id
    }

    pub fn events(&mut self) -> Vec<Event> {
        let servers = [&mut self.server].into_iter().chain(&mut self.elsewhere);
        servers.flat_map(|server| std::iter::from_fn(|| server.poll_event())).collect()
    }

    /// What must hold at any time: quota, allocations and relay sockets agree.
    pub fn check_books(&self) {
        let allocations = self.allocations();
        assert_eq!(self.shared.quotas.in_use() as usize, allocations, "quota and allocations");
        for server in self.servers() {
            assert_eq!(server.timers(), server.allocations(), "timers and allocations");
        }
        let open = self.relays.open.len() + self.relays.tcp.len();
        assert!(open >= allocations, "an allocation without a relay");
        assert!(open <= 2 * allocations, "a relay without an allocation");
    }
}

/// The refusals among events.
pub fn refusals(events: &[Event]) -> Vec<Reason> {
    let reason = |event: &Event| match event {
        Event::Refused(refusal) => Some(refusal.reason),
        _ => None,
    };
    events.iter().filter_map(reason).collect()
}
