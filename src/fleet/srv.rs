//! SRV records (RFC 2782) by the name servers of the system: a question over UDP, and over TCP where the answer has no room. The system's
//! own resolver knows addresses alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::config::FleetConfig;

/// One question to one server.
const ASK_LIMIT: Duration = Duration::from_millis(1200);
const SERVERS_MAX: usize = 3;
const PORT: u16 = 53;
/// What is taken over UDP (the size that gets through anywhere, by the DNS Flag Day of 2020), and over TCP.
const UDP_BYTES_MAX: usize = 1232;
const RESOLV_CONF: &str = "/etc/resolv.conf";
const NAME_BYTES_MAX: usize = 253;
/// Names are written with references to earlier ones, which could go round.
const REFERENCES_MAX: usize = 32;

const HEADER_BYTES: usize = 12;
const TYPE_SRV: u16 = 33;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why a name leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SrvError {
    /// Nobody has answered.
    #[error("no name server has answered in time")]
    Silent,
    /// There is no such name.
    #[error("there is no such name")]
    NoName,
    /// There are no such records.
    #[error("it has no SRV records")]
    NoRecords,
    /// The server says why not.
    #[error("the name server does not say (code {0})")]
    Refused(u8),
    /// What is said makes no sense.
    #[error("the name server's answer is no answer")]
    Malformed,
    /// There is more than has room.
    #[error("the answer is cut short")]
    Truncated,
}

/// Looks a name up.
pub(super) async fn look_up(name: &str) -> Result<Vec<Target>, SrvError> {
    let servers = servers(
        &tokio::task::spawn_blocking(|| std::fs::read_to_string(RESOLV_CONF))
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default(),
    );
    let mut last = SrvError::Silent;
    for _ in 0..2 {
        for server in &servers {
            match timeout(ASK_LIMIT, ask(*server, name)).await {
                Ok(Ok(targets)) => return Ok(targets),
                // Another server would say the same.
                Ok(Err(error @ (SrvError::NoName | SrvError::NoRecords))) => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
    }
    Err(last)
}

fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let mut found: Vec<_> = resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok())
        .map(|ip: IpAddr| SocketAddr::new(ip, PORT))
        .take(SERVERS_MAX)
        .collect();
    if found.is_empty() {
        found.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    found
}

async fn ask(server: SocketAddr, name: &str) -> Result<Vec<Target>, SrvError> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|_| SrvError::Silent)?;
    let question = question(id, name).ok_or(SrvError::NoName)?;
    match over_udp(server, &question).await {
        Err(SrvError::Truncated) => over_tcp(server, &question).await,
        found => found,
    }
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> Result<Vec<Target>, SrvError> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(|_| SrvError::Silent)?;
    socket.connect(server).await.map_err(|_| SrvError::Silent)?;
    socket.send(question).await.map_err(|_| SrvError::Silent)?;
    let mut answer = vec![0; UDP_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await.map_err(|_| SrvError::Silent)?;
        let answer = answer.get(..length).unwrap_or_default();
        // A guess of somebody else is not the answer, which is waited for.
        if is_to(answer, question) {
            return read(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> Result<Vec<Target>, SrvError> {
    let mut stream = TcpStream::connect(server).await.map_err(|_| SrvError::Silent)?;
    let length = u16::try_from(question.len()).map_err(|_| SrvError::Malformed)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await.map_err(|_| SrvError::Silent)?;
    let length = stream.read_u16().await.map_err(|_| SrvError::Silent)?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.map_err(|_| SrvError::Silent)?;
    if is_to(&answer, question) { read(&answer) } else { Err(SrvError::Malformed) }
}

/// A question for SRV records, with room for an answer beyond 512 bytes (RFC 6891).
fn question(id: [u8; 2], name: &str) -> Option<Vec<u8>> {
    let mut message = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    for word in [TYPE_SRV, CLASS_IN] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    // The root, OPT, the size, no flags, no options.
    message.push(0);
    for word in [TYPE_OPT, UDP_BYTES_MAX as u16, 0, 0, 0] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    Some(message)
}

/// Whether it answers this question: the same number, and the same name as it was written, whatever the case.
fn is_to(answer: &[u8], question: &[u8]) -> bool {
    let end = question.len().saturating_sub(11);
    let (asked, said) = (question.get(HEADER_BYTES..end), answer.get(HEADER_BYTES..end));
    let is_answer = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    is_answer
        && answer.get(..2) == question.get(..2)
        && asked.zip(said).is_some_and(|(asked, said)| asked.eq_ignore_ascii_case(said))
}

/// The targets in an answer, those that clients shall try first first.
pub(super) fn read(message: &[u8]) -> Result<Vec<Target>, SrvError> {
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at.checked_add(1)?)?]));
    let flags = word(2).ok_or(SrvError::Malformed)?;
    match flags & 0xf {
        0 => {}
        3 => return Err(SrvError::NoName),
        code => return Err(SrvError::Refused(code as u8)),
    }
    if flags & 0x0200 != 0 {
        return Err(SrvError::Truncated);
    }
    let (questions, answers) = word(4).zip(word(6)).ok_or(SrvError::Malformed)?;
    let mut at = HEADER_BYTES;
    for _ in 0..questions {
        at = name_at(message, at).ok_or(SrvError::Malformed)?.1.saturating_add(4);
    }
    let mut found: Vec<(u16, Target)> = Vec::new();
    for _ in 0..answers {
        let (_, head) = name_at(message, at).ok_or(SrvError::Malformed)?;
        let (kind, class) = word(head).zip(word(head + 2)).ok_or(SrvError::Malformed)?;
        let length = word(head + 8).ok_or(SrvError::Malformed)?;
        let data = head + 10;
        at = data + usize::from(length);
        if at > message.len() {
            return Err(SrvError::Malformed);
        }
        if (kind, class) != (TYPE_SRV, CLASS_IN) {
            continue;
        }
        let (priority, port) = word(data).zip(word(data + 4)).ok_or(SrvError::Malformed)?;
        let (host, end) = name_at(message, data + 6).ok_or(SrvError::Malformed)?;
        if end > at {
            return Err(SrvError::Malformed);
        }
        // The root says that there is no such service.
        if !host.is_empty() && port > 0 && found.len() < FleetConfig::NODES_MAX {
            found.push((priority, Target { host, port }));
        }
    }
    found.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.host.cmp(&b.host)));
    match found.is_empty() {
        true => Err(SrvError::NoRecords),
        false => Ok(found.into_iter().map(|(_, target)| target).collect()),
    }
}

