//! NAT behaviour discovery (RFC 5780): a Binding request may ask for an answer from another of our addresses, or to another port of
//! its own, and every answer says from where another one would come.
//!
//! It is never more of a reflector than Binding is: an answer goes to the address that the request came from, out of the budget for
//! strangers, and PADDING makes it no longer than the request was.

use std::net::{IpAddr, SocketAddr};

use crate::addr::{FiveTuple, Transport};
use crate::reject::Reason;
use turnstone_stun::{AttributeType, Encoder, Message};

/// The most PADDING in an answer: the MTU of an Ethernet (RFC 5780 section 7.6).
const PADDING_MAX: usize = 1500;
/// What an attribute's type and length take.
const ATTRIBUTE_HEADER: usize = 4;
/// FINGERPRINT with its header.
const FINGERPRINT_LEN: usize = 8;

const CHANGE_IP: u32 = 0x04;
const CHANGE_PORT: u32 = 0x02;

/// Two addresses of one family, and two ports that the server listens on at each of them, over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatDiscovery {
    /// The addresses that datagrams come to and leave from.
    pub addresses: [IpAddr; 2],
    /// What clients know them by: other addresses if the server is behind 1:1 NAT.
    pub external: [IpAddr; 2],
    /// The ports.
    pub ports: [u16; 2],
}

impl NatDiscovery {
    /// The four transport addresses, as datagrams come to them.
    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let Self { addresses, ports, .. } = *self;
        addresses.into_iter().flat_map(move |ip| ports.map(|port| SocketAddr::new(ip, port)))
    }

    /// The same, as clients know them.
    pub fn external_endpoints(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        Self { addresses: self.external, ..*self }.endpoints()
    }

    /// The four transport addresses as seen from one of them; `None` from elsewhere.
    fn from(&self, at: SocketAddr) -> Option<Vantage> {
        let Self { addresses: [a1, a2], external: [e1, e2], ports: [p1, p2] } = *self;
        let ips = match at.ip() {
            ip if ip == a1 => [(a1, e1), (a2, e2)],
            ip if ip == a2 => [(a2, e2), (a1, e1)],
            _ => return None,
        };
        let ports = match at.port() {
            port if port == p1 => [p1, p2],
            port if port == p2 => [p2, p1],
            _ => return None,
        };
        Some(Vantage { ips, ports })
    }
}

/// Another way for an answer than back to where the request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detour {
    /// The address of ours to send from, one of those of [`NatDiscovery::endpoints`].
    pub from: SocketAddr,
    /// The port to send to, at the client's address.
    pub to_port: u16,
}

/// One of the four transport addresses, which a request came to: it comes first. Each address is as bound, and as clients know it.
#[derive(Clone, Copy)]
pub(super) struct Vantage {
    ips: [(IpAddr, IpAddr); 2],
    ports: [u16; 2],
}

impl Vantage {
    /// What a client's requests come to, if it is one of such four. An answer over a connection or in a session can leave from nowhere else.
    pub(super) fn of(pairs: &[NatDiscovery], five_tuple: &FiveTuple) -> Option<Self> {
        match five_tuple.transport {
            Transport::Udp => pairs.iter().find_map(|pair| pair.from(five_tuple.server)),
            Transport::Tcp | Transport::Tls | Transport::Dtls => None,
        }
    }

    /// Where an answer leaves from (RFC 5780 table 1), as bound and as clients know it.
    pub(super) fn origin(&self, asked: &Asked) -> (SocketAddr, SocketAddr) {
        let [(ip, external), (other_ip, other_external)] = self.ips;
        let [port, other_port] = self.ports;
        let (ip, external) = if asked.change_ip { (other_ip, other_external) } else { (ip, external) };
        let port = if asked.change_port { other_port } else { port };
        (SocketAddr::new(ip, port), SocketAddr::new(external, port))
    }

    /// OTHER-ADDRESS: where an answer would leave from if both were changed.
    pub(super) fn other(&self) -> SocketAddr {
        let ([_, (_, external)], [_, port]) = (self.ips, self.ports);
        SocketAddr::new(external, port)
    }

    /// The other way that an answer takes, if it takes one.
    pub(super) fn detour(&self, asked: &Asked, five_tuple: &FiveTuple) -> Option<Detour> {
        let (from, _) = self.origin(asked);
        let client_port = five_tuple.client.get().port();
        let to_port = asked.to_port.unwrap_or(client_port);
        (from != five_tuple.server || to_port != client_port).then_some(Detour { from, to_port })
    }
}

/// Whether an attribute is one that a Binding request may have in it where there is NAT behaviour discovery.
pub(super) fn is_of_discovery(kind: AttributeType) -> bool {
    matches!(kind, AttributeType::CHANGE_REQUEST | AttributeType::PADDING | AttributeType::RESPONSE_PORT)
}

/// What a Binding request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    change_ip: bool,
    change_port: bool,
    to_port: Option<u16>,
    pads: bool,
}

impl Asked {
    /// Reads the three attributes (RFC 5780 sections 6.1 and 7).
    pub(super) fn of(message: &Message<'_>) -> Result<Self, Reason> {
        let mut asked = match message.get(AttributeType::CHANGE_REQUEST) {
            Some(value) => Self::changes(value).ok_or(Reason::MalformedAttribute)?,
            None => Self::default(),
        };
        if let Some(value) = message.get(AttributeType::RESPONSE_PORT) {
            asked.to_port = Some(response_port(value).ok_or(Reason::MalformedAttribute)?);
        }
        asked.pads = message.get(AttributeType::PADDING).is_some();
        if asked.pads && asked.to_port.is_some() {
            return Err(Reason::ConflictingAttributes);
        }
        Ok(asked)
    }

    /// Reads the value of CHANGE-REQUEST.
    pub(super) fn changes(value: &[u8]) -> Option<Self> {
        let flags = u32::from_be_bytes(value.try_into().ok()?);
        Some(Self { change_ip: flags & CHANGE_IP != 0, change_port: flags & CHANGE_PORT != 0, ..Self::default() })
    }

    /// Whether its answer is padded.
    pub(super) fn is_padded(&self) -> bool {
        self.pads
    }

    /// Appends PADDING if there was some: as much as Ethernet carries at once, and no more than makes the answer, with `rest` still
    /// to come, as long as the request.
    pub(super) fn pad(&self, encoder: &mut Encoder<'_>, request: &Message<'_>, rest: usize) {
        if self.pads {
            let without = encoder.message_len() + ATTRIBUTE_HEADER + rest;
            let len = request.as_bytes().len().saturating_sub(without).min(PADDING_MAX);
            encoder.attribute(AttributeType::PADDING, [0; PADDING_MAX].get(..len & !3).unwrap_or_default());
        }
    }
}

/// What follows the attributes of a method in a response.
pub(super) fn trailer_len(request: &Message<'_>, software: Option<&str>) -> usize {
    let software = software.map_or(0, |software| ATTRIBUTE_HEADER + software.len().next_multiple_of(4));
    software + if request.has_fingerprint() { FINGERPRINT_LEN } else { 0 }
}

/// RESPONSE-PORT: a port and two bytes without meaning, which some leave out. Nothing receives at port 0.
fn response_port(value: &[u8]) -> Option<u16> {
    match *value {
        [high, low] | [high, low, _, _] => Some(u16::from_be_bytes([high, low])).filter(|port| *port != 0),
        _ => None,
    }
}
