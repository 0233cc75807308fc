//! The application is told of allocations, in order, by whatever it has to say; and who is no part of that does not notice.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use turnstone::client::Request;

use crate::application::{Application, Behaviour};
use crate::support::{Credentials, Spec, TestServer, Transport, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, allocate, asking, fixed, metric};

const SCHEMA: &str = include_str!("../../docs/usage-record.schema.json");

/// What a user may have to wait, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_millis(1500);

fn telling(application: &Application, more: &str) -> Spec {
    let spec = asking(&format!("events-url = \"{}/\"\nevents = [\"start\", \"stop\"]\n{more}", application.url()));
    ["unwanted", "forbidden", "poison"].iter().fold(spec, |spec, name| spec.user(name, "a password of the file"))
}

fn user(name: &str) -> Credentials {
    Credentials { username: name.to_owned(), ..fixed() }
}

fn release(client: &mut Wire) {
    client.ask(Request::Refresh { lifetime_secs: 0 }).unwrap();
}

fn stop(server: &mut TestServer) {
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
}

fn result(server: &TestServer, result: &str) -> u64 {
    metric(server, &format!("turnstone_hook_events_total{{result=\"{result}\"}}"))
}

fn of<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

fn wait_for(application: &Application, what: &str, is_there: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    wait_until(what, LIMIT, || Some(application.events()).filter(|events| is_there(events)))
}

#[test]
fn an_allocation_is_told_of_at_its_start_and_at_its_end_as_usage_records_have_it() {
    let application = Application::start(Behaviour::Answers);
    let mut spec = telling(&application, "token = \"t0ken\"");
    spec.extra_toml += "[usage]\nfile = \"usage.jsonl\"\n";
    let mut server = spec.start();
    let mut client = allocate(&server, Transport::Tcp, &fixed()).unwrap();
    wait_for(&application, "the start", |events| of(events, "start").len() == 1);
    release(&mut client);
    let mut events = wait_for(&application, "the stop", |events| of(events, "stop").len() == 1);
    // The server's start and a session's go at the same time; what is of one session comes in its order.
    events.sort_by_key(|event| event["seq"].as_u64());
    assert!(application.asked().is_empty(), "nobody is asked about users");
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["server-start", "start", "stop"]);
    assert_eq!(events[2]["reason"], "released");
    assert_eq!(events[1]["session"], events[2]["session"]);
    let seqs: Vec<_> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3]);
    let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    for event in &events {
        assert!(
            schema.is_valid(event),
            "{event}: {:?}",
            schema.iter_errors(event).map(|error| error.to_string()).collect::<Vec<_>>()
        );
    }
    wait_until("the answers to be counted", LIMIT, || (result(&server, "taken") == 3).then_some(()));
    stop(&mut server);
    // They are the records, but for their numbers and the moment.
    let text = std::fs::read_to_string(server.file("usage.jsonl")).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for event in &events {
        let same = |record: &&Value| record["type"] == event["type"] && record["session"] == event["session"];
        let record = records.iter().find(same).unwrap();
        for (key, value) in event.as_object().unwrap() {
            let is_of_the_moment = ["at", "seq", "started_at"].contains(&key.as_str());
            assert!(is_of_the_moment || record[key] == *value, "{key}: {event} {record}");
        }
    }
}

#[test]
fn only_what_is_wanted_is_told_and_a_reload_tells_elsewhere() {
    let (one, other) = (Application::start(Behaviour::Answers), Application::start(Behaviour::Answers));
    let text = |application: &Application, events: &str| {
        format!(
            "workers = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\"]\n[relay]\nipv4 = \"127.0.0.1\"\n\
             ipv6 = \"off\"\nports = \"10000-29999\"\n[auth]\nrealm = \"turn.test\"\n[[auth.users]]\nname = \"fixed\"\n\
             password = \"a password of the file\"\n[hook]\nevents-url = \"{}\"\nevents = [{events}]\n",
            application.url()
        )
    };
    let server = TestServer::start(&text(&one, "\"stop\""));
    release(&mut allocate(&server, Transport::Tcp, &fixed()).unwrap());
    let events = wait_for(&one, "the stop", |events| of(events, "stop").len() == 1);
    assert!(of(&events, "start").is_empty());
    server.write_config(&text(&other, "\"start\""));
    server.signal(rustix::process::Signal::HUP);
    wait_until("the reload", LIMIT, || server.log().contains("configuration reloaded").then_some(()));
    release(&mut allocate(&server, Transport::Tcp, &fixed()).unwrap());
    release(&mut allocate(&server, Transport::Tcp, &fixed()).unwrap());
    let events = wait_for(&other, "the starts", |events| of(events, "start").len() == 2);
    assert!(of(&events, "stop").is_empty());
    assert_eq!(of(&one.events(), "stop").len(), 1);
}

