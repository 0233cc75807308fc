//! What STUN servers see (RFC 8489): asked by UDP from the relay's own address, because another one may be mapped to another.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::addr::Family;
use crate::config::StunServer;
use crate::stun::{AttributeType, Class, Encoder, Message, Method, TransactionId};

use super::failure::{Failure, public};
use super::resolver::Resolver;

/// When a request is sent again, counted from the first time, and when it is given up (RFC 8489 section 6.2.1, cut short).
const SENDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_millis(1500)];
const GIVE_UP: Duration = Duration::from_millis(3000);
/// No answer to a bare Binding request is longer.
const ANSWER_BYTES_MAX: usize = 1500;

/// Asks all servers at once. One that stands alone is believed; of several, two must say the same, and more than say anything else.
pub(super) async fn ask(resolver: &Resolver, servers: &[&StunServer], bind: IpAddr) -> Result<IpAddr, Failure> {
    let family = Family::of(bind);
    let mut asked: Vec<SocketAddr> = Vec::new();
    let mut answers: Vec<(String, Result<IpAddr, Failure>)> = Vec::new();
    let mut tasks = JoinSet::new();
    for server in servers {
        let who = server.to_string();
        let found = resolver.look_up(&server.host).await.and_then(|found| {
            let of_family = found.into_iter().find(|ip| Family::of(*ip) == family);
            of_family.ok_or_else(|| Failure::NoAddress { name: server.host.clone(), family })
        });
        match found.map(|ip| SocketAddr::new(ip, server.port)) {
            // One server by two names has one voice.
            Ok(address) if asked.contains(&address) => {}
            Ok(address) => {
                asked.push(address);
                tasks.spawn(async move {
                    let answer = exchange(&who, bind, address).await.and_then(|ip| public(&who, ip, family));
                    (who, answer)
                });
            }
            Err(failure) => answers.push((who, Err(failure))),
        }
    }
    while let Some(answer) = tasks.join_next().await {
        answers.extend(answer);
    }
    agreed(servers.len(), answers)
}

/// What so many servers as are named have said, or why it does not count.
fn agreed(named: usize, mut answers: Vec<(String, Result<IpAddr, Failure>)>) -> Result<IpAddr, Failure> {
    if let (1, [(_, answer)]) = (named, &*answers) {
        return answer.clone();
    }
    answers.sort_by(|(one, _), (other, _)| one.cmp(other));
    let said = || answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let votes = |ip: &IpAddr| said().filter(|said| *said == ip).count();
    if let Some(most) = said().max_by_key(|ip| votes(ip))
        && votes(most) >= 2
        && said().filter(|ip| *ip != most).all(|ip| votes(ip) < votes(most))
    {
        return Ok(*most);
    }
    let mut told = String::new();
    for (who, answer) in &answers {
        let separator = if told.is_empty() { "" } else { "; " };
        let _ = match answer {
            Ok(ip) => write!(told, "{separator}{who} says {ip}"),
            Err(failure) => write!(told, "{separator}{failure}"),
        };
    }
    Err(Failure::NoAgreement(told))
}

async fn exchange(who: &str, bind: IpAddr, server: SocketAddr) -> Result<IpAddr, Failure> {
    let unreachable = |error: io::Error| Failure::unreachable(who, &error);
    let socket = UdpSocket::bind((bind, 0)).await.map_err(unreachable)?;
    // Only what this server sends is received.
    socket.connect(server).await.map_err(unreachable)?;
    let mut id = [0; 12];
    getrandom::fill(&mut id).map_err(|error| unreachable(io::Error::other(error)))?;
    let id = TransactionId(id);
    let mut request = Vec::new();
    Encoder::new(&mut request, Class::Request, Method::BINDING, id).fingerprint();
    let (started, mut buffer) = (Instant::now(), [0; ANSWER_BYTES_MAX]);
    for (index, _) in SENDS.iter().enumerate() {
        socket.send(&request).await.map_err(unreachable)?;
        let until = started + SENDS.get(index + 1).copied().unwrap_or(GIVE_UP);
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            let len = received.map_err(unreachable)?;
            // Whatever is not the answer to this very question may have been sent by anybody.
            if let Some(answer) = buffer.get(..len).and_then(|bytes| read(who, bytes, id)) {
                return answer;
            }
        }
    }
    Err(Failure::Silent { who: who.to_owned() })
}

