//! Two hosts behind symmetric NATs: they cannot reach each other directly, and they can through the server.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use webrtc_util::Conn;

use crate::internet::{Internet, server_address, socket_in};
use crate::stun_client::reflexive_address;
use crate::support::aiortc::{IceServer, PeerSetup, connect_pair};
use crate::turn_client::{conn, turn_client};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn hosts_behind_symmetric_nats_cannot_reach_each_others_reflexive_addresses() {
    let internet = Internet::with_server();
    let sockets = internet.hosts.each_ref().map(|host| socket_in(host, "0.0.0.0"));
    for (socket, host_ip) in sockets.iter().zip(["5.44.1.2", "5.44.2.2"]) {
        let seen_by_first = reflexive_address(socket, server_address(0));
        let seen_by_second = reflexive_address(socket, server_address(1));
        assert_eq!([seen_by_first.ip().to_string(), seen_by_second.ip().to_string()], [host_ip, host_ip]);
        assert_ne!(seen_by_first.port(), seen_by_second.port(), "this NAT is not symmetric");
    }
    assert!(!direct_exchange_works(&sockets));
}

#[tokio::test]
async fn hosts_behind_symmetric_nats_reach_each_other_from_relay_to_relay() {
    let internet = Internet::with_server();
    let sockets = internet.hosts.each_ref().map(|host| socket_in(host, "0.0.0.0"));
    assert!(!direct_exchange_works(&sockets));
    let [first, second] = sockets;
    let credentials = |user| internet.server.credentials(user);
    let first = turn_client(&internet.server, server_address(0), conn(first), &credentials("first")).await;
    let second = turn_client(&internet.server, server_address(0), conn(second), &credentials("second")).await;
    let first = timeout(LIMIT, first.allocate()).await.unwrap().unwrap();
    let second = timeout(LIMIT, second.allocate()).await.unwrap().unwrap();
    let (first_relayed, second_relayed) = (first.local_addr().unwrap(), second.local_addr().unwrap());

    let mut buffer = [0_u8; 2048];
    first.send_to(b"permission", second_relayed).await.unwrap();
    second.send_to(b"permission", first_relayed).await.unwrap();
    timeout(LIMIT, first.recv_from(&mut buffer)).await.expect("lost").unwrap();
    let _ = timeout(Duration::from_millis(50), second.recv_from(&mut buffer)).await;
    for round in 1..=100_u32 {
        let payload = round.to_be_bytes().repeat(round as usize);
        second.send_to(&payload, first_relayed).await.unwrap();
        let (len, from) = timeout(LIMIT, first.recv_from(&mut buffer)).await.expect("lost").unwrap();
        assert_eq!((&buffer[..len], from), (&payload[..], second_relayed));
        first.send_to(&payload, second_relayed).await.unwrap();
        let (len, from) = timeout(LIMIT, second.recv_from(&mut buffer)).await.expect("lost").unwrap();
        assert_eq!((&buffer[..len], from), (&payload[..], first_relayed));
    }
}

#[tokio::test]
async fn one_relay_is_enough_for_two_hosts_behind_symmetric_nats() {
    let internet = Internet::with_server();
    let [first, second] = internet.hosts.each_ref().map(|host| socket_in(host, "0.0.0.0"));
    let second_reflexive = reflexive_address(&second, server_address(0));
    let client =
        turn_client(&internet.server, server_address(0), conn(first), &internet.server.credentials("first")).await;
    let relay = timeout(LIMIT, client.allocate()).await.unwrap().unwrap();
    // The permission is for the address of NAT 2; it will send from another port than the one seen before.
    relay.send_to(b"permission", second_reflexive).await.unwrap();

    let relayed = relay.local_addr().unwrap();
    second.set_nonblocking(true).unwrap();
    let second = tokio::net::UdpSocket::from_std(second).unwrap();
    second.send_to(b"from behind NAT 2", relayed).await.unwrap();
    let mut buffer = [0_u8; 2048];
    let (len, from) = timeout(LIMIT, relay.recv_from(&mut buffer)).await.expect("lost").unwrap();
    assert_eq!((&buffer[..len], from.ip()), (&b"from behind NAT 2"[..], second_reflexive.ip()));
    assert_ne!(from.port(), second_reflexive.port());
    relay.send_to(b"from the relay", from).await.unwrap();
    let answer = async {
        loop {
            let (len, from) = second.recv_from(&mut buffer).await.unwrap();
            // The answer to a retransmitted Binding request may still come in.
            if from == relayed {
                return buffer[..len].to_vec();
            }
        }
    };
    assert_eq!(timeout(LIMIT, answer).await.expect("lost"), b"from the relay");
}

#[test]
fn webrtc_peers_behind_symmetric_nats_connect_by_relay_and_by_nothing_else() {
    let internet = Internet::with_server();
    let server = server_address(0);
    let stun = IceServer { url: format!("stun:{server}"), credentials: None };
    let setups = |transport: Option<&str>| {
        internet.hosts.each_ref().map(|host| {
            let turn = transport.map(|transport| IceServer {
                url: format!("turn:{server}?transport={transport}"),
                credentials: Some(internet.server.credentials("webrtc")),
            });
            PeerSetup {
                ice_servers: [Some(stun.clone()), turn].into_iter().flatten().collect(),
                relay_only: false,
                namespace: Some(host.name().to_owned()),
                authority_file: None,
            }
        })
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let [offering, answering] = setups(None);
            // The relayed pairs beside take a second.
            assert_eq!(connect_pair(&offering, &answering, 1024, LIMIT), None, "they found a way without a relay");
        });
        for transport in ["udp", "tcp"] {
            let [offering, answering] = setups(Some(transport));
            scope.spawn(move || {
                let (local, remote) =
                    connect_pair(&offering, &answering, 128 * 1024, 3 * LIMIT).expect("ICE found no way");
                // Behind a symmetric NAT the other side may show as peer-reflexive; one side at least is a relay.
                assert!(local == "relay" || remote == "relay", "{local} to {remote}");
            });
        }
    });
}

/// Lets both sides send to what a STUN server said of the other's address, as ICE does, and says whether anything arrived.
fn direct_exchange_works(sockets: &[UdpSocket; 2]) -> bool {
    let reflexive = sockets.each_ref().map(|socket| reflexive_address(socket, server_address(0)));
    let mut buffer = [0_u8; 64];
    let deadline = Instant::now() + Duration::from_millis(600);
    while Instant::now() < deadline {
        for (socket, other) in [(&sockets[0], reflexive[1]), (&sockets[1], reflexive[0])] {
            socket.send_to(b"direct", other).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            if socket.recv_from(&mut buffer).is_ok_and(|(len, _)| &buffer[..len] == b"direct") {
                return true;
            }
        }
    }
    false
}
