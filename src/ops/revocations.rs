//! What is revoked: carried out, kept in the state directory over restarts, and followed in the file that lists it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::auth::{Revocation, Revocations};
use crate::config::{Config, WrittenBy, WrittenRevocation, read_list, revocation};
use crate::state_file::{on_disk, replace};

const FILE: &str = "revocations.ndjson";
const HEAD: &str = "# What is revoked, kept by turnstone over its restarts; `turnstone revoke` changes it.\n";

/// What is revoked, and where that is kept.
pub(super) struct Revoker {
    pub(super) revocations: Arc<Revocations>,
    state: Option<Arc<StateFile>>,
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
    /// How many changes there have been, and up to which of them the file has them.
    changes: AtomicU64,
    written: Mutex<u64>,
}

impl Revoker {
    /// Takes over what was revoked before, and what the file lists. Nothing of the kept state stops the server: what is wrong with it is
    /// told, and set aside.
    pub(super) fn load(config: &Config, revocations: Arc<Revocations>) -> Self {
        let state = config.state_directory.as_deref().map(|directory| {
            let path = directory.join(FILE);
            if let Err(error) = take_over(config, &path, &revocations) {
                tracing::error!(path = %path.display(), %error, "the revocations of before cannot be read, and are not in force");
            }
            Arc::new(StateFile { path, changes: AtomicU64::new(0), written: Mutex::new(0) })
        });
        let revoker = Self { revocations, state };
        revoker.list(&config.auth.revocations);
        revoker
    }

    /// Puts what the file lists in force, in place of what it listed before.
    pub(super) fn list(&self, listed: &[Revocation]) {
        if let Err(error) = self.revocations.replace_listed(listed) {
            tracing::error!(%error, "the list of [auth] revocations is not in force");
        }
    }

    /// Writes what is in force now, whoever waits for it.
    pub(super) async fn keep(&self) -> Kept {
        let Some(state) = self.state.clone() else { return Kept::Nowhere };
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
                if let Kept::Failed(problem) = this.keep().await {
                    tracing::error!(%problem, "revocations that are over are still kept");
                }
            });
        }
    }
}

impl StateFile {
    /// Writes everything, unless that has been done since the change.
    fn write(&self, change: u64, revocations: &Revocations) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written >= change {
            return Ok(());
        }
        let up_to = self.changes.load(Ordering::Acquire);
        write_whole(&self.path, &revocations.asked_for())?;
        *written = up_to;
        Ok(())
    }
}

/// Puts in force what is kept, but for what is over.
fn take_over(config: &Config, path: &Path, revocations: &Revocations) -> io::Result<()> {
    if let Err(error) = fs::symlink_metadata(path) {
        return if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) };
    }
    let now_unix = unix_now();
    let mut problems = Vec::new();
    let kept = read_list(path, &mut problems, |written| revocation(config, written, WrittenBy::Server, now_unix));
    for revocation in kept.iter().filter(|revocation| revocation.until_unix > now_unix) {
        revocations.add(revocation).map_err(io::Error::other)?;
    }
    if problems.is_empty() {
        return Ok(());
    }
    let aside = path.with_extension("damaged");
    for problem in &problems {
        tracing::error!(%problem, aside = %aside.display(), "a revocation of before is damaged and not in force");
    }
    fs::rename(path, &aside)?;
    write_whole(path, &revocations.asked_for())
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
