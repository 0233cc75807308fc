//! `explain`: why somebody was refused.

use crate::support::{Credentials, TestServer, Transport};
use crate::wire::Wire;
use crate::{cells, config, json, printed, run};

#[test]
fn an_expired_credential_a_wrong_password_and_a_private_peer_are_explained() {
    let server =
        TestServer::start(&config("[peers]\ndenied = [\"198.51.100.0/24\"]\nallowed = [\"172.16.5.0/24 override\"]\n"));
    let kept = printed(&server, &["explain", "alice"]);
    assert!(kept.starts_with("no refusal of alice; everything since 20") && kept.lines().count() == 1, "{kept}");
    let refused = |credentials: &Credentials| Wire::connect(&server, Transport::Udp, credentials).allocate();
    let late = server.expired_credentials("late");
    for _ in 0..3 {
        assert_eq!(refused(&late), Err(401));
    }
    let wrong = Credentials { password: "guessed".to_owned(), ..server.credentials("guest") };
    assert_eq!(refused(&wrong), Err(401));
    let (mut client, _) = Wire::allocated(&server, Transport::Tcp, "alice");
    for peer in ["10.1.2.3:0", "10.1.2.4:0", "10.1.2.3:0"] {
        assert_eq!(client.permit(peer), Err(403));
    }
    assert_eq!(client.permit("198.51.100.7:0"), Err(403));

    let explained = |whom: &str| {
        let text = printed(&server, &["explain", whom]);
        let mut lines = text.lines().map(str::to_owned);
        assert_eq!(
            cells(&lines.next().unwrap()),
            ["LAST", "TIMES", "CODE", "REQUEST", "CLIENT", "USER", "PEER", "WHY"]
        );
        let rows: Vec<_> = lines.map(|line| cells(&line).join("|")).collect();
        (
            rows.iter()
                .map(|row| row.split_once(" ago|").map_or(row.clone(), |(_, rest)| rest.to_owned()))
                .collect::<Vec<_>>(),
            text,
        )
    };
    let (rows, text) = explained("late");
    assert_eq!(rows[0], "3|401|Allocate|127.0.0.1 udp|late|-|the credential had expired 3 min before", "{text}");
    assert!(rows[1].starts_with("3 refusals; everything since 20") && rows.len() == 2, "{text}");
    let (rows, text) = explained("guest");
    assert_eq!(
        rows[0],
        "1|401|Allocate|127.0.0.1 udp|guest|-|wrong password, or made with another secret (or with a line end behind it): turnstone credentials verify USERNAME PASSWORD says more",
        "{text}"
    );
    let candidate = "private host candidate (10.0.0.0/8, private use): normal in ICE";
    let (rows, text) = explained("alice");
    assert_eq!(
        rows[..2],
        [
            "1|403|CreatePermission|127.0.0.1 tcp|alice|198.51.100.7|denied by the rule \"198.51.100.0/24\" in [peers] denied"
                .to_owned(),
            format!("3|403|CreatePermission|127.0.0.1 tcp|alice|10.1.2.3 and 1 more|{candidate}"),
        ],
        "{text}"
    );
    let (rows, text) = explained("10.1.2.3");
    assert_eq!(rows[0], format!("2|403|CreatePermission|127.0.0.1 tcp|alice|10.1.2.3|{candidate}"), "{text}");
    assert_eq!(rows[2], "as a peer, 10.1.2.3 is denied now: 10.0.0.0/8, private use", "{text}");
    let (rows, text) = explained(&client.local_address().to_string());
    assert_eq!(rows.len(), 4, "{text}");

    let other = printed(&server, &["explain", "8.8.8.8"]);
    assert!(other.starts_with("no refusal of 8.8.8.8; "), "{other}");
    assert!(other.ends_with("\nas a peer, 8.8.8.8 is allowed now: no rule denies it\n"), "{other}");
    let lifted = printed(&server, &["explain", "172.16.5.9"]);
    let rule = "allowed now: the rule \"172.16.5.0/24 override\" in [peers] allowed lifts the denial of 172.16.0.0/12, private use\n";
    assert!(lifted.ends_with(rule), "{lifted}");
    let named = printed(&server, &["explain", "--user", "8.8.8.8"]);
    assert_eq!(named.lines().count(), 1, "{named}");
    // A refused port of an address that may have permissions is judged by itself.
    assert_eq!(client.bind(0x4000, server.udp()), Err(403));
    let own = printed(&server, &["explain", &server.udp().ip().to_string()]);
    let refused = format!("\n  at port {} it is denied now: an address of this server\n", server.udp().port());
    assert!(own.ends_with(&refused) && !own.contains("no rule denies it"), "{own}");
    let answer = json(&server, &["explain", "late"]);
    assert_eq!(answer["refusals"].as_array().unwrap().len(), 3);
    assert_eq!(answer["refusals"][0]["reason"], "credential-expired");
}

#[test]
fn who_was_revoked_is_told_so_before_his_client_asks_again() {
    let server = TestServer::start(&config(""));
    let clients: Vec<_> = (0..3).map(|_| Wire::allocated(&server, Transport::Tcp, "page-1").0).collect();
    let (_other, _) = Wire::allocated(&server, Transport::Udp, "page-2");
    assert!(run(&server, &["revoke", "--user", "page-1"]).stdout.contains("; ended 3 sessions\n"));
    drop(clients);
    let text = printed(&server, &["explain", "page-1"]);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("no refusal of page-1; everything since"), "{text}");
    assert_eq!(cells(lines[1]), ["LAST", "SESSIONS", "ENDED", "CLIENT", "USER", "WHY"]);
    let row = cells(lines[2]).join("|");
    let wanted = "3|revoked|127.0.0.1 tcp|page-1|its credential was revoked; turnstone revoke --list shows by what";
    assert!(row.split_once(" ago|").is_some_and(|(_, row)| row == wanted), "{text}");
    assert_eq!(lines[3], "3 sessions ended, of those that are kept");
    assert!(lines[4].starts_with("user page-1 is revoked until 20"), "{text}");
    assert!(lines[4].ends_with("by a command or the API (turnstone revoke --undo ends that)"), "{text}");
    assert_eq!(lines.len(), 5, "{text}");
    // By the address, too, and nobody else is said to be revoked.
    assert!(printed(&server, &["explain", "127.0.0.1"]).contains("  revoked  "));
    let other = printed(&server, &["explain", "page-2"]);
    assert_eq!(other.lines().count(), 1, "{other}");
    // One credential of a user, and what was issued before some moment.
    let credentials = server.credentials("page-2");
    run(&server, &["revoke", &credentials.username]);
    run(&server, &["revoke", "--everybody", "--yes", "--issued-before", "now", "--lifetime", "1d"]);
    let text = printed(&server, &["explain", "page-2"]);
    assert!(text.contains(&format!("\nusername {} is revoked until 20", credentials.username)), "{text}");
    assert!(
        text.contains("\neverybody is revoked until 20") && text.contains(", what was issued for up to 24 h before 20"),
        "{text}"
    );
}

#[test]
fn a_client_whose_session_is_over_is_told_how_it_ended() {
    let server = TestServer::start(&config(""));
    let (mut client, _) = Wire::allocated(&server, Transport::Udp, "alice");
    assert!(run(&server, &["kick", "--user", "alice", "--yes"]).stdout.contains('1'));
    assert_eq!(client.permit("8.8.8.8:0"), Err(437));
    let text = printed(&server, &["explain", "alice"]);
    let why = "the client has no allocation any more: an operator ended it: turnstone kick, or the admin API";
    assert!(text.contains(why), "{text}");
}
