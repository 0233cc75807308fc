//! A TURN client that we did not write, on a socket that keeps what came in.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

use crate::LIMIT;
use crate::support::{Credentials, TestServer};

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

pub(crate) async fn connect(server: &TestServer, credentials: &Credentials) -> (Client, Arc<Recorder>) {
    let recorder = Arc::new(Recorder { inner: UdpSocket::bind("127.0.0.1:0").await.unwrap(), last: Mutex::default() });
    let client = Client::new(ClientConfig {
        stun_serv_addr: server.udp().to_string(),
        turn_serv_addr: server.udp().to_string(),
        username: credentials.username.clone(),
        password: credentials.password.clone(),
        realm: server.realm().to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::clone(&recorder) as Arc<dyn Conn + Send + Sync>,
        vnet: None,
    })
    .await
    .unwrap();
    client.listen().await.unwrap();
    (client, recorder)
}

/// A UDP socket that keeps the last datagram.
pub(crate) struct Recorder {
    inner: UdpSocket,
    last: Mutex<Vec<u8>>,
}

impl Recorder {
    pub(crate) fn last(&self) -> Vec<u8> {
        self.last.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl Conn for Recorder {
    async fn connect(&self, address: SocketAddr) -> webrtc_util::Result<()> {
        Ok(self.inner.connect(address).await?)
    }

    async fn recv(&self, buffer: &mut [u8]) -> webrtc_util::Result<usize> {
        Ok(self.inner.recv(buffer).await?)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> webrtc_util::Result<(usize, SocketAddr)> {
        let (len, from) = self.inner.recv_from(buffer).await?;
        *self.last.lock().unwrap() = buffer[..len].to_vec();
        Ok((len, from))
    }

    async fn send(&self, buffer: &[u8]) -> webrtc_util::Result<usize> {
        Ok(self.inner.send(buffer).await?)
    }

    async fn send_to(&self, buffer: &[u8], target: SocketAddr) -> webrtc_util::Result<usize> {
        Ok(self.inner.send_to(buffer, target).await?)
    }

    fn local_addr(&self) -> webrtc_util::Result<SocketAddr> {
        Ok(self.inner.local_addr()?)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    async fn close(&self) -> webrtc_util::Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}
