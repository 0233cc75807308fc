//! Whether peers outside can reach the relayed addresses: private ones without a mapping, 1:1 NAT, containers on a bridge.

use std::net::IpAddr;

use crate::addr::{Family, Reach};
use crate::config::{Config, Finding, Relay, RelayAddress};
use crate::probe::{Status, Step, not_public};
use crate::public_address::{Answer, Asked};

use super::finding;

/// So many published ports are no burden yet.
const PUBLISHED_PORTS_MAX: u64 = 200;

/// Judges the relay address of each family. `addresses` are those of the interfaces, `can_bind` tells whether a socket can be
/// bound to an address.
pub(super) fn judge_relays(config: &Config, addresses: &[IpAddr], can_bind: &dyn Fn(IpAddr) -> bool) -> Vec<Step> {
    let relays = &config.relay.addresses;
    let judged = |relay: RelayAddress| {
        if !addresses.contains(&relay.bind) && !can_bind(relay.bind) {
            let message = format!("{} is not an address of this host: every Allocate gets 508", relay.bind);
            return finding("relay-address", Status::Fail, message);
        }
        let step = judge_external(config, relay, addresses);
        step.fact("bind", relay.bind.to_string()).fact("external", relay.external.to_string())
    };
    relays.iter().copied().map(judged).collect()
}

/// What those say who are asked for public addresses, beside what the configuration has. `ask` asks what stands for an address of this host.
pub(super) fn judge_public_addresses(config: &Config, ask: &dyn Fn(&Finding, IpAddr) -> Asked) -> Vec<Step> {
    let relay = &config.relay;
    let binds = Family::ALL.into_iter().flat_map(|family| relay.binds(family));
    let wanted = binds.filter(|bind| {
        let is_sought = relay.sought(Family::of(*bind)).any(|sought| sought == *bind);
        // Of a written address, who is named says whether it is still so.
        is_sought || (relay.written(*bind).is_some() && !relay.finding.sources.is_empty())
    });
    wanted.map(|bind| judge_public_address(relay, bind, ask(&relay.finding, bind))).collect()
}

fn judge_public_address(relay: &Relay, bind: IpAddr, asked: Asked) -> Step {
    let written = relay.written(bind).map(|external| external.ip);
    let mut failures: Vec<_> = asked.failures.iter().map(|(_, failure)| failure.to_string()).collect();
    if failures.is_empty() {
        failures.push("external-ip-sources names nobody to ask".to_owned());
    }
    let failures = failures.join("; ");
    let (status, message) = match (asked.answer, written) {
        (Some(Answer { ip, source }), Some(written)) if ip != written => (
            Status::Warn,
            format!(
                "external-ip has {written} for {bind}, but by {} it is {ip}: clients are told an address that may be another one's; correct it, \
                 or take external-ip = \"auto\"",
                source.name()
            ),
        ),
        (Some(Answer { ip, source }), _) => (Status::Ok, format!("{ip} for {bind}, by {}", source.name())),
        (None, Some(_)) => (Status::Note, format!("nobody says what the public address of {bind} is: {failures}")),
        (None, None) => (
            Status::Fail,
            format!(
                "nobody says what the public address of {bind} is, and a server that does not know it relays nothing there: {failures}"
            ),
        ),
    };
    let step = finding("public-address", status, message).fact("bind", bind.to_string());
    match asked.answer {
        Some(Answer { ip, source }) => step.fact("public", ip.to_string()).fact("source", source.name()),
        None => step,
    }
}

/// What is wrong with an address that `external-ip` names: an example, or one that the Internet does not reach.
pub fn judge_external_ip(config: &Config, relay: RelayAddress) -> Option<Step> {
    let step = judge_external(config, relay, &[]);
    (relay.bind != relay.external && step.status == Status::Warn).then_some(step)
}

