//! A byte stream into the framing of TCP and TLS: whole, and byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::turn::framing::first_frame;

fuzz_target!(|stream: &[u8]| {
    for max_len in [64, 2048, usize::MAX] {
        let mut at = 0;
        while let Ok(Some(frame)) = first_frame(&stream[at..], |len| len <= max_len) {
            assert!(frame.len <= max_len && frame.len <= frame.next && frame.next - frame.len < 4);
            assert!(at + frame.next <= stream.len());
            // It was not complete a byte earlier.
            assert_eq!(first_frame(&stream[at..at + frame.next - 1], |len| len <= max_len), Ok(None));
            at += frame.next;
        }
    }
});
