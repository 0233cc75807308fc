//! What is kept in the state directory: `accounts/`, and for each name a file with its key and certificate chain, and one with what was tried.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::config::Acme;
use crate::regular_file;
use crate::state_file::{on_disk, replace};

const THREAD: &str = "acme";
/// The longest files.
const RECORD_BYTES_MAX: u64 = 64 << 10;
const PEM_BYTES_MAX: u64 = 256 << 10;
const ACCOUNT_BYTES_MAX: u64 = 64 << 10;

/// What was tried for a name, and what is next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Record {
    /// What was tried at the authority that is asked now.
    #[serde(flatten)]
    pub(crate) tried: Tried,
    /// What was tried at others, and still counts there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) elsewhere: Vec<Tried>,
    /// The one that the certificate is from.
    pub(super) issued_by: String,
    /// When the certificate ends that the next two are about.
    pub(super) of_not_after_unix: u64,
    /// When to renew it.
    pub(super) renew_unix: Option<u64>,
    /// The window in which the authority wants it renewed.
    pub(super) window_unix: Option<(u64, u64)>,
    /// When to ask for that again.
    pub(super) advice_unix: u64,
}

/// What was tried for a name at one authority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Tried {
    /// The authority's directory.
    pub(super) directory: String,
    /// The last attempts that the authority has counted, for all that is known here.
    pub(super) attempts_unix: Vec<u64>,
    /// Those of them that have failed since the last one that did not.
    pub(super) failures: u32,
    /// Those since then that the authority has not counted: it was not reached.
    pub(super) uncounted: u32,
    /// The last one, whether counted or not.
    pub(super) tried_unix: u64,
    /// Why it has failed.
    pub(crate) failure: Option<String>,
    /// When to try again after that.
    pub(super) retry_unix: u64,
    /// When the authority wants to be asked again, at the soonest.
    pub(super) wait_unix: u64,
    /// The same for all names, because no name was what had failed.
    pub(super) retry_all_unix: u64,
    pub(super) wait_all_unix: u64,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before_unix: u64,
    pub(super) not_after_unix: u64,
}

/// A certificate that can be used.
#[derive(Clone, Debug)]
pub struct Usable {
    pub(super) validity: Validity,
    /// The server's own.
    pub(super) leaf: CertificateDer<'static>,
}

/// Where it is kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    folder: PathBuf,
}

impl Kept {
    pub(super) fn new(acme: &Acme) -> Self {
        Self { folder: acme.folder.clone() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What there is of each of these names: what was tried (nothing, if that cannot be read), and the certificate, if there is one that can be used.
    ///
    /// # Errors
    /// The disk does not answer.
    pub(super) async fn all(&self, names: &[String]) -> io::Result<Vec<(Record, Option<Usable>)>> {
        let (folder, names) = (self.folder.clone(), names.to_vec());
        on_disk(THREAD, move || {
            Ok(names.iter().map(|name| (record(&folder, name), certificate(&folder, name))).collect())
        })
        .await
    }

    pub(super) async fn keep_record(&self, name: &str, record: &Record) -> io::Result<()> {
        let bytes = record.written()?;
        self.keep(record_path(&self.folder, name), Zeroizing::new(bytes)).await
    }

    pub(super) async fn keep_certificate(&self, name: &str, pem: Zeroizing<Vec<u8>>) -> io::Result<()> {
        self.keep(Acme::file_of(&self.folder, name), pem).await
    }

    /// Something in `accounts/`.
    pub(super) async fn keep_account(&self, file: &str, bytes: Zeroizing<Vec<u8>>) -> io::Result<()> {
        self.keep(self.account_path(file), bytes).await
    }

    pub(super) async fn account(&self, file: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let path = self.account_path(file);
        on_disk(THREAD, move || match regular_file::read(&path, ACCOUNT_BYTES_MAX) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    /// An account that is of no use any more is set aside, in a file with this ending.
    pub(super) async fn set_account_aside(&self, file: &str, ending: &'static str) -> io::Result<()> {
        let path = self.account_path(file);
        on_disk(THREAD, move || fs::rename(&path, path.with_extension(ending))).await
    }

    fn account_path(&self, file: &str) -> PathBuf {
        self.folder.join("accounts").join(file)
    }

    async fn keep(&self, path: PathBuf, bytes: Zeroizing<Vec<u8>>) -> io::Result<()> {
        on_disk(THREAD, move || replace(&path, |out| out.write_all(&bytes))).await
    }
}

impl Record {
    /// Reads what was written.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// As it is written.
    ///
    /// # Errors
    /// None that is known.
    pub fn written(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }
}

impl Tried {
    /// Attempts that have failed since the last one that did not.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.saturating_add(self.uncounted)
    }
}

/// What was tried for a name.
pub(crate) fn record_of(folder: &Path, name: &str) -> io::Result<Record> {
    match regular_file::read(&record_path(folder, name), RECORD_BYTES_MAX) {
        Ok(bytes) => Ok(Record::read(&bytes)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Record::default()),
        Err(error) => Err(error),
    }
}

fn record(folder: &Path, name: &str) -> Record {
    record_of(folder, name).unwrap_or_else(|error| {
        tracing::warn!(name, %error, "what was tried for a certificate cannot be read, and is forgotten");
        Record::default()
    })
}

fn certificate(folder: &Path, name: &str) -> Option<Usable> {
    let pem = Zeroizing::new(regular_file::read(&Acme::file_of(folder, name), PEM_BYTES_MAX).ok()?);
    usable(&pem, name).ok()
}

fn record_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

/// Judges a file with key and chain: they have to belong together, and be for the name.
///
/// # Errors
/// Why they cannot be used.
pub fn usable(pem: &[u8], name: &str) -> Result<Usable, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| text(&error))?;
    let leaf = chain.first().ok_or("there is no certificate")?.clone();
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| text(&error))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| text(&error))?;
    let server_name = ServerName::try_from(name).map_err(|error| text(&error))?;
    let parsed = ParsedCertificate::try_from(&leaf).map_err(|error| text(&error))?;
    rustls::client::verify_server_name(&parsed, &server_name).map_err(|error| text(&error))?;
    let (_, certificate) = X509Certificate::from_der(&leaf).map_err(|error| text(&error))?;
    let unix = |timestamp: i64| u64::try_from(timestamp).unwrap_or(0);
    let validity = Validity {
        not_before_unix: unix(certificate.validity().not_before.timestamp()),
        not_after_unix: unix(certificate.validity().not_after.timestamp()),
    };
    Ok(Usable { validity, leaf })
}
