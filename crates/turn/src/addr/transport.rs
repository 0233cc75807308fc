//! The transports between client and server, and what each of them promises.
//!
//! What a promise is needed for asks for it by name. A transport more does not compile until it has answered every question
//! here, in the hash of 5-tuples, and in the worker, which has to say what its listeners bring.

use std::fmt;

/// Makes the enum, the list of all and the names from one list, so that none can miss an entry.
macro_rules! transports {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// The transport a client uses towards the server.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Transport {
            $($(#[$doc])* $variant,)+
        }

        impl Transport {
            /// Every transport, for metrics that start at zero.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name used in logs, metrics, the admin API and the configuration.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

transports! {
    /// UDP datagrams.
    Udp = "udp",
    /// A TCP connection.
    Tcp = "tcp",
    /// TLS over TCP.
    Tls = "tls",
    /// DTLS over UDP (RFC 7350).
    Dtls = "dtls",
}

/// How one message is told from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each is a datagram of its own.
    Datagrams,
    /// They follow each other on a byte stream, and each says its length (RFC 8489 section 6.2.2).
    Stream,
}

/// The kind of socket that clients come to. Transports of one kind can share a socket: the first bytes tell them apart (RFC 7983).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// A UDP socket, bound.
    Udp,
    /// A TCP socket that listens.
    Tcp,
}

impl Transport {
    /// The transport of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.name() == name)
    }

    /// How messages are framed.
    #[inline]
    pub fn framing(self) -> Framing {
        match self {
            // A record is a message (RFC 7350 section 3).
            Self::Udp | Self::Dtls => Framing::Datagrams,
            Self::Tcp | Self::Tls => Framing::Stream,
        }
    }

    /// Whether what is sent arrives, once and in order. Where not, clients repeat requests, and responses are remembered for them
    /// (RFC 8489 section 6.3.1).
    #[inline]
    pub fn is_reliable(self) -> bool {
        match self {
            Self::Udp | Self::Dtls => false,
            Self::Tcp | Self::Tls => true,
        }
    }

    /// Whether the client is known to receive at its address before it has sent a message. Where not, answers to strangers are
    /// limited: they may go to somebody else.
    #[inline]
    pub fn proves_address(self) -> bool {
        match self {
            Self::Udp => false,
            // The cookie and the handshake have proved it (RFC 6347 section 4.2.1).
            Self::Tcp | Self::Tls | Self::Dtls => true,
        }
    }

    /// Whether what is sent is secret, and the server shows a certificate.
    #[inline]
    pub fn is_encrypted(self) -> bool {
        match self {
            Self::Udp | Self::Tcp => false,
            Self::Tls | Self::Dtls => true,
        }
    }

    /// The kind of socket it needs.
    #[inline]
    pub fn socket_kind(self) -> SocketKind {
        match self {
            Self::Udp | Self::Dtls => SocketKind::Udp,
            Self::Tcp | Self::Tls => SocketKind::Tcp,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Framing {
    /// The bytes of padding behind a ChannelData message with a payload of `len` bytes: streams want it, UDP does not
    /// (RFC 8656 section 12.5).
    #[inline]
    pub fn channel_data_padding(self, len: usize) -> usize {
        match self {
            Self::Datagrams => 0,
            Self::Stream => len.next_multiple_of(4) - len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_places_are_those_of_the_list() {
        for (place, transport) in Transport::ALL.into_iter().enumerate() {
            assert_eq!(transport as usize, place, "counters are kept by place");
            assert_eq!(Transport::from_name(transport.name()), Some(transport));
        }
        assert_eq!(Transport::from_name("UDP"), None);
    }

    #[test]
    fn channel_data_is_padded_on_streams_only() {
        for (len, padding) in [(0, 0), (1, 3), (3, 1), (4, 0), (1201, 3)] {
            assert_eq!(Framing::Stream.channel_data_padding(len), padding);
            assert_eq!(Framing::Datagrams.channel_data_padding(len), 0);
        }
    }
}
