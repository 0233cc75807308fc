//! A fleet whose nodes are the SRV records of a name: those that dnsmasq has, which are added and taken away while servers run, more of them
//! than a datagram holds, and then none that can be asked for.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::addresses::get;
use crate::namespace::Namespace;
use crate::public_address::Hosts;
use crate::support::{Running, Spec, TestServer, Transport, is_turnstone, require_tool, run, wait_until};

const NAME: &str = "_turnstone._tcp.example.test";
const TOKEN: &str = "b7c1f0a4d2e94c55a0c3";
/// The program asks again every half a minute.
const LIMIT: Duration = Duration::from_secs(60);

fn host(number: usize) -> String {
    format!("turn{number}.example.test")
}

fn ip(number: usize) -> String {
    format!("5.45.1.{number}")
}

/// A name server with these hosts behind the name, until it is dropped.
fn name_server(namespace: &Namespace, targets: &[String]) -> Running {
    let dnsmasq = require_tool("dnsmasq", "dnsmasq-base");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace.name()]).arg(dnsmasq).args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--local=/test/",
    ]);
    command.args((1..=3).map(|number| format!("--host-record={},{}", host(number), ip(number))));
    command.args(targets.iter().map(|target| format!("--srv-host={NAME},{target},9640")));
    let server = Running(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let answers = || namespace.enter(|| std::net::TcpStream::connect("127.0.0.1:53").is_ok());
    wait_until("the name server", LIMIT, || answers().then_some(()));
    server
}

fn server(namespace: &Namespace, number: usize, extra_toml: String) -> TestServer {
    let ip = ip(number);
    let listeners = vec![(Transport::Udp, format!("{ip}:3478")), (Transport::Tls, format!("{ip}:5349"))];
    let (relay_ipv4, relay_ipv6) = (Some(ip), None);
    let namespace = Some(namespace.name().to_owned());
    let certificate_names = vec![host(number)];
    Spec { listeners, relay_ipv4, relay_ipv6, namespace, certificate_names, extra_toml, ..Spec::local() }.start()
}

#[test]
fn nodes_are_those_of_dns_as_they_come_and_go_and_stay_while_nobody_answers() {
    if !is_turnstone() {
        return;
    }
    let namespace = Namespace::create("fleet");
    (1..=4).for_each(|number| namespace.ip(&["address", "add", &format!("{}/32", ip(number)), "dev", "lo"]));
    let _hosts = Hosts::of(&namespace);
    let nodes = [1, 2, 3].map(|number| {
        let fleet =
            format!("[fleet]\nname = \"turn{number}\"\nlisten = \"{}:9640\"\ntoken = \"{TOKEN}\"\n", ip(number));
        server(&namespace, number, fleet)
    });
    let folder = TempDir::new().unwrap();
    let authorities = folder.path().join("authorities.pem");
    let all: String = nodes.iter().map(|node| std::fs::read_to_string(node.file("authority.pem")).unwrap()).collect();
    std::fs::write(&authorities, all).unwrap();

    // Who forges an answer has a certificate for a name of his own.
    let outside = "turn1.elsewhere.test".to_owned();
    let dns = name_server(&namespace, &[host(1), host(2), outside.clone()]);
    let fleet = format!("[fleet]\nname = \"asks\"\nca = {authorities:?}\nnodes = [\"{NAME}\"]\ntoken = \"{TOKEN}\"\n");
    let asking = server(&namespace, 4, format!("[admin]\nlisten = \"unix:admin.sock\"\n{fleet}"));
    let seen = || -> Value {
        let answer = get(&asking.file("admin.sock"), "/v1/fleet");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    // The names of those that answer, without this one.
    let answering = |seen: &Value| -> Vec<String> {
        let nodes = seen["nodes"].as_array().unwrap().iter();
        let others = nodes.filter(|node| node["is_self"] == false && node["failure"].is_null());
        let mut names: Vec<_> = others.map(|node| node["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let unnamed = |seen: &Value| seen["unnamed"][0]["name"].as_str().map(str::to_owned);
    wait_until("the nodes of the records", LIMIT, || {
        let seen = seen();
        (answering(&seen) == ["turn1", "turn2"] && unnamed(&seen).as_ref() == Some(&outside)).then_some(())
    });
    let mut status = Command::new("ip");
    status.args(["netns", "exec", namespace.name(), env!("CARGO_BIN_EXE_turnstone"), "status", "--all", "--config"]);
    let table = run(status.arg(asking.file("turnserver.toml")), LIMIT).stdout;
    assert!(
        table.contains("turn1 ") && table.contains("turn2 ") && table.contains("outside of example.test"),
        "{table}"
    );
    let told = || asking.log().lines().filter(|line| line.contains("nodes of the fleet are not found")).count();
    assert_eq!(told(), 1, "{}", asking.log());

    // One goes, one comes, with so many others that there is no room for all in a datagram. Those are nobody's.
    drop(dns);
    let many = (0..60).map(|number| format!("a-node-with-a-rather-long-name-{number}.elsewhere.test"));
    let dns = name_server(&namespace, &many.chain([host(2), host(3)]).collect::<Vec<_>>());
    wait_until("the nodes of the new records", LIMIT, || {
        let seen = seen();
        let is_there = answering(&seen) == ["turn2", "turn3"] && seen["unnamed"].as_array().unwrap().len() == 60;
        is_there.then_some(())
    });
    assert_eq!(told(), 2, "one line, however many there are: {}", asking.log());

    drop(dns);
    wait_until("the loss of the name server", LIMIT, || (unnamed(&seen()).as_deref() == Some(NAME)).then_some(()));
    assert_eq!(answering(&seen()), ["turn2", "turn3"]);
}
