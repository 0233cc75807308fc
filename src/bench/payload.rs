//! The payload of a test packet: a stamp that names it, then a pattern that depends on the stamp.

/// Bytes of the stamp, the smallest payload.
pub(super) const STAMP_LEN: usize = 24;
/// The largest payload: 65,535 less IPv4, UDP and ChannelData headers.
pub(super) const MAX_LEN: usize = 65_535 - 20 - 8 - 4;
/// Where in the pattern a body may start.
const STARTS: u64 = 4096;

/// What a test packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Which run it belongs to.
    pub(super) run: u32,
    /// Which flow.
    pub(super) flow: u32,
    /// Its number in the flow, from 0.
    pub(super) sequence: u64,
    /// When it was sent, nanoseconds on the sender's clock.
    pub(super) sent_ns: u64,
}

/// The pseudo-random bytes that bodies are cut from.
pub(super) struct Pattern {
    run: u32,
    bytes: Vec<u8>,
}

impl Pattern {
    /// The pattern of a run.
    pub(super) fn new(run: u32) -> Self {
        let mut state = u64::from(run) | 1 << 40;
        let bytes = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        Self { run, bytes: bytes.take(MAX_LEN + STARTS as usize).collect() }
    }

    /// Appends a payload of `len` bytes, at least [`STAMP_LEN`].
    pub(super) fn write(&self, flow: u32, sequence: u64, sent_ns: u64, len: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.run.to_be_bytes());
        out.extend_from_slice(&flow.to_be_bytes());
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&sent_ns.to_be_bytes());
        out.extend_from_slice(self.body(flow, sequence, len.saturating_sub(STAMP_LEN)));
    }

    /// Reads a payload back; `None` unless it is one of this run, of `len` bytes, and undamaged.
    pub(super) fn check(&self, payload: &[u8], len: usize) -> Option<Stamp> {
        let (&[r0, r1, r2, r3, f0, f1, f2, f3], rest) = payload.split_first_chunk::<8>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (sent_ns, body) = rest.split_first_chunk::<8>()?;
        let stamp = Stamp {
            run: u32::from_be_bytes([r0, r1, r2, r3]),
            flow: u32::from_be_bytes([f0, f1, f2, f3]),
            sequence: u64::from_be_bytes(*sequence),
            sent_ns: u64::from_be_bytes(*sent_ns),
        };
        let intact =
            stamp.run == self.run && payload.len() == len && body == self.body(stamp.flow, stamp.sequence, body.len());
        intact.then_some(stamp)
    }

    fn body(&self, flow: u32, sequence: u64, len: usize) -> &[u8] {
        let start = (sequence.wrapping_mul(7).wrapping_add(u64::from(flow).wrapping_mul(31)) % STARTS) as usize;
        self.bytes.get(start..start + len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_back_and_any_damage_is_seen() {
        let pattern = Pattern::new(99);
        for len in [STAMP_LEN, 25, 160, 1200, MAX_LEN] {
            let mut payload = Vec::new();
            pattern.write(5, 1 << 40, 777, len, &mut payload);
            assert_eq!(payload.len(), len);
            let stamp = Stamp { run: 99, flow: 5, sequence: 1 << 40, sent_ns: 777 };
            assert_eq!(pattern.check(&payload, len), Some(stamp));
            assert_eq!(pattern.check(&payload, len + 1), None);
            assert_eq!(pattern.check(&payload[..len - 1], len), None);
            if let Some(byte) = payload.get_mut(STAMP_LEN) {
                *byte ^= 1;
                assert_eq!(pattern.check(&payload, len), None);
            }
            payload[0] ^= 1;
            assert_eq!(pattern.check(&payload, len), None);
        }
    }

    #[test]
    fn another_packets_body_does_not_pass() {
        let pattern = Pattern::new(1);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        pattern.write(1, 1, 0, 160, &mut a);
        pattern.write(1, 2, 0, 160, &mut b);
        a.truncate(STAMP_LEN);
        a.extend_from_slice(&b[STAMP_LEN..]);
        assert_eq!(pattern.check(&a, 160), None);
    }
}
