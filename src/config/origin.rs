//! Origins of web pages (RFC 6454), as they are written in the file.

use super::credentials::Origin;
use super::error::ValueError;
use super::urls::{parse_host, split_port};

/// An origin as browsers write it: no path, no default port, small letters.
pub(super) fn parse_origin(text: &str) -> Result<Origin, ValueError> {
    if text == "*" {
        return Ok(Origin::Any);
    }
    let (scheme, authority) = text.split_once("://").ok_or_else(|| ValueError::is_not(text, "an origin"))?;
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return Err(ValueError::is_not(text, "an origin of http or https")),
    };
    if authority.contains(['/', '?', '#', '@']) {
        return Err(ValueError::unfit(text, "more than an origin; leave out what follows the host and port"));
    }
    let (host, port) = split_port(authority).ok_or_else(|| ValueError::is_not(text, "an origin"))?;
    parse_host(host)?;
    let port = port.map(|port| format!(":{port}")).filter(|port| port != default_port).unwrap_or_default();
    Ok(Origin::One(format!("{scheme}://{}{port}", host.to_ascii_lowercase())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        for (text, origin) in [
            ("https://App.Example.org", "https://app.example.org"),
            ("https://app.example.org:443", "https://app.example.org"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(parse_origin(text), Ok(Origin::One(origin.to_owned())), "{text}");
        }
        assert_eq!(parse_origin("*"), Ok(Origin::Any));
        for bad in [
            "",
            "null",
            "app.example.org",
            "https://app.example.org/",
            "https://a@b",
            "ftp://a",
            "https://",
            "https://a:0",
            "https://*.a.example",
        ] {
            assert!(parse_origin(bad).is_err(), "{bad}");
        }
    }
}
