//! `iceServers` as they are pasted from a page's code, or answered by an API.

use turnstone::probe::IceServers;

use crate::mutate::{Rng, mutate};

const SEEDS: &[&str] = &[
    "const pc = new RTCPeerConnection({ iceServers: [ { urls: ['stun:a', `turn:b`], username: 'u\\x27', credential: \"p\", }, ], });",
    "{\"iceServers\": [{\"urls\": \"turns:[::1]:443?transport=tcp\", \"username\": \"1795882000:a\", \"credential\": \"\\ud83d\\ude00\"}]}",
    "// ours\n[{url: 'stun:a' /* old */}, {urls: null, username: 1.5e3, credential: undefined, credentialType: 'oauth'}]",
    "{username: 'u', password: 'p', ttl: 1, uris: ['turn:a', 'turn:b?transport=tcp']}",
];

#[test]
fn mutated_blocks_are_read_or_refused_with_a_place() {
    let mut rng = Rng(crate::seed() ^ 12);
    let corpus: Vec<Vec<u8>> = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let (mut read, mut refused) = (0, 0);
    for _ in 0..crate::inputs(2) {
        let mut bytes = rng.pick(&corpus).clone();
        mutate(&mut rng, &mut bytes, &corpus);
        let text = String::from_utf8_lossy(&bytes);
        match IceServers::read(&text) {
            // What is shown of it has no secret, and is no longer than its URLs.
            Ok(servers) => {
                read += 1;
                assert!(format!("{servers:?}").len() <= 8 * text.len() + 256, "{text:?}");
            }
            Err(error) => {
                refused += 1;
                let words = error.to_string();
                assert!(!words.is_empty() && words.len() <= 2 * text.len() + 256, "{text:?}: {words}");
            }
        }
    }
    assert!(read > 0 && refused > 0, "{read} {refused}");
}