fn judge_external(config: &Config, relay: RelayAddress, addresses: &[IpAddr]) -> Step {
    let RelayAddress { bind, external } = relay;
    let (low, high) = config.relay.ports;
    let is_local = config.listeners.iter().all(|listener| listener.address.ip().is_loopback());
    let (status, message) = match (not_public(external), bind == external) {
        _ if is_example(external) => {
            let message =
                format!("{external} is an example address from documentation: nobody on the Internet can send to it");
            (Status::Warn, message)
        }
        (Some(kind), true) if external.is_loopback() && is_local => {
            (Status::Note, format!("{external} is {kind}, as the listeners' are: this server is for this machine only"))
        }
        (Some(kind), true) => (
            Status::Warn,
            format!(
                "{external} is {kind}, and external-ip is not set: clients and peers outside of this network cannot reach \
                 its relays; if a public address is mapped to this host, name it in external-ip"
            ),
        ),
        (Some(kind), false) => {
            let hint = if kind.contains("carrier-grade") { "; the provider's NAT forwards nothing to it" } else { "" };
            (Status::Warn, format!("external-ip {external} is {kind}: nobody on the Internet can send to it{hint}"))
        }
        (None, true) => (Status::Ok, format!("{external} is public, and an address of this host")),
        (None, false) if addresses.contains(&external) => {
            (Status::Ok, format!("{external}, with sockets on {bind}; both are addresses of this host"))
        }
        (None, false) => (
            Status::Note,
            format!(
                "external-ip {external} is on no interface here: the 1:1 NAT in front must forward UDP {low}-{high} to \
                 {bind} with unchanged ports"
            ),
        ),
    };
    finding("relay-address", status, message)
}

/// The ranges of RFC 5737, RFC 3849 and RFC 9637.
fn is_example(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(ip.octets(), [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _]),
        IpAddr::V6(ip) => match ip.segments() {
            [0x2001, 0xdb8, ..] => true,
            [0x3fff, second, ..] => second < 0x1000,
            _ => false,
        },
    }
}

/// A network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its index, and that of the device it hangs on; they differ for one end of a cable into another network namespace.
    pub(super) index: u32,
    pub(super) link: u32,
}

/// What tells a container.
#[derive(Clone, Debug, Default)]
pub(super) struct Container {
    /// What the files and variables that are put into a container call it.
    pub(super) marker: Option<String>,
    /// The text of /proc/self/mountinfo: what `/` is.
    pub(super) mounts: String,
    /// The text of /proc/1/cgroup.
    pub(super) cgroup: String,
    /// Interfaces besides loopback.
    pub(super) interfaces: Vec<Interface>,
    pub(super) addresses: Vec<IpAddr>,
}

impl Container {
    /// What kind it is, if it is one.
    fn kind(&self) -> Option<String> {
        const NAMES: [&str; 6] = ["docker", "containerd", "kubepods", "libpod", "lxc", "garden"];
        let named = || NAMES.iter().find(|name| self.cgroup.contains(**name)).map(|name| (*name).to_owned());
        self.marker.clone().or_else(named).or_else(|| self.has_layers().then(|| "its files are layers".to_owned()))
    }

    /// Whether `/` is an overlay, as images are mounted: `23 22 0:21 / / rw - overlay overlay rw,lowerdir=...`.
    fn has_layers(&self) -> bool {
        let is_root = |line: &str| line.split(' ').nth(4) == Some("/");
        let is_overlay = |line: &str| line.split(" - ").nth(1).is_some_and(|rest| rest.starts_with("overlay "));
        self.mounts.lines().any(|line| is_root(line) && is_overlay(line))
    }

    /// Whether all that it has is a cable to a bridge on its host, and a private address.
    fn is_bridged(&self) -> bool {
        let outside = |ip: &&IpAddr| !matches!(Reach::of(**ip), Reach::Loopback | Reach::Link);
        !self.interfaces.is_empty()
            && self.interfaces.iter().all(|interface| interface.index != interface.link)
            && self.addresses.iter().filter(outside).all(|ip| not_public(*ip).is_some())
    }
}

