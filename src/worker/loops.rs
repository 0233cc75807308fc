//! Finds packets that go round: two clients of one server that send back whatever they get, or allocations on two servers each of which
//! is the other's client. Media and handshakes never repeat themselves, so what comes to a relay again and again, byte for byte, in great
//! number is a loop.
//!
//! One packet of a round is looked at, and stands for those since the one before. All memory is of fixed size.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};

use crate::addr::PeerAddr;
use crate::clock::SECOND;
use crate::turn::{RelayId, Settings, innermost};

/// How long a loop must have gone on.
const WINDOW: u64 = 10 * SECOND;
/// Looks that a verdict takes.
const LOOKS_MIN: u32 = 50;
const SUSPECTS: usize = 64;
/// So many that a thousand packets going round seldom take one another's place.
const SEEN: usize = 32_768;
/// Bytes at each end of a payload that are looked at.
const ENDS: usize = 32;

/// What one worker knows of packets that may go round.
pub(super) struct LoopWatch {
    packets_per_second: u32,
    hash: RandomState,
    /// Marks of payloads that were looked at, each in its place.
    seen: Box<[u32]>,
    suspects: Box<[Option<Suspect>]>,
    looked_micros: u64,
    /// Packets since the last look.
    packets: u32,
}

/// Packets from one peer to one relay.
struct Suspect {
    relay: RelayId,
    peer: PeerAddr,
    since_micros: u64,
    looks: u32,
    repeats: u32,
    /// How many packets those that were seen before stand for.
    packets: u64,
}

impl LoopWatch {
    /// The watch that a snapshot asks for.
    pub(super) fn of(settings: &Settings) -> Option<Box<Self>> {
        settings.guard().loop_packets_per_second.map(|packets| Box::new(Self::new(packets)))
    }

    /// A watch that takes so many repeated packets a second for a loop.
    fn new(packets_per_second: u32) -> Self {
        Self {
            packets_per_second,
            hash: RandomState::new(),
            seen: vec![0; SEEN].into(),
            suspects: (0..SUSPECTS).map(|_| None).collect(),
            looked_micros: 0,
            packets: 0,
        }
    }

    /// Counts a packet; whether it is to be looked at. `now_micros` is the same for all packets of a round.
    #[inline]
    pub(super) fn is_next(&mut self, now_micros: u64) -> bool {
        self.packets = self.packets.saturating_add(1);
        self.looked_micros != now_micros
    }

    /// Looks at a packet from a peer to a relay. Returns whether the two are a loop's, once.
    pub(super) fn look(&mut self, now_micros: u64, relay: RelayId, peer: PeerAddr, payload: &[u8]) -> bool {
        self.looked_micros = now_micros;
        let packets = std::mem::take(&mut self.packets);
        let pair = self.hash.hash_one((relay, peer));
        let was_seen = self.was_seen((pair, marked(payload)));
        let Some(place) = self.suspects.get_mut(pair as usize % SUSPECTS) else { return false };
        let is_over = |suspect: &Suspect| now_micros.saturating_sub(suspect.since_micros) >= 2 * WINDOW;
        match place {
            Some(suspect) if (suspect.relay, suspect.peer) == (relay, peer) && !is_over(suspect) => {}
            // One that is likely to be a loop's keeps its place.
            Some(suspect) if suspect.repeats * 2 > suspect.looks && !is_over(suspect) => return false,
            _ => {
                let since_micros = now_micros;
                *place = Some(Suspect { relay, peer, since_micros, looks: 0, repeats: 0, packets: 0 });
            }
        }
        let Some(suspect) = place else { return false };
        suspect.looks += 1;
        if was_seen {
            suspect.repeats += 1;
            suspect.packets += u64::from(packets);
        }
        let age = now_micros.saturating_sub(suspect.since_micros);
        let is_loop = age >= WINDOW
            && suspect.looks >= LOOKS_MIN
            && suspect.repeats * 10 >= suspect.looks * 9
            && suspect.packets * SECOND >= u64::from(self.packets_per_second) * age;
        if is_loop {
            *place = None;
        }
        is_loop
    }

    /// Whether a payload's mark is where it was left; leaves it there.
    fn was_seen(&mut self, payload: impl Hash) -> bool {
        let hash = self.hash.hash_one(payload);
        // 0 is no mark.
        let mark = (hash >> 32) as u32 | 1;
        let Some(seen) = self.seen.get_mut(hash as usize % SEEN) else { return false };
        std::mem::replace(seen, mark) == mark
    }
}

