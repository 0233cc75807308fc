//! The certificate of the TLS listeners: loading it, and noticing that its files have changed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::TlsFiles;
use crate::listener::load_tls;

/// How often the files are looked at.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// A certificate and key that belong together.
pub(super) struct Certificate {
    pub(super) config: Arc<ServerConfig>,
    /// When the server's own certificate expires, in Unix seconds.
    pub(super) not_after_unix: i64,
}

/// Reads and checks certificate and key.
///
/// # Errors
/// One line that names the file.
pub(super) fn load(files: &TlsFiles) -> Result<Certificate, String> {
    drop(files.read_key().map_err(|problem| format!("[tls] key: {problem}"))?);
    let config = load_tls(files).map_err(|error| error.to_string())?;
    let not_after_unix = not_after(&files.certificate)?;
    Ok(Certificate { config, not_after_unix })
}

fn not_after(path: &Path) -> Result<i64, String> {
    let der = CertificateDer::from_pem_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(certificate.validity().not_after.timestamp())
}

/// What tells one state of the two files from another: device, inode, size and time of change of each.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Stamp([Option<FileState>; 2]);

type FileState = (u64, u64, u64, i64, i64);

impl Stamp {
    pub(super) fn of(files: &TlsFiles) -> Self {
        Self([&files.certificate, &files.key].map(|path| {
            // The file itself: certbot's `live` folder has links, of which only the target changes.
            let file = std::fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        }))
    }
}

/// Looks at the files again and again.
#[derive(Default)]
pub(super) struct Watch {
    judged: Option<Stamp>,
    changing: Option<Stamp>,
}

impl Watch {
    /// These states of the files have been judged, whatever the verdict.
    pub(super) fn judged(&mut self, stamp: Stamp) {
        self.judged = Some(stamp);
        self.changing = None;
    }

    /// Whether the files have changed since they were judged, and have stayed as they are since the last look: certificate
    /// and key are seldom replaced in the same moment.
    pub(super) fn has_changed(&mut self, files: &TlsFiles) -> bool {
        let stamp = Stamp::of(files);
        if self.judged.as_ref() == Some(&stamp) {
            self.changing = None;
            return false;
        }
        if self.changing.as_ref() != Some(&stamp) {
            self.changing = Some(stamp);
            return false;
        }
        self.judged(stamp);
        true
    }
}
