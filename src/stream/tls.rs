//! TLS server configuration from PEM files (RFC 8656 section 3.1; ALPN of RFC 7443).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureAlgorithm};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::choice::CertificateChoice;
use super::validation::{ACME_TLS, Validations, is_of_validation};
use crate::config::{SecretError, TlsFiles, TlsVersion, Wanted, why};
use crate::regular_file;

/// The protocols that we speak inside TLS (RFC 7443).
pub(super) const ALPN: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];

/// More than the bundle of every authority there is.
pub(crate) const CHAIN_BYTES_MAX: u64 = 1 << 20;

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
    Key(SecretError),
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

/// A certificate chain and its key, which belong together.
#[derive(Debug)]
pub struct Pair {
    key: CertifiedKey,
    is_rsa: bool,
}

impl Pair {
    /// The chain, the server's own certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }
}

/// Reads the certificate chain and key of `[tls]`, those of the first pair if there are several.
///
/// # Errors
/// [`TlsError`], naming the file.
pub fn load_pair(files: &TlsFiles) -> Result<Pair, TlsError> {
    let file = |path: &PathBuf, problem: String| TlsError::File { path: path.clone(), problem };
    let chain = regular_file::read(&files.certificate, CHAIN_BYTES_MAX);
    let chain = chain.map_err(|error| file(&files.certificate, why(&files.certificate, Wanted::Read, &error)))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| file(&files.certificate, pem_words(&error, "certificate")))?;
    if chain.is_empty() {
        return Err(file(&files.certificate, "holds no PEM certificate".to_owned()));
    }
    let pem = files.read_key().map_err(TlsError::Key)?;
    let key =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| file(&files.key, pem_words(&error, "private key")))?;
    let pair = |error: rustls::Error| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        problem: pair_words(&error),
    };
    let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(pair)?;
    let is_rsa = key.key.algorithm() == SignatureAlgorithm::RSA;
    Ok(Pair { key, is_rsa })
}

/// Makes the configuration every TLS listener uses: of these pairs, each with the names that it is for. Who asks for a name whose pair is still
/// to come is refused by an alert. `validations` are those of the certificate authority that some pairs are had from.
///
/// # Errors
/// Of rustls.
pub fn server_config(
    pairs: Vec<(Option<Arc<Pair>>, Vec<String>)>,
    min_version: TlsVersion,
    validations: Option<Arc<Validations>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions: &[&rustls::SupportedProtocolVersion] = match min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver::new(pairs, validations.clone())));
    let of_validation = validations.is_some().then_some(ACME_TLS);
    config.alpn_protocols = ALPN.into_iter().chain(of_validation).map(<[u8]>::to_vec).collect();
    if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Ok(Arc::new(config))
}

/// The same certificates for HTTP: what a client of TURN has agreed on is never taken for it, nor the other way round (ALPN).
pub fn https_config(of_turn: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = of_turn.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A connection is one request, and no session of the one goes on as the other.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Arc::new(config)
}

/// Chooses among the pairs that are for a client's server name the one whose signatures the client knows.
#[derive(Debug)]
struct Resolver {
    keys: Vec<Option<(Arc<CertifiedKey>, bool)>>,
    choice: CertificateChoice,
    validations: Option<Arc<Validations>>,
}

impl Resolver {
    fn new(pairs: Vec<(Option<Arc<Pair>>, Vec<String>)>, validations: Option<Arc<Validations>>) -> Self {
        let (pairs, names): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let key = |pair: &Option<Arc<Pair>>| pair.as_ref().map(|pair| (Arc::new(pair.key.clone()), pair.is_rsa));
        Self { keys: pairs.iter().map(key).collect(), choice: CertificateChoice::new(&names), validations }
    }
}

impl ResolvesServerCert for Resolver {
    /// Of two that will do the one that is not RSA: its handshake is shorter, and costs the server a tenth.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if is_of_validation(&hello, &ALPN) {
            return self.validations.as_ref()?.certificate_for(&hello);
        }
        let candidates = self.choice.of(hello.server_name()).iter();
        let candidates = candidates.filter_map(|number| self.keys.get(*number)?.as_ref());
        let will_do = candidates.filter(|(key, _)| key.key.choose_scheme(hello.signature_schemes()).is_some());
        will_do.min_by_key(|(_, is_rsa)| *is_rsa).map(|(key, _)| Arc::clone(key))
    }
}

fn pair_words(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error, InconsistentKeys};
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the key does not belong to the certificate; take both from the same issue, the server's own certificate first in its file"
                .to_owned()
        }
        Error::InvalidCertificate(CertificateError::BadEncoding) => {
            "the first certificate in the file is malformed; copy the file anew".to_owned()
        }
        Error::General(what) => format!("{what}; keys may be RSA from 2048 bits, ECDSA of P-256, P-384 and P-521, or Ed25519"),
        error => error.to_string(),
    }
}

fn pem_words(error: &pem::Error, what: &str) -> String {
    use pem::Error;
    match error {
        Error::NoItemsFound => {
            format!(
                "has no {what} in PEM (-----BEGIN ...-----); a key with a passphrase is not read: openssl pkey -in FILE -out NEW"
            )
        }
        Error::Io(error) => format!("cannot be read: {error}"),
        Error::MissingSectionEnd { .. } | Error::IllegalSectionStart { .. } => {
            format!("the PEM of a {what} is cut off or its frame broken ({error}); copy the file anew")
        }
        error => format!("{error}; copy the file anew"),
    }
}
