//! What clients will miss: a name for TLS, and the port that they try first.

use crate::addr::Transport;
use crate::config::Config;
use crate::probe::{Status, Step};

use super::finding;

/// The port of URLs that name none (RFC 7064, RFC 7065).
const DEFAULT_PORT: u16 = 3478;

/// Judges the listeners by what URLs lead to them. One that is for this machine only is its owner's business.
pub fn judge(config: &Config) -> Vec<Step> {
    if config.listeners.iter().all(|listener| listener.address.ip().is_loopback()) {
        return Vec::new();
    }
    let mut steps = Vec::new();
    let has = |transport| config.listeners.iter().any(|listener| listener.transport == transport);
    let is_encrypted = config.listeners.iter().any(|listener| listener.transport.is_encrypted());
    if is_encrypted && config.auth.public_host.is_none() {
        let message = "there is a tls listener, but no public-host in [auth]: URLs are printed with an address, and browsers take \
                       a certificate only for the name in the URL";
        steps.push(finding("public-host", Status::Warn, message));
    }
    if !has(Transport::Udp) {
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
    fn a_missing_name_and_a_missing_port_are_told() {
        let named = "[auth]\npublic-host = \"turn.example.org\"\n";
        assert_eq!(found("tls/*:443", named), [("listener", Status::Warn)]);
        assert_eq!(found("udp/*:3478 tls/*:443", ""), [("public-host", Status::Warn)]);
        assert_eq!(found("udp/*:3478 tls/*:443", named), []);
        assert_eq!(found("udp/*:443", ""), [("listener", Status::Note)]);
        assert_eq!(found("tls/127.0.0.1:443", ""), []);
    }
}
