//! The certificates of the TLS listeners: loading them, and noticing that their files have changed.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};
use x509_parser::nom;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Error};

use super::status::CertificateFacts;
use crate::config::TlsFiles;
use crate::dtls;
use crate::stream::{Pair, TlsError, load_pair, server_config};

/// How long a change must last, and how often the files are looked at where their folders cannot be watched.
const SETTLE: Duration = Duration::from_secs(2);
/// How often the files are looked at although nothing has been heard of their folders.
const REST: Duration = Duration::from_secs(60);
/// Room for some events of inotify(7).
const EVENTS_BYTES: usize = 4096;

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

/// What tells one state of the files from another: device, inode, size and time of change of each.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<FileState>>);

type FileState = (u64, u64, u64, i64, i64);

impl Stamp {
    pub(super) fn of(files: &TlsFiles) -> Self {
        let state = |path: PathBuf| {
            // The file itself: certbot's `live` folder has links, of which only the target changes.
            let file = std::fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        };
        Self(paths(files).map(state).collect())
    }
}

fn paths(files: &TlsFiles) -> impl Iterator<Item = PathBuf> {
    files.each().into_iter().flat_map(|pair| [pair.certificate, pair.key])
}

/// Knows when to look at the files, and whether they have changed: soon after something happens in their folders (inotify), and
/// now and then in any case, because not every change is told: that of a folder further up, or on a network file system.
pub(super) struct Watch {
    judged: Option<Stamp>,
    changing: Option<Stamp>,
    folders: Option<Folders>,
    next_look: Instant,
    looks_soon: bool,
}

impl Watch {
    /// Nothing to watch yet.
    pub(super) fn new() -> Self {
        Self { judged: None, changing: None, folders: None, next_look: Instant::now(), looks_soon: false }
    }

    /// This state of the files has been judged, whatever the verdict.
    pub(super) fn judged(&mut self, files: &TlsFiles, stamp: Stamp) {
        self.judged = Some(stamp);
        self.changing = None;
        self.folders = Folders::of(files).ok();
        self.rest();
    }

    /// Waits until it is time to look.
    pub(super) async fn due(&mut self) {
        loop {
            let happens = async {
                match &self.folders {
                    Some(folders) if !self.looks_soon => folders.change().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(self.next_look) => return,
                () = happens => {
                    self.looks_soon = true;
                    self.next_look = self.next_look.min(Instant::now() + SETTLE);
                }
            }
        }
    }

    /// Whether the files have changed since they were judged, and have stayed as they are since the last look: certificate
    /// and key are seldom replaced in the same moment.
    pub(super) fn has_changed(&mut self, files: &TlsFiles) -> bool {
        if let Some(folders) = &self.folders {
            folders.forget();
        }
        let stamp = Stamp::of(files);
        if self.judged.as_ref() == Some(&stamp) {
            self.changing = None;
            self.rest();
            return false;
        }
        if self.changing.as_ref() != Some(&stamp) {
            self.changing = Some(stamp);
            self.next_look = Instant::now() + SETTLE;
            return false;
        }
        self.judged(files, stamp);
        true
    }

    fn rest(&mut self) {
        self.looks_soon = false;
        self.next_look = Instant::now() + if self.folders.is_some() { REST } else { SETTLE };
    }
}

/// The folders of the files, and those of what links there lead to.
struct Folders(AsyncFd<OwnedFd>);

impl Folders {
    fn of(files: &TlsFiles) -> std::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let events = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for path in paths(files) {
            for file in [Some(path.clone()), path.canonicalize().ok()].into_iter().flatten() {
                let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
                inotify::add_watch(&inotify, folder.unwrap_or(Path::new(".")), events)?;
            }
        }
        // Deprecated for types whose descriptor may change under way: that of an `OwnedFd` does not.
        #[allow(deprecated)]
        AsyncFd::with_interest(inotify, Interest::READABLE).map(Self)
    }

    /// Waits for a change that is not forgotten yet.
    async fn change(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            match ready.try_io(|inotify| Ok(rustix::io::read(inotify, &mut [0; EVENTS_BYTES])?)) {
                Ok(Ok(_)) => return,
                Ok(Err(_)) => return std::future::pending().await,
                Err(_nothing_yet) => {}
            }
        }
    }

    /// Forgets the changes so far.
    fn forget(&self) {
        while rustix::io::read(self.0.get_ref(), &mut [0; EVENTS_BYTES]).is_ok_and(|count| count > 0) {}
    }
}
