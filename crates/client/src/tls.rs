//! TLS of clients that judge a server from outside: whom they trust, or that they look at the certificate without trusting it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, WantsVerifier,
};
use thiserror::Error as ThisError;

/// Why a certificate could not be judged.
#[derive(Debug, ThisError)]
pub enum TrustError {
    /// A file of authorities cannot be read, or holds no PEM.
    #[error("{}: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: pem::Error,
    },
    /// A certificate of an authority is of no use.
    #[error("{}: {error}", path.display())]
    Certificate {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        error: Error,
    },
    /// A file without a certificate.
    #[error("{}: no certificate in this file", .0.display())]
    NoCertificate(PathBuf),
    /// The system trusts nobody.
    #[error("this system has no certificate authorities{}: install ca-certificates or give --ca", .0.as_ref().map_or_else(String::new, |error| format!(" ({error})")))]
    NoAuthorities(Option<rustls_native_certs::Error>),
    /// The authorities make no verifier.
    #[error("certificate authorities: {0}")]
    Verifier(VerifierBuilderError),
    /// The library has no TLS version that it could offer.
    #[error("{0}")]
    Versions(Error),
}

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
    /// When there is none that can be used.
    pub fn read(&self) -> Result<RootCertStore, TrustError> {
        match self {
            Self::File(path) => read_certificates(path, CertificateDer::pem_file_iter(path)),
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
/// When a file cannot be read or holds no certificate.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    match trust {
        Trust::Authorities(roots) => client_config_of(roots.read()?),
        Trust::Nothing => {
            let verifier =
                Lenient { provider: Arc::clone(&provider), judge: None, verdict: CertificateVerdict::default() };
            let builder = builder(provider)?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
            Ok(Arc::new(builder.with_no_client_auth()))
        }
    }
}

/// The same, for authorities that have been read.
///
/// # Errors
/// When the library has no TLS version that it could offer.
pub fn client_config_of(roots: RootCertStore) -> Result<Arc<ClientConfig>, TrustError> {
    let builder = builder(Arc::new(aws_lc_rs::default_provider()))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// The authorities in a PEM file that somebody has read.
///
/// # Errors
/// When there is none that can be used.
pub fn roots_in(path: &Path, pem: &[u8]) -> Result<RootCertStore, TrustError> {
    read_certificates(path, Ok(CertificateDer::pem_slice_iter(pem)))
}

fn builder(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TrustError> {
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().map_err(TrustError::Versions)
}

fn read_certificates<'c>(
    path: &Path,
    certificates: Result<impl Iterator<Item = Result<CertificateDer<'c>, pem::Error>>, pem::Error>,
) -> Result<RootCertStore, TrustError> {
    let pem = |error| TrustError::Pem { path: path.into(), error };
    let mut roots = RootCertStore::empty();
    for certificate in certificates.map_err(pem)? {
        roots.add(certificate.map_err(pem)?).map_err(|error| TrustError::Certificate { path: path.into(), error })?;
    }
    if roots.is_empty() { Err(TrustError::NoCertificate(path.into())) } else { Ok(roots) }
}

fn read_system() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Distributions ship some that webpki cannot use; the others count.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(TrustError::NoAuthorities(found.errors.into_iter().next()));
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
