//! TLS server configuration from PEM files (RFC 8656 section 3.1; ALPN of RFC 7443).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{TlsFiles, TlsVersion};

/// Why certificate and key cannot be used. The message names the file.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind wanted.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The key cannot be read, or everybody may read it; names the file.
    Key(String),
    /// Certificate and key do not belong together, or are of a kind rustls cannot use.
    Pair {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, problem } => write!(f, "{}: {problem}", path.display()),
            Self::Key(problem) => write!(f, "[tls] key: {problem}"),
            Self::Pair { certificate, key, problem } => {
                write!(f, "certificate {} and key {}: {problem}", certificate.display(), key.display())
            }
        }
    }
}

impl std::error::Error for TlsError {}

/// Reads certificate chain and key and makes the configuration every TLS listener uses.
///
/// # Errors
/// [`TlsError`], naming the file.
pub fn load_tls(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let file = |path: &PathBuf, problem: String| TlsError::File { path: path.clone(), problem };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file(&files.certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(file(&files.certificate, "holds no PEM certificate".to_owned()));
    }
    let pem = files.read_key().map_err(TlsError::Key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| file(&files.key, error.to_string()))?;
    let pair = |error: rustls::Error| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        problem: error.to_string(),
    };
    let versions: &[&rustls::SupportedProtocolVersion] = match files.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"stun.turn".to_vec(), b"stun.nat-discovery".to_vec()];
    if let Ok(ticketer) = rustls::crypto::aws_lc_rs::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Ok(Arc::new(config))
}
