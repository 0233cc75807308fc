//! The thin collector: what the checks are given of the real host.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use socket2::SockRef;

use crate::addr::SocketKind;
use crate::net;
use crate::net::LocalAddresses;

use super::firewall::{Firewall, Ruleset};
use super::network::{Container, Interface};
use super::process::{Process, Socket, read_table};

/// A list of rules longer than this is not read.
const RULES_BYTES_MAX: u64 = 64 << 20;

pub(super) fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

pub(super) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

pub(super) fn addresses() -> Vec<IpAddr> {
    LocalAddresses::read().unwrap_or_default().interfaces
}

pub(super) fn can_bind(ip: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// The effective user of a process. Not the owner of its directory in /proc, which is root where no core may be dumped.
pub(super) fn uid_of(pid: u32) -> Option<u32> {
    let status = text(&format!("/proc/{pid}/status"))?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// When the file of this program was written.
pub(super) fn program_written_unix() -> Option<u64> {
    let written = std::fs::metadata(std::env::current_exe().ok()?).ok()?.modified().ok()?;
    written.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// What the kernel grants a listener, which is opened on loopback and closed again: it counts twice what was asked for.
pub(super) fn granted_buffer() -> Option<u64> {
    let socket = net::bind_udp_listener(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).ok()?;
    SockRef::from(&socket).recv_buffer_size().ok().and_then(|bytes| u64::try_from(bytes).ok())
}

/// All UDP sockets and listening TCP sockets of this network namespace; `None` when they cannot be seen.
pub(super) fn sockets() -> Option<Vec<Socket>> {
    let mut found = Vec::new();
    for (name, kind) in [("udp", SocketKind::Udp), ("tcp", SocketKind::Tcp)] {
        found.extend(read_table(&text(&format!("/proc/net/{name}"))?, kind));
        // A kernel without IPv6 has none of these.
        found.extend(read_table(&text(&format!("/proc/net/{name}6")).unwrap_or_default(), kind));
    }
    Some(found)
}

/// The processes that have these sockets open, as far as they may be seen.
pub(super) fn socket_owners(inodes: &HashSet<u64>) -> HashMap<u64, Vec<Process>> {
    let mut owners: HashMap<u64, Vec<Process>> = HashMap::new();
    for (pid, name) in processes() {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let mut own = HashSet::new();
        for descriptor in descriptors.flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            own.extend(inode.and_then(|inode| inode.parse().ok()).filter(|inode| inodes.contains(inode)));
        }
        for inode in own {
            owners.entry(inode).or_default().push(Process { pid, name: name.clone() });
        }
    }
    owners
}

/// Processes that were started as `turnstone serve`.
pub(super) fn server_processes() -> Vec<Process> {
    let serves = |pid: u32| {
        let line = text(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').nth(1) == Some("serve")
    };
    let named = processes().filter(|(_, name)| name == "turnstone");
    named.filter(|(pid, _)| serves(*pid)).map(|(pid, name)| Process { pid, name }).collect()
}

fn processes() -> impl Iterator<Item = (u32, String)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, text(&format!("/proc/{pid}/comm"))?.trim().escape_debug().to_string()))
    })
}

pub(super) fn container() -> Container {
    let number = |path: &Path| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let interfaces = interfaces.filter(|entry| entry.file_name() != "lo").filter_map(|entry| {
        let path = entry.path();
        Some(Interface { index: number(&path.join("ifindex"))?, link: number(&path.join("iflink"))? })
    });
    Container {
        marker: container_marker(),
        mounts: text("/proc/self/mountinfo").unwrap_or_default(),
        cgroup: text("/proc/1/cgroup").unwrap_or_default(),
        interfaces: interfaces.collect(),
        addresses: addresses(),
    }
}

/// What container programs leave in their containers: files, a variable of the first process, Kubernetes' variable.
fn container_marker() -> Option<String> {
    let given = |name: &str| Some(name.trim().escape_debug().to_string()).filter(|name| !name.is_empty());
    let of_first = || {
        let environment = text("/proc/1/environ")?;
        environment.split('\0').find_map(|variable| variable.strip_prefix("container=")).and_then(given)
    };
    let files = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    let by_file = files.into_iter().find(|(path, _)| exists(path)).map(|(_, name)| name.to_owned());
    let in_kubernetes = || std::env::var_os("KUBERNETES_SERVICE_HOST").map(|_| "kubernetes".to_owned());
    by_file.or_else(|| given(&text("/run/systemd/container")?)).or_else(of_first).or_else(in_kubernetes)
}

pub(super) fn firewall(timeout: Duration) -> Firewall {
    let ufw = text("/etc/ufw/ufw.conf").unwrap_or_default();
    let old =
        ["ip_tables_names", "ip6_tables_names"].map(|name| text(&format!("/proc/net/{name}")).unwrap_or_default());
    Firewall {
        ruleset: output_of("nft", &["-j", "list", "ruleset"], timeout),
        has_old_iptables: old.concat().lines().any(|table| table.trim() == "filter"),
        has_ufw: ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes")),
        has_firewalld: exists("/run/firewalld"),
    }
}

/// Runs a program of this host, for at most so long.
fn output_of(program: &str, arguments: &[&str], timeout: Duration) -> Ruleset {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"].map(|place| Path::new(place).join(program));
    let Some(path) = places.into_iter().find(|path| path.is_file()) else { return Ruleset::NoProgram };
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ruleset::Refused(error.to_string()),
    };
    let read = |from: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(from) = from {
                // What was read until an error is judged like a list that was cut.
                let _ = from.take(RULES_BYTES_MAX).read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>));
    let err = read(child.stderr.take().map(|err| Box::new(err) as Box<dyn Read + Send>));
    let deadline = Instant::now() + timeout;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    match status {
        Some(status) if status.success() => Ruleset::Listed(out),
        Some(_) => Ruleset::Refused(err.lines().next().unwrap_or("it failed").trim().to_owned()),
        None => Ruleset::Refused(format!("no answer within {} s", timeout.as_secs_f64())),
    }
}
