//! One refused request, or data that policy refused, as it is explained to an operator later.

use std::fmt;
use std::net::SocketAddr;

use crate::addr::{ClientAddr, Transport};
use crate::policy_name::PolicyName;
use crate::reject::Reason;
use crate::user::RealmId;
use turnstone_stun::Method;

/// A refused request, or refused data. Of a fixed size, whatever the request held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// When, in Unix seconds.
    pub unix_secs: u64,
    /// Why.
    pub reason: Reason,
    /// What was asked for; Send or Data where data was dropped, of which no client is told.
    pub method: Method,
    /// The client.
    pub client: ClientAddr,
    /// The transport.
    pub transport: Transport,
    /// The realm that the client has come in by.
    pub realm: RealmId,
    /// The USERNAME, or the beginning of it; verified only if the refusal came after the credential had been.
    pub username: Excerpt,
    /// The peer that was asked for, if the refusal is about one.
    pub peer: Option<SocketAddr>,
    /// The name of the peer policy that denied it; the default one has none.
    pub policy: Option<PolicyName>,
    /// How often: 1, but for data, where one refusal stands for all datagrams of the allocation since the one before.
    pub times: u32,
}

/// Up to 96 bytes of untrusted text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Excerpt {
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
    whole: bool,
}

impl Excerpt {
    const BYTES_MAX: usize = 96;

    /// The beginning of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let len = bytes.len().min(Self::BYTES_MAX);
        let mut kept = [0; Self::BYTES_MAX];
        for (to, from) in kept.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self { bytes: kept, len: len as u8, whole: len == bytes.len() }
    }

    /// The bytes that are kept.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether nothing was cut off.
    pub fn is_whole(&self) -> bool {
        self.whole
    }
}

/// Escaped, with `…` where something was cut off.
impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A character that was cut in two is left away.
        for chunk in self.as_bytes().utf8_chunks() {
            chunk.valid().escape_debug().fmt(f)?;
            if self.whole && !chunk.invalid().is_empty() {
                chunk.invalid().escape_ascii().fmt(f)?;
            }
        }
        f.write_str(if self.whole { "" } else { "…" })
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, method, client, username, peer, .. } = self;
        write!(f, "{method:?} of {username:?} at {client} refused: {reason:?} {peer:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_bounded_and_escaped() {
        assert_eq!(Excerpt::of(b"alice").to_string(), "alice");
        assert_eq!(Excerpt::of("zoë\n\u{1b}[1m".as_bytes()).to_string(), "zoë\\n\\u{1b}[1m");
        assert_eq!(Excerpt::of(b"\xff!").to_string(), "\\xff!");
        let long = "ä".repeat(100);
        let excerpt = Excerpt::of(long.as_bytes());
        assert!(!excerpt.is_whole());
        assert_eq!(excerpt.to_string(), format!("{}…", "ä".repeat(48)));
        assert_eq!(Excerpt::of(format!("x{long}").as_bytes()).to_string(), format!("x{}…", "ä".repeat(47)));
    }
}
