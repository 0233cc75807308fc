//! coturn with a `turnserver.conf`, and this server with what `import` makes of it: the same client fares the same, and it is
//! answered at the same places.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use turnstone::addr::Transport as Via;
use turnstone::import::import_coturn;

use crate::support::{
    Credentials, EchoPeer, Finished, RELAY_PORTS, TestAuthority, TestServer, Transport, free_port, require_tool, run,
    time_limited, tls_over, wait_until,
};

const LIMIT: Duration = Duration::from_secs(40);
const SECRET: &str = "a static secret # that has a comment sign";

/// coturn on loopback; killed when dropped.
struct Coturn {
    child: Child,
    log: String,
}

impl Coturn {
    fn start(directory: &Path, conf: &str) -> Coturn {
        let (path, log) = (directory.join("turnserver.conf"), directory.join("log"));
        std::fs::write(&path, conf).unwrap();
        let out = std::fs::File::create(&log).unwrap();
        let child = Command::new(require_tool("turnserver", "coturn"))
            .arg("-c")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let coturn = Coturn { child, log: log.to_str().unwrap().to_owned() };
        wait_until("coturn to start", Duration::from_secs(20), || {
            std::fs::read_to_string(&coturn.log).unwrap_or_default().contains("IO method (admin thread)").then_some(())
        });
        coturn
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One conf, two servers.
struct Pair {
    directory: TempDir,
    /// coturn's and ours, each the plain one and the one for TLS.
    ports: [[u16; 2]; 2],
    _coturn: Coturn,
    _ours: TestServer,
}

/// At which of a server's two ports.
#[derive(Clone, Copy, Debug)]
enum At {
    Plain,
    Tls,
}

impl Pair {
    fn start(authentication: &str) -> Pair {
        let directory = tempfile::tempdir().unwrap();
        let authority = TestAuthority::issue(&["localhost", "127.0.0.1"]);
        for (name, text) in [
            ("cert.pem", &authority.certificate_pem),
            ("key.pem", &authority.key_pem),
            ("ca.pem", &authority.authority_pem),
        ] {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(directory.path().join(name)).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        }
        let (port, tls_port) = (free_port(), free_port());
        let at = directory.path().display();
        let (low, high) = RELAY_PORTS;
        let conf = format!(
            "# what a small installation has\nlistening-ip=127.0.0.1\nlistening-port={port}\ntls-listening-port = {tls_port}\n\
             relay-ip 127.0.0.1\nrealm=\"turn.test\"\ncert={at}/cert.pem\npkey={at}/key.pem\npidfile={at}/pid\n\
             userdb={at}/db\nmin-port={low}\nmax-port={high}\nallow-loopback-peers\nno-cli\nno-dtls\nlog-file=stdout\nfingerprint\n\
             rfc5766-channel-numbers\nmax-bps=10000000\nstale-nonce=600\n{authentication}"
        );
        let coturn = Coturn::start(directory.path(), &conf);
        let toml = import_coturn(&conf, &[]).toml.replace("/run/turnstone/", &format!("{at}/"));
        // The ports are taken by now.
        let (plain, tls) = (format!("127.0.0.1:{port}\""), format!("127.0.0.1:{tls_port}\""));
        assert!(toml.contains(&plain) && toml.contains(&tls), "{toml}");
        let [own, own_tls] = [free_port(), free_port()];
        let at = |port: u16| format!("127.0.0.1:{port}\"");
        let ours = TestServer::start(&toml.replace(&plain, &at(own)).replace(&tls, &at(own_tls)));
        Pair { directory, ports: [[port, tls_port], [own, own_tls]], _coturn: coturn, _ours: ours }
    }

    /// The same client at each: coturn first.
    fn both(&self, way: (Transport, At), credentials: &Credentials, flags: &[&str]) -> [Finished; 2] {
        [0, 1].map(|server| self.one(server, way, credentials, flags))
    }

    fn one(&self, server: usize, (transport, at): (Transport, At), who: &Credentials, flags: &[&str]) -> Finished {
        let peer = EchoPeer::start("127.0.0.1");
        let mut command = Command::new(require_tool("turnutils_uclient", "coturn"));
        match transport {
            Transport::Udp => {}
            Transport::Tcp => drop(command.arg("-t")),
            Transport::Tls => drop(command.args(["-t", "-S", "-E"]).arg(self.directory.path().join("ca.pem"))),
        }
        command
            .args(["-u", &who.username, "-w", &who.password])
            .args(["-c", "-n", "5", "-z", "10", "-e", "127.0.0.1", "-r", &peer.address().port().to_string()])
            .args(["-p", &self.ports[server][at as usize].to_string()])
            .args(flags)
            .arg("127.0.0.1");
        run(&mut command, LIMIT)
    }

    fn both_relay(&self, credentials: &Credentials) {
        for (way, flags) in [
            ((Transport::Udp, At::Plain), &["-s"][..]),
            ((Transport::Udp, At::Plain), &[]),
            ((Transport::Tcp, At::Plain), &["-s"]),
            ((Transport::Tls, At::Tls), &["-s"]),
            // Either port tells TLS from TCP.
            ((Transport::Tls, At::Plain), &["-s"]),
            ((Transport::Tcp, At::Tls), &["-s"]),
        ] {
            let [mut theirs, ours] = self.both(way, credentials, flags);
            // On a busy machine coturn sometimes ends a TLS handshake by an alert, or loses data of the session after it.
            for _ in 0..3 {
                if !relayed(&theirs) {
                    theirs = self.one(0, way, credentials, flags);
                }
            }
            for (finished, who) in [(theirs, "coturn"), (ours, "turnstone")] {
                assert!(relayed(&finished), "{who} over {way:?}:\n{}", finished.all_output());
            }
        }
    }

    /// All at once: the client tries for some ten seconds before it gives up.
    fn neither_relays(&self, credentials: &[Credentials]) {
        std::thread::scope(|scope| {
            for credentials in credentials {
                scope.spawn(|| self.neither_relays_for(credentials));
            }
        });
    }

    fn neither_relays_for(&self, credentials: &Credentials) {
        let way = (Transport::Udp, At::Plain);
        for (finished, who) in self.both(way, credentials, &["-s"]).iter().zip(["coturn", "turnstone"]) {
            let output = finished.all_output();
            assert_ne!(finished.code, Some(0), "{who}:\n{output}");
            assert!(output.contains("Cannot complete Allocation"), "{who}:\n{output}");
        }
    }
}

fn relayed(client: &Finished) -> bool {
    client.code == Some(0) && client.all_output().contains("tot_send_msgs=5, tot_recv_msgs=5")
}

#[test]
fn time_limited_credentials_are_good_on_both_or_on_neither() {
    let pair = Pair::start(&format!("use-auth-secret\nstatic-auth-secret={SECRET}\nuser=alice:correct horse\n"));
    let good = time_limited(SECRET, "alice", 600);
    pair.both_relay(&good);
    let wrong = Credentials { password: "wrong".to_owned(), ..good };
    // Beside a secret, coturn has no static users.
    let fixed = Credentials { username: "alice".to_owned(), password: "correct horse".to_owned() };
    pair.neither_relays(&[wrong, fixed]);
}

#[test]
fn static_users_are_good_on_both_or_on_neither() {
    let mut turnadmin = Command::new(require_tool("turnadmin", "coturn"));
    turnadmin.args(["-k", "-u", "carol", "-r", "turn.test", "-p", "stored as a key"]);
    let key = run(&mut turnadmin, LIMIT).stdout;
    let pair = Pair::start(&format!(
        "lt-cred-mech\nuser=alice:an older password\nuser=alice: correct horse\nuser=carol:{}\n",
        key.trim()
    ));
    let alice = |password: &str| Credentials { username: "alice".to_owned(), password: password.to_owned() };
    pair.both_relay(&alice("correct horse"));
    let carol = |password: &str| Credentials { username: "carol".to_owned(), password: password.to_owned() };
    pair.both_relay(&carol("stored as a key"));
    pair.neither_relays(&[carol("another one"), carol(key.trim()), alice("wrong"), alice("an older password")]);
}

/// What a request over UDP is answered with: the message's type, or nothing.
fn ask(address: SocketAddr, request: &[u8]) -> Option<u16> {
    let own: SocketAddr = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(own).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send(request).unwrap();
    let mut answer = [0; 1500];
    // A closed port is refused at once.
    let length = socket.recv(&mut answer).ok()?;
    Some(u16::from_be_bytes(answer[..length].first_chunk().copied()?))
}

/// Whether a Binding request over TCP is answered, or over TLS where there is an authority.
fn answers_a_stream(address: SocketAddr, authority: Option<&Path>) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answer = [0; 2];
    let answered = match authority {
        None => stream.write_all(BINDING).and_then(|()| stream.read_exact(&mut answer)),
        Some(authority) => {
            let mut stream = tls_over(stream, authority);
            stream.write_all(BINDING).and_then(|()| stream.read_exact(&mut answer))
        }
    };
    answered.is_ok() && answer == [1, 1]
}

const TRANSPORTS: [Via; 3] = [Via::Udp, Via::Tcp, Via::Tls];
const BINDING: &[u8] = b"\x00\x01\x00\x00\x21\x12\xa4\x42turnstone123";
const ALLOCATE: &[u8] = b"\x00\x03\x00\x08\x21\x12\xa4\x42turnstone123\x00\x19\x00\x04\x11\x00\x00\x00";

#[test]
fn the_result_listens_where_coturn_answers() {
    let directory = tempfile::tempdir().unwrap();
    let authority = TestAuthority::issue(&["localhost"]);
    let at = directory.path().display();
    std::fs::write(directory.path().join("cert.pem"), &authority.certificate_pem).unwrap();
    std::fs::write(directory.path().join("key.pem"), &authority.key_pem).unwrap();
    std::fs::write(directory.path().join("ca.pem"), &authority.authority_pem).unwrap();
    let ports: [u16; 4] = std::array::from_fn(|_| free_port());
    let [plain, tls, alternative, alternative_tls] = ports;
    let two = "listening-ip=127.0.0.1\nlistening-ip=127.0.0.2\n";
    let alternatives = format!("alt-listening-port={alternative}\nalt-tls-listening-port={alternative_tls}\n");
    for directives in [
        format!("{two}{alternatives}"),
        format!("{two}{alternatives}no-rfc5780\n"),
        format!("listening-ip=127.0.0.1\n{alternatives}"),
        format!("{two}{alternatives}external-ip=127.0.0.9\n"),
        "listening-ip=127.0.0.1\nno-udp\n".to_owned(),
        "listening-ip=127.0.0.1\nno-dtls\n".to_owned(),
        "listening-ip=127.0.0.1\nno-tcp\n".to_owned(),
        "listening-ip=127.0.0.1\nno-tls\nno-dtls\n".to_owned(),
        "listening-ip=127.0.0.1\nno-udp\nno-tcp\n".to_owned(),
        "listening-ip=::\n".to_owned(),
        "listening-ip=0.0.0.0\n".to_owned(),
    ] {
        let conf = format!(
            "{directives}listening-port={plain}\ntls-listening-port={tls}\nrelay-ip=127.0.0.1\nrealm=x\ncert={at}/cert.pem\n\
             pkey={at}/key.pem\npidfile={at}/pid\nuserdb={at}/db\nallow-loopback-peers\nno-cli\nlog-file=stdout\n\
             use-auth-secret\nstatic-auth-secret={SECRET}\n"
        );
        let listeners = super::imported(&conf).config.listeners;
        let listens = |address: SocketAddr, transport: Via| {
            listeners.iter().any(|listener| {
                let own = listener.address;
                own.port() == address.port()
                    && own.is_ipv4() == address.is_ipv4()
                    && (own.ip() == address.ip() || own.ip().is_unspecified())
                    && listener.transport == transport
            })
        };
        let coturn = Coturn::start(directory.path(), &conf);
        // What reaches coturn's wildcard socket at a second address is answered from the first.
        let second = if directives.contains("127.0.0.2") { "127.0.0.2" } else { "127.0.0.1" };
        let addresses = ["127.0.0.1", second, "::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let places: Vec<SocketAddr> =
            addresses.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))).collect();
        let ours: BTreeSet<String> = places
            .iter()
            .flat_map(|address| TRANSPORTS.map(|transport| (transport, *address)))
            .filter(|(transport, address)| listens(*address, *transport))
            .map(|(transport, address)| format!("{transport} {address}"))
            .collect();
        let answered = || {
            let mut theirs = BTreeSet::new();
            for &address in &places {
                theirs.extend((ask(address, BINDING) == Some(0x0101)).then(|| format!("udp {address}")));
                theirs.extend(answers_a_stream(address, None).then(|| format!("tcp {address}")));
                let authority = directory.path().join("ca.pem");
                theirs.extend(answers_a_stream(address, Some(&authority)).then(|| format!("tls {address}")));
            }
            theirs
        };
        // It opens its listeners one after the other, and says nothing when it has the last one.
        let mut theirs = answered();
        for _ in 0..20 {
            let again = answered();
            if theirs == ours && again == theirs {
                break;
            }
            theirs = again;
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(coturn);
        assert_eq!(ours, theirs, "{directives}");
        assert!(!theirs.is_empty(), "{directives}");
    }
}

#[test]
fn coturn_without_credentials_is_the_open_relay_that_import_says() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let at = directory.path().display();
    let conf = |more: &str| {
        format!(
            "listening-ip=127.0.0.1\nlistening-port={port}\nrealm=x\npidfile={at}/pid\nuserdb={at}/db\nno-cli\nlog-file=stdout\n\
             allow-loopback-peers\n{more}"
        )
    };
    for (more, answer) in
        [("", 0x0103), ("lt-cred-mech\n", 0x0113), ("use-auth-secret\n", 0x0113), ("user=a:b\n", 0x0113)]
    {
        let conf = conf(more);
        let coturn = Coturn::start(directory.path(), &conf);
        assert_eq!(ask(SocketAddr::new("127.0.0.1".parse().unwrap(), port), ALLOCATE), Some(answer), "{more}");
        drop(coturn);
        let says = super::imported(&conf).import.findings.iter().any(|finding| finding.message.contains("OPEN RELAY"));
        assert_eq!(says, answer == 0x0103, "{more}");
    }
}
