//! Listener sockets that this process was started with: from a socket unit of the service manager, or kept in its store
//! while the server was restarted (sd_listen_fds(3)).
//!
//! What comes is judged by what it is, not by its name. Names only keep the order: a socket's number in its address's
//! group (SO_REUSEPORT) stays the same from start to start.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Type};
use turnstone_turn::addr::SocketKind;

use super::sys;

const PID: &str = "LISTEN_PID";
const COUNT: &str = "LISTEN_FDS";
const NAMES: &str = "LISTEN_FDNAMES";
const PID_FD: &str = "LISTEN_PIDFDID";

/// The name under which the service manager keeps the `number`-th socket of a kind on this address, e.g.
/// `listen-udp-203.0.113.5-3478-0`; in it a colon, which names must not have, is an underscore.
pub fn name_in_store(kind: SocketKind, address: SocketAddr, number: u32) -> String {
    format!("{}{number}", stem(kind, address))
}

fn stem(kind: SocketKind, address: SocketAddr) -> String {
    let kind = match kind {
        SocketKind::Udp => "udp",
        SocketKind::Tcp => "tcp",
    };
    format!("listen-{kind}-{}-{}-", address.ip(), address.port()).replace(':', "_")
}

/// Why the sockets that were passed cannot be taken. The message names the variable.
#[derive(Debug)]
pub struct InheritError(String);

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InheritError {}

/// The sockets that were passed and that nobody has asked for yet.
#[derive(Debug, Default)]
pub struct Inherited {
    passed: Vec<Passed>,
}

#[derive(Debug)]
struct Passed {
    name: String,
    fd: OwnedFd,
    is: Result<(SocketKind, SocketAddr), String>,
}

/// A socket that is used again.
#[derive(Debug)]
pub struct Adopted {
    /// The socket.
    pub socket: OwnedFd,
    /// Its number, if it comes from the store; `None` if a socket unit holds it.
    pub number: Option<u32>,
}

/// A descriptor that no listener asked for; dropping it closes it.
#[derive(Debug)]
pub struct Leftover {
    /// The name it was passed with.
    pub name: String,
    /// What it is, for people.
    pub what: String,
    /// Whether it is a listener socket of ours, that the configuration had earlier.
    pub was_listener: bool,
    _fd: OwnedFd,
}

impl Inherited {
    /// Takes what was passed to this process, and removes the variables that tell of it. Call it at the start, before
    /// there are other threads; a second call gets nothing.
    ///
    /// # Errors
    /// [`InheritError`] when the variables contradict themselves or the descriptors there are.
    pub fn take() -> Result<Self, InheritError> {
        let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let (pid, count, names) = (variable(PID), variable(COUNT), variable(NAMES));
        sys::remove_variables(&[PID, COUNT, NAMES, PID_FD]);
        let (Some(pid), Some(count)) = (pid, count) else { return Ok(Self::default()) };
        let names = parse(&pid, std::process::id(), &count, names.as_deref())?;
        let fds = sys::take_passed_descriptors(names.len())
            .map_err(|error| InheritError(format!("{COUNT}={count}: {error}")))?;
        Ok(Self { passed: fds.into_iter().zip(names).map(|(fd, name)| Passed::new(name, fd)).collect() })
    }

    /// The sockets on this address: first those without a number, in the order they were passed, then by their number.
    pub fn adopt(&mut self, kind: SocketKind, address: SocketAddr) -> Vec<Adopted> {
        let stem = stem(kind, address);
        let passed = std::mem::take(&mut self.passed);
        let (asked_for, rest): (Vec<_>, Vec<_>) =
            passed.into_iter().partition(|passed| passed.is == Ok((kind, address)));
        self.passed = rest;
        let mut cookies = Vec::new();
        let mut adopted = Vec::new();
        for Passed { name, fd, .. } in asked_for {
            // The same socket twice would give a client's datagrams to two workers.
            let cookie = SockRef::from(&fd).cookie().ok();
            if cookie.is_some() && cookies.contains(&cookie) {
                continue;
            }
            cookies.push(cookie);
            let number = name.strip_prefix(&stem).and_then(|number| number.parse().ok());
            adopted.push(Adopted { socket: fd, number });
        }
        adopted.sort_by_key(|adopted| adopted.number);
        adopted
    }

