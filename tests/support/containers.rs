//! Where containers can be run: crun and podman want control groups of one kind, and a machine may have two.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Running, require_tool, skipped, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const ONE_KIND: &str =
    "umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo mounted && exec sleep 600";

/// A mount namespace with the control groups that containers want. It ends when dropped.
pub struct ContainerHost(Running);

impl ContainerHost {
    /// `None`, with a message, where there cannot be one.
    pub fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped("only root can run a container of its own here");
            return None;
        }
        require_tool("crun", "crun");
        let output = tempfile::NamedTempFile::new().unwrap();
        let namespace = Command::new("unshare")
            .args(["--mount", "sh", "-c", ONE_KIND])
            .stdin(Stdio::null())
            .stdout(output.reopen().unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut host = Self(Running(namespace));
        let is_mounted = wait_until("a mount namespace", LIMIT, || {
            let is_mounted = std::fs::read_to_string(output.path()).unwrap().contains("mounted");
            let is_over = host.0.0.try_wait().unwrap().is_some();
            (is_mounted || is_over).then_some(is_mounted)
        });
        if !is_mounted {
            skipped("this machine does not allow the control groups that containers want");
            return None;
        }
        Some(host)
    }

    /// A program there.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.0.id().to_string(), "--mount", program]).stdin(Stdio::null());
        command
    }
}