/// Bridge networking: each relay port would have to be published, and each published port is a process and memory there.
pub(super) fn judge_container(config: &Config, container: &Container) -> Step {
    let name = "container";
    let Some(kind) = container.kind() else { return finding(name, Status::Ok, "this is none") };
    let running = format!("running in a container ({kind})");
    if !container.is_bridged() {
        return finding(name, Status::Ok, format!("{running}, with the host's network or an address of its own"))
            .fact("container", kind);
    }
    let (low, high) = config.relay.ports;
    let ports = u64::from(high.saturating_sub(low)) + 1;
    let mapped = config.relay.finding.by.is_some() || config.relay.addresses.iter().any(|r| r.bind != r.external);
    let advice = "use host networking (docker run --network host)";
    if !mapped {
        let message = format!(
            "{running} with bridge networking, and external-ip is not set: peers are told an address that only this \
             container's host knows; {advice}, as {ports} published ports would bring the host down"
        );
        return finding(name, Status::Warn, message).fact("container", kind);
    }
    let message = format!(
        "{running} with bridge networking: UDP {low}-{high} must be published with unchanged ports, and each costs \
         memory and time on the host; {advice}"
    );
    finding(name, if ports > PUBLISHED_PORTS_MAX { Status::Warn } else { Status::Note }, message)
        .fact("container", kind)
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    fn judged(listen: &str, bind: &str, external: Option<&str>, on_host: &[&str]) -> (Status, String) {
        let external = external.map_or_else(String::new, |ip| format!("external-ip = [\"{ip}\"]\n"));
        let config = config(&format!(
            "[[listen]]\naddress = \"{listen}:3478\"\ntransport = \"udp\"\n[relay]\nipv4 = \"{bind}\"\nipv6 = \"off\"\n{external}"
        ));
        let addresses: Vec<IpAddr> = on_host.iter().map(|ip| ip.parse().unwrap()).collect();
        let step = judge_relays(&config, &addresses, &|_| false).remove(0);
        (step.status, step.message)
    }

    #[test]
    fn relay_addresses_are_judged_by_who_can_reach_them() {
        let (any, private) = ("0.0.0.0", "10.0.0.2");
        for (listen, bind, external, on_host, status, words) in [
            (any, "5.44.1.1", None, &["5.44.1.1"][..], Status::Ok, "is public"),
            (any, private, None, &[private], Status::Warn, "external-ip is not set"),
            (any, private, Some("5.44.1.1"), &[private], Status::Note, "1:1 NAT in front must forward UDP 49152-65535"),
            (any, private, Some("5.44.1.1"), &[private, "5.44.1.1"], Status::Ok, "both are addresses of this host"),
            (any, private, Some("192.168.1.1"), &[private], Status::Warn, "is a private address"),
            (any, private, Some("100.64.0.1"), &[private], Status::Warn, "carrier-grade NAT"),
            (any, private, Some("203.0.113.5"), &[private], Status::Warn, "an example address"),
            (any, "5.44.1.1", None, &["5.44.1.2"], Status::Fail, "not an address of this host"),
            (any, "127.0.0.1", None, &["127.0.0.1"], Status::Warn, "a loopback address"),
            ("127.0.0.1", "127.0.0.1", None, &["127.0.0.1"], Status::Note, "for this machine only"),
        ] {
            let (found, message) = judged(listen, bind, external, on_host);
            assert!(found == status && message.contains(words), "{bind} {external:?}: {found:?} {message}");
        }
    }

    #[test]
    fn a_container_on_a_bridge_is_warned_about() {
        let bridged = Container {
            marker: None,
            mounts: String::new(),
            cgroup: "0::/docker/4711\n".to_owned(),
            interfaces: vec![Interface { index: 2, link: 17 }],
            addresses: ["127.0.0.1", "172.17.0.2", "fe80::1"].map(|ip| ip.parse().unwrap()).to_vec(),
        };
        let relay = |more: &str| config(&format!("[relay]\nipv4 = \"172.17.0.2\"\nipv6 = \"off\"\n{more}"));
        let (plain, mapped) = (relay(""), relay("external-ip = [\"5.44.1.1\"]\n"));
        let few = relay("external-ip = [\"5.44.1.1\"]\nports = \"50000-50099\"\n");
        let status = |config: &Config, container: &Container| judge_container(config, container).status;
        assert_eq!(status(&plain, &bridged), Status::Warn);
        assert_eq!((status(&mapped, &bridged), status(&few, &bridged)), (Status::Warn, Status::Note));
        let on_host_network = Container { interfaces: vec![Interface { index: 2, link: 2 }], ..bridged.clone() };
        let with_public = Container { addresses: vec!["5.44.1.1".parse().unwrap()], ..bridged.clone() };
        let no_container = Container { cgroup: "0::/init.scope\n".to_owned(), ..bridged.clone() };
        for container in [on_host_network, with_public, no_container] {
            assert_eq!(status(&plain, &container), Status::Ok, "{container:?}");
        }
        let marked = Container { marker: Some("podman".to_owned()), cgroup: String::new(), ..bridged.clone() };
        assert_eq!(status(&plain, &marked), Status::Warn);
        // A container runtime without a marker, whose control group has a name of its own.
        let root =
            |kind: &str| format!("22 1 0:5 / /proc rw - proc proc rw\n23 1 0:21 / / rw,relatime - {kind} {kind} rw\n");
        let layered = |kind: &str| Container { cgroup: "0::/\n".to_owned(), mounts: root(kind), ..bridged.clone() };
        let step = judge_container(&plain, &layered("overlay"));
        assert!(
            step.status == Status::Warn && step.message.starts_with("running in a container ("),
            "{}",
            step.message
        );
        assert_eq!(judge_container(&plain, &layered("ext4")).message, "this is none");
    }

    #[test]
    fn what_others_say_is_held_against_what_is_written() {
        use crate::public_address::{Failure, SourceKind};
        let judged = |external: &str, says: Option<&str>| {
            let text = format!(
                "[relay]\nipv4 = \"10.0.0.2\"\nipv6 = \"off\"\nexternal-ip-sources = [\"stun:stun.example.org\"]\n{external}"
            );
            let answer = says.map(|ip| Answer { ip: ip.parse().unwrap(), source: SourceKind::Stun });
            let silent = Failure::Silent { who: "stun.example.org:3478".to_owned() };
            let failures = if says.is_none() { vec![(SourceKind::Stun, silent)] } else { Vec::new() };
            let asked = std::cell::RefCell::new(Some(Asked { answer, failures }));
            let mut steps = judge_public_addresses(&config(&text), &|_, bind| {
                assert_eq!(bind.to_string(), "10.0.0.2");
                asked.take().unwrap()
            });
            let Step { status, message, .. } = steps.remove(0);
            (status, message)
        };
        let (auto, written) = ("external-ip = \"auto\"", "external-ip = \"5.44.1.1\"");
        for (external, says, status, words) in [
            (auto, Some("5.44.1.1"), Status::Ok, "5.44.1.1 for 10.0.0.2, by stun"),
            (auto, None, Status::Fail, "stun.example.org:3478 does not answer"),
            (written, Some("5.44.1.1"), Status::Ok, "5.44.1.1 for 10.0.0.2"),
            (
                written,
                Some("5.44.1.2"),
                Status::Warn,
                "external-ip has 5.44.1.1 for 10.0.0.2, but by stun it is 5.44.1.2",
            ),
            (written, None, Status::Note, "nobody says"),
        ] {
            let (found, message) = judged(external, says);
            assert!(found == status && message.contains(words), "{external} {says:?}: {found:?} {message}");
        }
    }
}
