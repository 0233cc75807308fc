//! What a client asks for, as attributes, and what the answers say.

use std::fmt;
use std::net::SocketAddr;

use turnstone_stun::{AttributeType, Encoder, Message, Method};
use turnstone_turn::addr::Family;

/// REQUESTED-TRANSPORT of a UDP allocation, and of a TCP one (RFC 6062 section 4.1).
const PROTOCOL_UDP: u32 = 17 << 24;
const PROTOCOL_TCP: u32 = 6 << 24;

/// What to ask the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The reflexive address; never authenticated.
    Binding,
    /// A UDP relay of one address family.
    Allocate {
        /// The family of the relayed address; `None` leaves it to the server, which takes IPv4.
        family: Option<Family>,
        /// The lifetime to ask for, in seconds; `None` leaves it to the server.
        lifetime_secs: Option<u32>,
    },
    /// A UDP relay with a ticket, by which the client can come back from another address (RFC 8016 section 3.1.1).
    AllocateMobile,
    /// A TCP relay (RFC 6062 section 4.1).
    AllocateTcp,
    /// A new lifetime in seconds; 0 ends the allocation.
    Refresh {
        /// The lifetime to ask for, in seconds.
        lifetime_secs: u32,
    },
    /// The allocation of a ticket, for a client that has another address now (RFC 8016 section 3.2.1).
    Move {
        /// The ticket.
        ticket: Ticket,
    },
    /// A connection of a TCP relay with a peer (RFC 6062 section 4.3).
    Connect {
        /// The peer.
        peer: SocketAddr,
    },
    /// What makes this connection the one for data with a peer (RFC 6062 section 4.3).
    ConnectionBind {
        /// What the server calls the connection.
        connection: u32,
    },
    /// A permission for a peer's IP address.
    CreatePermission {
        /// The peer.
        peer: SocketAddr,
    },
    /// A channel to a peer, which is also a permission.
    ChannelBind {
        /// The channel number, 0x4000 to 0x4FFF.
        channel: u16,
        /// The peer.
        peer: SocketAddr,
    },
}

impl Request {
    /// The request's method.
    pub fn method(self) -> Method {
        match self {
            Self::Binding => Method::BINDING,
            Self::Allocate { .. } | Self::AllocateMobile | Self::AllocateTcp => Method::ALLOCATE,
            Self::Refresh { .. } | Self::Move { .. } => Method::REFRESH,
            Self::Connect { .. } => Method::CONNECT,
            Self::ConnectionBind { .. } => Method::CONNECTION_BIND,
            Self::CreatePermission { .. } => Method::CREATE_PERMISSION,
            Self::ChannelBind { .. } => Method::CHANNEL_BIND,
        }
    }
}

/// A MOBILITY-TICKET (RFC 8016 section 3.3). What is in it is the server's business.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
}

impl Ticket {
    /// The longest that this client keeps; servers make tickets of 8 and of 32 bytes.
    pub const BYTES_MAX: usize = 128;

    /// The ticket in an answer, if there is one.
    pub fn of(message: &Message<'_>) -> Option<Self> {
        let value = message.get(AttributeType::MOBILITY_TICKET).filter(|value| !value.is_empty())?;
        let mut bytes = [0; Self::BYTES_MAX];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(Self { bytes, len: value.len() as u8 })
    }

    fn value(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} bytes)", self.len)
    }
}

/// A success response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To Binding.
    Mapped {
        /// The client's address as the server sees it.
        mapped: SocketAddr,
    },
    /// To Allocate.
    Allocated {
        /// The relayed transport address.
        relayed: SocketAddr,
        /// The client's address as the server sees it.
        mapped: SocketAddr,
        /// The lifetime granted, in seconds.
        lifetime_secs: u32,
    },
    /// To Refresh.
    Refreshed {
        /// The lifetime granted, in seconds.
        lifetime_secs: u32,
    },
    /// To CreatePermission, ChannelBind and ConnectionBind.
    Granted,
    /// To Connect.
    Connected {
        /// What the server calls the connection.
        connection: u32,
    },
}

