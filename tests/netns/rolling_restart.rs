//! Three servers that know one secret, restarted one after the other under 200 calls, as `docs/fleet.md` has it ("Restart one node after the
//! other"): who comes meanwhile gets an allocation at his first server or at the next one, and no call is cut before the deadline of its
//! server's drain.
//!
//! The calls are those of the `turn` crate's client. A call of `turnutils_uclient` lives through the drain of each server, and another one
//! comes while it lasts.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use turn::client::Client;
use webrtc_util::Conn;

use crate::internet::PORT;
use crate::namespace::Namespace;
use crate::support::{
    Credentials, EchoPeer, Finished, Spec, TestServer, Transport, is_turnstone, require_tool, run, time_limited,
    wait_until,
};
use crate::turn_client::{conn, turn_client_in};

const NODES: usize = 3;
const CALLS: usize = 200;
/// One of so many calls ends only when it is cut.
const ENDLESS_EACH: usize = 5;
/// `[drain] deadline`.
const DEADLINE: Duration = Duration::from_secs(7);
const PACKET_INTERVAL: Duration = Duration::from_millis(250);
/// So many packets in a row may be lost before a call counts as cut.
const LOST_MAX: u32 = 12;
/// Between two packets nobody sees that a call lives, nor on a machine that is busy.
const SLACK: Duration = Duration::from_millis(1500);
const LIMIT: Duration = Duration::from_secs(40);

#[test]
fn a_restart_of_one_node_after_the_other_refuses_no_new_client_and_cuts_no_call_before_the_deadline() {
    if !is_turnstone() {
        return;
    }
    let mut fleet = Fleet::start();
    let calls = Calls {
        fleet: fleet.targets(),
        stop: AtomicBool::new(false),
        live: AtomicUsize::new(0),
        seen: Mutex::default(),
    };
    let calls = Arc::new(calls);
    std::thread::scope(|scope| {
        let (clients, of_clients) = (&fleet.clients, Arc::clone(&calls));
        let callers = scope.spawn(move || clients.enter(|| call_until_stopped(&of_clients)));
        let _stop = StopWhenDropped(&calls);
        for node in 0..NODES {
            calls.wait_for_all();
            restart(clients, &fleet.specs[node], &mut fleet.servers[node], node, &calls);
        }
        // Those that the last node has cut have found out, and have called anew.
        wait_until("calls that were cut", LIMIT, || {
            (calls.seen.lock().unwrap().ended_by_drain[NODES - 1] > 0).then_some(())
        });
        calls.wait_for_all();
        calls.stop.store(true, Ordering::Relaxed);
        callers.join().unwrap();
    });

    let seen = calls.seen.lock().unwrap();
    assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
    // And it was put to the test at each server.
    for node in 0..NODES {
        let (made, refused, ended) = (seen.made[node], seen.refused[node], seen.ended_by_drain[node]);
        assert!(made > CALLS / NODES && refused > 0 && ended > 0, "node {node}: {made}, {refused}, {ended}");
    }
}

/// What the page says, for a node: drain it, wait until it has ended, start it, wait until it is ready.
fn restart(clients: &Namespace, spec: &Spec, server: &mut Option<TestServer>, node: usize, calls: &Calls) {
    let user = format!("uclient-{node}");
    let credentials = time_limited(&spec.secret, &user, 3600);
    let next = (node + 1) % NODES;
    std::thread::scope(|scope| {
        let running = server.as_mut().unwrap();
        // A call of four seconds. It begins to send some seconds after it has its allocation.
        let lives_on = scope.spawn(|| uclient(clients, calls.fleet[node], &credentials, 100));
        wait_until("what uclient sends", LIMIT, || {
            let shown = turnstone(&admin_of(running), &["sessions", "--json", "--user", &user]);
            let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
            let sessions = shown["sessions"].as_array().unwrap();
            sessions.iter().any(|session| session["to_peers"]["packets"].as_u64() > Some(0)).then_some(())
        });
        calls.drain_begins(node);
        // The one is what `systemctl restart` does first; the other, the chart's `preStop`, and who does it by hand.
        let waits_for_end = match node {
            0 => {
                running.signal(Signal::TERM);
                None
            }
            _ => {
                let admin = admin_of(running);
                Some(scope.spawn(move || turnstone(&admin, &["drain", "--wait"])))
            }
        };
        wait_until("the drain", LIMIT, || running.log().contains("draining").then_some(()));
        let newcomer = scope.spawn(|| {
            let refused = uclient(clients, calls.fleet[node], &credentials, 1);
            (refused, uclient(clients, calls.fleet[next], &credentials, 5))
        });
        assert_eq!(running.exit_code_within(DEADLINE + LIMIT), Some(0));
        calls.drain_has_ended(node);
        if let Some(waits_for_end) = waits_for_end {
            let told = waits_for_end.join().unwrap();
            assert_eq!(told.code, Some(0), "{}", told.all_output());
        }
        let log = running.log();
        assert!(log.contains("the deadline of the drain has come"), "{log}");
        drop(server.take());
        *server = Some(spec.start());
        let (refused, served) = newcomer.join().unwrap();
        assert_ne!(refused.code, Some(0), "{}", refused.all_output());
        for finished in [lives_on.join().unwrap(), served] {
            let output = finished.all_output();
            assert_eq!(finished.code, Some(0), "{output}");
            assert!(output.contains("Total lost packets 0 (0.000000%), total send dropped 0"), "{output}");
        }
    });
}

