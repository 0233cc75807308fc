//! TLS settings of the client legs: the system's authorities, a given file, or no verification at all.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Where distributions keep the authorities they trust.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How the server's certificate is judged.
pub(super) enum Trust<'a> {
    /// By the authorities of the system.
    System,
    /// By those of a PEM file.
    File(&'a Path),
    /// Not at all.
    Nothing,
}

/// Makes the settings that all legs share.
///
/// # Errors
/// When a file cannot be read or holds no certificate; the message names it.
pub(super) fn client_config(trust: &Trust<'_>) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = match trust {
        Trust::System => {
            let bundle = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
            let bundle =
                bundle.ok_or_else(|| io::Error::other("no system certificate bundle found: give a CA file"))?;
            builder.with_root_certificates(read_roots(bundle)?).with_no_client_auth()
        }
        Trust::File(path) => builder.with_root_certificates(read_roots(path)?).with_no_client_auth(),
        Trust::Nothing => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustEverything(provider)))
            .with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn read_roots(path: &Path) -> io::Result<RootCertStore> {
    let named = |e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| named(&e))? {
        roots.add(certificate.map_err(|e| named(&e))?).map_err(|e| named(&e))?;
    }
    if roots.is_empty() { Err(named(&"no certificate in this file")) } else { Ok(roots) }
}

/// Accepts any certificate; signatures are still verified, so that the work is that of a real handshake.
#[derive(Debug)]
struct TrustEverything(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustEverything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
