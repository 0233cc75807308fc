//! The server under test as a child process.
//!
//! It is `turnstone`, unless `TURN_SERVER_UNDER_TEST=coturn` asks for a run of the same tests against coturn: a failure that both
//! servers show is a fault of the test or of the client. (coturn 4.6.1 loses parallel TLS handshakes now and then, which shows in
//! the relay-to-relay run of `uclient`.)

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::credentials::{Credentials, expired, time_limited};
use super::free_port::free_port;
use super::process::wait_until;
use super::tls::TestAuthority;

const START_LIMIT: Duration = Duration::from_secs(20);

/// Outside of the kernel's range for sockets that choose no port: a peer on the relay's own address is then never taken for a
/// relay, nor does it take a relay's port.
pub const RELAY_PORTS: (u16, u16) = (10_000, 29_999);

/// How a listener is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        }
    }

    fn from_name(name: &str) -> Option<Transport> {
        [Transport::Udp, Transport::Tcp, Transport::Tls].into_iter().find(|transport| transport.name() == name)
    }
}

/// Whether the tests run against our own server.
pub fn is_turnstone() -> bool {
    std::env::var_os("TURN_SERVER_UNDER_TEST").is_none_or(|name| name == "turnstone")
}

/// What a test wants of its server.
#[derive(Clone, Debug)]
pub struct Spec {
    pub listeners: Vec<(Transport, String)>,
    pub realm: String,
    /// The shared secret of time-limited credentials.
    pub secret: String,
    /// Whether the server knows the secret.
    pub knows_secret: bool,
    /// Static users: name and password. coturn knows either these or the secret.
    pub users: Vec<(String, String)>,
    /// Other relay ports than usual.
    pub relay_ports: Option<String>,
    pub relay_ipv4: Option<String>,
    pub relay_ipv6: Option<String>,
    /// Whether peers on loopback are allowed.
    pub dev: bool,
    /// The network namespace that the server runs in.
    pub namespace: Option<String>,
    /// How many descriptors it may have: the soft limit and the hard one.
    pub descriptors: Option<(usize, usize)>,
    /// Names and addresses in the TLS certificate.
    pub certificate_names: Vec<String>,
    /// Whether clients may use the channel numbers of RFC 5766, as those from coturn do.
    pub rfc5766_channel_numbers: bool,
    /// Further keys of the top level.
    pub top_toml: String,
    /// Whether limits in time-limited usernames are read.
    pub username_limits: bool,
    /// Whether clients may have TCP relays.
    pub tcp_relays: bool,
    /// Worker threads; 0 are as many as there are cores.
    pub workers: usize,
    /// Further sections of the configuration.
    pub extra_toml: String,
    /// Variables of the server's environment.
    pub environment: Vec<(String, String)>,
}

impl Spec {
    /// UDP, TCP and TLS on the loopback addresses of both families, with a secret.
    pub fn local() -> Spec {
        let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
        let addresses = ["127.0.0.1:0", "[::1]:0"];
        Spec {
            listeners: addresses
                .iter()
                .flat_map(|address| transports.map(|transport| (transport, (*address).to_owned())))
                .collect(),
            realm: "turn.test".to_owned(),
            secret: "b64f3c1a9d5e4c8f8f2a7e6d1c0b9a88".to_owned(),
            knows_secret: true,
            users: Vec::new(),
            relay_ports: None,
            relay_ipv4: Some("127.0.0.1".to_owned()),
            relay_ipv6: Some("::1".to_owned()),
            dev: true,
            namespace: None,
            descriptors: None,
            certificate_names: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
            rfc5766_channel_numbers: false,
            top_toml: String::new(),
            username_limits: false,
            tcp_relays: false,
            workers: 0,
            extra_toml: String::new(),
            environment: Vec::new(),
        }
    }

