//! A machine that runs nothing but systemd, as PID 1 of namespaces of its own.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::skipped;

const LIMIT: Duration = Duration::from_secs(60);

/// What a machine is made of.
pub struct Plan<'p> {
    /// The files below those that it makes.
    pub root: &'p Path,
    /// Called in its namespaces with the command of the machine behind it; nothing to share the network of this machine.
    pub wrapper: &'p [&'p str],
    /// Shell commands that are run inside before systemd is, with `files` in /run/source.
    pub setup: &'p str,
    pub files: &'p [&'p Path],
}

/// It ends when dropped.
pub struct Machine {
    folder: tempfile::TempDir,
    unshare: Child,
    pid_1: String,
    /// All machines have the same cgroups below them, which only one systemd may rule at a time.
    _alone: std::fs::File,
}

impl Machine {
    /// `None`, with a message, where there cannot be one.
    pub fn start(plan: &Plan<'_>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped("only root can make the namespaces that a systemd of its own needs");
            return None;
        }
        if !plan.root.join("lib/systemd/systemd").exists() {
            skipped("systemd is not installed (apt-get install systemd)");
            return None;
        }
        let alone = std::fs::File::open("/sys/fs/cgroup").unwrap();
        rustix::fs::flock(&alone, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("setup"), plan.setup).unwrap();
        std::fs::create_dir(file("machine")).unwrap();
        let output = std::fs::File::create(file("output")).unwrap();
        let mut unshare = Command::new("unshare")
            .args(["--pid", "--mount", "--cgroup", "--ipc", "--uts", "--fork", "--kill-child"])
            .args(plan.wrapper)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/machine.sh"))
            .args([&file("machine"), plan.root, &file("setup")])
            .args(plan.files)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + LIMIT;
        loop {
            let output = std::fs::read_to_string(file("output")).unwrap();
            let children = format!("/proc/{0}/task/{0}/children", unshare.id());
            let pid_1 = std::fs::read_to_string(children).unwrap_or_default().trim().to_owned();
            let is_over = unshare.try_wait().unwrap().is_some() || Instant::now() > deadline;
            if is_over && !output.contains("mounted") {
                let _ = unshare.kill();
                let _ = unshare.wait();
                skipped(&format!("this machine does not allow what a systemd of its own needs:\n{output}"));
                return None;
            }
            assert!(!is_over, "systemd did not start:\n{output}");
            if !pid_1.is_empty() && output.contains("set up") {
                return Some(Self { folder, unshare, pid_1, _alone: alone }.wait_for_systemd(deadline));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_for_systemd(self, deadline: Instant) -> Self {
        while !self.run(&["systemctl", "is-active", "idle.target"]).status.success() {
            assert!(Instant::now() < deadline, "systemd does not answer:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(50));
        }
        self
    }

    /// A command that is run inside.
    pub fn command(&self, command: &[&str]) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &self.pid_1, "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--net"]);
        inside.args(command).stdin(Stdio::null());
        inside
    }

    /// Runs a command inside.
    pub fn run(&self, command: &[&str]) -> Output {
        self.command(command).output().unwrap()
    }

    /// The same; it must succeed.
    pub fn must(&self, command: &[&str]) -> String {
        let output = self.run(command);
        if !output.status.success() {
            let status = self.run(&["systemctl", "status", "--no-pager", "turnstone"]);
            let status = String::from_utf8_lossy(&status.stdout);
            panic!("{command:?}: {output:?}\n{status}\n{}\n{}", self.output(), self.log());
        }
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A property of the service.
    pub fn show(&self, property: &str) -> String {
        self.must(&["systemctl", "show", "turnstone", "--value", "--property", property])
    }

    /// What setup and systemd have printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("output")).unwrap()
    }

    /// The log of the service.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.run(&["cat", "/run/log"]).stdout).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // PID 1 is killed with it, and everything inside with PID 1.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}
