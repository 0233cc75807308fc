//! A Redis of Debian that a test starts, pauses, stops and asks.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::LIMIT;
use crate::support::{free_port, run, wait_until};

/// A server in a directory of its own.
pub(crate) struct Redis {
    child: Option<Child>,
    folder: TempDir,
    pub(crate) port: u16,
    arguments: Vec<String>,
    /// What `redis-cli` needs beside the port.
    client: Vec<String>,
}

impl Redis {
    /// One that anybody may use.
    pub(crate) fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// One with further options.
    pub(crate) fn start_with(arguments: &[&str]) -> Redis {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Redis::start_at(free_port(), tempfile::tempdir().unwrap(), arguments, &[])
    }

    /// One at a port, in a folder that may have files for it.
    pub(crate) fn start_at(port: u16, folder: TempDir, arguments: Vec<String>, client: &[&str]) -> Redis {
        let client = client.iter().map(|argument| (*argument).to_owned()).collect();
        let mut redis = Redis { child: None, folder, port, arguments, client };
        redis.start_again();
        redis
    }

    /// Starts it again on the same port, with what it has kept.
    pub(crate) fn start_again(&mut self) {
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        if !self.arguments.iter().any(|argument| argument == "--port") {
            command.args(["--port", &port]);
        }
        command.args(["--bind", "127.0.0.1", "--save", "", "--dir"]).arg(self.folder.path());
        command.args(["--logfile", "redis.log"]).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server is installed by tests/run"));
        wait_until("Redis to listen", LIMIT, || TcpStream::connect(("127.0.0.1", self.port)).ok().map(drop));
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `redis-cli` says to a command.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).unwrap_or_else(|said| panic!("{command:?}: {said}"))
    }

    /// The same of one that may close its connections, as it does when its role changes.
    pub(crate) fn try_ask(&self, command: &[&str]) -> Result<String, String> {
        let mut client = Command::new("redis-cli");
        client.args(["-p", &self.port.to_string()]).args(&self.client).args(command);
        let finished = run(&mut client, LIMIT);
        if finished.code == Some(0) { Ok(finished.stdout.trim_end().to_owned()) } else { Err(finished.all_output()) }
    }

    /// The same with the password of its default user.
    pub(crate) fn ask_as(&self, password: &str, command: &[&str]) -> String {
        let mut client = Command::new("redis-cli");
        client.args(["-p", &self.port.to_string(), "--pass", password, "--no-auth-warning"]).args(command);
        let finished = run(&mut client, LIMIT);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stdout.trim_end().to_owned()
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// It goes on listening, and answers nothing.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32)).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
