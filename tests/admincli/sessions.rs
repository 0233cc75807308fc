//! `status`, `sessions`, `show` and `kick`.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{TestServer, Transport};
use crate::wire::Wire;
use crate::{Pair, cells, config, json, printed, run};

#[test]
fn sessions_are_listed_with_what_their_clients_sent_and_found_by_every_filter() {
    let server = TestServer::start(&config(""));
    assert_eq!(printed(&server, &["sessions"]), "no session\n");
    let mut pairs: Vec<_> = [(Transport::Udp, "alice"), (Transport::Tcp, "bob"), (Transport::Tls, "carol")]
        .into_iter()
        .map(|(transport, user)| (user, transport, Pair::new(&server, transport, user)))
        .collect();
    for (index, (_, _, pair)) in pairs.iter_mut().enumerate() {
        pair.send_to_peer(index + 1, 1000);
        pair.send_to_client(2, 50);
    }
    let answer = json(&server, &["sessions"]);
    assert_eq!(answer["next_cursor"], json!(null));
    let of_user: BTreeMap<_, _> = answer["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| (session["user"].as_str().unwrap(), session))
        .collect();
    assert_eq!(of_user.len(), 3);
    let table = printed(&server, &["sessions"]);
    assert_eq!(
        cells(table.lines().next().unwrap()),
        ["ID", "TRANSPORT", "CLIENT", "RELAYED", "USER", "AGE", "TO PEERS", "TO CLIENT"]
    );
    for (index, (user, transport, pair)) in pairs.iter().enumerate() {
        let session = of_user[user];
        let packets = index + 1;
        assert_eq!(session["to_peers"], json!({ "packets": packets, "bytes": packets * 1000 }), "{session}");
        assert_eq!(session["to_client"], json!({ "packets": 2, "bytes": 100 }), "{session}");
        let (id, client, relayed) =
            (session["id"].as_str().unwrap(), pair.client.local_address().to_string(), pair.relayed.to_string());
        let line = table.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{id}: {table}"));
        let shown = cells(line);
        assert_eq!(shown[..5], [id, transport.name(), client.as_str(), relayed.as_str(), user], "{table}");
        assert!(shown[5].ends_with(" s"), "{table}");
        assert_eq!(shown[6..], [format!("{packets}.0 kB").as_str(), "100 B"], "{table}");

        let peer = pair.peer.local_addr().unwrap().ip().to_string();
        for filter in [
            &["--user", user][..],
            &["--relayed", relayed.as_str()],
            &["--transport", transport.name(), "--peer", peer.as_str(), "--client", "127.0.0.1"],
        ] {
            let found = json(&server, &[&["sessions"], filter].concat());
            let ids: Vec<_> = found["sessions"].as_array().unwrap().iter().map(|session| &session["id"]).collect();
            assert_eq!(ids, [id], "{filter:?}");
        }
    }
    assert_eq!(printed(&server, &["sessions", "--peer", "192.0.2.1"]), "no such session\n");
    let first = printed(&server, &["sessions", "--limit", "2"]);
    assert_eq!(first.lines().count(), 4, "{first}");
    assert_eq!(first.lines().last(), Some("the first 2; --all lists all of them"));
    assert_eq!(printed(&server, &["sessions", "--all"]).lines().count(), 4);
    for bad in [&["--limit", "0"][..], &["--client", "alice"], &["--transport", "sctp"], &["--all", "--limit", "2"]] {
        assert_eq!(run(&server, &[&["sessions"], bad].concat()).code, Some(2), "{bad:?}");
    }
}

#[test]
fn all_sessions_are_listed_page_by_page() {
    const SESSIONS: usize = 1010;
    let server = TestServer::start(&config(
        "[limits]\nunauthenticated-replies-burst = 100000\n[quota]\nallocations-per-user-burst = 100000\n",
    ));
    let _clients: Vec<_> = (0..SESSIONS).map(|_| Wire::allocated(&server, Transport::Udp, "alice")).collect();
    let ids = |args: &[&str]| {
        let answer = json(&server, args);
        let list = answer["sessions"].as_array().unwrap();
        let mut ids: Vec<_> = list.iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids.dedup();
        (ids.len(), answer["next_cursor"].is_string())
    };
    assert_eq!(ids(&["sessions"]), (100, true));
    assert_eq!(ids(&["sessions", "--limit", "1005"]), (1005, true));
    assert_eq!(ids(&["sessions", "--limit", "1010"]), (1010, false));
    assert_eq!(ids(&["sessions", "--all"]), (1010, false));
}

#[test]
fn a_session_is_shown_with_its_peers_and_its_name_is_escaped() {
    let server = TestServer::start(&config(""));
    let mut pair = Pair::new(&server, Transport::Tcp, "zo\u{eb} \"q\" a\u{301}");
    pair.send_to_peer(2, 600);
    pair.client.permit("8.8.8.8:0").unwrap();
    let id = json(&server, &["sessions"])["sessions"][0]["id"].as_str().unwrap().to_owned();
    let shown = printed(&server, &["show", &id]);
    let user = r#"zoë "q" a\u{301}"#;
    let peer = pair.peer.local_addr().unwrap();
    for line in [
        format!("session      {id}"),
        format!("user         {user}"),
        format!("client       {} over tcp", pair.client.local_address()),
        "to peers     2 packets, 1.2 kB".to_owned(),
        "to client    0 packets, 0 B".to_owned(),
        format!("channels     0x4001 to {peer}, for another 9 min"),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line:?} is not in\n{shown}");
    }
    assert!(shown.contains("8.8.8.8, for another 4 min") || shown.contains("8.8.8.8, for another 5 min"), "{shown}");
    assert!(shown.contains(&format!(":{user}\ncredential   until 20")), "{shown}");
    let table = printed(&server, &["sessions"]);
    assert!(table.contains(user), "{table}");
    for text in [&shown, &table, &printed(&server, &["top", "--once", "--interval", "200ms"])] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{301}'), "{text:?}");
    }
    assert_eq!(
        json(&server, &["show", &id])["username"].as_str().unwrap().split_once(':').unwrap().1,
        "zo\u{eb} \"q\" a\u{301}"
    );

    let gone = run(&server, &["show", &format!("{}-0-999", &id[..8])]);
    assert_eq!((gone.code, gone.stdout.as_str()), (Some(1), ""));
    assert!(gone.stderr.starts_with("error: no allocation "), "{}", gone.stderr);
    for bad in ["17", "../status", "5f3a9c1e-0-17?x", ""] {
        let refused = run(&server, &["show", bad]);
        assert_eq!(refused.code, Some(2), "{bad}: {}", refused.stderr);
    }
}

