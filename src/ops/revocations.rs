//! What is revoked: carried out, kept in the state directory over restarts, and followed in the file that lists it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::shared_revocations::SharedRevocations;
use crate::auth::{Revocation, Revocations, TooManyRevocations};
use crate::config::{Config, WrittenBy, WrittenRevocation, read_list, revocation};
use crate::state_file::{on_disk, replace};

const FILE: &str = "revocations.ndjson";
const STORED_FILE: &str = "revocations-of-store.ndjson";
const HEAD: &str = "# What is revoked, kept by turnstone over its restarts; `turnstone revoke` changes it.\n";

/// What is revoked, and where that is kept.
pub(super) struct Revoker {
    pub(super) revocations: Arc<Revocations>,
    /// Where it is put for all servers of a fleet.
    pub(super) shared: Option<Arc<SharedRevocations>>,
    /// What was asked for.
    asked_for: Option<Arc<StateFile>>,
    /// What the store had last, and how that stands. It may be much, and changes with each change of any server.
    stored: Option<Arc<StateFile>>,
    stored_has_changed: AtomicBool,
    stored_has_failed: AtomicBool,
}

/// What has become of a change.
pub(super) struct Outcome {
    pub(super) kept: Kept,
    /// Whether the store has it, if there is one.
    pub(super) is_shared: Option<bool>,
}

/// Whether a change outlives the server.
pub(super) enum Kept {
    /// It is on the disk.
    Yes,
    /// There is no state directory.
    Nowhere,
    /// It could not be written.
    Failed(String),
}

struct StateFile {
    path: PathBuf,
    /// What is kept there.
    kept: fn(&Revocations) -> Vec<Revocation>,
    /// How many changes there have been, and up to which of them the file has them.
    changes: AtomicU64,
    written: Mutex<u64>,
}

impl Revoker {
    /// Takes over what was revoked before, and what the file lists. Nothing of the kept state stops the server: what is wrong with it is
    /// told, and set aside.
    pub(super) fn load(config: &Config, revocations: Arc<Revocations>, shared: Option<Arc<SharedRevocations>>) -> Self {
        let asked_for = StateFile::of(config, FILE, Revocations::asked_for);
        let stored = shared.as_ref().and_then(|_| StateFile::of(config, STORED_FILE, Revocations::stored));
        let told = |path: &Path, error: &io::Error| {
            tracing::error!(path = %path.display(), %error, "the revocations of before cannot be read, and are not in force");
        };
        if let Some(state) = &asked_for
            && let Err(error) = state.take_over(config, &revocations, |all| {
                all.iter().try_for_each(|revocation| revocations.add(revocation).map(drop))
            })
        {
            told(&state.path, &error);
        }
        if let Some(state) = &stored
            && let Err(error) = state.take_over(config, &revocations, |all| revocations.replace_stored(all))
        {
            told(&state.path, &error);
        }
        let [asked_for, stored] = [asked_for, stored].map(|state| state.map(Arc::new));
        let (stored_has_changed, stored_has_failed) = Default::default();
        let revoker = Self { revocations, shared, asked_for, stored, stored_has_changed, stored_has_failed };
        revoker.list(&config.auth.revocations);
        revoker
    }

    /// Puts what the file lists in force, in place of what it listed before.
    pub(super) fn list(&self, listed: &[Revocation]) {
        if let Err(error) = self.revocations.replace_listed(listed) {
            tracing::error!(%error, "the list of [auth] revocations is not in force");
        }
    }

    /// Puts what is in force now where it outlives the server: into the store, if there is one, and into the state directory.
    pub(super) async fn keep(&self) -> Outcome {
        let is_shared = match &self.shared {
            Some(shared) => Some(shared.publish().await),
            None => None,
        };
        self.stored_has_changed();
        let kept = match &self.asked_for {
            Some(state) => self.write(state).await,
            None if is_shared == Some(true) => Kept::Yes,
            None => Kept::Nowhere,
        };
        Outcome { kept, is_shared }
    }

    /// What the store has is not what it was.
    pub(super) fn stored_has_changed(&self) {
        self.stored_has_changed.store(true, Ordering::Release);
    }

    /// Writes what the store has into the state directory, if that has changed: for a restart without the store.
    pub(super) async fn keep_stored(&self) {
        let Some(state) = &self.stored else { return };
        if !self.stored_has_changed.swap(false, Ordering::AcqRel) {
            return;
        }
        let Kept::Failed(problem) = self.write(state).await else {
            return self.stored_has_failed.store(false, Ordering::Relaxed);
        };
        self.stored_has_changed();
        if !self.stored_has_failed.swap(true, Ordering::Relaxed) {
            tracing::error!(%problem, "what the store has revoked is forgotten at a restart without it; it is written as soon as that can be");
        }
    }

    async fn write(&self, state: &Arc<StateFile>) -> Kept {
        let state = Arc::clone(state);
        let change = state.changes.fetch_add(1, Ordering::AcqRel) + 1;
        let revocations = Arc::clone(&self.revocations);
        let path = state.path.display().to_string();
        match on_disk("revocations", move || state.write(change, &revocations)).await {
            Ok(()) => Kept::Yes,
            Err(error) => Kept::Failed(format!("{path}: {error}")),
        }
    }

    /// Forgets what is over.
    pub(super) fn forget_what_is_over(self: &Arc<Self>) {
        if self.revocations.forget_what_is_over(unix_now()) {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                if let Kept::Failed(problem) = this.keep().await.kept {
                    tracing::error!(%problem, "revocations that are over are still kept");
                }
            });
        }
    }
}

impl StateFile {
    fn of(config: &Config, name: &str, kept: fn(&Revocations) -> Vec<Revocation>) -> Option<Self> {
        let path = config.state_directory.as_deref()?.join(name);
        Some(Self { path, kept, changes: AtomicU64::new(0), written: Mutex::new(0) })
    }

    /// Writes everything, unless that has been done since the change.
    fn write(&self, change: u64, revocations: &Revocations) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written >= change {
            return Ok(());
        }
        let up_to = self.changes.load(Ordering::Acquire);
        write_whole(&self.path, &(self.kept)(revocations))?;
        *written = up_to;
        Ok(())
    }

    /// Puts in force what is kept, but for what is over.
    fn take_over(
        &self,
        config: &Config,
        revocations: &Revocations,
        put: impl FnOnce(&[Revocation]) -> Result<(), TooManyRevocations>,
    ) -> io::Result<()> {
        let path = &self.path;
        if let Err(error) = fs::symlink_metadata(path) {
            return if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) };
        }
        let now_unix = unix_now();
        let mut problems = Vec::new();
        let mut kept =
            read_list(path, &mut problems, |written| revocation(config, written, WrittenBy::Server, now_unix));
        kept.retain(|revocation| revocation.until_unix > now_unix);
        put(&kept).map_err(io::Error::other)?;
        if problems.is_empty() {
            return Ok(());
        }
        let aside = path.with_extension("damaged");
        for problem in &problems {
            tracing::error!(%problem, aside = %aside.display(), "a revocation of before is damaged and not in force");
        }
        fs::rename(path, &aside)?;
        write_whole(path, &(self.kept)(revocations))
    }
}

/// The file changes as a whole, and is on the disk when this is over.
fn write_whole(path: &Path, kept: &[Revocation]) -> io::Result<()> {
    replace(path, |out| {
        out.write_all(HEAD.as_bytes())?;
        kept.iter().try_for_each(|revocation| writeln!(out, "{}", WrittenRevocation::from(revocation).line()))
    })
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
