//! What a node finds out about the others by itself, and what it says of itself when it cannot serve.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::fleet::{Fleet, answering, get, ok, sent_on, url};
use crate::support::{Credentials, Finished, TestServer, Transport, hold_allocation, run, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, TOKEN, config, on, turnstone};

/// The doctor probes every listener.
const DOCTOR_LIMIT: Duration = Duration::from_secs(60);

/// A metric's value by its whole series.
fn metric(server: &TestServer, series: &str) -> Option<f64> {
    let mut stream = UnixStream::connect(server.file("metrics.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn nodes_metric(server: &TestServer, state: &str) -> Option<f64> {
    metric(server, &format!("turnstone_fleet_nodes{{state=\"{state}\"}}"))
}

/// What the doctor says of the fleet: status and message.
fn doctor(server: &TestServer) -> Vec<(String, String)> {
    let mut command = on(server, &["doctor", "--format", "json", "--ca", &server.file("authority.pem")]);
    let finished: Finished = run(&mut command, DOCTOR_LIMIT);
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = answer["checks"].as_array().unwrap();
    let of_fleet = checks.iter().filter(|step| step["step"] == "fleet");
    of_fleet.map(|step| (text(&step["status"]), text(&step["message"]))).collect()
}

#[test]
fn nodes_that_answer_and_do_not_are_counted_without_anybody_who_looks_and_told_by_the_doctor() {
    let directory = TempDir::new().unwrap();
    let (first, second) = (url(&directory, 1), url(&directory, 2));
    let refusing = answering("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned());
    let old = answering(ok("{\"name\": \"old\"}"));
    let gone = url(&directory, 9);
    let nodes = format!("[\"{first}\", \"{second}\", \"{gone}\", \"http://{refusing}\", \"http://{old}\"]");
    let node = |name: &str, listen: &str| {
        let fleet =
            format!("[fleet]\nname = \"{name}\"\nlisten = \"{listen}\"\nnodes = {nodes}\ntoken = \"{TOKEN}\"\n");
        TestServer::start(&config(&format!("[metrics]\nlisten = \"unix:metrics.sock\"\n{fleet}")))
    };
    let (one, _other) = (node("turn1", &first), node("turn1", &second));
    // The one with the same name, and three that cannot be used; itself it does not count.
    wait_until("all nodes to be known", LIMIT, || {
        let counted = ["answering", "silent", "unasked", "unnamed"].map(|state| nodes_metric(&one, state));
        (counted == [1.0, 3.0, 0.0, 0.0].map(Some)).then_some(())
    });
    for (result, least) in [("answered", 2.0), ("unreachable", 1.0), ("token", 1.0), ("unusable", 1.0)] {
        let asked = metric(&one, &format!("turnstone_fleet_questions_total{{result=\"{result}\"}}"));
        assert!(asked.is_some_and(|asked| asked >= least), "{result}: {asked:?}");
    }
    assert_eq!(metric(&one, "turnstone_fleet_load_percent"), None, "nobody is sent away by load");

    let said = doctor(&one);
    for (status, part) in [
        ("warn", "2 nodes are called turn1"),
        ("warn", "9.sock: cannot be reached"),
        ("fail", "it refuses the token"),
        ("warn", "not that of a node of this version"),
        ("ok", "2 of 5 nodes answer and take the token"),
    ] {
        assert!(said.iter().any(|(of, told)| of == status && told.contains(part)), "{status} {part}: {said:?}");
    }
    let table = run(&mut on(&one, &["status", "--all"]), LIMIT).stdout;
    assert!(table.contains(&format!("another node is called turn1, too; this one is {second}")), "{table}");
    let shown = get(&one.file("admin.sock"), "/v1/fleet");
    let lines: Vec<_> = shown["series"]["nodes"].as_array().unwrap().iter().map(|line| &line["name"]).collect();
    assert!(lines.contains(&&Value::from(format!("turn1 ({second})"))), "{lines:?}");
}

#[test]
fn explain_tells_nodes_of_one_name_apart() {
    let directory = TempDir::new().unwrap();
    let node = |n: usize| {
        let (own, nodes) = (url(&directory, n), [1, 2].map(|n| format!("{:?}", url(&directory, n))).join(", "));
        TestServer::start(&config(&format!("[fleet]\nname = \"same\"\nlisten = \"{own}\"\nnodes = [{nodes}]\n")))
    };
    let (first, second) = (node(1), node(2));
    let _client = Wire::allocated(&second, Transport::Udp, "alice");
    let finished = run(&mut on(&first, &["explain", "alice", "--all"]), LIMIT);
    assert!(finished.stdout.contains(&format!("same ({})", url(&directory, 1))), "{finished:?}");
    let json = run(&mut on(&first, &["explain", "alice", "--all", "--json"]), LIMIT);
    let answer: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(answer["nodes"][1]["sessions"]["sessions"][0]["user"], "alice", "{answer}");
    assert_eq!(answer["nodes"][0]["refusals"]["refusals"], serde_json::json!([]), "{answer}");
}

const REDIRECT: &str = "[redirect]\nfleet = true\nfrom-allocations = 1000\n";

/// Whether the first node of a fleet says that it has room, and what is wrong with it.
fn room_of(directory: &TempDir) -> (bool, String) {
    let answer = get(url(directory, 1).strip_prefix("unix:").unwrap(), "/v1/node?room=true");
    (answer["room"].as_bool().unwrap(), answer["problems"].to_string())
}

#[test]
fn a_node_that_cannot_authenticate_for_want_of_its_store_has_no_room() {
    let store = "[store]\nurl = \"redis://127.0.0.1:1\"\n";
    let start = |more: &str, has_secret: bool| {
        let directory = TempDir::new().unwrap();
        let listen = url(&directory, 1);
        let text = config(&format!("[fleet]\nlisten = \"{listen}\"\nnodes = [\"{listen}\"]\n{REDIRECT}{more}"));
        let secret = "[[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n";
        assert!(text.contains(secret));
        let text = if has_secret { text } else { text.replace(secret, "") };
        (TestServer::start(&text), directory)
    };
    let (_alone, of_alone) = start("", true);
    let (_lost, of_lost) = start(store, false);
    let (_own, of_own) = start(store, true);
    let refusing = format!("{store}on-loss = \"refuse\"\n[quota]\nfleet-allocations-per-user = 10\n");
    let (_refuses, of_refusing) = start(&refusing, true);
    assert!(room_of(&of_alone).0);
    let (has_room, problems) = room_of(&of_lost);
    assert!(!has_room && problems.contains("the store"), "{problems}");
    assert!(room_of(&of_own).0, "the secret of the configuration is all that most clients need");
    assert!(!room_of(&of_refusing).0, "without the store everybody is refused");
}

#[test]
fn a_node_whose_application_answers_nobody_has_no_room() {
    let directory = TempDir::new().unwrap();
    let listen = url(&directory, 1);
    let server = TestServer::start(&config(&format!(
        "[fleet]\nlisten = \"{listen}\"\nnodes = [\"{listen}\"]\n{REDIRECT}[hook]\nurl = \"http://127.0.0.1:1/users\"\n"
    )));
    assert!(room_of(&directory).0);
    wait_until("the application to be lost", LIMIT, || {
        let unknown = Credentials { username: "somebody".to_owned(), password: "of the application".to_owned() };
        let _ = Wire::connect(&server, Transport::Udp, &unknown).allocate().unwrap_err();
        let (has_room, problems) = room_of(&directory);
        (!has_room && problems.contains("the application of [hook]")).then_some(())
    });
}

#[test]
fn whom_ca_names_is_read_again_a_minute_after_a_certificate_was_not_trusted() {
    let other = TestServer::start(&config(&format!("[fleet]\nlisten = \"0.0.0.0:0\"\ntoken = \"{TOKEN}\"\n")));
    let line = wait_until("the endpoint in the log", LIMIT, || {
        other.log().lines().find(|line| line.contains("serving the nodes of the fleet")).map(str::to_owned)
    });
    let port: u16 = line.split("0.0.0.0:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let asking = TestServer::start(&config(&format!(
        "[metrics]\nlisten = \"unix:metrics.sock\"\n[fleet]\nca = \"@DIR@/authority.pem\"\n\
         nodes = [\"https://localhost:{port}\"]\ntoken = \"{TOKEN}\"\n"
    )));
    wait_until("a node that is not trusted", LIMIT, || (nodes_metric(&asking, "silent") == Some(1.0)).then_some(()));
    assert!(metric(&asking, "turnstone_fleet_questions_total{result=\"untrusted\"}").is_some_and(|asked| asked >= 1.0));
    std::fs::copy(other.file("authority.pem"), asking.file("authority.pem")).unwrap();
    // A minute, and half a one until it is asked again by itself.
    wait_until("the node to be trusted", 4 * LIMIT, || (nodes_metric(&asking, "answering") == Some(1.0)).then_some(()));
}

#[test]
fn a_fleet_whose_nodes_all_answer_is_one_line_of_the_doctor() {
    let fleet = Fleet::of(2, "");
    let said = doctor(&fleet.servers[0]);
    assert!(matches!(&said[..], [(status, told)] if status == "ok" && told.contains("turn1, turn2")), "{said:?}");
}

#[test]
fn many_nodes_that_hang_do_not_take_the_turns_of_the_one_with_room() {
    let directory = TempDir::new().unwrap();
    let hanging: Vec<_> = (0..100).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut nodes: Vec<_> =
        hanging.iter().map(|socket| format!("\"http://{}\"", socket.local_addr().unwrap())).collect();
    nodes.extend([1, 2].map(|n| format!("\"{}\"", url(&directory, n))));
    let node = |n: usize, most: usize| {
        TestServer::start(&config(&format!(
            "[fleet]\nname = \"turn{n}\"\nlisten = \"{}\"\nnodes = [{}]\ntoken = \"{TOKEN}\"\n[redirect]\nfleet = true\nfrom-allocations = {most}\n",
            url(&directory, n),
            nodes.join(", ")
        )))
    };
    let (full, idle) = (node(1, 2), node(2, 1000));
    let socket = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    };
    let _held = [0, 1].map(|_| {
        let socket = socket();
        socket.connect(full.udp()).unwrap();
        hold_allocation(&socket, full.credentials("holder"));
        socket
    });
    // Until it is known who hangs, and this one has kept its promise to take everybody.
    let newcomer = || sent_on(&socket(), full.udp());
    let mut last = [false; 20];
    wait_until("most newcomers to be sent away", 2 * LIMIT, || {
        last.rotate_left(1);
        last[19] = newcomer().is_some_and(|to| to == idle.udp());
        std::thread::sleep(Duration::from_millis(200));
        (last.iter().filter(|sent| **sent).count() >= 16).then_some(())
    });
}

