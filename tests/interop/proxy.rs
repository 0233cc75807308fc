//! nginx and haproxy as a test starts them: in the foreground, with a configuration of their own, on free ports, as nobody.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{free_port, require_tool, wait_until};

/// Who the proxies are: they need no rights at all.
const NOBODY: &str = "65534";

/// Ports that nobody uses at this moment, for TCP and UDP.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

/// A proxy; killed when dropped.
pub(crate) struct Proxy {
    child: Child,
    dir: TempDir,
}

impl Proxy {
    /// nginx with what is between the braces of `stream`, and of `http` if that is not empty. `@DIR@` is its directory, where the
    /// certificate is. It is ready when somebody listens on `port`.
    pub(crate) fn nginx(stream: &str, http: &str, (certificate, key): (&str, &str), port: u16) -> Proxy {
        let http =
            if http.is_empty() { String::new() } else { format!("http {{ access_log off; {TEMPORARY} {http} }}") };
        let text = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\npid @DIR@/pid;\n\
             error_log @DIR@/log;\nworker_rlimit_nofile 16384;\nevents {{ worker_connections 8192; }}\n\
             stream {{ {stream} }}\n{http}\n"
        );
        let program = require_tool("nginx", "nginx, libnginx-mod-stream");
        let arguments = ["-e", "@DIR@/log", "-p", "@DIR@", "-c", "@DIR@/conf"];
        Proxy::start(&program.to_string_lossy(), &arguments, &text, (certificate, key), port)
    }

    /// haproxy with these frontends and backends.
    pub(crate) fn haproxy(sections: &str, port: u16) -> Proxy {
        Proxy::haproxy_with_certificate(sections, "", port)
    }

    /// The same, with a file of chain and key as `@DIR@/certificate.pem`.
    pub(crate) fn haproxy_with_certificate(sections: &str, combined: &str, port: u16) -> Proxy {
        let text = format!(
            "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n{sections}"
        );
        let program = require_tool("haproxy", "haproxy");
        Proxy::start(&program.to_string_lossy(), &["-db", "-f", "@DIR@/conf"], &text, (combined, ""), port)
    }

    fn start(program: &str, arguments: &[&str], text: &str, (certificate, key): (&str, &str), port: u16) -> Proxy {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let write = |name: &str, text: &[u8]| {
            let name = format!("{path}/{name}");
            fs::write(&name, text).unwrap();
            fs::set_permissions(&name, fs::Permissions::from_mode(0o644)).unwrap();
        };
        write("conf", text.replace("@DIR@", &path).as_bytes());
        for (name, file) in [("certificate.pem", certificate), ("key.pem", key)] {
            if !file.is_empty() {
                write(name, &fs::read(file).unwrap());
            }
        }
        let mut command = if rustix::process::getuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", program]);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments.iter().map(|argument| argument.replace("@DIR@", &path)));
        let log = fs::File::create(format!("{path}/output")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut proxy = Proxy { child: command.spawn().unwrap(), dir };
        wait_until("the proxy to listen", Duration::from_secs(20), || {
            if let Some(status) = proxy.child.try_wait().unwrap() {
                panic!("{program} ended ({status}):\n{}", proxy.log());
            }
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        proxy
    }

    fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        ["output", "log"].map(read).concat()
    }
}

/// Where nginx would keep what it never has to here: its default places are root's.
const TEMPORARY: &str = "client_body_temp_path @DIR@/a; proxy_temp_path @DIR@/b; fastcgi_temp_path @DIR@/c; \
                         uwsgi_temp_path @DIR@/d; scgi_temp_path @DIR@/e;";

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the proxy ----\n{}---- end of the log ----", self.log());
        }
    }
}
