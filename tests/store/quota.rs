//! Quotas over several servers of one store, with servers that are killed, and a store that stands still, forgets and is gone.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::redis::Redis;
use crate::support::{Credentials, EchoPeer, Spec, TestServer, Transport, require_tool, run, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, metric, store_status, turnstone, with_store};

/// A server of a fleet with a limit over all.
fn spec(redis: &Redis, limit: u32, store: &str) -> Spec {
    let mut spec = with_store(&format!(
        "url = \"{}\"\nlease = \"3s\"\n{store}\n[quota]\nfleet-allocations-per-user = {limit}\n",
        redis.url()
    ));
    spec.workers = 2;
    // As uclient has them.
    spec.rfc5766_channel_numbers = true;
    spec
}

/// Servers that know of each other.
fn fleet(redis: &Redis, count: usize, limit: u32, store: &str) -> Vec<TestServer> {
    let servers: Vec<_> = (0..count).map(|_| spec(redis, limit, store).start()).collect();
    for server in &servers {
        wait_until("the servers to know of each other", LIMIT, || {
            (metric(server, "turnstone_lease_servers") as usize == count).then_some(())
        });
    }
    servers
}

/// One more allocation of ann; it ends with the connection.
fn allocate(server: &TestServer) -> Result<Wire, u16> {
    let mut wire = Wire::connect(server, Transport::Tcp, &server.credentials("ann"));
    wire.allocate().map(|_| wire)
}

/// One that is to be had, if not at once.
fn allocated(server: &TestServer, within: Duration) -> Wire {
    wait_until("an allocation", within, || {
        let got = allocate(server);
        if got.is_err() {
            std::thread::sleep(Duration::from_millis(50));
        }
        got.ok()
    })
}

fn noted(redis: &Redis) -> u32 {
    let all = redis.ask(&["HVALS", "turnstone:q:time-limited:turn.test:ann"]);
    all.lines().filter_map(|line| line.split(':').next()?.parse::<u32>().ok()).sum()
}

#[test]
fn a_quota_holds_over_three_servers_and_what_ends_on_one_is_free_on_the_others() {
    let redis = Redis::start();
    let servers = fleet(&redis, 3, 6, "");
    let mut held: Vec<_> = (0..6).map(|n| allocated(&servers[n % 3], LIMIT)).collect();
    for server in &servers {
        assert_eq!(allocate(server).err(), Some(486));
        let explained = turnstone(server, &["explain", "ann"]).stdout;
        assert!(explained.contains("fleet-allocations-per-user"), "{explained}");
    }
    // Of another user nothing is taken.
    let mut bob = Wire::connect(&servers[0], Transport::Tcp, &servers[0].credentials("bob"));
    assert!(bob.allocate().is_ok());
    assert_eq!(noted(&redis), 6);
    let users: f64 = servers.iter().map(|server| metric(server, "turnstone_lease_allocations ")).sum();
    assert!(users >= 7.0, "{users}");
    drop(held.pop());
    held.push(allocated(&servers[0], LIMIT));
    assert_eq!(allocate(&servers[1]).err(), Some(486));
    // When all is over, nothing is left in the store but the servers.
    drop((held, bob));
    wait_until("the store to be empty", LIMIT, || (redis.ask(&["KEYS", "turnstone:q:*"]).is_empty()).then_some(()));
}

#[test]
fn a_user_of_the_store_has_a_share_at_once_at_a_server_where_nothing_else_happens() {
    let redis = Redis::start();
    for user in ["dora", "erin", "finn"] {
        redis.ask(&["HSET", "turnstone:users:turn.test", user, "a password"]);
    }
    // Nobody is served whose question is asked only when he gives up.
    let server = Spec { workers: 1, ..spec(&redis, 2, "on-loss = \"refuse\"") }.start();
    wait_until("the server to be counted", LIMIT, || (metric(&server, "turnstone_lease_servers") == 1.0).then_some(()));
    for user in ["dora", "erin", "finn"] {
        let credentials = Credentials { username: user.to_owned(), password: "a password".to_owned() };
        assert_eq!(crate::allocate(&server, &credentials).err(), None, "{user}");
    }
    assert_eq!(metric(&server, "turnstone_lease_allocations_without_total"), 0.0);
}