#[test]
fn silent_connections_from_many_addresses_hold_up_no_node_that_asks() {
    let server = TestServer::start(&config(&format!("[fleet]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"\n")));
    let port = fleet_port(&server);
    let token = server.file("token");
    std::fs::write(&token, TOKEN).unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for host in 1..=20 {
            let is_over = &is_over;
            scope.spawn(move || {
                let from = SocketAddr::from(([127, 0, 1, host], 0));
                let mut held = std::collections::VecDeque::new();
                while !is_over.load(Ordering::Relaxed) {
                    held.push_back(silent(from, port));
                    if held.len() > 10 {
                        held.pop_front();
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
        let _over = Over(&is_over);
        std::thread::sleep(Duration::from_secs(1));
        for _ in 0..5 {
            let began = Instant::now();
            let finished = run(&mut turnstone(&["status", "--nodes", &url, "--fleet-token-file", &token]), LIMIT);
            assert!(
                finished.code == Some(0) && began.elapsed() < Duration::from_secs(2),
                "{:?} {finished:?}",
                began.elapsed()
            );
        }
    });
}

/// Where the nodes of the fleet are served.
fn fleet_port(server: &TestServer) -> u16 {
    let line = wait_until("the endpoint in the log", LIMIT, || {
        server.log().lines().find(|line| line.contains("serving the nodes of the fleet")).map(str::to_owned)
    });
    line.split("127.0.0.1:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Strangers, each from an address of its own: one in eight of them stays by chance. No more, since others do not fit into the queue of those
/// that wait to be accepted.
const STRANGERS: u16 = 120;
/// So long who is known may be silent.
const SILENT: Duration = Duration::from_secs(1);

#[test]
fn a_server_that_has_just_started_lets_a_node_of_its_list_keep_its_time_among_silent_strangers() {
    let nodes = "nodes = [\"http://127.0.7.1:9\"]";
    let server = TestServer::start(&config(&format!(
        "[metrics]\nlisten = \"unix:metrics.sock\"\n[fleet]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"\n{nodes}\n"
    )));
    let port = fleet_port(&server);
    wait_until("the list to be read", LIMIT, || (nodes_metric(&server, "silent") == Some(1.0)).then_some(()));
    // Nobody has shown the token yet, and who takes longer than that has to give way, known or not.
    let mut answered = 0;
    wait_until("the strangers to come in time three times", 3 * LIMIT, || {
        let began = Instant::now();
        let mut node = silent(SocketAddr::from(([127, 0, 7, 1], 0)), port).unwrap();
        let strangers: Vec<_> = (0..STRANGERS)
            .map(|n| silent(SocketAddr::from(([127, 1, (n >> 8) as u8, n as u8], 0)), port).unwrap())
            .collect();
        let mut answer = Vec::new();
        let request = format!("GET /v1/node HTTP/1.1\r\nHost: turn1\r\nAuthorization: Bearer {TOKEN}0\r\n\r\n");
        let _ = node.write_all(request.as_bytes()).and_then(|()| node.read_to_end(&mut answer));
        drop(strangers);
        // The token is a wrong one, so that it is known by the list alone.
        let is_answered = answer.starts_with(b"HTTP/1.1 401");
        assert!(is_answered || began.elapsed() >= SILENT, "{:?} {answer:?}", began.elapsed());
        answered += u32::from(is_answered);
        (answered == 3).then_some(())
    });
}

/// Ends the threads, also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection from there that says nothing.
fn silent(from: SocketAddr, port: u16) -> Option<std::net::TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &from).unwrap();
    connect(&socket, &SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
    Some(socket.into())
}
