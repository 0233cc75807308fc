//! A TURN client that we did not write, on a socket that keeps what came in.

#[path = "../support/turn_client.rs"]
mod turn_client;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use turn::client::Client;
use webrtc_util::Conn;

use crate::LIMIT;
use crate::support::{Credentials, TestServer};
use turn_client::{Watch, Watched, turn_client};

/// A client with an allocation, which lives while this does.
pub(crate) struct Allocated {
    pub(crate) client: Client,
    pub(crate) relay: Box<dyn Conn + Send + Sync>,
}

impl Allocated {
    pub(crate) async fn new(server: &TestServer, user: &str) -> Allocated {
        let (client, _) = connect(server, &server.credentials(user)).await;
        let relay = timeout(LIMIT, client.allocate()).await.unwrap().unwrap();
        Allocated { client, relay: Box::new(relay) }
    }

    /// Sends a payload to an echoing peer until it comes back; the first may be lost before the permission is there.
    pub(crate) async fn echo(&self, peer: SocketAddr, payload: &[u8]) {
        self.relay.send_to(payload, peer).await.unwrap();
        let mut buffer = [0; 2048];
        let (len, from) = timeout(LIMIT, self.relay.recv_from(&mut buffer)).await.expect("no echo").unwrap();
        assert_eq!((&buffer[..len], from), (payload, peer));
    }

    /// Ends the allocation (Refresh with lifetime 0).
    pub(crate) async fn release(self) {
        self.relay.close().await.unwrap();
        // The request is sent when the client comes to it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.client.close().await.unwrap();
    }
}

pub(crate) async fn connect(server: &TestServer, credentials: &Credentials) -> (Client, Arc<Watched<LastReceived>>) {
    let inner = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let socket = Arc::new(Watched { inner, watch: LastReceived::default() });
    let conn = Arc::clone(&socket) as Arc<dyn Conn + Send + Sync>;
    (turn_client(server, server.udp(), conn, credentials).await, socket)
}

/// Keeps the last datagram.
#[derive(Default)]
pub(crate) struct LastReceived(Mutex<Vec<u8>>);

impl LastReceived {
    pub(crate) fn get(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Watch for LastReceived {
    fn received(&self, datagram: &[u8]) {
        *self.0.lock().unwrap() = datagram.to_vec();
    }
}
