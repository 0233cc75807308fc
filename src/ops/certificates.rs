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
use crate::stream::{Pair, TlsError, Validations, load_pair, server_config};

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
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) config: Arc<ServerConfig>,
    /// The same for DTLS, if there is a listener for that.
    pub(super) dtls: Option<Arc<dtls::Context>>,
    pairs: Vec<Certificate>,
}

/// What certificates are loaded with.
#[derive(Clone)]
pub(super) struct Loading {
    /// Whether there is a listener for DTLS.
    pub(super) has_dtls: bool,
    /// What an authority is shown, should there be certificates to be had from one.
    pub(super) validations: Arc<Validations>,
}

/// A certificate and key that belong together.
#[derive(Clone)]
struct Certificate {
    file: PathBuf,
    /// The names that it is for.
    names: Vec<String>,
    /// The pair; one that the server gets for itself may be still to come.
    loaded: Option<LoadedPair>,
}

#[derive(Clone)]
struct LoadedPair {
    pair: Arc<Pair>,
    /// The same for DTLS, if there is a listener for that.
    for_dtls: Option<dtls::Certificate>,
    facts: CertificateFacts,
}

impl Certificates {
    /// Reads and checks every certificate and key. What the server gets for itself may be missing, or damaged: then the earlier one is used, or
    /// none until there is another.
    ///
    /// # Errors
    /// [`CertificateError`] of the first that cannot be used.
    pub(super) fn load(files: &TlsFiles, loading: &Loading, earlier: Option<&Self>) -> Result<Self, CertificateError> {
        let load = |files: &TlsFiles| match Certificate::load(files, loading) {
            Err(error) if files.is_acme => {
                if files.certificate.exists() {
                    tracing::error!(problem = %error, "a certificate that was had by ACME cannot be used; another one is asked for");
                }
                let earlier = earlier.and_then(|earlier| earlier.of_file(files)).cloned();
                Ok(earlier.unwrap_or_else(|| Certificate::to_come(files)))
            }
            loaded => loaded,
        };
        let pairs: Result<_, _> = files.each().iter().map(load).collect();
        Self::of(pairs?, files, loading)
    }

    /// Reads them again. One that cannot be used keeps the earlier one of the same file; also returns what is wrong with each.
    ///
    /// # Errors
    /// There is no earlier one.
    pub(super) fn load_again(
        &self,
        files: &TlsFiles,
        loading: &Loading,
    ) -> Result<(Self, Vec<CertificateError>), CertificateError> {
        let all = files;
        let (mut pairs, mut errors) = (Vec::new(), Vec::new());
        for files in files.each() {
            match Certificate::load(&files, loading) {
                Ok(pair) => pairs.push(pair),
                Err(error) => {
                    let Some(earlier) = self.of_file(&files) else { return Err(error) };
                    pairs.push(earlier.clone());
                    // What has never been there is no loss.
                    if earlier.loaded.is_some() {
                        errors.push(error);
                    }
                }
            }
        }
        Ok((Self::of(pairs, all, loading)?, errors))
    }

    fn of(pairs: Vec<Certificate>, files: &TlsFiles, loading: &Loading) -> Result<Self, CertificateError> {
        let pair = |certificate: &Certificate| certificate.loaded.as_ref().map(|loaded| Arc::clone(&loaded.pair));
        let chosen_from = pairs.iter().map(|certificate| (pair(certificate), certificate.names.clone())).collect();
        let has_acme = files.each().iter().any(|files| files.is_acme);
        let validations = has_acme.then(|| Arc::clone(&loading.validations));
        let config = server_config(chosen_from, files.min_version, validations).map_err(|error| {
            CertificateError::Tls(TlsError::File { path: files.certificate.clone(), problem: error.to_string() })
        })?;
        let for_dtls = |certificate: &Certificate| {
            let loaded = certificate.loaded.as_ref();
            (loaded.and_then(|loaded| loaded.for_dtls.clone()), certificate.names.clone())
        };
        let dtls = if loading.has_dtls { dtls::Context::new(pairs.iter().map(for_dtls).collect()) } else { None };
        Ok(Self { config, dtls, pairs })
    }

    fn of_file(&self, files: &TlsFiles) -> Option<&Certificate> {
        self.pairs.iter().find(|pair| pair.file == files.certificate)
    }

    /// What each that is there says of itself.
    pub(super) fn facts(&self) -> Vec<CertificateFacts> {
        self.pairs.iter().filter_map(|pair| Some(pair.loaded.as_ref()?.facts.clone())).collect()
    }
}

impl Certificate {
    fn load(files: &TlsFiles, loading: &Loading) -> Result<Self, CertificateError> {
        let pair = load_pair(files)?;
        let for_dtls = if loading.has_dtls { dtls::Certificate::load(files)? } else { None };
        let path = &files.certificate;
        let own = pair.chain().first().map(AsRef::as_ref).unwrap_or_default();
        let (_, certificate) =
            X509Certificate::from_der(own).map_err(|error| CertificateError::X509 { path: path.clone(), error })?;
        let names = if files.names.is_empty() { names_in(&certificate) } else { files.names.clone() };
        let facts = CertificateFacts {
            file: path.display().to_string(),
            is_acme: files.is_acme,
            names: names.clone(),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before_unix: certificate.validity().not_before.timestamp(),
            not_after_unix: certificate.validity().not_after.timestamp(),
        };
        let loaded = Some(LoadedPair { pair: Arc::new(pair), for_dtls, facts });
        Ok(Self { file: path.clone(), names, loaded })
    }

    /// One that the server has to get first.
    fn to_come(files: &TlsFiles) -> Self {
        Self { file: files.certificate.clone(), names: files.names.clone(), loaded: None }
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

/// The files of every certificate and key that others change.
pub(super) fn files_of(tls: &TlsFiles) -> Vec<PathBuf> {
    tls.each().into_iter().filter(|pair| !pair.is_acme).flat_map(|pair| [pair.certificate, pair.key]).collect()
}
