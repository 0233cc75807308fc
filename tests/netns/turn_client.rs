//! The client of the `turn` crate on a socket of another namespace.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use turn::client::{Client, ClientConfig};

use crate::support::{Credentials, TestServer};

/// A client that speaks to `address` of the server by `socket`.
pub(crate) async fn turn_client(
    server: &TestServer,
    address: SocketAddr,
    socket: UdpSocket,
    credentials: Credentials,
) -> Client {
    socket.set_nonblocking(true).unwrap();
    let client = Client::new(ClientConfig {
        stun_serv_addr: address.to_string(),
        turn_serv_addr: address.to_string(),
        username: credentials.username,
        password: credentials.password,
        realm: server.realm().to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(tokio::net::UdpSocket::from_std(socket).unwrap()),
        vnet: None,
    })
    .await
    .unwrap();
    client.listen().await.unwrap();
    client
}
