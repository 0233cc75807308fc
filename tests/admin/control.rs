//! Reload, drain and the log's level, under traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Api;
use crate::client::{Allocated, connect};
use crate::support::{EchoPeer, TestAuthority, TestServer, Transport, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, config, logged};

fn changes(answer: &Value) -> Vec<(String, String)> {
    let text = |change: &Value, key: &str| change[key].as_str().unwrap().to_owned();
    let list = answer["changes"].as_array().unwrap();
    list.iter().map(|change| (text(change, "key"), text(change, "effect"))).collect()
}

/// Clients that echo without a pause until they are stopped.
struct Traffic {
    stop: Arc<AtomicBool>,
    echoes: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<Allocated>>,
    _peer: EchoPeer,
}

impl Traffic {
    async fn start(server: &TestServer) -> Traffic {
        let peer = EchoPeer::start("127.0.0.1");
        let (stop, echoes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = Vec::new();
        for index in 0..4 {
            let client = Allocated::new(server, &format!("user{index}")).await;
            let (stop, echoes, peer) = (Arc::clone(&stop), Arc::clone(&echoes), peer.address());
            clients.push(tokio::spawn(async move {
                for round in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    client.echo(peer, &round.to_be_bytes()).await;
                    echoes.fetch_add(1, Ordering::Relaxed);
                }
                client
            }));
        }
        Traffic { stop, echoes, clients, _peer: peer }
    }

    fn has_gone_on(&self) {
        let before = self.echoes.load(Ordering::Relaxed);
        wait_until("more echoes", LIMIT, || (self.echoes.load(Ordering::Relaxed) > before + 20).then_some(()));
    }

    /// The clients, if none of them lost anything.
    async fn stop(self) -> Vec<Allocated> {
        self.stop.store(true, Ordering::Relaxed);
        let mut clients = Vec::new();
        for client in self.clients {
            clients.push(client.await.unwrap());
        }
        clients
    }
}

