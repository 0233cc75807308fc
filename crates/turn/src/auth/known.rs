//! A request judged by a credential that is at hand, where nobody can wait for it.

use std::sync::Arc;

use turnstone_stun::Message;

use super::asked::KnownCredential;
use super::long_term::{Authenticated, Credentials};
use crate::addr::FiveTuple;
use crate::clock::Now;
use crate::reject::Reason;

impl Credentials {
    /// Checks a request whose user [`Self::authenticate`] does not know by a credential that is at hand, as a server does that has asked for it.
    ///
    /// # Errors
    /// As there.
    pub fn authenticate_known(
        &self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &Message<'_>,
        (username, known): (&Arc<str>, KnownCredential),
    ) -> Result<Authenticated, Reason> {
        let user = known.into_user(username, self.realm(), self.label());
        self.authenticate_asked(now, five_tuple, message, Some(&user))
    }
}
