//! The records of a datagram (RFC 6347 section 4.1), as far as they can be read without keys, and which of them a handshake may be given.

/// The header of a record.
const HEADER_LEN: usize = 13;
/// The header of a handshake message, or of a fragment of one (RFC 6347 section 4.2.2).
const HANDSHAKE_HEADER_LEN: usize = 12;
/// The longest handshake message of a client: no ClientHello or key exchange is longer, and no certificate is asked for.
const HANDSHAKE_MESSAGE_MAX: usize = 4096;
/// Records in one datagram: a client's last flight has three.
const RECORDS_MAX: usize = 16;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The switch to the keys that were agreed on.
    ChangeCipherSpec,
    /// An alert.
    Alert,
    /// A handshake message, or a part of one.
    Handshake,
    /// What a message of STUN or TURN is in.
    ApplicationData,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it carries.
    pub content: Content,
    /// Under which keys: 0 for none.
    pub epoch: u16,
    /// Its number within the epoch.
    pub sequence: u64,
    /// What it carries, encrypted unless the epoch is 0.
    pub fragment: &'a [u8],
}

/// What the records of a datagram are for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Messages, and how the session ends: for one that is open.
    Traffic,
    /// A handshake without keys: for one that arrives.
    Handshake,
    /// The end of a handshake, under its keys.
    Finish,
}

/// Whether the first byte of a datagram says that it is DTLS (RFC 7983 section 7).
#[inline]
pub fn is_dtls(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(20..=63))
}

/// The records of a datagram; `None` behind one that is malformed.
pub fn records(datagram: &[u8]) -> impl Iterator<Item = Option<Record<'_>>> {
    let mut rest = datagram;
    let mut failed = false;
    std::iter::from_fn(move || {
        if rest.is_empty() || failed {
            return None;
        }
        let record = first_record(&mut rest);
        failed = record.is_none();
        Some(record)
    })
}

/// What a datagram is for; `None` if it is malformed, or if what a handshake would keep of it is more than any client needs.
///
/// OpenSSL keeps what comes too early: up to ten handshake messages of up to 100 kB each, and up to a hundred records of the next epoch
/// in buffers of 16 kB. None of it is authenticated.
pub fn purpose(datagram: &[u8]) -> Option<Purpose> {
    let mut purpose = None;
    for (count, record) in records(datagram).enumerate() {
        let record = record.filter(|_| count < RECORDS_MAX)?;
        let this = match (record.content, record.epoch) {
            (Content::Handshake, 0) => has_short_messages(record.fragment).then_some(Purpose::Handshake)?,
            (Content::ChangeCipherSpec | Content::Alert, 0) => Purpose::Handshake,
            // Application data without keys: nobody sends that.
            (Content::ApplicationData, 0) => return None,
            (Content::Handshake | Content::ChangeCipherSpec, _) => Purpose::Finish,
            (Content::ApplicationData | Content::Alert, _) => Purpose::Traffic,
        };
        // A client's last flight has both parts of the handshake in it.
        purpose = match (purpose, this) {
            (Some(Purpose::Handshake), Purpose::Finish) => Some(Purpose::Handshake),
            (Some(before), this) if before != this => return None,
            (_, this) => Some(this),
        };
    }
    purpose
}

/// How many records are under keys.
pub fn count_sealed(datagram: &[u8]) -> usize {
    records(datagram).flatten().filter(|record| record.epoch > 0).count()
}

/// Adds `offset` to the numbers of all records without keys: nothing else covers those.
pub fn shift_sequence(datagram: &mut [u8], offset: u64) {
    let mut rest = datagram;
    while let Some((header, behind)) = rest.split_first_chunk_mut::<HEADER_LEN>() {
        let [_, _, _, e0, e1, s0, s1, s2, s3, s4, s5, l0, l1] = header;
        if (*e0, *e1) == (0, 0) {
            let sequence = u64::from_be_bytes([0, 0, *s0, *s1, *s2, *s3, *s4, *s5]).wrapping_add(offset);
            [_, _, *s0, *s1, *s2, *s3, *s4, *s5] = sequence.to_be_bytes();
        }
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let Some((_, next)) = behind.split_at_mut_checked(len) else { return };
        rest = next;
    }
}

