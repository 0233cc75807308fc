//! Static users, found by USERNAME or by USERHASH.

/// The static users of the realm.
#[derive(Clone, Default)]
pub struct Users {}
