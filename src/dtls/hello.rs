//! The ClientHello and its answer, the HelloVerifyRequest (RFC 6347 sections 4.2.1 and 4.2.2), without a DTLS library and without state:
//! until a client has shown that it receives at its address, it costs less than a STUN Binding request.

use super::record::{Content, Record, records};

/// The header of a handshake message.
const HANDSHAKE_HEADER_LEN: usize = 12;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
const HANDSHAKE: u8 = 22;
/// What the record and the message of a HelloVerifyRequest name, whatever is negotiated later (RFC 6347 section 4.2.1).
const DTLS_1_0: [u8; 2] = [254, 255];

/// Extensions that choose a certificate (RFC 6066 section 3, RFC 5246 section 7.4.1.4.1).
const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
/// The cipher suites that we offer, by the kind of key that the server has to sign with.
const SUITES_OF_RSA: [u16; 5] = [0xC02F, 0xC030, 0xCCA8, 0x009E, 0x009F];
const SUITES_OF_OTHERS: [u16; 3] = [0xC02B, 0xC02C, 0xCCA9];

/// What kind of key a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA.
    Rsa,
    /// ECDSA, of whatever curve.
    Ecdsa,
    /// Ed25519 or Ed448.
    EdDsa,
}

/// A ClientHello that is alone in its datagram, in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// The number of its record.
    pub sequence: u64,
    /// The client's random bytes.
    pub random: [u8; 32],
    /// What proves its address; empty in the first one.
    pub cookie: &'a [u8],
    /// Version, random bytes and session id.
    before_cookie: &'a [u8],
    /// Cipher suites and compression methods.
    suites: &'a [u8],
    /// The extensions, with their length.
    extensions: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// Reads a datagram; `None` if it is anything else, or malformed.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let mut all = records(datagram);
        let Record { content: Content::Handshake, epoch: 0, sequence, fragment } = all.next()?? else { return None };
        all.next().is_none().then_some(())?;
        let (header, body) = fragment.split_first_chunk::<HANDSHAKE_HEADER_LEN>()?;
        let [CLIENT_HELLO, l0, l1, l2, m0, m1, 0, 0, 0, f0, f1, f2] = *header else { return None };
        let is_whole = [l0, l1, l2] == [f0, f1, f2] && u32::from_be_bytes([0, l0, l1, l2]) as usize == body.len();
        is_whole.then_some(())?;

        let (version, mut rest) = body.split_first_chunk::<2>()?;
        (version.first() == Some(&254)).then_some(())?;
        let (random, behind) = rest.split_first_chunk::<32>()?;
        rest = behind;
        let session_id = take_with_length::<1>(&mut rest)?;
        (session_id.len() <= 33).then_some(())?;
        let before_cookie = body.get(..body.len() - rest.len())?;
        let cookie = take_with_length::<1>(&mut rest)?.get(1..)?;
        let from_suites = rest;
        let suites = take_with_length::<2>(&mut rest)?.len() - 2;
        (suites >= 2 && suites % 2 == 0).then_some(())?;
        (take_with_length::<1>(&mut rest)?.len() >= 2).then_some(())?;
        let suites = from_suites.get(..from_suites.len() - rest.len())?;
        let extensions = rest;
        if !rest.is_empty() {
            take_with_length::<2>(&mut rest)?;
            rest.is_empty().then_some(())?;
        }
        // The first is message 0, the one with the cookie message 1.
        (u16::from_be_bytes([m0, m1]) == u16::from(!cookie.is_empty())).then_some(())?;
        // One with a cookie has another record before it.
        (cookie.is_empty() || sequence > 0).then_some(())?;
        Some(Self { sequence, random: *random, cookie, before_cookie, suites, extensions })
    }

    /// What the client has to ask for again with the cookie (RFC 6347 section 4.2.1).
    pub fn parameters(&self) -> [&'a [u8]; 2] {
        [self.before_cookie, self.suites]
    }

    /// The name of the server that it asks for.
    pub fn server_name(&self) -> Option<&'a str> {
        let mut names = self.extension(SERVER_NAME)?.get(2..)?;
        while let Some((kind, mut rest)) = names.split_first() {
            let name = take_with_length::<2>(&mut rest)?.get(2..)?;
            if *kind == 0 {
                return std::str::from_utf8(name).ok();
            }
            names = rest;
        }
        None
    }

    /// Whether the client takes a certificate for a kind of key: by its cipher suites, and by the signatures that it says it can verify.
    pub fn takes(&self, kind: KeyKind) -> bool {
        let suites: &[u16] = if kind == KeyKind::Rsa { &SUITES_OF_RSA } else { &SUITES_OF_OTHERS };
        let list = self.suites.get(2..).unwrap_or_default();
        let list = self.suites.first_chunk::<2>().and_then(|len| list.get(..usize::from(u16::from_be_bytes(*len))));
        let has_suite = pairs(list.unwrap_or_default()).any(|suite| suites.contains(&suite));
        // SHA-1 is not signed with any more.
        let is_of_kind = |scheme: u16| {
            matches!(
                (kind, scheme.to_be_bytes()),
                (KeyKind::Rsa, [4..=6, 1] | [8, 4..=6]) | (KeyKind::Ecdsa, [4..=6, 3]) | (KeyKind::EdDsa, [8, 7 | 8])
            )
        };
        let named = self.extension(SIGNATURE_ALGORITHMS).and_then(|list| list.get(2..));
        has_suite && named.is_none_or(|schemes| pairs(schemes).any(is_of_kind))
    }

    /// What an extension says.
    fn extension(&self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.extensions.get(2..)?;
        while let Some((kind, behind)) = rest.split_first_chunk::<2>() {
            rest = behind;
            let value = take_with_length::<2>(&mut rest)?.get(2..)?;
            if u16::from_be_bytes(*kind) == wanted {
                return Some(value);
            }
        }
        None
    }

    /// Appends the datagram that asks the client to come again with a cookie. It has the number of the hello's record.
    pub fn verify_request(&self, cookie: &[u8], out: &mut Vec<u8>) {
        let body_len = 3 + cookie.len();
        push_headers(out, HELLO_VERIFY_REQUEST, self.sequence, body_len);
        out.extend(DTLS_1_0);
        out.push(cookie.len() as u8);
        out.extend_from_slice(cookie);
    }

    /// The datagram that refuses it: there is no certificate for the name yet (RFC 8446 section 6.2, access_denied).
    pub fn denied(&self) -> [u8; 15] {
        const ALERT: u8 = 21;
        const FATAL: u8 = 2;
        const ACCESS_DENIED: u8 = 49;
        let [_, _, s0, s1, s2, s3, s4, s5] = self.sequence.to_be_bytes();
        let [major, minor] = DTLS_1_0;
        [ALERT, major, minor, 0, 0, s0, s1, s2, s3, s4, s5, 0, 2, FATAL, ACCESS_DENIED]
    }

    /// The datagram of the hello that came before this one, which has brought the cookie.
    pub fn without_cookie(&self) -> Vec<u8> {
        let body_len = self.before_cookie.len() + 1 + self.suites.len() + self.extensions.len();
        let mut out = Vec::with_capacity(25 + body_len);
        push_headers(&mut out, CLIENT_HELLO, self.sequence.saturating_sub(1), body_len);
        out.extend_from_slice(self.before_cookie);
        out.push(0);
        out.extend_from_slice(self.suites);
        out.extend_from_slice(self.extensions);
        out
    }
}

