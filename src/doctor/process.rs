//! The server's process: found by the owner of the listeners' sockets, and how many descriptors it may open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::addr::SocketKind;
use crate::config::{Config, Listener, WantedSockets};
use crate::net::sys::{Descriptors, Outward};
use crate::probe::{Status, Step};

use super::finding;

/// The state of a listening TCP socket in /proc/net/tcp.
const TCP_LISTEN: &str = "0A";
const NAME: &str = "turnstone";
/// The process that keeps the listener sockets of a service that does not run.
const SERVICE_MANAGER: u32 = 1;

/// An open UDP socket, or a TCP socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) kind: SocketKind,
    pub(super) local: SocketAddr,
    pub(super) inode: u64,
    /// Datagrams dropped at it.
    pub(super) drops: u64,
}

impl Socket {
    /// Whether what is sent to the listener's address comes to it.
    pub(super) fn serves(&self, listener: &Listener) -> bool {
        let (own, wanted) = (self.local.ip(), listener.address.ip());
        let any =
            own == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || (own.is_unspecified() && own.is_ipv4() == wanted.is_ipv4());
        self.kind == listener.transport.socket_kind()
            && self.local.port() == listener.address.port()
            && (own == wanted || any)
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
}

/// What there is of the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    /// Whether sockets could be looked at, and none of the listeners is there.
    pub(super) is_absent: bool,
    /// Whether some listener is there for certain.
    pub(super) is_running: bool,
    pub(super) pid: Option<u32>,
    /// All sockets of this host.
    pub(super) sockets: Vec<Socket>,
    /// The listeners to probe.
    pub(super) open: Vec<Listener>,
}

impl Server {
    pub(super) fn may_run(&self) -> bool {
        !self.is_absent
    }
}