    /// The same with one more static user.
    pub fn user(mut self, name: &str, password: &str) -> Spec {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    pub fn start(&self) -> TestServer {
        if is_turnstone() { self.start_turnstone() } else { self.start_coturn() }
    }

    /// The configuration of `turnstone`; `@DIR@` stands for the directory of the test's files.
    fn to_toml(&self) -> String {
        let Spec { rfc5766_channel_numbers, workers, tcp_relays, top_toml, .. } = self;
        let mut toml = format!("rfc5766-channel-numbers = {rfc5766_channel_numbers}\n{top_toml}\n");
        if *workers > 0 {
            writeln!(toml, "workers = {workers}\n").unwrap();
        }
        for (transport, address) in &self.listeners {
            write!(toml, "[[listen]]\naddress = \"{address}\"\ntransport = \"{}\"\n\n", transport.name()).unwrap();
        }
        if self.listeners.iter().any(|(transport, _)| *transport == Transport::Tls) {
            toml.push_str("[tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n\n");
        }
        let ports = self.relay_ports.clone().unwrap_or_else(|| format!("{}-{}", RELAY_PORTS.0, RELAY_PORTS.1));
        writeln!(toml, "[relay]\nports = \"{ports}\"\ntcp = {tcp_relays}").unwrap();
        for (key, address) in [("ipv4", &self.relay_ipv4), ("ipv6", &self.relay_ipv6)] {
            if let Some(address) = address {
                // Several are written `@ONE", "TWO`.
                match address.strip_prefix('@') {
                    Some(several) => writeln!(toml, "{key} = [\"{several}\"]").unwrap(),
                    None => writeln!(toml, "{key} = \"{address}\"").unwrap(),
                }
            }
        }
        write!(toml, "\n[auth]\nrealm = \"{}\"\nusername-limits = {}\n\n", self.realm, self.username_limits).unwrap();
        if self.knows_secret {
            toml.push_str("[[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n\n");
        }
        for (name, password) in &self.users {
            write!(toml, "[[auth.users]]\nname = \"{name}\"\npassword = \"{password}\"\n\n").unwrap();
        }
        toml.push_str(&self.extra_toml);
        toml
    }

    /// Starts `turnstone` and does not wait until it is ready: [`TestServer::wait_for_ready`] does.
    pub fn launch(&self) -> (TestServer, UnixDatagram) {
        TestServer::launch(&self.to_toml(), Files::write(self), self)
    }

    fn start_turnstone(&self) -> TestServer {
        let files = Files::write(self);
        TestServer::start_turnstone(&self.to_toml(), files, self)
    }

    /// coturn, whatever the other tests run against.
    pub fn start_coturn(&self) -> TestServer {
        let files = Files::write(self);
        let mut listeners = Vec::new();
        let mut config =
            format!("realm={}\nno-cli\nno-rfc5780\nlog-file=stdout\nsimple-log\nfingerprint\nmobility\n", self.realm);
        let (plain_port, tls_port) = (self.coturn_port(false), self.coturn_port(true));
        write!(config, "listening-port={plain_port}\ntls-listening-port={tls_port}\n").unwrap();
        for (transport, address) in &self.listeners {
            let mut address: SocketAddr = address.parse().unwrap();
            address.set_port(if *transport == Transport::Tls { tls_port } else { plain_port });
            let line = format!("listening-ip={}\n", address.ip());
            if !config.contains(&line) {
                config.push_str(&line);
            }
            listeners.push((*transport, address));
        }
        for address in self.relay_ipv4.iter().chain(&self.relay_ipv6) {
            writeln!(config, "relay-ip={address}").unwrap();
        }
        if self.users.is_empty() {
            write!(config, "use-auth-secret\nstatic-auth-secret={}\n", self.secret).unwrap();
        } else {
            config.push_str("lt-cred-mech\n");
        }
        for (name, password) in &self.users {
            writeln!(config, "user={name}:{password}").unwrap();
        }
        if self.dev {
            config.push_str("allow-loopback-peers\n");
        }
        for (key, file) in
            [("cert", "certificate.pem"), ("pkey", "key.pem"), ("pidfile", "coturn.pid"), ("userdb", "coturn.db")]
        {
            writeln!(config, "{key}={}", files.path(file)).unwrap();
        }
        std::fs::write(files.path("turnserver.conf"), config).unwrap();
        let mut command = in_namespace(self.namespace.as_deref(), "turnserver");
        command.arg("-c").arg(files.path("turnserver.conf"));
        let child = spawn_logged(&mut command, &files);
        let mut server = TestServer { child, listeners, files, spec: self.clone() };
        server.wait_for_coturn();
        server
    }

    /// coturn cannot choose a port itself; one that nobody else uses at this moment has to do.
    fn coturn_port(&self, tls: bool) -> u16 {
        if self.namespace.is_some() {
            return if tls { 5349 } else { 3478 };
        }
        loop {
            let port = free_port();
            if TcpListener::bind(("::1", port)).is_ok() {
                return port;
            }
        }
    }
}

/// A running server; killed when dropped, and its log shown when the test fails.
pub struct TestServer {
    child: Child,
    listeners: Vec<(Transport, SocketAddr)>,
    files: Files,
    spec: Spec,
}

impl TestServer {
    /// Starts `turnstone serve --dev` with this configuration. In it `@DIR@` stands for a directory with the files `secret`
    /// (that of [`Spec::local`], mode 0600), `certificate.pem`, `key.pem` and `authority.pem`. Listeners ask for port 0.
    pub fn start(config_toml: &str) -> TestServer {
        let spec = Spec::local();
        let files = Files::write(&spec);
        TestServer::start_turnstone(config_toml, files, &spec)
    }

