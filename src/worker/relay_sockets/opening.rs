//! What the core asks of relay sockets: to open and close them, and the connections of TCP relays.

use std::net::IpAddr;
use std::sync::Arc;

use super::{RelaySockets, has_family};
use crate::addr::{Family, FiveTuple, PeerAddr};
use crate::config::RelayChoice;
use crate::turn::{ConnectError, ConnectionId, OpenRelay, PortRequest, RelayError, RelayId, Relays, ReservationToken};
use crate::user::User;
use crate::worker::relay_socket::RelaySocket;

impl RelaySockets {
    /// Opens a relay at one of the addresses that a client may get: one of its listener's, or else one that the choice prefers, or any.
    fn at_choice(
        &mut self,
        five_tuple: &FiveTuple,
        family: Family,
        mut open: impl FnMut(&mut Self, &dyn Fn(IpAddr, IpAddr) -> bool) -> Result<OpenRelay, RelayError>,
    ) -> Result<OpenRelay, RelayError> {
        let named = self.by_listener.iter().find(|listener| listener.is_of(five_tuple));
        if let Some(named) = named.map(|listener| Arc::clone(&listener.relays)).filter(|of| has_family(of, family)) {
            let may_be = |bind, external| named.contains(&bind) || named.contains(&external);
            // None of them is there at this moment.
            return open(self, &may_be).map_err(|error| match error {
                RelayError::NoFamily if self.ports.supports(family) => RelayError::NoAddress,
                error => error,
            });
        }
        let reached = five_tuple.server.ip();
        if self.choice == RelayChoice::Reached && Family::of(reached) == family {
            // Where it has reached no relay address, or one that is gone or has no port left, each is as good as another.
            match open(self, &|bind, external| [bind, external].contains(&reached)) {
                Err(RelayError::NoFamily | RelayError::NoAddress | RelayError::NoPort) => {}
                opened => return opened,
            }
        }
        open(self, &|_, _| true)
    }
}

impl Relays for RelaySockets {
    fn open_tcp(&mut self, five_tuple: &FiveTuple, family: Family) -> Result<OpenRelay, RelayError> {
        let mut random = [0; 4];
        (self.fill_random)(&mut random);
        let random = u32::from_ne_bytes(random);
        self.at_choice(five_tuple, family, |relays, may_be| relays.tcp.open(&relays.ports, family, random, may_be))
    }

    fn close_tcp(&mut self, relay: RelayId) {
        self.tcp.close(relay);
    }

    fn connect(
        &mut self,
        relay: RelayId,
        connection: ConnectionId,
        peer: PeerAddr,
        own_relay: bool,
    ) -> Result<(), ConnectError> {
        self.tcp.connect(&mut self.addresses, (relay, connection), peer, own_relay)
    }

    fn disconnect(&mut self, connection: ConnectionId) {
        self.tcp.disconnect(connection);
    }

    fn supports(&self, family: Family) -> bool {
        self.ports.supports(family)
    }

    fn open(&mut self, now_micros: u64, family: Family, port: PortRequest<'_>) -> Result<OpenRelay, RelayError> {
        self.open_at(now_micros, family, port, |_, _| true)
    }

    fn open_for(
        &mut self,
        five_tuple: &FiveTuple,
        now_micros: u64,
        family: Family,
        port: PortRequest<'_>,
    ) -> Result<OpenRelay, RelayError> {
        self.at_choice(five_tuple, family, |relays, may_be| relays.open_at(now_micros, family, port, may_be))
    }

    fn open_reserved(
        &mut self,
        now_micros: u64,
        token: ReservationToken,
        user: &User,
    ) -> Result<OpenRelay, RelayError> {
        if self.shared.is_some() {
            return Err(RelayError::SharedPorts);
        }
        let reserved = self.reservations.redeem(now_micros, token, user).ok_or(RelayError::UnknownToken)?;
        self.install(RelaySocket::new(reserved.socket, reserved.lease))
    }

    fn close(&mut self, relay: RelayId) {
        if let Some(closed) = self.relays.remove(relay.into()) {
            self.sockets.note_closed(&closed);
        }
        // The last share closes the port.
        if let Some(port) = self.shared.as_mut().and_then(|shared| shared.close(relay))
            && let Some(closed) = self.relays.remove(port.into())
        {
            self.sockets.note_closed(&closed);
        }
    }

    fn shared_port(&self, relay: RelayId) -> Option<RelayId> {
        self.shared.as_ref()?.port_of(relay)
    }
}
