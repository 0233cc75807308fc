//! A TURN server over one UDP socket: `TURN_USER=alice:wonderland cargo run --example server -- 203.0.113.5`
//!
//! A thread reads each socket, one thread has the state and does the rest. What their queue cannot hold is lost, as UDP allows. What
//! the library has beyond this: TCP and TLS clients, relays of both families, reservations, reload, draining, many workers.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, mpsc::RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use turnstone_stun::{AttributeType, Class, Encoder, Method, TransactionId};
use turnstone_turn::addr::{ClientAddr, Family, FiveTuple, PeerAddr, RelayedAddr, Transport};
use turnstone_turn::auth::{Credentials, NonceKeys, Users};
use turnstone_turn::clock::Now;
use turnstone_turn::policy::{PeerAcl, PeerRules};
use turnstone_turn::slots::Slots;
use turnstone_turn::user::User;
use turnstone_turn::{
    Client, DatagramPath, Encapsulation, MessageKind, OpenRelay, Outcome, Path, PortRequest, RelayError, RelayId,
    Relays, ReservationToken, Server, Settings, Shared,
};

const RELAY_PORTS: (u16, u16) = (49_152, 65_535);

fn main() -> Result<(), Box<dyn Error>> {
    let ip: IpAddr = std::env::args().nth(1).ok_or("which address? server IP")?.parse()?;
    let user = std::env::var("TURN_USER")?;
    let (name, password) = user.split_once(':').ok_or("TURN_USER is not NAME:PASSWORD")?;
    let listener = Arc::new(UdpSocket::bind((ip, 3478))?);
    serve(&listener, settings(name, password, listener.local_addr()?, PeerRules::default())?)
}

/// One user. Whatever else the rules say: special addresses are denied by default, and our own relays may be reached.
pub(crate) fn settings(
    name: &str,
    password: &str,
    address: SocketAddr,
    rules: PeerRules,
) -> Result<Settings, Box<dyn Error>> {
    let mut nonce_key = [0; 32];
    getrandom::fill(&mut nonce_key)?;
    let credentials = Credentials::builder("example.org", Arc::new(NonceKeys::new(nonce_key, 600)))
        .users(Users::from_pairs([(name, password)])?)
        .build()?;
    let (own_endpoints, relay_addresses) = (vec![address], vec![address.ip()]);
    let rules = PeerRules { own_endpoints, relay_addresses, relay_ports: RELAY_PORTS, ..rules };
    Ok(Settings::builder(Arc::new(credentials), Arc::new(PeerAcl::compile(&rules)?)).build())
}