#[test]
fn users_of_a_realm_share_wherever_it_is_configured_and_those_of_another_realm_do_not() {
    let redis = Redis::start();
    let mut other = spec(&redis, 2, "");
    other.realm = "other.test".to_owned();
    other.extra_toml += "[[listen]]\naddress = \"127.0.0.2:0\"\ntransport = \"udp\"\nrealm = \"turn.test\"\n\
        [[realm]]\nname = \"turn.test\"\n[[realm.secrets]]\nfile = \"@DIR@/secret\"\n";
    let [here, there] = [spec(&redis, 2, ""), other].map(|spec| spec.start());
    for server in [&here, &there] {
        wait_until("the servers to know of each other", LIMIT, || {
            (metric(server, "turnstone_lease_servers") == 2.0).then_some(())
        });
    }
    let _full = [allocated(&here, LIMIT), allocated(&here, LIMIT)];
    let is_second = |address: &std::net::SocketAddr| address.ip().to_string() == "127.0.0.2";
    let second = there.listeners().iter().map(|(_, address)| *address).find(is_second).unwrap();
    let same_realm = || Wire::over_udp(second, &there.credentials("ann")).allocate();
    assert_eq!(same_realm().err(), Some(486));
    let _of_other_realm = [allocate(&there).unwrap(), allocate(&there).unwrap()];
    assert_eq!(allocate(&there).err(), Some(486));
    let noted_of = |realm: &str| redis.ask(&["HLEN", &format!("turnstone:q:time-limited:{realm}:ann")]);
    assert_eq!([noted_of("turn.test"), noted_of("other.test")], ["1", "1"]);
    // Under another name of the realm, what there is is noted under that.
    let file = here.file("turnserver.toml");
    let renamed = std::fs::read_to_string(&file).unwrap().replace("\"turn.test\"", "\"renamed.test\"");
    std::fs::write(&file, renamed).unwrap();
    here.signal(Signal::HUP);
    wait_until("the share under the new name", LIMIT, || (noted_of("renamed.test") == "1").then_some(()));
    wait_until("the end of the old one", LIMIT, || (noted_of("turn.test") == "0").then_some(()));
    assert!(same_realm().is_ok());
}

#[test]
fn a_realm_of_auth_that_takes_the_name_of_one_that_is_gone_keeps_what_is_noted_of_its_own_users() {
    let redis = Redis::start();
    let mut of_realm = spec(&redis, 2, "");
    of_realm.realm = "before.test".to_owned();
    of_realm.extra_toml += "[[listen]]\naddress = \"127.0.0.2:0\"\ntransport = \"udp\"\nrealm = \"turn.test\"\n\
        [[realm]]\nname = \"turn.test\"\n[[realm.secrets]]\nfile = \"@DIR@/secret\"\n";
    let [here, there] = [of_realm, spec(&redis, 2, "")].map(|spec| spec.start());
    for server in [&here, &there] {
        wait_until("the servers to know of each other", LIMIT, || {
            (metric(server, "turnstone_lease_servers") == 2.0).then_some(())
        });
    }
    let is_second = |address: &std::net::SocketAddr| address.ip().to_string() == "127.0.0.2";
    let second = here.listeners().iter().map(|(_, address)| *address).find(is_second).unwrap();
    // As many as there may be of both, which are not one user's yet.
    let mut of_realm = [0, 1].map(|_| Wire::over_udp(second, &here.credentials("ann")));
    assert!(of_realm.iter_mut().all(|wire| wire.allocate().is_ok()));
    let held = [allocated(&here, LIMIT), allocated(&here, LIMIT)];
    assert_eq!(allocate(&there).err(), Some(486));
    let file = here.file("turnserver.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (kept, _) = text.split_once("realm = \"turn.test\"").unwrap();
    std::fs::write(&file, kept.replace("\"before.test\"", "\"turn.test\"")).unwrap();
    here.signal(Signal::HUP);
    // Those of the realm end, those of [auth] go on.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert!(noted(&redis) >= 2, "after {:?}", begun.elapsed());
        assert_eq!(allocate(&there).err(), Some(486), "after {:?}", begun.elapsed());
    }
    assert!(of_realm.iter_mut().all(|wire| wire.refresh().is_err()));
    assert_eq!(noted(&redis), 2);
    drop(held);
    let _again: Vec<_> = (0..2).map(|_| allocated(&there, LIMIT)).collect();
}

