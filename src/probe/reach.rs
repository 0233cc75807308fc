//! Whether peers get through to a relay: what a plain UDP socket of this host sends to the relayed address has to come by the allocation,
//! and what the relay sends has to come to the socket. The echo between two allocations stays inside of most servers: it says
//! nothing of a firewall in front of them, nor of an `external-ip` that is another host's.
//!
//! A server may name whatever address it likes. One that is not its own gets a single datagram, and more only once the address itself has
//! sent here; a private one that is not its own gets none.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crate::addr::{Family, unspecified};
use crate::client::{Request, data};
use crate::net::sys::set_ip_recverr;
use crate::stun::{AttributeType, Class, ErrorCode, Message, Method};

use super::datagrams::{is_timeout, left};
use super::dial::Dialer;
use super::exchange::Party;
use super::nat;
use super::report::{Status, Step};
use super::verdict::{Failure, is_no_route, not_public, with_code};

/// Bytes of data: a small odd size, which needs padding.
const LEN: usize = 173;
/// By how many of them they are known, if the others are not what was sent.
const MARK: usize = 16;
/// The first wait before data is sent again, as UDP may lose it; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// How long data is waited for at most, and the other way where the first one has shown that something is wrong.
const PATIENCE_MAX: Duration = Duration::from_secs(3);
const PATIENCE_BACK: Duration = Duration::from_millis(1200);
/// How long the only datagram is waited for that an address gets which may be anybody's, and how long for what is there already.
const PATIENCE_ONCE: Duration = Duration::from_millis(1200);
const LATE: Duration = Duration::from_millis(1);
/// How long each Binding request is waited for.
const BINDING_WAIT: Duration = Duration::from_millis(300);
/// Where most servers have UDP.
const STUN_PORT: u16 = 3478;
/// Below it are ports of services, which no server relays from.
const RELAY_PORT_MIN: u16 = 1024;

/// Takes the step. `words` says what is wrong with a request.
pub(super) fn probe(dialer: &Dialer<'_>, party: &mut Party, words: impl Fn(&Failure) -> String) -> Step {
    let started = Instant::now();
    let relayed = party.relayed;
    let step = |status, message: String| Step::new("relay-reach", status, started.elapsed(), message);
    match look(dialer, party) {
        Ok(found) => {
            let (status, message) = found.verdict();
            step(status, message)
                .fact("seen_as", found.there.seen_as.map(|peer| peer.to_string()))
                .fact("arrives", found.there.seen_as.is_some())
                .fact("returns", found.back.is_some())
        }
        Err(Untold::Here(why)) => {
            step(Status::Note, format!("whether peers reach {relayed} cannot be told from here: {why}"))
        }
        Err(Untold::Refused(failure)) => {
            let is_denied = failure.code() == Some(ErrorCode::FORBIDDEN);
            let why = if is_denied { "the server does not let its clients reach this host's address: " } else { "" };
            let message = format!("whether peers reach {relayed} cannot be told from here: {why}{}", words(&failure));
            with_code(step(if is_denied { Status::Note } else { Status::Warn }, message), &failure)
        }
    }
}

/// Why nothing is known.
enum Untold {
    /// It is for reasons of this host or its network.
    Here(String),
    /// The server refuses the permission, or its connection is gone.
    Refused(Failure),
}

