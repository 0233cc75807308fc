//! What sockets at both ends see of relayed datagrams: the marks in the IP header, and bursts.

// Helpers of tests fail by panicking; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/tcp_allocation.rs"]
mod tcp_allocation;

mod descriptors;
mod loops;
mod strangers;
mod streams;
mod tcp_relays;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use support::{Spec, TestServer, wait_until};
use turnstone::addr::Family;
use turnstone::client::{Answer, Client, Credential, Event, Request};
use turnstone::net::Arena;
use turnstone::net::sys::{RecvBatch, set_recv_tos};

const LIMIT: Duration = Duration::from_secs(20);
const CHANNEL: u16 = 0x4000;
/// Expedited Forwarding with ECT(0), and AF41 with ECT(1).
const MARK: u32 = 0b1011_1010;
const OTHER_MARK: u32 = 0b1000_1001;

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// A client with a channel to a peer: the two sockets, and the relayed address.
fn relayed(server: &TestServer) -> (UdpSocket, UdpSocket, SocketAddr) {
    let (client, peer) = (socket(), socket());
    client.connect(server.udp()).unwrap();
    let credentials = server.credentials("marks");
    let credential =
        Credential { username: credentials.username, password: credentials.password.into(), sha256: false };
    let mut turn = Client::new(Some(Arc::new(credential)), [7; 16]);
    let mut ask = |request| {
        let mut out = Vec::new();
        turn.start(request, &mut out);
        let mut buffer = [0; 2048];
        loop {
            client.send(&out).unwrap();
            let len = client.recv(&mut buffer).unwrap();
            out.clear();
            match turn.receive(&buffer[..len], &mut out).unwrap() {
                Event::Done(answer) => return answer,
                Event::Retry => {}
                Event::Ignored => panic!("not an answer"),
            }
        }
    };
    let allocated = ask(Request::Allocate { family: None, lifetime_secs: None });
    let Answer::Allocated { relayed, .. } = allocated else { panic!("{allocated:?}") };
    assert_eq!(ask(Request::ChannelBind { channel: CHANNEL, peer: peer.local_addr().unwrap() }), Answer::Granted);
    (client, peer, relayed)
}

fn channel_data(payload: &[u8]) -> Vec<u8> {
    [&CHANNEL.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}

/// The TOS byte and the bytes of the next datagram.
fn receive_marked(socket: &UdpSocket) -> (u8, Vec<u8>) {
    let (mut arena, mut batch) = (Arena::new(1, 64), RecvBatch::new(1));
    wait_until("a datagram", LIMIT, || batch.receive(socket.as_fd(), &mut arena, 0, 1).ok());
    let datagram = batch.datagram(&arena, 0, 0).unwrap();
    (datagram.tos, arena.get(datagram.span).to_vec())
}

#[test]
fn dscp_and_ecn_are_carried_over_both_ways_and_absence_too() {
    let server = Spec::local().start();
    let (client, peer, relayed) = relayed(&server);
    for socket in [&client, &peer] {
        set_recv_tos(socket.as_fd(), Family::V4).unwrap();
    }
    for mark in [MARK, 0, OTHER_MARK] {
        SockRef::from(&client).set_tos_v4(mark).unwrap();
        client.send(&channel_data(b"to the peer")).unwrap();
        assert_eq!(receive_marked(&peer), (mark as u8, b"to the peer".to_vec()));
        SockRef::from(&peer).set_tos_v4(mark).unwrap();
        peer.send_to(b"to the client", relayed).unwrap();
        assert_eq!(receive_marked(&client), (mark as u8, channel_data(b"to the client")));
    }
}

#[test]
fn a_burst_of_64_datagrams_arrives_whole_and_in_order_both_ways() {
    let server = Spec::local().start();
    let (client, peer, relayed) = relayed(&server);
    for socket in [&client, &peer] {
        SockRef::from(socket).set_recv_buffer_size(1 << 20).unwrap();
    }
    let payload = |round: u8, number: u8| vec![[round, number]; 600].concat();
    let mut buffer = [0; 2048];
    // More rounds than a peer needs to become busy and get a socket of its own.
    for round in 0..4 {
        for number in 0..64 {
            client.send(&channel_data(&payload(round, number))).unwrap();
        }
        for number in 0..64 {
            let (len, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!((from, &buffer[..len]), (relayed, &payload(round, number)[..]), "round {round}, {number}");
        }
        for number in 0..64 {
            peer.send_to(&payload(round, number), relayed).unwrap();
        }
        for number in 0..64 {
            let len = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], channel_data(&payload(round, number)), "round {round}, {number}");
        }
    }
    // Another peer on the same relay is still served beside the busy one.
    let other = socket();
    other.send_to(b"from elsewhere", relayed).unwrap();
    let len = client.recv(&mut buffer).unwrap();
    assert!(len > 36 && buffer[..2] == [0x00, 0x17], "a Data indication, for the permission is for the whole address");
}
