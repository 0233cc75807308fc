//! Sessions: listed, filtered, paged, shown and ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;

use serde_json::Value;

use crate::api::Api;
use crate::support::{TestServer, Transport};
use crate::wire::Wire;
use crate::{config, logged};

fn ids(page: &Value) -> Vec<String> {
    page["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

/// Worker and number of an id.
fn place(id: &str) -> (u64, u64) {
    let mut parts = id.split('-').skip(1).map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

#[test]
fn many_sessions_over_every_transport_are_paged_filtered_and_counted() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let started = api.get("/v1/status")["started_unix"].as_u64().unwrap();
    let count = |query: &str| ids(&api.get(&format!("/v1/sessions?limit=1000{query}"))).len();
    assert_eq!(count(""), 0);
    let clients: Vec<_> = (0..110)
        .map(|index| {
            let transport = match index {
                0..60 => Transport::Udp,
                60..90 => Transport::Tcp,
                _ => Transport::Tls,
            };
            Wire::allocated(&server, transport, &format!("user{}", index % 10))
        })
        .collect();

    let all = ids(&api.get("/v1/sessions?limit=1000"));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 110);
    assert!(all.is_sorted_by_key(|id| place(id)), "{all:?}");
    let workers: BTreeSet<_> = all.iter().map(|id| place(id).0).collect();
    assert_eq!(workers, BTreeSet::from([0, 1]), "110 clients on one of two workers");
    for limit in [1, 30, 55, 109, 110] {
        let (mut paged, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = api.get(&format!("/v1/sessions?limit={limit}{cursor}"));
            paged.extend(ids(&page));
            pages += 1;
            let Some(next) = page["next_cursor"].as_str() else { break };
            assert_eq!(ids(&page).len(), limit);
            cursor = format!("&cursor={next}");
        }
        assert_eq!((&paged, pages), (&all, 110_usize.div_ceil(limit)), "limit {limit}");
    }
    let first = api.get("/v1/sessions");
    assert_eq!(ids(&first), all[..100]);
    assert_eq!(ids(&api.get(&format!("/v1/sessions?cursor={}", first["next_cursor"].as_str().unwrap()))), all[100..]);

    assert_eq!(["&transport=udp", "&transport=tcp", "&transport=tls"].map(count), [60, 30, 20]);
    assert_eq!(["&user=user3", "&user=user3&transport=tls", "&user=user", "&user=User3"].map(count), [11, 2, 0, 0]);
    assert_eq!(["&client=127.0.0.1", "&client=127.0.0.2", "&peer=127.0.0.1"].map(count), [110, 0, 0]);
    let (client, relayed) = &clients[70];
    let found = api.get(&format!("/v1/sessions?relayed={relayed}"));
    let session = &found["sessions"][0];
    assert_eq!(ids(&found).len(), 1);
    assert_eq!((&session["transport"], &session["user"]), (&"tcp".into(), &"user0".into()));
    assert_eq!(session["client"], client.local_address().to_string());
    assert_eq!(session["server"], server.tcp().to_string());
    assert_eq!(session["relayed"][0]["address"], relayed.to_string());
    let expires_in = session["relayed"][0]["expires_in_secs"].as_u64().unwrap();
    assert!((500..=600).contains(&expires_in), "{expires_in}");
    let made = session["started_unix"].as_u64().unwrap();
    assert!((started..started + 60).contains(&made) && session["age_secs"].as_u64().unwrap() < 60, "{session}");
    let username = session["username"].as_str().unwrap();
    let (expiry, _) = username.split_once(':').unwrap();
    assert_eq!(session["credential_expires_unix"].to_string(), expiry);
    let encoded = username.replace(':', "%3A");
    assert!(
        ids(&api.get(&format!("/v1/sessions?user={encoded}"))).contains(&session["id"].as_str().unwrap().to_owned())
    );

    let status = api.get("/v1/status");
    let by_transport: BTreeMap<String, u64> =
        serde_json::from_value(status["allocations_by_transport"].clone()).unwrap();
    assert_eq!(
        by_transport,
        BTreeMap::from([("dtls".into(), 0), ("tcp".into(), 30), ("tls".into(), 20), ("udp".into(), 60)])
    );
    assert_eq!((&status["allocations"], &status["connections"]), (&110.into(), &50.into()));
    assert_eq!((&status["ports"]["ipv4"]["used"], &status["ports"]["ipv4"]["total"]), (&110.into(), &20_000.into()));
    assert_eq!((&status["workers"], &status["state"], &status["drain"]), (&2.into(), &"serving".into(), &Value::Null));
    assert_eq!(status["listeners"].as_array().unwrap().len(), 3);
    assert_eq!(status["config_file"], server.file("turnserver.toml"));
    assert_eq!(status["pid"], server.process_id());
    let not_after = status["certificate_not_after_unix"].as_i64().unwrap();
    assert!(not_after > i64::try_from(started).unwrap(), "{not_after}");
}

#[test]
fn a_session_is_shown_with_its_permissions_and_channels() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let (mut client, relayed) = Wire::allocated(&server, Transport::Udp, "alice");
    let (_other, _) = Wire::allocated(&server, Transport::Udp, "bob");
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.permit("8.8.8.8:0").unwrap();
    client.bind(0x4001, peer.local_addr().unwrap()).unwrap();
    for payload in [&[1; 100][..], &[2; 23]] {
        client.send_on(0x4001, payload);
        let mut buffer = [0; 2048];
        peer.set_read_timeout(Some(crate::LIMIT)).unwrap();
        let len = peer.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], payload);
    }
    peer.send_to(&[3; 77], relayed).unwrap();
    assert_eq!(client.receive().unwrap().len(), 4 + 77);

    let page = api.get("/v1/sessions?peer=8.8.8.8");
    assert_eq!(ids(&page).len(), 1);
    let listed = &page["sessions"][0];
    assert_eq!((&listed["user"], &listed["permissions"], &listed["channels"]), (&"alice".into(), &2.into(), &1.into()));
    let shown = api.get(&format!("/v1/sessions/{}", listed["id"].as_str().unwrap()));
    for key in ["id", "client", "username", "started_unix", "to_peers", "to_client", "throttled_packets"] {
        assert_eq!(shown[key], listed[key], "{key}");
    }
    assert_eq!(shown["to_peers"], serde_json::json!({ "packets": 2, "bytes": 123 }));
    assert_eq!(shown["to_client"], serde_json::json!({ "packets": 1, "bytes": 77 }));
    let permitted: BTreeSet<_> =
        shown["permissions"].as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap()).collect();
    assert_eq!(permitted, BTreeSet::from(["127.0.0.1", "8.8.8.8"]));
    let channel = &shown["channels"][0];
    assert_eq!(
        (&channel["number"], &channel["peer"]),
        (&0x4001.into(), &peer.local_addr().unwrap().to_string().into())
    );
    assert!((500..=600).contains(&channel["expires_in_secs"].as_u64().unwrap()), "{channel}");
}

