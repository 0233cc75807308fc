//! Several servers as one: the nodes in one table, those that hang and those that lie, and clients that are sent away by load.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use turnstone::stun::{AttributeType, Class, Encoder, ErrorCode, Message, Method, TransactionId};

use crate::support::{Finished, TestServer, Transport, hold_allocation, run, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, TOKEN, cells, config, turnstone};

/// Nodes that know each other, by sockets in one directory.
pub(crate) struct Fleet {
    pub(crate) servers: Vec<TestServer>,
    pub(crate) directory: TempDir,
}

impl Fleet {
    pub(crate) fn of(count: usize, more: &str) -> Fleet {
        let directory = TempDir::new().unwrap();
        let nodes: Vec<_> = (1..=count).map(|n| format!("\"{}\"", url(&directory, n))).collect();
        let servers = (1..=count).map(|n| {
            let listen = url(&directory, n);
            TestServer::start(&config(&format!(
                "[fleet]\nname = \"turn{n}\"\nlisten = \"{listen}\"\nnodes = [{}]\n{more}",
                nodes.join(", ")
            )))
        });
        Fleet { servers: servers.collect(), directory }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        let mut command = turnstone(args);
        command.arg("--config").arg(self.servers[0].file("turnserver.toml"));
        run(&mut command, LIMIT)
    }
}

pub(crate) fn url(directory: &TempDir, number: usize) -> String {
    format!("unix:{}/{number}.sock", directory.path().display())
}

#[test]
fn all_nodes_stand_in_one_table_with_sums_and_one_that_is_gone_is_named_with_the_reason() {
    let mut fleet = Fleet::of(3, "");
    let _clients: Vec<_> = [0, 1, 1].map(|n| Wire::allocated(&fleet.servers[n], Transport::Udp, "alice")).into();
    let mut refused = Wire::connect(&fleet.servers[1], Transport::Udp, &fleet.servers[1].expired_credentials("bob"));
    assert_eq!(refused.allocate().unwrap_err(), 401);
    wait_until("the refusal to be counted", LIMIT, || {
        let finished = fleet.run(&["status", "--all"]);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
        let lines: Vec<_> = finished.stdout.lines().map(cells).collect();
        let heads =
            ["NODE", "VERSION", "STATE", "SESSIONS", "BIT RATE", "REFUSED", "REDIRECTED", "LOAD", "WHAT IS WRONG"];
        assert_eq!(lines[0], heads);
        assert_eq!(lines[1], ["turn1", env!("CARGO_PKG_VERSION"), "ready", "1", "0 bit/s", "0", "0", "-", "-"]);
        assert_eq!(lines[2][..4], ["turn2", env!("CARGO_PKG_VERSION"), "ready", "2"]);
        (lines[2][5] == "1" && lines[4] == ["all 3 nodes", "3", "0 bit/s", "1", "0"]).then_some(())
    });
    // The first one asks the others.
    let known = get(&fleet.servers[0].file("admin.sock"), "/v1/fleet");
    assert_eq!(known["sums"]["answering"], 3, "{known}");
    fleet.servers[2].signal(rustix::process::Signal::USR1);
    wait_until("the drain", LIMIT, || {
        // It has no session, and is gone as soon as it drains.
        let finished = fleet.run(&["status", "--all", "--json"]);
        let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
        let third = &answer["nodes"][2];
        let told = "cannot be reached: there is no such socket: nothing listens there; does the server run";
        let is_gone = third["failure"].as_str().is_some_and(|why| why.starts_with(told));
        (is_gone && finished.code == Some(1) && answer["sums"]["answering"] == 2 && answer["sums"]["sessions"] == 3)
            .then_some(())
    });
    let text = fleet.run(&["status", "--all"]).stdout;
    // By the name that the others have heard of it.
    let gone = text.lines().nth(3).unwrap();
    assert!(gone.starts_with("turn3 ") && gone.contains("NO ANSWER") && gone.contains("3.sock: cannot be"), "{text}");
    assert!(text.contains("1 SILENT"), "{text}");
    drop(fleet.servers.pop());
    // The same node under two URLs counts once.
    let link = fleet.directory.path().join("same.sock");
    std::os::unix::fs::symlink(fleet.directory.path().join("1.sock"), &link).unwrap();
    let nodes = format!("{},unix:{}", url(&fleet.directory, 1), link.display());
    let finished = run(&mut turnstone(&["status", "--nodes", &nodes]), LIMIT);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("is the same node as") && finished.stdout.contains("all 2 nodes"), "{finished:?}");
    let sum: Vec<_> = finished.stdout.lines().last().map(cells).unwrap();
    assert_eq!(sum[1], "1");
}

