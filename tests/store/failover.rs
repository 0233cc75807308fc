//! Stores of several servers: sentinels that name another one, and a cluster.

use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::redis::Redis;
use crate::support::free_port;
use crate::support::{Credentials, Running, TestServer, Transport, run, time_limited, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, allocate, store_status, wait_connected, with_store};

const SECRET: &str = "a-secret-of-the-store-0123456789";

#[test]
fn sentinels_are_asked_again_when_another_server_takes_over() {
    let mut primary = Redis::start();
    let replica =
        Redis::start_with(&["--replicaof", &format!("127.0.0.1 {}", primary.port), "--repl-diskless-sync-delay", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let file = folder.path().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor fleet 127.0.0.1 {} 1\nsentinel down-after-milliseconds fleet 500\n\
         sentinel failover-timeout fleet 2000\ndir {}\nlogfile sentinel.log\n",
        primary.port,
        folder.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("redis-sentinel");
    command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _sentinel = Running(command.spawn().expect("redis-sentinel is installed by tests/run"));
    wait_until("the sentinel to listen", LIMIT, || TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
    let ask_sentinel =
        |question: &[&str]| run(Command::new("redis-cli").args(["-p", &port.to_string()]).args(question), LIMIT).stdout;
    wait_until("the sentinel to know the replica", LIMIT, || {
        ask_sentinel(&["SENTINEL", "replicas", "fleet"]).contains(&replica.port.to_string()).then_some(())
    });
    primary.ask(&["HSET", "turnstone:secrets:turn.test", "a", SECRET]);
    let store = format!(
        "url = \"redis-sentinel://127.0.0.1:{port}/fleet\"\nlease = \"3s\"\n[quota]\nfleet-allocations-per-user = 3\n"
    );
    let server = with_store(&store).start();
    wait_until("quotas to be shared", LIMIT, || (store_status(&server)["leases"]["servers"] == 1).then_some(()));
    let held = shares_three(std::slice::from_ref(&server), "erin");
    wait_until("the secret", LIMIT, || (store_status(&server)["secrets"] == 1).then_some(()));
    let mut call = allocate(&server, &time_limited(SECRET, "alice", 600)).unwrap();
    wait_until("the replica to have it", LIMIT, || {
        (replica.ask(&["EXISTS", "turnstone:secrets:turn.test"]) == "1").then_some(())
    });
    primary.kill();
    wait_until("the replica to take over", LIMIT, || {
        replica.try_ask(&["ROLE"]).is_ok_and(|role| role.starts_with("master")).then_some(())
    });
    wait_until("another connection", LIMIT, || {
        let status = store_status(&server);
        (status["connected"] == true && status["connections"].as_u64() >= Some(2)).then_some(())
    });
    replica.ask(&["HSET", "turnstone:secrets:turn.test", "b", "a-secret-of-the-other-0123456789"]);
    wait_until("the secret of the other", LIMIT, || (store_status(&server)["secrets"] == 2).then_some(()));
    assert!(call.refresh().is_ok());
    allocate(&server, &time_limited(SECRET, "bob", 600)).unwrap();
    // What is held is noted at the new one, and shared there.
    wait_until("the shares to be noted there", LIMIT, || {
        replica.ask(&["HVALS", "turnstone:q:time-limited:turn.test:erin"]).starts_with("3:").then_some(())
    });
    let other = with_store(&store).start();
    wait_until("the other server", LIMIT, || (store_status(&other)["leases"]["servers"] == 2).then_some(()));
    assert_eq!(allocate(&other, &other.credentials("erin")).err(), Some(486));
    drop(held);
    wait_until("one to be free", LIMIT, || allocate(&other, &other.credentials("erin")).ok().map(drop));
}

/// A user has three allocations on both servers, and a fourth on none.
fn shares_three(servers: &[TestServer], user: &str) -> Vec<Wire> {
    // They end with their connections.
    let another = |server: &TestServer| {
        let mut wire = Wire::connect(server, Transport::Tcp, &server.credentials(user));
        wire.allocate().map(|_| wire)
    };
    let held = (0..3).map(|n| wait_until("an allocation", LIMIT, || another(&servers[n % servers.len()]).ok()));
    let held: Vec<_> = held.collect();
    for server in servers {
        assert_eq!(another(server).err(), Some(486), "{user}");
    }
    held
}

#[test]
fn a_cluster_is_a_store_too() {
    let nodes = [0, 1, 2].map(|_| Redis::start_with(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]));
    let hosts = nodes.each_ref().map(|node| format!("127.0.0.1:{}", node.port));
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(&hosts).args(["--cluster-replicas", "0", "--cluster-yes"]);
    let created = run(&mut create, LIMIT);
    assert_eq!(created.code, Some(0), "{created:?}");
    for node in &nodes {
        wait_until("the cluster", LIMIT, || node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(()));
    }
    // A user with the rights that the page gives for it.
    let rules = crate::rights::rules_of_the_page();
    for node in &nodes {
        crate::rights::grant(node, &rules[0]);
        crate::rights::grant(node, &rules[2]);
    }
    let put = |arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-c", "-p", &nodes[0].port.to_string()]).args(arguments);
        assert_eq!(run(&mut command, LIMIT).code, Some(0));
    };
    put(&["HSET", "turnstone:secrets:turn.test", "a", SECRET]);
    put(&["HSET", "turnstone:users:turn.test", "erin", "her password"]);
    // Of the nodes one is named, which knows the others.
    let store = format!(
        "url = \"redis-cluster://turnstone@{}\"\npassword = \"{}\"\n[quota]\nfleet-allocations-per-user = 3\n",
        hosts[1],
        crate::rights::PASSWORD
    );
    let servers = [0, 1].map(|_| with_store(&store).start());
    for server in &servers {
        wait_connected(server, true);
        wait_until("the secret", LIMIT, || (store_status(server)["secrets"] == 1).then_some(()));
        allocate(server, &time_limited(SECRET, "alice", 600)).unwrap();
        let erin = Credentials { username: "erin".to_owned(), password: "her password".to_owned() };
        allocate(server, &erin).unwrap();
        wait_until("the servers to share quotas", LIMIT, || {
            (store_status(server)["leases"]["servers"] == 2).then_some(())
        });
    }
    // Users' shares are on all nodes.
    for user in ["ann", "bob", "carol", "dave"] {
        shares_three(&servers, user);
    }
    for server in &servers {
        assert_eq!(crate::turnstone(server, &["store", "status"]).code, Some(0));
    }
    let revoked = crate::turnstone(&servers[0], &["revoke", "--user", "alice"]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    wait_until("the other to know", LIMIT, || {
        (allocate(&servers[1], &time_limited(SECRET, "alice", 600)).err() == Some(401)).then_some(())
    });
}
