//! Random changes to byte strings, the way coverage-guided fuzzers make them.
//! Shared by the robustness and flood tests and the fuzz targets, none of which uses all of it.
#![allow(dead_code)]

/// SplitMix64: fast, and good enough to choose mutations.
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.fill(&mut out);
        out
    }
}

const INTERESTING_8: &[u8] = &[0, 1, 3, 4, 0x10, 0x20, 0x3F, 0x40, 0x4F, 0x50, 0x7F, 0x80, 0xFE, 0xFF];
const INTERESTING_16: &[u16] =
    &[0, 1, 3, 4, 8, 20, 0x0FFF, 0x1000, 0x3FFF, 0x4000, 0x4FFF, 0x5000, 0x7FFF, 0x8000, 0xFFFC, 0xFFFD, 0xFFFF];

/// Longest input that is made.
const LEN_MAX: usize = 2048;

/// Makes one to four changes; `corpus` is what splices come from.
pub(crate) fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    for _ in 0..=rng.below(4) {
        mutate_once(rng, bytes, corpus);
    }
    bytes.truncate(LEN_MAX);
}

fn mutate_once(rng: &mut Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    if bytes.is_empty() {
        let len = 1 + rng.below(40);
        *bytes = rng.bytes(len);
        return;
    }
    let at = rng.below(bytes.len());
    match rng.below(11) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = *rng.pick(INTERESTING_8),
        2 => bytes[at] = bytes[at].wrapping_add(1 + rng.below(35) as u8),
        3 => bytes[at] = bytes[at].wrapping_sub(1 + rng.below(35) as u8),
        4 => set_u16(bytes, at, |_| *rng.pick(INTERESTING_16)),
        5 => set_u16(bytes, at & !1, |value| value.wrapping_add(rng.below(9) as u16).wrapping_sub(4)),
        6 => bytes.truncate(at),
        7 => {
            let len = 1 + rng.below(24);
            let insert = rng.bytes(len);
            bytes.splice(at..at, insert);
        }
        8 => {
            let end = (at + 1 + rng.below(24)).min(bytes.len());
            bytes.drain(at..end);
        }
        9 => {
            let end = (at + 1 + rng.below(64)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            let to = rng.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        _ => {
            let other = rng.pick(corpus);
            if !other.is_empty() {
                let from = rng.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}

fn set_u16(bytes: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        let value = change(u16::from_be_bytes([field[0], field[1]]));
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Makes the length field of a STUN header true again, so that the change is seen behind the first check.
pub(crate) fn repair_length(bytes: &mut Vec<u8>) {
    if bytes.len() < 20 {
        return;
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes[0] &= 0x3F;
    bytes[4..8].copy_from_slice(&0x2112_A442_u32.to_be_bytes());
}