#[test]
fn a_user_is_found_at_the_node_where_his_sessions_are_with_why_another_one_refused_him() {
    let fleet = Fleet::of(3, "");
    let (_client, relayed) = Wire::allocated(&fleet.servers[2], Transport::Tcp, "alice");
    let mut refused = Wire::connect(&fleet.servers[0], Transport::Udp, &fleet.servers[0].expired_credentials("alice"));
    assert_eq!(refused.allocate().unwrap_err(), 401);
    let finished = fleet.run(&["explain", "alice", "--all"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines: Vec<_> = finished.stdout.lines().collect();
    assert_eq!(cells(lines[0]), ["NODE", "USER", "CLIENT", "RELAYED", "FOR"]);
    assert!(lines[1].starts_with("turn3  alice  127.0.0.1:") && lines[1].contains(&relayed.to_string()), "{lines:?}");
    let text = &finished.stdout;
    assert!(text.contains("\nat turn1:\n") && text.contains("the credential had expired"), "{text}");
    assert!(text.contains("no refusal of alice at turn2, turn3"), "{text}");
    let of_address = fleet.run(&["explain", "127.0.0.1", "--all"]);
    assert!(
        of_address.stdout.contains("turn3") && of_address.stdout.contains("as a peer, 127.0.0.1 is"),
        "{of_address:?}"
    );
}

/// Somebody at a port who does this with each connection, and how often he was asked.
fn listener(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let (serve, count) = (Arc::new(serve), Arc::clone(&asked));
    thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    (address, asked)
}

fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
}

/// One that answers each request with this.
pub(crate) fn answering(answer: String) -> SocketAddr {
    listener(move |mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(answer.as_bytes());
    })
    .0
}

pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn nodes_that_hang_flood_lie_or_lead_elsewhere_hold_up_nobody_and_are_named() {
    let fleet = Fleet::of(1, "");
    let (victim, asked) = listener(|_| {});
    let report = |field: &str, value: &str| {
        let mut report = serde_json::json!({
            "name": "liar", "version": "9", "instance": "x", "started_unix": 1, "state": "serving", "ready": true, "sessions": 1,
            "bytes_per_sec": 1, "refused_last_minute": 1, "load_percent": 1, "room": true, "clients": [], "problems": [],
        });
        report[field] = serde_json::from_str(value).unwrap();
        answering(ok(&report.to_string()))
    };
    let hangs = listener(|stream| {
        thread::sleep(LIMIT);
        drop(stream);
    })
    .0;
    let drips = listener(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    })
    .0;
    let floods = listener(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let much = vec![b' '; 1 << 20];
        (0..10_000).all(|_| stream.write_all(&much).is_ok());
    })
    .0;
    let heads = listener(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
        let much = vec![b'y'; 1 << 20];
        (0..1000).all(|_| stream.write_all(&much).is_ok());
    })
    .0;
    let interim = listener(|mut stream| {
        read_head(&mut stream);
        let much = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(400);
        while stream.write_all(&much).is_ok() {}
    })
    .0;
    let cases = [
        (interim, "longer than 64 KiB"),
        (hangs, "no answer within 5 s"),
        (drips, "no answer within 5 s"),
        (floods, "longer than 64 KiB"),
        (heads, "no HTTP"),
        (
            answering(format!("HTTP/1.1 302 Found\r\nlocation: http://{victim}/\r\ncontent-length: 0\r\n\r\n")),
            "302, which is not followed",
        ),
        (answering("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned()), "it refuses the token"),
        (
            answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned()),
            "is that the listen of [fleet] there",
        ),
        (answering("SSH-2.0-OpenSSH_9.9\r\n".to_owned()), "no HTTP"),
        (answering(ok("{}")), "not that of a node"),
        (answering(ok(&"[".repeat(60_000))), "not that of a node"),
        (report("sessions", "1000000000000000000"), "the number of sessions is not what a server can have"),
        (report("bytes_per_sec", "1e300"), "not that of a node"),
        (report("problems", &format!("[{}0]", "\"x\",".repeat(5000))), "not that of a node"),
    ];
    let nodes: Vec<_> = cases.iter().map(|(address, _)| format!("http://{address}")).collect();
    let nodes = format!("{},{}", url(&fleet.directory, 1), nodes.join(","));
    let (began, finished) = (Instant::now(), run(&mut turnstone(&["status", "--nodes", &nodes]), LIMIT));
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let lines: Vec<_> = finished.stdout.lines().collect();
    assert!(lines[1].starts_with("turn1 "), "{finished:?}");
    for (line, (address, why)) in lines[2..].iter().zip(&cases) {
        assert!(line.contains(&address.to_string()) && line.contains(why), "{why}: {line}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nobody is asked whom the configuration does not name");
    // What deceives a terminal is shown as what it is.
    let deceives = report("name", "\"\\u001b[2J\\u202eliar\"");
    let finished = run(&mut turnstone(&["status", "--nodes", &format!("http://{deceives}")]), LIMIT);
    assert!(finished.code == Some(0) && !finished.stdout.contains(['\u{1b}', '\u{202e}']), "{finished:?}");
}

#[test]
fn a_node_is_asked_over_tls_with_the_token_and_shows_who_has_none_nothing() {
    let server = TestServer::start(&config(&format!(
        "[fleet]\nlisten = \"0.0.0.0:0\"\nname = \"turn1\"\ntoken = \"{TOKEN}\"\n"
    )));
    let line = wait_until("the endpoint in the log", LIMIT, || {
        server.log().lines().find(|line| line.contains("serving the nodes of the fleet")).map(str::to_owned)
    });
    let port: u16 = line.split("0.0.0.0:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(line.contains("tls=true"), "{line}");
    let token = server.file("token");
    std::fs::write(&token, TOKEN).unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let other = server.file("other-token");
    std::fs::write(&other, "another-token-0123456789").unwrap();
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let authority = server.file("authority.pem");
    let status = |host: &str, token: &str, authority: Option<&str>| {
        let node = format!("https://{host}:{port}");
        let mut command = turnstone(&["status", "--nodes", &node, "--fleet-token-file", token]);
        if let Some(authority) = authority {
            command.args(["--fleet-ca", authority]);
        }
        run(&mut command, LIMIT)
    };
    let good = status("localhost", &token, Some(&authority));
    assert!(good.code == Some(0) && good.stdout.contains("turn1"), "{good:?}");
    for (host, token, authority, why) in [
        ("localhost", &other, Some(&*authority), "it refuses the token"),
        ("localhost", &token, None, "certificate"),
        // The certificate is not for it.
        ("127.0.0.2", &token, Some(&*authority), "its certificate is not trusted"),
    ] {
        let bad = status(host, token, authority);
        assert!(bad.code == Some(1) && bad.stdout.contains(why), "{why}: {bad:?}");
    }
    // The token does not go out without TLS.
    let plain = run(
        &mut turnstone(&["status", "--nodes", &format!("http://localhost:{port}"), "--fleet-token-file", &token]),
        LIMIT,
    );
    assert!(plain.code == Some(1) && plain.stdout.contains("in the clear"), "{plain:?}");
}

/// Where an Allocate that nobody has authenticated is sent; `None` where it is challenged.
pub(crate) fn sent_on(socket: &UdpSocket, server: SocketAddr) -> Option<SocketAddr> {
    let (mut id, mut request) = ([0; 12], Vec::new());
    getrandom::fill(&mut id).unwrap();
    Encoder::new(&mut request, Class::Request, Method::ALLOCATE, TransactionId(id));
    let mut answer = [0; 1024];
    socket.send_to(&request, server).unwrap();
    let length = socket.recv(&mut answer).unwrap();
    let message = Message::parse(&answer[..length]).unwrap();
    match message.error_code() {
        Some(ErrorCode::TRY_ALTERNATE) => Some(message.address(AttributeType::ALTERNATE_SERVER).expect("a place")),
        Some(ErrorCode::UNAUTHENTICATED) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn above_its_load_a_node_sends_newcomers_to_one_with_room_and_nobody_is_sent_on_twice() {
    // Ten are what a node takes before it sends others away; nine of them leave no room for others.
    let fleet = Fleet::of(3, "[redirect]\nfleet = true\nfrom-allocations = 10\n");
    let at: Vec<_> = fleet.servers.iter().map(TestServer::udp).collect();
    let socket = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    };
    let mut held = Vec::new();
    let mut hold = |node: usize| {
        let socket = socket();
        socket.connect(at[node]).unwrap();
        hold_allocation(&socket, fleet.servers[node].credentials("holder"));
        held.push(socket);
    };
    assert_eq!(sent_on(&socket(), at[0]), None, "it has room itself");
    (0..10).for_each(|_| hold(0));
    let others = |to: SocketAddr| to == at[1] || to == at[2];
    // It has said that it has room; for ten seconds it takes everybody.
    wait_until("a newcomer to be sent away", LIMIT, || sent_on(&socket(), at[0]).filter(|to| others(*to)));
    let sent: Vec<_> = (0..40).filter_map(|_| sent_on(&socket(), at[0])).collect();
    assert_eq!(sent.len(), 40);
    assert!([at[1], at[2]].iter().all(|node| sent.contains(node)), "a herd goes to both: {sent:?}");
    // All three fill up while newcomers come: whoever is sent on is served where he is sent.
    let (mut sent_away, mut served) = (0, [0; 3]);
    for _ in 0..60 {
        let socket = socket();
        let node = match sent_on(&socket, at[0]) {
            None => 0,
            Some(to) => {
                sent_away += 1;
                let node = at.iter().position(|known| *known == to).unwrap();
                assert_eq!(sent_on(&socket, to), None, "nobody is sent on twice");
                node
            }
        };
        served[node] += 1;
        hold(node);
    }
    assert!(sent_away >= 16 && served[1] >= 6 && served[2] >= 6, "{sent_away} {served:?}");
    // Nobody has room any more: they are served where they come.
    wait_until("everybody to be served where they are", LIMIT, || sent_on(&socket(), at[0]).is_none().then_some(()));
    let text = fleet.run(&["status", "--all"]).stdout;
    let first = cells(text.lines().nth(1).unwrap());
    // Those who were sent away are no refusals.
    assert!(
        first[5] == "0" && first[6].parse::<usize>().unwrap() >= 40 + sent_away && first[7].ends_with(" %"),
        "{text}"
    );
}

/// The body of what is answered at a socket.
pub(crate) fn get(socket: &str, target: &str) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[test]
fn a_node_without_ports_or_at_the_most_of_its_allocations_has_no_room_for_clients_of_others() {
    let directory = TempDir::new().unwrap();
    let node = |n: usize, more: &str| {
        let listen = url(&directory, n);
        let redirect = "[redirect]\nfleet = true\nfrom-allocations = 1000\n";
        config(&format!("[fleet]\nname = \"turn{n}\"\nlisten = \"{listen}\"\nnodes = [\"{listen}\"]\n{redirect}{more}"))
    };
    let by_total = TestServer::start(&node(1, "[quota]\nallocations-total = 10\nallocations-per-user = 10\n"));
    let few = node(2, "[quota]\nallocations-per-user = 20\n").replace("10000-29999", "27000-27029");
    let by_ports = TestServer::start(&few);
    let ask = |n: usize| {
        let answer = get(url(&directory, n).strip_prefix("unix:").unwrap(), "/v1/node?room=true");
        (answer["load_percent"].as_u64().unwrap(), answer["room"].as_bool().unwrap())
    };
    assert_eq!((ask(1), ask(2)), ((0, true), (0, true)));
    let hold = |server: &TestServer, count: usize, user: &str| {
        let sockets = (0..count).map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(server.udp()).unwrap();
            hold_allocation(&socket, server.credentials(user));
            socket
        });
        sockets.collect::<Vec<_>>()
    };
    let _of_total = hold(&by_total, 9, "alice");
    wait_until("nine of ten allocations", LIMIT, || (ask(1) == (90, false)).then_some(()));
    let mut of_ports = hold(&by_ports, 15, "alice");
    wait_until("half of the ports", LIMIT, || (ask(2) == (50, true)).then_some(()));
    of_ports.extend(hold(&by_ports, 12, "bob"));
    wait_until("nine tenths of the ports", LIMIT, || (ask(2) == (90, false)).then_some(()));
}

#[test]
fn many_nodes_that_hang_hide_no_other_one() {
    let fleet = Fleet::of(1, "");
    let (_client, relayed) = Wire::allocated(&fleet.servers[0], Transport::Udp, "alice");
    let hanging: Vec<_> = (0..100).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut nodes: Vec<_> =
        hanging.iter().map(|socket| format!("\"http://{}\"", socket.local_addr().unwrap())).collect();
    nodes.push(format!("\"{}\"", url(&fleet.directory, 1)));
    let nodes = nodes.join(", ");
    let asking =
        TestServer::start(&config(&format!("[fleet]\nname = \"asks\"\nnodes = [{nodes}]\ntoken = \"{TOKEN}\"\n")));
    let list = nodes.replace(['"', ' '], "");
    let finished = run(&mut turnstone(&["status", "--nodes", &list, "--json"]), LIMIT);
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((answer["sums"]["answering"].as_u64(), answer["sums"]["nodes"].as_u64()), (Some(1), Some(101)));
    let admin = asking.file("admin.sock");
    let found = get(&admin, "/v1/fleet/sessions?user=alice");
    assert_eq!(found["sessions"][0]["relayed"][0], relayed.to_string(), "{found}");
    assert_eq!(found["failures"].as_array().unwrap().len(), 100);
    let seen = get(&admin, "/v1/fleet");
    // This node, and the other one.
    assert_eq!(seen["sums"]["answering"], 2, "{seen}");
}

#[test]
fn whom_ca_names_is_read_again_by_a_reload_and_a_pipe_in_its_place_holds_up_nothing() {
    let other = TestServer::start(&config(&format!("[fleet]\nlisten = \"0.0.0.0:0\"\ntoken = \"{TOKEN}\"\n")));
    let line = wait_until("the endpoint in the log", LIMIT, || {
        other.log().lines().find(|line| line.contains("serving the nodes of the fleet")).map(str::to_owned)
    });
    let port: u16 = line.split("0.0.0.0:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let asking = TestServer::start(&config(&format!(
        "[fleet]\nca = \"@DIR@/authority.pem\"\nnodes = [\"https://localhost:{port}\"]\ntoken = \"{TOKEN}\"\n"
    )));
    let (ca, admin) = (asking.file("authority.pem"), asking.file("admin.sock"));
    // `None` before it is known who the nodes are.
    let failure = || {
        let seen = get(&admin, "/v1/fleet");
        let nodes = seen["nodes"].as_array().unwrap();
        nodes
            .iter()
            .find(|node| node["url"] != Value::Null && node["is_self"] == false)
            .map(|node| node["failure"].clone())
    };
    let says = |what: &str| {
        wait_until(what, LIMIT, || {
            failure().filter(|failure| failure.as_str().is_some_and(|failure| failure.contains(what)))
        });
    };
    says("is not trusted");
    let own = std::fs::read(&ca).unwrap();
    std::fs::copy(other.file("authority.pem"), &ca).unwrap();
    asking.signal(rustix::process::Signal::HUP);
    wait_until("the other node to be trusted", LIMIT, || failure().filter(Value::is_null));
    std::fs::write(&ca, own).unwrap();
    asking.signal(rustix::process::Signal::HUP);
    says("is not trusted");
    std::fs::remove_file(&ca).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &ca, mode).unwrap();
    asking.signal(rustix::process::Signal::HUP);
    says("it is a pipe; expected a file");
}