/// A name, and what follows it in the message. A host's: of letters, digits, dashes and underscores.
fn name_at(message: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut at, mut end, mut references) = (start, None, 0);
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some((name, end.unwrap_or(at + 1))),
            1..=63 => {
                let label = message.get(at + 1..at + 1 + length)?;
                let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                if !label.iter().all(is_fit) || name.len() + length + 1 > NAME_BYTES_MAX {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
                at += 1 + length;
            }
            192.. => {
                let low = usize::from(*message.get(at + 1)?);
                end.get_or_insert(at + 2);
                references += 1;
                if references > REFERENCES_MAX {
                    return None;
                }
                at = (length & 0x3f) << 8 | low;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to a question for `_turnstone._tcp.example.org` with these records: priority, port, target.
    fn answer(records: &[(u16, u16, &str)]) -> (Vec<u8>, Vec<u8>) {
        let question = question([7, 9], "_turnstone._tcp.example.org").unwrap();
        let mut message = question[..question.len() - 11].to_vec();
        (message[2], message[3], message[7], message[11]) = (0x81, 0x80, records.len() as u8, 0);
        for (priority, port, target) in records {
            let mut data = [priority.to_be_bytes(), 5_u16.to_be_bytes(), port.to_be_bytes()].concat();
            for label in target.split('.').filter(|label| !label.is_empty()) {
                data.push(label.len() as u8);
                data.extend_from_slice(label.as_bytes());
            }
            data.push(0);
            // The owner is a reference to the question.
            message.extend_from_slice(&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
            message.extend_from_slice(&(data.len() as u16).to_be_bytes());
            message.extend_from_slice(&data);
        }
        (question, message)
    }

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.to_owned(), port }
    }

    #[test]
    fn targets_come_by_priority_and_the_root_is_none() {
        let (question, message) =
            answer(&[(20, 1, "b.example.org"), (10, 2, "A.example.org"), (10, 3, ""), (1, 0, "c.d")]);
        assert!(is_to(&message, &question));
        assert_eq!(read(&message), Ok(vec![target("a.example.org", 2), target("b.example.org", 1)]));
        assert_eq!(read(&answer(&[]).1), Err(SrvError::NoRecords));
        let mut other = message.clone();
        other[0] ^= 1;
        assert!(!is_to(&other, &question), "another number");
        other = message.clone();
        other[14] ^= 1;
        assert!(!is_to(&other, &question), "another name");
        assert!(!is_to(&question, &question), "a question");
    }

    #[test]
    fn what_a_server_says_wrongly_is_no_answer_and_reads_no_further_than_there_is() {
        let (_, message) = answer(&[(1, 1, "a.example.org"), (2, 2, "b.example.org")]);
        for length in 0..message.len() {
            assert!(read(&message[..length]).is_err(), "{length}");
        }
        // Any byte turned over: an error or an answer, but never a panic.
        for at in 0..message.len() {
            for bit in 0..8 {
                let mut other = message.clone();
                other[at] ^= 1 << bit;
                let _ = read(&other);
            }
        }
        let code = |flags: [u8; 2]| {
            let mut other = message.clone();
            (other[2], other[3]) = (flags[0], flags[1]);
            read(&other).unwrap_err()
        };
        assert_eq!(code([0x81, 0x83]), SrvError::NoName);
        assert_eq!(code([0x81, 0x82]), SrvError::Refused(2));
        assert_eq!(code([0x83, 0x80]), SrvError::Truncated);
        // A name that refers to itself.
        let mut round = answer(&[(1, 1, "a.example.org")]).1;
        let owner = round.len() - 10 - 2 - 6 - 15;
        assert_eq!(round[owner], 0xc0);
        (round[owner], round[owner + 1]) = (0xc0, owner as u8);
        assert_eq!(read(&round), Err(SrvError::Malformed));
    }

    #[test]
    fn name_servers_are_those_of_the_system_and_three_at_most() {
        let of = |text: &str| servers(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            of("# x\nnameserver 192.0.2.1\noptions edns0\nnameserver 2001:db8::1 # y\nnameserver x\n"),
            ["192.0.2.1:53", "[2001:db8::1]:53"]
        );
        assert_eq!(of(&"nameserver 192.0.2.1\n".repeat(9)).len(), 3);
        assert_eq!(of(""), ["127.0.0.1:53"]);
    }
}
