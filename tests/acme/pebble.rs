//! Pebble, and the DNS server that comes with it.

use std::fs::File;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::LIMIT;
use super::support::free_port;
use super::support::{require_tool, run, wait_until};

/// A certificate authority, which asks at the ports that it is told.
pub(crate) struct Pebble {
    folder: TempDir,
    children: Vec<Child>,
    port: u16,
    management: u16,
    names: u16,
    pub(crate) tls_port: u16,
    pub(crate) http_port: u16,
}

/// What an account of another kind has.
pub(crate) const KEY_ID: &str = "kid-1";
pub(crate) const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

impl Pebble {
    /// One that every name leads to 127.0.0.1 for.
    pub(crate) fn start(wants_external_account: bool) -> Pebble {
        require_tool("pebble", "pebble");
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(file("own.pem"), certificate.pem()).unwrap();
        std::fs::write(file("own.key"), key.serialize_pem()).unwrap();
        let [port, management, names, dns_admin, tls_port, http_port] = std::array::from_fn(|_| free_port());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": file("own.pem"),
            "privateKey": file("own.key"),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": wants_external_account,
            "externalAccountMACKeys": { KEY_ID: KEY },
        }});
        std::fs::write(file("config.json"), config.to_string()).unwrap();
        let spawn = |command: &mut Command, log: &str| {
            let log = File::create(file(log)).unwrap();
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
        };
        let none = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""];
        let mut dns = Command::new("pebble-challtestsrv");
        dns.args(none).args([
            "-dns01",
            &format!("127.0.0.1:{names}"),
            "-management",
            &format!("127.0.0.1:{dns_admin}"),
        ]);
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(file("config.json")).args(["-dnsserver", &format!("127.0.0.1:{names}"), "-strict"]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "5");
        let children = vec![spawn(&mut dns, "dns.log"), spawn(&mut pebble, "pebble.log")];
        let this = Pebble { folder, children, port, management, names: dns_admin, tls_port, http_port };
        for port in [port, management, dns_admin] {
            wait_until("Pebble", LIMIT, || TcpStream::connect(("127.0.0.1", port)).ok());
        }
        this
    }

    /// The lines of `[tls]` that lead to it.
    pub(crate) fn directory(&self) -> String {
        format!(
            "acme-directory = \"https://localhost:{}/dir\"\nacme-ca = \"{}\"\n",
            self.port,
            self.file("own.pem").display()
        )
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The root of its certificates, in a file.
    pub(crate) fn root(&self) -> PathBuf {
        let (own, root) = (self.file("own.pem"), self.file("root.pem"));
        let url = format!("https://localhost:{}/roots/0", self.management);
        let got = run(Command::new("curl").args(["-sf", "--cacert"]).arg(own).arg("-o").arg(&root).arg(url), LIMIT);
        assert_eq!(got.code, Some(0), "{}", got.all_output());
        root
    }

    /// Has a name lead somewhere else.
    pub(crate) fn lead(&self, name: &str, to: &[&str]) {
        let body = serde_json::json!({ "host": format!("{name}."), "addresses": to });
        for action in ["clear-a", "add-a"] {
            let url = format!("http://127.0.0.1:{}/{action}", self.names);
            let done = run(Command::new("curl").args(["-sf", "-d", &body.to_string(), &url]), LIMIT);
            assert_eq!(done.code, Some(0), "{}", done.all_output());
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.file("pebble.log")).unwrap()
    }

    /// Orders that it was given.
    pub(crate) fn orders(&self) -> usize {
        self.log().matches("Added order ").count()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}