/// The sockets of a table such as /proc/net/udp6.
pub(super) fn read_table(text: &str, kind: SocketKind) -> Vec<Socket> {
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if kind == SocketKind::Tcp && fields.get(3) != Some(&TCP_LISTEN) {
            return None;
        }
        Some(Socket {
            kind,
            local: read_address(fields.get(1)?)?,
            inode: fields.get(9)?.parse().ok()?,
            drops: match kind {
                SocketKind::Udp => fields.get(12).and_then(|drops| drops.parse().ok()).unwrap_or(0),
                SocketKind::Tcp => 0,
            },
        })
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// `0100007F:0D96`: the address in words of 32 bits as they are in memory, and the port.
fn read_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|at| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    let ip = match words?.as_slice() {
        [word] => IpAddr::V4(Ipv4Addr::from(*word)),
        words @ [_, _, _, _] => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Looks for each listener of the configuration among the sockets. `sockets` is `None` where they cannot be seen; `owners`
/// may have gaps, as only root sees other users' sockets; `servers` are processes that look like `turnstone serve`.
pub(super) fn find(
    config: &Config,
    sockets: Option<Vec<Socket>>,
    owners: &HashMap<u64, Vec<Process>>,
    servers: Vec<Process>,
    given: Option<u32>,
) -> (Server, Vec<Step>) {
    let (mut steps, mut open, mut missing, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (listeners, unnamed): (Vec<_>, Vec<_>) =
        config.listeners.iter().cloned().partition(|listener| listener.address.port() != 0);
    for listener in &unnamed {
        let message = format!("{} has port 0, another one at every start: it is not looked for", shown(listener));
        steps.push(finding("server", Status::Warn, message));
    }
    let Some(sockets) = sockets else {
        let message = "the sockets of this host cannot be seen (/proc/net): listeners are tried without";
        steps.push(finding("server", Status::Note, message));
        return (Server { pid: given, open: listeners, ..Server::default() }, steps);
    };
    let mut pid = given;
    for listener in listeners {
        let serving: Vec<&Socket> = sockets.iter().filter(|socket| socket.serves(&listener)).collect();
        let processes: Vec<&Process> = serving.iter().filter_map(|s| owners.get(&s.inode)).flatten().collect();
        let own = processes.iter().find(|process| given.map_or(process.name == NAME, |pid| process.pid == pid));
        match (serving.is_empty(), own, processes.first()) {
            (true, ..) => missing.push(listener),
            // Its store, or a socket unit: what comes in waits there for the server's start.
            (false, None, Some(_)) if processes.iter().all(|process| process.pid == SERVICE_MANAGER) => {
                kept.push(listener)
            }
            (false, None, Some(other)) => {
                let message = format!("{} belongs to {} (process {})", shown(&listener), other.name, other.pid);
                steps.push(finding("server", Status::Fail, format!("{message}, not to turnstone")));
            }
            (false, own, _) => {
                pid = pid.or(own.map(|process| process.pid));
                open.push(listener);
            }
        }
    }
    let pid = pid.or(match servers.as_slice() {
        [only] if !open.is_empty() => Some(only.pid),
        _ => None,
    });
    if !kept.is_empty() {
        let list = kept.iter().map(shown).collect::<Vec<_>>().join(", ");
        let state = if open.is_empty() { "the server does not run" } else { "the server runs without them" };
        let message = format!(
            "{state}: only the service manager has {list} open, for the next start: systemctl status turnstone"
        );
        steps.push(finding("server", Status::Fail, message));
    }
    let is_absent = open.is_empty() && !config.listeners.is_empty();
    let list = missing.iter().map(shown).collect::<Vec<_>>().join(", ");
    if is_absent && !missing.is_empty() {
        let message = format!("the server does not run: nothing listens on {list}");
        steps.push(finding("server", Status::Fail, message));
    } else if !missing.is_empty() {
        let message = format!(
            "nothing listens on {list}, though the server runs: listeners of a changed configuration need a restart"
        );
        steps.push(finding("server", Status::Fail, message));
    } else if !open.is_empty() && kept.is_empty() {
        let process = match pid {
            Some(pid) => format!("process {pid} runs"),
            None => "it runs; which process it is, root can see".to_owned(),
        };
        let message = match open.len() {
            1 => format!("{process}, and its listener is open"),
            number => format!("{process}, and all {number} listeners are open"),
        };
        steps.push(finding("server", Status::Ok, message).fact("pid", pid));
    }
    let is_running = !open.is_empty();
    (Server { is_absent, is_running, pid, sockets, open }, steps)
}

fn shown(listener: &Listener) -> String {
    format!("{} {}", listener.transport, listener.address)
}

/// Whose limits are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The server's, which runs.
    Server(u32),
    /// Those of a process that is not the server, and whose soft limit says little about it.
    ThisProcess,
}

/// Whether there may be as many descriptors as relays and client connections need: each is one. `limits` is the text of
/// /proc/PID/limits; without the line `Max open files` there is nothing to say.
pub fn judge_descriptors(config: &Config, limits: &str, whose: Whose) -> Option<Step> {
    let (soft, hard) = read_open_files(limits)?;
    let (limit, who) = match whose {
        Whose::Server(pid) => (soft, format!("the server (process {pid})")),
        Whose::ThisProcess => (hard, "this process".to_owned()),
    };
    let WantedSockets { listeners, relays, connections: streams, peers, web } = config.wanted_sockets();
    let outward = Outward { peers, web };
    let Descriptors { needed, connections, .. } = Descriptors::share_out(limit, listeners, relays, streams, outward);
    let more = match outward {
        Outward { peers: 0, web: 0 } => String::new(),
        Outward { peers, web } => {
            format!(", and as many as {} to peers of TCP relays and web servers,", peers.saturating_add(web))
        }
    };
    let step = if needed > limit {
        let (what, remedy) = match streams {
            0 => ("not every relay port can be used then (508)".to_owned(), "or narrow the port range"),
            _ => (
                format!("it accepts at most {connections} connections then, and the relays have the rest"),
                "narrow the port range, or lower connections-max",
            ),
        };
        let message = format!(
            "{relays} relays and {streams} connections{more} may need {needed} descriptors, but {who} may have {limit}: {what}; raise \
             LimitNOFILE= of the unit (ulimit -n), {remedy}"
        );
        finding("descriptors", Status::Warn, message)
    } else {
        let allowed = if limit == u64::MAX { "any number".to_owned() } else { limit.to_string() };
        finding("descriptors", Status::Ok, format!("{needed} at most, {allowed} allowed"))
    };
    Some(step.fact("needed", needed).fact("limit", limit))
}

/// The soft and the hard limit of open files; `u64::MAX` for unlimited.
fn read_open_files(limits: &str) -> Option<(u64, u64)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let number = |text: &str| if text == "unlimited" { Some(u64::MAX) } else { text.parse().ok() };
    let mut values = line.split_whitespace().map(number);
    Some((values.next()??, values.next()??))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::config;
    use super::*;
    use crate::addr::Transport;

    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
        1234: 0100007F:0D96 00000000:0000 07 00000000:00000000 00:00000000 00000000   990        0 4711 2 0000000000000000 17\n\
        garbage\n 99: 0100:0D96 00000000:0000 07 0:0 0:0 0 0 0 4712 2 0 0\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st\n\
        0: 00000000000000000000000000000000:0D96 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 815 1 0 100 0 0 10 0\n\
        1: B80D0120000000000000000001000000:0D96 00000000000000000000000000000000:0000 01 00000000:00000000 00:00000000 00000000 0 0 816 1 0 100 0 0 10 0\n";

    fn listener(transport: Transport, address: &str) -> Listener {
        Listener { transport, address: address.parse().unwrap(), options: Arc::default() }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn socket_tables_are_read_and_only_listening_tcp_counts() {
        let expected =
            Socket { kind: SocketKind::Udp, local: "127.0.0.1:3478".parse().unwrap(), inode: 4711, drops: 17 };
        assert_eq!(read_table(UDP, SocketKind::Udp), [expected]);
        let [any]: [Socket; 1] = read_table(TCP6, SocketKind::Tcp).try_into().unwrap();
        assert_eq!((any.local, any.inode, any.drops), ("[::]:3478".parse().unwrap(), 815, 0));
        assert_eq!(read_address("B80D0120000000000000000001000000:0001"), "[2001:db8::1]:1".parse().ok());
        for text in ["", "0100007F", "0100007F:x", "0100007F0100007F:1", "zz00007F:1", "0100007\u{fc}:1"] {
            assert_eq!(read_address(text), None, "{text}");
        }
    }

    #[test]
    fn a_wildcard_socket_serves_its_family_and_the_one_of_ipv6_both() {
        let socket = |local: &str| Socket { kind: SocketKind::Tcp, local: local.parse().unwrap(), inode: 1, drops: 0 };
        let wanted = &listener(Transport::Tls, "192.0.2.1:443");
        assert!(socket("0.0.0.0:443").serves(wanted) && socket("[::]:443").serves(wanted));
        assert!(socket("192.0.2.1:443").serves(wanted));
        assert!(!socket("192.0.2.2:443").serves(wanted) && !socket("0.0.0.0:444").serves(wanted));
        assert!(!socket("0.0.0.0:443").serves(&listener(Transport::Tls, "[::1]:443")));
        assert!(!socket("0.0.0.0:443").serves(&listener(Transport::Udp, "192.0.2.1:443")));
    }

    /// What is found of a server with a UDP and a TCP listener, when these sockets are open, all owned by one program.
    fn found(open: &[&str], owner: Option<&str>) -> (Server, Vec<(Status, String)>) {
        let config = config("[[listen]]\naddress = \"127.0.0.1:3478\"\ntransport = [\"udp\", \"tcp\"]\n");
        let local = "127.0.0.1:3478".parse().unwrap();
        let kind = |name: &str| Transport::from_name(name).unwrap().socket_kind();
        let sockets = open.iter().map(|name| Socket { kind: kind(name), local, inode: 5, drops: 0 }).collect();
        let owner = owner.map(|name| (5, vec![Process { pid: 7, name: name.to_owned() }]));
        let (server, steps) = find(&config, Some(sockets), &owner.into_iter().collect(), Vec::new(), None);
        (server, steps.into_iter().map(|step| (step.status, step.message)).collect())
    }

    #[test]
    fn a_running_server_is_known_by_the_owner_of_its_sockets() {
        let (server, steps) = found(&["udp", "tcp"], Some("turnstone"));
        assert_eq!((server.pid, server.open.len(), server.is_running), (Some(7), 2, true));
        assert_eq!(steps, [(Status::Ok, "process 7 runs, and all 2 listeners are open".to_owned())]);
        let (server, steps) = found(&["udp", "tcp"], None);
        assert_eq!((server.pid, server.open.len(), steps[0].0), (None, 2, Status::Ok));
    }

    #[test]
    fn a_stopped_server_a_missing_listener_and_a_stranger_on_the_port_are_told_apart() {
        let (server, steps) = found(&[], None);
        assert!(!server.may_run() && server.open.is_empty());
        let message = "the server does not run: nothing listens on udp 127.0.0.1:3478, tcp 127.0.0.1:3478";
        assert_eq!(steps, [(Status::Fail, message.to_owned())]);
        let (server, steps) = found(&["udp"], Some("turnstone"));
        assert_eq!(server.open.len(), 1);
        assert!(steps.len() == 1 && steps[0].1.starts_with("nothing listens on tcp 127.0.0.1:3478, though"));
        let (server, steps) = found(&["udp", "tcp"], Some("turnserver"));
        assert!(!server.may_run() && steps.len() == 2, "{steps:?}");
        assert_eq!(steps[0].1, "udp 127.0.0.1:3478 belongs to turnserver (process 7), not to turnstone");
    }

    #[test]
    fn sockets_that_only_the_service_manager_has_are_kept_for_the_server() {
        let config = config("");
        let local = config.listeners[0].address;
        let socket = Socket { kind: SocketKind::Udp, local, inode: 5, drops: 0 };
        let process = |pid, name: &str| Process { pid, name: name.to_owned() };
        let find = |owners: Vec<Process>| {
            let (server, steps) = find(&config, Some(vec![socket]), &HashMap::from([(5, owners)]), Vec::new(), None);
            (server, steps[0].status, steps[0].message.clone())
        };
        let (server, status, message) = find(vec![process(1, "systemd")]);
        assert!(!server.may_run() && status == Status::Fail, "{message}");
        assert!(
            message.starts_with("the server does not run: only the service manager has udp 127.0.0.1:3478 open"),
            "{message}"
        );
        let (server, status, _) = find(vec![process(1, "systemd"), process(7, "turnstone")]);
        assert_eq!((server.pid, status), (Some(7), Status::Ok));
        let (_, _, message) = find(vec![process(1, "systemd"), process(7, "coturn")]);
        assert!(message.contains("not to turnstone"), "{message}");
    }

    #[test]
    fn without_a_look_at_the_sockets_every_listener_is_tried() {
        let config = config("");
        let (server, steps) = find(&config, None, &HashMap::new(), Vec::new(), Some(9));
        assert_eq!((server.open, server.pid), (config.listeners.clone(), Some(9)));
        assert_eq!(steps[0].status, Status::Note);
    }

    #[test]
    fn descriptors_are_judged_by_the_soft_limit_of_the_server() {
        let limits = |soft: &str, hard: &str| {
            format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax open files            {soft}        {hard}      files \n"
            )
        };
        let config = config("[relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nports = \"50000-50999\"\n");
        let status = |text: &str, whose| judge_descriptors(&config, text, whose).map(|step| step.status);
        let server = Whose::Server(7);
        assert_eq!(status(&limits("1024", "65536"), server), Some(Status::Warn));
        assert_eq!(status(&limits("1024", "65536"), Whose::ThisProcess), Some(Status::Ok));
        assert_eq!(status(&limits("unlimited", "unlimited"), server), Some(Status::Ok));
        for text in ["", "Max open files", "Max open files many more"] {
            assert_eq!(status(text, server), None, "{text}");
        }
    }
}
