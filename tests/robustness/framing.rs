//! Mutated byte streams into the framing of TCP and TLS, whole and in pieces.

use turnstone::turn::framing::{Frame, FramingError, first_frame};

use crate::mutate::{Rng, mutate};
use crate::world;

/// Every frame of a stream that is there at once.
fn frames_of(stream: &[u8], max_len: usize) -> (Vec<(usize, Frame)>, Option<FramingError>) {
    let (mut frames, mut at) = (Vec::new(), 0);
    loop {
        match first_frame(&stream[at..], |len| len <= max_len) {
            Ok(Some(frame)) => {
                assert!(frame.len <= max_len && frame.len >= 4, "{frame:?}");
                assert!(frame.next >= frame.len && frame.next - frame.len < 4, "{frame:?}");
                assert!(at + frame.next <= stream.len(), "{frame:?} reaches past the end");
                frames.push((at, frame));
                at += frame.next;
            }
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// The same with bytes that arrive in pieces.
fn frames_in_pieces(stream: &[u8], max_len: usize, rng: &mut Rng) -> (Vec<(usize, Frame)>, Option<FramingError>) {
    let (mut frames, mut at, mut arrived) = (Vec::new(), 0, 0);
    while arrived < stream.len() {
        arrived = (arrived + 1 + rng.below(40)).min(stream.len());
        loop {
            match first_frame(&stream[at..arrived], |len| len <= max_len) {
                Ok(Some(frame)) => {
                    frames.push((at, frame));
                    at += frame.next;
                }
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

#[test]
fn no_mutated_stream_upsets_the_framing_and_pieces_make_no_difference() {
    let mut rng = Rng(crate::seed() ^ 3);
    let corpus = world::corpus();
    let mut stream = Vec::new();
    let (mut whole, mut refused) = (0, 0);
    for _ in 0..crate::inputs(8) {
        stream.clear();
        for _ in 0..rng.below(4) {
            let message: &Vec<u8> = rng.pick(&corpus);
            stream.extend_from_slice(message);
        }
        if !rng.chance(4) {
            mutate(&mut rng, &mut stream, &corpus);
        }
        let max_len = *rng.pick(&[64, 2048, usize::MAX]);
        let (frames, error) = frames_of(&stream, max_len);
        let (in_pieces, error_in_pieces) = frames_in_pieces(&stream, max_len, &mut rng);
        assert_eq!(in_pieces, frames, "{stream:02x?}");
        // Which of two faults is seen first depends on how much has arrived.
        assert_eq!(error_in_pieces.is_some(), error.is_some(), "{stream:02x?}");
        whole += frames.len();
        refused += usize::from(error.is_some());
    }
    assert!(whole > 0 && refused > 0, "{whole} frames, {refused} refusals");
}
