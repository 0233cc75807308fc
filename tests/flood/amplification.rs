//! How many bytes a stranger gets for a byte: the figures of SECURITY.md.

use std::net::{IpAddr, SocketAddr};

use turnstone::addr::Transport;
use turnstone::policy::RateLimit;
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
    let mut world = World::offering_all(12, None);
    for (what, draft) in [
        ("Binding with [nat-discovery]", &drafts[0]),
        ("CHANGE-REQUEST", &drafts[14]),
        ("RESPONSE-PORT", &drafts[15]),
        ("PADDING of 200 bytes", &drafts[16]),
    ] {
        world::encode(draft, Class::Request, ID, None, &mut packet);
        reply.clear();
        world.message(&client, &packet, &mut reply);
        found.push(Exchange { what, request: packet.len(), response: reply.len() });
    }
    let classic = [&[0, 1, 0, 0][..], &[0x5A; 16]].concat();
    reply.clear();
    world.message(&client, &classic, &mut reply);
    found.push(Exchange { what: "Binding of RFC 3489 with both", request: classic.len(), response: reply.len() });
    found
}

#[test]
fn a_stranger_gets_few_bytes_for_a_byte_and_security_md_says_how_many() {
    let _alone = crate::ALONE.lock();
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

/// Answers a second and bits a second, IPv4 and IPv6, as SECURITY.md writes them.
fn row(what: &str, times: u32, challenge: usize) -> String {
    let per_second = f64::from(times * LIMIT.per_second);
    let bits = |headers: usize| {
        let bits = per_second * (challenge + headers) as f64 * 8.0;
        match bits {
            ..1e6 => format!("{:.0} k", bits / 1e3),
            ..1e7 => format!("{:.1} M", bits / 1e6),
            _ => format!("{:.0} M", bits / 1e6),
        }
    };
    let thousands = format!("{per_second}");
    let thousands = match thousands.split_at(thousands.len().saturating_sub(3)) {
        ("", rest) => rest.to_owned(),
        (above, rest) => format!("{above},{rest}"),
    };
    let ipv4 = if what.contains("/32") { String::new() } else { format!(" {}", bits(HEADERS)) };
    format!("| {what} | {thousands} |{ipv4} | {} |", bits(HEADERS + 20))
}

/// The addresses that are forged, by the number of the request.
type Sources<'s> = &'s dyn Fn(u32) -> IpAddr;

/// The default.
const LIMIT: RateLimit = RateLimit { per_second: 100, burst: 500 };

#[test]
fn a_victim_of_many_forged_networks_gets_what_security_md_says() {
    let _alone = crate::ALONE.lock();
    let security = include_str!("../../SECURITY.md");
    let allocate = &world::drafts()[1];
    let (mut packet, mut reply) = (Vec::new(), Vec::new());
    world::encode(allocate, Class::Request, ID, None, &mut packet);
    let within_24 = |n: u32| IpAddr::from([198, 51, 100, n as u8]);
    let within_16 = |n: u32| IpAddr::from([198, 51, n as u8, (n >> 8) as u8]);
    let within_48 = |n: u32| IpAddr::from([0x2001, 0xdb8, 0, n as u16, 0, 0, 0, 1]);
    let within_32 = |n: u32| IpAddr::from([0x2001, 0xdb8, n as u16, (n >> 16) as u16, 0, 0, 0, 1]);
    let attacks: [(&str, u32, u32, Sources<'_>); 4] = [
        ("a /24 or /64", 1, 1_000, &within_24),
        ("a /16 or /48", RateLimit::WIDE, 30_000, &within_16),
        ("a /16 or /48", RateLimit::WIDE, 30_000, &within_48),
        ("an IPv6 /32", RateLimit::FAR, 30_000, &within_32),
    ];
    for (what, times, per_second, source) in attacks {
        let mut world = World::new(13, Some(LIMIT));
        let (mut burst, mut answered, mut challenge) = (0, 0, 0);
        for second in 0..12 {
            for n in 0..per_second {
                reply.clear();
                let source = SocketAddr::new(source(second * per_second + n), 5000);
                world.message(&world::client(Transport::Udp, source, 1), &packet, &mut reply);
                challenge = challenge.max(reply.len());
                // The burst is over by the end of the seventh second.
                *if second < 7 { &mut burst } else { &mut answered } += u32::from(!reply.is_empty());
                if n % 10 == 0 {
                    world.advance(10_000_000 / u64::from(per_second));
                }
            }
        }
        let (a_second, most) = (answered / 5, times * LIMIT.per_second);
        println!("{what}: {a_second} answers a second for {per_second} requests, {burst} in the first 7 seconds");
        assert!(a_second <= most && a_second >= most * 3 / 4, "{what}: {a_second}");
        assert!(burst <= times * (LIMIT.burst + 7 * LIMIT.per_second), "{what}: {burst}");
        let row = row(what, times, challenge);
        assert!(security.contains(&row), "SECURITY.md lacks the row {row}");
    }
    let all = row("everywhere, in all", RateLimit::ALL, 104);
    assert!(security.contains(&all), "SECURITY.md lacks the row {all}");
}
