//! A service manager: it keeps the descriptors that the server gives it, and passes them to the next process.

use std::fmt::Write as _;
use std::io::{ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};

use crate::LIMIT;
use crate::support::{TestAuthority, Transport, wait_until};

pub(crate) type Listeners = Vec<(Transport, SocketAddr)>;

pub(crate) struct Manager {
    dir: tempfile::TempDir,
    notify: UnixDatagram,
    child: Option<Child>,
    /// What the server has given to keep, by name.
    pub(crate) store: Vec<(String, OwnedFd)>,
    /// What a socket unit holds: passed first, and never removed.
    pub(crate) socket_unit: Vec<(String, OwnedFd)>,
    /// The names that the server had removed from the store.
    pub(crate) removed: Vec<String>,
    /// Runs the server as this user.
    pub(crate) uid: Option<u32>,
    /// What the server is told whom the descriptors are for; `$$` is itself.
    pub(crate) listen_pid: &'static str,
    listeners: Listeners,
}

impl Manager {
    pub(crate) fn new() -> Manager {
        let dir = tempfile::tempdir().unwrap();
        let authority = TestAuthority::issue(&["localhost", "127.0.0.1", "::1"]);
        for (name, content) in
            [("certificate.pem", &authority.certificate_pem), ("authority.pem", &authority.authority_pem)]
        {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let notify = UnixDatagram::bind(dir.path().join("notify.sock")).unwrap();
        notify.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let manager = Manager {
            dir,
            notify,
            child: None,
            store: Vec::new(),
            socket_unit: Vec::new(),
            removed: Vec::new(),
            uid: None,
            listen_pid: "$$",
            listeners: Vec::new(),
        };
        manager.write_private("key.pem", &authority.key_pem);
        manager.write_private("secret", "b64f3c1a9d5e4c8f8f2a7e6d1c0b9a88");
        manager
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn write_private(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), content).unwrap();
        std::fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// Lets another user read what the server reads, and the folder.
    pub(crate) fn give_files_to(&self, uid: u32) {
        let files = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        for path in files.chain([self.dir.path().to_owned()]) {
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
        }
    }

    /// Writes the configuration that the next process reads.
    pub(crate) fn configure(&self, workers: usize, listeners: &[(Transport, SocketAddr)]) {
        let mut toml = format!("workers = {workers}\n");
        for (transport, address) in listeners {
            write!(toml, "[[listen]]\naddress = \"{address}\"\ntransport = \"{}\"\n", transport.name()).unwrap();
        }
        let dir = self.dir.path().to_str().unwrap();
        write!(
            toml,
            "[tls]\ncertificate = \"{dir}/certificate.pem\"\nkey = \"{dir}/key.pem\"\n\
             [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nports = \"20000-27999\"\n\
             [streams]\nconnections-max = 1000\n\
             [limits]\nunauthenticated-replies-per-second = \"unlimited\"\n\
             [[auth.secrets]]\nid = \"test\"\nfile = \"{dir}/secret\"\n"
        )
        .unwrap();
        std::fs::write(self.path("turnserver.toml"), toml).unwrap();
    }

    /// The server's command, with what is passed to it and the variables that tell of it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("/bin/sh");
        // The variable must name the server's own process.
        let script = format!("export LISTEN_PID={}; exec \"$0\" \"$@\"", self.listen_pid);
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_turnstone"), "serve", "--dev"])
            .arg("--config")
            .arg(self.path("turnserver.toml"))
            .env("NOTIFY_SOCKET", self.path("notify.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        // Last in, first out, as systemd does.
        let passed: Vec<_> = self.socket_unit.iter().chain(self.store.iter().rev()).collect();
        if !passed.is_empty() {
            let names: Vec<_> = passed.iter().map(|(name, _)| name.as_str()).collect();
            command.env("LISTEN_FDS", passed.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
            pass(&mut command, passed.iter().map(|(_, fd)| fd));
        }
        command
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn start(&mut self) -> Listeners {
        self.spawn();
        self.wait_for_ready()
    }

    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none());
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        self.child = Some(self.command().stderr(log).spawn().unwrap());
        self.listeners.clear();
    }

    fn wait_for_ready(&mut self) -> Listeners {
        let deadline = Instant::now() + LIMIT;
        while !self.hear() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the server ended at its start ({})\n{}", ended.unwrap(), self.log());
            assert!(Instant::now() < deadline, "the server was not ready within {LIMIT:?}\n{}", self.log());
        }
        self.listeners.clone()
    }

    /// SIGTERM, and the end.
    pub(crate) fn stop(&mut self) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
        let status = self.wait_for_end();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// The end of a server that fails.
    pub(crate) fn crash(&mut self) {
        self.child.as_mut().unwrap().kill().unwrap();
        self.wait_for_end();
    }

    fn wait_for_end(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        let deadline = Instant::now() + LIMIT;
        loop {
            self.hear();
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end\n{}", self.log());
        }
    }

    /// The names of what is kept, in order.
    pub(crate) fn kept(&self) -> Vec<String> {
        let mut names: Vec<_> = self.store.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until the log, which is written by a thread of its own, has this text so often.
    pub(crate) fn wait_for_log(&self, text: &str, times: usize) {
        wait_until(&format!("{text:?} in the log"), LIMIT, || {
            (self.log().matches(text).count() >= times).then_some(())
        });
    }

    /// Reads one notification, or waits a moment in vain; returns whether it says that the server is ready.
    fn hear(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.notify, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let len = match received {
            Ok(received) => received.bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return false,
            Err(error) => panic!("cannot read the notification socket: {error}"),
        };
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        if value("FDSTORE") == Some("1") {
            let name = value("FDNAME").unwrap();
            assert!(!name.contains(':') && name.len() < 256 && name.chars().all(|c| c.is_ascii_graphic()), "{name:?}");
            assert!(self.store.iter().all(|(kept, _)| kept != name), "{name} was given twice");
            assert_eq!(value("FDPOLL"), Some("0"), "an error at a socket would remove it");
            assert_eq!(fds.len(), 1, "{text}");
            self.store.extend(fds.into_iter().map(|fd| (name.to_owned(), fd)));
        }
        if value("FDSTOREREMOVE") == Some("1") {
            let name = value("FDNAME").unwrap();
            self.store.retain(|(kept, _)| kept != name);
            self.removed.push(name.to_owned());
        }
        if let Some(list) = value("STATUS").and_then(|status| status.strip_prefix("listening on ")) {
            self.listeners = list.split(' ').map(listener).collect();
        }
        value("READY") == Some("1")
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- log of the server under test ----\n{}---- end of the log ----", self.log());
        }
    }
}

/// `udp/127.0.0.1:3478`.
fn listener(word: &str) -> (Transport, SocketAddr) {
    let (transport, address) = word.split_once('/').unwrap();
    let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
    let transport = transports.into_iter().find(|known| known.name() == transport).unwrap();
    (transport, address.parse().unwrap())
}

/// Has the command's process begin with these descriptors as 3, 4 and so on.
#[allow(unsafe_code)]
fn pass<'a>(command: &mut Command, fds: impl Iterator<Item = &'a OwnedFd>) {
    // Out of the way of their later numbers.
    let fds: Vec<OwnedFd> = fds.map(|fd| fcntl_dupfd_cloexec(fd, 200).unwrap()).collect();
    // SAFETY: between fork and exec only dup2 is called, which is async-signal-safe, on numbers that nothing uses after.
    unsafe {
        command.pre_exec(move || {
            for (number, fd) in (3 as RawFd..).zip(&fds) {
                if libc::dup2(fd.as_raw_fd(), number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}
