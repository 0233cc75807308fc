//! Where a server is asked in place of where its URL says, and under which name: one node of several behind a public name.

use std::fmt;
use std::str::FromStr;

use super::url::{Host, UrlError, read_authority, read_name};

/// Where it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTo {
    pub(super) host: Host,
    /// The URL's unless it is written.
    pub(super) port: Option<u16>,
}

impl FromStr for ConnectTo {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        read_authority(text).map(|(host, port)| Self { host, port })
    }
}

/// What TLS asks for (SNI), and what the certificate has to be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName(pub(super) Host);

impl FromStr for CertificateName {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        read_name(text).map(Self)
    }
}

impl fmt::Display for ConnectTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_perhaps_with_a_port_and_a_name_is_one_without() {
        for (text, shown) in [
            ("203.0.113.5", "203.0.113.5"),
            ("203.0.113.5:5349", "203.0.113.5:5349"),
            ("[2001:db8::5]", "[2001:db8::5]"),
            ("[2001:db8::5]:443", "[2001:db8::5]:443"),
            ("node-3.example.org:443", "node-3.example.org:443"),
        ] {
            assert_eq!(text.parse::<ConnectTo>().unwrap().to_string(), shown);
        }
        for bad in
            ["", ":443", "2001:db8::5", "a:b", "a:0", "a:443:1", "turn:a", "a b", "a?transport=udp", "a@b", "a/b"]
        {
            assert!(bad.parse::<ConnectTo>().is_err(), "{bad}");
        }
        for name in ["turn.example.org", "203.0.113.5", "2001:db8::5", "[2001:db8::5]"] {
            assert!(name.parse::<CertificateName>().is_ok(), "{name}");
        }
        for bad in ["", "turn.example.org:443", "turns:turn.example.org", "*.example.org", "a b"] {
            assert!(bad.parse::<CertificateName>().is_err(), "{bad}");
        }
    }
}
