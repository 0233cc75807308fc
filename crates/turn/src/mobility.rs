//! Mobility (RFC 8016): an allocation's tickets, and Refresh by which its client comes back from another address.

use crate::addr::FiveTuple;
use crate::clock::{Now, SECOND};
use crate::policy::Quotas;
use crate::reject::{Reason, Reject};
use turnstone_stun::{AttributeType, Message, Method};

use super::allocation::{Allocation, in_secs};
use super::ids::AllocationId;
use super::output::{Client, Event, Outcome};
use super::relays::Relays;
use super::request::Request;
use super::server::Server;
use super::settings::Settings;
use super::ticket::{Shown, TICKET_LEN, Ticket};

/// How long the ticket before the last one is taken for a retransmission (RFC 8016 section 3.2.2: at least 30 seconds).
const RETIRED_SECS: u32 = 40;
/// How long an allocation whose connection has closed waits for its client.
const AWAY_SECS: u32 = 120;
/// A client may move once a second, and five times at once after it has not for a while: a move costs as much as a new allocation.
const MOVE_MICROS: u64 = SECOND;
const MOVES_AT_ONCE: u64 = 5;

impl Allocation {
    /// The event of having moved from a 5-tuple to where it is now.
    pub(super) fn moved_event(&self, from: FiveTuple, quotas: &Quotas, now: Now) -> Event {
        let is_frequent = !quotas.tells_move(&self.identity.user, now.micros);
        let username = self.identity.username.clone();
        Event::Moved { id: self.id, from, five_tuple: self.client.five_tuple, username, is_frequent }
    }
}

impl Server {
    /// Handles a request that another server has passed on ([`Outcome::Elsewhere`]), or that no other server has an allocation for
    /// (`from` is `None`): the outcome is never [`Outcome::Elsewhere`]. The reply goes to the server that it came to.
    pub fn handle_passed_on<R: Relays>(
        &mut self,
        now: Now,
        client: &Client,
        from: Option<u16>,
        message: &[u8],
        relays: &mut R,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        self.moves.passed_on = Some(from);
        let outcome = self.handle_message(now, client, message, relays, reply);
        self.moves.passed_on = None;
        outcome
    }

    /// What a request shows. Looked at once its nonce has been found fresh: a forged ticket costs less than a forged MAC.
    pub(super) fn shown_ticket(
        &mut self,
        now: Now,
        client: &Client,
        message: &Message<'_>,
        settings: &Settings,
    ) -> Shown {
        if message.method() != Method::REFRESH || !settings.mobility {
            return Shown::Nothing;
        }
        let Some(sealed) = message.get(AttributeType::MOBILITY_TICKET) else { return Shown::Nothing };
        if !settings.realm_of(client.realm).credentials.has_fresh_nonce(now, &client.five_tuple, message) {
            return Shown::Nothing;
        }
        self.moves.sealer.open(sealed).map_or(Shown::Invalid, Shown::Ticket)
    }

    /// The allocation that a request is for, if another server may have it.
    pub(super) fn elsewhere(
        &self,
        now: Now,
        client: &Client,
        message: &Message<'_>,
        (slot, shown): (Option<u32>, Shown),
    ) -> Option<AllocationId> {
        if self.moves.passed_on.is_some() || slot.is_some() {
            return None;
        }
        match shown {
            Shown::Ticket(Ticket { allocation: id, .. }) => {
                let may_be_elsewhere = self.moves.has_moved_out || id.worker() != self.ids.next().worker();
                let is_free = !self.is_promised(&client.five_tuple, id);
                (may_be_elsewhere && is_free && self.allocations.find_id(id).is_none()).then_some(id)
            }
            Shown::Invalid => None,
            Shown::Nothing if message.method() == Method::ALLOCATE => None,
            Shown::Nothing => self.moves.expected(&client.five_tuple).filter(|_| {
                self.settings.realm_of(client.realm).credentials.has_fresh_nonce(now, &client.five_tuple, message)
            }),
        }
    }

    /// Whether a 5-tuple is about to be that of another allocation than this one, of another server.
    fn is_promised(&self, five_tuple: &FiveTuple, id: AllocationId) -> bool {
        self.moves.expected(five_tuple).is_some_and(|of| of != id)
    }

    /// Whether a 5-tuple is about to be that of an allocation of another server.
    pub(super) fn is_expected(&self, five_tuple: &FiveTuple) -> bool {
        self.moves.expected(five_tuple).is_some()
    }

