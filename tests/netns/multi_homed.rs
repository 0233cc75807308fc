//! A server with several addresses on one interface and wildcard listeners: a reply leaves from the address that the request
//! came to, or a client behind a NAT or with a connected socket never sees it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::time::timeout;
use webrtc_util::Conn;

use crate::internet::{PORT, server_in, socket_in};
use crate::namespace::Namespace;
use crate::stun_client::reflexive_address;
use crate::support::EchoPeer;
use crate::turn_client::{conn, turn_client};

const LIMIT: Duration = Duration::from_secs(10);
const SERVER_IPV4: [&str; 2] = ["5.44.1.1", "5.44.1.77"];
const CLIENT_IPV4: &str = "5.44.1.2";
const SERVER_IPV6: [&str; 2] = ["2a01:4f8:aaaa::1", "2a01:4f8:aaaa::77"];
const CLIENT_IPV6: &str = "2a01:4f8:aaaa::2";

#[test]
fn binding_replies_leave_from_the_ipv4_address_that_the_request_came_to() {
    let (host, client) = two_hosts();
    let _server = server_in(&host, &SERVER_IPV4, "0.0.0.0");
    assert_binding_answered_at(&client, CLIENT_IPV4, &SERVER_IPV4);
}

#[test]
fn binding_replies_leave_from_the_ipv6_address_that_the_request_came_to() {
    let (host, client) = two_hosts();
    let _server = server_in(&host, &SERVER_IPV6, "::");
    assert_binding_answered_at(&client, CLIENT_IPV6, &SERVER_IPV6);
}

#[test]
fn binding_replies_of_a_listener_on_every_address_leave_from_the_one_that_the_request_came_to() {
    let (host, client) = two_hosts();
    let _server = server_in(&host, &[SERVER_IPV4, SERVER_IPV6].concat(), "*");
    assert_binding_answered_at(&client, CLIENT_IPV4, &SERVER_IPV4);
    assert_binding_answered_at(&client, CLIENT_IPV6, &SERVER_IPV6);
}

#[tokio::test]
async fn relayed_data_leaves_from_the_address_that_the_client_allocated_at() {
    let (host, client) = two_hosts();
    let server = server_in(&host, &SERVER_IPV4, "0.0.0.0");
    let peer = client.enter(|| EchoPeer::start(CLIENT_IPV4));
    for server_ip in SERVER_IPV4 {
        let address = SocketAddr::new(server_ip.parse().unwrap(), PORT);
        let socket = connected_socket(&client, CLIENT_IPV4, address);
        let turn = turn_client(&server, address, conn(socket), &server.credentials("multi-homed")).await;
        let relay = timeout(LIMIT, turn.allocate()).await.unwrap().unwrap();
        let mut buffer = [0_u8; 2048];
        // The first ones go by Send and Data indications, the others by channel.
        for round in 1..=50_u8 {
            let payload = vec![round; usize::from(round) * 10];
            relay.send_to(&payload, peer.address()).await.unwrap();
            let (len, from) = timeout(LIMIT, relay.recv_from(&mut buffer)).await.expect("lost").unwrap();
            assert_eq!((&buffer[..len], from), (&payload[..], peer.address()));
        }
    }
}

/// A host with all the server addresses on one interface, cabled to a client.
fn two_hosts() -> (Namespace, Namespace) {
    let (host, client) = (Namespace::create("server"), Namespace::create("client"));
    let with_prefix_lengths = |ipv4: &[&str], ipv6: &[&str]| -> Vec<String> {
        ipv4.iter().map(|ip| format!("{ip}/24")).chain(ipv6.iter().map(|ip| format!("{ip}/64"))).collect()
    };
    let of_host = with_prefix_lengths(&SERVER_IPV4, &SERVER_IPV6);
    let of_client = with_prefix_lengths(&[CLIENT_IPV4], &[CLIENT_IPV6]);
    let [of_host, of_client] = [&of_host, &of_client].map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
    host.connect(("eth0", &of_host), &client, ("eth0", &of_client));
    (host, client)
}

/// Once with a connected socket, to which the kernel gives only datagrams from the server's right address, and once without.
fn assert_binding_answered_at(client: &Namespace, client_ip: &str, server_ips: &[&str]) {
    for server_ip in server_ips {
        let server = SocketAddr::new(server_ip.parse::<IpAddr>().unwrap(), PORT);
        for socket in [connected_socket(client, client_ip, server), socket_in(client, client_ip)] {
            assert_eq!(reflexive_address(&socket, server), socket.local_addr().unwrap());
        }
    }
}

fn connected_socket(client: &Namespace, client_ip: &str, server: SocketAddr) -> UdpSocket {
    let socket = socket_in(client, client_ip);
    socket.connect(server).unwrap();
    socket
}
