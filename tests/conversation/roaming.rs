//! Any sequence of moves (RFC 8016) of several clients of two realms between two servers, against a model that is told nothing but what the
//! clients do: where each allocation is, who may use which ticket, when each answer is a refusal, and when what ends.

use proptest::prelude::*;
use turnstone::addr::{Family, Transport};
use turnstone::clock::SECOND;
use turnstone::policy::QuotaLimits;
use turnstone::reject::Dropped;
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::{Client, DatagramPath, Event, Path, RelayId, SessionId, StreamId};
use turnstone::user::RealmId;

use crate::harness::*;

const REALMS: [&str; 2] = [REALM, "b.example"];
/// Users by realm; the two alices have the same password.
const USERS: [[(&str, &str); 2]; 2] =
    [[("alice", "wonderland"), ("bob", "builder")], [("alice", "wonderland"), ("bob", "another")]];
/// Each place is a 5-tuple: its realm, the server that it comes to and its transport are bits of its number.
const PLACES: usize = 16;
const LIFETIME_SECS: u64 = 600;
const PERMISSION_SECS: u64 = 300;
const PENDING_SECS: u64 = 300;
const AWAY_SECS: u64 = 120;
const RETIRED_SECS: u64 = 40;

#[derive(Clone, Debug)]
enum Step {
    Allocate {
        place: usize,
        user: usize,
        mobile: bool,
    },
    /// Shows one of an allocation's last tickets; the allocation and the user are not always those of the place's realm.
    ComeBack {
        nth: usize,
        place: usize,
        user: Option<usize>,
        back: usize,
        twice: bool,
    },
    Refresh {
        place: usize,
        user: usize,
        release: bool,
    },
    ChannelData {
        place: usize,
    },
    Send {
        place: usize,
    },
    Gone {
        place: usize,
    },
    Pass {
        secs: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0..PLACES;
    prop_oneof![
        3 => (place.clone(), 0..2usize, prop::bool::weighted(0.9))
            .prop_map(|(place, user, mobile)| Step::Allocate { place, user, mobile }),
        8 => (0..8usize, place.clone(), prop::option::weighted(0.1, 0..2usize), prop_oneof![4 => Just(0usize), 2 => Just(1), 1 => 2..4usize], prop::bool::weighted(0.2))
            .prop_map(|(nth, place, user, back, twice)| Step::ComeBack { nth, place, user, back, twice }),
        2 => (place.clone(), 0..2usize, prop::bool::weighted(0.2))
            .prop_map(|(place, user, release)| Step::Refresh { place, user, release }),
        4 => place.clone().prop_map(|place| Step::ChannelData { place }),
        2 => place.clone().prop_map(|place| Step::Send { place }),
        3 => place.prop_map(|place| Step::Gone { place }),
        3 => prop_oneof![3 => 0..3u64, 2 => 0..60u64, 1 => 0..400u64].prop_map(|secs| Step::Pass { secs }),
    ]
}

fn realm_of(place: usize) -> usize {
    place & 1
}

fn home_of(place: usize) -> usize {
    place >> 1 & 1
}

fn transport_of(place: usize) -> Transport {
    [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Dtls][place >> 2 & 3]
}

fn client_at(place: usize) -> Client {
    let transport = transport_of(place);
    let client = client_over(transport, place as u16);
    let (index, generation) = (place as u32, 1);
    let path = match transport {
        Transport::Udp => {
            Path::Datagrams(DatagramPath { socket: index, to: client.five_tuple.client.get(), from_ip: None })
        }
        Transport::Dtls => Path::Session(SessionId { index, generation }),
        _ => Path::Stream(StreamId { index, generation }),
    };
    Client { path, realm: if realm_of(place) == 0 { RealmId::DEFAULT } else { RealmId::of(REALMS[1]) }, ..client }
}

/// What is true of an allocation.
#[derive(Debug)]
struct Truth {
    realm: usize,
    user: usize,
    relayed: String,
    /// Where it is; nowhere after its connection has closed.
    at: Option<usize>,
    /// Where it is to move, and until when.
    pending: Option<(usize, u64)>,
    /// The ticket that is good, and those before it; none if it is not mobile. Each can come in several copies.
    tickets: Vec<Vec<Vec<u8>>>,
    /// Where the ticket before it was shown, and until when it is known there again.
    retired: Option<(usize, u64)>,
    until: u64,
    permitted_until: u64,
    /// When moves so far are paid for.
    paid_until: u64,
}

struct Play {
    world: World,
    all: Vec<Truth>,
    moves: usize,
}

impl Play {
    fn new() -> Self {
        let mut world = World::with(|options| {
            options.mobility = true;
            options.quota = QuotaLimits { total: Some(6), ..QuotaLimits::default() };
            options.users = USERS[0].to_vec();
            options.realms = vec![RealmOptions { users: USERS[1].to_vec(), ..RealmOptions::named(REALMS[1]) }];
        });
        world.split();
        Self { world, all: Vec::new(), moves: 0 }
    }

