//! TLS as a client that wants to know everything: the handshake is finished whatever the certificate is, the verdict on the
//! certificate is kept beside it, and nothing is sent before somebody has looked at that.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Which authorities are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Those of the system; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// What all handshakes share.
pub(super) struct TlsSetup {
    provider: Arc<CryptoProvider>,
    judge: Arc<WebPkiServerVerifier>,
}

/// The verdict on a certificate, which is there once the server has shown it.
pub(super) type CertificateVerdict = Arc<Mutex<Option<Result<(), Error>>>>;

impl TlsSetup {
    /// Reads the authorities.
    ///
    /// # Errors
    /// When there is none that can be used; the message says where.
    pub(super) fn new(roots: &Roots) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = match roots {
            Roots::File(path) => read_roots(path).map_err(|problem| format!("{}: {problem}", path.display()))?,
            Roots::System => system_roots()?,
        };
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let judge = judge.map_err(|error| format!("certificate authorities: {error}"))?;
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
        let verifier = Recording {
            provider: Arc::clone(&self.provider),
            judge: Arc::clone(&self.judge),
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

fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("no certificate in this file".into()) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Distributions ship some that webpki cannot use; the others count.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(format!("this system has no certificate authorities{why}: install ca-certificates or give --ca"));
    }
    Ok(roots)
}

/// Lets every certificate pass and writes down what the judge says of it. Signatures are verified as ever.
#[derive(Debug)]
struct Recording {
    provider: Arc<CryptoProvider>,
    judge: Arc<WebPkiServerVerifier>,
    verdict: CertificateVerdict,
}

impl ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(judged.map(|_| ()));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