#[test]
fn a_server_that_is_killed_gives_its_share_back_when_its_lease_is_over_and_one_that_stops_at_once() {
    let redis = Redis::start();
    let mut servers = fleet(&redis, 2, 3, "");
    let killed = servers.remove(0);
    let held: Vec<_> = (0..3).map(|_| allocated(&killed, LIMIT)).collect();
    assert_eq!(allocate(&servers[0]).err(), Some(486));
    let begun = Instant::now();
    killed.signal(Signal::KILL);
    let again: Vec<_> = (0..3).map(|_| allocated(&servers[0], Duration::from_secs(10))).collect();
    // Its lease was renewed within the last second.
    assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
    drop(held);
    let other = spec(&redis, 3, "").start();
    wait_until("the new server to be refused", LIMIT, || (allocate(&other).err() == Some(486)).then_some(()));
    servers[0].signal(Signal::TERM);
    assert_eq!(servers[0].exit_code_within(LIMIT), Some(0));
    assert_eq!(redis.ask(&["EXISTS", "turnstone:q:time-limited:turn.test:ann"]), "0");
    drop(again);
    let _again: Vec<_> = (0..3).map(|_| allocated(&other, Duration::from_secs(3))).collect();
}

#[test]
fn while_the_store_stands_still_calls_go_on_and_new_ones_are_made_as_configured() {
    let mut redis = Redis::start();
    for (on_loss, more, code) in [("local-share", 2, 500), ("refuse", 1, 500), ("allow", 4, 486)] {
        let servers = fleet(&redis, 2, 4, &format!("timeout = \"300ms\"\non-loss = \"{on_loss}\""));
        let mut held = vec![allocated(&servers[0], LIMIT)];
        // What it has more than that is given back with the next renewal.
        wait_until("one to be noted", LIMIT, || (noted(&redis) == 1).then_some(()));
        redis.pause();
        let begun = Instant::now();
        while held.len() < more {
            held.push(allocate(&servers[0]).unwrap());
        }
        assert_eq!(allocate(&servers[0]).err(), Some(code), "{on_loss}");
        // The first of them waits 200 ms, and the others until it is known.
        assert!(begun.elapsed() < Duration::from_secs(3), "{on_loss}: {:?}", begun.elapsed());
        wait_until("the loss to be known", LIMIT, || {
            (metric(&servers[0], "turnstone_lease_lost") == 1.0).then_some(())
        });
        // Nobody waits for the store's answer, 200 ms: on a machine that is busy, one of several shows it.
        let mut prompt = (0..50).map(|_| {
            let begun = Instant::now();
            assert_eq!(allocate(&servers[0]).err(), Some(code), "{on_loss}");
            begun.elapsed() < Duration::from_millis(150)
        });
        assert!(prompt.any(|is_prompt| is_prompt), "{on_loss}");
        for wire in &mut held {
            assert!(wire.refresh().is_ok());
        }
        redis.resume();
        wait_until("all to be noted", LIMIT, || (noted(&redis) as usize == held.len()).then_some(()));
        assert!(metric(&servers[0], "turnstone_lease_allocations_without_total") as usize == held.len() - 1);
        let left = 4 - held.len();
        let others: Vec<_> = (0..left).map(|_| allocated(&servers[1], LIMIT)).collect();
        assert_eq!(allocate(&servers[1]).err(), Some(486), "{on_loss}");
        drop((held, others));
        wait_until("the store to be empty", LIMIT, || redis.ask(&["KEYS", "turnstone:q:*"]).is_empty().then_some(()));
        drop(servers);
        redis.kill();
        redis.start_again();
    }
}