#[test]
fn an_ended_session_is_gone_for_its_client_and_no_other_is() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let id_of = |user: &str| ids(&api.get(&format!("/v1/sessions?user={user}"))).remove(0);
    let (mut udp, _) = Wire::allocated(&server, Transport::Udp, "udp");
    let (mut tcp, _) = Wire::allocated(&server, Transport::Tcp, "tcp");
    let (mut tls, _) = Wire::allocated(&server, Transport::Tls, "tls");
    let (mut bystander, _) = Wire::allocated(&server, Transport::Tcp, "bystander");
    for user in ["udp", "tcp", "tls"] {
        let path = format!("/v1/sessions/{}", id_of(user));
        assert_eq!(api.delete(&path)["ended"], 1);
        let (status, code, message) = api.refused("DELETE", &path, None);
        assert_eq!((status, code.as_str()), (404, "not_found"), "{message}");
        assert_eq!(api.refused("GET", &path, None).0, 404);
    }
    assert_eq!(udp.refresh(), Err(437));
    assert_eq!((tcp.receive(), tls.receive()), (None, None));
    assert!(bystander.refresh().is_ok());
    assert_eq!(ids(&api.get("/v1/sessions")).len(), 1);
    // Being ended is no ban.
    assert!(udp.allocate().is_ok());
    logged(&server, 3, "an allocation was ended by the admin API");
    assert_eq!(api.get("/v1/refusals?user=udp")["refusals"][0]["reason"], "allocation-mismatch");
}

#[test]
fn all_sessions_of_a_user_are_ended_at_once_and_never_all_by_accident() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let mut clients: Vec<_> = (0..20)
        .map(|index| {
            let transport = if index % 2 == 0 { Transport::Udp } else { Transport::Tcp };
            Wire::allocated(&server, transport, if index < 12 { "mallory" } else { "alice" }).0
        })
        .collect();
    for bad in ["", "?transport=udp", "?client=127.0.0.1", "?user=", "?user=alice&limit=1"] {
        assert_eq!(api.refused("DELETE", &format!("/v1/sessions{bad}"), None).0, 400, "{bad}");
    }
    assert_eq!(api.delete("/v1/sessions?user=nobody")["ended"], 0);
    assert_eq!(api.delete("/v1/sessions?user=mallory&transport=udp")["ended"], 6);
    assert_eq!(api.delete("/v1/sessions?user=mallory")["ended"], 6);
    assert_eq!(api.delete("/v1/sessions?user=mallory")["ended"], 0);
    for (index, client) in clients.iter_mut().enumerate() {
        match (index < 12, index % 2 == 0) {
            (true, true) => assert_eq!(client.refresh(), Err(437)),
            (true, false) => assert_eq!(client.receive(), None),
            (false, _) => assert!(client.refresh().is_ok()),
        }
    }
    assert_eq!(api.get("/v1/status")["allocations"], 8);
}
