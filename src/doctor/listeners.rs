//! Each listener as a client sees it: the steps of `turnstone probe`, at an address of this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use secrecy::ExposeSecret;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::addr::{Family, Transport};
use crate::auth::{SharedSecret, Users, mint};
use crate::client::Credential;
use crate::client::tls::TrustError;
use crate::config::{Auth, Config, Listener, StoredSecrets, WaysIn};
use crate::probe::{self, Status, Step, Target, TurnUrl, UrlError};

use super::{Options, Progress, finding};

/// How long the credential made for the probe is good.
const CREDENTIAL_SECS: u64 = 120;
const USER: &str = "turnstone-doctor";

/// A credential from the first secret, or that of a static user.
pub(super) fn credential(auth: &Auth, now_unix: u64) -> Option<Credential> {
    credential_of(&auth.secrets, &auth.users, now_unix)
}

/// The same for the realm that a client comes in by at a listener, which asks for this server name if it is TLS.
pub(super) fn credential_at(
    config: &Config,
    stored: &StoredSecrets,
    listener: &Listener,
    name: Option<&str>,
    now_unix: u64,
) -> Option<Credential> {
    let realm = WaysIn::new(config).realm_at(listener, name);
    let configured = match realm {
        Some(realm) => credential_of(&realm.secrets, &realm.users, now_unix),
        None => credential(&config.auth, now_unix),
    };
    // Where the configuration knows nobody, the store may.
    let name = realm.map_or(&config.auth.realm, |realm| &realm.name);
    configured.or_else(|| Some(credential_by(stored.get(name)?.first()?, now_unix)))
}

fn credential_of(secrets: &[SharedSecret], users: &Users, now_unix: u64) -> Option<Credential> {
    if let Some(secret) = secrets.first() {
        return Some(credential_by(secret, now_unix));
    }
    let (name, password) = users.first()?;
    let password = Zeroizing::new(password.expose_secret().to_owned());
    Some(Credential { username: name.to_owned(), password, sha256: false })
}

fn credential_by(secret: &SharedSecret, now_unix: u64) -> Credential {
    let username = format!("{}:{USER}", now_unix.saturating_add(CREDENTIAL_SECS));
    let password = mint(&secret.bytes, &username);
    Credential { username, password, sha256: false }
}

