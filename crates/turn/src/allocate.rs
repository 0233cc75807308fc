//! Allocate (RFC 8656 section 7.2).

use std::sync::Arc;

use crate::addr::Family;
use crate::policy::Meter;
use crate::reject::{Reason, Reject};
use turnstone_stun::{AttributeType, Encoder, ErrorCode};

use super::allocation::{Allocation, cut_in_secs, granted_lifetime_secs, in_secs};
use super::connect::is_over_tcp;
use super::mobile::Mobile;
use super::output::{Event, Outcome};
use super::peer::{Judges, choose};
use super::relays::{OpenRelay, PortRequest, RelayError, Relays, ReservationToken};
use super::request::Request;
use super::server::Server;
use super::settings::DefaultFamily;

/// The protocol numbers of the transports between server and peers.
const UDP: u8 = 17;
const TCP: u8 = 6;

/// What the request asks for, checked.
struct Wish {
    /// Whether the relays are TCP (RFC 6062) and not UDP.
    tcp: bool,
    placement: Placement,
    lifetime_secs: Option<u32>,
}

/// Where the relayed transport addresses come from.
enum Placement {
    Reserved(ReservationToken),
    Single { family: Family, port: PortWish },
    Dual { port: PortWish },
}

#[derive(Clone, Copy)]
enum PortWish {
    Any,
    Even,
    EvenAndNext,
}

/// The relays opened for an allocation.
struct Opened {
    first: OpenRelay,
    second: Option<OpenRelay>,
    /// The family of a dual allocation that could not be had, and why.
    missing: Option<(Family, ErrorCode)>,
}

impl Server {
    /// Makes an allocation, or has the request wait. The 5-tuple has none.
    pub(super) fn allocate<R: Relays>(
        &mut self,
        request: &Request<'_>,
        relays: &mut R,
        reply: &mut Vec<u8>,
    ) -> Result<Outcome, Reject> {
        let wish = read_wish(request, relays)?;
        let wants_ticket = Self::wants_ticket(request)?;
        if wants_ticket && wish.tcp {
            // Its connections stay where they are.
            return Err(Reason::MobilityForbidden.into());
        }
        if self.redirects(request.five_tuple()) {
            return Err(Reason::Redirected.into());
        }
        if self.draining {
            return Err(Reason::Draining.into());
        }
        let (now, settings, identity) = (request.now, request.settings, &request.auth.identity);
        let guard = &self.shared.guard;
        if settings.guard.suspension.is_some() && guard.is_suspended(&identity.user, now.micros) {
            return Err(Reason::Suspended.into());
        }
        let judges = choose(settings, identity);
        if judges.has_unknown() {
            return Err(Reject { policy: identity.peer_policy(), ..Reason::UnknownPeerPolicy.into() });
        }
        let Some(quota) = self.reserve(request)? else { return Ok(Outcome::Waits) };
        let opened = open(request, &wish, relays)?;

        let granted = granted_lifetime_secs(settings, wish.lifetime_secs);
        let lifetime_secs = cut_in_secs(request.realm, now, identity).map_or(granted, |cut| cut.min(granted));
        let meter = Meter::new(
            identity.bandwidth(request.realm.bandwidth),
            &self.shared.user_bandwidths,
            &identity.user,
            now.micros,
        );
        let id = self.ids.take();
        let is_frequent = quota.is_frequent();
        let mobile = wants_ticket.then(|| Box::new(Mobile::new()));
        let ticket = mobile.as_ref().and_then(|mobile| self.seal_ticket(now, id, mobile.serial));
        let mut allocation =
            Allocation::new(id, *request.client, now, request.auth, meter, quota, Judges::new(judges, self.generation));
        allocation.mobile = mobile;
        for relay in [Some(opened.first), opened.second].iter().flatten() {
            allocation.add_relay(relay, in_secs(now, lifetime_secs));
        }
        allocation.connections = wish.tcp.then(Box::default);
        let slot = self.allocations.insert(&self.hash, Box::new(allocation));
        for relay in [Some(opened.first), opened.second].iter().flatten() {
            if wish.tcp {
                self.tcp.relays.insert(relay.id, slot);
            } else {
                self.share(relay.id, relays);
            }
        }
        self.arm(now, slot);
        request.realm.counts.allocate();
        self.events.push(Event::Allocated {
            id,
            five_tuple: *request.five_tuple(),
            username: Arc::clone(&identity.username),
            user: identity.user.clone(),
            is_frequent,
            relayed: [Some(opened.first), opened.second].iter().flatten().map(|relay| relay.relayed).collect(),
        });
        request.responder.success(reply, |encoder| {
            write_success(encoder, request, &opened, lifetime_secs);
            if let Some(ticket) = ticket {
                encoder.attribute(AttributeType::MOBILITY_TICKET, &ticket);
            }
        });
        Ok(Outcome::Reply)
    }
}

