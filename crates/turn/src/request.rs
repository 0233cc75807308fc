//! The way of a TURN request: retransmission, authentication, unknown attributes, owner, method, response.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::addr::{FiveTuple, PeerAddr};
use crate::auth::Authenticated;
use crate::clock::Now;
use crate::reject::{Dropped, Reason, Reject};
use turnstone_stun::{AttributeType, ErrorCode, Message, Method, UnknownAttributes, decode_xor_address};

use super::allocation::in_secs;
use super::output::{Client, Event, Outcome};
use super::realm::Realm;
use super::refusal::{Excerpt, Refusal};
use super::relays::Relays;
use super::response::{Responder, is_known};
use super::retransmit::{REMEMBERED_SECS, Remembered, RequestDigest, Tombstone};
use super::server::Server;
use super::settings::Settings;
use super::ticket::Shown;

/// A request whose MESSAGE-INTEGRITY has verified.
pub(super) struct Request<'r> {
    pub(super) now: Now,
    pub(super) client: &'r Client,
    pub(super) message: &'r Message<'r>,
    pub(super) auth: &'r Authenticated,
    pub(super) settings: &'r Settings,
    pub(super) realm: &'r Realm,
    pub(super) responder: Responder<'r>,
}

impl Request<'_> {
    pub(super) fn five_tuple(&self) -> &FiveTuple {
        &self.client.five_tuple
    }

    /// An attribute of exactly `N` bytes.
    pub(super) fn fixed<const N: usize>(&self, kind: AttributeType) -> Result<Option<[u8; N]>, Reject> {
        match self.message.get(kind) {
            None => Ok(None),
            Some(value) => match value.try_into() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(Reason::MalformedAttribute.into()),
            },
        }
    }

    /// LIFETIME in seconds.
    pub(super) fn lifetime_secs(&self) -> Result<Option<u32>, Reject> {
        Ok(self.fixed(AttributeType::LIFETIME)?.map(u32::from_be_bytes))
    }

    /// Decodes an XOR-PEER-ADDRESS value.
    pub(super) fn peer(&self, value: &[u8]) -> Result<PeerAddr, Reject> {
        let addr = decode_xor_address(value, self.message.transaction_id()).ok_or(Reason::MalformedAttribute)?;
        PeerAddr::new(addr).map_err(|_| Reject::of_peer(Reason::PeerForm, addr))
    }
}

impl Server {
    /// Handles a request of a TURN method.
    pub(super) fn turn_request<R: Relays>(
        &mut self,
        now: Now,
        client: &Client,
        message: &Message<'_>,
        relays: &mut R,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        let method = message.method();
        let settings = Arc::clone(&self.settings);
        // RFC 8489 section 6.3: a message of a method that is not supported is discarded in silence.
        let is_offered = is_turn(method) || settings.tcp_relays.is_some() && is_turn_tcp(method);
        if !(settings.turn && is_offered) {
            return Outcome::Dropped(Dropped::UnknownMethod);
        }
        if self.waits_already(client, message) {
            return Outcome::Waits;
        }
        if message.integrity().is_none() {
            let reason = match self.redirects_stranger(&client.five_tuple, message) {
                true => Reason::Redirected,
                false => Reason::MissingIntegrity,
            };
            return self.refuse_stranger(now, client, message, reason, reply);
        }
        let at_home = self.live_slot(now, &client.five_tuple, relays);
        let shown = self.shown_ticket(now, client, message, &settings);
        if let Some(id) = self.elsewhere(now, client, message, (at_home, shown)) {
            return Outcome::Elsewhere(id);
        }
        let slot = match shown {
            Shown::Ticket(ticket) => self.allocations.find_id(ticket.allocation),
            Shown::Nothing | Shown::Invalid => at_home,
        };
        let slot = slot.filter(|slot| self.live(now, *slot).is_some());
        let digest = self.digest_of(client, message, slot);
        if let Some(response) = digest.and_then(|digest| self.remembered(now, slot, digest)) {
            reply.extend_from_slice(response);
            return Outcome::Reply;
        }
        let held = slot.and_then(|slot| self.allocations.get(slot)).map(|allocation| allocation.credential());
        let realm = settings.realm_of(client.realm);
        let auth = match realm.credentials.authenticate(now, &client.five_tuple, message, held) {
            Ok(auth) => auth,
            Err(reason) => match self.without_credential(now, client, message, reason, reply) {
                ControlFlow::Continue(auth) => auth,
                ControlFlow::Break(outcome) => return outcome,
            },
        };
        if self.shared.revocations.covers(&auth.identity, now.unix_secs) {
            return self.refuse_stranger(now, client, message, Reason::Revoked, reply);
        }
        let start = reply.len();
        let responder = Responder {
            request: message.into(),
            software: settings.software.as_deref(),
            integrity: Some((auth.integrity, &auth.key)),
        };
        let request = Request { now, client, message, auth: &auth, settings: &settings, realm, responder };
        // A request with a token came here only where tokens are taken.
        let unknown = message.unknown_required(|kind| is_known(kind) || kind == AttributeType::ACCESS_TOKEN);
        let result = if !unknown.is_empty() {
            Err(Reason::UnknownAttribute.into())
        } else {
            self.dispatch(&request, (shown, slot, at_home), relays, reply)
        };
        match result {
            Ok(Outcome::Reply) => {}
            // It has an answer later, or is of TCP relays, and nothing is repeated on a connection.
            Ok(other) => return other,
            Err(reject) => self.refuse(&request, reject, &unknown, start, reply),
        }
        self.remember(now, client, message, digest, reply.get(start..).unwrap_or_default());
        Outcome::Reply
    }