/// What two turns of a packet round a loop have in common: its length and its ends, without the messages around it, of which there is one
/// more each time round a loop through two servers.
fn marked(payload: &[u8]) -> (usize, &[u8], &[u8]) {
    let (payload, _) = innermost(payload);
    let last = payload.get(payload.len().saturating_sub(ENDS)..).unwrap_or(payload);
    (payload.len(), payload.get(..ENDS).unwrap_or(payload), last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::{AttributeType, Class, Encoder, Method, TransactionId};

    fn pair(n: u16) -> (RelayId, PeerAddr) {
        let peer = PeerAddr::new(([9, 9, 9, 9], 1000 + n).into()).unwrap();
        (RelayId { index: u32::from(n), generation: 0 }, peer)
    }

    /// Rounds of `per_round` packets, 200 a second for `secs`; when the first loop is found, in milliseconds.
    fn found(secs: u64, per_round: u32, mut payload: impl FnMut(u64) -> (u16, Vec<u8>)) -> Option<(u64, u16)> {
        let mut watch = LoopWatch::new(1000);
        (1..secs * 200).find_map(|round| {
            let now = round * 5000;
            let (n, payload) = payload(round);
            let (relay, peer) = pair(n);
            for _ in 0..per_round {
                if watch.is_next(now) && watch.look(now, relay, peer, &payload) {
                    return Some((round * 5, n));
                }
            }
            None
        })
    }

    fn text(n: u64) -> Vec<u8> {
        format!("packet {n}, and what is the same in all of them for so long that its end is alike").into_bytes()
    }

    #[test]
    fn what_comes_again_and_again_in_great_number_is_a_loop() {
        assert_eq!(found(60, 10, |_| (1, text(1))), Some((10_005, 1)));
        // Many that go round together, beside others' packets.
        let mixed = |round: u64| if round.is_multiple_of(4) { (2, text(round)) } else { (1, text(round % 500)) };
        let (millis, pair) = found(60, 40, mixed).unwrap();
        assert!(millis < 40_000 && pair == 1, "{millis}");
    }

    #[test]
    fn media_keepalives_and_what_comes_seldom_are_none() {
        assert_eq!(found(120, 100, |round| (1, text(round))), None, "every packet is another");
        assert_eq!(found(120, 4, |_| (1, text(1))), None, "fewer than a thousand a second");
        let half = |round: u64| (1, text(if round.is_multiple_of(2) { 1 } else { round }));
        assert_eq!(found(120, 100, half), None, "half of them is new");
    }

    #[test]
    fn a_packet_that_grows_by_a_header_each_time_round_is_the_same() {
        let mut packet = text(1);
        let grown = |_| {
            let mut next = vec![0x40, 0];
            next.extend_from_slice(&(packet.len() as u16).to_be_bytes());
            next.extend_from_slice(&packet);
            packet = next;
            (1, packet.clone())
        };
        assert!(found(60, 10, grown).is_some());
    }

    #[test]
    fn so_is_one_that_grows_by_an_indication_of_a_server_that_adds_more_behind_it() {
        let mut rounds = 0;
        let mut packet = text(1);
        let grown = |_| {
            rounds += 1;
            // A client who feeds it anew when it has become too long.
            let mut next = if packet.len() > 1200 { text(1) } else { Vec::new() };
            if next.is_empty() {
                let id = TransactionId([rounds as u8; 12]);
                Encoder::new(&mut next, Class::Indication, Method::DATA, id)
                    .xor_address(AttributeType::XOR_PEER_ADDRESS, ([203, 0, 113, 5], 3478).into())
                    .attribute(AttributeType::DATA, &packet)
                    .attribute(AttributeType::SOFTWARE, b"another server")
                    .fingerprint();
            }
            packet = next;
            (1, packet.clone())
        };
        assert!(found(60, 10, grown).is_some());
    }

    #[test]
    fn odd_payloads_are_looked_at_like_others() {
        for payload in [&[][..], &[0x40], &[0x40, 0, 0, 0], &[0x40, 0, 0, 1], &[0x40, 0, 0, 4, 0x40, 0, 0, 0]] {
            let (len, first, last) = marked(payload);
            assert!(len <= payload.len() && first.len() <= ENDS && last.len() <= ENDS);
        }
    }
}
