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
use crate::state_file::{on_disk, replace};

const THREAD: &str = "acme";

/// What was tried for a name, and what is next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Record {
    /// The directory of the authority that was asked.
    pub(super) directory: String,
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
    /// The last attempts.
    pub(super) attempts_unix: Vec<u64>,
    /// Those that have failed since the last one that did not.
    pub(crate) failures: u32,
    /// Why the last one has.
    pub(crate) failure: Option<String>,
    /// When to try again after that.
    pub(super) retry_unix: u64,
    /// When the authority wants to be asked again, at the soonest.
    pub(super) wait_unix: u64,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before_unix: u64,
    pub(super) not_after_unix: u64,
}

/// A certificate that can be used.
#[derive(Clone, Debug)]
pub(super) struct Usable {
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

    /// What was tried; nothing, if that cannot be read.
    pub(super) fn record(&self, name: &str) -> Record {
        record_of(&self.folder, name).unwrap_or_else(|error| {
            tracing::warn!(name, %error, "what was tried for a certificate cannot be read, and is forgotten");
            Record::default()
        })
    }

    /// The certificate, if there is one that can be used.
    pub(super) fn certificate(&self, name: &str) -> Option<Usable> {
        let pem = Zeroizing::new(fs::read(Acme::file_of(&self.folder, name)).ok()?);
        usable(&pem, name).ok()
    }

    pub(super) async fn keep_record(&self, name: &str, record: &Record) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(record)?;
        self.keep(record_path(&self.folder, name), Zeroizing::new(bytes)).await
    }

    pub(super) async fn keep_certificate(&self, name: &str, pem: Zeroizing<Vec<u8>>) -> io::Result<()> {
        self.keep(Acme::file_of(&self.folder, name), pem).await
    }

    /// Something in `accounts/`.
    pub(super) async fn keep_account(&self, file: &str, bytes: Zeroizing<Vec<u8>>) -> io::Result<()> {
        self.keep(self.account_path(file), bytes).await
    }

    pub(super) fn account(&self, file: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        match fs::read(self.account_path(file)) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An account that the authority does not know any more is set aside.
    pub(super) async fn set_account_aside(&self, file: &str) -> io::Result<()> {
        let path = self.account_path(file);
        on_disk(THREAD, move || fs::rename(&path, path.with_extension("gone"))).await
    }

    fn account_path(&self, file: &str) -> PathBuf {
        self.folder.join("accounts").join(file)
    }

    async fn keep(&self, path: PathBuf, bytes: Zeroizing<Vec<u8>>) -> io::Result<()> {
        on_disk(THREAD, move || replace(&path, |out| out.write_all(&bytes))).await
    }
}

/// What was tried for a name.
pub(crate) fn record_of(folder: &Path, name: &str) -> io::Result<Record> {
    match fs::read(record_path(folder, name)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Record::default()),
        Err(error) => Err(error),
    }
}

fn record_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

/// Judges a file with key and chain: they have to belong together, and be for the name.
pub(super) fn usable(pem: &[u8], name: &str) -> Result<Usable, String> {
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