pub(super) fn write_attributes(message: &mut Encoder<'_>, request: Request) {
    match request {
        Request::Binding => {}
        Request::Allocate { family, lifetime_secs } => {
            message.u32(AttributeType::REQUESTED_TRANSPORT, PROTOCOL_UDP);
            if let Some(family) = family {
                message.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family.to_wire(), 0, 0, 0]);
            }
            if let Some(lifetime_secs) = lifetime_secs {
                message.u32(AttributeType::LIFETIME, lifetime_secs);
            }
        }
        Request::AllocateMobile => {
            message
                .u32(AttributeType::REQUESTED_TRANSPORT, PROTOCOL_UDP)
                .attribute(AttributeType::MOBILITY_TICKET, &[]);
        }
        Request::AllocateTcp => {
            message.u32(AttributeType::REQUESTED_TRANSPORT, PROTOCOL_TCP);
        }
        Request::Refresh { lifetime_secs } => {
            message.u32(AttributeType::LIFETIME, lifetime_secs);
        }
        Request::Move { ticket } => {
            message.attribute(AttributeType::MOBILITY_TICKET, ticket.value());
        }
        Request::Connect { peer } => {
            message.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        }
        Request::ConnectionBind { connection } => {
            message.u32(AttributeType::CONNECTION_ID, connection);
        }
        Request::CreatePermission { peer } => {
            message.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        }
        Request::ChannelBind { channel, peer } => {
            message.u32(AttributeType::CHANNEL_NUMBER, u32::from(channel) << 16);
            message.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        }
    }
}

/// What a success says; the attribute that is missing or unusable otherwise.
pub(super) fn read_answer(message: &Message<'_>, request: Request) -> Result<Answer, AttributeType> {
    let address = |kind| message.xor_address(kind).ok_or(kind);
    let number = |kind| {
        let value = message.get(kind).and_then(|value| <[u8; 4]>::try_from(value).ok());
        value.map(u32::from_be_bytes).ok_or(kind)
    };
    let lifetime_secs = || number(AttributeType::LIFETIME);
    Ok(match request {
        Request::Binding => Answer::Mapped { mapped: address(AttributeType::XOR_MAPPED_ADDRESS)? },
        Request::Allocate { .. } | Request::AllocateMobile | Request::AllocateTcp => Answer::Allocated {
            relayed: address(AttributeType::XOR_RELAYED_ADDRESS)?,
            mapped: address(AttributeType::XOR_MAPPED_ADDRESS)?,
            lifetime_secs: lifetime_secs()?,
        },
        Request::Refresh { .. } | Request::Move { .. } => Answer::Refreshed { lifetime_secs: lifetime_secs()? },
        Request::Connect { .. } => Answer::Connected { connection: number(AttributeType::CONNECTION_ID)? },
        Request::CreatePermission { .. } | Request::ChannelBind { .. } | Request::ConnectionBind { .. } => {
            Answer::Granted
        }
    })
}

#[cfg(test)]
mod tests {
    use turnstone_stun::{Class, TransactionId};

    use super::*;

    fn message(request: Option<Request>, more: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        let method = request.map_or(Method::ALLOCATE, Request::method);
        let mut encoder = Encoder::new(&mut out, Class::Request, method, TransactionId([1; 12]));
        if let Some(request) = request {
            write_attributes(&mut encoder, request);
        }
        more(&mut encoder);
        out
    }

    #[test]
    fn a_ticket_goes_back_as_it_came_and_an_empty_or_endless_one_is_none() {
        for (len, is_kept) in [(0, false), (1, true), (32, true), (Ticket::BYTES_MAX, true), (129, false)] {
            let value = vec![7; len];
            let came = message(None, |encoder| {
                encoder.attribute(AttributeType::MOBILITY_TICKET, &value);
            });
            let ticket = Ticket::of(&Message::parse(&came).unwrap());
            assert_eq!(ticket.is_some(), is_kept, "{len}");
            let Some(ticket) = ticket else { continue };
            let goes = message(Some(Request::Move { ticket }), |_| ());
            let goes = Message::parse(&goes).unwrap();
            assert_eq!((goes.method(), goes.get(AttributeType::MOBILITY_TICKET)), (Method::REFRESH, Some(&*value)));
        }
    }

    #[test]
    fn the_connection_of_a_tcp_relay_is_bound_by_the_number_that_the_answer_has() {
        let peer = SocketAddr::from(([192, 0, 2, 1], 80));
        let answer = message(None, |encoder| {
            encoder.u32(AttributeType::CONNECTION_ID, 0xABCD_0123);
        });
        let connected = read_answer(&Message::parse(&answer).unwrap(), Request::Connect { peer });
        assert_eq!(connected, Ok(Answer::Connected { connection: 0xABCD_0123 }));
        let bind = message(Some(Request::ConnectionBind { connection: 0xABCD_0123 }), |_| ());
        let id = Message::parse(&bind).unwrap().get(AttributeType::CONNECTION_ID).map(<[u8]>::to_vec);
        assert_eq!(id, Some(vec![0xAB, 0xCD, 0x01, 0x23]));
    }
}