    fn refuse(
        &mut self,
        request: &Request<'_>,
        reject: Reject,
        unknown: &UnknownAttributes,
        start: usize,
        reply: &mut Vec<u8>,
    ) {
        let Request { now, client, message, realm, .. } = *request;
        reply.truncate(start);
        self.refused_with = Some((reject.reason, reject.peer));
        realm.counts.refuse();
        self.events.refused(refusal(now, client, message, realm, reject));
        self.note_denied(request, reject);
        match reject.code() {
            ErrorCode::UNKNOWN_ATTRIBUTE => request.responder.unknown_attributes(reply, reject, unknown),
            ErrorCode::UNAUTHENTICATED => request.responder.error(reply, reject, |encoder| {
                realm.credentials.challenge(now, &client.five_tuple, encoder);
            }),
            ErrorCode::TRY_ALTERNATE => request.responder.error(reply, reject, |encoder| {
                self.write_alternate(&client.five_tuple, encoder);
            }),
            _ => request.responder.error(reply, reject, |_| {}),
        }
    }

    /// Tells the guard of a peer that was denied to who has authenticated.
    fn note_denied(&mut self, request: &Request<'_>, reject: Reject) {
        let guard = &request.settings.guard;
        let Some(peer) = reject.peer.filter(|_| guard.suspension.is_some()) else { return };
        let (user, denied) = (&request.auth.identity.user, (peer.ip(), reject.reason));
        if let Some(suspension) = self.shared.guard.note_denied(guard, user, denied, request.now.micros) {
            self.events.push(Event::Suspended { suspension, client: request.five_tuple().client });
        }
    }

    fn dispatch<R: Relays>(
        &mut self,
        request: &Request<'_>,
        (shown, slot, at_home): (Shown, Option<u32>, Option<u32>),
        relays: &mut R,
        reply: &mut Vec<u8>,
    ) -> Result<Outcome, Reject> {
        match (request.message.method(), slot) {
            (Method::ALLOCATE, None) if self.is_expected(request.five_tuple()) => {
                return Err(Reason::AllocationMismatch.into());
            }
            (Method::ALLOCATE, None) => return self.allocate(request, relays, reply),
            (Method::CONNECTION_BIND, None) => return self.connection_bind(request, reply).map(Outcome::Binds),
            // The connection of an allocation cannot be that of data, too (RFC 6062 section 4.3).
            (Method::ALLOCATE | Method::CONNECTION_BIND, Some(_)) => return Err(Reason::AllocationMismatch.into()),
            _ => {}
        }
        if !matches!(shown, Shown::Nothing) {
            return self.refresh_by_ticket(request, (shown, slot, at_home), relays, reply).map(|()| Outcome::Reply);
        }
        let method = request.message.method();
        if method == Method::REFRESH && Self::shows_forbidden_ticket(request) {
            return Err(Reason::MobilityForbidden.into());
        }
        let slot = slot.ok_or(Reason::AllocationMismatch)?;
        if !self.allocations.get(slot).is_some_and(|allocation| allocation.is_owner(&request.auth.identity)) {
            return Err(Reason::WrongUser.into());
        }
        match method {
            Method::REFRESH => self.refresh(request, slot, None, relays, reply),
            Method::CREATE_PERMISSION => self.create_permission(request, slot, reply),
            Method::CHANNEL_BIND => self.channel_bind(request, slot, reply),
            Method::CONNECT => return self.connect(request, slot, relays).map(|()| Outcome::Waits),
            // No other method comes here: see `is_turn`.
            _ => Err(Reason::AllocationMismatch.into()),
        }?;
        Ok(Outcome::Reply)
    }

    /// Answers a request that nobody has authenticated, if the budget allows.
    pub(super) fn refuse_stranger(
        &mut self,
        now: Now,
        client: &Client,
        message: &Message<'_>,
        reason: Reason,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        if !self.may_answer_stranger(now, client) {
            return Outcome::Dropped(Dropped::RateLimited);
        }
        self.events.stranger_answered();
        self.refused_with = Some((reason, None));
        match had_fresh_nonce(reason) {
            true => {
                let realm = self.settings.realm_of(client.realm);
                realm.counts.refuse();
                self.events.refused(refusal(now, client, message, realm, reason.into()));
            }
            false => self.events.count_refusal(reason),
        }
        let responder =
            Responder { request: message.into(), software: self.settings.software.as_deref(), integrity: None };
        let reject = Reject::from(reason);
        if reject.code() == ErrorCode::UNKNOWN_ATTRIBUTE {
            responder.unknown_attributes(reply, reject, &message.unknown_required(is_known));
            return Outcome::Reply;
        }
        responder.error(reply, reject, |encoder| match reject.code() {
            ErrorCode::UNAUTHENTICATED | ErrorCode::STALE_NONCE => {
                self.settings.realm_of(client.realm).credentials.challenge(now, &client.five_tuple, encoder);
            }
            ErrorCode::TRY_ALTERNATE => self.write_alternate(&client.five_tuple, encoder),
            _ => {}
        });
        Outcome::Reply
    }