    /// Reads MOBILITY-TICKET in an Allocate: whether a ticket is wanted (RFC 8016 section 3.1.2).
    pub(super) fn wants_ticket(request: &Request<'_>) -> Result<bool, Reject> {
        match request.message.get(AttributeType::MOBILITY_TICKET) {
            None => Ok(false),
            Some(_) if !request.settings.mobility => Err(Reason::MobilityForbidden.into()),
            Some([]) => Ok(true),
            Some(_) => Err(Reason::MalformedAttribute.into()),
        }
    }

    /// Whether a Refresh comes with a ticket though mobility is not, or no longer, offered.
    pub(super) fn shows_forbidden_ticket(request: &Request<'_>) -> bool {
        !request.settings.mobility && request.message.get(AttributeType::MOBILITY_TICKET).is_some()
    }

    /// A ticket of an allocation.
    pub(super) fn seal_ticket(&mut self, now: Now, allocation: AllocationId, serial: u16) -> Option<[u8; TICKET_LEN]> {
        self.moves.sealer.seal(now.unix_secs, Ticket { allocation, serial }, &mut *self.fill_random)
    }

    /// Refreshes, or ends, the allocation of a ticket, and grants it the move to the 5-tuple of the request (RFC 8016 section 3.2.2).
    /// `slot` is the ticket's allocation, if it lives; `at_home` what the 5-tuple has by itself.
    pub(super) fn refresh_by_ticket<R: Relays>(
        &mut self,
        request: &Request<'_>,
        (shown, slot, at_home): (Shown, Option<u32>, Option<u32>),
        relays: &mut R,
        reply: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let Shown::Ticket(ticket) = shown else { return Err(Reason::InvalidTicket.into()) };
        let (now, five_tuple) = (request.now, request.five_tuple());
        let slot = slot.ok_or(Reason::AllocationMismatch)?;
        let allocation = self.allocations.get(slot).ok_or(Reason::AllocationMismatch)?;
        if at_home.is_some_and(|other| other != slot) || self.is_promised(five_tuple, allocation.id) {
            return Err(Reason::AllocationMismatch.into());
        }
        if !allocation.is_owner(&request.auth.identity) {
            return Err(Reason::WrongUser.into());
        }
        let (id, user) = (allocation.id, allocation.identity.user.clone());
        let mobile = *allocation.mobile.as_deref().ok_or(Reason::InvalidTicket)?;
        let is_home = allocation.client.five_tuple == *five_tuple && !mobile.is_away;
        // The move may have been made meanwhile, or at once: a lost answer is lost all the same.
        let is_where_it_was_shown = mobile.pending.map_or(is_home, |pending| pending == *five_tuple);
        let is_again = ticket.serial == mobile.serial.wrapping_sub(1)
            && is_where_it_was_shown
            && now.micros < mobile.retired_until_micros;
        if is_home && !is_again {
            return Err(Reason::TicketNotNeeded.into());
        }
        if ticket.serial != mobile.serial && !is_again {
            return Err(Reason::UsedTicket.into());
        }
        let paid_micros = mobile.paid_until_micros.max(now.micros);
        let is_too_fast = paid_micros - now.micros > MOVE_MICROS * (MOVES_AT_ONCE - 1);
        if !is_again && (is_too_fast || (mobile.pending.is_none() && !self.moves.has_room(&user))) {
            return Err(Reason::TooManyMoves.into());
        }
        let serial = if is_again { mobile.serial } else { mobile.serial.wrapping_add(1) };
        let sealed = self.seal_ticket(now, id, serial).ok_or(Reason::SystemError)?;
        self.refresh(request, slot, Some(&sealed), relays, reply)?;
        if is_again || self.allocations.find_id(id) != Some(slot) || request.lifetime_secs()? == Some(0) {
            return Ok(());
        }
        if let Some(before) = mobile.pending {
            self.moves.cancel(&before);
        }
        self.moves.add(now, id, &user, *request.client);
        if let Some(mobile) = self.allocations.get_mut(slot).and_then(|allocation| allocation.mobile.as_mut()) {
            mobile.serial = serial;
            mobile.retired_until_micros = in_secs(now, RETIRED_SECS);
            mobile.paid_until_micros = paid_micros + MOVE_MICROS;
            mobile.pending = Some(*five_tuple);
        }
        if self.allocations.get(slot).is_some_and(Allocation::is_away) {
            // There is no old 5-tuple that could still be used.
            self.follow_client(now, slot);
        }
        Ok(())
    }

    /// An allocation that has no 5-tuple waits for its client.
    pub(super) fn wait_for_client(&mut self, now: Now, slot: u32) {
        let until_micros = in_secs(now, AWAY_SECS);
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        for relay in allocation.relays_mut() {
            relay.until_micros = relay.until_micros.min(until_micros);
        }
        self.arm(now, slot);
    }
}
