//! Binding as RFC 3489 has it, for clients from before the magic cookie (RFC 8489 section 11): MAPPED-ADDRESS and, where there is NAT
//! behaviour discovery, SOURCE-ADDRESS, CHANGED-ADDRESS and CHANGE-REQUEST. RESPONSE-ADDRESS, which sends an answer to anybody, is
//! an unknown attribute.

use std::net::SocketAddr;

use crate::addr::Transport;
use crate::clock::Now;
use crate::reject::{Dropped, Reason};
use turnstone_stun::{AttributeType, HEADER_LEN, encode_address};

use super::discovery::{Asked, Vantage};
use super::output::{Client, Outcome};
use super::server::Server;

const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_RESPONSE: [u8; 2] = [0x01, 0x01];
const BINDING_ERROR: [u8; 2] = [0x01, 0x11];

const MAPPED_ADDRESS: AttributeType = AttributeType::MAPPED_ADDRESS;
const SOURCE_ADDRESS: AttributeType = AttributeType(0x0004);
const CHANGED_ADDRESS: AttributeType = AttributeType(0x0005);

/// Unknown attributes listed at most: an even number, because RFC 3489 has no padding.
const UNKNOWN_MAX: usize = 8;

impl Server {
    /// A message without the magic cookie.
    pub(super) fn classic_binding(&mut self, now: Now, client: &Client, bytes: &[u8], reply: &mut Vec<u8>) -> Outcome {
        // RFC 3489 is about UDP, and not about DTLS over it (RFC 7350 section 3).
        let is_offered = self.settings.rfc3489 && client.five_tuple.transport == Transport::Udp;
        let Some(request) = ClassicRequest::parse(bytes).filter(|_| is_offered) else {
            return Outcome::Dropped(Dropped::Malformed);
        };
        if !self.may_answer_stranger(now, client) {
            return Outcome::Dropped(Dropped::RateLimited);
        }
        self.events.stranger_answered();
        self.events.classic_answered();
        let vantage = Vantage::of(&self.settings.nat_discovery, &client.five_tuple);
        let asked = match (request.change_request, vantage.is_some()) {
            (Some(value), true) => Asked::changes(value),
            _ => Some(Asked::default()),
        };
        let unknown = request.unknown(vantage.is_some());
        let mapped = client.five_tuple.client.get();
        let reason = match asked {
            Some(asked) if unknown.types().is_empty() => {
                let mut response = Response::new(reply, BINDING_RESPONSE, request.id);
                response.address(MAPPED_ADDRESS, mapped);
                if let Some(vantage) = vantage {
                    response.address(SOURCE_ADDRESS, vantage.origin(&asked).1);
                    response.address(CHANGED_ADDRESS, vantage.other());
                }
                let detour = vantage.and_then(|vantage| vantage.detour(&asked, &client.five_tuple));
                return detour.map_or(Outcome::Reply, Outcome::Detour);
            }
            Some(_) => Reason::UnknownAttribute,
            None => Reason::MalformedAttribute,
        };
        self.refused_with = Some((reason, None));
        self.events.count_refusal(reason);
        let mut response = Response::new(reply, BINDING_ERROR, request.id);
        response.error(reason);
        if reason == Reason::UnknownAttribute {
            response.unknown(unknown.types());
        }
        Outcome::Reply
    }
}

/// A Binding request of RFC 3489 section 11.1: a transaction id of 16 bytes.
struct ClassicRequest<'a> {
    id: [u8; 16],
    body: &'a [u8],
    change_request: Option<&'a [u8]>,
}

