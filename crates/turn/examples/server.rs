//! A TURN server over one UDP socket: `TURN_USER=alice:wonderland cargo run --example server -- 203.0.113.5`
//!
//! A thread reads each socket, one thread has the state and does the rest. What their queue cannot hold is lost, as UDP allows. What
//! the library has beyond this: TCP and TLS clients, relays of both families, reservations, reload, draining, many workers.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use turnstone_turn::addr::{Family, PeerAddr, RelayedAddr};
use turnstone_turn::auth::{Credentials, NonceKeys, Users};
use turnstone_turn::clock::Now;
use turnstone_turn::policy::{PeerAcl, PeerRules};
use turnstone_turn::slots::Slots;
use turnstone_turn::{Client, OpenRelay, Outcome, PortRequest, RelayError, RelayId, Relays, Server, Settings, Shared};

pub(crate) const RELAY_PORTS: (u16, u16) = (49_152, 65_535);

fn main() -> Result<(), Box<dyn Error>> {
    let ip: IpAddr = std::env::args().nth(1).ok_or("which address? server IP")?.parse()?;
    let user = std::env::var("TURN_USER")?;
    let user = user.split_once(':').ok_or("TURN_USER is not NAME:PASSWORD")?;
    let listener = Arc::new(UdpSocket::bind((ip, 3478))?);
    serve(&listener, user, &PeerRules::of_server(listener.local_addr()?, RELAY_PORTS))
}

/// Serves one user on the socket's address, and relays on it.
pub(crate) fn serve(listener: &Arc<UdpSocket>, user: (&str, &str), rules: &PeerRules) -> Result<(), Box<dyn Error>> {
    let random = |bytes: &mut [u8]| getrandom::fill(bytes).unwrap_or_else(|_| std::process::abort());
    let mut nonce_key = [0; 32];
    random(&mut nonce_key);
    let credentials = Credentials::builder("example.org", Arc::new(NonceKeys::new(nonce_key, 600)))
        .users(Users::from_pairs("example.org", [user])?)
        .build()?;
    let settings = Settings::builder(Arc::new(credentials), Arc::new(PeerAcl::compile(rules)?)).build();
    let mut server = Server::new(Arc::new(settings), Shared::default(), Box::new(random));

    let address = listener.local_addr()?;
    let (inputs, received) = sync_channel(1024);
    read(listener, None, &inputs)?;
    let mut relays = RelaySockets { ip: address.ip(), open: Slots::default(), inputs };
    let (started, mut reply) = (Instant::now(), Vec::new());
    loop {
        let input = received.recv_timeout(Duration::from_millis(100));
        let unix_secs = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let now = Now { micros: u64::try_from(started.elapsed().as_micros())?, unix_secs };
        reply.clear();
        // What the kernel does not send is lost.
        match input {
            Ok((None, from, bytes)) => {
                let client = Client::over_udp(from, address);
                match server.handle_datagram(now, &client, &bytes, &mut relays, &mut reply) {
                    Outcome::Reply => drop(listener.send_to(&reply, from)),
                    Outcome::ToPeer(to, payload) => {
                        if let (Some(relay), Some(payload)) = (relays.open.get(to.relay.into()), bytes.get(payload)) {
                            drop(relay.send_to(payload, to.peer.get()));
                        }
                    }
                    Outcome::Detour(_)
                    | Outcome::Waits
                    | Outcome::Elsewhere(_)
                    | Outcome::Binds(_)
                    | Outcome::Dropped(_) => {}
                }
            }
            Ok((Some(relay), from, bytes)) => {
                let routed = PeerAddr::new(from).map(|peer| server.route_from_peer(now, relay, peer, &bytes));
                if let Ok(Ok(to)) = routed {
                    to.wrap(&bytes, &mut reply);
                    drop(listener.send_to(&reply, to.client.five_tuple.client.get()));
                }
            }
            Err(_) => {} // Nothing has come for a while. `relays` has a sender, so the queue is not closed.
        }
        if server.next_timeout().is_some_and(|due| due <= now.micros) {
            server.handle_timeout(now, &mut relays);
        }
        while let Some(event) = server.poll_event() {
            println!("{event:?}");
        }
    }
}

/// What came, and from where: to the listener, or to a relay.
type Input = (Option<RelayId>, SocketAddr, Vec<u8>);

/// Reads a socket for as long as somebody else holds it.
fn read(socket: &Arc<UdpSocket>, relay: Option<RelayId>, inputs: &SyncSender<Input>) -> io::Result<()> {
    let (held, socket, inputs) = (Arc::downgrade(socket), socket.try_clone()?, inputs.clone());
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while held.strong_count() > 0 {
            if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let _ = inputs.try_send((relay, from, buffer.get(..len).unwrap_or_default().to_vec()));
            }
        }
    });
    Ok(())
}

/// The relay sockets, on random ports of the range.
struct RelaySockets {
    ip: IpAddr,
    open: Slots<Arc<UdpSocket>>,
    inputs: SyncSender<Input>,
}

impl Relays for RelaySockets {
    fn supports(&self, family: Family) -> bool {
        Family::of(self.ip) == family
    }

    fn open(&mut self, _: u64, _: Family, request: PortRequest<'_>) -> Result<OpenRelay, RelayError> {
        let odd = match request {
            PortRequest::Any => 1,
            PortRequest::Even => 0,
            PortRequest::EvenAndReserveNext { .. } => return Err(RelayError::NoReservation),
        };
        for _ in 0..64 {
            let mut random = [0; 2];
            getrandom::fill(&mut random).map_err(|_| RelayError::System)?;
            let port = (u16::from_be_bytes(random) | RELAY_PORTS.0) & (0xFFFE | odd);
            let Ok(socket) = UdpSocket::bind((self.ip, port)).map(Arc::new) else { continue };
            read(&socket, Some(self.open.next_id().into()), &self.inputs).map_err(|_| RelayError::System)?;
            let relayed = RelayedAddr::new(SocketAddr::new(self.ip, port));
            return Ok(OpenRelay { id: self.open.insert(socket).into(), relayed, reservation: None });
        }
        Err(RelayError::NoPort)
    }

    fn close(&mut self, relay: RelayId) {
        self.open.remove(relay.into());
    }
}