impl From<Failure> for Untold {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

fn unsent(error: &io::Error) -> Untold {
    Untold::Here(match is_no_route(error) {
        true => "this machine has no route there".to_owned(),
        false => format!("nothing can be sent to there: {error}"),
    })
}

/// What was found.
struct Found {
    relayed: SocketAddr,
    server: IpAddr,
    /// The addresses that this host is seen from, which are permitted.
    own: Vec<IpAddr>,
    /// Whether the server answers plain UDP from this host.
    has_udp: bool,
    there: There,
    /// Where what the relay sent came from.
    back: Option<SocketAddr>,
}

/// What came of what was sent to the relayed address.
#[derive(Default)]
struct There {
    sends: u32,
    /// Whom the relay names as the peer.
    seen_as: Option<SocketAddr>,
    is_damaged: bool,
    /// A host answers by ICMP that nothing listens there.
    is_rejected: bool,
}

fn look(dialer: &Dialer<'_>, party: &mut Party) -> Result<Found, Untold> {
    let (server, relayed) = (dialer.address, party.relayed);
    if let Some(why) = kept_from(server.ip(), relayed) {
        return Err(Untold::Here(why));
    }
    let timeout = dialer.context.options.timeout;
    let mut peer = Peer::open(relayed)?;
    let seen = seen_by(server, &peer.socket, timeout.min(BINDING_WAIT))?;
    peer.hear_icmp(relayed)?;
    let own = own_addresses(server, party, seen)?;
    if let Some(ip) = own.iter().find(|ip| **ip == server.ip() || **ip == relayed.ip()) {
        return Err(Untold::Here(format!(
            "this host is seen from {ip}, the server's own address, so that no firewall is in between, and the server's clients may have no \
             business with it: ask from elsewhere"
        )));
    }
    let mut refused = None;
    let mut permitted = Vec::new();
    for ip in own {
        match party.session.request(Request::CreatePermission { peer: SocketAddr::new(ip, relayed.port()) }) {
            Ok(_) => permitted.push(ip),
            Err(failure) => refused = Some(failure),
        }
    }
    if let (true, Some(failure)) = (permitted.is_empty(), refused) {
        return Err(Untold::Refused(failure));
    }
    let mut payload = [0; LEN];
    getrandom::fill(&mut payload).map_err(|error| unsent(&io::Error::other(error)))?;
    let mut payload_back = payload;
    payload_back.reverse();
    let mut there = There::default();
    let is_servers = relayed.ip() == server.ip();
    let (sends_max, patience) = if is_servers { (u32::MAX, PATIENCE_MAX) } else { (1, PATIENCE_ONCE) };
    send_there(&mut peer, party, &payload, &mut there, sends_max, timeout.min(patience))?;
    let (to, patience) = match there.seen_as {
        Some(seen_as) => (Some(seen_as), PATIENCE_MAX),
        None => (seen, PATIENCE_BACK),
    };
    let back =
        to.map(|to| send_back(&mut peer, party, to, &payload_back, timeout.min(patience))).transpose()?.flatten();
    if there.seen_as.is_none() && !is_servers {
        // Who sends here has asked for it.
        let is_asked_for = back.is_some_and(|from| from.ip() == relayed.ip());
        let (sends_max, patience) = if is_asked_for { (u32::MAX, PATIENCE_MAX) } else { (0, LATE) };
        send_there(&mut peer, party, &payload, &mut there, sends_max, timeout.min(patience))?;
    }
    there.is_rejected = peer.is_rejected;
    Ok(Found { relayed, server: server.ip(), own: permitted, has_udp: seen.is_some(), there, back })
}

/// Why nothing is sent to a relayed address: what is at another's private one, or at a port of a service, is none of a server's business.
fn kept_from(server: IpAddr, relayed: SocketAddr) -> Option<String> {
    let ip = relayed.ip();
    match (not_public(ip), not_public(server)) {
        _ if server.is_loopback() => Some(
            "the server was asked at a loopback address, in front of which there is no firewall: ask it from another host, at its public \
             address"
                .to_owned(),
        ),
        (Some(kind), other) if other != Some(kind) => {
            Some(format!("it is {kind}, and the server is not at such a one: nothing was sent there"))
        }
        (Some(kind), _) if ip != server => Some(format!(
            "it is {kind}, and another one than the server was asked at ({server}): nothing was sent there, as it may be anybody's. Ask \
             the server at {ip}"
        )),
        _ if ip != server && relayed.port() < RELAY_PORT_MIN => Some(format!(
            "port {} is one of services, and {ip} another address than the server was asked at ({server}): nothing was sent there",
            relayed.port()
        )),
        _ => None,
    }
}

/// A socket of this host's, as a peer has one.
struct Peer {
    socket: UdpSocket,
    /// A host says by ICMP that nothing listens there, or that it lets nothing through.
    is_rejected: bool,
}

impl Peer {
    fn open(relayed: SocketAddr) -> Result<Self, Untold> {
        let socket = UdpSocket::bind(unspecified(Family::of(relayed.ip()))).map_err(|error| unsent(&error))?;
        Ok(Self { socket, is_rejected: false })
    }

    /// From now on ICMP is heard, though the socket is connected to nobody.
    fn hear_icmp(&self, relayed: SocketAddr) -> Result<(), Untold> {
        set_ip_recverr(self.socket.as_fd(), Family::of(relayed.ip())).map_err(|error| unsent(&error))
    }

    fn send(&mut self, payload: &[u8], relayed: SocketAddr) -> Result<(), Untold> {
        // A call fails by what ICMP said to an earlier one, and is good the next time.
        match self.socket.send_to(payload, relayed) {
            Err(error) if self.is_icmp(&error) => self.socket.send_to(payload, relayed),
            sent => sent,
        }
        .map(drop)
        .map_err(|error| unsent(&error))
    }

