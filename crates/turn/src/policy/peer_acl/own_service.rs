//! Programs on the server's own host that peers may be reached at, such as an SFU beside the TURN server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// One address of this host and the UDP ports of a program there: `203.0.113.7:10000` or `[2001:db8::7]:20000-20999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnService {
    /// The address.
    pub ip: IpAddr,
    /// The first port.
    pub first_port: u16,
    /// The last port.
    pub last_port: u16,
}

/// What is wrong with a service as written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OwnServiceError {
    /// There is no colon.
    #[error("it has no port")]
    NoPort,
    /// What stands in front of the port is no address.
    #[error("{0:?} is not an IP address")]
    NotAnAddress(String),
    /// Loopback, a wildcard, multicast, or IPv4 in IPv6.
    #[error("{0} is never a peer")]
    NeverAPeer(IpAddr),
    /// A port that is none.
    #[error("{0:?} is not a port")]
    NotAPort(String),
    /// Ports whose ends are swapped.
    #[error("the ports {0} end before they start")]
    Reversed(String),
}

impl OwnService {
    pub(super) fn has(&self, ip: IpAddr, port: u16) -> bool {
        self.ip == ip && (self.first_port..=self.last_port).contains(&port)
    }
}

impl fmt::Display for OwnService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.first_port).fmt(f)?;
        if self.last_port == self.first_port { Ok(()) } else { write!(f, "-{}", self.last_port) }
    }
}

impl FromStr for OwnService {
    type Err = OwnServiceError;

    fn from_str(text: &str) -> Result<Self, OwnServiceError> {
        let (ip, ports) = text.rsplit_once(':').ok_or(OwnServiceError::NoPort)?;
        let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
        let ip: IpAddr = ip.parse().map_err(|_| OwnServiceError::NotAnAddress(ip.to_owned()))?;
        if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.to_canonical() != ip {
            return Err(OwnServiceError::NeverAPeer(ip));
        }
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| {
            let port = text.parse().ok().filter(|port| *port > 0);
            port.ok_or_else(|| OwnServiceError::NotAPort(text.to_owned()))
        };
        let (first_port, last_port) = (port(first)?, port(last)?);
        if first_port > last_port {
            return Err(OwnServiceError::Reversed(ports.to_owned()));
        }
        Ok(Self { ip, first_port, last_port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_port_or_a_range_of_ports_is_a_service() {
        let service: OwnService = "203.0.113.7:10000".parse().unwrap();
        assert!(service.has(service.ip, 10000) && !service.has(service.ip, 10001));
        let range: OwnService = "[2001:db8::7]:20000-20999".parse().unwrap();
        assert!(range.has(range.ip, 20000) && range.has(range.ip, 20999) && !range.has(range.ip, 21000));
        assert!(!range.has(service.ip, 20000));
        assert_eq!(
            (service.to_string(), range.to_string()),
            ("203.0.113.7:10000".into(), "[2001:db8::7]:20000-20999".into())
        );
    }

    #[test]
    fn what_is_no_service_is_named() {
        for text in [
            "",
            "203.0.113.7",
            "203.0.113.7:0",
            "203.0.113.7:2-1",
            "x:1",
            "127.0.0.1:5",
            "[::1]:5",
            "0.0.0.0:5",
            "224.0.0.1:5",
            "[::ffff:10.0.0.1]:5",
            "203.0.113.7:70000",
        ] {
            assert!(text.parse::<OwnService>().is_err(), "{text}");
        }
    }
}
