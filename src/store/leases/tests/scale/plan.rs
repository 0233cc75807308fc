//! What is played, and when what happens.

use super::world::Plan;
use crate::policy::WithoutShare;

/// The fleet of the page is so many times what is played.
pub(super) const TIMES: u64 = 50;
/// What a shard of the store needs for a call about a share, and for a server that says that it is there.
pub(super) const CALL_MICROS: u64 = 28;
pub(super) const BEAT_MICROS: u64 = 28;
/// The latter as it would be if each server looked at all of a thousand others.
pub(super) const BEAT_OF_ALL_MICROS: u64 = 880;
pub(super) const SHARDS: usize = 8;
/// All calls that a server may have under way.
pub(super) const MANY: usize = 128;

pub(super) const FLEET: Plan = Plan {
    nodes: 20,
    users: 80_000,
    limit: 20,
    allocations: (1, 4),
    seconds: (60, 540),
    is_spread: false,
    call_micros: CALL_MICROS * TIMES,
    beat_micros: BEAT_MICROS * TIMES,
    shards: SHARDS,
    without: WithoutShare::LocalShare,
    fixed_window: None,
};
pub(super) const FILL_SECS: u64 = 40;
pub(super) const SETTLE_SECS: usize = 100;
/// What happens, by the second after it has settled.
pub(super) const DIE: usize = 60;
pub(super) const START: usize = 120;
pub(super) const LOSE: usize = 150;
pub(super) const RETURN: usize = 180;
pub(super) const FORGET: usize = 270;
pub(super) const END: usize = 360;

/// A user who wants more than his limit, at all servers.
pub(super) const GREED: Plan = Plan {
    nodes: 100,
    users: 6,
    allocations: (900, 1100),
    seconds: (60, 120),
    is_spread: true,
    call_micros: CALL_MICROS,
    beat_micros: BEAT_MICROS,
    ..FLEET
};
pub(super) const CUT_OFF_ONE_OF: usize = 10;

/// The most that one user has had.
#[derive(Debug)]
pub(super) struct Most {
    pub(super) usual: u64,
    pub(super) cut_off: u64,
    pub(super) forgotten: u64,
}