    fn now(&self) -> u64 {
        self.world.now.micros
    }

    fn in_secs(&self, secs: u64) -> u64 {
        self.now() + secs * SECOND
    }

    /// Makes it the turn of the server that a place's messages come to.
    fn turn_to(&mut self, place: usize) -> Client {
        self.turn_to_side(home_of(place));
        client_at(place)
    }

    fn turn_to_side(&mut self, side: usize) {
        if self.world.relays.side != side {
            self.world.other_side();
        }
    }

    fn login(&mut self, place: usize, user: usize) -> Login {
        let client = self.turn_to(place);
        let (name, password) = USERS[realm_of(place)][user];
        self.world.login(client, name, password)
    }

    /// The allocation that is at a place, or is to move there.
    fn holder_of(&self, place: usize) -> Option<usize> {
        let holds = |of: &Truth| of.at == Some(place) || of.pending.is_some_and(|(at, _)| at == place);
        self.all.iter().position(holds)
    }

    /// Binds the channel, so that it lasts as long as the allocation.
    fn bind(&mut self, login: &Login) {
        assert_eq!(self.world.bind(login, 0x4000, peer(1)).code(), None, "requests come by both places");
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Allocate { place, user, mobile } => self.allocate(place, user, mobile),
            Step::ComeBack { nth, place, user, back, twice } if !self.all.is_empty() => {
                let nth = nth % self.all.len();
                let user = user.unwrap_or(self.all[nth].user);
                for _ in 0..=usize::from(twice) {
                    if nth < self.all.len() {
                        self.come_back(nth, place, user, back);
                    }
                }
            }
            Step::Refresh { place, user, release } => self.refresh(place, user, release),
            Step::ChannelData { place } => self.send(place, true),
            Step::Send { place } => self.send(place, false),
            Step::Gone { place } => self.gone(place),
            Step::Pass { secs } => self.pass(secs),
            Step::ComeBack { .. } => {}
        }
        self.world.follow_orders();
        self.check();
    }