/// What a datagram says, if it is the answer.
fn read(who: &str, datagram: &[u8], id: TransactionId) -> Option<Result<IpAddr, Failure>> {
    let message = Message::parse(datagram).ok().filter(|message| message.answers(Method::BINDING, id))?;
    if message.class() != Class::Success {
        return Some(Err(Failure::malformed(who, "an error")));
    }
    let mapped = message.xor_address(AttributeType::XOR_MAPPED_ADDRESS);
    Some(mapped.map(|mapped| mapped.ip()).ok_or_else(|| Failure::malformed(who, "no XOR-MAPPED-ADDRESS")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn silent(who: &str) -> (String, Result<IpAddr, Failure>) {
        (who.to_owned(), Err(Failure::Silent { who: who.to_owned() }))
    }

    fn says(who: &str, text: &str) -> (String, Result<IpAddr, Failure>) {
        (who.to_owned(), Ok(ip(text)))
    }

    #[test]
    fn one_server_is_believed_and_of_several_two_must_agree() {
        assert_eq!(agreed(1, vec![says("a", "5.44.1.1")]), Ok(ip("5.44.1.1")));
        assert_eq!(agreed(2, vec![says("a", "5.44.1.1"), says("b", "5.44.1.1")]), Ok(ip("5.44.1.1")));
        let lied_to = vec![says("a", "5.44.1.1"), says("b", "5.44.1.66"), says("c", "5.44.1.1")];
        assert_eq!(agreed(3, lied_to), Ok(ip("5.44.1.1")));
        assert_eq!(agreed(3, vec![says("a", "5.44.1.1"), silent("b"), says("c", "5.44.1.1")]), Ok(ip("5.44.1.1")));
        for undecided in [
            vec![says("a", "5.44.1.1"), silent("b")],
            vec![says("a", "5.44.1.1"), says("b", "5.44.1.66")],
            // One server by two names.
            vec![says("a", "5.44.1.1")],
            vec![says("a", "5.44.1.1"), says("b", "5.44.1.1"), says("c", "5.44.1.66"), says("d", "5.44.1.66")],
            vec![silent("a"), silent("b")],
            Vec::new(),
        ] {
            assert!(agreed(2, undecided.clone()).is_err(), "{undecided:?}");
        }
        let told = agreed(2, vec![silent("b"), says("a", "5.44.1.1")]).unwrap_err().to_string();
        assert_eq!(told, "no two of the STUN servers agree: a says 5.44.1.1; b does not answer");
    }

    fn answer(class: Class, id: TransactionId, mapped: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, class, Method::BINDING, id);
        if let Some(mapped) = mapped {
            encoder.xor_address(AttributeType::XOR_MAPPED_ADDRESS, SocketAddr::new(ip(mapped), 9));
        }
        encoder.fingerprint();
        bytes
    }

    #[test]
    fn only_the_answer_to_this_question_is_read() {
        let (id, other) = (TransactionId([7; 12]), TransactionId([8; 12]));
        let good = answer(Class::Success, id, Some("5.44.1.1"));
        assert_eq!(read("s", &good, id), Some(Ok(ip("5.44.1.1"))));
        // What somebody else has made up is passed over, and the answer is still waited for.
        for stray in [
            answer(Class::Success, other, Some("5.44.1.66")),
            answer(Class::Request, id, Some("5.44.1.66")),
            b"hello".to_vec(),
            good[..good.len() - 1].to_vec(),
        ] {
            assert_eq!(read("s", &stray, id), None);
        }
        assert!(read("s", &answer(Class::Success, id, None), id).unwrap().is_err());
        assert!(read("s", &answer(Class::Error, id, Some("5.44.1.66")), id).unwrap().is_err());
    }
}