#[test]
fn a_name_that_steers_terminals_is_refused_and_neither_text_nor_json_has_it_raw() {
    let server = TestServer::start(&config(""));
    let hostile = server.credentials("eve\u{1b}]0;owned\u{7}\u{202e}\n\u{9b}2J\u{2066}");
    assert_eq!(Wire::connect(&server, Transport::Tcp, &hostile).allocate(), Err(400));
    for args in [&["explain", "127.0.0.1"][..], &["explain", "127.0.0.1", "--json"], &["sessions", "--json"]] {
        let shown = run(&server, args).stdout;
        assert!(shown.chars().all(|c| c == '\n' || !turnstone::text::is_deceptive(c)), "{shown:?}");
    }
    let explained = run(&server, &["explain", "127.0.0.1", "--json"]).stdout;
    assert!(explained.contains("\\u202e") && explained.contains("\\u009b2J"), "{explained}");
    assert!(explained.contains("malformed-username"), "{explained}");
    assert_eq!(json(&server, &["sessions"])["sessions"], serde_json::json!([]));
}

#[test]
fn kick_ends_what_it_names_and_without_a_terminal_only_when_told_to() {
    let server = TestServer::start(&config(""));
    let (mut alice, _) = Wire::allocated(&server, Transport::Udp, "alice");
    let mut others: Vec<_> = (0..3).map(|_| Wire::allocated(&server, Transport::Tls, "mallory").0).collect();
    let id = json(&server, &["sessions", "--user", "alice"])["sessions"][0]["id"].as_str().unwrap().to_owned();
    for args in [&["kick", &id][..], &["kick", "--user", "mallory"]] {
        let refused = run(&server, args);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
        assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    }
    assert!(alice.refresh().is_ok());
    for bad in [&["kick", "--yes"][..], &["kick", "--yes", &id, "--user", "alice"], &["kick", "--yes", "--user", ""]] {
        assert_eq!(run(&server, bad).code, Some(2), "{bad:?}");
    }
    assert_eq!(printed(&server, &["kick", "--user", "mallory", "--yes"]), "ended 3 sessions\n");
    assert!(others.iter_mut().all(|client| client.receive().is_none()));
    assert!(alice.refresh().is_ok());
    assert_eq!(json(&server, &["kick", &id, "-y"]), json!({ "ended": 1 }));
    assert_eq!(alice.refresh(), Err(437));
    let again = run(&server, &["kick", &id, "--yes"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    let nobody = run(&server, &["kick", "--user", "nobody", "--yes"]);
    assert_eq!((nobody.code, nobody.stdout.as_str()), (Some(1), "ended 0 sessions\n"));
}

#[test]
fn status_is_one_screen_with_the_figures_of_what_clients_sent() {
    let server = TestServer::start(&config(""));
    let mut udp = Pair::new(&server, Transport::Udp, "alice");
    let _tcp = Wire::allocated(&server, Transport::Tcp, "bob");
    udp.send_to_peer(3, 500);
    udp.send_to_client(4, 20);
    assert_eq!(udp.client.permit("10.0.0.1:0"), Err(403));
    let answer = json(&server, &["status"]);
    assert_eq!(answer["traffic"]["to_peers"], json!({ "packets": 3, "bytes": 1500 }));
    let screen = printed(&server, &["status"]);
    for line in [
        "state          serving".to_owned(),
        format!("configuration  {}, generation 1", server.file("turnserver.toml")),
        "workers        2".to_owned(),
        "log level      info".to_owned(),
        "allocations    2 (tcp 1, udp 1)".to_owned(),
        "connections    1".to_owned(),
        "relay ports    ipv4 2 of 20000".to_owned(),
        "to peers       3 packets, 1.5 kB".to_owned(),
        "to clients     4 packets, 80 B".to_owned(),
        "challenged     2 requests".to_owned(),
        "refused        peer-denied-by-default 1".to_owned(),
        "dropped        nothing".to_owned(),
    ] {
        assert!(screen.lines().any(|shown| shown == line), "{line:?} is not in\n{screen}");
    }
    assert!(screen.contains(&format!(
        "process {}, instance {}",
        server.process_id(),
        answer["instance"].as_str().unwrap()
    )));
    for (transport, address) in [("udp", server.udp()), ("tcp", server.tcp()), ("tls", server.tls())] {
        assert!(screen.contains(&format!(" {transport} {address}\n")), "{screen}");
    }
    assert!(screen.contains("certificate    until 4096") && screen.contains(", for another "), "{screen}");
}
