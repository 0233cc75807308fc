//! `reload`, `drain` and `log-level`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;

use crate::support::{TestServer, Transport};
use crate::wire::Wire;
use crate::{LIMIT, cells, config, json, on, printed, run};

#[test]
fn a_reload_prints_what_was_applied_and_what_needs_a_restart() {
    let server = TestServer::start(&config(""));
    let (mut client, _) = Wire::allocated(&server, Transport::Udp, "alice");
    assert_eq!(printed(&server, &["reload", "--dry-run"]), "valid; a reload would change nothing\n");
    server.write_config(&config("[quota]\nallocations-per-user = 1\n").replace("workers = 2", "workers = 3"));

    let rows = |text: &str| text.lines().skip(1).map(|line| cells(line).join("|")).collect::<Vec<_>>();
    let judged = printed(&server, &["reload", "--dry-run"]);
    assert_eq!(judged.lines().next(), Some("valid; nothing was changed"));
    assert_eq!(
        rows(&judged),
        [
            "EFFECT|KEY|BEFORE|AFTER",
            "would be applied|quota.allocations-per-user|5000|1",
            "would need a restart|workers|2|3"
        ]
    );
    assert_eq!(json(&server, &["status"])["config_generation"], 1);
    assert_eq!(run(&server, &["reload", "--dry-run", "--strict"]).code, Some(1));
    Wire::allocated(&server, Transport::Udp, "alice");

    let applied = printed(&server, &["reload"]);
    assert_eq!(applied.lines().next(), Some("reloaded: configuration 2 is in force"));
    assert_eq!(
        rows(&applied),
        [
            "EFFECT|KEY|BEFORE|AFTER",
            "applied|quota.allocations-per-user|5000|1",
            "needs a restart|workers|2|3",
            "2 live sessions judged by it; none lost anything by it"
        ]
    );
    let mut second = Wire::connect(&server, Transport::Udp, &server.credentials("alice"));
    assert_eq!(second.allocate(), Err(486));
    assert!(client.refresh().is_ok());
    let again = json(&server, &["reload"]);
    assert_eq!((&again["applied"], &again["changes"][0]["effect"]), (&json!(true), &json!("needs-restart")));
    assert_eq!(run(&server, &["reload", "--strict"]).code, Some(1));

    server.write_config(&config("[streams]\nconnections-max = 10\nconnections-per-ip-max = 20\n"));
    let warned = printed(&server, &["reload", "--dry-run"]);
    assert!(
        warned.lines().any(|line| line.starts_with("warning: ") && line.contains("connections-per-ip-max")),
        "{warned}"
    );
    server.write_config(&config(""));
    assert_eq!(run(&server, &["reload", "--strict"]).code, Some(0));
}

#[test]
fn a_broken_file_is_refused_with_its_mistake_and_nothing_changes() {
    let server = TestServer::start(&config(""));
    let before = json(&server, &["status"]);
    // The commands find the server all the same.
    for (broken, problem) in [
        (config("[quota]\nallocations-per-user = -1\n"), "turnserver.toml:18:24: "),
        (config("x = = 1\n"), "turnserver.toml:17:5: "),
    ] {
        server.write_config(&broken);
        for args in [&["reload", "--dry-run"][..], &["reload"], &["reload", "--json"]] {
            let refused = run(&server, args);
            assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
            assert!(refused.stderr.starts_with("error: ") && refused.stderr.contains(problem), "{}", refused.stderr);
        }
    }
    let after = json(&server, &["status"]);
    assert_eq!(after["config_generation"], before["config_generation"]);
    assert!(Wire::connect(&server, Transport::Udp, &server.credentials("alice")).allocate().is_ok());
}

#[test]
fn drain_has_a_deadline_and_waits_until_the_process_ends() {
    let mut server = TestServer::start(&config("[drain]\ndeadline = \"2h\"\n"));
    let _clients: Vec<_> = (0..2).map(|_| Wire::allocated(&server, Transport::Udp, "alice")).collect();
    for bad in ["1", "2d", "500ms", "soon", "-1s"] {
        assert_eq!(run(&server, &["drain", "--deadline", bad]).code, Some(2), "{bad}");
    }
    assert_eq!(json(&server, &["status"])["state"], "serving");

    let configured = printed(&server, &["drain"]);
    assert!(
        configured.starts_with("draining: ") && configured.contains(" (in 119 min) at the latest\n")
            || configured.contains(" (in 2 h) "),
        "{configured}"
    );
    let endless = printed(&server, &["drain", "--deadline", "none"]);
    assert!(endless.contains("without a deadline"), "{endless}");
    assert_eq!(json(&server, &["drain", "--deadline", "none"]), json!({ "state": "draining", "deadline_unix": null }));
    let screen = printed(&server, &["status"]);
    assert!(screen.contains("state          draining, 2 allocations left, without a deadline\n"), "{screen}");

    let mut waiting = on(&server, &["drain", "--deadline", "1h", "--wait"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told = lines.next().unwrap();
    assert!(told.starts_with("draining: ") && told.ends_with("at the latest"), "{told}");
    let ids = json(&server, &["sessions"]);
    for (index, left) in ["2 allocations left", "1 allocation left"].into_iter().enumerate() {
        assert_eq!(lines.next().as_deref(), Some(left));
        assert!(server.is_running() && waiting.try_wait().unwrap().is_none());
        let id = ids["sessions"][index]["id"].as_str().unwrap();
        assert_eq!(printed(&server, &["kick", "--yes", id]), "ended 1 session\n");
    }
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    assert_eq!(lines.last().as_deref(), Some("the server has ended"));
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

#[test]
fn the_level_of_the_log_is_shown_and_changed() {
    let server = TestServer::start(&config(""));
    assert_eq!(printed(&server, &["log-level"]), "info\n");
    let filter = "warn,turnstone::turn=debug";
    assert_eq!(printed(&server, &["log-level", filter]), format!("{filter} (until the next reload or restart)\n"));
    assert_eq!(json(&server, &["log-level"]), json!({ "level": filter }));
    let refused = run(&server, &["log-level", "loud"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    assert!(refused.stderr.contains("\"loud\" is not a level"), "{}", refused.stderr);
    assert_eq!(printed(&server, &["log-level"]), format!("{filter}\n"));
    printed(&server, &["reload"]);
    assert_eq!(printed(&server, &["log-level"]), "info\n");
}
