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

/// The files as they are at one moment, and who tells of changes from then on. To find that out takes as long as their disk does.
pub(super) struct Seen {
    stamp: Stamp,
    inotify: Option<OwnedFd>,
}

impl Seen {
    pub(super) fn of(files: &[PathBuf]) -> Self {
        let inotify = watch_folders(files).ok();
        Self { stamp: Stamp::of(files), inotify }
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
    /// Somebody looks at the files.
    is_looking: bool,
}

impl Watch {
    /// Nothing to watch yet.
    pub(super) fn new() -> Self {
        let next_look = Instant::now();
        Self { judged: None, changing: None, folders: None, next_look, looks_soon: false, is_looking: false }
    }

    /// Files have been read, at a time that nobody has noted: they are looked at again soon.
    pub(super) fn begin(&mut self) {
        self.judged = None;
        self.changing = None;
        self.folders = None;
        self.next_look = Instant::now() + SETTLE;
    }

    /// This state of the files has been judged, whatever the verdict.
    pub(super) fn judged(&mut self, seen: Seen) {
        self.folders = seen.inotify.and_then(|inotify| Folders::new(inotify).ok());
        self.judged = Some(seen.stamp);
        self.changing = None;
        self.rest();
    }

    /// Waits until it is time to look.
    pub(super) async fn due(&mut self) {
        if self.is_looking {
            return std::future::pending().await;
        }
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

    /// Somebody looks at the files, and says what he has seen; or nobody can, and it is tried again.
    pub(super) fn look(&mut self, can_look: bool) {
        self.is_looking = can_look;
        self.next_look = Instant::now() + SETTLE;
    }

    /// Whether the files have changed since they were judged, and have stayed as they are since the last look: certificate
    /// and key are seldom replaced in the same moment, and a list may be half written.
    pub(super) fn has_changed(&mut self, seen: Seen) -> bool {
        self.is_looking = false;
        if self.judged.as_ref() == Some(&seen.stamp) {
            self.judged(seen);
            return false;
        }
        if self.changing.as_ref() != Some(&seen.stamp) {
            self.folders = seen.inotify.and_then(|inotify| Folders::new(inotify).ok());
            self.changing = Some(seen.stamp);
            self.next_look = Instant::now() + SETTLE;
            return false;
        }
        self.judged(seen);
        true
    }

    fn rest(&mut self) {
        self.looks_soon = false;
        self.next_look = Instant::now() + if self.folders.is_some() { REST } else { SETTLE };
    }
}

/// Watches the folders of the files, and those of what links there lead to.
fn watch_folders(files: &[PathBuf]) -> std::io::Result<OwnedFd> {
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
    Ok(inotify)
}

/// What happens there.
struct Folders(AsyncFd<OwnedFd>);

impl Folders {
    fn new(inotify: OwnedFd) -> std::io::Result<Self> {
        // Deprecated for types whose descriptor may change under way: that of an `OwnedFd` does not.
        #[allow(deprecated)]
        AsyncFd::with_interest(inotify, Interest::READABLE).map(Self)
    }

    /// Waits for a change.
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
}
