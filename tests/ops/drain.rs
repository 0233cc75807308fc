//! Stopping a server that is in use.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use stun::attributes::{ATTR_ALTERNATE_SERVER, ATTR_NONCE, ATTR_REALM};
use stun::message::{Getter, Message};

use crate::client::{Allocated, connect};
use crate::support::{EchoPeer, TestServer, wait_until};
use crate::{LIMIT, Scrape, config, endpoint, get};

const ALTERNATE: &str = "203.0.113.6:3478";

fn is_draining(server: &TestServer) {
    wait_until("the drain", LIMIT, || (get(&endpoint(server), "/readyz").0 == 503).then_some(()));
}

/// This client knows no redirect; its first request, without a credential, gets one.
async fn assert_newcomers_are_redirected(server: &TestServer) {
    let (newcomer, socket) = connect(server, &server.credentials("bob")).await;
    assert!(newcomer.allocate().await.is_err());
    let mut answer = Message::new();
    answer.raw = socket.watch.get();
    answer.decode().unwrap();
    let mut code = stun::error_code::ErrorCodeAttribute::default();
    code.get_from(&answer).unwrap();
    assert_eq!(code.code.0, 300);
    let mut alternate = stun::addr::MappedAddress::default();
    alternate.get_from_as(&answer, ATTR_ALTERNATE_SERVER).unwrap();
    assert_eq!(SocketAddr::new(alternate.ip, alternate.port), ALTERNATE.parse().unwrap());
    assert!(!answer.contains(ATTR_NONCE) && !answer.contains(ATTR_REALM));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_sends_new_clients_elsewhere_and_ends_with_the_last_allocation() {
    let more = format!("[drain]\ndeadline = \"1h\"\nalternate-server = \"{ALTERNATE}\"\n");
    let mut server = TestServer::start(&config(&more));
    let peer = EchoPeer::start("127.0.0.1");
    let client = Allocated::new(&server, "alice").await;
    client.echo(peer.address(), b"before").await;
    server.signal(Signal::TERM);
    is_draining(&server);
    assert_eq!(get(&endpoint(&server), "/healthz").0, 200);
    assert_eq!(Scrape::of(&server).get("turnstone_draining"), 1.0);

    assert_newcomers_are_redirected(&server).await;
    let refused = "turnstone_refusals_total{code=\"300\",reason=\"redirected\"}";
    assert_eq!(Scrape::of(&server).get(refused), 1.0);

    for round in 0..50_u8 {
        client.echo(peer.address(), &[round; 100]).await;
    }
    assert!(server.is_running());
    client.release().await;
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    let log = server.log();
    assert!(log.contains("drained") && log.contains("released") && !log.contains("shutdown"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_alternate_newcomers_get_508_and_the_deadline_ends_what_is_left() {
    let mut server = TestServer::start(&config("[drain]\ndeadline = \"2s\"\n"));
    let client = Allocated::new(&server, "alice").await;
    server.signal(Signal::TERM);
    is_draining(&server);
    let (newcomer, _) = connect(&server, &server.credentials("bob")).await;
    let refused = newcomer.allocate().await.err().unwrap().to_string();
    assert!(refused.contains("508"), "{refused}");
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    let log = server.log();
    assert!(log.contains("the deadline of the drain has come") && log.contains("shutdown"), "{log}");
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_drain_at_once() {
    for second in [Signal::TERM, Signal::USR1, Signal::INT] {
        let mut server = TestServer::start(&config("[drain]\ndeadline = \"1h\"\n"));
        let client = Allocated::new(&server, "alice").await;
        server.signal(Signal::USR1);
        is_draining(&server);
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(server.is_running());
        server.signal(second);
        assert_eq!(server.exit_code_within(LIMIT), Some(0), "{second:?}");
        drop(client);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_deadline_sigterm_ends_allocations_at_once() {
    let mut server = TestServer::start(&config(""));
    let client = Allocated::new(&server, "alice").await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    assert!(server.log().contains("shutdown"), "{}", server.log());
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unused_server_is_drained_at_once_and_a_reload_changes_the_alternate_of_a_drain() {
    let mut idle = TestServer::start(&config("[drain]\ndeadline = \"1h\"\n"));
    idle.signal(Signal::TERM);
    assert_eq!(idle.exit_code_within(LIMIT), Some(0));

    let mut server = TestServer::start(&config(""));
    let client = Allocated::new(&server, "alice").await;
    server.signal(Signal::USR1);
    is_draining(&server);
    server.write_config(&config(&format!("[drain]\nalternate-server = \"{ALTERNATE}\"\n")));
    server.signal(Signal::HUP);
    wait_until("the reload", LIMIT, || server.log().contains("configuration reloaded").then_some(()));
    assert_newcomers_are_redirected(&server).await;
    assert!(server.is_running());
    client.release().await;
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_of_a_drain_and_asked_for_more_time() {
    let (mut server, notifications) = TestServer::start_observed(&config("[drain]\ndeadline = \"1h\"\n"));
    let client = Allocated::new(&server, "alice").await;
    server.signal(Signal::TERM);
    let mut told = String::new();
    wait_until("the notifications", LIMIT, || {
        let mut buffer = [0; 4096];
        if let Ok(len) = notifications.recv(&mut buffer) {
            told += &String::from_utf8_lossy(&buffer[..len]);
            told.push('\n');
        }
        let all = ["EXTEND_TIMEOUT_USEC=20000000", "STATUS=draining, 1 allocation left"];
        all.iter().all(|line| told.lines().any(|told| told == *line)).then_some(())
    });
    assert!(!told.contains("STOPPING=1"), "{told}");
    client.release().await;
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
}
