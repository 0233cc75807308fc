//! The client of the `turn` crate, on a socket that counts what passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use turn::client::Client;
use webrtc_util::Conn;

use crate::support::{Credentials, EchoPeer, RELAY_PORTS, Spec, TestServer};
use crate::turn_client::{Watch, Watched, turn_client};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn turn_crate_relays_by_send_first_and_by_channel_once_it_is_bound() {
    relays_by_send_and_channel("127.0.0.1").await;
}

#[tokio::test]
async fn turn_crate_gets_an_ipv4_relay_over_an_ipv6_server_address() {
    relays_by_send_and_channel("::1").await;
}

async fn relays_by_send_and_channel(server_ip: &str) {
    let server = Spec::local().start();
    let peer = EchoPeer::start("127.0.0.1");
    let (client, socket) = connect(&server, server_ip, &server.credentials("turn-crate")).await;
    let relay = timeout(LIMIT, client.allocate()).await.unwrap().unwrap();
    assert!(relay.local_addr().unwrap().ip().is_loopback());

    let mut buffer = [0_u8; 2048];
    for round in 0..400_usize {
        let payload: Vec<u8> = (0..round * 3).map(|at| (at + round) as u8).collect();
        relay.send_to(&payload, peer.address()).await.unwrap();
        let (len, from) = timeout(LIMIT, relay.recv_from(&mut buffer))
            .await
            .unwrap_or_else(|_| panic!("no echo in round {round}"))
            .unwrap();
        assert_eq!((&buffer[..len], from), (&payload[..], peer.address()), "round {round}");
    }
    // A second peer on the same address has the permission, but no channel.
    let unbound_peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    unbound_peer.send_to(b"by Data indication", relay.local_addr().unwrap()).await.unwrap();
    let (len, from) = timeout(LIMIT, relay.recv_from(&mut buffer)).await.expect("no Data indication").unwrap();
    assert_eq!((&buffer[..len], from), (&b"by Data indication"[..], unbound_peer.local_addr().unwrap()));

    assert!(socket.watch.indications_sent.load(Ordering::Relaxed) > 0, "no Send indication went out");
    assert!(socket.watch.indications_received.load(Ordering::Relaxed) > 0, "no Data indication came in");
    assert!(socket.watch.channel_data_sent.load(Ordering::Relaxed) > 0, "no ChannelData went out");
    assert!(socket.watch.channel_data_received.load(Ordering::Relaxed) > 0, "no ChannelData came in");
    client.close().await.unwrap();
}

#[tokio::test]
async fn turn_crate_reaches_a_program_on_the_relays_own_loopback_address_whose_port_could_be_a_relay() {
    let server = Spec::local().start();
    let peer = EchoPeer::start_within("127.0.0.1", RELAY_PORTS);
    let (client, socket) = connect(&server, "127.0.0.1", &server.credentials("turn-crate")).await;
    let relay = timeout(LIMIT, client.allocate()).await.unwrap().unwrap();
    let mut buffer = [0_u8; 64];
    for round in 0..400_u16 {
        relay.send_to(&round.to_be_bytes(), peer.address()).await.unwrap();
        let (len, from) = timeout(LIMIT, relay.recv_from(&mut buffer)).await.expect("no echo").unwrap();
        assert_eq!((&buffer[..len], from), (&round.to_be_bytes()[..], peer.address()));
    }
    assert!(socket.watch.indications_sent.load(Ordering::Relaxed) > 0, "no Send indication went out");
    assert!(socket.watch.channel_data_sent.load(Ordering::Relaxed) > 0, "no ChannelData went out");
}

#[tokio::test]
async fn turn_crate_learns_its_reflexive_address_by_a_binding_request() {
    let server = Spec::local().start();
    let (client, socket) = connect(&server, "127.0.0.1", &server.credentials("turn-crate")).await;
    let reflexive = timeout(LIMIT, client.send_binding_request()).await.unwrap().unwrap();
    assert_eq!(reflexive, socket.inner.local_addr().unwrap());
}

#[tokio::test]
async fn turn_crate_frees_its_allocation_by_a_refresh_to_zero() {
    let server = Spec::local().start();
    let peer = EchoPeer::start("127.0.0.1");
    let (client, _socket) = connect(&server, "127.0.0.1", &server.credentials("turn-crate")).await;
    let relay = timeout(LIMIT, client.allocate()).await.unwrap().unwrap();
    let relayed = relay.local_addr().unwrap();
    relay.send_to(b"first", peer.address()).await.unwrap();
    let mut buffer = [0_u8; 64];
    timeout(LIMIT, relay.recv_from(&mut buffer)).await.unwrap().unwrap();

    relay.close().await.unwrap();
    // A free port on loopback answers a datagram with ICMP port unreachable.
    let prober = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    prober.connect(relayed).await.unwrap();
    let freed = async {
        loop {
            let _ = prober.send(b"anyone there?").await;
            if let Ok(Err(_)) = timeout(Duration::from_millis(50), prober.recv(&mut buffer)).await {
                break;
            }
        }
    };
    timeout(LIMIT, freed).await.expect("the relayed address still exists after Refresh with lifetime 0");
}

