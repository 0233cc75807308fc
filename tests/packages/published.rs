//! The services of the compose file, by podman: on the host's network, behind a small range of published ports, and with one for all relays. The
//! client is coturn's, on another host than the server, and so is the peer.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use serde_json::Value;

use crate::container::{Engine, IMAGE, RUN, services};
use crate::host::LIMIT;
use crate::namespace::Namespace;
use crate::support::{EchoPeer, Finished, require_tool, run, skipped, time_limited, wait_until};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Public addresses, as the server wants them; they lead nowhere.
const HOST: &str = "9.0.0.2";
const OUTSIDE: &str = "9.0.0.3";
/// What gives containers a network of their own, by Debian's package of that name.
const BRIDGES: &str = "/usr/lib/podman/netavark";

#[test]
fn clients_and_peers_of_another_host_get_through_by_each_service_of_the_compose_file() {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can have networks of its own");
        return;
    }
    assert!(std::path::Path::new(BRIDGES).exists(), "this test needs {BRIDGES}: install the Debian package netavark");
    let (host, outside) = (Namespace::create("engine"), Namespace::create("outside"));
    host.connect(("eth0", &["9.0.0.2/24"]), &outside, ("eth0", &["9.0.0.3/24"]));
    host.default_route(OUTSIDE);
    host.forward_ipv4();
    let peer = EchoPeer::on(outside.enter(|| UdpSocket::bind((OUTSIDE, 0)).unwrap()));
    host.enter(|| {
        let Some(engine) = Engine::start() else { return };
        engine.build();
        std::fs::write(engine.path("secret"), SECRET).unwrap();
        let secret = format!("{}:/run/secrets/turnstone-secret:ro", engine.path("secret"));
        for (name, service) in services() {
            let external_ip = |value: &str| value.replace("203.0.113.5", HOST);
            let variables = service.environment.iter().map(|(name, value)| format!("{name}={}", external_ip(value)));
            // Wherever the host has no IPv6, and the client chooses its channels.
            let more = ["TURNSTONE_RELAY_IPV6=off", "TURNSTONE_RFC5766_CHANNEL_NUMBERS=true"].map(str::to_owned);
            let mut options: Vec<_> =
                variables.chain(more).flat_map(|variable| ["--env".to_owned(), variable]).collect();
            options.extend(service.ports.iter().flat_map(|ports| ["--publish", ports]).map(str::to_owned));
            options.extend(["--network", if service.has_host_network { "host" } else { "bridge" }].map(str::to_owned));
            options.extend(["--tmpfs", "/run/turnstone:mode=1777", "--volume", &secret].map(str::to_owned));
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            engine.must(&[&["run", "--detach", "--name", &name], &RUN[..], &options, &[IMAGE]].concat());
            wait_until("health", LIMIT, || {
                engine.podman(&["exec", &name, "/usr/bin/turnstone", "health"]).status.success().then_some(())
            });
            let transports: [&[&str]; 2] = [&[], &["-t"]];
            for flags in transports {
                let finished = outside.enter(|| call(&peer.address(), flags));
                let said = finished.all_output();
                assert!(said.contains("Total lost packets 0 (0.000000%)"), "{name} {flags:?}: {said}");
                assert!(said.contains("tot_send_msgs=25, tot_recv_msgs=25"), "{name} {flags:?}: {said}");
            }
            // Peers that send first come to the ports of relays, which have to be among those that are published.
            let report = outside.enter(called);
            assert_eq!(report["received"], report["sent"], "{name}: {report}");
            engine.must(&["rm", "--force", "--time", "0", &name]);
        }
    });
}

/// What a client says that exchanges 25 messages with the peer.
fn call(peer: &SocketAddr, flags: &[&str]) -> Finished {
    let credentials = time_limited(SECRET, "alice", 600);
    let runs = std::iter::repeat_with(|| {
        let mut client = Command::new(require_tool("turnutils_uclient", "coturn"));
        client.args(["-u", &credentials.username, "-w", &credentials.password, "-c", "-n", "25", "-z", "10"]);
        client.args(["-e", &peer.ip().to_string(), "-r", &peer.port().to_string()]).args(flags);
        run(client.arg(HOST), LIMIT)
    });
    // Every other time it asks for an even port, whatever its flags say. That is refused where ports are shared.
    let mut runs =
        runs.take(40).skip_while(|finished| finished.all_output().contains("error 508 (Insufficient Capacity)"));
    runs.next().expect("it asks for an even port every time")
}

/// What two clients say to whom two peers send.
fn called() -> Value {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    bench.args(["bench", "peer-to-client", HOST, "--clients", "2", "--peers", "2", "--rate", "100"]);
    bench.args(["--duration", "1", "--json", "--secret-env", "SECRET"]).env("SECRET", SECRET);
    let finished = run(&mut bench, LIMIT);
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    serde_json::from_str(&finished.stdout).unwrap()
}
