//! Where the server listens: from listening-ip, the ports and the switches to `[[listen]]`.

use std::net::{IpAddr, Ipv6Addr};

use super::conf::{At, Conf, NatDiscovery, Origin};
use super::findings::{FindingKind, Grade, Spot};
use crate::addr::Transport;

const PLAIN_PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;
const LOOPBACK: &str = "127.0.0.1";

/// One `[[listen]]`.
pub(super) struct Listener {
    /// `None` is every address of both families.
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) transports: Vec<&'static str>,
    /// Whether a header of a proxy is in front of each connection, of proxies that nobody has named.
    pub(super) is_proxied: bool,
}

impl Listener {
    /// Whether it has the socket that another would want.
    pub(super) fn covers(&self, ip: Option<IpAddr>, port: u16, transport: &str) -> bool {
        let kind = |transport: &str| Transport::from_name(transport).map(Transport::socket_kind);
        let same_address = match (self.ip, ip) {
            (None, _) | (_, None) => true,
            (Some(own), Some(ip)) => {
                own == ip || own.is_ipv4() == ip.is_ipv4() && (own.is_unspecified() || ip.is_unspecified())
            }
        };
        // Those that are told apart by their first bytes may have the very same address.
        let is_taken = |own: &str| kind(own) == kind(transport) && (own == transport || self.ip != ip);
        self.port == port && same_address && self.transports.iter().any(|own| is_taken(own))
    }
}

#[derive(Default)]
struct List(Vec<Listener>);

