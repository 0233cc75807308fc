//! Relay sockets of one worker on loopback addresses that no other test uses.

use super::super::random::fill_from_system;
use super::super::relay_socket::BUSY_AFTER;
use super::*;
use crate::net::sys::{Events, Outward};
use crate::turn::Client;
use crate::turn::Relays;
use crate::user::User;
use std::net::UdpSocket;

/// The relay sockets of one address of this host, which no other test uses.
fn relays(ip: &str, ports: (u16, u16), busy_sockets: u64, fill_random: fn(&mut [u8])) -> RelaySockets {
    let ip: IpAddr = ip.parse().unwrap();
    let mut descriptors = Descriptors::share_out(1 << 16, 0, 1000, 0, Outward::default());
    descriptors.busy_sockets = busy_sockets;
    let from = RelaySources {
        ports: RelayPorts::new(&[(ip, ip)], ports),
        reservations: Arc::new(Reservations::new(10)),
        descriptors,
        fill_random,
        loopback_peers: false,
        choice: RelayChoice::LeastUsed,
        by_listener: Vec::new(),
        sharing_workers: None,
    };
    RelaySockets::new(0, Arc::new(Epoll::new().unwrap()), Arc::default(), from)
}

/// Sockets of somebody else.
fn foreign(ip: &str, ports: impl Iterator<Item = u16>) -> Vec<UdpSocket> {
    ports.map(|port| UdpSocket::bind((ip, port)).unwrap()).collect()
}

#[test]
fn ports_that_other_programs_hold_are_passed_over_and_given_back() {
    const IP: &str = "127.77.1.1";
    let mut relays = relays(IP, (20_000, 20_039), 0, fill_from_system);
    let mut others = foreign(IP, (20_000..=20_039).filter(|port| *port != 20_021));
    let open = |relays: &mut RelaySockets, port| relays.open(0, Family::V4, port).map(|open| open.relayed.get().port());
    assert_eq!(open(&mut relays, PortRequest::Any), Ok(20_021));
    for port in [PortRequest::Any, PortRequest::Even] {
        assert_eq!(open(&mut relays, port), Err(RelayError::NoPort));
    }
    assert_eq!(relays.ports.used(Family::V4), 1, "the ports that were tried are not held");
    // Of a pair, both have to be free.
    let user = User::fixed("ann");
    let pair = PortRequest::EvenAndReserveNext { user: &user, per_user_max: None };
    drop(others.remove(10));
    assert_eq!(open(&mut relays, pair), Err(RelayError::NoPort));
    drop(others.remove(10));
    assert_eq!(open(&mut relays, pair), Ok(20_010));
    assert_eq!(relays.ports.used(Family::V4), 3);
}

#[test]
fn the_search_among_ports_that_other_programs_hold_has_an_end() {
    const IP: &str = "127.77.1.2";
    // With this random number, ports are tried in their order.
    let mut relays = relays(IP, (20_000, 20_999), 0, |random| random.fill(0));
    let mut others = foreign(IP, (20_000..).take(BIND_TRIES_MAX + 1));
    assert_eq!(relays.open(0, Family::V4, PortRequest::Any), Err(RelayError::NoPort));
    others.pop();
    let open = relays.open(0, Family::V4, PortRequest::Any).unwrap();
    assert_eq!(usize::from(open.relayed.get().port()), 20_000 + BIND_TRIES_MAX);
}

#[test]
fn no_more_relays_than_allowed_have_a_socket_for_their_busiest_peer() {
    let mut relays = relays("127.77.1.3", (20_000, 20_009), 1, fill_from_system);
    let peers = [(); 2].map(|()| UdpSocket::bind("127.77.1.3:0").unwrap().local_addr().unwrap());
    let [first, second] = [(); 2].map(|()| relays.open(0, Family::V4, PortRequest::Any).unwrap().id);
    let mut connected = |id, peer, count| relays.towards(id, peer, count).unwrap().1;
    assert!(!connected(first, peers[0], BUSY_AFTER as u16 - 1) && connected(first, peers[0], 1));
    assert!(!connected(second, peers[0], 64) && !connected(second, peers[0], 64));
    // Another peer gets it in place of the first.
    assert!(connected(first, peers[1], 64) && !connected(first, peers[0], 1));
    relays.close(first);
    assert!(relays.towards(first, peers[1], 64).is_none());
    assert!(relays.towards(second, peers[1], 64).unwrap().1, "there is room again");
    assert_eq!(relays.sockets.busy, 1);
}

