//! A freshly installed Debian with nothing on it but systemd, in a network of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::machine::{Machine, Plan};
use crate::support::{require_tool, skipped, target_dir};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How long dpkg or rpm may take where a drain would take an hour.
pub(crate) const SOON: Duration = Duration::from_secs(45);
/// The one address of a host; it is of a public range, as the server wants it, and leads nowhere.
pub(crate) const ADDRESS: &str = "9.0.0.2";
const NETWORK: &str = "ip link set lo up && ip link add eth0 type veth peer name eth1 && ip address add 9.0.0.2/24 dev eth0 && \
                       ip link set eth1 up && ip link set eth0 up && ip route add default via 9.0.0.1 && exec \"$@\"";

/// A host with these files in /run/source, or `None`, with a message, where there cannot be one.
pub(crate) fn host(files: &[&Path]) -> Option<Machine> {
    require_tool("ip", "iproute2");
    let wrapper = ["unshare", "--net", "sh", "-c", NETWORK, "sh"];
    Machine::start(&Plan { root: &root()?, wrapper: &wrapper, setup: ":", files })
}

/// The files of the host, made once and kept: nobody writes to them.
fn root() -> Option<PathBuf> {
    let folder = target_dir().join("debian");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let root = folder.join("root");
    // One that was made for earlier tests may have less.
    if root.join("usr/bin/dnf").exists() {
        return Some(root);
    }
    if !rustix::process::geteuid().is_root() {
        skipped("only root can make a root of its own for packages");
        return None;
    }
    require_tool("mmdebstrap", "mmdebstrap");
    let release = std::fs::read_to_string("/etc/os-release").unwrap();
    let value = |name: &str| release.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let suite = value("VERSION_CODENAME=");
    if value("ID=") != "debian" || suite.is_empty() {
        skipped("the packages of this system are not Debian's: the program in them may want other libraries");
        return None;
    }
    let fresh = folder.join("fresh");
    let _ = std::fs::remove_dir_all(&fresh);
    let output = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "--include=systemd,libssl3,rpm,dnf", &suite])
        .arg(&fresh)
        .output()
        .unwrap();
    if !output.status.success() {
        skipped(&format!("mmdebstrap cannot make a root here: {}", String::from_utf8_lossy(&output.stderr)));
        return None;
    }
    let _ = std::fs::remove_dir_all(&root);
    std::fs::rename(&fresh, &root).unwrap();
    Some(root)
}

/// Writes a configuration that drains for an hour.
pub(crate) fn configure(host: &Machine) {
    let text = "[[auth.secrets]]\ncredential = \"secret\"\nfile = \"/etc/turnstone/secret\"\n[drain]\ndeadline = \"1h\"\n\
                [admin]\nlisten = \"unix:/run/turnstone/admin.sock\"\n";
    host.must(&["sh", "-c", &format!("cat >/etc/turnstone/turnserver.toml <<'END'\n{text}END")]);
}

/// Makes an allocation that lasts for ten minutes: its client has gone without a word, because no peer of this host may be relayed to.
pub(crate) fn begin_call(host: &Machine) {
    let hold = ["turnstone", "bench", "hold", ADDRESS, "--secret-file", "/etc/turnstone/secret", "--clients", "1"];
    let output = host.run(&hold);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("client 0: ChannelBind refused"), "{output:?}");
    let sessions = host.must(&["turnstone", "sessions", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&sessions).unwrap();
    assert_eq!(answer["sessions"].as_array().unwrap().len(), 1, "{sessions}");
}

/// Whether the service's process runs a program that has been replaced.
pub(crate) fn runs_replaced_program(host: &Machine) -> bool {
    let pid = host.show("MainPID");
    host.must(&["readlink", &format!("/proc/{pid}/exe")]).ends_with("(deleted)")
}

/// All that has the name of the program in its path, but for what the test itself has put there.
pub(crate) fn traces(host: &Machine) -> String {
    let all = host.must(&[
        "sh",
        "-c",
        "find / -xdev -path '*turnstone*' | sort; grep -h turnstone /etc/passwd /etc/group || true",
    ]);
    let of_test = |line: &&str| !line.starts_with("/etc/systemd/system/turnstone.service.d");
    all.lines().filter(of_test).collect::<Vec<_>>().join("\n")
}

/// The server answers, and its check has nothing against it.
pub(crate) fn must_work(host: &Machine) {
    assert_eq!(host.show("ActiveState"), "active", "{}", host.log());
    host.must(&["turnstone", "probe", &format!("stun:{ADDRESS}")]);
    host.must(&["turnstone", "check"]);
}
