//! A host behind 1:1 NAT whose public address is found and followed, by STUN servers, a cloud's metadata service and a name.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use webrtc_util::Conn;

use crate::addresses::get;
use crate::internet::{PORT, socket_in};
use crate::namespace::Namespace;
use crate::stun_client::binding_answer;
use crate::support::{EchoPeer, Running, Spec, TestServer, Transport, require_tool, run, wait_until};
use crate::turn_client::{conn, turn_client};

const LIMIT: Duration = Duration::from_secs(30);
const PRIVATE: &str = "10.0.5.2";
const CLIENT: &str = "5.44.1.20";
const PUBLIC: [&str; 2] = ["5.44.1.1", "5.44.1.2"];

/// Three servers are named: one of coturn, one of ours, and one that lies. The NAT gets another address.
#[tokio::test]
async fn the_address_that_stun_servers_see_is_relayed_from_and_followed() {
    let network = Network::behind_nat();
    let coturn = network.coturn("5.44.1.9");
    let honest = network.stun_server("5.44.1.10", None);
    let _liar = network.stun_server("5.44.1.11", Some("5.44.1.66"));
    let sources = "stun:5.44.1.9:3478,stun:5.44.1.10:3478,stun:5.44.1.11:3478";
    let server = network.spec("auto", Some(sources)).start();
    let peer = network.outside.enter(|| EchoPeer::start(CLIENT));

    let before = network.allocate(&server, PUBLIC[0]).await;
    assert_eq!(before.local_addr().unwrap().ip().to_string(), PUBLIC[0]);
    echo(&before, peer.address()).await;
    assert_eq!(source_of(&server), ("stun".to_owned(), PUBLIC[0].to_owned()));

    network.map(PUBLIC[1]);
    network.nudge(1);
    wait_until("the new address", LIMIT, || server.log().contains("now=5.44.1.2").then_some(()));
    assert_eq!(server.log().matches("the public address has changed").count(), 1, "{}", server.log());
    let after = network.allocate(&server, PUBLIC[1]).await;
    assert_eq!(after.local_addr().unwrap().ip().to_string(), PUBLIC[1]);
    echo(&after, peer.address()).await;
    // What the client of before was told is still its address.
    echo(&before, peer.address()).await;
    assert!(
        metrics(&server).contains("turnstone_external_ip_changes_total{family=\"ipv4\"} 1"),
        "{}",
        metrics(&server)
    );
    network.uclient_is_served(&server, PUBLIC[1]);

    // One of three is left, and it lies.
    drop((coturn, honest));
    network.nudge(2);
    let told = "nobody says what the public address is";
    wait_until("a warning", LIMIT, || server.log().contains(told).then_some(()));
    assert_eq!(source_of(&server), ("stun".to_owned(), PUBLIC[1].to_owned()));
    let shown = get(&server.file("admin.sock"), "/v1/status");
    assert!(shown.contains("5.44.1.11:3478 says 5.44.1.66") && shown.contains("5.44.1.10:3478"), "{shown}");
}

