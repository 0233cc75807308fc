//! An allocation that is only there: a draining server lives as long as it has one.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use turnstone::client::{Answer, Client, Credential, Event, Request};

use super::Credentials;

/// Makes an allocation of an hour, on a socket that is connected to the server.
pub fn hold_allocation(socket: &UdpSocket, credentials: Credentials) {
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let credential =
        Credential { username: credentials.username, password: credentials.password.into(), sha256: false };
    let (mut client, mut out, mut buffer) = (Client::new(Some(Arc::new(credential)), [5; 16]), Vec::new(), [0; 2048]);
    client.start(Request::Allocate { family: None, lifetime_secs: Some(3600) }, &mut out);
    loop {
        socket.send(&out).unwrap();
        out.clear();
        let len = socket.recv(&mut buffer).unwrap();
        if let Event::Done(answer) = client.receive(&buffer[..len], &mut out).unwrap() {
            return assert!(matches!(answer, Answer::Allocated { .. }), "{answer:?}");
        }
    }
}