impl<'a> ClassicRequest<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let [t0, t1, l0, l1, id @ ..] = *header;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if [t0, t1] != BINDING_REQUEST || length != body.len() || !length.is_multiple_of(4) {
            return None;
        }
        let mut request = Self { id, body, change_request: None };
        for attribute in attributes(body) {
            let (kind, value) = attribute?;
            if kind == AttributeType::CHANGE_REQUEST.0 {
                request.change_request = request.change_request.or(Some(value));
            }
        }
        Some(request)
    }

    /// The attributes that must be understood and are not. Who says who he is, as RFC 3489 allows, is answered like anybody.
    fn unknown(&self, may_change: bool) -> Unknown {
        let kinds = attributes(self.body).flatten().map(|(kind, _)| AttributeType(kind));
        let known = |kind| match kind {
            AttributeType::CHANGE_REQUEST => may_change,
            AttributeType::USERNAME | AttributeType::MESSAGE_INTEGRITY => true,
            _ => false,
        };
        let mut unknown = Unknown::default();
        kinds.filter(|kind| kind.comprehension_required() && !known(*kind)).for_each(|kind| unknown.add(kind.0));
        unknown
    }
}

/// Types of unknown attributes, each once, up to as many as are listed.
#[derive(Default)]
struct Unknown {
    types: [u16; UNKNOWN_MAX],
    len: usize,
}

impl Unknown {
    fn add(&mut self, kind: u16) {
        if self.types().contains(&kind) {
            return;
        }
        if let Some(slot) = self.types.get_mut(self.len) {
            *slot = kind;
            self.len += 1;
        }
    }

    fn types(&self) -> &[u16] {
        self.types.get(..self.len).unwrap_or_default()
    }
}

/// Type and value of each attribute; `None`, which is the last, for one that reaches past the end.
fn attributes(mut body: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let split = || {
            let (&[t0, t1, l0, l1], rest) = body.split_first_chunk::<4>()?;
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            let (value, rest) = (rest.get(..len)?, rest.get(len.next_multiple_of(4)..)?);
            Some((u16::from_be_bytes([t0, t1]), value, rest))
        };
        let Some((kind, value, rest)) = split() else {
            body = &[];
            return Some(None);
        };
        body = rest;
        Some(Some((kind, value)))
    })
}

/// A response of RFC 3489, appended to a buffer. Values are multiples of four bytes.
struct Response<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
}

impl<'b> Response<'b> {
    fn new(out: &'b mut Vec<u8>, kind: [u8; 2], id: [u8; 16]) -> Self {
        let start = out.len();
        out.extend_from_slice(&kind);
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&id);
        Self { out, start }
    }

    fn address(&mut self, kind: AttributeType, address: SocketAddr) {
        let mut value = [0; 20];
        let len = encode_address(address, &mut value);
        self.attribute(kind, value.into_iter().take(len));
    }

    /// ERROR-CODE with its phrase, spaces behind it up to a multiple of four (RFC 3489 section 11.2.9).
    fn error(&mut self, reason: Reason) {
        let phrase = reason.code().phrase().as_bytes();
        let spaces = std::iter::repeat_n(b' ', phrase.len().next_multiple_of(4) - phrase.len());
        let value = reason.code().to_wire().into_iter().chain(phrase.iter().copied()).chain(spaces);
        self.attribute(AttributeType::ERROR_CODE, value);
    }

    /// UNKNOWN-ATTRIBUTES, the last one twice if they are odd in number (RFC 3489 section 11.2.10).
    fn unknown(&mut self, types: &[u16]) {
        let last = types.last().filter(|_| !types.len().is_multiple_of(2));
        self.attribute(AttributeType::UNKNOWN_ATTRIBUTES, types.iter().chain(last).flat_map(|kind| kind.to_be_bytes()));
    }

    fn attribute(&mut self, kind: AttributeType, value: impl Iterator<Item = u8>) {
        self.out.extend_from_slice(&kind.0.to_be_bytes());
        let len_at = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        self.out.extend(value);
        self.set(len_at, self.out.len() - len_at - 2);
        self.set(self.start + 2, self.out.len() - self.start - HEADER_LEN);
    }

    fn set(&mut self, at: usize, len: usize) {
        if let Some(field) = self.out.get_mut(at..at + 2) {
            field.copy_from_slice(&(len as u16).to_be_bytes());
        }
    }
}
