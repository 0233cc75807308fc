//! ConnectionBind (RFC 6062 section 5.4): a client's connection becomes that of its data.

use std::sync::Arc;

use crate::auth::Authenticated;
use crate::clock::Now;
use crate::reject::{Reason, Reject};
use turnstone_stun::{AttributeType, Message, Method};

use super::connect::is_over_tcp;
use super::connection_ids::{ConnectionId, NotOffered};
use super::output::{Binding, Client};
use super::request::Request;
use super::server::Server;

impl Server {
    /// Takes a connection for a client's data. Its worker may be another one.
    pub(super) fn connection_bind(&mut self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Binding, Reject> {
        if !is_over_tcp(request.client) {
            return Err(Reason::ConnectionNeeded.into());
        }
        let id = request.fixed(AttributeType::CONNECTION_ID)?.ok_or(Reason::MissingAttribute)?;
        let id = ConnectionId::from_wire(id);
        let claimed = self.shared.connection_ids.claim(id, &request.auth.identity);
        let worker = claimed.map_err(|error| match error {
            NotOffered::Unknown => Reason::UnknownConnection,
            NotOffered::OfAnother => Reason::WrongUser,
        })?;
        request.responder.success(reply, |_| {});
        Ok(Binding { connection: id, worker })
    }

    /// Verifies a ConnectionBind with the credential of its allocation, which may have expired since: what is kept is kept whole.
    pub(super) fn authenticate_by_connection(
        &self,
        now: Now,
        client: &Client,
        message: &Message<'_>,
    ) -> Option<Authenticated> {
        if message.method() != Method::CONNECTION_BIND {
            return None;
        }
        let id = message.get(AttributeType::CONNECTION_ID)?.try_into().ok()?;
        let owner = self.shared.connection_ids.owner(ConnectionId::from_wire(id))?;
        let credentials = Arc::clone(&self.settings.realm_of(client.realm).credentials);
        credentials.authenticate(now, &client.five_tuple, message, Some(owner.credential())).ok()
    }
}
