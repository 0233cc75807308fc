//! How many bytes a stranger gets for a byte: the figures of SECURITY.md.

use turnstone::addr::Transport;
use turnstone::stun::Class;
use turnstone::turn::Outcome;

use crate::world::{self, Draft, ID, Signer, World};

/// Bytes of IPv4 and UDP header that a datagram costs on the wire.
const HEADERS: usize = 28;

struct Exchange {
    what: &'static str,
    request: usize,
    /// 0 when there is no answer.
    response: usize,
}

impl Exchange {
    fn payload_factor(&self) -> f64 {
        self.response as f64 / self.request as f64
    }

    fn wire_factor(&self) -> f64 {
        let response = if self.response == 0 { 0 } else { self.response + HEADERS };
        response as f64 / (self.request + HEADERS) as f64
    }
}

fn exchanges(address: &str) -> Vec<Exchange> {
    let mut world = World::new(12, None);
    let client = world::client(Transport::Udp, address.parse().unwrap(), 1);
    let (mut packet, mut reply) = (Vec::new(), Vec::new());
    let drafts = world::drafts();
    let bare_allocate = Draft { method: drafts[1].method, attributes: Vec::new() };

    let mut exchange = |what, draft: &Draft, class, signer: Option<&Signer>| {
        world::encode(draft, class, ID, signer, &mut packet);
        reply.clear();
        let outcome = world.message(&client, &packet, &mut reply);
        assert_eq!(outcome == Outcome::Reply, !reply.is_empty());
        (Exchange { what, request: packet.len(), response: reply.len() }, world::nonce_in(&reply))
    };

    let mut found = Vec::new();
    found.push(exchange("Binding", &drafts[0], Class::Request, None).0);
    found.push(exchange("Allocate of 20 bytes", &bare_allocate, Class::Request, None).0);
    let (allocate, nonce) = exchange("Allocate as clients send it", &drafts[1], Class::Request, None);
    found.push(allocate);
    let forger = Signer::forger(nonce.expect("a challenge"));
    found.push(exchange("Allocate with a forged password", &drafts[1], Class::Request, Some(&forger)).0);
    let stale = Signer::forger(b"not a nonce".to_vec());
    found.push(exchange("Allocate with a made-up nonce", &drafts[1], Class::Request, Some(&stale)).0);
    let unknown =
        Draft { method: drafts[0].method, attributes: (0x7000..0x7008).map(|kind| (kind, Vec::new())).collect() };
    found.push(exchange("Binding with 8 unknown attributes", &unknown, Class::Request, None).0);
    found.push(exchange("Send indication", &drafts[13], Class::Indication, None).0);
    found
}

#[test]
fn a_stranger_gets_few_bytes_for_a_byte_and_security_md_says_how_many() {
    let security = include_str!("../../SECURITY.md");
    for (family, address) in [("IPv4", "198.51.100.1:5000"), ("IPv6", "[2001:db8::1]:5000")] {
        for exchange in exchanges(address) {
            let Exchange { what, request, response } = exchange;
            let (payload, wire) = (exchange.payload_factor(), exchange.wire_factor());
            println!("| {what} | {request} | {response} | {payload:.1} | {wire:.1} | {family}");
            if family == "IPv4" {
                let row = format!("| {what} | {request} | {response} | {payload:.1} | {wire:.1} |");
                assert!(security.contains(&row), "SECURITY.md lacks the row {row}");
            }
            // The realm counts once; a longer one than the test's adds as many bytes.
            assert!(wire <= 3.5, "{what} over {family}: {wire:.2} bytes for a byte");
        }
    }
}