    /// Where the payload came from, if it comes in time.
    fn recv(&mut self, payload: &[u8], deadline: Instant) -> Result<Option<SocketAddr>, Untold> {
        let mut buffer = [0; 2048];
        while let Some(left) = left(deadline) {
            self.socket.set_read_timeout(Some(left)).map_err(|error| unsent(&error))?;
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) if buffer.get(..len) == Some(payload) => return Ok(Some(from)),
                // A late answer to the Binding request, or anybody's.
                Ok(_) => {}
                Err(error) if is_timeout(&error) || self.is_icmp(&error) => {}
                Err(error) => return Err(unsent(&error)),
            }
        }
        Ok(None)
    }

    fn is_icmp(&mut self, error: &io::Error) -> bool {
        let is_icmp = matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable);
        self.is_rejected |= is_icmp;
        is_icmp
    }
}

/// Where the server sees this socket, if it answers plain UDP: where it was asked, or at the port that most have.
fn seen_by(server: SocketAddr, socket: &UdpSocket, wait: Duration) -> Result<Option<SocketAddr>, Untold> {
    if socket.local_addr().is_ok_and(|local| Family::of(local.ip()) != Family::of(server.ip())) {
        return Ok(None);
    }
    let mut ports = vec![server.port(), STUN_PORT];
    ports.dedup();
    for port in ports {
        // Who refuses to answer has said nothing of where we are.
        if let Ok(Some(seen)) = nat::mapped(socket, SocketAddr::new(server.ip(), port), wait) {
            return Ok(Some(seen));
        }
    }
    Ok(None)
}

/// From where a peer at this host is seen. Permissions are for addresses, whatever ports a NAT makes (RFC 8656 section 9).
fn own_addresses(server: SocketAddr, party: &Party, seen: Option<SocketAddr>) -> Result<Vec<IpAddr>, Untold> {
    let family = Family::of(party.relayed.ip());
    let mut own: Vec<IpAddr> = seen.into_iter().chain([party.mapped]).map(|address| address.ip()).collect();
    own.retain(|ip| Family::of(*ip) == family);
    own.dedup();
    let route = UdpSocket::bind(unspecified(family)).and_then(|route| {
        route.connect(party.relayed)?;
        route.local_addr()
    });
    let local = route.map_err(|error| unsent(&error))?.ip();
    // What speaks to the server may be a proxy in between, and what sends to the relay this host itself.
    let may_be_seen = not_public(local).is_none() || (own.is_empty() && not_public(local) == not_public(server.ip()));
    if may_be_seen && !own.contains(&local) {
        own.push(local);
    }
    match own.is_empty() {
        true => Err(Untold::Here(format!("peers would see another address than {local}, and which is not known"))),
        false => Ok(own),
    }
}

/// Sends to the relayed address until it comes by the allocation, so often at most.
fn send_there(
    peer: &mut Peer,
    party: &mut Party,
    payload: &[u8],
    there: &mut There,
    sends_max: u32,
    patience: Duration,
) -> Result<(), Untold> {
    let deadline = Instant::now() + patience;
    let (mut wait, mut sends) = (FIRST_WAIT, 0);
    loop {
        let mut wait_until = deadline;
        if sends < sends_max {
            peer.send(payload, party.relayed)?;
            (sends, there.sends) = (sends + 1, there.sends + 1);
            if sends < sends_max {
                wait_until = deadline.min(Instant::now() + wait);
                wait *= 2;
            }
        }
        while let Some(bytes) = party.session.link.recv(wait_until)? {
            let Some((seen_as, data)) = data_of(&bytes) else { continue };
            if data.starts_with(payload.get(..MARK).unwrap_or_default()) {
                (there.seen_as, there.is_damaged) = (Some(seen_as), data != payload);
                return Ok(());
            }
        }
        if Instant::now() >= deadline {
            return Ok(());
        }
    }
}

/// What a Data indication has in it (RFC 8656 section 11.4).
fn data_of(bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
    let message = Message::parse(bytes).ok()?;
    let is_data = message.method() == Method::DATA && message.class() == Class::Indication;
    let peer = message.xor_address(AttributeType::XOR_PEER_ADDRESS).filter(|_| is_data)?;
    Some((peer, message.get(AttributeType::DATA)?.to_vec()))
}

