//! The peer-policy matrix by every method: CreatePermission, ChannelBind, Send and inbound datagrams.

use std::net::SocketAddr;

use turnstone::addr::{Family, PeerAddr};
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::{Encapsulation, Event};

use crate::harness::*;
use crate::rows;

const PORT: u16 = 40_000;

#[test]
fn every_row_is_judged_the_same_by_every_method() {
    let matrix = rows::matrix();
    assert!(matrix.iter().filter(|(_, denied, _)| *denied).count() > 500);
    assert!(matrix.iter().filter(|(_, denied, _)| !*denied).count() > 30);
    for (ip, denied, label) in matrix {
        let mut world = World::new();
        let login = world.allocated_dual(1);
        let addr = SocketAddr::new(ip, PORT);
        let relay = world.relay(Family::of(ip));
        let peer = PeerAddr::new(addr);

        // Without a permission nothing passes, whatever the policy says.
        world.send_raw(login.client, addr, b"x").dropped();
        if let Ok(peer) = peer {
            assert_eq!(world.inbound(relay, peer, 1), Err(Dropped::NoPermission), "{label}");
        }
        let permitted = world.request(&login, Method::CREATE_PERMISSION, |request| {
            request.xor_address(AttributeType::XOR_PEER_ADDRESS, addr);
        });
        assert_eq!(permitted.code(), denied.then_some(403), "CreatePermission: {label}");
        if denied {
            world.send_raw(login.client, addr, b"x").dropped();
        } else {
            assert_eq!(world.send_raw(login.client, addr, b"x").into_peer().0.peer.get(), addr, "Send: {label}");
        }
        if let Ok(peer) = peer {
            assert_eq!(world.inbound(relay, peer, 1).is_err(), denied, "inbound: {label}");
        }
        assert_eq!(world.bind_raw(&login, 0x4000, addr).code(), denied.then_some(403), "ChannelBind: {label}");
        assert_eq!(world.channel_data(login.client, 0x4000, b"x").is_err(), denied, "ChannelData: {label}");
        if let Ok(peer) = peer {
            let inbound = world.inbound(relay, peer, 1).map(|to_client| to_client.encapsulation);
            assert_eq!(inbound.ok(), (!denied).then_some(Encapsulation::Channel(0x4000)), "inbound: {label}");
        }
    }
}

#[test]
fn own_relayed_addresses_are_reachable_and_own_listeners_are_not() {
    let mut world = World::new();
    let login = world.allocated_dual(1);
    for ip in [RELAY_V4, RELAY_V6] {
        let ip: std::net::IpAddr = ip.parse().unwrap();
        assert_eq!(world.permit(&login, &[peer_at(SocketAddr::new(ip, 1))]).code(), None);
        assert!(world.send_raw(login.client, SocketAddr::new(ip, 50_000), b"x").into_peer().0.own_relay);
        for port in [1, 3478, 5349, 8080, 49_151] {
            assert_eq!(world.send_raw(login.client, SocketAddr::new(ip, port), b"x").dropped(), Dropped::PeerDenied);
            assert_eq!(world.bind_raw(&login, 0x4000, SocketAddr::new(ip, port)).code(), Some(403));
            let relay = world.relay(Family::of(ip));
            let inbound = world.inbound(relay, peer_at(SocketAddr::new(ip, port)), 1);
            assert_eq!(inbound, Err(Dropped::PeerDenied));
        }
    }
}

#[test]
fn data_that_policy_refuses_is_told_with_its_peer_once_a_second() {
    let mut world = World::new();
    let login = world.allocated(1);
    let service = SocketAddr::new(RELAY_V4.parse().unwrap(), 8080);
    // A permission is for an address, and this one is also our relays'.
    assert_eq!(world.permit(&login, &[peer_at(service)]).code(), None);
    world.events();
    let refused = |world: &mut World| -> Vec<_> {
        let events = world.events().into_iter();
        let refusals =
            events.filter_map(|event| if let Event::Refused(refusal) = event { Some(refusal) } else { None });
        refusals.map(|refusal| (refusal.method, refusal.reason, refusal.peer, refusal.times)).collect()
    };
    let told = |method, times| vec![(method, Reason::PeerIsServer, Some(service), times)];
    for _ in 0..1000 {
        assert_eq!(world.send_raw(login.client, service, b"x").dropped(), Dropped::PeerDenied);
    }
    assert_eq!(refused(&mut world), told(Method::SEND, 1));
    world.pass(1);
    let relay = world.relay(Family::V4);
    assert_eq!(world.inbound(relay, peer_at(service), 1), Err(Dropped::PeerDenied));
    assert_eq!(refused(&mut world), told(Method::DATA, 1000));
    world.send_raw(login.client, service, b"x").dropped();
    // Without a permission it is no matter of policy, and without an allocation nobody's.
    world.pass(1);
    world.send_raw(login.client, SocketAddr::new([10, 0, 0, 1].into(), 9), b"x").dropped();
    world.send_raw(client(2), service, b"x").dropped();
    assert_eq!(refused(&mut world), []);
}

#[test]
fn a_refusal_names_the_peer_that_it_is_because_of_and_not_another_one_of_the_request() {
    let mut world = World::with(|options| options.rules.denied = vec!["9.9.9.0/24".to_owned()]);
    let login = world.allocated(1);
    let [private, ruled_out] = ["10.0.0.1:9", "9.9.9.9:9"].map(|peer| peer_at(peer.parse().unwrap()));
    for (peers, reason, about) in [
        ([peer(1), private, ruled_out], Reason::PeerDeniedByDefault, private),
        ([peer(1), ruled_out, private], Reason::PeerDenied, ruled_out),
        ([peer(1), private, peer6(1)], Reason::PeerFamilyMismatch, peer6(1)),
    ] {
        assert_eq!(world.permit(&login, &peers).code(), Some(reason.code().value()));
        assert_eq!(world.server.refused_with(), Some((reason, Some(about.get()))));
    }
}
