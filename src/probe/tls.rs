//! TLS as a client that wants to know everything: the handshake is finished whatever the certificate is, the verdict on the
//! certificate is kept beside it, and nothing is sent before somebody has looked at that.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, Error};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::client::tls::{CertificateVerdict, Lenient, Roots, TrustError};

/// What all handshakes share.
pub(super) struct TlsSetup {
    provider: Arc<CryptoProvider>,
    judge: Arc<WebPkiServerVerifier>,
}

impl TlsSetup {
    /// Reads the authorities.
    ///
    /// # Errors
    /// When there is none that can be used.
    pub(super) fn new(roots: &Roots) -> Result<Self, TrustError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.read()?), Arc::clone(&provider)).build();
        let judge = judge.map_err(TrustError::Verifier)?;
        Ok(Self { provider, judge })
    }

    /// A connection that offers `alpn`, if any, and where the verdict on its certificate will be.
    ///
    /// # Errors
    /// Of rustls.
    pub(super) fn connection(
        &self,
        name: ServerName<'static>,
        alpn: Option<&str>,
    ) -> Result<(ClientConnection, CertificateVerdict), Error> {
        let verdict = CertificateVerdict::default();
        let verifier = Lenient {
            provider: Arc::clone(&self.provider),
            judge: Some(Arc::clone(&self.judge)),
            verdict: verdict.clone(),
        };
        // Settings of its own for each connection: a resumed session would show no certificate.
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = alpn.into_iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok((ClientConnection::new(Arc::new(config), name)?, verdict))
    }
}

impl TlsSetup {
    /// What is to be said of a chain that came otherwise.
    pub(super) fn judge(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), Error> {
        let (own, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.judge.verify_server_cert(own, intermediates, name, &[], UnixTime::now()).map(|_| ())
    }
}

/// A finished handshake.
pub(super) struct Handshake {
    pub(super) version: &'static str,
    pub(super) alpn: Option<String>,
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// Why a handshake failed.
#[derive(Debug)]
pub(super) enum TlsFailure {
    /// The server knows none of the protocols offered by ALPN.
    NoProtocol,
    Closed,
    Silent,
    Io(io::Error),
    Tls(Error),
    /// Of DTLS; what it came to, in words.
    Dtls(&'static str),
}

/// When a certificate ends, seconds since the Unix epoch; `None` when it cannot be read.
pub(super) fn not_after_unix(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}