/// The program, which asks this server.
fn turnstone(admin: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    run(command.args(arguments).args(["--admin", admin]), DEADLINE + LIMIT)
}

fn admin_of(server: &TestServer) -> String {
    format!("unix:{}", server.file("admin.sock"))
}

/// So many packets at intervals of 40 ms to the echo of a node, by Send indications.
fn uclient(clients: &Namespace, target: Target, credentials: &Credentials, packets: u32) -> Finished {
    let program = require_tool("turnutils_uclient", "coturn");
    let mut command = Command::new("ip");
    let Target { server, echo } = target;
    command.args(["netns", "exec", clients.name()]).arg(program);
    command.args(["-u", &credentials.username, "-w", &credentials.password, "-p", &PORT.to_string()]);
    command.args(["-e", &echo.ip().to_string(), "-r", &echo.port().to_string()]);
    command.args(["-c", "-s", "-z", "40", "-n", &packets.to_string(), &server.ip().to_string()]);
    run(&mut command, LIMIT)
}

struct Fleet {
    servers: [Option<TestServer>; NODES],
    specs: [Spec; NODES],
    echoes: [EchoPeer; NODES],
    clients: Namespace,
    _hosts: [Namespace; NODES],
}

/// Where a node is, and who is called by it.
#[derive(Clone, Copy)]
struct Target {
    server: SocketAddr,
    echo: SocketAddr,
}

impl Fleet {
    /// Each node is a host of its own, with a cable to the host of all clients and of whom they call.
    fn start() -> Fleet {
        let clients = Namespace::create("clients");
        let node_ip = |node: usize| format!("5.45.{node}.1");
        let clients_ip = |node: usize| format!("5.45.{node}.2");
        let hosts = [0, 1, 2].map(|node: usize| {
            let host = Namespace::create(&format!("node{node}"));
            let (near, far) = (format!("{}/24", clients_ip(node)), format!("{}/24", node_ip(node)));
            clients.connect((&format!("node{node}"), &[&near]), &host, ("eth0", &[&far]));
            host
        });
        let deadline_secs = DEADLINE.as_secs();
        let specs = [0, 1, 2].map(|node: usize| Spec {
            listeners: vec![(Transport::Udp, format!("{}:{PORT}", node_ip(node)))],
            relay_ipv4: Some(node_ip(node)),
            relay_ipv6: None,
            dev: false,
            namespace: Some(hosts[node].name().to_owned()),
            workers: 1,
            extra_toml: format!(
                "[drain]\ndeadline = \"{deadline_secs}s\"\n[admin]\nlisten = \"unix:@DIR@/admin.sock\"\n"
            ),
            ..Spec::local()
        });
        let echoes = [0, 1, 2].map(|node: usize| clients.enter(|| EchoPeer::start(&clients_ip(node))));
        let servers = [0, 1, 2].map(|node: usize| Some(specs[node].start()));
        Fleet { servers, specs, echoes, clients, _hosts: hosts }
    }

    fn targets(&self) -> [Target; NODES] {
        [0, 1, 2].map(|node: usize| Target {
            server: self.specs[node].listeners[0].1.parse().unwrap(),
            echo: self.echoes[node].address(),
        })
    }
}

/// What callers and whoever restarts the servers know of each other.
struct Calls {
    fleet: [Target; NODES],
    stop: AtomicBool,
    /// Calls that have heard an echo.
    live: AtomicUsize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When each node's drain has begun, and ended.
    drains: [Option<(Instant, Option<Instant>)>; NODES],
    /// Allocations made at each node, and those that it had no room for as the first that was asked.
    made: [usize; NODES],
    refused: [usize; NODES],
    ended_by_drain: [usize; NODES],
    /// What must not be.
    wrong: Vec<String>,
}

struct StopWhenDropped<'c>(&'c Calls);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Calls {
    fn wait_for_all(&self) {
        wait_until("all calls", LIMIT, || (self.live.load(Ordering::Relaxed) == CALLS).then_some(()));
    }

    fn drain_begins(&self, node: usize) {
        self.seen.lock().unwrap().drains[node] = Some((Instant::now(), None));
    }

    fn drain_has_ended(&self, node: usize) {
        if let Some((_, ended)) = &mut self.seen.lock().unwrap().drains[node] {
            *ended = Some(Instant::now());
        }
    }