impl List {
    /// Adds what no other listener has; `false` when nothing was left.
    fn add(&mut self, ip: Option<IpAddr>, port: u16, transports: &[&'static str]) -> bool {
        let is_free = |transport: &&&'static str| !self.0.iter().any(|other| other.covers(ip, port, transport));
        let left: Vec<&'static str> = transports.iter().filter(is_free).copied().collect();
        if left.is_empty() {
            return false;
        }
        match self.0.iter_mut().find(|listener| listener.ip == ip && listener.port == port) {
            Some(listener) => listener.transports.extend(left),
            None => self.0.push(Listener { ip, port, transports: left, is_proxied: false }),
        }
        true
    }
}

pub(super) struct Tls {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// coturn starts its TLS listeners when it finds both files.
pub(super) fn tls_files(conf: &mut Conf) -> Option<Tls> {
    let message =
        "TLS is served with a certificate and its key only, and the other one is missing; no tls listener is made";
    match (conf.certificate.clone(), conf.key.clone()) {
        (Some(_), Some(_)) if conf.no_tls => None,
        (Some(certificate), Some(key)) => {
            find_private_folder(conf, &key);
            Some(Tls { certificate: certificate.value, key: key.value })
        }
        (Some(only), None) => {
            conf.find(Some(only.spot), "cert", FindingKind::Invalid, Grade::Clients, message);
            None
        }
        (None, Some(only)) => {
            conf.find(Some(only.spot), "pkey", FindingKind::Invalid, Grade::Clients, message);
            None
        }
        (None, None) => {
            if let Some(port) = conf.tls_listening_port.as_ref().filter(|_| !conf.no_tls) {
                let message = "without cert and pkey there is no TLS, in coturn neither; no tls listener is made";
                conf.find(Some(port.spot), "tls-listening-port", FindingKind::Note, Grade::Harmless, message);
            }
            None
        }
    }
}

/// The server is never root, which alone can read what certbot makes.
fn find_private_folder(conf: &mut Conf, key: &At<String>) {
    let message = if key.value.starts_with("/etc/letsencrypt/") {
        "only root can read it there: let certbot's deploy hook, /usr/local/share/turnstone/certbot-deploy-hook, copy \
         certificate and key to /etc/turnstone/tls, and name them from there in [tls]"
    } else if key.value.starts_with("/etc/turnstone/") {
        return;
    } else {
        "the server runs as the user turnstone, who must be able to read it and its folders; /etc/turnstone/tls is its place"
    };
    let directive = if conf.origin == Origin::Eturnal { "tls_key_file" } else { "pkey" };
    conf.find(Some(key.spot), directive, FindingKind::Note, Grade::Operation, message);
}

pub(super) fn listeners(conf: &mut Conf, has_tls: bool) -> Vec<Listener> {
    let mut list = List::default();
    match conf.origin {
        Origin::Coturn => add_coturns(conf, has_tls, &mut list),
        Origin::Eturnal => add_named(conf, has_tls, &mut list),
    }
    if list.0.is_empty() {
        let message = "nothing is left to listen on; a listener on 127.0.0.1 stands for it: write [[listen]] by hand";
        conf.find(None, "[[listen]]", FindingKind::NotConverted, Grade::Clients, message);
        list.add(LOOPBACK.parse().ok(), PLAIN_PORT, &["udp"]);
    }
    list.0
}

fn add_coturns(conf: &mut Conf, has_tls: bool, list: &mut List) {
    let plain_port = conf.listening_port.as_ref().map_or(PLAIN_PORT, |port| port.value);
    let tls_port = conf.tls_listening_port.as_ref().map_or(TLS_PORT, |port| port.value);
    let mut plain = Vec::new();
    if !conf.no_udp {
        plain.push("udp");
    }
    if !conf.no_tcp {
        plain.push("tcp");
    }
    // A connection is told by its first bytes, on either port, and so is a datagram, where coturn has DTLS.
    let mut secure = Vec::new();
    if has_tls {
        secure.extend((!conf.no_dtls).then_some("udp"));
        secure.extend((!conf.no_tcp).then_some("tcp"));
        secure.push("tls");
        plain.extend((!conf.no_tcp).then_some("tls"));
        for transports in [&mut plain, &mut secure] {
            transports.extend((conf.dtls && !conf.no_dtls && transports.contains(&"udp")).then_some("dtls"));
        }
    }
    let ips = listening_ips(conf);
    for ip in &ips {
        list.add(*ip, plain_port, &plain);
        list.add(*ip, tls_port, &secure);
    }
    if has_tls && !ips.is_empty() {
        find_stuns(conf, tls_port);
    }
    let alternative_port = conf.alt_listening_port.as_ref().map(|port| port.value);
    find_nat_discovery(conf, &ips, (plain_port, alternative_port));
    add_alternatives(conf, &ips, &plain, &secure, list);
    for aux in std::mem::take(&mut conf.aux_servers) {
        let ip = Some(aux.value.ip()).filter(|ip| *ip != IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        if !list.add(ip, aux.value.port(), &plain) {
            let message = "another listener has this address, or no transport is left";
            conf.find(Some(aux.spot), "aux-server", FindingKind::Note, Grade::Harmless, message);
        }
    }
}

/// Chromium asks the port of a `stuns:` URL by plain UDP, and waits for the answer.
fn find_stuns(conf: &mut Conf, port: u16) {
    let (spot, directive) = match (&conf.tls_listening_port, &conf.certificate) {
        (Some(at), _) => (Some(at.spot), "tls-listening-port"),
        (None, Some(at)) => (Some(at.spot), "cert"),
        (None, None) => (None, "[[listen]]"),
    };
    if conf.no_dtls {
        let message = format!(
            "no-dtls leaves port {port} without UDP, here as in coturn: Chromium asks a stuns: URL's port by plain UDP, gets \
             no answer, and finds no server-reflexive candidate; transport = [\"udp\", \"tls\"] cures that"
        );
        conf.find(spot, directive, FindingKind::Note, Grade::Clients, &message);
    } else {
        let message = format!(
            "port {port} has udp beside tls, because coturn answers plain UDP there, which is how Chromium asks the port of a \
             stuns: URL"
        );
        conf.find(spot, directive, FindingKind::Note, Grade::Harmless, &message);
    }
}

/// With two addresses and RFC 5780, coturn serves everything on the alternative ports, too; they are otherwise not opened.
fn add_alternatives(
    conf: &mut Conf,
    ips: &[Option<IpAddr>],
    plain: &[&'static str],
    secure: &[&'static str],
    list: &mut List,
) {
    let has_two = !conf.names_listening_ip || ips.len() > 1;
    let is_open = has_two && conf.external_ips.is_empty() && !conf.no_rfc5780;
    let ports = [
        (conf.alt_listening_port.take(), "alt-listening-port", plain),
        (conf.alt_tls_listening_port.take(), "alt-tls-listening-port", secure),
    ];
    for (port, directive, transports) in ports {
        let Some(At { spot, value: port }) = port else { continue };
        if !is_open || transports.is_empty() {
            let message = "coturn opens it only with two listening addresses, no external-ip, no no-rfc5780, and what it is \
                           for (TLS): not with this file, so that nothing is lost";
            conf.find(Some(spot), directive, FindingKind::Note, Grade::Harmless, message);
            continue;
        }
        let added = ips.iter().filter(|ip| list.add(**ip, port, transports)).count();
        let (grade, message) = match added {
            0 => (Grade::Harmless, "another listener has this port"),
            _ => {
                let message = "taken as a listener like the others, which it is in coturn, too";
                (Grade::Harmless, message)
            }
        };
        conf.find(Some(spot), directive, FindingKind::Note, grade, message);
    }
}

/// coturn has RFC 5780 where it is asked for, with two addresses and no external-ip; before 4.7 there was nothing to ask by but the
/// alternative port, which is for nothing else.
fn find_nat_discovery(conf: &mut Conf, ips: &[Option<IpAddr>], (port, alternative): (u16, Option<u16>)) {
    if conf.no_rfc5780 || conf.no_udp || conf.rfc5780.is_none() && alternative.is_none() {
        return;
    }
    let mut addresses = Vec::new();
    for is_family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        match *ips.iter().flatten().filter(|ip| is_family(ip) && !ip.is_unspecified()).collect::<Vec<_>>() {
            [one, other] if one != other => addresses.extend([*one, *other]),
            _ => {}
        }
    }
    let ports = [port, alternative.unwrap_or(port.saturating_add(1))];
    if !addresses.is_empty() && conf.external_ips.is_empty() && ports[0] != ports[1] {
        conf.nat_discovery = Some(NatDiscovery { addresses, ports });
    } else if let Some(spot) = conf.rfc5780 {
        let message = "it needs two listening-ip of one family, which coturn may have found on the host by itself, and no external-ip: \
                       name two addresses in [nat-discovery], and external-addresses if this host is behind 1:1 NAT";
        conf.find(Some(spot), "rfc5780", FindingKind::NotConverted, Grade::Clients, message);
    }
}

fn add_named(conf: &mut Conf, has_tls: bool, list: &mut List) {
    for At { spot, value } in conf.extra_listeners.clone() {
        let ip = Some(value.ip).filter(|ip| *ip != IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let mut transports = value.transports;
        if !has_tls && transports.contains(&"tls") {
            let message = "eturnal makes a certificate of its own where none is named, which clients refuse; here TLS needs \
                           [tls]: no tls listener is made";
            conf.find(Some(spot), "listen", FindingKind::NotConverted, Grade::Clients, message);
            transports.retain(|transport| *transport != "tls");
        }
        if transports.contains(&"tls") {
            find_stuns_of_eturnal(conf, spot, value.port);
        }
        if !transports.is_empty() && !list.add(ip, value.port, &transports) {
            conf.find(Some(spot), "listen", FindingKind::Note, Grade::Harmless, "another listener has this address");
        }
        let is_it = |listener: &&mut Listener| listener.ip == ip && listener.port == value.port;
        if value.is_proxied
            && let Some(listener) = list.0.iter_mut().find(is_it)
        {
            listener.is_proxied = true;
        }
    }
}

fn find_stuns_of_eturnal(conf: &mut Conf, spot: Spot, port: u16) {
    let message = format!(
        "port {port} is for TLS only, as in eturnal: Chromium asks a stuns: URL's port by plain UDP, gets no answer, and \
         finds no server-reflexive candidate; if you give out stuns: URLs, transport = [\"udp\", \"tls\"] cures that"
    );
    conf.find(Some(spot), "listen", FindingKind::Note, Grade::Clients, &message);
}

/// Each address once; a wildcard stands for the others of its family, and that of IPv6 for both families.
fn listening_ips(conf: &mut Conf) -> Vec<Option<IpAddr>> {
    if !conf.names_listening_ip {
        return vec![None];
    }
    let given = conf.listening_ips.clone();
    let every = |ip: IpAddr| ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let every_given = given.iter().any(|at| every(at.value));
    let mut ips: Vec<Option<IpAddr>> = Vec::new();
    for At { spot, value: ip } in given.iter().cloned() {
        let is_wildcard = ip.is_unspecified() && (ip.is_ipv6() || !every_given);
        let covered = given
            .iter()
            .any(|other| every(other.value) || other.value.is_unspecified() && other.value.is_ipv4() == ip.is_ipv4());
        let wanted = Some(ip).filter(|ip| !every(*ip));
        if ips.contains(&wanted) || covered && !is_wildcard {
            let message = "another listening-ip covers it";
            conf.find(Some(spot), "listening-ip", FindingKind::Note, Grade::Harmless, message);
            continue;
        }
        if every(ip) {
            let message = "coturn listens on IPv4 there, too: \"*\", which is every address of both families";
            conf.find(Some(spot), "listening-ip", FindingKind::Note, Grade::Harmless, message);
        }
        ips.push(wanted);
    }
    ips
}