#[test]
fn a_relay_that_another_worker_takes_over_keeps_its_port_its_sockets_and_what_has_arrived() {
    const IP: &str = "127.77.1.4";
    let mut from = relays(IP, (20_000, 20_009), 1, fill_from_system);
    let mut to = RelaySockets { worker: 1, ..relays(IP, (1, 1), 1, fill_from_system) };
    (to.ports, to.addresses) = (Arc::clone(&from.ports), from.ports.addresses());
    let opened = from.open(0, Family::V4, PortRequest::Any).unwrap();
    let peers = [(); 2].map(|()| UdpSocket::bind((IP, 0)).unwrap());
    let [busy, other] = [0, 1].map(|peer: usize| peers[peer].local_addr().unwrap());
    assert!(from.towards(opened.id, busy, BUSY_AFTER as u16).unwrap().1);
    for peer in &peers {
        peer.send_to(b"early", opened.relayed.get()).unwrap();
    }
    from.wait_for_turn(Turn { id: opened.id, busy: false, error: false });
    let given = from.give_away(opened.id, 1).unwrap();
    assert!(from.towards(opened.id, other, 1).is_none() && from.next_turn().is_none());
    assert_eq!((from.sockets.busy, from.ports.used(Family::V4)), (0, 1));
    let taken = to.take_over(given).unwrap();
    assert_eq!(taken.relayed, opened.relayed);
    assert_eq!(to.owner(opened.relayed.get()).unwrap().worker, 1);
    assert!(to.towards(taken.id, busy, 1).unwrap().1 && !to.towards(taken.id, other, 1).unwrap().1);
    let mut events = Events::new(4);
    assert_eq!(from.sockets.epoll.wait(&mut events, 0).unwrap(), 0);
    assert_eq!(to.sockets.epoll.wait(&mut events, 1000).unwrap(), 2, "what came before is there to be read");
    to.close(taken.id);
    assert_eq!((to.sockets.busy, from.ports.used(Family::V4)), (0, 0));
}

