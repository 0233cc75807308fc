//! The same against the real program, over loopback.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use turnstone::stun::{Class, Encoder, Message, Method, TransactionId};

use crate::mutate::{self, Rng};
use crate::support::{Spec, TestServer};
use crate::world::{self, ID, Signer};
use crate::{PACKETS_PER_SOURCE, SOURCES, TOLERANCE, resident};

/// One source: everything in 127.0.0.0/8 is this machine. Neighbours are in different /24 networks, each with a budget of its own
/// for answers, so that most packets get as far as they can.
fn source(number: u32) -> UdpSocket {
    let [_, b, c, d] = number.to_be_bytes();
    let ip = Ipv4Addr::new(127, 1 + d % 250, c, 1 + b);
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

struct Flood {
    rng: Rng,
    drafts: Vec<world::Draft>,
    corpus: Vec<Vec<u8>>,
    packet: Vec<u8>,
    sent: u64,
    answered: u64,
}

impl Flood {
    fn attack(&mut self, server: SocketAddr, number: u32) {
        let socket = source(number);
        socket.connect(server).unwrap();
        world::encode(&self.drafts[1], Class::Request, ID, None, &mut self.packet);
        let challenge = self.exchange(&socket, ID);
        let nonce = challenge.as_deref().and_then(world::nonce_in).unwrap_or_else(|| self.rng.bytes(40));
        for packet in 2..PACKETS_PER_SOURCE {
            let draft = self.rng.pick(&self.drafts).clone();
            let mut id = ID;
            self.rng.fill(&mut id);
            match packet % 4 {
                0 => world::encode(&draft, Class::Request, id, Some(&Signer::forger(nonce.clone())), &mut self.packet),
                1 => {
                    let forger = Signer::forger(self.rng.bytes(40));
                    world::encode(&draft, Class::Request, id, Some(&forger), &mut self.packet);
                }
                2 => world::encode(&draft, Class::Indication, id, None, &mut self.packet),
                _ => {
                    self.packet.clone_from(self.rng.pick(&self.corpus));
                    mutate::mutate(&mut self.rng, &mut self.packet, &self.corpus);
                }
            }
            // A packet that the kernel refuses is not worth a failure; the answers below are counted.
            let _ = socket.send(&self.packet);
            self.sent += 1;
        }
        // Its answer shows that the server has read what came before: the flood does not just fill a queue.
        let mut id = ID;
        self.rng.fill(&mut id);
        self.packet.clear();
        Encoder::new(&mut self.packet, Class::Request, Method::BINDING, TransactionId(id));
        if self.exchange(&socket, id).is_some() {
            self.answered += 1;
        }
    }

    /// Sends and waits for the answer with this transaction id.
    fn exchange(&mut self, socket: &UdpSocket, id: [u8; 12]) -> Option<Vec<u8>> {
        socket.send(&self.packet).unwrap();
        self.sent += 1;
        let mut buffer = [0; 2048];
        loop {
            let len = socket.recv(&mut buffer).ok()?;
            if Message::parse(&buffer[..len]).is_ok_and(|message| message.transaction_id().0 == id) {
                return Some(buffer[..len].to_vec());
            }
        }
    }

    fn run(&mut self, server: &TestServer, sources: std::ops::Range<u32>) {
        for number in sources {
            self.attack(server.udp(), number);
        }
    }
}

#[test]
fn the_program_is_as_small_after_a_million_forged_packets_as_before() {
    let _alone = crate::ALONE.lock();
    let server = Spec::local().start();
    let mut flood = Flood {
        rng: Rng(11),
        drafts: world::drafts(),
        corpus: world::corpus(),
        packet: Vec::new(),
        sent: 0,
        answered: 0,
    };
    flood.run(&server, 0..2_000);
    let before = resident(&server.process_id().to_string());
    flood.run(&server, 2_000..SOURCES);
    let after = resident(&server.process_id().to_string());
    println!(
        "{} packets, {} of {SOURCES} sources heard; resident {before} before, {after} after",
        flood.sent, flood.answered
    );
    assert!(flood.sent >= 1_000_000);
    assert!(flood.answered > u64::from(SOURCES) * 9 / 10, "the server read too little: {} answers", flood.answered);
    assert!(after <= before + TOLERANCE, "resident memory grew from {before} to {after} bytes");
    assert!(server.log().lines().count() < 50, "the flood wrote a log:\n{}", server.log());
}
