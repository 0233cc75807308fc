//! STUN messages and ChannelData on a byte stream (RFC 8489 section 6.2.2, RFC 8656 section 12.5).

use thiserror::Error;
use turnstone_stun::message_len;

use super::message_kind::{ChannelData, MessageKind};

/// The longest frame accepted on a connection without an allocation, in bytes: requests are short, and what is buffered
/// for strangers stays small.
pub const MAX_UNALLOCATED_FRAME: usize = 2048;

/// The first frame of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: MessageKind,
    /// Its length without padding.
    pub len: usize,
    /// Where the next frame begins.
    pub next: usize,
}

/// The stream is not STUN or TURN; the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FramingError {
    /// The first byte, the magic cookie or the length is not that of a STUN message or ChannelData.
    #[error("neither STUN nor ChannelData")]
    NotTurn,
    /// The frame is longer than allowed here.
    #[error("longer than allowed")]
    TooLong,
}

/// Reads the first frame of `bytes`, which a client's connection has brought; `None` when it is not complete yet. `is_allowed` is asked whether there may be a frame of some
/// length here.
///
/// ```
/// use turnstone_turn::framing::{MAX_UNALLOCATED_FRAME, first_frame};
/// use turnstone_turn::{Client, Outcome, Relays, Server, clock::Now};
///
/// /// Handles what is complete of `received`, and leaves the rest.
/// fn on_bytes(
///     (server, relays): (&mut Server, &mut impl Relays),
///     (now, client): (Now, &Client),
///     received: &mut Vec<u8>,
///     reply: &mut Vec<u8>,
///     mut to_peer: impl FnMut(turnstone_turn::ToPeer, &[u8]),
/// ) -> Result<(), turnstone_turn::framing::FramingError> {
///     let has_allocation = |server: &Server| server.has_allocation(&client.five_tuple);
///     while let Some(frame) = first_frame(received, |len| len <= MAX_UNALLOCATED_FRAME || has_allocation(server))? {
///         let message = &received[..frame.len];
///         match server.handle(now, client, (frame.kind, message), relays, reply) {
///             Outcome::ToPeer(to, payload) => to_peer(to, &message[payload]),
///             // `reply` has one more answer, or none. TCP relays, which `Binds` belongs to, are not offered by default.
///             Outcome::Reply | Outcome::Detour(_) | Outcome::Waits => {}
///             Outcome::Binds(_) | Outcome::Elsewhere(_) | Outcome::Dropped(_) => {}
///         }
///         received.drain(..frame.next);
///     }
///     Ok(())
/// }
/// ```
///
/// # Errors
/// [`FramingError`] as soon as the bytes that are there cannot begin a frame that is allowed.
#[inline]
pub fn first_frame(bytes: &[u8], is_allowed: impl FnOnce(usize) -> bool) -> Result<Option<Frame>, FramingError> {
    let Some((kind, len)) = first_header(bytes)? else { return Ok(None) };
    if !is_allowed(len) {
        return Err(FramingError::TooLong);
    }
    let next = len.next_multiple_of(4);
    Ok((next <= bytes.len()).then_some(Frame { kind, len, next }))
}

/// What the first frame is, and its length without padding.
#[inline]
fn first_header(bytes: &[u8]) -> Result<Option<(MessageKind, usize)>, FramingError> {
    let Some(first) = bytes.first() else { return Ok(None) };
    match first >> 6 {
        0 => {
            let len = message_len(bytes).map_err(|_| FramingError::NotTurn)?;
            Ok(len.map(|len| (MessageKind::Stun, len)))
        }
        1 => {
            let message = bytes.first_chunk().copied().and_then(ChannelData::from_header);
            Ok(message.map(|message| (MessageKind::ChannelData(message), message.payload().end)))
        }
        _ => Err(FramingError::NotTurn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: fn(usize) -> bool = |_| true;

    #[test]
    fn frames_are_cut_where_they_end_and_padding_is_skipped() {
        let channel_data = [0x40, 0x00, 0x00, 0x05, 1, 2, 3, 4, 5, 9, 9, 9, 0x40];
        let kind = MessageKind::ChannelData(ChannelData::from_header([0x40, 0x00, 0x00, 0x05]).unwrap());
        let frame = Frame { kind, len: 9, next: 12 };
        assert_eq!(first_frame(&channel_data, ANY), Ok(Some(frame)));
        assert_eq!(first_frame(&channel_data[..11], ANY), Ok(None));
        let mut binding = vec![0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xA4, 0x42];
        binding.extend([0; 12]);
        let frame = Frame { kind: MessageKind::Stun, len: 20, next: 20 };
        assert_eq!(first_frame(&binding, ANY), Ok(Some(frame)));
        for cut in 0..20 {
            assert_eq!(first_frame(&binding[..cut], ANY), Ok(None));
        }
    }

    #[test]
    fn another_protocol_is_noticed_at_its_first_wrong_byte() {
        assert_eq!(first_frame(b"\x80", ANY), Err(FramingError::NotTurn));
        assert_eq!(first_frame(b"\x16\x03\x01\x02\x00\x01", ANY), Err(FramingError::NotTurn));
        assert_eq!(first_frame(&[0, 1, 0, 2, 0x21, 0x12, 0xA4, 0x42], ANY), Err(FramingError::NotTurn));
    }

    #[test]
    fn a_frame_longer_than_allowed_is_refused_before_it_is_buffered() {
        assert_eq!(first_frame(&[0x40, 0, 0xFF, 0xFF], |len| len <= 2048), Err(FramingError::TooLong));
        assert_eq!(first_frame(&[0x40, 0, 0xFF, 0xFF], ANY), Ok(None));
    }
}
