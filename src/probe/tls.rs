//! TLS as a client that wants to know everything: the handshake is finished whatever the certificate is, the verdict on the
//! certificate is kept beside it, and nothing is sent before somebody has looked at that.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
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

/// When a certificate ends, seconds since the Unix epoch; `None` when it cannot be read.
pub(super) fn not_after_unix(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}
