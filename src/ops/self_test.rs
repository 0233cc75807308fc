//! What the page's self-test needs: the URLs of every realm, and for each a credential that is good there for some minutes.

use serde::Serialize;

use super::listeners::Bound;
use crate::auth::{SharedSecret, mint};
use crate::config::{Config, WaysIn};
use crate::credentials::{is_stun, realm_urls, transport_of};

/// Whom quotas, records and `explain` know self-tests as.
const USER: &str = "turnstone-self-test";
/// Long enough for a test of every URL by hand.
const TTL_SECS: u64 = 600;
/// A test has two allocations at a time, and the ones before may linger.
const LIMITS: &str = ";alloc=16;bw=50M";

/// A way into the server as a client knows it.
#[derive(Serialize)]
pub(super) struct TestServer {
    url: String,
    transport: &'static str,
    /// Of a `[[realm]]`, its name.
    realm: Option<String>,
    /// `None` where the realm has no secret to make one with.
    username: Option<String>,
    credential: Option<String>,
}

/// All of them.
pub(super) struct TestServers {
    /// Whom the credentials are for.
    pub(super) user: &'static str,
    pub(super) servers: Vec<TestServer>,
    pub(super) now_unix: u64,
    pub(super) expires_unix: u64,
}

/// The URLs that clients of each realm are given, with a credential.
pub(super) fn servers(config: &Config, bound: &Bound, now_unix: u64) -> TestServers {
    let expires_unix = now_unix.saturating_add(TTL_SECS);
    let ways = WaysIn::new(config);
    let mut servers: Vec<TestServer> = Vec::new();
    for realm in std::iter::once(None).chain(config.realms.iter().map(Some)) {
        let (name, secrets) =
            realm.map_or((&config.auth.realm, &config.auth.secrets), |realm| (&realm.name, &realm.secrets));
        let has_limits = realm.and_then(|realm| realm.username_limits).unwrap_or(config.auth.username_limits);
        let minted =
            config.with_stored(name, secrets).first().map(|secret| credential(has_limits, secret, expires_unix));
        let urls = realm_urls(&ways, &bound.listeners, realm).into_iter().filter(|url| !is_stun(url));
        servers.extend(urls.map(|url| {
            let (username, credential) = minted.clone().unzip();
            let realm = realm.map(|realm| realm.name.clone());
            TestServer { transport: transport_of(&url).name(), url, realm, username, credential }
        }));
    }
    TestServers { user: USER, servers, now_unix, expires_unix }
}

fn credential(has_limits: bool, secret: &SharedSecret, expires_unix: u64) -> (String, String) {
    let limits = if has_limits { LIMITS } else { "" };
    let username = format!("{expires_unix}:{USER}{limits}");
    let password = mint(&secret.bytes, &username).to_string();
    (username, password)
}
