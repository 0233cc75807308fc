//! What certificates by ACME have to do with the rest of the configuration: the pairs of the listeners, and what listeners can be asked.

use std::net::SocketAddr;
use std::path::Path;

use crate::addr::Transport;

use super::acme::{Acme, AtPort, Challenges};
use super::snapshot::{Config, Listener, TlsPair};

/// Where an authority asks by TLS.
const PORT: u16 = 443;

/// The pairs that the TLS listeners use.
pub(super) fn pairs(acme: &Acme) -> impl Iterator<Item = TlsPair> {
    acme.names.iter().map(|name| {
        let file = Acme::file_of(&acme.folder, name);
        TlsPair { certificate: file.clone(), key: file, names: vec![name.clone()], is_acme: true }
    })
}

/// What these listeners offer, and an endpoint.
pub(super) fn challenges<'l>(listeners: impl Iterator<Item = &'l Listener>, http: Option<SocketAddr>) -> Challenges {
    let tls = listeners.filter(|listener| listener.transport == Transport::Tls);
    let ports: Vec<_> = tls.map(|listener| listener.address.port()).collect();
    let tls = match (ports.contains(&PORT), ports.is_empty()) {
        (true, _) => Some(AtPort::Right),
        (false, false) => Some(AtPort::Other),
        (false, true) => None,
    };
    Challenges { tls, http }
}

/// Keeps the certificates in this state directory, whatever the file says.
pub(super) fn keep_in(config: &mut Config, state_directory: &Path) {
    let Some(acme) = &mut config.acme else { return };
    acme.folder = Acme::folder_in(state_directory);
    let Some(tls) = &mut config.tls else { return };
    if let (true, Some(name)) = (tls.is_acme, tls.names.first()) {
        tls.certificate = Acme::file_of(&acme.folder, name);
        tls.key.clone_from(&tls.certificate);
    }
    for pair in tls.others.iter_mut().filter(|pair| pair.is_acme) {
        if let Some(name) = pair.names.first() {
            pair.certificate = Acme::file_of(&acme.folder, name);
            pair.key.clone_from(&pair.certificate);
        }
    }
}
