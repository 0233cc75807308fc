//! Mutated headers of proxies and mutated ClientHellos, whole and in pieces.

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use turnstone::proxy::{Ends, HEADER_MAX, read_datagram_header, read_stream_header, stream_header};
use turnstone::stream::{Heard, Hello};

use crate::mutate::{Rng, mutate};

fn headers() -> Vec<Vec<u8>> {
    let ends = |client: &str, server: &str| Ends { client: client.parse().unwrap(), server: server.parse().unwrap() };
    let v4 = stream_header(ends("192.0.2.1:1000", "203.0.113.5:443"));
    let v6 = stream_header(ends("[2001:db8::1]:1000", "[2001:db8::5]:443"));
    let mut datagram = v4.clone();
    datagram[13] = 0x12;
    // A checksum that is wrong, and one TLV that is skipped.
    let mut longer = [v4.as_slice(), &[3, 0, 4, 1, 2, 3, 4, 4, 0, 2, 0, 0]].concat();
    longer[15] = 24;
    let local = [&v4[..12], &[0x20, 0, 0, 0]].concat();
    let lines = [
        "PROXY TCP4 192.0.2.1 203.0.113.5 1000 443\r\n",
        "PROXY TCP6 2001:db8::1 2001:db8::5 1000 443\r\n",
        "PROXY UNKNOWN\r\n",
    ];
    let lines = lines.map(|line| line.as_bytes().to_vec());
    [v4, v6, datagram, longer, local].into_iter().chain(lines).collect()
}

#[test]
fn no_mutated_header_of_a_proxy_is_read_beyond_its_end_or_before_it_is_complete() {
    let mut rng = Rng(crate::seed() ^ 11);
    let corpus = headers();
    let (mut read, mut refused) = (0_u64, 0_u64);
    for _ in 0..crate::inputs(6) {
        let mut bytes = rng.pick(&corpus).clone();
        if !rng.chance(8) {
            mutate(&mut rng, &mut bytes, &corpus);
        }
        match read_stream_header(&bytes) {
            Ok(Some(header)) => {
                assert!(header.len <= bytes.len() && header.len <= HEADER_MAX);
                assert_eq!(read_stream_header(&bytes[..header.len]), Ok(Some(header.clone())), "{bytes:02x?}");
                assert_eq!(read_stream_header(&bytes[..header.len - 1]), Ok(None), "{bytes:02x?}");
                read += 1;
            }
            Ok(None) => assert!(bytes.len() < HEADER_MAX),
            Err(_) => refused += 1,
        }
        if let Ok(header) = read_datagram_header(&bytes) {
            assert!(header.len <= bytes.len());
        }
    }
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
}

fn hello(name: &'static str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn hear<'b>(parts: impl Iterator<Item = &'b [u8]>) -> &'static str {
    let names = ["turn.example.org".to_owned()];
    let mut hello = Hello::default();
    let mut taken = Vec::new();
    for part in parts {
        taken.extend_from_slice(part);
        hello = match hello.hear(part, &names, |_| false) {
            Heard::Part(part) => part,
            Heard::Ours(_) => return "ours",
            Heard::Web(bytes) => {
                assert_eq!(bytes, taken, "nothing of it is lost");
                return "web";
            }
            Heard::Refused(_) => return "refused",
        };
    }
    "part"
}

#[test]
fn no_mutated_client_hello_upsets_who_looks_at_it_and_pieces_make_no_difference() {
    let mut rng = Rng(crate::seed() ^ 12);
    let corpus = [
        hello("turn.example.org", &[]),
        hello("www.example.org", &[]),
        hello("turn.example.org", &["h2", "http/1.1"]),
        hello("turn.example.org", &["stun.turn"]),
    ];
    let mut seen = std::collections::BTreeMap::<_, u64>::new();
    for _ in 0..(crate::inputs(1) / 4).max(400) {
        let mut bytes = rng.pick(&corpus).clone();
        if !rng.chance(4) {
            mutate(&mut rng, &mut bytes, &corpus);
        }
        let whole = hear(std::iter::once(bytes.as_slice()));
        let in_pieces = hear(bytes.chunks(1 + rng.below(100)));
        // What is behind a complete one may spoil it only when it is there at once.
        assert!(whole == in_pieces || whole == "refused", "{whole}, in pieces {in_pieces}: {bytes:02x?}");
        *seen.entry(whole).or_default() += 1;
    }
    assert!(["ours", "web", "refused", "part"].iter().all(|outcome| seen.contains_key(outcome)), "{seen:?}");
}
