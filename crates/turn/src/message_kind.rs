//! What the first bytes of a client's message say that it is (RFC 8656 section 12).

use std::ops::Range;

/// What a message is. It is found once, where one message is told from the next, and goes along with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A STUN message, yet to be parsed.
    Stun,
    /// ChannelData.
    ChannelData(ChannelData),
}

/// The header of a ChannelData message (RFC 8656 section 12.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData {
    number: u16,
    len: u16,
}

impl MessageKind {
    /// What a datagram is; `None` for neither, or ChannelData that is shorter than its header says.
    #[inline]
    pub fn of_datagram(datagram: &[u8]) -> Option<Self> {
        match datagram.first()? >> 6 {
            0 => Some(Self::Stun),
            _ => {
                let message = ChannelData::from_header(*datagram.first_chunk()?)?;
                (message.payload().end <= datagram.len()).then_some(Self::ChannelData(message))
            }
        }
    }
}

impl ChannelData {
    /// The length of the header.
    pub const HEADER_LEN: usize = 4;

    /// Reads a header; `None` if the first two bits are not those of ChannelData.
    #[inline]
    pub fn from_header([n0, n1, l0, l1]: [u8; Self::HEADER_LEN]) -> Option<Self> {
        (n0 >> 6 == 1).then_some(Self { number: u16::from_be_bytes([n0, n1]), len: u16::from_be_bytes([l0, l1]) })
    }

    /// The channel number, or what stands in its place.
    #[inline]
    pub fn number(self) -> u16 {
        self.number
    }

    /// The length of the payload.
    #[inline]
    pub fn payload_len(self) -> usize {
        usize::from(self.len)
    }

    /// Where the payload is in the message; what follows is padding.
    #[inline]
    pub fn payload(self) -> Range<usize> {
        Self::HEADER_LEN..Self::HEADER_LEN + self.payload_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_what_its_first_bits_say_and_as_long_as_its_header_says() {
        let channel_data = |datagram: &[u8]| match MessageKind::of_datagram(datagram) {
            Some(MessageKind::ChannelData(message)) => Some((message.number(), message.payload())),
            _ => None,
        };
        assert_eq!(channel_data(&[0x40, 1, 0, 0]), Some((0x4001, 4..4)));
        assert_eq!(channel_data(&[0x7F, 0xFF, 0, 1, 9]), Some((0x7FFF, 4..5)));
        assert_eq!(channel_data(&[0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]), Some((0x4000, 4..9)));
        assert_eq!(MessageKind::of_datagram(&[0]), Some(MessageKind::Stun));
        assert_eq!(MessageKind::of_datagram(&[0x3F, 0xFF]), Some(MessageKind::Stun));
        for neither in [&[][..], &[0x40, 0, 0], &[0x40, 0, 0, 1], &[0x80, 0, 0, 0], &[0xFF, 0, 0, 0]] {
            assert_eq!(MessageKind::of_datagram(neither), None, "{neither:?}");
        }
    }
}
