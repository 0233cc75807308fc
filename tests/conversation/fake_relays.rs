//! A fake of the worker's relay sockets.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use turnstone::addr::{Family, FiveTuple, PeerAddr, RelayedAddr};
use turnstone::clock::SECOND;
use turnstone::turn::{
    ConnectError, ConnectionId, OpenRelay, PortRequest, RelayError, RelayId, Relays, ReservationToken,
};
use turnstone::user::User;

use crate::harness::{RELAY_V4, RELAY_V6};

/// Relay sockets that are none, on a pool of ports.
pub struct FakeRelays {
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
    /// The pool, per family.
    pub ports: Vec<u16>,
    /// Ports that allocations share, each with the id of its socket; none, if each has its own.
    pub shared: Vec<(u16, RelayId)>,
    /// Which of them each relay has a share of.
    pub shares: HashMap<RelayId, RelayId>,
    /// Opens fail as if descriptors had run out.
    pub broken: bool,
    pub open: HashMap<RelayId, RelayedAddr>,
    /// The relay opened last.
    pub last: Option<RelayId>,
    /// The server whose turn it is, and the server of each relay: none may close another one's.
    pub side: usize,
    pub sides: HashMap<RelayId, usize>,
    /// TCP relays, and what became of Connects: the relay's id, the connection's, the peer, and whether it is one of our relays.
    pub tcp: HashMap<RelayId, RelayedAddr>,
    pub connects: Vec<(RelayId, ConnectionId, PeerAddr, bool)>,
    pub connect_error: Option<ConnectError>,
    pub disconnected: Vec<ConnectionId>,
    taken: BTreeSet<(Family, u16)>,
    reserved: HashMap<ReservationToken, Reserved>,
    generations: Vec<u32>,
    free: Vec<u32>,
    tokens: u64,
}

struct Reserved {
    port: u16,
    family: Family,
    user: User,
    until_micros: u64,
}

impl Default for FakeRelays {
    fn default() -> Self {
        Self {
            v4: Some(RELAY_V4.parse().unwrap()),
            v6: Some(RELAY_V6.parse().unwrap()),
            ports: (50_000..50_200).collect(),
            shared: Vec::new(),
            shares: HashMap::new(),
            broken: false,
            open: HashMap::new(),
            last: None,
            side: 0,
            sides: HashMap::new(),
            tcp: HashMap::new(),
            connects: Vec::new(),
            connect_error: None,
            disconnected: Vec::new(),
            taken: BTreeSet::new(),
            reserved: HashMap::new(),
            generations: Vec::new(),
            free: Vec::new(),
            tokens: 0,
        }
    }
}

impl FakeRelays {
    pub fn taken_ports(&self) -> usize {
        self.taken.len()
    }

    fn ip(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    fn expire(&mut self, now_micros: u64) {
        let taken = &mut self.taken;
        self.reserved.retain(|_, reserved| {
            let keep = reserved.until_micros > now_micros;
            if !keep {
                taken.remove(&(reserved.family, reserved.port));
            }
            keep
        });
    }

    fn put_up(&mut self, family: Family, port: u16) -> OpenRelay {
        let index = self.free.pop().unwrap_or_else(|| {
            self.generations.push(0);
            self.generations.len() as u32 - 1
        });
        self.generations[index as usize] += 1;
        let id = RelayId { index, generation: self.generations[index as usize] };
        let relayed = RelayedAddr::new(SocketAddr::new(self.ip(family).unwrap(), port));
        self.open.insert(id, relayed);
        self.sides.insert(id, self.side);
        self.last = Some(id);
        OpenRelay { id, relayed, reservation: None }
    }

    /// Moves the socket of a relay to the server whose turn it is; returns its id there.
    pub fn take_over(&mut self, relay: RelayId) -> RelayId {
        let relayed = self.open.remove(&relay).expect("only open relays move");
        assert_ne!(self.sides.remove(&relay), Some(self.side));
        self.put_up(relayed.family(), relayed.get().port()).id
    }
}

impl Relays for FakeRelays {
    fn supports(&self, family: Family) -> bool {
        self.ip(family).is_some()
    }

