//! What a ClientHello asks for, before anybody has answered it (RFC 8446 section 4.1.2): whether the connection is for us, or for the
//! web server that shares our port.

use std::io::Write;
use std::sync::Arc;

use rustls::server::{Accepted, Acceptor, ClientHello};
use rustls::{ServerConfig, ServerConnection};

use super::session;
use super::tls::ALPN;
use super::validation::is_of_validation;

/// A ClientHello, as far as it has come.
#[derive(Default)]
pub struct Hello {
    acceptor: Acceptor,
    /// All that was read: the web server gets it as it came.
    bytes: Vec<u8>,
}

/// What became of a part of it.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once, and kept nowhere")]
pub enum Heard {
    /// More has to come.
    Part(Hello),
    /// It is for us, to be answered.
    Ours(Box<Accepted>),
    /// It is for the web server, which has to have these bytes first.
    Web(Vec<u8>),
    /// It is no ClientHello, or one that we cannot serve. This is what the client gets.
    Refused(Vec<u8>),
}

impl Hello {
    /// Bytes that have come so far.
    pub fn received(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what has been read. `turn_names` are the server names that are ours; if there are none, any is. `is_validation` says whether an
    /// authority is waited for that asks so.
    pub fn hear(
        mut self,
        read: &[u8],
        turn_names: &[String],
        is_validation: impl FnOnce(ClientHello<'_>) -> bool,
    ) -> Heard {
        self.bytes.extend_from_slice(read);
        let mut rest = read;
        // What does not fit behind a ClientHello that is complete is not looked at: it is in `bytes`.
        while !rest.is_empty() && matches!(self.acceptor.read_tls(&mut rest), Ok(1..)) {}
        let accepted = match self.acceptor.accept() {
            Ok(None) => return Heard::Part(self),
            Ok(Some(accepted)) => accepted,
            Err((_, mut alert)) => return Heard::Refused(said(|out| alert.write_all(out))),
        };
        let hello = accepted.client_hello();
        if is_for_web(&hello, turn_names) && !(is_of_validation(&hello, &ALPN) && is_validation(hello)) {
            return Heard::Web(self.bytes);
        }
        Heard::Ours(Box::new(accepted))
    }
}

/// The session that a ClientHello begins.
///
/// # Errors
/// What the client gets, if nothing of what it offers will do.
pub(super) fn answer(hello: Accepted, config: &Arc<ServerConfig>) -> Result<Box<ServerConnection>, Vec<u8>> {
    match hello.into_connection(Arc::clone(config)) {
        Ok(mut tls) => {
            session::bound(&mut tls);
            Ok(Box::new(tls))
        }
        Err((_, mut alert)) => Err(said(|out| alert.write_all(out))),
    }
}

/// Who offers protocols says what it wants. Browsers and tools for the web do, and TURN clients name one of ours (RFC 7443), or offer
/// none: then the server name decides, if we know which are ours.
fn is_for_web(hello: &ClientHello<'_>, turn_names: &[String]) -> bool {
    if let Some(mut offered) = hello.alpn() {
        return !offered.any(|protocol| ALPN.contains(&protocol));
    }
    let is_ours = |name: &str| turn_names.iter().any(|own| own.eq_ignore_ascii_case(name));
    hello.server_name().is_some_and(|name| !turn_names.is_empty() && !is_ours(name))
}

fn said(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail.
    let _ = write(&mut bytes);
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::ClientConnection;

    use super::super::arriving::tests::configs;
    use super::*;

    /// The ClientHello that a client sends.
    pub(in crate::stream) fn hello(name: &'static str, alpn: &[&str]) -> Vec<u8> {
        let (_, config) = configs();
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn went(bytes: &[u8], turn_names: &[&str]) -> &'static str {
        let names: Vec<_> = turn_names.iter().map(|name| (*name).to_owned()).collect();
        match Hello::default().hear(bytes, &names, |_| false) {
            Heard::Part(_) => "part",
            Heard::Ours(hello) => {
                let tls = answer(*hello, &configs().0).unwrap();
                assert!(tls.wants_write(), "it answers");
                "ours"
            }
            Heard::Web(all) => {
                assert_eq!(all, bytes);
                "web"
            }
            Heard::Refused(alert) => {
                assert_eq!(alert.first(), Some(&21), "an alert");
                "refused"
            }
        }
    }

    #[test]
    fn protocols_decide_and_where_there_are_none_the_server_name() {
        let own = ["turn.example.org"];
        for (name, alpn, turn_names, expected) in [
            ("turn.example.org", [].as_slice(), own.as_slice(), "ours"),
            ("TURN.example.org", &[], &own, "ours"),
            ("www.example.org", &[], &own, "web"),
            ("www.example.org", &[], &[], "ours"),
            ("192.0.2.1", &[], &own, "ours"),
            ("turn.example.org", &["h2", "http/1.1"], &own, "web"),
            ("turn.example.org", &["http/1.1"], &[], "web"),
            ("turn.example.org", &["acme-tls/1"], &[], "web"),
            ("www.example.org", &["stun.turn"], &own, "ours"),
            ("www.example.org", &["h2", "stun.nat-discovery"], &own, "ours"),
        ] {
            assert_eq!(went(&hello(name, alpn), turn_names), expected, "{name} {alpn:?} {turn_names:?}");
        }
    }

    #[test]
    fn a_hello_may_come_in_parts_and_what_is_none_is_refused() {
        let bytes = hello("localhost", &["h2"]);
        let mut heard = Hello::default();
        for (at, byte) in bytes.iter().enumerate() {
            heard = match heard.hear(&[*byte], &[], |_| false) {
                Heard::Part(part) => {
                    assert_eq!(part.received(), at + 1);
                    part
                }
                Heard::Web(all) => {
                    assert_eq!((at + 1, all), (bytes.len(), bytes.clone()));
                    return;
                }
                Heard::Ours(_) | Heard::Refused(_) => panic!("at {at}"),
            };
        }
        panic!("it was not complete");
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        assert_eq!(went(b"GET / HTTP/1.1\r\n\r\n", &[]), "refused");
        assert_eq!(went(&[22, 3, 1, 0, 4, 2, 0, 0, 0], &[]), "refused", "a ServerHello");
        assert_eq!(went(&[22, 3, 1], &[]), "part");
    }
}