    /// What nobody has asked for.
    pub fn leftovers(self) -> impl Iterator<Item = Leftover> {
        self.passed.into_iter().map(|Passed { name, fd, is }| {
            let was_listener = is.as_ref().is_ok_and(|(kind, address)| name.starts_with(&stem(*kind, *address)));
            let what = match is {
                Ok((SocketKind::Udp, address)) => format!("udp/{address}"),
                Ok((SocketKind::Tcp, address)) => format!("tcp/{address}"),
                Err(what) => what,
            };
            Leftover { name, what, was_listener, _fd: fd }
        })
    }
}

/// The names of the descriptors, as many as there are; none when they are another process's.
fn parse(pid: &str, own_pid: u32, count: &str, names: Option<&str>) -> Result<Vec<String>, InheritError> {
    let bad = |name, value, what: &str| InheritError(format!("{name}={value:?}: {what}"));
    let pid: u32 = pid.parse().map_err(|_| bad(PID, pid, "is not the number of a process"))?;
    if pid != own_pid {
        return Ok(Vec::new());
    }
    let number: u16 = count.parse().map_err(|_| bad(COUNT, count, "is not a number of descriptors"))?;
    let number = usize::from(number);
    let Some(names) = names else { return Ok(vec!["unknown".to_owned(); number]) };
    let listed: Vec<_> = names.split(':').map(str::to_owned).collect();
    match number {
        0 => Ok(Vec::new()),
        _ if listed.len() == number => Ok(listed),
        _ => Err(bad(NAMES, names, &format!("has {} names for {number} descriptors", listed.len()))),
    }
}

impl Passed {
    fn new(name: String, fd: OwnedFd) -> Self {
        let is = judge(&fd).unwrap_or_else(|error| match error.raw_os_error() {
            Some(libc::ENOTSOCK) => Err("no socket".to_owned()),
            _ => Err(format!("a socket that cannot be judged ({error})")),
        });
        Self { name, fd, is }
    }
}

/// What a descriptor is: a listener socket, or the reason why it is none.
fn judge(fd: &OwnedFd) -> io::Result<Result<(SocketKind, SocketAddr), String>> {
    let socket = SockRef::from(fd);
    let kind = match (socket.domain()?, socket.r#type()?, socket.protocol()?) {
        (Domain::IPV4 | Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)) => SocketKind::Udp,
        (Domain::IPV4 | Domain::IPV6, Type::STREAM, Some(Protocol::TCP)) => SocketKind::Tcp,
        _ => return Ok(Err("a socket of neither UDP nor TCP".to_owned())),
    };
    let Some(address) = socket.local_addr()?.as_socket() else { return Ok(Err("a socket without address".to_owned())) };
    let reason = match kind {
        SocketKind::Udp if address.port() == 0 => "is not bound",
        SocketKind::Udp if socket.peer_addr().is_ok() => "is connected",
        SocketKind::Tcp if !socket.is_listener()? => "does not listen",
        _ if address.is_ipv6() && address.ip().is_unspecified() && !socket.only_v6()? => {
            "takes IPv4, too (its socket unit needs BindIPv6Only=ipv6-only)"
        }
        _ => return Ok(Ok((kind, address))),
    };
    Ok(Err(format!("a socket on {address} that {reason}")))
}

#[cfg(test)]
mod tests {
    use super::super::{bind_tcp_listener, bind_udp_listener};
    use super::*;
    use socket2::Socket;

    fn passed(sockets: Vec<(String, OwnedFd)>) -> Inherited {
        Inherited { passed: sockets.into_iter().map(|(name, fd)| Passed::new(name, fd)).collect() }
    }

    fn address_of(fd: &OwnedFd) -> SocketAddr {
        SockRef::from(fd).local_addr().unwrap().as_socket().unwrap()
    }

    fn cookie(fd: &OwnedFd) -> u64 {
        SockRef::from(fd).cookie().unwrap()
    }

    #[test]
    fn sockets_come_back_in_the_order_of_their_numbers_whatever_order_they_are_passed_in() {
        let first = bind_udp_listener("[::1]:0".parse().unwrap()).unwrap();
        let address = address_of(&first);
        let mut sockets = vec![first];
        sockets.extend((1..12).map(|_| bind_udp_listener(address).unwrap()));
        let unit = bind_udp_listener(address).unwrap();
        let mut expected = vec![cookie(&unit)];
        expected.extend(sockets.iter().map(cookie));
        let names = (0..).map(|number| name_in_store(SocketKind::Udp, address, number));
        let mut list: Vec<_> = names.zip(sockets).collect();
        list.reverse();
        list.insert(3, ("turnstone.socket".to_owned(), unit));
        let mut inherited = passed(list);
        let adopted = inherited.adopt(SocketKind::Udp, address);
        assert_eq!(adopted.iter().map(|adopted| cookie(&adopted.socket)).collect::<Vec<_>>(), expected);
        let numbers: Vec<_> = adopted.iter().map(|adopted| adopted.number).collect();
        assert_eq!(numbers, [None].into_iter().chain((0..12).map(Some)).collect::<Vec<_>>());
        assert_eq!(inherited.leftovers().count(), 0);
    }