    /// The same, with so many descriptors: the soft limit and the hard one.
    pub fn start_with_descriptors(config_toml: &str, limits: (usize, usize)) -> TestServer {
        let spec = Spec { descriptors: Some(limits), ..Spec::local() };
        let files = Files::write(&spec);
        TestServer::start_turnstone(config_toml, files, &spec)
    }

    /// The same, with the socket that it sends its notifications to.
    pub fn start_observed(config_toml: &str) -> (TestServer, UnixDatagram) {
        let spec = Spec::local();
        let files = Files::write(&spec);
        TestServer::start_with_notifications(config_toml, files, &spec)
    }

    /// The first listener of this transport on an address of the family that `ip` belongs to.
    pub fn address(&self, transport: Transport, ip: &str) -> SocketAddr {
        let ip: IpAddr = ip.parse().unwrap();
        self.listeners
            .iter()
            .find(|(known, address)| *known == transport && address.is_ipv4() == ip.is_ipv4())
            .map(|(_, address)| *address)
            .unwrap_or_else(|| panic!("no {} listener for {ip} among {:?}", transport.name(), self.listeners))
    }

    /// All listeners, as bound.
    pub fn listeners(&self) -> &[(Transport, SocketAddr)] {
        &self.listeners
    }

    pub fn udp(&self) -> SocketAddr {
        self.address(Transport::Udp, "127.0.0.1")
    }

    pub fn tcp(&self) -> SocketAddr {
        self.address(Transport::Tcp, "127.0.0.1")
    }

    pub fn tls(&self) -> SocketAddr {
        self.address(Transport::Tls, "127.0.0.1")
    }

    pub fn realm(&self) -> &str {
        &self.spec.realm
    }

    pub fn secret(&self) -> &str {
        &self.spec.secret
    }

    /// A credential for `user` that outlives the test.
    pub fn credentials(&self, user: &str) -> Credentials {
        time_limited(&self.spec.secret, user, 3600)
    }

    /// A rightly signed credential for `user` that is no longer valid.
    pub fn expired_credentials(&self, user: &str) -> Credentials {
        expired(&self.spec.secret, user, 190)
    }

