//! Refresh (RFC 8656 section 8.2).

use crate::addr::Family;
use crate::reject::{Reason, Reject};
use turnstone_stun::AttributeType;

use super::allocation::{cut_in_secs, granted_lifetime_secs, has_expired, in_secs};
use super::output::EndReason;
use super::realm::OnExpiry;
use super::relays::Relays;
use super::request::Request;
use super::server::Server;

impl Server {
    /// Moves the time-to-expiry of the allocation, or of one family of a dual one; zero ends it. The response has `ticket` if there is one
    /// for a client that has moved.
    pub(super) fn refresh<R: Relays>(
        &mut self,
        request: &Request<'_>,
        slot: u32,
        ticket: Option<&[u8]>,
        relays: &mut R,
        reply: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let (now, settings) = (request.now, request.settings);
        let requested_secs = request.lifetime_secs()?;
        let named: Option<[u8; 4]> = request.fixed(AttributeType::REQUESTED_ADDRESS_FAMILY)?;
        let allocation = self.allocations.get_mut(slot).ok_or(Reason::AllocationMismatch)?;
        let family = match named {
            None => None,
            Some([value, ..]) => {
                let family = Family::from_wire(value).ok_or(Reason::PeerFamilyMismatch)?;
                allocation.live_relay(family, now.micros).ok_or(Reason::PeerFamilyMismatch)?;
                Some(family)
            }
        };

        if requested_secs == Some(0) {
            let others = allocation.relays().any(|relay| {
                relay.is_live(now.micros) && family.is_some_and(|family| relay.relayed.family() != family)
            });
            match family {
                Some(family) if others => self.close_family(now, slot, family, relays),
                _ => self.end(now, slot, EndReason::Released, relays),
            }
            request.responder.success(reply, |encoder| {
                encoder.u32(AttributeType::LIFETIME, 0);
            });
            return Ok(());
        }

        let with = &request.auth.identity;
        if with.is_token() {
            if with.expires_unix().is_some_and(|expires| expires <= now.unix_secs) {
                return Err(Reason::TokenExpired.into());
            }
            allocation.take_token(request.auth);
        } else if request.realm.on_expiry == OnExpiry::NoRefresh && has_expired(now, &allocation.identity) {
            return Err(Reason::CredentialExpired.into());
        }
        let granted = granted_lifetime_secs(settings, requested_secs);
        let lifetime_secs =
            cut_in_secs(request.realm, now, &allocation.identity).map_or(granted, |cut| cut.min(granted));
        let until_micros = in_secs(now, lifetime_secs);
        for relay in allocation.relays_mut() {
            if relay.is_live(now.micros) && family.is_none_or(|family| family == relay.relayed.family()) {
                relay.until_micros = until_micros;
            }
        }
        self.arm(now, slot);
        request.responder.success(reply, |encoder| {
            encoder.u32(AttributeType::LIFETIME, lifetime_secs);
            if let Some(ticket) = ticket {
                encoder.attribute(AttributeType::MOBILITY_TICKET, ticket);
            }
        });
        Ok(())
    }
}