#[test]
fn files_that_take_long_to_read_hold_up_nothing_and_a_second_reload_is_told_so() {
    let users = |name: &str| (0..100_000).map(|n| format!("{name}-{n}:a password of {n}\n")).collect::<String>();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    let write = |text: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write("ann:a password of hers\n");
    let server = TestServer::start(&config(&format!("[auth]\nusers-file = \"{}\"\n", path.display())));
    let api = Api::of(&server);
    write(&users("new"));
    server.signal(rustix::process::Signal::HUP);
    let mut busy = 0;
    wait_until("two reloads", 2 * LIMIT, || {
        let second = api.call("POST", "/v1/reload?dry_run=true", None);
        if second.status == 503 {
            let error = second.body["error"].to_string();
            assert!(error.contains("\"busy\"") && error.contains("they are being read"), "{error}");
            if busy == 0 {
                server.signal(rustix::process::Signal::HUP);
            }
            busy += 1;
        }
        let generation = api.get("/v1/config")["generation"].as_u64();
        (generation == Some(3)).then_some(())
    });
    // The supervisor says so itself, and shows the configuration in between.
    assert!(busy >= 2, "{busy} times it was told so");
    assert!(server.log().contains("there will be another one when it has ended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_judged_applied_or_refused_under_traffic_and_loses_no_allocation() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let traffic = Traffic::start(&server).await;
    let sessions = |api: &Api| {
        let page = api.get("/v1/sessions");
        page["sessions"].as_array().unwrap().iter().map(|session| session["id"].clone()).collect::<Vec<_>>()
    };
    let before = sessions(&api);
    assert_eq!(before.len(), 4);

    let more = "[quota]\nallocations-per-user = 1\n[drain]\ndeadline = \"5m\"\n";
    server.write_config(&config(more).replace("workers = 2", "workers = 3"));
    let running = api.get("/v1/config");
    let judged = api.done("POST", "/v1/reload?dry_run=true", None, 200);
    let wanted =
        [("drain.deadline", "applied"), ("quota.allocations-per-user", "applied"), ("workers", "needs-restart")]
            .map(|(key, effect)| (key.to_owned(), effect.to_owned()));
    assert_eq!(changes(&judged), wanted);
    assert_eq!(
        (&judged["applied"], &judged["dry_run"], &judged["generation"]),
        (&false.into(), &true.into(), &1.into())
    );
    assert_eq!(api.get("/v1/config"), running);
    assert!(!server.log().contains("quota.allocations-per-user"), "{}", server.log());
    Wire::allocated(&server, Transport::Udp, "user0");
    traffic.has_gone_on();

    let applied = api.done("POST", "/v1/reload", None, 200);
    assert_eq!(applied["changes"], judged["changes"]);
    assert_eq!(
        (&applied["applied"], &applied["dry_run"], &applied["generation"]),
        (&true.into(), &false.into(), &2.into())
    );
    assert_eq!(judged["sessions"], Value::Null, "a dry run judges no session");
    // Those of the traffic, and the one allocated above.
    let judgement =
        json!({ "judged": 5, "ended": 0, "permissions_ended": 0, "channels_ended": 0, "connections_ended": 0 });
    assert_eq!(applied["sessions"], judgement);
    let config_now = api.get("/v1/config");
    assert_eq!(config_now["generation"], 2);
    let toml = config_now["toml"].as_str().unwrap();
    assert!(toml.contains("allocations-per-user = 1\n") && toml.contains("workers = 2\n"), "{toml}");
    logged(&server, 1, "only after a restart");
    logged(&server, 1, "configuration reloaded");
    let mut second = Wire::connect(&server, Transport::Udp, &server.credentials("user0"));
    assert_eq!(second.allocate(), Err(486));
    traffic.has_gone_on();

    // The same again changes nothing but the generation.
    let again = api.done("POST", "/v1/reload?dry_run=false", None, 200);
    assert_eq!((changes(&again).len(), &again["generation"]), (1, &3.into()));

    let refused = |problem: &str| {
        for path in ["/v1/reload?dry_run=true", "/v1/reload"] {
            let (status, code, message) = api.refused("POST", path, None);
            assert_eq!((status, code.as_str()), (409, "config_invalid"), "{message}");
            assert!(message.contains(problem), "{message}");
        }
        assert_eq!(api.get("/v1/config")["generation"], 3);
    };
    server.write_config(&config("[quota]\nallocations-per-user = -1\n"));
    refused("turnserver.toml:18:24: ");
    server.write_config("nonsense");
    refused("turnserver.toml:1:");
    let other = TestAuthority::issue(&["localhost"]);
    std::fs::write(server.file("other.pem"), &other.certificate_pem).unwrap();
    server.write_config(&config("").replace("certificate.pem", "other.pem"));
    refused("other.pem");
    std::fs::remove_file(server.file("turnserver.toml")).unwrap();
    refused("turnserver.toml: cannot read the file");
    logged(&server, 4, "reload refused");

    traffic.has_gone_on();
    let clients = traffic.stop().await;
    assert!(before.iter().all(|id| sessions(&api).contains(id)));
    for client in clients {
        client.release().await;
    }
}

#[test]
fn warnings_of_a_configuration_are_told_and_logged_only_when_it_is_applied() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    server.write_config(&config("[streams]\nconnections-max = 10\nconnections-per-ip-max = 20\n"));
    for (path, times) in [("/v1/reload?dry_run=true", 0), ("/v1/reload", 1)] {
        let warnings = api.done("POST", path, None, 200)["warnings"].clone();
        let warning = warnings[0].as_str().unwrap_or_else(|| panic!("{warnings}"));
        assert!(warning.contains("turnserver.toml:18:") && warning.contains("connections-per-ip-max"), "{warning}");
        logged(&server, times, "configuration reloaded");
        logged(&server, times, "is more than connections-max");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_has_a_deadline_that_can_be_replaced_and_a_status() {
    let mut server = TestServer::start(&config("[drain]\ndeadline = \"2h\"\n"));
    let api = Api::of(&server);
    let peer = EchoPeer::start("127.0.0.1");
    let client = Allocated::new(&server, "alice").await;
    client.echo(peer.address(), b"before").await;
    for bad in [
        "[]",
        "{\"deadline_secs\": -1}",
        "{\"deadline_secs\": 86401}",
        "{\"deadline_secs\": \"1h\"}",
        "{\"deadline\": 1}",
    ] {
        let (status, code, message) = api.refused("POST", "/v1/drain", Some(bad));
        assert_eq!((status, code.as_str()), (400, "bad_request"), "{bad}: {message}");
    }
    assert_eq!(api.get("/v1/status")["state"], "serving");

    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (body, deadline) in [
        (Some("{\"deadline_secs\": 3600}"), Some(3600)),
        (Some("{\"deadline_secs\": null}"), None),
        (None, Some(7200)),
        (Some("{}"), Some(7200)),
        (Some("{\"deadline_secs\": 60}"), Some(60)),
    ] {
        let before = now();
        let drain = api.done("POST", "/v1/drain", body, 202);
        let told = drain["deadline_unix"].as_u64();
        match deadline {
            Some(secs) => assert!((before + secs - 1..=now() + secs).contains(&told.unwrap()), "{body:?}: {drain}"),
            None => assert_eq!(told, None),
        }
        let status = api.get("/v1/status");
        assert_eq!(status["state"], "draining");
        assert_eq!(status["drain"], json!({ "deadline_unix": told, "allocations_left": 1 }));
    }
    let (newcomer, _) = connect(&server, &server.credentials("bob")).await;
    let refused = newcomer.allocate().await.err().unwrap().to_string();
    assert!(refused.contains("508"), "{refused}");
    let explained = api.get("/v1/refusals?user=bob")["refusals"][0]["explanation"].clone();
    assert!(explained.as_str().unwrap().contains("draining"), "{explained}");
    for round in 0..50_u8 {
        client.echo(peer.address(), &[round; 100]).await;
    }
    assert!(server.is_running());
    logged(&server, 4, "the drain has another deadline");
    api.done("POST", "/v1/drain", Some("{\"deadline_secs\": 0}"), 202);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    assert!(server.log().contains("the deadline of the drain has come"), "{}", server.log());
    drop(client);
}

#[test]
fn a_drain_of_an_unused_server_is_answered_before_the_server_ends() {
    let mut server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let drain = api.done("POST", "/v1/drain", None, 202);
    assert_eq!(drain, json!({ "state": "draining", "deadline_unix": null }));
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    assert!(!std::path::Path::new(&server.file("admin.sock")).exists());
}

#[test]
fn the_level_of_the_log_changes_what_is_logged_until_the_next_reload() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let ended = || server.log().matches("allocation ended").count();
    let end_one = || {
        let (_client, _) = Wire::allocated(&server, Transport::Udp, "alice");
        assert_eq!(api.delete("/v1/sessions?user=alice")["ended"], 1);
    };
    assert_eq!(api.get("/v1/log-level"), json!({ "level": "info" }));
    end_one();
    wait_until("the end in the log", LIMIT, || (ended() == 1).then_some(()));
    let level = "error,turnstone::worker=warn";
    let body = json!({ "level": level }).to_string();
    assert_eq!(api.done("PUT", "/v1/log-level", Some(&body), 200), json!({ "level": level }));
    assert_eq!(api.get("/v1/log-level"), json!({ "level": level }));
    assert_eq!(api.get("/v1/status")["log_level"], level);
    end_one();
    for bad in [
        "",
        "[]",
        "{}",
        "{\"level\": 1}",
        "{\"level\": \"loud\"}",
        "{\"level\": \"\"}",
        "{\"level\": \"info\", \"x\": 1}",
    ] {
        let (status, code, message) = api.refused("PUT", "/v1/log-level", Some(bad));
        assert_eq!((status, code.as_str()), (400, "bad_request"), "{bad}: {message}");
    }
    assert_eq!(api.get("/v1/log-level")["level"], level);
    api.done("POST", "/v1/reload", None, 200);
    assert_eq!(api.get("/v1/log-level"), json!({ "level": "info" }));
    end_one();
    wait_until("the third end in the log", LIMIT, || (ended() == 2).then_some(()));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(ended(), 2, "{}", server.log());
}

#[test]
fn a_reload_answers_when_every_session_has_been_judged_and_says_what_ended() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let (mut client, _) = Wire::allocated(&server, Transport::Udp, "alice");
    assert!(client.permit("9.9.9.9:0").is_ok());
    server.write_config(&config("[peers]\ndenied = [\"9.9.9.0/24\"]\n"));
    let applied = api.done("POST", "/v1/reload", None, 200);
    let judgement =
        json!({ "judged": 1, "ended": 0, "permissions_ended": 1, "channels_ended": 0, "connections_ended": 0 });
    assert_eq!(applied["sessions"], judgement);
    let page = api.get("/v1/sessions");
    let id = page["sessions"][0]["id"].as_str().unwrap();
    assert_eq!(api.get(&format!("/v1/sessions/{id}"))["permissions"], json!([]));
}