#[test]
fn what_the_application_does_not_want_ends_at_once_and_an_error_page_ends_nothing() {
    let application = Application::start(Behaviour::Answers);
    let server = telling(&application, "").start();
    let mut fine = allocate(&server, Transport::Tcp, &user("forbidden")).unwrap();
    let mut unwanted = allocate(&server, Transport::Tcp, &user("unwanted")).unwrap();
    // Its connection is closed.
    assert!(unwanted.receive().is_none());
    let events = wait_for(&application, "the stop", |events| of(events, "stop").len() == 1);
    let stop = of(&events, "stop")[0];
    assert_eq!((stop["user"].as_str(), stop["reason"].as_str()), (Some("unwanted"), Some("hook-refused")));
    wait_until("the answer to be counted", LIMIT, || (result(&server, "refused") == 1).then_some(()));
    assert_eq!(metric(&server, "turnstone_allocations_ended_total{reason=\"hook-refused\"}"), 1);
    wait_until("the error page to be counted", LIMIT, || (result(&server, "rejected") == 1).then_some(()));
    assert!(fine.refresh().is_ok());
    assert_eq!(of(&application.events(), "stop").len(), 1);
    wait_until("the warning", LIMIT, || server.log().contains("its own log should say why").then_some(()));
}

#[test]
fn a_stop_comes_after_its_start_whatever_becomes_of_that_and_others_do_not_wait() {
    let application = Application::start(Behaviour::Answers);
    let server = telling(&application, "concurrency = 4\n").start();
    for _ in 0..20 {
        release(&mut allocate(&server, Transport::Tcp, &user("poison")).unwrap());
    }
    let began = Instant::now();
    for _ in 0..20 {
        release(&mut allocate(&server, Transport::Tcp, &fixed()).unwrap());
    }
    let is_of = |name: &'static str| move |event: &&&Value| event["user"] == name;
    let events = wait_for(&application, "the stops of others", |events| {
        of(events, "stop").iter().filter(is_of("fixed")).count() == 20
    });
    assert!(began.elapsed() < SOON * 4, "{:?}", began.elapsed());
    assert!(!of(&events, "stop").iter().any(|event| event["user"] == "poison"), "its start is not taken");
    assert!(result(&server, "retried") >= 20);
    let mut open: HashMap<String, bool> = HashMap::new();
    for event in events.iter().filter(|event| event["user"] == "fixed") {
        let is_start = event["type"] == "start";
        let before = open.insert(event["session"].to_string(), is_start);
        assert_eq!(before, (!is_start).then_some(true), "{event}");
    }
    assert_eq!(open.len(), 20);
}

#[test]
fn users_on_whom_it_hangs_delay_nobody_elses_events() {
    let application = Application::start(Behaviour::HangsOnSome);
    let names: Vec<_> = (0..40).map(|n| format!("hang-{n}")).collect();
    let spec = telling(&application, "timeout = \"1s\"\n");
    let server = names.iter().fold(spec, |spec, name| spec.user(name, "a password of the file")).start();
    for name in &names {
        for _ in 0..3 {
            release(&mut allocate(&server, Transport::Tcp, &user(name)).unwrap());
        }
    }
    for _ in 0..10 {
        release(&mut allocate(&server, Transport::Tcp, &fixed()).unwrap());
    }
    wait_for(&application, "the stops of others", |events| {
        of(events, "stop").iter().filter(|event| event["user"] == "fixed").count() == 10
    });
    assert_eq!(metric(&server, "turnstone_hook_events_broken"), 0);
    assert!(metric(&server, "turnstone_hook_events_waiting") >= 40, "those of the others wait");
    // Once it answers for them, too, they are told.
    application.behave(Behaviour::Answers);
    wait_until("everything to be told", LIMIT, || {
        (metric(&server, "turnstone_hook_events_waiting") == 0).then_some(())
    });
}

#[test]
fn new_users_on_whom_it_hangs_delay_nobodys_events_whom_it_answers() {
    let application = Application::start(Behaviour::HangsOnSome);
    let server = telling(&application, "timeout = \"1s\"\nconcurrency = 8\n").start();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Guests of a web page, each with a name of its own.
            for n in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let _guest = allocate(&server, Transport::Tcp, &server.credentials(&format!("hang-{n}"))).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let own = |events: &[Value]| of(events, "start").iter().filter(|event| event["user"] == "fixed").count();
        let mut lags = Vec::new();
        for n in 1..=20 {
            let _session = allocate(&server, Transport::Tcp, &fixed()).unwrap();
            let began = Instant::now();
            wait_for(&application, "the start", |events| own(events) >= n);
            lags.push(began.elapsed());
            std::thread::sleep(Duration::from_millis(200));
        }
        is_over.store(true, Ordering::Relaxed);
        // Those at first may have to wait until it is seen that it hangs.
        assert!(lags.iter().skip(3).all(|lag| *lag < SOON), "{lags:?}");
    });
    assert_eq!(metric(&server, "turnstone_hook_events_broken"), 0);
    assert!(metric(&server, "turnstone_hook_events_waiting") >= 40, "those of the guests wait");
}