/// Has the relay send to the socket; where that came from.
fn send_back(
    peer: &mut Peer,
    party: &mut Party,
    to: SocketAddr,
    payload: &[u8],
    patience: Duration,
) -> Result<Option<SocketAddr>, Untold> {
    let mut frame = Vec::new();
    let number = payload.iter().fold(0_u64, |number, byte| number.rotate_left(8) ^ u64::from(*byte));
    data::send_indication(to, number, &mut frame, |out| out.extend_from_slice(payload));
    let deadline = Instant::now() + patience;
    let mut wait = FIRST_WAIT;
    loop {
        party.session.link.send(&frame, deadline)?;
        let wait_until = deadline.min(Instant::now() + wait);
        wait *= 2;
        if let Some(from) = peer.recv(payload, wait_until)? {
            return Ok(Some(from));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

impl Found {
    fn verdict(&self) -> (Status, String) {
        let Self { relayed, there, back, .. } = self;
        match (there.seen_as, back) {
            (Some(_), _) if there.is_damaged => {
                (Status::Fail, format!("other bytes arrived than a peer had sent to UDP {relayed}"))
            }
            (Some(peer), Some(from)) if from == relayed => (
                Status::Ok,
                format!(
                    "{LEN} bytes from a plain UDP socket here ({peer}) to {relayed} and back, unchanged: peers get through"
                ),
            ),
            (Some(_), Some(from)) => (
                Status::Warn,
                format!(
                    "what peers send to UDP {relayed} arrives, but what the relay sends comes from {from}: NATs and firewalls of \
                     peers drop that. Packets have to leave from the address of external-ip"
                ),
            ),
            (Some(peer), None) => (
                Status::Fail,
                format!(
                    "what peers send to UDP {relayed} arrives, but nothing that the relay sends arrives at {peer} here: let UDP \
                     out from the server's relay ports in its firewall / security group"
                ),
            ),
            (None, _) => self.nothing(),
        }
    }

    /// Nothing has arrived: why that may be, and what to do.
    fn nothing(&self) -> (Status, String) {
        let Self { relayed, server, own, there, back, .. } = self;
        let sends = match there.sends {
            1 => "sent once, as the address may be anybody's: ask again if it can have been lost".to_owned(),
            sends => format!("sent {sends} times"),
        };
        let nothing = format!("nothing that peers send to UDP {relayed} arrives ({sends})");
        let open = "open UDP 49152-65535 (or what the server has as its relay ports) in its firewall / security group";
        let asked = if relayed.ip() == *server { String::new() } else { format!(" (it was asked at {server})") };
        let (status, why) = match back {
            _ if self.is_asked_inside() => (
                Status::Note,
                format!(
                    "; but the server was asked at its address {server} inside of its network, where it sees this host at another \
                     one than its relays may: ask it at its public address"
                ),
            ),
            Some(from) if from != relayed => (
                Status::Fail,
                format!(
                    ", and what the relay sends comes from {from}: external-ip is not this server's public address{asked}"
                ),
            ),
            Some(_) => (Status::Fail, format!(", though what the relay sends arrives here: {open}")),
            None if there.is_rejected => (
                Status::Fail,
                format!(
                    ", and a host says that nothing listens there (ICMP): external-ip is not this server's public address{asked}, or a \
                     firewall rejects what comes: {open}"
                ),
            ),
            None if own.len() > 1 => {
                let list = own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let why = format!(
                    "; this host is seen from several addresses ({list}), which may be why: ask from another network. Else {open}"
                );
                (Status::Warn, why)
            }
            None if !self.has_udp => (
                Status::Warn,
                format!(
                    ", nor is plain UDP from here answered by the server: the network here may let no UDP out, so ask from another \
                     one. Else {open}"
                ),
            ),
            None => (
                Status::Fail,
                format!(
                    ": {open}, or external-ip is not this server's public address{asked}. If the network here lets UDP out to few \
                     ports only, ask from another one"
                ),
            ),
        };
        (status, nothing + &why)
    }

    /// Whether the server is asked where only its network reaches it, and relays where everybody does: what this host sends there may
    /// come by a NAT, from another address than is permitted.
    fn is_asked_inside(&self) -> bool {
        not_public(self.server).is_some() && not_public(self.relayed.ip()).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAYED: &str = "203.0.113.5:50123";

    /// The verdict on a relay at `RELAYED` of a server that was asked at `server`, by a host that is seen from `own`.
    fn verdict(server: &str, own: &[&str], has_udp: bool, there: There, back: Option<&str>) -> (Status, String) {
        let found = Found {
            relayed: RELAYED.parse().unwrap(),
            server: server.parse().unwrap(),
            own: own.iter().map(|ip| ip.parse().unwrap()).collect(),
            has_udp,
            there,
            back: back.map(|from| from.parse().unwrap()),
        };
        found.verdict()
    }

    fn arrived() -> There {
        There { sends: 1, seen_as: Some("198.51.100.7:4000".parse().unwrap()), ..There::default() }
    }

    fn silent() -> There {
        There { sends: 4, ..There::default() }
    }

    #[test]
    fn each_outcome_has_its_own_words_and_only_what_is_sure_is_a_failure() {
        let rejected = || There { is_rejected: true, ..silent() };
        let (host, one): (_, &[&str]) = ("203.0.113.5", &["198.51.100.7"]);
        let elsewhere = "192.0.2.10";
        for (status, words, found) in [
            (Status::Ok, "peers get through", verdict(host, one, true, arrived(), Some(RELAYED))),
            (Status::Warn, "comes from 192.0.2.10:9", verdict(host, one, true, arrived(), Some("192.0.2.10:9"))),
            (Status::Fail, "let UDP out", verdict(host, one, true, arrived(), None)),
            (
                Status::Fail,
                "other bytes",
                verdict(host, one, true, There { is_damaged: true, ..arrived() }, Some(RELAYED)),
            ),
            (Status::Fail, "open UDP 49152-65535", verdict(host, one, true, silent(), Some(RELAYED))),
            (Status::Fail, "though what the relay sends arrives", verdict(host, one, true, silent(), Some(RELAYED))),
            (
                Status::Fail,
                "comes from 192.0.2.10:9: external-ip is not this server's public address (it was asked at 192.0.2.10)",
                verdict(elsewhere, one, true, silent(), Some("192.0.2.10:9")),
            ),
            (
                Status::Fail,
                "UDP 203.0.113.5:50123 arrives (sent 4 times): open UDP",
                verdict(host, one, true, silent(), None),
            ),
            (Status::Fail, "asked at 192.0.2.10", verdict(elsewhere, one, true, silent(), None)),
            (Status::Fail, "nothing listens there (ICMP)", verdict(elsewhere, one, true, rejected(), None)),
            // What may be the doing of this side.
            (Status::Warn, "may let no UDP out", verdict(host, one, false, silent(), None)),
            (
                Status::Warn,
                "several addresses (198.51.100.7, 198.51.100.8)",
                verdict(host, &["198.51.100.7", "198.51.100.8"], true, silent(), None),
            ),
            // By a NAT of one address to one, as clouds have it.
            (
                Status::Note,
                "ask it at its public address",
                verdict("10.0.0.5", &["10.0.0.9"], true, silent(), Some("10.0.0.5:50123")),
            ),
            (Status::Note, "ask it at its public address", verdict("10.0.0.5", &["10.0.0.9"], true, silent(), None)),
        ] {
            assert_eq!(found.0, status, "{}", found.1);
            assert!(found.1.contains(words), "no {words:?} in {}", found.1);
        }
    }

    #[test]
    fn nothing_is_sent_to_private_addresses_and_services_that_are_not_the_servers() {
        for (server, relayed, expected) in [
            ("203.0.113.5", RELAYED, None),
            ("192.0.2.10", RELAYED, None),
            ("10.0.0.5", RELAYED, None),
            ("10.0.0.5", "10.0.0.5:53", None),
            ("127.0.0.1", RELAYED, Some("asked at a loopback address")),
            ("::1", "127.0.0.1:50123", Some("asked at a loopback address")),
            ("10.0.0.5", "10.0.0.1:50123", Some("Ask the server at 10.0.0.1")),
            ("10.0.0.5", "[fd00::1]:50123", Some("Ask the server at fd00::1")),
            ("203.0.113.5", "10.0.0.1:50123", Some("the server is not at such a one")),
            ("203.0.113.5", "169.254.169.254:50123", Some("the server is not at such a one")),
            ("192.0.2.10", "203.0.113.5:53", Some("port 53 is one of services")),
        ] {
            let kept = kept_from(server.parse().unwrap(), relayed.parse().unwrap());
            match expected {
                None => assert_eq!(kept, None, "{server} {relayed}"),
                Some(words) => assert!(kept.as_ref().is_some_and(|why| why.contains(words)), "{relayed}: {kept:?}"),
            }
        }
    }

    #[test]
    fn only_data_indications_have_data() {
        let peer: SocketAddr = RELAYED.parse().unwrap();
        let encoded = |class, method| {
            let mut out = Vec::new();
            crate::stun::Encoder::new(&mut out, class, method, crate::stun::TransactionId([1; 12]))
                .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
                .attribute(AttributeType::DATA, b"hello");
            out
        };
        assert_eq!(data_of(&encoded(Class::Indication, Method::DATA)), Some((peer, b"hello".to_vec())));
        assert_eq!(data_of(&encoded(Class::Indication, Method::SEND)), None);
        assert_eq!(data_of(&encoded(Class::Success, Method::DATA)), None);
        assert_eq!(data_of(&[0x40, 0, 0, 1, 7]), None);
    }
}
