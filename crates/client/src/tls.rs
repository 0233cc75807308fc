//! TLS of clients that judge a server from outside: whom they trust, or that they look at the certificate without trusting it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Which authorities are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Those of the system; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

impl Roots {
    /// Reads them.
    ///
    /// # Errors
    /// When there is none that can be used; the message says where.
    pub fn read(&self) -> Result<RootCertStore, String> {
        match self {
            Self::File(path) => read_file(path).map_err(|problem| format!("{}: {problem}", path.display())),
            Self::System => read_system(),
        }
    }
}

/// How a server certificate is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// By certificate authorities.
    Authorities(Roots),
    /// Not at all.
    Nothing,
}

/// Makes the settings that all connections share.
///
/// # Errors
/// When a file cannot be read or holds no certificate; the message names it.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(match trust {
        Trust::Authorities(roots) => builder.with_root_certificates(roots.read()?).with_no_client_auth(),
        Trust::Nothing => {
            let verifier = Lenient { provider, judge: None, verdict: CertificateVerdict::default() };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    }))
}

fn read_file(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("no certificate in this file".into()) } else { Ok(roots) }
}

fn read_system() -> Result<RootCertStore, String> {
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

/// The verdict on a certificate, which is there once the server has shown it.
pub type CertificateVerdict = Arc<Mutex<Option<Result<(), Error>>>>;

/// Lets every certificate pass and writes down what the judge, if there is one, says of it. Signatures are verified as ever.
#[derive(Debug)]
pub struct Lenient {
    /// Verifies signatures.
    pub provider: Arc<CryptoProvider>,
    /// Judges the certificate.
    pub judge: Option<Arc<WebPkiServerVerifier>>,
    /// Where its verdict goes.
    pub verdict: CertificateVerdict,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(judge) = &self.judge {
            let judged = judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
            *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(judged.map(|_| ()));
        }
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

/// Plain words for what the library has only a name for.
pub fn certificate_words(error: &Error) -> Option<String> {
    use rustls::CertificateError;
    let Error::InvalidCertificate(error) = error else { return None };
    match error {
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => Some(
            "it is an authority's certificate (CA:TRUE), which no server may have: make one for the server that this authority signs, or \
             a self-signed one with basicConstraints CA:FALSE"
                .to_owned(),
        ),
        CertificateError::Other(other) => Some(format!("it cannot be checked ({other}); openssl x509 -text -noout shows what is in it")),
        _ => None,
    }
}