    /// Takes a token of the client's prefix; who is known to receive at its address needs none.
    pub(super) fn may_answer_stranger(&mut self, now: Now, client: &Client) -> bool {
        let FiveTuple { transport, client, .. } = client.five_tuple;
        transport.proves_address() || self.limiter.allow(now.micros, client.get().ip())
    }

    /// The digest of a request that may be a copy of an earlier one. Looked at before any key work, and made only if there is
    /// something the request could repeat.
    fn digest_of(&self, client: &Client, message: &Message<'_>, slot: Option<u32>) -> Option<RequestDigest> {
        let answered = slot.and_then(|slot| self.allocations.get(slot)).is_some_and(|of| of.remembered.is_some());
        let released = message.method() == Method::REFRESH && !self.tombstones.is_empty();
        (!client.five_tuple.transport.is_reliable() && (answered || released))
            .then(|| self.digester.digest(&client.five_tuple, message.as_bytes()))
    }

    /// The response to an earlier copy of the request.
    fn remembered(&self, now: Now, slot: Option<u32>, request: RequestDigest) -> Option<&[u8]> {
        let last = slot.and_then(|slot| self.allocations.get(slot)?.remembered.as_deref());
        match last {
            Some(last) if last.request == request && last.until_micros > now.micros => Some(&last.response),
            _ => self.tombstones.find(now.micros, request),
        }
    }

    /// Keeps the response with the allocation, or as a tombstone when the request has ended it.
    fn remember(
        &mut self,
        now: Now,
        client: &Client,
        message: &Message<'_>,
        digest: Option<RequestDigest>,
        response: &[u8],
    ) {
        let slot =
            self.allocations.find(&self.hash, &client.five_tuple).or_else(|| self.moving_slot(&client.five_tuple));
        let released = slot.is_none() && message.method() == Method::REFRESH && is_success(response);
        if client.five_tuple.transport.is_reliable() || !(slot.is_some() || released) {
            return;
        }
        let request = digest.unwrap_or_else(|| self.digester.digest(&client.five_tuple, message.as_bytes()));
        let until_micros = in_secs(now, REMEMBERED_SECS);
        let remembered = Remembered { request, response: response.into(), until_micros };
        let Some(slot) = slot else {
            self.tombstones.add(now.micros, Tombstone { five_tuple: client.five_tuple, remembered });
            return;
        };
        if let Some(allocation) = self.allocations.get_mut(slot) {
            allocation.remembered = Some(Box::new(remembered));
        }
        self.arm(now, slot);
    }
}

fn refusal(now: Now, client: &Client, message: &Message<'_>, realm: &Realm, reject: Reject) -> Refusal {
    Refusal {
        unix_secs: now.unix_secs,
        reason: reject.reason,
        method: message.method(),
        client: client.five_tuple.client,
        transport: client.five_tuple.transport,
        realm: realm.id(),
        username: Excerpt::of(message.get(AttributeType::USERNAME).unwrap_or_default()),
        peer: reject.peer,
        policy: reject.policy,
        times: 1,
    }
}

/// Whether a refusal to authenticate came after the nonce was found fresh: its sender receives at its address.
fn had_fresh_nonce(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PasswordAlgorithmMismatch
            | Reason::WrongRealm
            | Reason::UnknownUser
            | Reason::WrongPassword
            | Reason::NoKeyOfAlgorithm
            | Reason::CredentialExpired
            | Reason::TimestampInMilliseconds
            | Reason::AmbiguousExpiry
            | Reason::ExpiryTooFar
            | Reason::Revoked
            | Reason::MalformedUsername
            | Reason::UsernameLimits
            | Reason::CredentialUnavailable
            | Reason::TooManyWaiting
            | Reason::UnknownTokenKey
            | Reason::TokenKeyExpired
            | Reason::TokenMissing
            | Reason::TokenMalformed
            | Reason::TokenUnreadable
            | Reason::TokenExpired
            | Reason::WrongSessionKey
            | Reason::UnknownAttribute
    )
}

fn is_turn(method: Method) -> bool {
    matches!(method, Method::ALLOCATE | Method::REFRESH | Method::CREATE_PERMISSION | Method::CHANNEL_BIND)
}

/// The methods of RFC 6062.
fn is_turn_tcp(method: Method) -> bool {
    matches!(method, Method::CONNECT | Method::CONNECTION_BIND)
}

/// Whether an encoded response is of the success class.
fn is_success(response: &[u8]) -> bool {
    matches!(response, [first, second, ..] if first & 0x01 == 0x01 && second & 0x10 == 0)
}