    /// A call has heard nothing any more since then.
    fn was_cut(&self, node: usize, last_heard: Instant) {
        let seen = &mut *self.seen.lock().unwrap();
        let by_drain = seen.drains[node].is_some_and(|(began, ended)| {
            let is_late_enough = last_heard + SLACK >= began + DEADLINE;
            is_late_enough && ended.is_none_or(|ended| last_heard <= ended)
        });
        if by_drain {
            seen.ended_by_drain[node] += 1;
        } else {
            let since_drain = seen.drains[node].map(|(began, _)| last_heard.saturating_duration_since(began));
            seen.wrong.push(format!("a call at node {node} was cut {since_drain:?} after its drain began"));
        }
    }
}

/// Keeps so many calls going until it is told to stop.
fn call_until_stopped(calls: &Arc<Calls>) {
    // Its threads are in the namespace of this one, and so are the sockets that they open.
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut callers: JoinSet<()> = (0..CALLS).map(|number| caller(number, Arc::clone(calls))).collect();
        while let Some(finished) = callers.join_next().await {
            finished.unwrap();
        }
    });
}

/// One call after the other.
async fn caller(number: usize, calls: Arc<Calls>) {
    for round in 0.. {
        // As DNS would have it: another one comes first each time.
        let Some(call) = Call::make(number, number + round, &calls).await else { return };
        // A call has two to five seconds, if it ends by itself.
        let packets = (!number.is_multiple_of(ENDLESS_EACH)).then_some(8 + (number * 7 + round * 5) % 13);
        let last_heard = call.talk(packets, &calls).await;
        calls.live.fetch_sub(1, Ordering::Relaxed);
        match last_heard {
            Some(last_heard) => calls.was_cut(call.node, last_heard),
            None => call.hang_up().await,
        }
        if calls.stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

struct Call {
    node: usize,
    client: Client,
    relay: Box<dyn Conn + Send + Sync>,
}

impl Call {
    /// Asks the first node, and the next one if that has no room, or does not answer.
    async fn make(number: usize, first: usize, calls: &Calls) -> Option<Call> {
        let mut problems = Vec::new();
        for node in [first % NODES, (first + 1) % NODES] {
            match Self::at(node, number, calls).await {
                Ok(call) => {
                    calls.seen.lock().unwrap().made[node] += 1;
                    calls.live.fetch_add(1, Ordering::Relaxed);
                    return Some(call);
                }
                Err(problem) => {
                    calls.seen.lock().unwrap().refused[node] += usize::from(problems.is_empty());
                    problems.push(format!("node {node}: {problem}"));
                }
            }
        }
        calls.seen.lock().unwrap().wrong.push(format!("a new client was refused: {problems:?}"));
        None
    }

    /// Makes an allocation, and hears the first echo.
    async fn at(node: usize, number: usize, calls: &Calls) -> Result<Call, String> {
        let Target { server, echo } = calls.fleet[node];
        let spec = Spec::local();
        let credentials = time_limited(&spec.secret, &format!("caller-{number}"), 3600);
        let client =
            turn_client_in(&spec.realm, server, conn(UdpSocket::bind("0.0.0.0:0").unwrap()), &credentials).await;
        match timeout(LIMIT, client.allocate()).await {
            Ok(Ok(relay)) => {
                let call = Call { node, client, relay: Box::new(relay) };
                match call.echo(echo, 0).await {
                    true => Ok(call),
                    false => Err("no echo".to_owned()),
                }
            }
            Ok(Err(error)) => {
                let _ = client.close().await;
                Err(error.to_string())
            }
            Err(_) => Err("no answer".to_owned()),
        }
    }

    /// Sends so many packets and hears them, or as many as it can; returns when it has heard something for the last time, if it was cut.
    async fn talk(&self, packets: Option<usize>, calls: &Calls) -> Option<Instant> {
        let echo = calls.fleet[self.node].echo;
        let mut last_heard = Instant::now();
        let mut lost = 0;
        for number in 1..packets.unwrap_or(usize::MAX) {
            if calls.stop.load(Ordering::Relaxed) {
                return None;
            }
            if self.echo(echo, number as u64).await {
                (last_heard, lost) = (Instant::now(), 0);
                sleep(PACKET_INTERVAL).await;
            } else {
                lost += 1;
            }
            if lost > LOST_MAX {
                return Some(last_heard);
            }
        }
        None
    }

    /// Whether the echo of a packet comes back before the next one is due.
    async fn echo(&self, peer: SocketAddr, number: u64) -> bool {
        let mut buffer = [0; 200];
        buffer[..8].copy_from_slice(&number.to_be_bytes());
        let exchange = async {
            self.relay.send_to(&buffer.clone(), peer).await.ok()?;
            loop {
                let (len, from) = self.relay.recv_from(&mut buffer).await.ok()?;
                assert_eq!((len, from), (200, peer));
                if buffer[..8] == number.to_be_bytes() {
                    return Some(());
                }
            }
        };
        // The first one waits for its permission.
        let limit = if number == 0 { LIMIT } else { PACKET_INTERVAL };
        timeout(limit, exchange).await.is_ok_and(|heard| heard.is_some())
    }

    async fn hang_up(self) {
        let _ = timeout(LIMIT, self.relay.close()).await;
        let _ = self.client.close().await;
    }
}
