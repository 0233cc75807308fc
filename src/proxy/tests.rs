//! Headers that are read, and those that are refused.

use super::*;

const V2: &[u8] = binary::SIGNATURE;

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &len, rest].concat()
}

fn ends(client: &str, server: &str) -> Option<Ends> {
    Some(Ends { client: client.parse().unwrap(), server: server.parse().unwrap() })
}

/// The addresses of version 2, from 192.0.2.1:1000 to 203.0.113.5:443.
const V4_ENDS: &[u8] = &[192, 0, 2, 1, 203, 0, 113, 5, 3, 232, 1, 187];

fn whole(bytes: &[u8]) -> Result<Option<Ends>, HeaderError> {
    let header = read_stream_header(bytes)?.expect("it is complete");
    assert_eq!(header.len, bytes.len());
    Ok(header.ends)
}

#[test]
fn lines_of_version_1_name_both_ends() {
    let line = b"PROXY TCP4 192.0.2.1 203.0.113.5 1000 443\r\n";
    assert_eq!(whole(line), Ok(ends("192.0.2.1:1000", "203.0.113.5:443")));
    let line = b"PROXY TCP6 2001:db8::1 2001:db8::5 65535 0\r\n";
    assert_eq!(whole(line), Ok(ends("[2001:db8::1]:65535", "[2001:db8::5]:0")));
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 rubbish\0 1 2 3\r\n"] {
        assert_eq!(whole(line.as_bytes()), Ok(None), "{line}");
    }
    let longest = [b"PROXY UNKNOWN ".as_slice(), &[b'f'; 91], b"\r\n"].concat();
    assert_eq!((longest.len(), whole(&longest)), (107, Ok(None)));
}

#[test]
fn what_a_line_may_not_be_is_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 203.0.113.5 1000 443\n",
        "PROXY TCP4 192.0.2.1 203.0.113.5 1000 443\r\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.5 1000 443 \r\n",
        "PROXY TCP4 192.0.2.1  203.0.113.5 1000 443\r\n",
        "PROXY TCP4 192.0.2.1\t203.0.113.5 1000 443\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.5 1000\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.5 +1000 443\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.5 01000 443\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.5 65536 443\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.5 1000 443 1\r\n",
        "PROXY TCP4 192.0.2.01 203.0.113.5 1000 443\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::5 1000 443\r\n",
        "PROXY TCP6 192.0.2.1 203.0.113.5 1000 443\r\n",
        "PROXY TCP6 2001:db8::1%eth0 2001:db8::5 1000 443\r\n",
    ] {
        let error = read_stream_header(line.as_bytes());
        assert!(matches!(error, Err(HeaderError::Malformed(_))), "{line:?}: {error:?}");
    }
    for line in ["PROXY UDP4 192.0.2.1 203.0.113.5 1000 443\r\n", "PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n", "PROXY \r\n"] {
        assert!(matches!(read_stream_header(line.as_bytes()), Err(HeaderError::Unsupported(_))), "{line:?}");
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'f'; 92], b"\r\n"].concat();
    assert_eq!(read_stream_header(&endless), Err(HeaderError::TooLong));
    assert_eq!(read_stream_header(&endless[..106]), Ok(None));
    assert_eq!(read_stream_header(&endless[..107]), Err(HeaderError::TooLong));
}

#[test]
fn version_2_names_both_ends_of_a_connection_or_of_a_datagram() {
    assert_eq!(whole(&v2(0x21, 0x11, V4_ENDS)), Ok(ends("192.0.2.1:1000", "203.0.113.5:443")));
    let v6 =
        [&[0x20, 1, 0xD, 0xB8], [0; 11].as_slice(), &[1], &[0x20, 1, 0xD, 0xB8], &[0; 11], &[5], &[3, 232, 1, 187]];
    assert_eq!(whole(&v2(0x21, 0x21, &v6.concat())), Ok(ends("[2001:db8::1]:1000", "[2001:db8::5]:443")));
    let datagram = [v2(0x21, 0x12, V4_ENDS), b"payload".to_vec()].concat();
    let header = Header { len: 28, ends: ends("192.0.2.1:1000", "203.0.113.5:443"), server_name: None };
    assert_eq!(read_datagram_header(&datagram), Ok(header));
    assert!(matches!(read_stream_header(&datagram), Err(HeaderError::Unsupported(_))));
    assert!(matches!(read_datagram_header(&v2(0x21, 0x11, V4_ENDS)), Err(HeaderError::Unsupported(_))));
}

#[test]
fn a_proxy_that_speaks_for_itself_names_nobody() {
    for bytes in [v2(0x20, 0, b""), v2(0x20, 0x11, V4_ENDS), v2(0x21, 0, b"whatever"), v2(0x20, 0xFF, &[7; 300])] {
        assert_eq!(whole(&bytes), Ok(None));
        assert_eq!(read_datagram_header(&bytes), Ok(Header { len: bytes.len(), ends: None, server_name: None }));
    }
}

