//! Top users: the figures are those of what the clients sent.

use std::net::UdpSocket;

use serde_json::{Value, json};

use crate::api::Api;
use crate::support::{TestServer, Transport};
use crate::wire::Wire;
use crate::{LIMIT, config};

#[test]
fn what_users_relayed_agrees_with_what_their_clients_and_peers_sent() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    assert_eq!(api.get("/v1/users"), json!({ "users": [], "total_users": 0 }));
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    // User, clients, packets each way of each client, bytes of each.
    let plan = [("many-small", 3, 60, 10), ("few-large", 1, 40, 1000), ("sessions", 5, 1, 1)];
    let mut clients = Vec::new();
    for (user, count, packets, bytes) in plan {
        for index in 0..count {
            let transport = [Transport::Udp, Transport::Tcp, Transport::Tls][index % 3];
            let (mut client, relayed) = Wire::allocated(&server, transport, user);
            client.bind(0x4000, peer.local_addr().unwrap()).unwrap();
            let payload = vec![7; bytes];
            for _ in 0..packets {
                client.send_on(0x4000, &payload);
                assert_eq!(peer.recv_from(&mut [0; 2048]).unwrap(), (bytes, relayed));
                peer.send_to(&payload, relayed).unwrap();
                assert_eq!(client.receive().unwrap().len(), 4 + bytes);
            }
            clients.push(client);
        }
    }
    let total = |user: &str| {
        let (_, count, packets, bytes) = plan.into_iter().find(|(name, ..)| *name == user).unwrap();
        let packets = count * packets;
        let traffic = json!({ "packets": packets, "bytes": packets * bytes });
        json!({ "user": user, "realm": null, "sessions": count, "to_peers": traffic, "to_client": traffic })
    };
    for (query, order) in [
        ("", ["few-large", "many-small", "sessions"]),
        ("?sort=bytes", ["few-large", "many-small", "sessions"]),
        ("?sort=packets", ["many-small", "few-large", "sessions"]),
        ("?sort=sessions", ["sessions", "many-small", "few-large"]),
    ] {
        let users: Vec<Value> = order.map(total).into();
        assert_eq!(api.get(&format!("/v1/users{query}")), json!({ "users": users, "total_users": 3 }), "{query}");
    }
    assert_eq!(api.get("/v1/users?limit=1&sort=sessions"), json!({ "users": [total("sessions")], "total_users": 3 }));
    let traffic = &api.get("/v1/status")["traffic"];
    let (packets, bytes) = plan
        .iter()
        .fold((0, 0), |(all, sum), (_, count, packets, bytes)| (all + count * packets, sum + count * packets * bytes));
    assert_eq!(traffic["to_peers"], json!({ "packets": packets, "bytes": bytes }));
    assert_eq!(traffic["to_clients"], traffic["to_peers"]);

    assert_eq!(api.delete("/v1/sessions?user=few-large")["ended"], 1);
    let left = ["many-small", "sessions"].map(total);
    assert_eq!(api.get("/v1/users"), json!({ "users": left, "total_users": 2 }));
    drop(clients);
}