/// Why a listener could not be tried at all.
#[derive(Debug, Error)]
pub(super) enum Untried {
    #[error("{0}")]
    Url(#[from] UrlError),
    #[error("{transport} {address} was not tried: {error}")]
    Trust { transport: Transport, address: SocketAddr, error: TrustError },
}

/// Probes a listener. `name` is what its certificate has to be for.
///
/// # Errors
/// [`Untried`].
pub(super) fn probe(
    config: &Config,
    listener: &Listener,
    name: Option<&str>,
    credential: Option<Credential>,
    options: &Options,
    progress: &mut (dyn FnMut(Progress<'_>) + '_),
) -> Result<Target, Untried> {
    let address = reachable(config, listener.address);
    let url = url(config.turn, listener.transport, name, address)?;
    let options = probe::Options {
        urls: Vec::new(),
        credential,
        roots: options.roots.clone(),
        insecure: false,
        past_certificate: true,
        proxy_header: listener.options.proxy_from.iter().any(|network| network.contains(&address.ip())),
        connect_to: None,
        certificate_name: None,
        family: None,
        timeout: options.timeout,
        // What this host sends to itself passes no firewall in front of it.
        relay_reach: false,
        safety: true,
        tcp_relay: false,
    };
    probe::run_at(&options, &url, address, &mut |step| progress(Progress::Listener(step)))
        .map_err(|error| Untried::Trust { transport: listener.transport, address: listener.address, error })
}

/// Whether browsers are answered where a `stuns:` URL sends them: Chromium asks its port by plain UDP.
pub(super) fn judge_stuns(config: &Config) -> Option<Step> {
    let of = |transport| config.listeners.iter().filter(move |listener: &&Listener| listener.transport == transport);
    let has_udp = |tls: &Listener| {
        of(Transport::Udp).any(|udp| {
            let (udp, tls) = (udp.address, tls.address);
            udp.port() == tls.port()
                && udp.is_ipv4() == tls.is_ipv4()
                && (udp.ip() == tls.ip() || udp.ip().is_unspecified())
        })
    };
    of(Transport::Tls).next()?;
    let without: Vec<String> =
        of(Transport::Tls).filter(|tls| !has_udp(tls)).map(|tls| tls.address.to_string()).collect();
    if without.is_empty() {
        return Some(finding(
            "stuns",
            Status::Ok,
            "every tls listener has udp beside it, where Chromium asks stuns: URLs",
        ));
    }
    let message = format!(
        "tls {} has no udp beside it: Chromium asks the port of a stuns: URL by plain UDP, and waits for the answer; if you \
         give out such URLs, transport = [\"udp\", \"tls\"] cures that",
        without.join(", ")
    );
    // A server without TURN has no other use for TLS.
    let status = if config.turn { Status::Note } else { Status::Warn };
    Some(finding("stuns", status, message))
}

/// Whether the web servers that share ports can be reached.
pub(super) fn judge_webs(config: &Config, timeout: Duration) -> Vec<Step> {
    let mut addresses: Vec<_> =
        config.listeners.iter().filter_map(|listener| Some(listener.options.web.as_ref()?.address)).collect();
    addresses.sort();
    addresses.dedup();
    let judge = |address: SocketAddr| match TcpStream::connect_timeout(&address, timeout) {
        Ok(_) => finding("web", Status::Ok, format!("the web server {address} can be reached")),
        Err(error) => {
            let message = format!("the web server {address} cannot be reached, and its clients are refused: {error}");
            finding("web", Status::Fail, message)
        }
    };
    addresses.into_iter().map(judge).collect()
}

/// An address of this host in place of the unspecified one: that of the relays, which clients know, or loopback.
fn reachable(config: &Config, listening: SocketAddr) -> SocketAddr {
    if !listening.ip().is_unspecified() {
        return listening;
    }
    let relay = config.relay.binds(Family::of(listening.ip())).next();
    let ip = relay.unwrap_or(match listening.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    });
    SocketAddr::new(ip, listening.port())
}

fn url(turn: bool, transport: Transport, name: Option<&str>, address: SocketAddr) -> Result<TurnUrl, UrlError> {
    let is_encrypted = transport.is_encrypted();
    let scheme = match (turn, is_encrypted) {
        (true, true) => "turns",
        (true, false) => "turn",
        (false, true) => "stuns",
        (false, false) => "stun",
    };
    let host = match (name, is_encrypted) {
        (Some(name), true) => format!("{name}:{}", address.port()),
        _ => SocketAddr::new(address.ip(), address.port()).to_string(),
    };
    let mut url: TurnUrl = format!("{scheme}:{host}").parse()?;
    url.transport = transport;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn a_web_server_that_is_not_there_is_a_failure() {
        let web = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = web.local_addr().unwrap();
        let text = format!(
            "[[listen]]\naddress = \"127.0.0.1:443\"\ntransport = [\"tcp\", \"tls\"]\nweb = \"{address}\"\n\
             [tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n"
        );
        let statuses =
            || judge_webs(&config(&text), Duration::from_secs(5)).iter().map(|step| step.status).collect::<Vec<_>>();
        assert_eq!(statuses(), [Status::Ok]);
        drop(web);
        assert_eq!(statuses(), [Status::Fail]);
        assert!(judge_webs(&config(""), Duration::from_secs(5)).is_empty());
    }

    #[test]
    fn a_listener_on_every_address_is_reached_at_the_relays() {
        let of_relay = config("[relay]\nipv4 = \"10.0.0.2\"\nipv6 = \"off\"\n");
        let at = |address: &str| reachable(&of_relay, address.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:3478"), "10.0.0.2:3478");
        assert_eq!(at("[::]:3478"), "[::1]:3478");
        assert_eq!(at("192.0.2.1:3478"), "192.0.2.1:3478");
    }

    #[test]
    fn urls_name_the_certificates_host_only_with_tls() {
        let url = |turn, transport, name| {
            url(turn, transport, name, "[2001:db8::1]:3478".parse().unwrap()).map(|url| url.to_string())
        };
        let name = Some("turn.example.org");
        assert_eq!(url(true, Transport::Udp, name).unwrap(), "turn:[2001:db8::1]:3478?transport=udp");
        assert_eq!(url(true, Transport::Tcp, name).unwrap(), "turn:[2001:db8::1]:3478?transport=tcp");
        assert_eq!(url(true, Transport::Tls, name).unwrap(), "turns:turn.example.org:3478?transport=tcp");
        assert_eq!(url(true, Transport::Tls, Some("[2001:db8::9]")).unwrap(), "turns:[2001:db8::9]:3478?transport=tcp");
        assert_eq!(url(false, Transport::Tls, None).unwrap(), "stuns:[2001:db8::1]:3478");
        assert_eq!(url(false, Transport::Tcp, None).unwrap(), "stun:[2001:db8::1]:3478");
        assert!(url(true, Transport::Tls, Some("a b")).is_err());
    }

    #[test]
    fn a_tls_listener_without_udp_is_no_place_for_stuns_urls() {
        let tls = |transport: &str, more: &str| {
            let text = format!(
                "{more}\n[[listen]]\naddress = \"127.0.0.1:5349\"\ntransport = {transport}\n[tls]\ncertificate = \"/c\"\nkey = \"/k\"\n"
            );
            judge_stuns(&config(&text)).map(|step| step.status)
        };
        assert_eq!(judge_stuns(&config("")).map(|step| step.status), None);
        assert_eq!(tls("[\"udp\", \"tls\"]", ""), Some(Status::Ok));
        assert_eq!(tls("\"tls\"", ""), Some(Status::Note));
        assert_eq!(tls("\"tls\"", "turn = false"), Some(Status::Warn));
        let wildcard = "[[listen]]\naddress = \"0.0.0.0:5349\"\ntransport = \"udp\"";
        assert_eq!(tls("\"tls\"", wildcard), Some(Status::Ok));
        let elsewhere = "[[listen]]\naddress = \"127.0.0.2:5349\"\ntransport = \"udp\"";
        assert_eq!(tls("\"tls\"", elsewhere), Some(Status::Note));
    }

    #[test]
    fn a_secret_makes_a_short_lived_credential_and_a_static_user_will_do() {
        let with_secret = config("");
        let made = credential(&with_secret.auth, 1_800_000_000).unwrap();
        assert_eq!(made.username, "1800000120:turnstone-doctor");
        assert_eq!(made.password, mint(&with_secret.auth.secrets[0].bytes, &made.username));
        let mut auth = with_secret.auth;
        auth.secrets.clear();
        assert!(credential(&auth, 0).is_none());
        auth.users = Users::from_pairs(&auth.realm, [("bob", "b"), ("alice", "pass")]).unwrap().into();
        let taken = credential(&auth, 0).unwrap();
        assert_eq!((taken.username.as_str(), taken.password.as_str()), ("alice", "pass"));
    }

    #[test]
    fn a_listener_is_tried_with_a_credential_of_the_realm_that_its_clients_are_of() {
        let more = "[[listen]]\naddress = \"127.0.0.1:3478\"\ntransport = \"udp\"\n\
                    [[listen]]\naddress = \"127.0.0.2:3478\"\ntransport = \"udp\"\nrealm = \"b\"\n\
                    [[listen]]\naddress = \"127.0.0.3:443\"\ntransport = \"tls\"\n[tls]\ncertificate = \"/c\"\nkey = \"/k\"\n\
                    [[realm]]\nname = \"b\"\nsni = [\"turn.b.example\"]\n[[realm.users]]\nname = \"of-b\"\npassword = \"x\"\n";
        let config = config(more);
        let none = StoredSecrets::new();
        let user = |at: usize, name| credential_at(&config, &none, &config.listeners[at], name, 0).unwrap().username;
        let name = Some("turn.b.example");
        assert_eq!([user(1, None), user(1, name), user(2, name)], ["of-b"; 3]);
        assert!([user(0, name), user(2, None), user(2, Some("turn.a.example"))].iter().all(|user| user != "of-b"));
        // A store is of use where the configuration knows nobody.
        let mut config = config;
        let secret = config.auth.secrets.remove(0);
        let stored: StoredSecrets =
            [&config.auth.realm, "b"].map(|realm| (realm.to_owned(), vec![secret.clone()])).into();
        let user = |at: usize, name| credential_at(&config, &stored, &config.listeners[at], name, 0).unwrap().username;
        assert_eq!([user(0, None), user(1, None)], ["120:turnstone-doctor", "of-b"]);
        assert!(credential_at(&config, &none, &config.listeners[0], None, 0).is_none());
    }
}
