//! How the NAT in front of this host behaves, where the server lets it be found out (RFC 5780 section 4): by UDP from a fresh port,
//! filtering before mapping, because asking elsewhere opens the way for answers from there.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::addr::{Family, unspecified};
use crate::stun::{AttributeType, Class, Encoder, Message, Method, TransactionId};

use super::report::{Status, Step};

/// How often a request is sent, and how long each is waited for at most: an answer that does not come is what is looked for, too.
const SENDS: u32 = 3;
const WAIT_MAX: Duration = Duration::from_millis(500);
/// First, two of filtering, two of mapping.
const EXCHANGES_MAX: u32 = 5;
const CHANGE_BOTH: u32 = 6;
const CHANGE_PORT: u32 = 2;

/// Behaviours of NATs (RFC 4787 sections 4.1 and 5), for mapping and filtering alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

impl Behaviour {
    fn name(self) -> &'static str {
        match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        }
    }
}

/// What was found out.
struct Found {
    filtering: Behaviour,
    /// `None` when the server's other address is silent, which says nothing of a NAT.
    mapping: Option<Behaviour>,
    is_natted: bool,
}

/// Asks the server at `address`, whose answer named another address of its own.
pub(super) fn discover(address: SocketAddr, other: SocketAddr, timeout: Duration) -> Step {
    let started = Instant::now();
    let found = find(address, other, (timeout / (EXCHANGES_MAX * SENDS)).min(WAIT_MAX));
    let step = |status, message: String| {
        Step::new("nat", status, started.elapsed(), message).fact("other_address", other.to_string())
    };
    match found {
        Err(error) => step(Status::Note, format!("NAT behaviour was not found out: {error}")),
        Ok(Found { filtering, mapping: Some(mapping), is_natted }) => {
            let (mapped, filtered) = (mapping.name(), filtering.name());
            let nat = if is_natted { "the NAT here has" } else { "no NAT here:" };
            step(Status::Ok, format!("{nat} {mapped} mapping, {filtered} filtering (RFC 5780)"))
                .fact("mapping", mapped)
                .fact("filtering", filtered)
        }
        Ok(Found { mapping: None, .. }) => {
            let message = format!(
                "the server names {other} as its other address (RFC 5780), and it does not answer: clients would take that for a NAT \
                 that filters; look at [nat-discovery] and at the firewall there"
            );
            step(Status::Warn, message)
        }
    }
}

fn find(address: SocketAddr, other: SocketAddr, wait: Duration) -> io::Result<Found> {
    let socket = UdpSocket::bind(unspecified(Family::of(address.ip())))?;
    let ask = |to, change| exchange(&socket, to, change, wait);
    let first = ask(address, None)?.ok_or(io::ErrorKind::TimedOut)?;
    // The address that packets to there leave from; the socket itself has none.
    let route = UdpSocket::bind(unspecified(Family::of(address.ip())))?;
    route.connect(address)?;
    let local = SocketAddr::new(route.local_addr()?.ip(), socket.local_addr()?.port());
    let filtering = if ask(address, Some(CHANGE_BOTH))?.is_some() {
        Behaviour::EndpointIndependent
    } else if ask(address, Some(CHANGE_PORT))?.is_some() {
        Behaviour::AddressDependent
    } else {
        Behaviour::AddressAndPortDependent
    };
    let mapping = match ask(SocketAddr::new(other.ip(), address.port()), None)? {
        None => None,
        Some(second) if second == first => Some(Behaviour::EndpointIndependent),
        Some(second) => ask(other, None)?.map(|third| match third == second {
            true => Behaviour::AddressDependent,
            false => Behaviour::AddressAndPortDependent,
        }),
    };
    Ok(Found { filtering, mapping, is_natted: first != local })
}

/// The address that this socket is seen from; `None` when no answer comes.
///
/// # Errors
/// Of the socket, or when the server refuses.
pub(super) fn mapped(socket: &UdpSocket, server: SocketAddr, wait: Duration) -> io::Result<Option<SocketAddr>> {
    exchange(socket, server, None, wait)
}

/// The address that a Binding request is seen from; `None` when no answer comes, from wherever.
fn exchange(socket: &UdpSocket, to: SocketAddr, change: Option<u32>, wait: Duration) -> io::Result<Option<SocketAddr>> {
    let mut id = [0; 12];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut request = Vec::new();
    let mut encoder = Encoder::new(&mut request, Class::Request, Method::BINDING, TransactionId(id));
    if let Some(flags) = change {
        encoder.u32(AttributeType::CHANGE_REQUEST, flags);
    }
    let mut buffer = [0; 2048];
    for _ in 0..SENDS {
        socket.send_to(&request, to)?;
        let deadline = Instant::now() + wait;
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            let Ok((len, _)) = socket.recv_from(&mut buffer) else { continue };
            let message = buffer.get(..len).and_then(|bytes| Message::parse(bytes).ok());
            let Some(message) = message.filter(|message| message.answers(Method::BINDING, TransactionId(id))) else {
                continue;
            };
            match message.class() {
                Class::Success => return Ok(message.xor_address(AttributeType::XOR_MAPPED_ADDRESS)),
                _ => return Err(io::Error::other("the server refuses to answer from elsewhere")),
            }
        }
    }
    Ok(None)
}
