//! Network namespaces by `ip netns`, each deleted when dropped.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::{require_root, require_tool, run, run_with_input};

const LIMIT: Duration = Duration::from_secs(20);

/// A network namespace with its loopback up.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Its name is unique to this process and call; `role` makes it readable.
    pub(crate) fn create(role: &str) -> Namespace {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        require_root("network namespaces");
        require_tool("ip", "iproute2");
        let serial = COUNTER.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace { name: format!("ts{}-{serial}-{role}", std::process::id()) };
        ip(&["netns", "add", &namespace.name]);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `ip ARGUMENTS` inside.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", self.name.as_str()], arguments].concat());
    }

    /// Many commands of `ip` inside, a line each.
    pub(crate) fn ip_batch(&self, commands: &str) {
        let mut command = Command::new("ip");
        let finished = run_with_input(command.args(["-n", &self.name, "-batch", "-"]), commands, LIMIT);
        assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    }

    /// Joins two namespaces by a cable. Each end is an interface's name and its addresses with prefix lengths.
    pub(crate) fn connect(&self, end: (&str, &[&str]), other: &Namespace, other_end: (&str, &[&str])) {
        ip(&["link", "add", end.0, "netns", &self.name, "type", "veth", "peer", other_end.0, "netns", &other.name]);
        for (namespace, (interface, addresses)) in [(self, end), (other, other_end)] {
            for address in addresses {
                // Without `nodad` an IPv6 address is not usable for the first second or two.
                let family_flags: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                namespace.ip(&[&["address", "add", address, "dev", interface], family_flags].concat());
            }
            namespace.ip(&["link", "set", interface, "up"]);
        }
    }

    pub(crate) fn default_route(&self, gateway: &str) {
        self.ip(&["route", "add", "default", "via", gateway]);
    }

    pub(crate) fn forward_ipv4(&self) {
        self.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    }

    /// Loads nftables rules.
    pub(crate) fn nft(&self, rules: &str) {
        let nft = require_tool("nft", "nftables");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(nft).args(["-f", "-"]);
        let finished = run_with_input(&mut command, rules, LIMIT);
        assert_eq!(finished.code, Some(0), "{command:?}: {}", finished.all_output());
    }

    /// Runs `work` on a thread of its own inside of this namespace; every socket it opens belongs there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let handle = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    let finished = run(command.args(arguments), LIMIT);
    assert_eq!(finished.code, Some(0), "{command:?}: {}", finished.all_output());
}