#[test]
fn whatever_it_does_wrong_nobody_waits_and_once_it_is_mended_it_is_told_of_the_last_minute() {
    std::thread::scope(|scope| {
        for fault in [
            Behaviour::Hangs,
            Behaviour::IsDeaf,
            Behaviour::FloodsHead,
            Behaviour::Drips,
            Behaviour::Babbles,
            Behaviour::Fails,
            Behaviour::HangsUp,
        ] {
            scope.spawn(move || {
                let application = Application::start(fault);
                let server = telling(&application, "timeout = \"300ms\"\nconcurrency = 2\n").start();
                let mut clients = Vec::new();
                for n in 0..20 {
                    let began = Instant::now();
                    let transport = if n % 2 == 0 { Transport::Tcp } else { Transport::Udp };
                    clients.push(allocate(&server, transport, &fixed()).unwrap());
                    assert!(began.elapsed() < SOON, "{fault:?}: waited {:?}", began.elapsed());
                }
                for client in &mut clients {
                    let began = Instant::now();
                    assert!(client.refresh().is_ok(), "{fault:?}");
                    assert!(began.elapsed() < SOON, "{fault:?}: waited {:?}", began.elapsed());
                }
                if fault != Behaviour::Fails {
                    wait_until("it to be told one at a time", LIMIT, || {
                        (metric(&server, "turnstone_hook_events_broken") == 1).then_some(())
                    });
                    wait_until("the warning", LIMIT, || {
                        server.log().contains("takes no events: they wait").then_some(())
                    });
                }
                assert!(metric(&server, "turnstone_hook_events_waiting") >= 20, "{fault:?}");
                application.behave(Behaviour::Answers);
                wait_until("everything to be told", LIMIT * 2, || {
                    (result(&server, "taken") == 21 && metric(&server, "turnstone_hook_events_waiting") == 0)
                        .then_some(())
                });
                assert_eq!(metric(&server, "turnstone_hook_events_broken"), 0, "{fault:?}");
                let events = application.events();
                let mut sessions: Vec<_> =
                    of(&events, "start").iter().map(|event| event["session"].to_string()).collect();
                sessions.sort();
                sessions.dedup();
                assert_eq!(sessions.len(), 20, "{fault:?}: each at least once");
            });
        }
    });
}

#[test]
fn answers_without_end_and_lies_end_nothing_and_are_not_asked_for_again() {
    for fault in [Behaviour::Floods, Behaviour::Promises, Behaviour::Lies, Behaviour::Redirects] {
        let application = Application::start(fault);
        let server = telling(&application, "").start();
        let mut client = allocate(&server, Transport::Tcp, &fixed()).unwrap();
        wait_until("the answer", LIMIT, || (result(&server, "rejected") == 2).then_some(()));
        assert!(client.refresh().is_ok(), "{fault:?}");
        assert_eq!((result(&server, "retried"), result(&server, "refused")), (0, 0), "{fault:?}");
    }
}

#[test]
fn a_server_that_stops_tells_of_the_end_of_all_and_the_next_one_is_another() {
    let application = Application::start(Behaviour::Answers);
    let spec = telling(&application, "");
    let mut server = spec.start();
    let clients: Vec<Wire> = (0..50).map(|_| allocate(&server, Transport::Tcp, &fixed()).unwrap()).collect();
    wait_for(&application, "the starts", |events| of(events, "start").len() == 50);
    stop(&mut server);
    drop(clients);
    let events = application.events();
    let stops = of(&events, "stop");
    assert_eq!(stops.len(), 50, "{:?}", server.log());
    assert!(stops.iter().all(|stop| stop["reason"] == "shutdown"));
    let _next = spec.start();
    let events = wait_for(&application, "the next one", |events| of(events, "server-start").len() == 2);
    let starts = of(&events, "server-start");
    assert_ne!(starts[0]["server"], starts[1]["server"]);
    assert_eq!(starts[1]["seq"], 1);
}

#[test]
fn a_server_that_stops_waits_for_an_application_that_is_gone_some_seconds_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut server =
        asking(&format!("events-url = \"http://127.0.0.1:{port}/\"\nevents = [\"start\", \"stop\"]\n")).start();
    let _client = allocate(&server, Transport::Tcp, &fixed()).unwrap();
    let began = Instant::now();
    stop(&mut server);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(server.log().contains("was not told of everything before the server stopped"), "{}", server.log());
}
