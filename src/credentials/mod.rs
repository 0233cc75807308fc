//! Time-limited credentials as they are handed out: made, with the URLs that they are for, and the API (HTTP and JSON) that back ends and
//! pages ask for them. Nothing here is on the way of packets, or asks a worker for anything.

mod api_keys;
mod cors;
mod issue;
mod issuer;
mod minted;
mod own;
mod refused;
mod reply;
mod request;
mod revoke;
mod routes;
mod service;
mod shapes;
mod stats;
mod test_page;
mod urls;

pub(crate) use api_keys::{ApiKeyText, PREFIX as API_KEY_PREFIX};
pub(crate) use issue::{About, Issued, LimitTexts, TTL_MAX_SECS, UsernameRules, Wish};
pub(crate) use revoke::{NotRevoked, RevokeOrder};
pub(crate) use service::CredentialsService;
pub(crate) use stats::{CredentialsStats, Outcome};
pub(crate) use urls::{
    client_addresses, ice_servers, is_stun, offered_urls, peer_connection, realm_urls, transport_of, turn_urls,
    written_urls,
};
