//! What is other than in the server that the configuration was for, without any directive saying so.

use super::conf::{Conf, Origin};
use super::findings::{FindingKind, Grade};
use super::peers::Peers;

/// Adds them, once each.
pub(super) fn add(conf: &mut Conf, has_tls: bool, peers: &Peers) {
    if conf.stun_only {
        return;
    }
    let from = match conf.origin {
        Origin::Coturn => "coturn",
        Origin::Eturnal => "eturnal",
    };
    if !peers.default_deny {
        let message = format!(
            "{from} relays to private networks and to programs on its own host unless a rule denies it; here both are denied \
             but for relays. Where peers are in one (an SFU), name them: allowed = [\"10.1.2.0/24 override\"], or on this \
             host own-services = [\"ADDRESS:PORT\"]"
        );
        note(conf, "[peers]", Grade::Clients, &message);
    }
    if conf.per_user.is_none() {
        let message = format!(
            "{from} has no limit for one user in this file; here it is a quarter of the relay ports, so that no credential \
             takes them all (turnstone config show prints the number). Where all clients have one name, \
             allocations-per-user = \"unlimited\" lifts it"
        );
        note(conf, "[quota]", Grade::Clients, &message);
    }
    if conf.origin == Origin::Eturnal {
        return;
    }
    if conf.tcp_relay.is_none() {
        let message = "coturn offers TCP relays (RFC 6062) unless no-tcp-relay is set; browsers do not use them, and whoever has a \
                       credential reaches TCP services by them. Here they are off; tcp = true in [relay] offers them";
        note(conf, "[relay]", Grade::Clients, message);
    }
    if has_tls && !conf.no_dtls && !conf.dtls {
        let message = "DTLS, which coturn before 4.17 serves wherever it serves UDP, is left out: browsers do not use it. For other \
                       clients add \"dtls\" beside \"udp\" in the [[listen]]; it takes a program built with the cargo feature dtls";
        note(conf, "[[listen]]", Grade::Clients, message);
    }
    if conf.rfc5766_channel_numbers.is_none() {
        let message = "coturn before 4.17 takes channel numbers up to 0x7FFE; old clients that are not browsers may need \
                       rfc5766-channel-numbers = true";
        note(conf, "channels", Grade::Clients, message);
    }
}

fn note(conf: &mut Conf, what: &str, grade: Grade, message: &str) {
    conf.find(None, what, FindingKind::Note, grade, message);
}