    fn open(&mut self, now_micros: u64, family: Family, request: PortRequest<'_>) -> Result<OpenRelay, RelayError> {
        self.expire(now_micros);
        self.ip(family).ok_or(RelayError::NoFamily)?;
        if self.broken {
            return Err(RelayError::System);
        }
        if !self.shared.is_empty() {
            let shares = |port: RelayId| self.shares.values().filter(|of| **of == port).count();
            let (port, id) = *self.shared.iter().min_by_key(|(_, id)| shares(*id)).unwrap();
            if request != PortRequest::Any {
                return Err(RelayError::SharedPorts);
            }
            let opened = self.put_up(family, port);
            self.shares.insert(opened.id, id);
            return Ok(opened);
        }
        if let PortRequest::EvenAndReserveNext { user, per_user_max: Some(max) } = request {
            let of_user = self.reserved.values().filter(|reserved| reserved.user == *user).count();
            if of_user >= max as usize {
                return Err(RelayError::UserReservations);
            }
        }
        let free = |port: &u16| !self.taken.contains(&(family, *port));
        let fits = |port: &&u16| match request {
            PortRequest::Any => true,
            PortRequest::Even => port.is_multiple_of(2),
            PortRequest::EvenAndReserveNext { .. } => {
                port.is_multiple_of(2) && self.ports.contains(&(*port + 1)) && free(&(*port + 1))
            }
        };
        let port = *self.ports.iter().filter(|port| free(port)).find(fits).ok_or(RelayError::NoPort)?;
        self.taken.insert((family, port));
        let mut opened = self.put_up(family, port);
        if let PortRequest::EvenAndReserveNext { user, .. } = request {
            self.tokens += 1;
            let token = (0xFEED_0000 + self.tokens).to_be_bytes();
            self.taken.insert((family, port + 1));
            let until_micros = now_micros + 30 * SECOND;
            self.reserved.insert(token, Reserved { port: port + 1, family, user: user.clone(), until_micros });
            opened.reservation = Some(token);
        }
        Ok(opened)
    }

    fn open_reserved(
        &mut self,
        now_micros: u64,
        token: ReservationToken,
        user: &User,
    ) -> Result<OpenRelay, RelayError> {
        self.expire(now_micros);
        if self.reserved.get(&token).is_none_or(|reserved| reserved.user != *user) {
            return Err(RelayError::UnknownToken);
        }
        let reserved = self.reserved.remove(&token).unwrap();
        Ok(self.put_up(reserved.family, reserved.port))
    }

    fn close(&mut self, relay: RelayId) {
        let relayed = self.open.remove(&relay).expect("only open relays are closed");
        assert_eq!(self.sides.remove(&relay), Some(self.side), "closed by a server that has it not");
        let is_share = self.shares.remove(&relay).is_some();
        assert!(is_share || self.taken.remove(&(relayed.family(), relayed.get().port())));
        self.free.push(relay.index);
    }

    fn shared_port(&self, relay: RelayId) -> Option<RelayId> {
        self.shares.get(&relay).copied()
    }

    fn open_tcp(&mut self, _: &FiveTuple, family: Family) -> Result<OpenRelay, RelayError> {
        let ip = self.ip(family).ok_or(RelayError::NoFamily)?;
        // The same ids as other relays have: they are apart.
        let id = RelayId { index: self.tcp.len() as u32, generation: 1 };
        let relayed = RelayedAddr::new(SocketAddr::new(ip, 60_000 + id.index as u16));
        assert!(self.tcp.insert(id, relayed).is_none());
        Ok(OpenRelay { id, relayed, reservation: None })
    }

    fn close_tcp(&mut self, relay: RelayId) {
        self.tcp.remove(&relay).expect("only open relays are closed");
    }

    fn connect(
        &mut self,
        relay: RelayId,
        connection: ConnectionId,
        peer: PeerAddr,
        own_relay: bool,
    ) -> Result<(), ConnectError> {
        assert!(self.tcp.contains_key(&relay));
        if let Some(error) = self.connect_error {
            return Err(error);
        }
        self.connects.push((relay, connection, peer, own_relay));
        Ok(())
    }

    fn disconnect(&mut self, connection: ConnectionId) {
        assert!(!self.disconnected.contains(&connection), "closed twice");
        self.disconnected.push(connection);
    }
}
