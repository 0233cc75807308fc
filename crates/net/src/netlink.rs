//! Route netlink (rtnetlink(7)), as far as it tells which addresses the kernel delivers to this host. Numbers are in the byte
//! order of the machine. What the kernel sends is read as strictly as what strangers send: a length that lies ends the reading.

use std::net::IpAddr;

use ipnet::IpNet;

use turnstone_turn::addr::Family;

/// A dump of interface addresses, or of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    /// Every address of every interface.
    Addresses,
    /// The routes of one family and kind.
    Routes(Family, RouteKind),
}

/// The kinds of routes by which a packet ends at this host (`rtm_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// Of an address, or of a whole network (AnyIP).
    Local = 2,
    /// To every host of a network of ours, this one included.
    Broadcast = 3,
    /// Such as an IPv6 router's subnet address.
    Anycast = 4,
}

impl RouteKind {
    pub(super) const ALL: [Self; 3] = [Self::Local, Self::Broadcast, Self::Anycast];
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// An interface has, or no longer has, this address.
    Address(IpAddr),
    /// Whatever is sent here ends at this host, or no longer does.
    Delivered(IpNet),
    /// Something has changed that may change the address that packets to the outside leave from: an interface or a default
    /// route.
    Way,
    /// The dump is over; whether nothing has changed while it was made.
    Done(bool),
    /// The kernel refuses, with an error number.
    Refused(i32),
    /// Something changed while the dump was made: it is to be made again.
    Interrupted,
}

