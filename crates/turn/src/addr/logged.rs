//! Clients' and peers' addresses as the log may have them: `[log] addresses`.
//!
//! The log is one for the whole process, and so is this. Whatever logs the address of a client or a peer wraps it in
//! [`Logged`]; `tests/architecture` looks for those that do not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// How much of an address is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum LoggedAddresses {
    /// Address and port.
    #[default]
    Full = 0,
    /// The IPv4 /24 or the IPv6 /48.
    Prefix = 1,
    /// Nothing.
    Off = 2,
}

static LOGGED: AtomicU8 = AtomicU8::new(LoggedAddresses::Full as u8);

impl LoggedAddresses {
    /// Makes it hold for every line from now on.
    pub fn apply(self) {
        LOGGED.store(self as u8, Ordering::Relaxed);
    }

    /// The name in `turnserver.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Prefix => "prefix",
            Self::Off => "off",
        }
    }

    fn in_force() -> Self {
        let value = LOGGED.load(Ordering::Relaxed);
        [Self::Full, Self::Prefix].into_iter().find(|choice| *choice as u8 == value).unwrap_or(Self::Off)
    }

    fn write(self, address: SocketAddr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => fmt::Display::fmt(&address, f),
            _ => self.write_ip(address.ip(), f),
        }
    }

    fn write_ip(self, ip: IpAddr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, ip) {
            (Self::Full, _) => fmt::Display::fmt(&ip, f),
            (Self::Prefix, IpAddr::V4(v4)) => {
                let [a, b, c, _] = v4.octets();
                write!(f, "{a}.{b}.{c}.0/24")
            }
            (Self::Prefix, IpAddr::V6(v6)) => {
                let [a, b, c, ..] = v6.segments();
                write!(f, "{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
            }
            (Self::Off, _) => f.write_str("-"),
        }
    }
}

/// A text that is none of [`LoggedAddresses`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a choice")]
pub struct NotAChoice(pub String);

impl FromStr for LoggedAddresses {
    type Err = NotAChoice;

    fn from_str(text: &str) -> Result<Self, NotAChoice> {
        let found = [Self::Full, Self::Prefix, Self::Off].into_iter().find(|choice| choice.name() == text);
        found.ok_or_else(|| NotAChoice(text.to_owned()))
    }
}

/// The address of a client or of a peer, on its way into the log.
#[derive(Clone, Copy, Debug)]
pub struct Logged(pub SocketAddr);

impl fmt::Display for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LoggedAddresses::in_force().write(self.0, f)
    }
}

/// The address of a host whose port says nothing, likewise.
#[derive(Clone, Copy, Debug)]
pub struct LoggedIp(pub IpAddr);

impl fmt::Display for LoggedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LoggedAddresses::in_force().write_ip(self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The choice for the process is left alone: other tests may run.
    struct As(LoggedAddresses, &'static str);

    impl fmt::Display for As {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.write(self.1.parse().unwrap(), f)
        }
    }

    #[test]
    fn addresses_are_logged_whole_by_their_network_or_not_at_all() {
        use LoggedAddresses::{Full, Off, Prefix};
        for (choice, address, logged) in [
            (Full, "203.0.113.7:4711", "203.0.113.7:4711"),
            (Full, "[2001:db8:1:2::7]:4711", "[2001:db8:1:2::7]:4711"),
            (Prefix, "203.0.113.7:4711", "203.0.113.0/24"),
            (Prefix, "[2001:db8:1:2::7]:4711", "2001:db8:1::/48"),
            (Off, "203.0.113.7:4711", "-"),
            (Off, "[2001:db8:1:2::7]:4711", "-"),
        ] {
            assert_eq!(As(choice, address).to_string(), logged);
        }
        for (choice, logged) in [(Full, "203.0.113.7"), (Prefix, "203.0.113.0/24"), (Off, "-")] {
            let shown = fmt::from_fn(|f| choice.write_ip([203, 0, 113, 7].into(), f));
            assert_eq!(shown.to_string(), logged);
        }
        for choice in [Full, Prefix, Off] {
            assert_eq!(choice.name().parse(), Ok(choice));
        }
        assert!("none".parse::<LoggedAddresses>().is_err());
    }
}