#[test]
fn of_several_addresses_a_client_gets_the_one_it_has_reached_or_else_the_least_used() {
    let ips = ["127.77.1.5", "127.77.1.6"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let outside = ["203.0.113.5", "203.0.113.6"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let mut relays = relays("127.77.1.5", (20_000, 20_009), 0, fill_from_system);
    relays.ports = RelayPorts::new(&[(ips[0], outside[0]), (ips[1], outside[1])], (20_000, 20_009));
    relays.addresses = relays.ports.addresses();
    let open = |relays: &mut RelaySockets, reached: &str, port| {
        let client = Client::over_udp(([198, 51, 100, 1], 4000).into(), format!("{reached}:3478").parse().unwrap());
        relays.open_for(&client.five_tuple, 0, Family::V4, port).map(|open| open.relayed.get().ip())
    };
    let spread: Vec<_> = (0..4).map(|_| open(&mut relays, "127.77.1.5", PortRequest::Any).unwrap()).collect();
    assert_eq!(spread.iter().filter(|ip| **ip == outside[0]).count(), 2);
    let listener = ListenerRelays {
        kind: SocketKind::Udp,
        address: "0.0.0.0:3478".parse().unwrap(),
        relays: Arc::new([outside[1]]),
    };
    relays.by_listener.push(listener);
    for _ in 0..2 {
        assert_eq!(open(&mut relays, "127.77.1.5", PortRequest::Any), Ok(outside[1]), "the listener names it");
    }
    relays.by_listener[0].address.set_port(3479);
    relays.choice = RelayChoice::Reached;
    for reached in ["127.77.1.6", "203.0.113.6"] {
        for _ in 0..3 {
            assert_eq!(open(&mut relays, reached, PortRequest::Any), Ok(outside[1]));
        }
    }
    assert_eq!(open(&mut relays, "127.0.0.1", PortRequest::Even), Ok(outside[0]));
    assert_eq!(
        open(&mut relays, "127.77.1.6", PortRequest::Any),
        Ok(outside[0]),
        "the one it has reached has no port left"
    );
    let owner = relays.owner(SocketAddr::new(outside[1], 20_003)).map(|owner| owner.worker);
    assert_eq!(owner, Some(0), "all of its ports are held");
    // 508 only when all are.
    let left = std::iter::from_fn(|| open(&mut relays, "127.77.1.6", PortRequest::Any).ok());
    assert_eq!(left.collect::<Vec<_>>(), [outside[0]; 6]);
    assert_eq!(open(&mut relays, "127.77.1.6", PortRequest::Any), Err(RelayError::NoPort));
}

#[test]
fn pairs_of_ports_are_reserved_at_each_of_several_addresses_until_none_is_left() {
    let ips = ["127.77.1.8", "127.77.1.9"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let mut relays = relays("127.77.1.8", (20_000, 20_003), 0, fill_from_system);
    relays.ports = RelayPorts::new(&ips.map(|ip| (ip, ip)), (20_000, 20_003));
    relays.addresses = relays.ports.addresses();
    let user = User::fixed("ann");
    let pair = PortRequest::EvenAndReserveNext { user: &user, per_user_max: None };
    let mut firsts = Vec::new();
    for n in 1..=4 {
        let first = relays.open(0, Family::V4, pair).unwrap();
        let next = relays.open_reserved(0, first.reservation.unwrap(), &user).unwrap();
        let (first, next) = (first.relayed.get(), next.relayed.get());
        assert!(first.ip() == next.ip() && first.port() % 2 == 0 && next.port() == first.port() + 1, "{first} {next}");
        firsts.push(first.ip());
        if n % 2 == 0 {
            assert_eq!(ips.map(|ip| firsts.iter().filter(|of| **of == ip).count()), [n / 2; 2]);
        }
    }
    assert_eq!(relays.open(0, Family::V4, pair), Err(RelayError::NoPort));
}

#[test]
fn allocations_share_the_ports_of_their_worker_the_least_used_first_and_the_last_one_closes_it() {
    const IP: &str = "127.77.1.7";
    let mut both = [0, 1].map(|worker| {
        let mut relays = relays(IP, (20_000, 20_003), 5, fill_from_system);
        relays.shared = Some(SharedSockets::new(worker, 2));
        relays.worker = worker;
        relays
    });
    let ports = Arc::clone(&both[0].ports);
    (both[1].ports, both[1].addresses) = (Arc::clone(&ports), ports.addresses());
    let user = User::fixed("ann");
    let of_both: Vec<Vec<_>> = both
        .iter_mut()
        .map(|relays| {
            assert_eq!(relays.open(0, Family::V4, PortRequest::Even), Err(RelayError::SharedPorts));
            assert_eq!(relays.open_reserved(0, [0; 8], &user), Err(RelayError::SharedPorts));
            (0..6).map(|_| relays.open(0, Family::V4, PortRequest::Any).unwrap()).collect()
        })
        .collect();
    for (worker, opened) in of_both.iter().enumerate() {
        for port in [20_000, 20_002].map(|even| even + worker as u16) {
            let shares: Vec<_> = opened.iter().filter(|open| open.relayed.get().port() == port).collect();
            assert_eq!(shares.len(), 3, "{port}");
            let relays = &mut both[worker];
            let id = relays.shared_port(shares[0].id).unwrap();
            assert!(shares.iter().all(|share| relays.shared_port(share.id) == Some(id)));
            let owner = relays.owner(shares[0].relayed.get()).unwrap();
            assert_eq!((usize::from(owner.worker), owner.index, owner.generation), (worker, id.index, id.generation));
        }
    }
    assert_eq!(ports.used(Family::V4), 4);
    let relays = &mut both[0];
    let peer = UdpSocket::bind((IP, 0)).unwrap();
    let to = peer.local_addr().unwrap();
    let share = of_both[0][0];
    assert!(
        !relays.towards(share.id, to, 64).unwrap().1 && !relays.towards(share.id, to, 64).unwrap().1,
        "never connected"
    );
    assert!(relays.give_away(share.id, 1).is_none(), "it stays");
    let of_port: Vec<_> = of_both[0].iter().filter(|open| open.relayed == share.relayed).collect();
    for open in of_port {
        assert_eq!(ports.used(Family::V4), 4);
        relays.close(open.id);
        assert!(relays.get(open.id).is_none());
    }
    assert_eq!((ports.used(Family::V4), relays.owner(share.relayed.get())), (3, None));
    // A port that another program has is passed over, and had once that is gone.
    let foreign = UdpSocket::bind(share.relayed.get()).unwrap();
    let next = relays.open(0, Family::V4, PortRequest::Any).unwrap();
    assert_ne!(next.relayed, share.relayed);
    drop(foreign);
    assert_eq!(relays.open(0, Family::V4, PortRequest::Any).unwrap().relayed, share.relayed);
}