/// Multicast groups of changes: interfaces, addresses, routes (`RTMGRP_*`).
pub(super) const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`.
const DUMP_REQUEST: u16 = 0x1 | 0x300;
/// `NLM_F_DUMP_INTR`
const DUMP_INTERRUPTED: u16 = 0x10;
const UNICAST: u8 = 1;
/// Tables that every packet is looked up in; others are only for packets that a rule has chosen.
const DEFAULT_TABLES: std::ops::RangeInclusive<u32> = 253..=255;
const ATTRIBUTE_DESTINATION: u16 = 1;
const ATTRIBUTE_TABLE: u16 = 15;
const ATTRIBUTE_ADDRESS: u16 = 1;
const ATTRIBUTE_LOCAL: u16 = 2;
const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;

/// The request for a dump.
pub(super) fn request(dump: Dump, sequence: u32) -> Vec<u8> {
    let (kind, body) = match dump {
        Dump::Addresses => (GET_ADDRESS, vec![0; 8]),
        Dump::Routes(family, route) => {
            let family = match family {
                Family::V4 => AF_INET,
                Family::V6 => AF_INET6,
            };
            (GET_ROUTE, vec![family, 0, 0, 0, 0, 0, 0, route as u8, 0, 0, 0, 0])
        }
    };
    let len = (HEADER_LEN + body.len()) as u32;
    let mut message = Vec::with_capacity(len as usize);
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(DUMP_REQUEST.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

/// Reads what one receive has brought: the sequence number and the content of each message that matters.
pub(super) fn read(datagram: &[u8]) -> impl Iterator<Item = (u32, Told)> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(field(rest, 0)?) as usize;
        let message = rest.get(..len).filter(|message| message.len() >= HEADER_LEN)?;
        rest = rest.get(aligned(len)..).unwrap_or_default();
        Some(message)
    })
    .filter_map(|message| Some((u32::from_ne_bytes(field(message, 8)?), told(message)?)))
}

fn told(message: &[u8]) -> Option<Told> {
    let (kind, flags) = (u16::from_ne_bytes(field(message, 4)?), u16::from_ne_bytes(field(message, 6)?));
    let body = message.get(HEADER_LEN..)?;
    let is_consistent = flags & DUMP_INTERRUPTED == 0;
    match kind {
        ERROR => Some(Told::Refused(i32::from_ne_bytes(field(body, 0)?).saturating_neg())),
        // A dump that broke off says so at its end.
        DONE => match field(body, 0).map(i32::from_ne_bytes) {
            Some(error) if error < 0 => Some(Told::Refused(error.saturating_neg())),
            _ => Some(Told::Done(is_consistent)),
        },
        _ if !is_consistent => Some(Told::Interrupted),
        NEW_LINK | DEL_LINK => Some(Told::Way),
        NEW_ADDRESS | DEL_ADDRESS => told_of_address(body),
        NEW_ROUTE | DEL_ROUTE => told_of_route(body),
        _ => None,
    }
}

fn told_of_address(body: &[u8]) -> Option<Told> {
    let &family = body.first()?;
    let (mut address, mut local) = (None, None);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            ATTRIBUTE_ADDRESS => address = ip(family, value),
            ATTRIBUTE_LOCAL => local = ip(family, value),
            _ => {}
        }
    }
    // With both, the other one is the far end of a point-to-point link.
    local.or(address).map(Told::Address)
}

fn told_of_route(body: &[u8]) -> Option<Told> {
    let [family, length, _, _, table, _, _, kind] = field(body, 0)?;
    let (mut destination, mut table) = (None, u32::from(table));
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            ATTRIBUTE_DESTINATION => destination = ip(family, value),
            ATTRIBUTE_TABLE => table = u32::from_ne_bytes(field(value, 0)?),
            _ => {}
        }
    }
    if kind == UNICAST {
        return (length == 0).then_some(Told::Way);
    }
    if !RouteKind::ALL.iter().any(|known| *known as u8 == kind) {
        return None;
    }
    // A transparent proxy takes in every address, but only for the packets that a rule has marked for its table: for all others
    // the whole Internet would seem to be this host.
    if length == 0 && !DEFAULT_TABLES.contains(&table) {
        return None;
    }
    let network = match (destination, family) {
        (Some(ip), _) => ip,
        (None, AF_INET) if length == 0 => IpAddr::from([0; 4]),
        (None, AF_INET6) if length == 0 => IpAddr::from([0; 16]),
        _ => return None,
    };
    IpNet::new(network, length).ok().map(|network| Told::Delivered(network.trunc()))
}

/// The kind and value of each attribute.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(field(rest, 0)?));
        let attribute = rest.get(..len)?;
        let kind = u16::from_ne_bytes(field(attribute, 2)?) & 0x3fff;
        rest = rest.get(aligned(len)..).unwrap_or_default();
        Some((kind, attribute.get(ATTRIBUTE_HEADER_LEN..)?))
    })
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        AF_INET6 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

fn field<const LEN: usize>(bytes: &[u8], at: usize) -> Option<[u8; LEN]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER_LEN + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(7_u32.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        message.resize(aligned(message.len()), 0);
        message
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut attribute = ((ATTRIBUTE_HEADER_LEN + value.len()) as u16).to_ne_bytes().to_vec();
        attribute.extend(kind.to_ne_bytes());
        attribute.extend(value);
        attribute.resize(aligned(attribute.len()), 0);
        attribute
    }

    fn route(kind: u8, table: u32, network: &str) -> Vec<u8> {
        let network: IpNet = network.parse().unwrap();
        let (family, bytes) = match network.addr() {
            IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
        };
        // A table beyond 255 has no room in the header.
        let mut body = vec![family, network.prefix_len(), 0, 0, u8::try_from(table).unwrap_or(252), 2, 0, kind];
        body.extend([0; 4]);
        if network.prefix_len() > 0 {
            body.extend(attribute(ATTRIBUTE_DESTINATION, &bytes));
        }
        body.extend(attribute(ATTRIBUTE_TABLE, &table.to_ne_bytes()));
        message(NEW_ROUTE, 0, &body)
    }

    fn all(datagram: &[u8]) -> Vec<Told> {
        read(datagram).map(|(_, told)| told).collect()
    }

    #[test]
    fn an_address_is_the_near_end_of_its_link() {
        let body = |attributes: &[Vec<u8>]| [vec![AF_INET, 32, 0, 0, 1, 0, 0, 0], attributes.concat()].concat();
        let (near, far) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let both = body(&[attribute(ATTRIBUTE_ADDRESS, &far), attribute(ATTRIBUTE_LOCAL, &near)]);
        assert_eq!(all(&message(NEW_ADDRESS, 0, &both)), [Told::Address(near.into())]);
        let one = body(&[attribute(3, b"eth0"), attribute(ATTRIBUTE_ADDRESS, &near)]);
        assert_eq!(all(&message(DEL_ADDRESS, 0, &one)), [Told::Address(near.into())]);
    }

    #[test]
    fn routes_that_end_here_are_told_whatever_their_table_but_for_a_transparent_proxys() {
        let delivered = |network: &str| vec![Told::Delivered(network.parse().unwrap())];
        assert_eq!(all(&route(2, 255, "5.44.1.1/32")), delivered("5.44.1.1/32"));
        assert_eq!(all(&route(2, 1000, "5.44.0.0/16")), delivered("5.44.0.0/16"));
        assert_eq!(all(&route(4, 255, "2a00:1::/128")), delivered("2a00:1::/128"));
        assert_eq!(all(&route(3, 255, "5.44.1.255/32")), delivered("5.44.1.255/32"));
        assert_eq!(all(&route(2, 255, "0.0.0.0/0")), delivered("0.0.0.0/0"));
        assert_eq!(all(&route(2, 100, "0.0.0.0/0")), []);
        assert_eq!(all(&route(2, 2004, "::/0")), []);
        assert_eq!(all(&route(1, 254, "0.0.0.0/0")), [Told::Way]);
        assert_eq!(all(&route(1, 254, "5.44.0.0/16")), []);
        assert_eq!(all(&route(5, 255, "ff00::/8")), []);
    }

    #[test]
    fn the_end_of_a_dump_and_its_failures_are_told() {
        assert_eq!(all(&message(DONE, 0, &0_i32.to_ne_bytes())), [Told::Done(true)]);
        assert_eq!(all(&message(DONE, 0, &(-105_i32).to_ne_bytes())), [Told::Refused(105)]);
        assert_eq!(all(&message(ERROR, 0, &(-1_i32).to_ne_bytes())), [Told::Refused(1)]);
        assert_eq!(all(&message(DONE, DUMP_INTERRUPTED, &0_i32.to_ne_bytes())), [Told::Done(false)]);
        assert_eq!(all(&message(NEW_ROUTE, DUMP_INTERRUPTED, &[])), [Told::Interrupted]);
    }

    #[test]
    fn messages_behind_one_another_are_all_read() {
        let datagram = [route(2, 255, "5.44.1.1/32"), message(99, 0, b"?"), message(DONE, 0, &[0; 4])].concat();
        assert_eq!(all(&datagram), [Told::Delivered("5.44.1.1/32".parse().unwrap()), Told::Done(true)]);
        assert!(read(&datagram).all(|(sequence, _)| sequence == 7));
    }

    #[test]
    fn no_truncation_is_read_as_something_else() {
        let whole = [route(2, 255, "2a00:1::/64"), route(2, 255, "5.44.1.1/32")].concat();
        let told = all(&whole);
        for len in 0..whole.len() {
            let found = all(&whole[..len]);
            assert!(told.starts_with(&found) && found.len() < told.len(), "{len}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_reading_ends(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            all(&bytes);
        }

        #[test]
        fn lies_in_a_good_message_do_no_harm(at in 0_usize..60, byte: u8) {
            let mut message = route(2, 255, "2a00:1::/64");
            if let Some(place) = message.get_mut(at) {
                *place = byte;
            }
            prop_assert!(all(&message).len() <= message.len() / HEADER_LEN);
        }
    }
}
