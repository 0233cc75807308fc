//! Datagrams from a proxy, each with a header of the PROXY protocol in front of its payload (version 2; section 1 of its text).
//!
//! The client in the 5-tuple is the one that the header names, its server the address at which it reached the proxy. Answers go back to the
//! proxy, without a header.

use super::streams::kind_of;
use crate::addr::{ClientAddr, FiveTuple};
use crate::clock::Now;
use crate::proxy::read_datagram_header;
use crate::turn::Client;
use crate::worker::inbox::{Inbox, Payload};
use crate::worker::observers::Observers;

/// Whose a datagram is that `proxy` has passed on, and the payload behind the header. What has none, or a wrong one, is counted.
pub(in crate::worker) fn unwrap(
    now: Now,
    proxy: &Client,
    datagram: Payload,
    inbox: &Inbox,
    observers: &Observers,
) -> Option<(Client, Payload)> {
    let header = match read_datagram_header(inbox.bytes(datagram.span)) {
        Ok(header) => header,
        Err(error) => {
            observers.note_header(now.micros, proxy.five_tuple.client.get(), kind_of(error), &error);
            return None;
        }
    };
    let payload = datagram.inner(header.len, datagram.len().saturating_sub(header.len));
    // A proxy that speaks for itself is the client.
    let Some(ends) = header.ends else { return Some((*proxy, payload)) };
    let five_tuple = FiveTuple { client: ClientAddr::new(ends.client), server: ends.server, ..proxy.five_tuple };
    // Nobody sends from port 0.
    (ends.client.port() != 0).then_some((Client { five_tuple, ..*proxy }, payload))
}
