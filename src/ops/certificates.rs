//! The certificates of the TLS listeners: loading them.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use thiserror::Error;
use x509_parser::nom;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Error};

use super::status::CertificateFacts;
use crate::config::TlsFiles;
use crate::dtls;
use crate::stream::{Pair, TlsError, load_pair, server_config};

/// Why certificate and key cannot be used; names the file.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// They are no good to TLS.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// A certificate is malformed.
    #[error("{}: {error}", path.display())]
    X509 {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: nom::Err<X509Error>,
    },
}

/// All certificates, and what the listeners use of them.
pub(super) struct Certificates {
    pub(super) config: Arc<ServerConfig>,
    /// The same for DTLS, if there is a listener for that.
    pub(super) dtls: Option<Arc<dtls::Context>>,
    pairs: Vec<Certificate>,
}

/// A certificate and key that belong together.
#[derive(Clone)]
struct Certificate {
    pair: Arc<Pair>,
    /// The same for DTLS, if there is a listener for that.
    for_dtls: Option<dtls::Certificate>,
    /// The names that it is for.
    names: Vec<String>,
    file: PathBuf,
    facts: CertificateFacts,
}

impl Certificates {
    /// Reads and checks every certificate and key.
    ///
    /// # Errors
    /// [`CertificateError`] of the first that cannot be used.
    pub(super) fn load(files: &TlsFiles, has_dtls: bool) -> Result<Self, CertificateError> {
        let pairs: Result<_, _> = files.each().iter().map(|files| Certificate::load(files, has_dtls)).collect();
        Self::of(pairs?, files)
    }

    /// Reads them again. One that cannot be used keeps the earlier one of the same file; also returns what is wrong with each.
    ///
    /// # Errors
    /// There is no earlier one.
    pub(super) fn load_again(
        &self,
        files: &TlsFiles,
        has_dtls: bool,
    ) -> Result<(Self, Vec<CertificateError>), CertificateError> {
        let all = files;
        let (mut pairs, mut errors) = (Vec::new(), Vec::new());
        for files in files.each() {
            match Certificate::load(&files, has_dtls) {
                Ok(pair) => pairs.push(pair),
                Err(error) => {
                    let Some(earlier) = self.pairs.iter().find(|pair| pair.file == files.certificate) else {
                        return Err(error);
                    };
                    pairs.push(earlier.clone());
                    errors.push(error);
                }
            }
        }
        Ok((Self::of(pairs, all)?, errors))
    }

    fn of(pairs: Vec<Certificate>, files: &TlsFiles) -> Result<Self, CertificateError> {
        let chosen_from = pairs.iter().map(|pair| (Arc::clone(&pair.pair), pair.names.clone())).collect();
        let config = server_config(chosen_from, files.min_version).map_err(|error| {
            CertificateError::Tls(TlsError::File { path: files.certificate.clone(), problem: error.to_string() })
        })?;
        let for_dtls: Vec<_> =
            pairs.iter().filter_map(|pair| Some((pair.for_dtls.clone()?, pair.names.clone()))).collect();
        let dtls = if for_dtls.is_empty() { None } else { dtls::Context::new(for_dtls) };
        Ok(Self { config, dtls, pairs })
    }

    /// What each says of itself.
    pub(super) fn facts(&self) -> Vec<CertificateFacts> {
        self.pairs.iter().map(|pair| pair.facts.clone()).collect()
    }
}

impl Certificate {
    fn load(files: &TlsFiles, has_dtls: bool) -> Result<Self, CertificateError> {
        let pair = load_pair(files)?;
        let for_dtls = if has_dtls { dtls::Certificate::load(files)? } else { None };
        let path = &files.certificate;
        let own = pair.chain().first().map(AsRef::as_ref).unwrap_or_default();
        let (_, certificate) =
            X509Certificate::from_der(own).map_err(|error| CertificateError::X509 { path: path.clone(), error })?;
        let names = if files.names.is_empty() { names_in(&certificate) } else { files.names.clone() };
        let facts = CertificateFacts {
            file: path.display().to_string(),
            names: names.clone(),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before_unix: certificate.validity().not_before.timestamp(),
            not_after_unix: certificate.validity().not_after.timestamp(),
        };
        Ok(Self { pair: Arc::new(pair), for_dtls, names, file: path.clone(), facts })
    }
}

/// The host names that a certificate is for.
fn names_in(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    names.filter_map(host).collect()
}

/// The files of every certificate and key.
pub(super) fn files_of(tls: &TlsFiles) -> Vec<PathBuf> {
    tls.each().into_iter().flat_map(|pair| [pair.certificate, pair.key]).collect()
}