/// Checks the attributes in the order of RFC 8656 section 7.2.
fn read_wish<R: Relays>(request: &Request<'_>, relays: &R) -> Result<Wish, Reject> {
    let requested_transport: [u8; 4] =
        request.fixed(AttributeType::REQUESTED_TRANSPORT)?.ok_or(Reason::MissingAttribute)?;
    let tcp = match requested_transport {
        [UDP, ..] => false,
        [TCP, ..] if request.settings.tcp_relays.is_some() => true,
        _ => return Err(Reason::TransportUnsupported.into()),
    };
    if tcp {
        check_tcp(request)?;
    }
    let token: Option<ReservationToken> = request.fixed(AttributeType::RESERVATION_TOKEN)?;
    let even_port: Option<[u8; 1]> = request.fixed(AttributeType::EVEN_PORT)?;
    let family: Option<[u8; 4]> = request.fixed(AttributeType::REQUESTED_ADDRESS_FAMILY)?;
    let additional: Option<[u8; 4]> = request.fixed(AttributeType::ADDITIONAL_ADDRESS_FAMILY)?;
    let lifetime_secs = request.lifetime_secs()?;

    if let Some(token) = token {
        if even_port.is_some() || family.is_some() || additional.is_some() {
            return Err(Reason::ConflictingAttributes.into());
        }
        return Ok(Wish { tcp, placement: Placement::Reserved(token), lifetime_secs });
    }
    if family.is_some() && additional.is_some() {
        return Err(Reason::ConflictingAttributes.into());
    }
    let port = match even_port {
        None => PortWish::Any,
        Some([flags]) if flags & 0x80 == 0 => PortWish::Even,
        Some(_) => PortWish::EvenAndNext,
    };
    let Some([additional, ..]) = additional else {
        let family = match family {
            None => default_family(request, relays),
            Some([value, ..]) => Family::from_wire(value).ok_or(Reason::FamilyUnsupported)?,
        };
        if !relays.supports(family) {
            return Err(Reason::FamilyUnsupported.into());
        }
        return Ok(Wish { tcp, placement: Placement::Single { family, port }, lifetime_secs });
    };
    if matches!(port, PortWish::EvenAndNext) {
        return Err(Reason::ConflictingAttributes.into());
    }
    if Family::from_wire(additional) != Some(Family::V6) {
        return Err(Reason::MalformedAttribute.into());
    }
    Ok(Wish { tcp, placement: Placement::Dual { port }, lifetime_secs })
}

/// The family of a client that names none.
fn default_family<R: Relays>(request: &Request<'_>, relays: &R) -> Family {
    match request.settings.default_family {
        DefaultFamily::Always(family) => family,
        DefaultFamily::AsClient => {
            let of_client = Family::of(request.five_tuple().client.get().ip());
            if relays.supports(of_client) { of_client } else { Family::V4 }
        }
    }
}

