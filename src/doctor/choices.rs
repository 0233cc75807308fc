//! What a configuration says and its operator can hardly mean, or should know: limits that a call does not fit into, a relay that is a
//! proxy to the Internet, proxies by the million.

use ipnet::IpNet;

use crate::addr::Reach;
use crate::config::Config;
use crate::probe::{Status, Step};

use super::finding;

/// Addresses that the other side of one call brings along: 4 or 5 were measured, and its public one may come on top.
const PEERS_OF_A_CALL: u32 = 6;
/// With fewer, a few callers with private addresses, which count a tenth each, have whom they call suspended.
const PROBES_MIN: u32 = 3;
/// Addresses that must be denied, and that `probe` and `doctor` ask for: loopback and cloud metadata, of both families.
const PROBES_OF_OURS: u32 = 4;
/// The port of mail servers, which whoever scans and spams wants first.
const SMTP: u16 = 25;
/// Prefixes of a network that has more addresses than anybody has proxies.
const PROXY_PREFIX_MIN: (u8, u8) = (16, 48);

/// Judges what goes together and what does not.
pub fn judge(config: &Config) -> Vec<Step> {
    let mut steps = guard(config);
    steps.extend(mobility(config));
    steps.extend(tcp_relays(config));
    steps.extend(proxies(config));
    steps
}

fn guard(config: &Config) -> Vec<Step> {
    let mut steps = Vec::new();
    let guard = &config.guard;
    let peers =
        [("peers-per-user", guard.peers_per_user, "50"), ("new-peers-per-minute", guard.new_peers_per_minute, "60")];
    for (key, limit, plenty) in peers {
        if let Some(limit) = limit.filter(|limit| *limit < PEERS_OF_A_CALL) {
            let message = format!(
                "{key} = {limit} in [guard]: one call can need {PEERS_OF_A_CALL} addresses of the other side; {plenty} are plenty for a person"
            );
            steps.push(finding("guard", Status::Warn, message));
        }
    }
    if let Some(limit) = guard.suspension.map(|suspension| suspension.probes).filter(|limit| *limit < PROBES_MIN) {
        let message = format!(
            "suspend-after = {limit} in [guard]: {}0 private addresses within a minute, which callers bring along by the handful, suspend whom \
             they call; 20 are plenty",
            limit
        );
        steps.push(finding("guard", Status::Warn, message));
    } else if let Some(limit) =
        guard.suspension.map(|suspension| suspension.probes).filter(|limit| *limit <= PROBES_OF_OURS)
    {
        let message = format!(
            "suspend-after = {limit} in [guard]: turnstone probe and doctor ask for up to {PROBES_OF_OURS} addresses that must be denied, and \
             suspend the user that they come with; 20 are plenty"
        );
        steps.push(finding("guard", Status::Note, message));
    }
    steps
}

/// A ticket is good at the server that has made it.
fn mobility(config: &Config) -> Option<Step> {
    let is_behind = config.listeners.iter().any(|listener| !listener.options.proxy_from.is_empty());
    if !config.mobility || !is_behind {
        return None;
    }
    let message = "mobility and proxy-from: a client that has moved comes back with a ticket of this very process, which no other server knows; \
                   if the proxy spreads clients over several, let it choose by something that stays (a name or port of each server)";
    Some(finding("mobility", Status::Note, message))
}

fn tcp_relays(config: &Config) -> Option<Step> {
    let peers = &config.peers;
    if !config.turn || !config.tcp_relays.is_offered || peers.default_deny_all || peers.denied_ports.contains(&SMTP) {
        return None;
    }
    let message = "[relay] tcp = true: whoever has a credential makes connections to any public address from here, mail servers included; \
                   mode = \"sfu\" with what is meant in allowed, or denied-ports = [25, ...], in [peers] narrows that";
    Some(finding("tcp-relays", Status::Warn, message))
}

fn proxies(config: &Config) -> Vec<Step> {
    let mut networks: Vec<IpNet> =
        config.listeners.iter().flat_map(|listener| listener.options.proxy_from.clone()).collect();
    networks.sort_unstable();
    networks.dedup();
    let is_wide = |network: &IpNet| {
        let (v4, v6) = PROXY_PREFIX_MIN;
        network.prefix_len() < if network.addr().is_ipv4() { v4 } else { v6 }
    };
    let told = |network: IpNet| {
        let whose = match Reach::of(network.addr()).is_of_lan() {
            true => "",
            false => ", and they are public",
        };
        let message = format!(
            "proxy-from {network} has more addresses than anybody has proxies{whose}: whoever connects from one can claim to be anybody; \
             name the proxies themselves"
        );
        finding("proxy-from", Status::Warn, message)
    };
    networks.into_iter().filter(is_wide).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    const RELAY: &str = "[relay]\nipv4 = \"10.0.0.5\"\nipv6 = \"off\"\nexternal-ip = \"5.44.1.1\"\n";

    fn found(text: &str) -> Vec<(&'static str, Status)> {
        judge(&config(text)).into_iter().map(|step| (step.step, step.status)).collect()
    }

    #[test]
    fn limits_that_a_call_does_not_fit_into_are_warned_of() {
        for (text, count) in [
            ("peers-per-user = 5", 1),
            ("new-peers-per-minute = 3\nsuspend-after = 2", 2),
            ("peers-per-user = 6\nnew-peers-per-minute = 6\nsuspend-after = 5", 0),
            ("", 0),
        ] {
            assert_eq!(found(&format!("{RELAY}[guard]\n{text}\n")), vec![("guard", Status::Warn); count], "{text}");
        }
        // What looks whether loopback and metadata are denied asks for four such addresses.
        assert_eq!(found(&format!("{RELAY}[guard]\nsuspend-after = 4\n")), [("guard", Status::Note)]);
    }

    #[test]
    fn tcp_relays_are_warned_of_unless_peers_are_narrowed() {
        let offered = format!("{RELAY}tcp = true\n");
        assert_eq!(found(RELAY), []);
        assert_eq!(found(&offered), [("tcp-relays", Status::Warn)]);
        assert_eq!(found(&format!("{offered}[peers]\ndenied-ports = [25, 465]\n")), []);
        assert_eq!(found(&format!("{offered}[peers]\nmode = \"sfu\"\nallowed = [\"5.44.2.0/24\"]\n")), []);
    }

    #[test]
    fn proxies_by_the_million_and_mobility_behind_them_are_told() {
        let with = |proxies: &str, top: &str| {
            found(&format!(
                "{top}\n[[listen]]\naddress = \"10.0.0.5:3478\"\ntransport = \"tcp\"\nproxy-from = [{proxies}]\n{RELAY}"
            ))
        };
        assert_eq!(with("\"10.0.0.1\", \"10.1.0.0/16\", \"fd00::/48\"", ""), []);
        assert_eq!(with("\"10.0.0.0/8\", \"0.0.0.0/1\", \"2000::/3\"", ""), [("proxy-from", Status::Warn); 3]);
        assert_eq!(with("\"10.0.0.1\"", "mobility = true"), [("mobility", Status::Note)]);
        assert_eq!(with("", "mobility = true"), []);
    }
}