#[test]
fn what_version_2_may_not_be_is_refused() {
    let unix = [0; 216];
    for bytes in [
        v2(0x11, 0x11, V4_ENDS),
        v2(0x31, 0x11, V4_ENDS),
        v2(0x22, 0x11, V4_ENDS),
        v2(0x21, 0x12, V4_ENDS),
        v2(0x21, 0x10, V4_ENDS),
        v2(0x21, 0x13, V4_ENDS),
        v2(0x21, 0x31, &unix),
        v2(0x21, 0x41, V4_ENDS),
    ] {
        assert!(matches!(read_stream_header(&bytes), Err(HeaderError::Unsupported(_))), "{bytes:?}");
    }
    for bytes in [v2(0x21, 0x11, &V4_ENDS[..11]), v2(0x21, 0x21, V4_ENDS), v2(0x21, 0x11, b"")] {
        assert!(matches!(read_stream_header(&bytes), Err(HeaderError::Malformed(_))), "{bytes:?}");
    }
    let with = |more: &[u8]| read_stream_header(&v2(0x21, 0x11, &[V4_ENDS, more].concat()));
    for more in [[4].as_slice(), &[4, 0], &[4, 0, 1], &[4, 0, 0, 4], &[3, 0, 3, 0, 0, 0]] {
        assert!(matches!(with(more), Err(HeaderError::Malformed(_))), "{more:?}");
    }
    assert_eq!(with(&[4; 4100]), Err(HeaderError::TooLong), "before it has come as a whole");
    assert_eq!(read_stream_header(&[V2, &[0x21, 0x11, 0x10, 0]].concat()), Err(HeaderError::TooLong));
}

#[test]
fn what_follows_the_addresses_is_skipped_and_a_checksum_checked() {
    let with = |more: &[u8]| v2(0x21, 0x11, &[V4_ENDS, more].concat());
    let there = Ok(ends("192.0.2.1:1000", "203.0.113.5:443"));
    assert_eq!(whole(&with(&[4, 0, 2, 9, 9, 0xE0, 0, 0])), there);
    let mut bytes = with(&[4, 0, 1, 0, 3, 0, 4, 0, 0, 0, 0]);
    let mut crc = crc32c::Crc32c::default();
    crc.add(&bytes);
    let value = crc.value().to_be_bytes();
    bytes.truncate(bytes.len() - 4);
    bytes.extend_from_slice(&value);
    assert_eq!(whole(&bytes), there);
    bytes[16] ^= 1;
    assert_eq!(read_stream_header(&bytes), Err(HeaderError::Checksum));
    let twice = with(&[3, 0, 4, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 0]);
    assert!(matches!(read_stream_header(&twice), Err(HeaderError::Malformed(_))));
}

#[test]
fn what_is_written_is_read() {
    for (client, server) in [("192.0.2.1:1", "203.0.113.5:443"), ("[2001:db8::1]:65535", "[2001:db8::5]:443")] {
        let ends = ends(client, server);
        assert_eq!(whole(&stream_header(ends.unwrap())), Ok(ends));
    }
    let mixed = stream_header(ends("192.0.2.1:1", "[2001:db8::5]:443").unwrap());
    assert_eq!(whole(&mixed), Ok(ends("192.0.2.1:1", "[2001:db8::5]:443")));
}

#[test]
fn a_header_that_is_cut_off_is_waited_for_and_what_is_none_known_at_once() {
    let line = b"PROXY TCP4 192.0.2.1 203.0.113.5 1000 443\r\n".to_vec();
    for bytes in [line, v2(0x21, 0x11, V4_ENDS), v2(0x20, 0, b"")] {
        for len in 0..bytes.len() {
            assert_eq!(read_stream_header(&bytes[..len]), Ok(None), "{len} of {bytes:?}");
            if bytes[0] == b'\r' {
                assert!(read_datagram_header(&bytes[..len]).is_err(), "{len}");
            }
        }
        let followed = [bytes.as_slice(), b"more"].concat();
        assert_eq!(read_stream_header(&followed).unwrap().unwrap().len, bytes.len());
    }
    for bytes in [b"G".as_slice(), b"\x16\x03\x01", b"\0\x01\0\0", b"PROXX", b"\r\n\r\n\0\r\nQUIX", b"PROXYT"] {
        assert_eq!(read_stream_header(bytes), Err(HeaderError::Missing), "{bytes:?}");
        assert_eq!(read_datagram_header(bytes), Err(HeaderError::Missing), "{bytes:?}");
    }
    assert_eq!(read_datagram_header(b""), Err(HeaderError::Missing));
}

#[test]
fn mapped_addresses_are_those_of_ipv4() {
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:203.0.113.5 1000 443\r\n";
    assert_eq!(whole(mapped), Ok(ends("192.0.2.1:1000", "203.0.113.5:443")));
    let ip = |last: u8| [&[0; 10][..], &[0xFF, 0xFF, 192, 0, 2, last]].concat();
    let both = [ip(1), ip(5), vec![3, 232, 1, 187]].concat();
    assert_eq!(whole(&v2(0x21, 0x21, &both)), Ok(ends("192.0.2.1:1000", "192.0.2.5:443")));
}

#[test]
fn the_server_name_that_a_client_has_asked_its_proxy_for_is_known() {
    let with = |more: &[u8]| {
        let header = read_stream_header(&v2(0x21, 0x11, &[V4_ENDS, more].concat())).unwrap().unwrap();
        header.server_name
    };
    let name = |name: &[u8]| [&[2, 0, name.len() as u8], name].concat();
    assert_eq!(with(&name(b"turn.b.example")).as_deref(), Some("turn.b.example"));
    let behind_others = [&[4, 0, 1, 0][..], &name(b"one"), &name(b"two")].concat();
    assert_eq!(with(&behind_others).as_deref(), Some("one"));
    for none in [name(b""), name(&[0xFF, 0xFE]), [&[2, 1, 0][..], &[b'a'; 256]].concat(), Vec::new()] {
        assert_eq!(with(&none), None, "{none:?}");
    }
    let of_its_own = v2(0x20, 0x11, &[V4_ENDS, &name(b"turn.b.example")].concat());
    assert_eq!(read_stream_header(&of_its_own).unwrap().unwrap().server_name, None);
}
