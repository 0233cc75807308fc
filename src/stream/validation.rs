//! How a certificate authority sees that a name leads here: it asks for a protocol of its own, and is shown a certificate that nobody else can
//! have made (TLS-ALPN-01, RFC 8737).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

/// The protocol that an authority asks for, and nobody speaks (RFC 8737 section 6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// The certificates that authorities are waited for with, by the names that they ask for. There is none but while one is under way.
#[derive(Default)]
pub struct Validations {
    expected: ArcSwap<HashMap<String, Expected>>,
}

#[derive(Clone)]
struct Expected {
    certificate: Arc<CertifiedKey>,
    shown: Arc<AtomicU64>,
}

/// One that is waited for; until this is dropped.
pub struct Validation {
    of: Arc<Validations>,
    name: String,
    shown: Arc<AtomicU64>,
}

impl Validations {
    /// Shows this certificate to who asks for the name, by the protocol of validation.
    pub fn expect(self: &Arc<Self>, name: &str, certificate: CertifiedKey) -> Validation {
        let expected = Expected { certificate: Arc::new(certificate), shown: Arc::default() };
        let shown = Arc::clone(&expected.shown);
        self.change(|all| drop(all.insert(name.to_ascii_lowercase(), expected.clone())));
        Validation { of: Arc::clone(self), name: name.to_ascii_lowercase(), shown }
    }

    /// The certificate for who asks for the protocol of validation and for nothing else (RFC 8737 section 3), if a name is asked for that is
    /// waited for.
    pub(super) fn certificate_for(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut offered = hello.alpn()?;
        if offered.next() != Some(ACME_TLS) || offered.next().is_some() {
            return None;
        }
        let expected = self.expected.load();
        let expected = expected.get(&hello.server_name()?.to_ascii_lowercase())?;
        expected.shown.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(&expected.certificate))
    }

    fn change(&self, change: impl Fn(&mut HashMap<String, Expected>)) {
        self.expected.rcu(|all| {
            let mut all = HashMap::clone(all);
            change(&mut all);
            all
        });
    }
}

impl fmt::Debug for Validations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.expected.load().keys()).finish()
    }
}

impl Validation {
    /// How often somebody has asked for it.
    pub fn shown(&self) -> u64 {
        self.shown.load(Ordering::Relaxed)
    }
}

impl Drop for Validation {
    fn drop(&mut self) {
        self.of.change(|all| drop(all.remove(&self.name)));
    }
}

/// Whether a ClientHello is one of validation: who offers that protocol, with whatever else, is no client of TURN unless it offers one of ours.
pub(super) fn is_of_validation(hello: &ClientHello<'_>, ours: &[&[u8]]) -> bool {
    let offers = |protocol: &[u8]| hello.alpn().is_some_and(|mut offered| offered.any(|other| other == protocol));
    offers(ACME_TLS) && !ours.iter().any(|own| offers(own))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs;
    use rustls::{ServerConfig, ServerConnection};
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::super::hello::tests::hello;
    use super::super::tls::server_config;
    use super::*;
    use crate::config::TlsVersion;

    const OF_VALIDATION: &str = "acme-tls/1";

    pub(in crate::stream) fn certificate(name: &str) -> CertifiedKey {
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        CertifiedKey::from_der(vec![own.der().clone()], key, &aws_lc_rs::default_provider()).unwrap()
    }

    /// Whether a ClientHello for these protocols is answered by anything but an alert.
    fn is_answered(server: &Arc<ServerConfig>, name: &'static str, alpn: &[&str]) -> bool {
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        server.read_tls(&mut hello(name, alpn).as_slice()).unwrap();
        server.process_new_packets().is_ok()
    }

    #[test]
    fn only_a_hello_of_validation_alone_and_for_a_name_that_is_waited_for_is_answered() {
        let validations: Arc<Validations> = Arc::default();
        let server = server_config(Vec::new(), TlsVersion::Tls13, Some(Arc::clone(&validations))).unwrap();
        let is_shown = |name, alpn: &[&str]| is_answered(&server, name, alpn);
        assert!(!is_shown("turn.example.org", &[OF_VALIDATION]), "nobody is waited for");
        let validation = validations.expect("Turn.Example.Org", certificate("turn.example.org"));
        assert!(is_shown("turn.example.org", &[OF_VALIDATION]));
        assert_eq!(validation.shown(), 1);
        for (name, alpn) in [
            ("www.example.org", &[OF_VALIDATION][..]),
            ("turn.example.org", &[OF_VALIDATION, "h2"]),
            ("turn.example.org", &["stun.turn", OF_VALIDATION]),
            ("turn.example.org", &["stun.turn"]),
            ("turn.example.org", &[]),
        ] {
            assert!(!is_shown(name, alpn), "{name} {alpn:?}");
        }
        drop(validation);
        assert!(!is_shown("turn.example.org", &[OF_VALIDATION]));
        let without = server_config(Vec::new(), TlsVersion::Tls13, None).unwrap();
        let _other = validations.expect("turn.example.org", certificate("turn.example.org"));
        assert!(!is_answered(&without, "turn.example.org", &[OF_VALIDATION]), "nothing is had by ACME here");
    }
}