    fn allocate(&mut self, place: usize, user: usize, mobile: bool) {
        let login = self.login(place, user);
        let reply = self.world.request(&login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
            if mobile {
                request.attribute(AttributeType::MOBILITY_TICKET, b"");
            }
        });
        if self.holder_of(place).is_some() {
            return assert_eq!(reply.code(), Some(437), "the place is taken");
        }
        if self.all.len() == 6 {
            return assert_eq!(reply.code(), Some(486), "moves do not change what counts");
        }
        assert_eq!(reply.code(), None);
        let ticket = reply.get(AttributeType::MOBILITY_TICKET);
        assert_eq!(ticket.is_some(), mobile);
        let relayed = self.world.relays.open[&self.world.relays.last.unwrap()].to_string();
        self.bind(&login);
        self.all.push(Truth {
            realm: realm_of(place),
            user,
            relayed,
            at: Some(place),
            pending: None,
            tickets: ticket.into_iter().map(|ticket| vec![ticket]).collect(),
            retired: None,
            until: self.in_secs(LIFETIME_SECS),
            permitted_until: self.in_secs(PERMISSION_SECS),
            paid_until: 0,
        });
    }

    fn come_back(&mut self, nth: usize, place: usize, user: usize, back: usize) {
        let of = &self.all[nth];
        let Some(copies) = of.tickets.iter().rev().nth(back) else { return };
        let ticket = copies[copies.len() - 1].clone();
        let login = self.login(place, user);
        let reply = self.world.request(&login, Method::REFRESH, |request| {
            request.attribute(AttributeType::MOBILITY_TICKET, &ticket);
        });
        let now = self.now();
        let of = &self.all[nth];
        let is_again = back == 1 && of.retired.is_some_and(|(at, until)| at == place && now < until);
        let is_at_rest = of.at == Some(place) && of.pending.is_none() || of.pending.is_some_and(|(at, _)| at == place);
        let is_again = is_again && is_at_rest;
        let is_owner = (of.realm, of.user) == (realm_of(place), user);
        let paid = of.paid_until.max(now);
        let expected = if self.holder_of(place).is_some_and(|holder| holder != nth) {
            Some(437)
        } else if !is_owner {
            Some(441)
        } else if is_again {
            None
        } else if of.at == Some(place) || back > 0 {
            Some(400)
        } else if paid - now > 4 * SECOND {
            Some(508)
        } else {
            None
        };
        assert_eq!(reply.code(), expected, "{of:?} at {place} by {user}, {back} back");
        if expected.is_some() {
            return assert_eq!(reply.get(AttributeType::MOBILITY_TICKET), None);
        }
        let next = reply.get(AttributeType::MOBILITY_TICKET).unwrap();
        self.bind(&login);
        let (until, pending_until, retired_until) =
            (self.in_secs(LIFETIME_SECS), self.in_secs(PENDING_SECS), self.in_secs(RETIRED_SECS));
        let permitted_until = self.in_secs(PERMISSION_SECS);
        let of = &mut self.all[nth];
        (of.until, of.permitted_until) = (until, permitted_until);
        if is_again {
            return of.tickets.last_mut().unwrap().push(next);
        }
        of.tickets.push(vec![next]);
        of.paid_until = paid + SECOND;
        of.retired = Some((place, retired_until));
        match of.at {
            Some(_) => of.pending = Some((place, pending_until)),
            None => {
                of.at = Some(place);
                self.moves += 1;
            }
        }
    }

    fn refresh(&mut self, place: usize, user: usize, release: bool) {
        let login = self.login(place, user);
        let reply = self.world.refresh(&login, release.then_some(0));
        let Some(nth) = self.holder_of(place) else { return assert_eq!(reply.code(), Some(437)) };
        if self.all[nth].user != user {
            return assert_eq!(reply.code(), Some(441));
        }
        assert_eq!(reply.code(), None);
        if release {
            self.all.remove(nth);
            return;
        }
        self.bind(&login);
        self.all[nth].permitted_until = self.in_secs(PERMISSION_SECS);
        self.all[nth].until = self.in_secs(LIFETIME_SECS);
    }

    fn send(&mut self, place: usize, by_channel: bool) {
        let client = self.turn_to(place);
        let mut sent = self.send_once(client, by_channel);
        if sent == Err(Dropped::Moving) {
            self.world.claim(client);
            sent = self.send_once(client, by_channel);
        }
        let Some(nth) = self.holder_of(place) else { return assert_eq!(sent, Err(Dropped::NoAllocation)) };
        let now = self.now();
        let of = &mut self.all[nth];
        // A permission lasts for half as long as a channel. What is dropped for want of it has come all the same.
        let is_permitted = by_channel || now < of.permitted_until;
        assert_eq!(sent, if is_permitted { Ok(of.relayed.clone()) } else { Err(Dropped::NoPermission) });
        if of.pending.take_if(|(at, _)| *at == place).is_some() {
            of.at = Some(place);
            self.moves += 1;
        }
    }

    /// The relayed address that data leaves from.
    fn send_once(&mut self, client: Client, by_channel: bool) -> Result<String, Dropped> {
        let way = if by_channel {
            self.world.channel_data(client, 0x4000, b"x")?.0
        } else {
            match self.world.send(client, peer(1), b"x") {
                Answer::Dropped(dropped) => return Err(dropped),
                other => other.into_peer().0,
            }
        };
        assert_eq!(self.world.relays.sides[&way.relay], self.world.relays.side);
        Ok(self.world.relays.open[&way.relay].to_string())
    }

    /// The connection or session of a place closes; over UDP there is none.
    fn gone(&mut self, place: usize) {
        if transport_of(place) == Transport::Udp {
            return;
        }
        let five_tuple = self.turn_to(place).five_tuple;
        self.world.server.client_gone(self.world.now, &five_tuple, &mut self.world.relays);
        let away_until = self.in_secs(AWAY_SECS);
        let Some(nth) = self.holder_of(place) else { return };
        let of = &mut self.all[nth];
        if of.pending.take_if(|(at, _)| *at == place).is_some() {
            // The old way stays, and what was shown there is worth nothing.
            of.retired = None;
        } else if of.tickets.is_empty() {
            self.all.remove(nth);
        } else if let Some((next, _)) = of.pending.take() {
            of.at = Some(next);
            self.moves += 1;
        } else {
            of.at = None;
            of.until = of.until.min(away_until);
        }
    }

    fn pass(&mut self, secs: u64) {
        self.world.pass(secs);
        // Timers have ticks, and may end an allocation a little later.
        while self.all.iter().any(|of| of.until <= self.now() && of.until + 3 * SECOND > self.now()) {
            self.world.pass(3);
        }
        let now = self.now();
        self.all.retain(|of| of.until > now);
        for of in &mut self.all {
            of.pending.take_if(|(_, until)| *until <= now);
        }
    }

    /// What must hold at any time.
    fn check(&mut self) {
        assert_eq!(self.world.allocations(), self.all.len());
        self.world.check_books();
        let pending: usize = (0..2)
            .map(|_| {
                self.world.other_side();
                self.world.server.pending_moves()
            })
            .sum();
        assert_eq!(pending, self.all.iter().filter(|of| of.pending.is_some()).count());
        for nth in 0..self.all.len() {
            let of = &self.all[nth];
            let (relay, side) = relay_of(&self.world, &of.relayed);
            let Some(place) = of.at else { continue };
            assert_eq!(side, home_of(place), "the allocation is where its client is: {of:?}");
            self.turn_to_side(side);
            let to = self.world.inbound(relay, peer(1), 10).unwrap().client;
            assert_eq!(to, client_at(place));
        }
        for event in self.world.events() {
            match event {
                Event::Moved { .. } => self.moves -= 1,
                Event::Refused(_) | Event::Allocated { .. } | Event::Ended(_) => {}
                Event::RouteBound { .. } | Event::RouteGone { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.moves, 0, "each move is told once");
    }
}

/// The relay of an address, and the server that has it.
fn relay_of(world: &World, relayed: &str) -> (RelayId, usize) {
    let found = world.relays.open.iter().find(|(_, of)| of.to_string() == relayed && of.family() == Family::V4);
    let id = *found.expect("its relay is open").0;
    (id, world.relays.sides[&id])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_clients_roam_each_has_its_own_allocation_and_nobody_elses(steps in prop::collection::vec(step(), 1..120)) {
        let mut play = Play::new();
        for step in steps {
            play.play(step);
        }
        play.play(Step::Pass { secs: 10_000 });
        prop_assert_eq!(play.world.relays.open.len(), 0);
        prop_assert_eq!((play.world.shared.quotas.in_use(), play.world.shared.quotas.users()), (0, 0));
        prop_assert_eq!(play.world.next_timeout(), None);
    }
}