/// Each cloud is asked in its own words, and only what is a public address is an answer.
#[tokio::test]
async fn metadata_services_are_asked_in_their_words_and_believed_within_bounds() {
    let network = Network::behind_nat();
    let asked = network.metadata();
    let clouds = ["openstack", "hetzner", "digitalocean", "azure", "gcp", "aws"];
    let sources = clouds.map(|cloud| format!("metadata:{cloud}")).join(",");
    let server = network.spec("auto", Some(&sources)).start();
    assert_eq!(source_of(&server), ("metadata".to_owned(), PUBLIC[0].to_owned()));
    let metrics = metrics(&server);
    for (outcome, count) in [("answered", 1), ("failed", 5)] {
        let line =
            format!("turnstone_external_ip_questions_total{{source=\"metadata\",outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    assert!(asked.endless_was_cut.load(Ordering::Acquire), "a gigabyte was read");
    let relay = network.allocate(&server, PUBLIC[0]).await;
    assert_eq!(relay.local_addr().unwrap().ip().to_string(), PUBLIC[0]);
}

#[test]
fn a_name_is_resolved_again_and_what_it_says_is_judged() {
    let network = Network::behind_nat();
    let hosts = Hosts::of(&network.host);
    let many: Vec<_> = (1..=64).map(|n| format!("5.61.0.{n}")).collect();
    hosts.write(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let (mut server, notify) = network.spec("name:turn.example.test", None).launch();
    let wait_for = |server: &TestServer, words: &str| {
        wait_until(words, LIMIT, || {
            // Who sends them waits when nobody reads them.
            while notify.recv(&mut [0; 4096]).is_ok() {}
            server.log().contains(words).then_some(())
        });
    };
    wait_for(
        &server,
        "waiting: the public address that stands for the relay address 10.0.5.2 is not known: turn.example.test has several",
    );
    // As a resolver says that is broken, or wants to reach what is behind.
    for (n, bad) in ["127.0.0.1", PRIVATE].into_iter().enumerate() {
        hosts.write(&[bad]);
        network.nudge(n + 1);
        wait_for(&server, &format!("turn.example.test says {bad}, which is no public address"));
    }
    hosts.write(&[PUBLIC[0]]);
    network.nudge(3);
    server.wait_for_ready(&notify);
    assert_eq!(source_of(&server), ("name".to_owned(), PUBLIC[0].to_owned()));
    hosts.write(&[]);
    network.nudge(4);
    wait_for(&server, "nobody says what the public address is; the one of before stays");
    assert_eq!(source_of(&server), ("name".to_owned(), PUBLIC[0].to_owned()));
    hosts.write(&[PUBLIC[1]]);
    network.nudge(5);
    wait_for(&server, "before=5.44.1.1 now=5.44.1.2");
    assert_eq!(source_of(&server), ("name".to_owned(), PUBLIC[1].to_owned()));
}

/// The server's host, the NAT in front of it, and everybody else. Fields are dropped in order.
struct Network {
    host: Namespace,
    nat: Namespace,
    outside: Namespace,
}

impl Network {
    fn behind_nat() -> Network {
        let [host, nat, outside] = ["server", "nat", "outside"].map(Namespace::create);
        let [first, second] = PUBLIC.map(|ip| format!("{ip}/24"));
        let others = [CLIENT, "5.44.1.9", "5.44.1.10", "5.44.1.11"].map(|ip| format!("{ip}/24"));
        let others = others.each_ref().map(String::as_str);
        nat.connect(("wan", &[&first, &second]), &outside, ("eth0", &others));
        nat.connect(("lan", &["10.0.5.1/24"]), &host, ("eth0", &["10.0.5.2/24"]));
        host.default_route("10.0.5.1");
        nat.forward_ipv4();
        let network = Network { host, nat, outside };
        network.map(PUBLIC[0]);
        network
    }

    /// Has this address stand for the host from now on, for new flows.
    fn map(&self, public: &str) {
        self.nat.nft(&format!(
            "table ip one_to_one\ndelete table ip one_to_one\ntable ip one_to_one {{
                chain incoming {{ type nat hook prerouting priority dstnat; iifname \"wan\" ip daddr {public} dnat to {PRIVATE}; }}
                chain outgoing {{ type nat hook postrouting priority srcnat; oifname \"wan\" ip saddr {PRIVATE} snat to {public}; }}
            }}"
        ));
    }

    /// An address that comes to the host is a reason to ask again.
    fn nudge(&self, n: usize) {
        self.host.ip(&["address", "add", &format!("5.60.0.{n}/32"), "dev", "lo"]);
    }

    fn spec(&self, external_ip: &str, sources: Option<&str>) -> Spec {
        let mut environment = vec![("TURNSTONE_EXTERNAL_IP".to_owned(), external_ip.to_owned())];
        environment.extend(sources.map(|sources| ("TURNSTONE_EXTERNAL_IP_SOURCES".to_owned(), sources.to_owned())));
        Spec {
            listeners: vec![(Transport::Udp, format!("0.0.0.0:{PORT}"))],
            relay_ipv4: None,
            relay_ipv6: None,
            dev: false,
            namespace: Some(self.host.name().to_owned()),
            extra_toml: "[metrics]\nlisten = \"unix:metrics.sock\"\n\n[admin]\nlisten = \"unix:admin.sock\"\n"
                .to_owned(),
            environment,
            rfc5766_channel_numbers: true,
            ..Spec::local()
        }
    }

    async fn allocate(&self, server: &TestServer, at: &str) -> impl Conn + use<> {
        let at = SocketAddr::new(at.parse().unwrap(), PORT);
        let socket = socket_in(&self.outside, CLIENT);
        let turn = turn_client(server, at, conn(socket), &server.credentials("alice")).await;
        timeout(LIMIT, turn.allocate()).await.unwrap().unwrap()
    }

    fn uclient_is_served(&self, server: &TestServer, at: &str) {
        let peer = self.outside.enter(|| EchoPeer::start(CLIENT));
        let credentials = server.credentials("uclient");
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", self.outside.name()])
            .arg(require_tool("turnutils_uclient", "coturn"))
            .args(["-u", &credentials.username, "-w", &credentials.password, "-L", CLIENT, "-e", CLIENT])
            .args(["-r", &peer.address().port().to_string(), "-n", "10", "-z", "10", "-c", at]);
        let finished = run(&mut command, LIMIT);
        let output = finished.all_output();
        assert!(finished.code == Some(0) && output.contains("tot_recv_msgs=10"), "{output}");
    }

    /// coturn as a STUN server.
    fn coturn(&self, ip: &str) -> Running {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", self.outside.name()])
            .arg(require_tool("turnserver", "coturn"))
            .args([
                "--stun-only",
                "-L",
                ip,
                "-p",
                "3478",
                "--no-cli",
                "--log-file",
                "stdout",
                "--pidfile",
                "/dev/null",
                "-n",
            ])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let killed = Running(command.spawn().unwrap());
        let server = SocketAddr::new(ip.parse().unwrap(), 3478);
        let socket = socket_in(&self.outside, CLIENT);
        crate::stun_client::reflexive_address(&socket, server);
        killed
    }

    /// A STUN server that says what it sees, or this.
    fn stun_server(&self, ip: &str, lie: Option<&str>) -> Stopped {
        let socket = self.outside.enter(|| UdpSocket::bind((ip, 3478)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let lie: Option<IpAddr> = lie.map(|lie| lie.parse().unwrap());
        let stopped = Stopped(Arc::default());
        let stop = Arc::clone(&stopped.0);
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stop.load(Ordering::Acquire) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                let seen = SocketAddr::new(lie.unwrap_or(from.ip()), from.port());
                socket.send_to(&binding_answer(&buffer[..len], seen), from).unwrap();
            }
        });
        stopped
    }

    /// The metadata services of six clouds, of which only one has a public address to tell.
    fn metadata(&self) -> Arc<Asked> {
        self.host.ip(&["address", "add", "169.254.169.254/32", "dev", "lo"]);
        let listener = self.host.enter(|| TcpListener::bind("169.254.169.254:80").unwrap());
        let asked = Arc::new(Asked::default());
        let told = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &told);
            }
        });
        asked
    }
}