/// What an Allocate for TCP may not have (RFC 6062 section 5.1).
fn check_tcp(request: &Request<'_>) -> Result<(), Reject> {
    if !is_over_tcp(request.client) {
        return Err(Reason::ConnectionNeeded.into());
    }
    let of_udp = [AttributeType::DONT_FRAGMENT, AttributeType::EVEN_PORT, AttributeType::RESERVATION_TOKEN];
    match of_udp.iter().any(|kind| request.message.get(*kind).is_some()) {
        true => Err(Reason::ConflictingAttributes.into()),
        false => Ok(()),
    }
}

fn open<R: Relays>(request: &Request<'_>, wish: &Wish, relays: &mut R) -> Result<Opened, Reject> {
    let user = &request.auth.identity.user;
    let per_user_max = request.realm.quota.reservations_per_user;
    let now_micros = request.now.micros;
    let port_request = |port| match port {
        PortWish::Any => PortRequest::Any,
        PortWish::Even => PortRequest::Even,
        PortWish::EvenAndNext => PortRequest::EvenAndReserveNext { user, per_user_max },
    };
    let open_one = |relays: &mut R, family, port| match wish.tcp {
        true => relays.open_tcp(request.five_tuple(), family),
        false => relays.open_for(request.five_tuple(), now_micros, family, port_request(port)),
    };
    let single = |first| Opened { first, second: None, missing: None };
    match wish.placement {
        Placement::Reserved(token) => relays.open_reserved(now_micros, token, user).map(single).map_err(reject),
        Placement::Single { family, port } => open_one(relays, family, port).map(single).map_err(reject),
        Placement::Dual { port } => {
            let v4 = open_one(relays, Family::V4, port);
            let v6 = open_one(relays, Family::V6, port);
            match (v4, v6) {
                (Ok(first), Ok(second)) => Ok(Opened { first, second: Some(second), missing: None }),
                (Ok(first), Err(error)) => {
                    Ok(Opened { first, second: None, missing: Some((Family::V6, reject(error).code())) })
                }
                (Err(error), Ok(first)) => {
                    Ok(Opened { first, second: None, missing: Some((Family::V4, reject(error).code())) })
                }
                (Err(RelayError::NoFamily), Err(error)) | (Err(error), Err(_)) => Err(reject(error)),
            }
        }
    }
}

fn reject(error: RelayError) -> Reject {
    match error {
        RelayError::NoFamily => Reason::FamilyUnsupported.into(),
        RelayError::NoPort => Reason::NoPort.into(),
        RelayError::SharedPorts => Reason::SharedPorts.into(),
        RelayError::UserReservations => Reason::UserReservations.into(),
        RelayError::NoReservation => Reason::NoReservation.into(),
        RelayError::UnknownToken => Reason::UnknownReservation.into(),
        RelayError::NoAddress => Reason::NoRelayAddress.into(),
        RelayError::System => Reason::SystemError.into(),
    }
}

fn write_success(encoder: &mut Encoder<'_>, request: &Request<'_>, opened: &Opened, lifetime_secs: u32) {
    encoder.xor_address(AttributeType::XOR_RELAYED_ADDRESS, opened.first.relayed.get());
    if let Some(second) = opened.second {
        encoder.xor_address(AttributeType::XOR_RELAYED_ADDRESS, second.relayed.get());
    }
    encoder.u32(AttributeType::LIFETIME, lifetime_secs);
    if let Some(token) = opened.first.reservation {
        encoder.attribute(AttributeType::RESERVATION_TOKEN, &token);
    }
    encoder.xor_address(AttributeType::XOR_MAPPED_ADDRESS, request.five_tuple().client.get());
    if let Some((family, code)) = opened.missing {
        let number = code.value();
        let mut value = vec![family.to_wire(), 0, (number / 100) as u8, (number % 100) as u8];
        value.extend_from_slice(code.phrase().as_bytes());
        encoder.attribute(AttributeType::ADDRESS_ERROR_CODE, &value);
    }
}
