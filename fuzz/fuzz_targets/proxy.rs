//! Headers of the PROXY protocol: in front of a connection, whole and cut off anywhere, and in front of a datagram.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::proxy::{HEADER_MAX, read_datagram_header, read_stream_header, stream_header};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(header)) = read_stream_header(bytes) {
        assert!(header.len <= bytes.len() && header.len <= HEADER_MAX);
        // What follows does not count, and it was not complete a byte earlier.
        assert_eq!(read_stream_header(&bytes[..header.len]), Ok(Some(header.clone())));
        assert_eq!(read_stream_header(&bytes[..header.len - 1]), Ok(None));
        if let Some(ends) = header.ends {
            let written = stream_header(ends);
            assert_eq!(read_stream_header(&written).unwrap().unwrap().ends, Some(ends));
        }
    }
    if let Ok(header) = read_datagram_header(bytes) {
        assert!(header.len <= bytes.len() && header.len <= HEADER_MAX);
    }
});