#[derive(Default)]
struct Asked {
    endless_was_cut: AtomicBool,
}

/// One request a connection.
fn answer(mut stream: TcpStream, asked: &Asked) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<_> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let has = |header: &str| headers.iter().any(|line| line == header);
    let mut send = |status: &str, body: &str| {
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    };
    match request.as_str() {
        "PUT /latest/api/token HTTP/1.1" if has("x-aws-ec2-metadata-token-ttl-seconds: 60") => {
            send("200 OK", "tOKEN==")
        }
        "GET /latest/meta-data/public-ipv4 HTTP/1.1" if has("x-aws-ec2-metadata-token: token==") => {
            send("200 OK", PUBLIC[0])
        }
        // Version 1 is switched off.
        "GET /latest/meta-data/public-ipv4 HTTP/1.1" => send("401 Unauthorized", PUBLIC[1]),
        "GET /metadata/v1/interfaces/public/0/ipv4/address HTTP/1.1" => {
            send("200 OK", "<html><body>5.44.1.2</body></html>")
        }
        "GET /metadata/loadbalancer?api-version=2020-10-01 HTTP/1.1" if has("metadata: true") => {
            let body = r#"{"loadbalancer":{"publicIpAddresses":[{"frontendIpAddress":"10.9.9.9","privateIpAddress":"10.0.5.2"}]}}"#;
            send("200 OK", body);
        }
        // Without the header that says that it is Google's.
        path if path.starts_with("GET /computeMetadata/v1/") && has("metadata-flavor: google") => {
            send("200 OK", PUBLIC[1])
        }
        "GET /hetzner/v1/metadata/public-ipv4 HTTP/1.1" => {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            let sent = (0..15_000).take_while(|_| stream.write_all(&[b'5'; 65_536]).is_ok()).count();
            asked.endless_was_cut.store(sent < 1000, Ordering::Release);
        }
        other => panic!("{other} {headers:?}"),
    }
}

/// The file of names of one namespace, which `ip netns exec` puts in the place of the machine's.
pub(crate) struct Hosts {
    directory: String,
}

impl Hosts {
    pub(crate) fn of(namespace: &Namespace) -> Hosts {
        let directory = format!("/etc/netns/{}", namespace.name());
        fs::create_dir_all(&directory).unwrap();
        fs::write(format!("{directory}/resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
        Hosts { directory }
    }

    fn write(&self, addresses: &[&str]) {
        let lines: String = addresses.iter().map(|ip| format!("{ip} turn.example.test\n")).collect();
        fs::write(format!("{}/hosts", self.directory), lines).unwrap();
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        // The one above, if nobody else needs it.
        let _ = fs::remove_dir("/etc/netns");
    }
}

struct Stopped(Arc<AtomicBool>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

async fn echo(relay: &impl Conn, peer: SocketAddr) {
    let mut buffer = [0; 100];
    relay.send_to(b"hello", peer).await.unwrap();
    assert_eq!(timeout(LIMIT, relay.recv_from(&mut buffer)).await.expect("lost").unwrap().0, 5);
}

/// Who has said the public address, and what it is, as the admin API has it.
fn source_of(server: &TestServer) -> (String, String) {
    let answer = get(&server.file("admin.sock"), "/v1/status");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    let [relay] = &status["relay_addresses"].as_array().unwrap()[..] else { panic!("{status}") };
    assert_eq!(relay["bind"], PRIVATE);
    let text = |field: &str| relay[field].as_str().unwrap_or_default().to_owned();
    (text("source"), text("external"))
}

fn metrics(server: &TestServer) -> String {
    get(&server.file("metrics.sock"), "/metrics")
}
