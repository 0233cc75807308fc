//! `[relay] tcp`: whether clients may have TCP relays (RFC 6062), and how many connections.

use crate::addr::SocketKind;
use crate::turn::TcpRelays;

use super::error::{Located, Place};
use super::reader::{Document, Section, or_default};
use super::sections::count;
use super::snapshot::{Listener, Relay, TcpChoice};

pub(super) fn read_tcp_relays(root: &Section<'_, '_>) -> TcpChoice {
    let section = root.section("relay");
    TcpChoice {
        is_offered: section.boolean("tcp"),
        limits: TcpRelays {
            connections_per_allocation: count(or_default(section.number("tcp-connections-per-allocation"))),
            connections_per_user: count(or_default(section.number("tcp-connections-per-user"))),
        },
    }
}

/// A TCP or TLS listener on a relay port would take the port from an allocation, as a UDP listener does from others.
pub(super) fn check_tcp_ports(document: &Document<'_>, (relay, at): (&Relay, Place), listeners: &[Located<Listener>]) {
    let (low, high) = relay.ports;
    if relay.shared {
        document
            .problem(at, "tcp = true in [relay] needs a port for each allocation; expected ports that are not shared");
    }
    for listener in listeners.iter().filter(|listener| listener.value.transport.socket_kind() == SocketKind::Tcp) {
        let (port, transport) = (listener.value.address.port(), listener.value.transport);
        if (low..=high).contains(&port) {
            let message = format!(
                "port {port} of this {transport} listener is one of the relay ports {low}-{high}, which are also TCP's \
                 with tcp = true in [relay]"
            );
            document.problem(listener.place.clone(), message);
        }
    }
}