/// Serves on the socket's address, and relays on it.
pub(crate) fn serve(listener: &Arc<UdpSocket>, settings: Settings) -> Result<(), Box<dyn Error>> {
    let random = |bytes: &mut [u8]| getrandom::fill(bytes).unwrap_or_else(|_| std::process::abort());
    let mut server = Server::new(Arc::new(settings), Shared::default(), Box::new(random));
    let address = listener.local_addr()?;
    let (inputs, received) = sync_channel(1024);
    read(listener, None, &inputs)?;
    let mut relays = RelaySockets { ip: address.ip(), open: Slots::default(), inputs };
    let (started, mut out) = (Instant::now(), Vec::new());
    loop {
        let micros = || u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wait_micros = server.next_timeout().map_or(u64::MAX, |due| due.saturating_sub(micros()));
        let input = received.recv_timeout(Duration::from_micros(wait_micros.min(1_000_000)));
        let unix_secs = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let now = Now { micros: micros(), unix_secs };
        out.clear();
        match input {
            Ok(Input { relay: None, from, bytes }) => {
                let five_tuple =
                    FiveTuple { transport: Transport::Udp, client: ClientAddr::new(from), server: address };
                let path = Path::Datagrams(DatagramPath { socket: 0, to: from, from_ip: None });
                let to_peer = match MessageKind::of_datagram(&bytes) {
                    Some(MessageKind::Stun) => {
                        let client = Client { five_tuple, path };
                        match server.handle_message(now, &client, &bytes, &mut relays, &mut out) {
                            Outcome::ToPeer(to, payload) => Some((to, payload)),
                            Outcome::Reply | Outcome::Waits | Outcome::Dropped(_) => None,
                        }
                    }
                    Some(MessageKind::ChannelData(message)) => {
                        let to_peer = server.route_channel_data(now, &five_tuple, message).ok();
                        to_peer.map(|to| (to, message.payload()))
                    }
                    None => None,
                };
                if let Some((to, payload)) = to_peer
                    && let (Some(relay), Some(payload)) = (relays.open.get(to.relay.into()), bytes.get(payload))
                {
                    // What the kernel refuses is lost.
                    let _ = relay.send_to(payload, to.peer.get());
                }
                if !out.is_empty() {
                    let _ = listener.send_to(&out, from);
                }
            }
            Ok(Input { relay: Some(relay), from, bytes }) => {
                if let Ok(peer) = PeerAddr::new(from)
                    && let Ok(to) = server.route_from_peer(now, relay, peer, bytes.len())
                    && let Path::Datagrams(path) = to.client.path
                {
                    wrap(to.encapsulation, &bytes, &mut out);
                    let _ = listener.send_to(&out, path.to);
                }
            }
            Err(RecvTimeoutError::Timeout) => server.handle_timeout(now, &mut relays),
            Err(RecvTimeoutError::Disconnected) => return Err("no socket is read any more".into()),
        }
        while let Some(event) = server.poll_event() {
            println!("{event:?}");
        }
    }
}

/// A peer's packet as its client gets it.
fn wrap(encapsulation: Encapsulation, payload: &[u8], out: &mut Vec<u8>) {
    match encapsulation {
        Encapsulation::Channel(number) => {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            out.extend_from_slice(payload);
        }
        Encapsulation::Data { peer, transaction_id } => {
            Encoder::new(out, Class::Indication, Method::DATA, TransactionId(transaction_id))
                .xor_address(AttributeType::XOR_PEER_ADDRESS, peer.get())
                .attribute(AttributeType::DATA, payload);
        }
    }
}

/// What came to the listener, or to a relay.
struct Input {
    relay: Option<RelayId>,
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// Reads a socket for as long as somebody else holds it.
fn read(socket: &Arc<UdpSocket>, relay: Option<RelayId>, inputs: &SyncSender<Input>) -> io::Result<()> {
    let (held, socket, inputs) = (Arc::downgrade(socket), socket.try_clone()?, inputs.clone());
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while held.strong_count() > 0 {
            if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let bytes = buffer.get(..len).unwrap_or_default().to_vec();
                let _ = inputs.try_send(Input { relay, from, bytes });
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
        for _ in 0..64 {
            let mut random = [0; 2];
            getrandom::fill(&mut random).map_err(|_| RelayError::System)?;
            let port = match request {
                PortRequest::Any => u16::from_be_bytes(random) | RELAY_PORTS.0,
                PortRequest::Even => u16::from_be_bytes(random) & !1 | RELAY_PORTS.0,
                PortRequest::EvenAndReserveNext { .. } => return Err(RelayError::NoReservation),
            };
            let Ok(socket) = UdpSocket::bind((self.ip, port)).map(Arc::new) else { continue };
            let id = RelayId::from(self.open.insert(Arc::clone(&socket)));
            read(&socket, Some(id), &self.inputs).map_err(|_| RelayError::System)?;
            let relayed = RelayedAddr::new(SocketAddr::new(self.ip, port));
            return Ok(OpenRelay { id, relayed, reservation: None });
        }
        Err(RelayError::NoPort)
    }

    fn open_reserved(&mut self, _: u64, _: ReservationToken, _: &User) -> Result<OpenRelay, RelayError> {
        Err(RelayError::UnknownToken)
    }

    fn close(&mut self, relay: RelayId) {
        self.open.remove(relay.into());
    }
}
