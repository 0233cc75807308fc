//! What the page's self-test needs: the URL of every listener, and a credential that is good there for some minutes.

use std::net::SocketAddr;

use serde::Serialize;

use super::listeners::Bound;
use crate::addr::Transport;
use crate::auth::{SharedSecret, mint};
use crate::config::{Config, WaysIn};
use crate::credentials::turn_urls;

/// Whom quotas, records and `explain` know self-tests as.
const USER: &str = "turnstone-self-test";
/// Long enough for a test of every listener by hand.
const TTL_SECS: u64 = 600;
/// A test has two allocations at a time, and the ones before may linger.
const LIMITS: &str = ";alloc=16;bw=50M";

/// A listener as a client sees it.
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

/// Each listener's URL, with a credential.
pub(super) fn servers(config: &Config, bound: &Bound, now_unix: u64) -> TestServers {
    let expires_unix = now_unix.saturating_add(TTL_SECS);
    let ways = WaysIn::new(config);
    let mut servers: Vec<TestServer> = Vec::new();
    for (listener, (transport, address)) in config.listeners.iter().zip(&bound.listeners) {
        let Some(url) = url_of(config, *transport, *address) else { continue };
        if servers.iter().any(|server| server.url == url) {
            continue;
        }
        let realm = ways.realm_at(listener, config.auth.public_host.as_deref());
        let secrets = realm.map_or(&config.auth.secrets, |realm| &realm.secrets);
        let minted = secrets.first().map(|secret| credential(config, secret, expires_unix));
        let (username, credential) = minted.unzip();
        let realm = realm.map(|realm| realm.name.clone());
        servers.push(TestServer { url, transport: transport.name(), realm, username, credential });
    }
    TestServers { user: USER, servers, now_unix, expires_unix }
}

fn url_of(config: &Config, transport: Transport, address: SocketAddr) -> Option<String> {
    turn_urls([(transport, address)], &config.relay, config.auth.public_host.as_deref()).pop()
}

fn credential(config: &Config, secret: &SharedSecret, expires_unix: u64) -> (String, String) {
    let limits = if config.auth.username_limits { LIMITS } else { "" };
    let username = format!("{expires_unix}:{USER}{limits}");
    let password = mint(&secret.bytes, &username).to_string();
    (username, password)
}