/// The headers of a record and of message 0 in one piece.
fn push_headers(out: &mut Vec<u8>, message: u8, sequence: u64, body_len: usize) {
    let [_, _, sequence @ ..] = sequence.to_be_bytes();
    let [_, len @ ..] = (body_len as u32).to_be_bytes();
    out.push(HANDSHAKE);
    out.extend(DTLS_1_0);
    out.extend([0, 0]);
    out.extend(sequence);
    out.extend(((HANDSHAKE_HEADER_LEN + body_len) as u16).to_be_bytes());
    out.push(message);
    out.extend(len);
    out.extend([0; 5]);
    out.extend(len);
}

/// A list of numbers of two bytes.
fn pairs(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)))
}

/// Takes a field and the `N` bytes of length in front of it.
fn take_with_length<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = rest.first_chunk::<N>()?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    let (field, behind) = rest.split_at_checked(N + len)?;
    *rest = behind;
    Some(field)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A hello such as OpenSSL's, with a cookie or without.
    pub(crate) fn hello(sequence: u8, cookie: &[u8], random: u8) -> Vec<u8> {
        let message = u8::from(!cookie.is_empty());
        let extensions = [&[0, 20, 0, 0, 0, 16, 0, 14, 0, 0, 11][..], b"example.org"].concat();
        let extensions = &extensions[..22];
        let body = [
            &[254, 253],
            &[random; 32][..],
            &[0, cookie.len() as u8],
            cookie,
            &[0, 4, 0xC0, 0x2F, 0xC0, 0x2B, 1, 0],
            extensions,
        ]
        .concat();
        let len = body.len() as u8;
        let headers = [22, 254, 255, 0, 0, 0, 0, 0, 0, 0, sequence, 0, 12 + len];
        [&headers[..], &[1, 0, 0, len, 0, message, 0, 0, 0, 0, 0, len], &body].concat()
    }

    #[test]
    fn a_hello_is_answered_by_less_than_it_is_itself_and_with_its_own_number() {
        let first = hello(5, &[], 7);
        let parsed = ClientHello::parse(&first).unwrap();
        assert_eq!((parsed.sequence, parsed.random, parsed.cookie), (5, [7; 32], &[][..]));
        let mut answer = Vec::new();
        parsed.verify_request(&[9; 12], &mut answer);
        assert_eq!(answer.len(), 40);
        let shortest = first.len() - 22;
        assert!(answer.len() < shortest, "{shortest}");
        let record = records(&answer).next().unwrap().unwrap();
        assert_eq!((record.content, record.epoch, record.sequence), (Content::Handshake, 0, 5));
        assert_eq!(record.fragment, [&[3, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 15, 254, 255, 12][..], &[9; 12]].concat());
    }

    #[test]
    fn the_second_hello_leads_back_to_the_first() {
        let second = hello(1, &[9; 12], 7);
        let second = ClientHello::parse(&second).unwrap();
        assert_eq!(second.cookie, [9; 12]);
        let first = second.without_cookie();
        assert_eq!(first, hello(0, &[], 7));
        assert_eq!(ClientHello::parse(&first).unwrap().parameters(), second.parameters());
    }

    /// A hello with these cipher suites and extensions.
    fn hello_with(suites: &[u16], extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let list = |numbers: &[u16]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, value)| [&list(&[*kind, value.len() as u16])[..], value].concat())
            .collect();
        let body = [
            &[254, 253][..],
            &[7; 32],
            &[0, 0],
            &list(&[suites.len() as u16 * 2]),
            &list(suites),
            &[1, 0],
            &list(&[extensions.len() as u16]),
            &extensions,
        ]
        .concat();
        let mut out = Vec::new();
        push_headers(&mut out, CLIENT_HELLO, 0, body.len());
        out.extend(body);
        out
    }

    #[test]
    fn the_name_and_the_kinds_of_key_that_a_client_takes_are_read() {
        let read = |suites: &[u16], extensions: &[(u16, &[u8])]| {
            let hello = hello_with(suites, extensions);
            let hello = ClientHello::parse(&hello).unwrap();
            let taken = [KeyKind::Rsa, KeyKind::Ecdsa, KeyKind::EdDsa].map(|kind| hello.takes(kind));
            (hello.server_name().map(ToOwned::to_owned), taken)
        };
        let name = [&[0, 14, 0, 0, 11][..], b"example.org"].concat();
        assert_eq!(
            read(&[0xC02F, 0xC02B], &[(10, &[0, 2, 0, 23]), (0, &name), (13, &[0, 4, 4, 1, 4, 3])]),
            (Some("example.org".to_owned()), [true, true, false])
        );
        // Whoever names no signatures is taken at its suites.
        assert_eq!(read(&[0xC02F], &[]), (None, [true, false, false]));
        assert_eq!(read(&[0xC030, 0xC02C], &[(13, &[0, 2, 8, 7])]), (None, [false, false, true]));
        assert_eq!(read(&[0xC02F, 0xC02B], &[(13, &[0, 4, 2, 1, 2, 3])]), (None, [false; 3]), "SHA-1");
        assert_eq!(read(&[0x002F], &[]), (None, [false; 3]), "none that we offer");
        // Names of other kinds, and what is cut off.
        let other = [&[0, 9, 7, 0, 1, 1, 0, 0, 2][..], b"ab"].concat();
        assert_eq!(read(&[0xC02F], &[(0, &other)]).0, Some("ab".to_owned()));
        for broken in [&[][..], &[0], &[0, 9, 0], &[0, 9, 0, 0, 9, 1], &[0, 3, 0, 0, 1, 0xFF]] {
            assert_eq!(read(&[0xC02F], &[(0, broken)]).0, None, "{broken:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_changed_in_its_lengths_is_no_hello() {
        let whole = hello(1, &[9; 12], 7);
        for len in 0..whole.len() {
            assert_eq!(ClientHello::parse(&whole[..len]), None, "{len} bytes");
        }
        assert_eq!(ClientHello::parse(&[&whole[..], &[0]].concat()), None);
        // Type, version, epoch, lengths, message number, fragment offset: any bit of them makes it something else.
        for place in [0, 1, 3, 4, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 59, 60, 73, 74] {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[place] ^= 1 << bit;
                assert_eq!(ClientHello::parse(&changed), None, "byte {place}, bit {bit}");
            }
        }
        assert_eq!(ClientHello::parse(&hello(0, &[9; 12], 7)), None, "a cookie in the very first record");
    }
}