#[tokio::test]
async fn turn_crate_clients_reach_each_other_from_relay_to_relay() {
    let server = Spec::local().start();
    let (first, _) = connect(&server, "127.0.0.1", &server.credentials("first")).await;
    let (second, _) = connect(&server, "127.0.0.1", &server.credentials("second")).await;
    let first_relay = timeout(LIMIT, first.allocate()).await.unwrap().unwrap();
    let second_relay = timeout(LIMIT, second.allocate()).await.unwrap().unwrap();
    let (first_relayed, second_relayed) = (first_relay.local_addr().unwrap(), second_relay.local_addr().unwrap());
    let mut buffer = [0_u8; 2048];
    // A permission of each side for the other; the first of these messages may come before the other side's permission.
    first_relay.send_to(b"permission", second_relayed).await.unwrap();
    second_relay.send_to(b"permission", first_relayed).await.unwrap();
    timeout(LIMIT, first_relay.recv_from(&mut buffer)).await.expect("lost").unwrap();
    let _ = timeout(Duration::from_millis(50), second_relay.recv_from(&mut buffer)).await;
    for round in 0..200_u32 {
        let payload = round.to_be_bytes().repeat(round as usize);
        second_relay.send_to(&payload, first_relayed).await.unwrap();
        let (len, from) = timeout(LIMIT, first_relay.recv_from(&mut buffer)).await.expect("lost").unwrap();
        assert_eq!((&buffer[..len], from), (&payload[..], second_relayed));
        first_relay.send_to(&payload, second_relayed).await.unwrap();
        let (len, from) = timeout(LIMIT, second_relay.recv_from(&mut buffer)).await.expect("lost").unwrap();
        assert_eq!((&buffer[..len], from), (&payload[..], first_relayed));
    }
}

#[tokio::test]
async fn turn_crate_with_a_wrong_password_is_refused() {
    let server = Spec::local().start();
    let wrong = Credentials { password: "guessed".to_owned(), ..server.credentials("mallory") };
    assert_refused(&server, &wrong).await;
}

#[tokio::test]
async fn turn_crate_with_an_expired_credential_is_refused() {
    let server = Spec::local().start();
    assert_refused(&server, &server.expired_credentials("late")).await;
}

async fn assert_refused(server: &TestServer, credentials: &Credentials) {
    let (client, _) = connect(server, "127.0.0.1", credentials).await;
    let error = match timeout(LIMIT, client.allocate()).await.expect("no answer") {
        Ok(_) => panic!("an allocation was made"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("401"), "refused for another reason: {error}");
}

async fn connect(server: &TestServer, server_ip: &str, credentials: &Credentials) -> (Client, Arc<Watched<Counts>>) {
    let address = server.address(crate::support::Transport::Udp, server_ip);
    let inner = UdpSocket::bind((address.ip(), 0)).await.unwrap();
    let socket = Arc::new(Watched { inner, watch: Counts::default() });
    let conn = Arc::clone(&socket) as Arc<dyn Conn + Send + Sync>;
    (turn_client(server, address, conn, credentials).await, socket)
}

/// Tells apart by the first bytes what passes (RFC 8656 section 12.4, RFC 8489 section 5).
#[derive(Default)]
struct Counts {
    indications_sent: AtomicUsize,
    indications_received: AtomicUsize,
    channel_data_sent: AtomicUsize,
    channel_data_received: AtomicUsize,
}

impl Watch for Counts {
    fn sent(&self, datagram: &[u8]) {
        count(datagram, &self.indications_sent, &self.channel_data_sent);
    }

    fn received(&self, datagram: &[u8]) {
        count(datagram, &self.indications_received, &self.channel_data_received);
    }
}

fn count(datagram: &[u8], indications: &AtomicUsize, channel_data: &AtomicUsize) {
    match datagram {
        [0x40..=0x4F, ..] => channel_data.fetch_add(1, Ordering::Relaxed),
        [0x00, 0x16 | 0x17, ..] => indications.fetch_add(1, Ordering::Relaxed),
        _ => 0,
    };
}
