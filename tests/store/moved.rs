//! coturn's client behind a balancer that sends the packets after the first answer to another server.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::redis::Redis;
use crate::support::{EchoPeer, Finished, Spec, TestServer, require_tool, run, wait_until};
use crate::{LIMIT, metric, wait_connected, with_store};

/// Forwards datagrams: those of each client to the first server until that has answered him once, and all others to the second one. Both see him at
/// the same address.
fn balancer(first: SocketAddr, second: SocketAddr) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = front.local_addr().unwrap();
    thread::spawn(move || {
        let mut clients: HashMap<SocketAddr, (Arc<UdpSocket>, Arc<AtomicBool>)> = HashMap::new();
        let mut buffer = [0; 2048];
        while let Ok((len, client)) = front.recv_from(&mut buffer) {
            let (back, has_moved) = clients.entry(client).or_insert_with(|| {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                let has_moved = Arc::new(AtomicBool::new(false));
                let (front, from, moved) = (Arc::clone(&front), Arc::clone(&back), Arc::clone(&has_moved));
                thread::spawn(move || {
                    let mut buffer = [0; 2048];
                    while let Ok((len, _)) = from.recv_from(&mut buffer) {
                        moved.store(true, Ordering::SeqCst);
                        let _ = front.send_to(&buffer[..len], client);
                    }
                });
                (back, has_moved)
            });
            let server = if has_moved.load(Ordering::SeqCst) { second } else { first };
            let _ = back.send_to(&buffer[..len], server);
        }
    });
    address
}

fn refusals(server: &TestServer, label: &str) -> f64 {
    metric(server, &format!("turnstone_refusals_total{{code=\"{}\",reason=\"{label}\"}}", code(label)))
}

fn code(label: &str) -> u16 {
    if label == "stale-nonce" { 438 } else { 401 }
}

/// uclient sends some packets over what it allocates.
fn uclient(at: SocketAddr, server: &TestServer) -> Finished {
    let peer = EchoPeer::start("127.0.0.1");
    let credentials = server.credentials("ann");
    let (port, peer_port) = (at.port().to_string(), peer.address().port().to_string());
    let mut command = Command::new(require_tool("turnutils_uclient", "coturn"));
    command.args(["-u", &credentials.username, "-w", &credentials.password, "-p", &port]);
    command.args(["-m", "1", "-c", "-n", "10", "-z", "20", "-e", "127.0.0.1", "-r", &peer_port, "127.0.0.1"]);
    run(command.stdin(Stdio::null()), LIMIT)
}

fn is_served(finished: &Finished) -> bool {
    finished.all_output().contains("Total lost packets 0")
}

#[test]
fn uclient_allocates_at_another_server_than_has_challenged_it_with_a_key_of_the_store_or_of_a_file() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nonce-key");
    crate::connection::write_secret(&file, "a-key-of-nonces-0123456789\n");
    let metrics = "[metrics]\nlisten = \"unix:metrics.sock\"\n";
    let start = |how: &str| {
        let mut spec = match how {
            "store" => with_store(&format!("url = \"{}\"", redis.url())),
            _ => Spec { extra_toml: metrics.to_owned(), workers: 1, ..Spec::local() },
        };
        spec.rfc5766_channel_numbers = true;
        if how == "file" {
            spec.environment = vec![("TURNSTONE_AUTH_NONCE_KEY_FILE".to_owned(), file.display().to_string())];
        }
        let server = spec.start();
        if how == "store" {
            wait_connected(&server, true);
            wait_until("the key", LIMIT, || server.log().contains("nonces are made with the key").then_some(()));
        }
        server
    };
    for how in ["store", "file", "neither"] {
        let (first, second) = (start(how), start(how));
        let finished = uclient(balancer(first.udp(), second.udp()), &first);
        assert!(is_served(&finished), "{how}: {}", finished.all_output());
        // The first one has challenged it, and the second one had to only where they share nothing.
        assert!(refusals(&first, "missing-integrity") >= 1.0, "{how}");
        assert_eq!(refusals(&second, "missing-integrity"), 0.0, "{how}");
        assert_eq!(refusals(&second, "stale-nonce") >= 1.0, how == "neither", "{how}");
    }
}
