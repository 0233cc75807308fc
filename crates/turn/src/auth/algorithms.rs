//! Which password algorithms a realm offers (RFC 8489 section 14.11).

use turnstone_stun::PasswordAlgorithm;

/// What PASSWORD-ALGORITHMS says. It is sent before anybody knows who asks, so that it is what every user of the realm has a key of: who
/// has only an MD5 key takes SHA-256 from all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// SHA-256 first: a client takes the first that it knows, and MD5 is only for compatibility (section 18.5.1.1). Clients of RFC 5389
    /// ignore the attribute and use MD5.
    Both,
    /// Some users have only an MD5 key.
    Md5,
    /// Some users have only a SHA-256 key; clients of RFC 5389 are refused.
    Sha256,
}

impl Offer {
    /// The attribute's value.
    pub(super) fn list(self) -> &'static [u8] {
        match self {
            Self::Both => &[0, 2, 0, 0, 0, 1, 0, 0],
            Self::Md5 => &[0, 1, 0, 0],
            Self::Sha256 => &[0, 2, 0, 0],
        }
    }

    /// The algorithm that a client has chosen from the list, by its PASSWORD-ALGORITHM.
    pub(super) fn chosen(self, choice: &[u8]) -> Option<PasswordAlgorithm> {
        let is_offered = self.list().chunks(4).any(|entry| entry == choice);
        let number = choice.first_chunk().filter(|_| is_offered)?;
        PasswordAlgorithm::from_wire(u16::from_be_bytes(*number))
    }
}