    #[test]
    fn a_socket_is_adopted_for_its_own_protocol_and_address_only() {
        let udp = bind_udp_listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = address_of(&udp);
        let mut inherited = passed(vec![("unknown".to_owned(), udp)]);
        assert!(inherited.adopt(SocketKind::Tcp, address).is_empty());
        assert!(
            inherited.adopt(SocketKind::Udp, SocketAddr::new("127.0.0.2".parse().unwrap(), address.port())).is_empty()
        );
        assert_eq!(inherited.adopt(SocketKind::Udp, address).len(), 1);
        assert!(inherited.adopt(SocketKind::Udp, address).is_empty());
    }

    #[test]
    fn the_same_socket_passed_twice_is_adopted_once() {
        let tcp = bind_tcp_listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let (address, twin) = (address_of(&tcp), tcp.try_clone().unwrap());
        let mut inherited = passed(vec![("a".to_owned(), tcp), ("b".to_owned(), twin)]);
        assert_eq!(inherited.adopt(SocketKind::Tcp, address).len(), 1);
    }

    #[test]
    fn what_is_no_listener_is_left_over_with_the_reason() {
        let connected = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect("127.0.0.1:9").unwrap();
        let dual = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        dual.set_only_v6(false).unwrap();
        dual.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        dual.listen(1).unwrap();
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let ours = bind_udp_listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let our_name = name_in_store(SocketKind::Udp, address_of(&ours), 0);
        let cases: Vec<(&str, OwnedFd)> = vec![
            ("no socket", std::fs::File::open("/dev/null").unwrap().into()),
            ("neither UDP nor TCP", std::os::unix::net::UnixDatagram::unbound().unwrap().into()),
            ("is connected", connected.into()),
            ("is not bound", Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap().into()),
            ("does not listen", silent.into()),
            ("BindIPv6Only=ipv6-only", dual.into()),
        ];
        let (reasons, fds): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        let mut sockets: Vec<_> = fds.into_iter().map(|fd| ("unknown".to_owned(), fd)).collect();
        sockets.push((our_name.clone(), ours));
        let leftovers: Vec<_> = passed(sockets).leftovers().collect();
        for (reason, leftover) in reasons.iter().zip(&leftovers) {
            assert!(leftover.what.contains(reason) && !leftover.was_listener, "{reason}: {leftover:?}");
        }
        let last = leftovers.last().unwrap();
        assert!(last.was_listener && last.name == our_name && last.what.starts_with("udp/127.0.0.1:"), "{last:?}");
    }

    #[test]
    fn names_have_no_character_that_the_service_manager_forbids() {
        for address in ["203.0.113.5:3478", "[2001:db8::1]:443", "[::]:65535"] {
            for kind in [SocketKind::Udp, SocketKind::Tcp] {
                let name = name_in_store(kind, address.parse().unwrap(), 511);
                assert!(name.len() < 255 && name.chars().all(|c| c.is_ascii_graphic() && c != ':'), "{name}");
            }
        }
        let name = name_in_store(SocketKind::Udp, "203.0.113.5:3478".parse().unwrap(), 0);
        assert_eq!(name, "listen-udp-203.0.113.5-3478-0");
    }

    #[test]
    fn variables_that_contradict_themselves_are_refused_with_their_name() {
        let parse = |pid, count, names| parse(pid, 42, count, names).map_err(|error| error.to_string());
        assert_eq!(parse("42", "2", Some("a:b")).unwrap(), ["a", "b"]);
        assert_eq!(parse("42", "2", None).unwrap(), ["unknown", "unknown"]);
        assert_eq!(parse("42", "2", Some(":")).unwrap(), ["", ""]);
        assert_eq!(parse("42", "0", Some("")).unwrap(), [""; 0]);
        assert_eq!(parse("7", "nonsense", Some("a")).unwrap(), [""; 0], "another process's");
        for (pid, count, names, name) in [
            ("me", "1", None, PID),
            ("42", "-1", None, COUNT),
            ("42", "99999999", None, COUNT),
            ("42", "1", Some("a:b"), NAMES),
        ] {
            assert!(parse(pid, count, names).unwrap_err().starts_with(name), "{pid} {count} {names:?}");
        }
    }
}
