//! The client of the `turn` crate (a port of pion's), which we did not write, and a socket for it that shows what passes.
//! The test targets that use it include it by themselves: the others need not be linked with it.

#![allow(dead_code)]

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

use crate::support::{Credentials, TestServer};

/// A client that speaks to `address` of the server by `socket`.
pub(crate) async fn turn_client(
    server: &TestServer,
    address: SocketAddr,
    socket: Arc<dyn Conn + Send + Sync>,
    credentials: &Credentials,
) -> Client {
    turn_client_in(server.realm(), address, socket, credentials).await
}

/// A client of a server of which only address and realm are known.
pub(crate) async fn turn_client_in(
    realm: &str,
    address: SocketAddr,
    socket: Arc<dyn Conn + Send + Sync>,
    credentials: &Credentials,
) -> Client {
    let client = Client::new(ClientConfig {
        stun_serv_addr: address.to_string(),
        turn_serv_addr: address.to_string(),
        username: credentials.username.clone(),
        password: credentials.password.clone(),
        realm: realm.to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        conn: socket,
        vnet: None,
    })
    .await
    .unwrap();
    client.listen().await.unwrap();
    client
}

/// A socket made outside of the runtime, as a client takes it.
pub(crate) fn conn(socket: std::net::UdpSocket) -> Arc<dyn Conn + Send + Sync> {
    socket.set_nonblocking(true).unwrap();
    Arc::new(UdpSocket::from_std(socket).unwrap())
}

/// Whoever looks at the datagrams of a [`Watched`] socket.
pub(crate) trait Watch: Send + Sync + 'static {
    fn sent(&self, _datagram: &[u8]) {}
    fn received(&self, datagram: &[u8]);
}

/// A UDP socket that somebody watches.
pub(crate) struct Watched<W> {
    pub(crate) inner: UdpSocket,
    pub(crate) watch: W,
}

#[async_trait::async_trait]
impl<W: Watch> Conn for Watched<W> {
    async fn connect(&self, address: SocketAddr) -> webrtc_util::Result<()> {
        Ok(self.inner.connect(address).await?)
    }

    async fn recv(&self, buffer: &mut [u8]) -> webrtc_util::Result<usize> {
        Ok(self.inner.recv(buffer).await?)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> webrtc_util::Result<(usize, SocketAddr)> {
        let (len, from) = self.inner.recv_from(buffer).await?;
        self.watch.received(&buffer[..len]);
        Ok((len, from))
    }

    async fn send(&self, buffer: &[u8]) -> webrtc_util::Result<usize> {
        Ok(self.inner.send(buffer).await?)
    }

    async fn send_to(&self, buffer: &[u8], target: SocketAddr) -> webrtc_util::Result<usize> {
        self.watch.sent(buffer);
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

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}
