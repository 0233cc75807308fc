//! What a ClientHello of DTLS gets before anything is kept of it: a cookie, which costs as much as the answer to a stranger's request
//! (RFC 7350 section 4.6, RFC 6347 section 4.2.1).

use crate::addr::ClientAddr;
use crate::auth::Cookie;
use crate::clock::Now;

use super::server::Server;

impl Server {
    /// A cookie for a client that has shown none, out of the budget for strangers; `None` when that is used up. `parameters` is what its
    /// hello asks for, and must ask for again.
    pub fn hello_cookie(&mut self, now: Now, client: ClientAddr, parameters: &[&[u8]]) -> Option<Cookie> {
        if !self.limiter.allow(now.micros, client.get().ip()) {
            return None;
        }
        self.events.stranger_answered();
        Some(self.settings.realm.credentials.nonce_keys().cookie(now.unix_secs, client, parameters))
    }

    /// Whether the cookie of a hello shows that its client receives at its address.
    pub fn is_hello_cookie(&self, now: Now, client: ClientAddr, parameters: &[&[u8]], cookie: &[u8]) -> bool {
        self.settings.realm.credentials.nonce_keys().is_cookie(now.unix_secs, client, parameters, cookie)
    }
}