fn first_record<'a>(rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let (header, behind) = rest.split_first_chunk::<HEADER_LEN>()?;
    let [content, major, _, e0, e1, s0, s1, s2, s3, s4, s5, l0, l1] = *header;
    let content = match content {
        20 => Content::ChangeCipherSpec,
        21 => Content::Alert,
        22 => Content::Handshake,
        23 => Content::ApplicationData,
        _ => return None,
    };
    // Versions count downwards: 254.255 is DTLS 1.0, 254.253 is 1.2.
    (major == 254).then_some(())?;
    let (fragment, next) = behind.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
    *rest = next;
    let sequence = u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]);
    Some(Record { content, epoch: u16::from_be_bytes([e0, e1]), sequence, fragment })
}

fn has_short_messages(mut fragment: &[u8]) -> bool {
    while let Some((header, behind)) = fragment.split_first_chunk::<HANDSHAKE_HEADER_LEN>() {
        let [_, l0, l1, l2, _, _, _, _, _, f0, f1, f2] = *header;
        let [len, fragment_len] = [[0, l0, l1, l2], [0, f0, f1, f2]].map(|len| u32::from_be_bytes(len) as usize);
        if len > HANDSHAKE_MESSAGE_MAX {
            return false;
        }
        let Some((_, next)) = behind.split_at_checked(fragment_len) else { return false };
        fragment = next;
    }
    fragment.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: u8, epoch: u16, fragment: &[u8]) -> Vec<u8> {
        let [e0, e1] = epoch.to_be_bytes();
        let [l0, l1] = (fragment.len() as u16).to_be_bytes();
        [&[content, 254, 253, e0, e1, 0, 0, 0, 0, 0, 7, l0, l1], fragment].concat()
    }

    fn message(kind: u8, len: u32, body: &[u8]) -> Vec<u8> {
        let [_, l0, l1, l2] = len.to_be_bytes();
        [&[kind, l0, l1, l2, 0, 2, 0, 0, 0, 0, 0, body.len() as u8], body].concat()
    }

    #[test]
    fn a_datagram_is_for_what_its_records_are_for() {
        let flight = [record(22, 0, &message(16, 3, b"key")), record(20, 0, &[1]), record(22, 1, b"sealed")].concat();
        assert_eq!(purpose(&flight), Some(Purpose::Handshake));
        assert_eq!(count_sealed(&flight), 1);
        assert_eq!(purpose(&record(22, 1, b"sealed")), Some(Purpose::Finish));
        assert_eq!(purpose(&record(23, 1, b"sealed")), Some(Purpose::Traffic));
        assert_eq!(purpose(&record(21, 1, b"sealed")), Some(Purpose::Traffic));
        assert_eq!(purpose(&record(21, 0, &[2, 40])), Some(Purpose::Handshake));
        let mixed = [record(23, 1, b"sealed"), record(22, 0, &message(16, 3, b"key"))].concat();
        assert_eq!(purpose(&mixed), None);
    }

    #[test]
    fn what_would_be_kept_for_long_or_is_malformed_is_refused() {
        let fine = record(22, 0, &message(16, 4096, b"key"));
        assert_eq!(purpose(&fine), Some(Purpose::Handshake));
        for refused in [
            record(22, 0, &message(11, 4097, b"certificate")),
            record(22, 0, &message(16, 3, b"key")[..14]),
            record(22, 0, &[message(16, 3, b"key"), vec![1]].concat()),
            record(23, 0, b"data"),
            record(24, 0, b"heartbeat"),
            record(22, 1, b"sealed")[..18].to_vec(),
            [&fine[..], b"x"].concat(),
            [22, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec(),
            record(21, 1, b"alert").repeat(17),
            Vec::new(),
        ] {
            assert_eq!(purpose(&refused), None, "{refused:?}");
        }
    }

    #[test]
    fn numbers_of_records_without_keys_are_shifted_and_no_others() {
        let mut flight = [record(22, 0, b"hello"), record(22, 1, b"sealed"), record(20, 0, b"")].concat();
        shift_sequence(&mut flight, 3);
        let numbers: Vec<u64> = records(&flight).map(|record| record.unwrap().sequence).collect();
        assert_eq!(numbers, [10, 7, 10]);
        // What is cut off stays as it is.
        let mut cut = record(22, 0, b"hello")[..15].to_vec();
        shift_sequence(&mut cut, 1);
        assert!(records(&cut).all(|record| record.is_none()));
    }
}
