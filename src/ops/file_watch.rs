//! Noticing that files have changed: those of the certificates, the list of revocations.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// How long a change must last, and how often the files are looked at where their folders cannot be watched.
const SETTLE: Duration = Duration::from_secs(2);
/// How often the files are looked at although nothing has been heard of their folders.
const REST: Duration = Duration::from_secs(60);
/// Room for some events of inotify(7).
const EVENTS_BYTES: usize = 4096;

/// What tells one state of the files from another: device, inode, size and time of change of each.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<FileState>>);

type FileState = (u64, u64, u64, i64, i64);

impl Stamp {
    pub(super) fn of(files: &[PathBuf]) -> Self {
        let state = |path: &PathBuf| {
            // The file itself: certbot's `live` folder has links, of which only the target changes.
            let file = std::fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        };
        Self(files.iter().map(state).collect())
    }
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

    /// These files have been read, at a time that nobody has noted: they are looked at again soon.
    pub(super) fn begin(&mut self, files: &[PathBuf]) {
        self.judged = None;
        self.changing = None;
        self.folders = Folders::of(files).ok();
        self.next_look = Instant::now() + SETTLE;
    }

    /// This state of the files has been judged, whatever the verdict.
    pub(super) fn judged(&mut self, files: &[PathBuf], stamp: Stamp) {
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
    /// and key are seldom replaced in the same moment, and a list may be half written.
    pub(super) fn has_changed(&mut self, files: &[PathBuf]) -> bool {
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
    fn of(files: &[PathBuf]) -> std::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let events = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for path in files {
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
