//! What makes an allocation mobile (RFC 8016).

use crate::addr::FiveTuple;

/// What an allocation has whose client has asked for a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mobile {
    /// The number of the ticket that is good.
    pub(super) serial: u16,
    /// Until when the one before it is taken for a retransmission.
    pub(super) retired_until_micros: u64,
    /// Until when earlier moves are paid for.
    pub(super) paid_until_micros: u64,
    /// Its connection has closed; nobody has its 5-tuple.
    pub(super) is_away: bool,
    /// Where it is to move.
    pub(super) pending: Option<FiveTuple>,
}

impl Mobile {
    pub(super) fn new() -> Self {
        Self { serial: 1, retired_until_micros: 0, paid_until_micros: 0, is_away: false, pending: None }
    }
}
