//! The TURN server of `turnstone-turn`, and the client of the `turn` crate.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use turnstone::policy::PeerRules;
use webrtc_util::Conn;

use crate::server;
use crate::support::EchoPeer;
use crate::turn_client::{Watch, Watched};

const LIMIT: Duration = Duration::from_secs(10);

/// How many messages of each kind a client has sent and received.
#[derive(Default)]
struct Counts {
    indications: [AtomicUsize; 2],
    channel_data: [AtomicUsize; 2],
}

impl Counts {
    fn count(&self, datagram: &[u8], received: usize) {
        match datagram {
            [0x00, 0x16 | 0x17, ..] => self.indications[received].fetch_add(1, Ordering::Relaxed),
            [0x40..=0x4F, ..] => self.channel_data[received].fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

impl Watch for Counts {
    fn sent(&self, datagram: &[u8]) {
        self.count(datagram, 0);
    }

    fn received(&self, datagram: &[u8]) {
        self.count(datagram, 1);
    }
}

/// The example, for alice; its thread goes with the process.
fn start(allow_loopback: bool) -> SocketAddr {
    let listener = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let rules = PeerRules { allow_loopback, ..PeerRules::of_server(address, server::RELAY_PORTS) };
    std::thread::spawn(move || server::serve(&listener, ("alice", "wonderland"), &rules).unwrap());
    address
}

async fn client(address: SocketAddr, password: &str) -> (Client, Arc<Watched<Counts>>) {
    let inner = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let socket = Arc::new(Watched { inner, watch: Counts::default() });
    let client = Client::new(ClientConfig {
        stun_serv_addr: address.to_string(),
        turn_serv_addr: address.to_string(),
        username: "alice".to_owned(),
        password: password.to_owned(),
        realm: "example.org".to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::clone(&socket) as Arc<dyn Conn + Send + Sync>,
        vnet: None,
    })
    .await
    .unwrap();
    client.listen().await.unwrap();
    (client, socket)
}

#[tokio::test]
async fn a_client_we_did_not_write_relays_through_the_server_by_indications_and_channels_both_ways() {
    let address = start(true);
    let (client, socket) = client(address, "wonderland").await;
    assert_eq!(
        timeout(LIMIT, client.send_binding_request()).await.unwrap().unwrap(),
        socket.inner.local_addr().unwrap()
    );
    let relay = timeout(LIMIT, client.allocate()).await.unwrap().unwrap();
    let relayed = relay.local_addr().unwrap();
    assert!(relayed.ip().is_loopback() && relayed.port() >= 49_152, "{relayed}");

    let peer = EchoPeer::start("127.0.0.1");
    let mut buffer = [0_u8; 2048];
    for round in 0..200_usize {
        let payload: Vec<u8> = (0..round * 5).map(|at| (at + round) as u8).collect();
        relay.send_to(&payload, peer.address()).await.unwrap();
        let (len, from) = timeout(LIMIT, relay.recv_from(&mut buffer)).await.expect("no echo").unwrap();
        assert_eq!((&buffer[..len], from), (&payload[..], peer.address()), "round {round}");
    }
    // A second peer on the same address has the permission, but no channel.
    let unbound_peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    unbound_peer.send_to(b"by Data indication", relayed).unwrap();
    let (len, from) = timeout(LIMIT, relay.recv_from(&mut buffer)).await.expect("no Data indication").unwrap();
    assert_eq!((&buffer[..len], from), (&b"by Data indication"[..], unbound_peer.local_addr().unwrap()));
    for (kind, counts) in [("indications", &socket.watch.indications), ("ChannelData", &socket.watch.channel_data)] {
        let [sent, received] = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        assert!(sent > 0 && received > 0, "{kind}: {sent} sent, {received} received");
    }

    // Once it is closed, its port is given back.
    relay.close().await.unwrap();
    let freed = async {
        while UdpSocket::bind(relayed).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, freed).await.expect("the port of the relay is still taken");
}

#[tokio::test]
async fn a_wrong_password_gets_no_allocation() {
    let (client, _socket) = client(start(false), "guessed").await;
    assert!(timeout(LIMIT, client.allocate()).await.unwrap().is_err());
}

#[tokio::test]
async fn a_peer_on_loopback_is_denied_unless_somebody_allows_it() {
    let (client, socket) = client(start(false), "wonderland").await;
    let relay = timeout(LIMIT, client.allocate()).await.unwrap().unwrap();
    // Not on a port that could be a relay's: those may be reached.
    let peer = (20_000..30_000).find_map(|port| UdpSocket::bind(("127.0.0.1", port)).ok()).unwrap();
    // This client sends although it gets no permission.
    relay.send_to(b"to a service of this host", peer.local_addr().unwrap()).await.unwrap();
    // The server has one thread: it has seen to that when it answers this.
    timeout(LIMIT, client.send_binding_request()).await.unwrap().unwrap();
    assert_eq!(socket.watch.indications[0].load(Ordering::Relaxed), 1);
    peer.set_nonblocking(true).unwrap();
    assert_eq!(peer.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
}