#[test]
fn what_the_store_has_forgotten_is_said_anew() {
    let mut redis = Redis::start();
    let servers = fleet(&redis, 2, 3, "");
    let mut held: Vec<_> = (0..3).map(|_| allocated(&servers[0], LIMIT)).collect();
    for is_killed in [false, true] {
        if is_killed {
            redis.kill();
            redis.start_again();
        } else {
            redis.ask(&["FLUSHALL"]);
        }
        wait_until("the share to be said anew", LIMIT, || (noted(&redis) == 3).then_some(()));
        wait_until("the other server to ask again", LIMIT, || (allocate(&servers[1]).err() == Some(486)).then_some(()));
        for wire in &mut held {
            assert!(wire.refresh().is_ok());
        }
    }
    wait_until("the warning", LIMIT, || servers[0].log().contains("has lost what it knew").then_some(()));
    let status = store_status(&servers[0]);
    assert_eq!((&status["leases"]["users"], &status["leases"]["lost"]), (&1.into(), &false.into()), "{status}");
}

#[test]
fn uclient_is_refused_on_one_server_for_as_long_as_it_is_on_the_other() {
    let redis = Redis::start();
    // It makes one to try, which it keeps, and one to use.
    let servers = fleet(&redis, 2, 2, "");
    let peer = EchoPeer::start("127.0.0.1");
    let uclient = |server: &TestServer, messages: &str| {
        let credentials = server.credentials("ann");
        let mut command = Command::new(require_tool("turnutils_uclient", "coturn"));
        command
            .args(["-u", &credentials.username, "-w", &credentials.password, "-p", &server.udp().port().to_string()])
            .args([
                "-m",
                "1",
                "-c",
                "-n",
                messages,
                "-z",
                "20",
                "-e",
                "127.0.0.1",
                "-r",
                &peer.address().port().to_string(),
            ])
            .arg("127.0.0.1")
            .stdin(Stdio::null());
        command
    };
    let mut first = uclient(&servers[0], "100000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("its allocations", LIMIT, || (noted(&redis) == 2).then_some(()));
    let refused = run(&mut uclient(&servers[1], "5"), LIMIT);
    let _ = first.kill();
    let _ = first.wait();
    assert!(refused.all_output().contains("error 486"), "{}", refused.all_output());
    assert!(turnstone(&servers[0], &["kick", "--user", "ann", "--yes"]).code == Some(0));
    wait_until("its end to be noted", LIMIT, || (noted(&redis) == 0).then_some(()));
    // That it was refused is believed for a second.
    wait_until("it to be served on the other server", LIMIT, || {
        let finished = run(&mut uclient(&servers[1], "5"), LIMIT);
        finished.all_output().contains("Total lost packets 0").then_some(())
    });
}

#[test]
fn without_a_store_such_a_quota_is_refused_and_a_server_without_one_knows_nothing_of_leases() {
    let mut check = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("turnserver.toml");
    std::fs::write(&file, "[quota]\nfleet-allocations-per-user = 4\n").unwrap();
    let finished = run(check.args(["check", "--config"]).arg(&file), LIMIT);
    let output = finished.all_output();
    assert!(output.contains("fleet-allocations-per-user") && output.contains("expected a url in [store]"), "{output}");
}
