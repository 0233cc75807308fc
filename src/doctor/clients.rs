//! What clients will miss: a name for TLS, and the port that they try first.

use crate::addr::Transport;
use crate::config::{Config, Listener, WaysIn};
use crate::credentials::written_urls;
use crate::probe::{Status, Step};

use super::finding;

/// The port of URLs that name none (RFC 7064, RFC 7065).
const DEFAULT_PORT: u16 = 3478;
/// How many realms a finding names.
const REALMS_NAMED: usize = 3;

/// Judges the listeners by what URLs lead to them.
pub fn judge(config: &Config) -> Vec<Step> {
    let mut steps = ways_in(config);
    // One that is for this machine only is its owner's business, but for what proxies pass on.
    let is_own = |listener: &Listener| listener.address.ip().is_loopback() && listener.options.proxy_from.is_empty();
    if config.listeners.iter().all(is_own) && config.listeners.iter().any(is_udp) {
        return steps;
    }
    let is_encrypted = config.listeners.iter().any(|listener| listener.transport.is_encrypted());
    if is_encrypted && config.auth.public_host.is_none() {
        let message = "there is a tls listener, but no public-host in [auth]: URLs are printed with an address, and browsers take \
                       a certificate only for the name in the URL";
        steps.push(finding("public-host", Status::Warn, message));
    }
    if !config.listeners.iter().any(is_udp) {
        let message = "nothing listens on udp, which calls are best over: any [[listen]] replaces both defaults, which are udp and \
                       tcp on *:3478; add them to the file";
        steps.push(finding("listener", Status::Warn, message));
    } else if !config.listeners.iter().any(|l| l.transport == Transport::Udp && l.address.port() == DEFAULT_PORT) {
        let message =
            "no udp listener has port 3478, where URLs without a port lead: any [[listen]] replaces both defaults";
        steps.push(finding("listener", Status::Note, message));
    }
    steps
}

fn is_udp(listener: &Listener) -> bool {
    listener.transport == Transport::Udp
}

/// Realms whose credentials are good nowhere, as far as can be told, and listeners that no URL is made of.
fn ways_in(config: &Config) -> Vec<Step> {
    let mut steps = Vec::new();
    let ways = WaysIn::new(config);
    let (nowhere, more): (Vec<_>, usize) = {
        let mut none = config.realms.iter().filter(|realm| written_urls(&ways, Some(realm)).is_empty());
        (none.by_ref().take(REALMS_NAMED).map(|realm| format!("{:?}", realm.name)).collect(), none.count())
    };
    if !nowhere.is_empty() {
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!(
            "no URL leads into the realm {}{more} as far as this file tells, so that its credentials are printed without one; expected sni \
             or public-host in its [[realm]], a [[listen]] with it as realm, or urls in its [[realm]] where proxies are in front",
            nowhere.join(", ")
        );
        steps.push(finding("urls", Status::Warn, message));
    }
    let proxied: Vec<_> = config.listeners.iter().filter(|listener| !listener.options.proxy_from.is_empty()).collect();
    if config.auth.urls.is_empty()
        && let Some(first) = proxied.iter().find(|listener| listener.options.realm.is_none())
    {
        let message = format!(
            "clients reach {} {} at an address of the proxies in front, so that no URL is made of it; set urls in [auth] to those that \
             clients use, for turnstone credentials and the credentials API",
            first.transport, first.address
        );
        steps.push(finding("urls", Status::Note, message));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    fn found(listen: &str, auth: &str) -> Vec<(&'static str, Status)> {
        let list: String = listen
            .split_whitespace()
            .map(|url| url.split_once('/').unwrap())
            .map(|(transport, address)| format!("[[listen]]\naddress = \"{address}\"\ntransport = \"{transport}\"\n"))
            .collect();
        let tls = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        let relay = "[relay]\nipv4 = \"5.44.1.1\"\nipv6 = \"off\"\n";
        judge(&config(&format!("{list}{tls}{relay}{auth}"))).into_iter().map(|step| (step.step, step.status)).collect()
    }

    #[test]
    fn what_is_behind_a_proxy_alone_lacks_udp_and_urls() {
        let listen = "[[listen]]\naddress = \"127.0.0.1:5349\"\ntransport = \"tls\"\nproxy-from = [\"127.0.0.1\"]\n";
        let rest = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n[relay]\nipv4 = \"5.44.1.1\"\nipv6 = \"off\"\n\
                    [auth]\npublic-host = \"turn.example.org\"\n";
        let found = |more: &str| {
            let steps = judge(&config(&format!("{listen}{rest}{more}")));
            steps.into_iter().map(|step| (step.step, step.status)).collect::<Vec<_>>()
        };
        assert_eq!(found(""), [("urls", Status::Note), ("listener", Status::Warn)]);
        let urls = "urls = [\"turns:turn.example.org:443?transport=tcp\"]\n";
        assert_eq!(found(urls), [("listener", Status::Warn)]);
        let udp = "[[listen]]\naddress = \"*:3478\"\ntransport = \"udp\"\n";
        assert_eq!(found(&format!("{urls}{udp}")), []);
        let realm = "[[realm]]\nname = \"b\"\n[[realm.users]]\nname = \"a\"\npassword = \"p\"\n";
        assert_eq!(found(&format!("{urls}{udp}{realm}")), [("urls", Status::Warn)]);
        let named = realm.replace("\"b\"\n", "\"b\"\nurls = [\"turns:b.example\"]\n");
        assert_eq!(found(&format!("{urls}{udp}{named}")), []);
    }

    #[test]
    fn a_missing_name_and_a_missing_port_are_told() {
        let named = "[auth]\npublic-host = \"turn.example.org\"\n";
        assert_eq!(found("tls/*:443", named), [("listener", Status::Warn)]);
        assert_eq!(found("udp/*:3478 tls/*:443", ""), [("public-host", Status::Warn)]);
        assert_eq!(found("udp/*:3478 tls/*:443", named), []);
        assert_eq!(found("udp/*:443", ""), [("listener", Status::Note)]);
        assert_eq!(found("udp/127.0.0.1:443 tls/127.0.0.1:443", ""), []);
        // A proxy may lead there, and nothing leads to udp.
        assert_eq!(found("tls/127.0.0.1:443", named), [("listener", Status::Warn)]);
    }
}