    /// The path of a file in the test's directory, e.g. `authority.pem`.
    pub fn file(&self, name: &str) -> String {
        self.files.path(name)
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Writes the configuration anew, mode unchanged, for a reload; `@DIR@` as in [`TestServer::start`].
    pub fn write_config(&self, config_toml: &str) {
        std::fs::write(self.file("turnserver.toml"), config_toml.replace("@DIR@", self.files.dir())).unwrap();
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// Whether the server's process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the server's end and returns its exit code.
    pub fn exit_code_within(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the server still runs after {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the server wrote to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.files.path("log")).unwrap_or_default()
    }

    /// Waits for a text in the log, which a thread of the server's own writes: a moment after what it tells of.
    pub fn wait_for_log(&self, text: &str) {
        let limit = Duration::from_secs(20);
        wait_until(&format!("{text:?} in the log"), limit, || self.log().contains(text).then_some(()));
    }

    fn start_turnstone(config_toml: &str, files: Files, spec: &Spec) -> TestServer {
        TestServer::start_with_notifications(config_toml, files, spec).0
    }

    fn start_with_notifications(config_toml: &str, files: Files, spec: &Spec) -> (TestServer, UnixDatagram) {
        let (mut server, notify) = TestServer::launch(config_toml, files, spec);
        server.wait_for_ready(&notify);
        (server, notify)
    }

    fn launch(config_toml: &str, files: Files, spec: &Spec) -> (TestServer, UnixDatagram) {
        files.write_private("turnserver.toml", &config_toml.replace("@DIR@", files.dir()));
        let notify_path = files.path("notify.sock");
        let notify = UnixDatagram::bind(&notify_path).unwrap();
        notify.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let program = env!("CARGO_BIN_EXE_turnstone");
        let mut command = match spec.descriptors {
            Some((soft, hard)) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={soft}:{hard}")).arg(program);
                command
            }
            None => in_namespace(spec.namespace.as_deref(), program),
        };
        command.arg("serve");
        if spec.dev {
            command.arg("--dev");
        }
        command.arg("--config").arg(files.path("turnserver.toml")).env("NOTIFY_SOCKET", notify_path);
        command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
        let child = spawn_logged(&mut command, &files);
        (TestServer { child, listeners: Vec::new(), files, spec: spec.clone() }, notify)
    }

    /// Reads notifications (sd_notify(3)) until one says `READY=1`; `STATUS=` names the listeners.
    pub fn wait_for_ready(&mut self, notify: &UnixDatagram) {
        let deadline = Instant::now() + START_LIMIT;
        let mut buffer = [0_u8; 4096];
        let mut ready = false;
        while !ready || self.listeners.is_empty() {
            self.must_run(deadline);
            match notify.recv(&mut buffer) {
                Ok(len) => {
                    for line in String::from_utf8_lossy(&buffer[..len]).lines() {
                        ready |= line == "READY=1";
                        if let Some(status) = line.strip_prefix("STATUS=") {
                            self.listeners.extend(parse_listeners(status));
                        }
                    }
                }
                // A process that is stopped for a while is interrupted in a wait with a limit.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                }
                Err(error) => panic!("cannot read the notification socket: {error}"),
            }
        }
    }

    /// Waits for what coturn does last.
    fn wait_for_coturn(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        while !self.log().contains("IO method (admin thread)") {
            self.must_run(deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn must_run(&mut self, deadline: Instant) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the server ended at its start ({status})");
        }
        assert!(Instant::now() < deadline, "the server was not ready within {START_LIMIT:?}");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the server under test ----\n{}---- end of the log ----", self.log());
        }
    }
}

/// The temporary directory with what the server reads and writes.
struct Files {
    dir: TempDir,
}

impl Files {
    fn write(spec: &Spec) -> Files {
        let files = Files { dir: TempDir::new().unwrap() };
        let names: Vec<&str> = spec.certificate_names.iter().map(String::as_str).collect();
        let authority = TestAuthority::issue(&names);
        files.write_private("secret", &spec.secret);
        files.write_private("key.pem", &authority.key_pem);
        std::fs::write(files.path("certificate.pem"), &authority.certificate_pem).unwrap();
        std::fs::write(files.path("authority.pem"), &authority.authority_pem).unwrap();
        files
    }

    fn write_private(&self, name: &str, content: &str) {
        use std::io::Write as _;
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(name)).unwrap();
        file.write_all(content.as_bytes()).unwrap();
    }

    fn dir(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.dir()).join(name).to_str().unwrap().to_owned()
    }
}

fn in_namespace(namespace: Option<&str>, program: &str) -> Command {
    match namespace {
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace, program]);
            command
        }
        None => Command::new(program),
    }
}

fn spawn_logged(command: &mut Command, files: &Files) -> Child {
    let log = std::fs::File::create(files.path("log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// `listening on udp/127.0.0.1:34567 tls/[::1]:45678` as transports and addresses.
fn parse_listeners(status: &str) -> Vec<(Transport, SocketAddr)> {
    let Some(list) = status.strip_prefix("listening on ") else { return Vec::new() };
    list.split_whitespace()
        // The tests of DTLS know where they have put that.
        .filter(|word| !word.starts_with("dtls/"))
        .map(|word| {
            let (transport, address) = word.split_once('/').unwrap_or_else(|| panic!("not a listener: {word}"));
            let transport = Transport::from_name(transport).unwrap_or_else(|| panic!("unknown transport: {word}"));
            (transport, address.parse().unwrap_or_else(|error| panic!("not an address: {word}: {error}")))
        })
        .collect()
}
