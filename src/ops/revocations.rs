//! What is revoked: carried out, kept in the state directory over restarts, and followed in the file that lists it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::shared_revocations::SharedRevocations;
use crate::auth::{Revocation, Revocations, Revoked, TooManyRevocations};
use crate::config::{Config, WrittenBy, WrittenRevocation, read_lines, revocation};
use crate::state_file::{on_disk, replace};
use crate::store::{Asker, BELIEVED_MAX, Entry, EntryId, entry_of_line};
use crate::wall_clock::unix_now;

const FILE: &str = "revocations.ndjson";
const STORED_FILE: &str = "revocations-of-store.ndjson";
const HEAD: &str = "# What is revoked, kept by turnstone over its restarts; `turnstone revoke` changes it.\n";

/// What is revoked, and where that is kept.
pub(super) struct Revoker {
    pub(super) revocations: Arc<Revocations>,
    /// Where it is put for all servers of a fleet.
    pub(super) shared: Option<Arc<SharedRevocations>>,
    default_realm: Mutex<Arc<str>>,
    /// What was asked for; of a fleet, what has changed here since the other file was written.
    asked_for: Option<Arc<StateFile>>,
    /// All that a fleet knows, and how that stands. It may be much, and changes with each change of any server.
    stored: Option<Arc<StateFile>>,
    stored_has_changed: AtomicBool,
    stored_has_failed: AtomicBool,
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
    /// How many times it was to be written, and which of them was done last.
    changes: AtomicU64,
    written: Mutex<u64>,
}

/// What a line of a state file says.
enum Line {
    Plain(Revocation),
    Entry(EntryId, Entry),
}

/// What was of a store that is not configured any more, by the texts of its ids.
type OfStore = BTreeMap<String, (EntryId, Entry)>;

impl Revoker {
    /// Takes over what was revoked before, and what the file lists. Nothing of the kept state stops the server: what is wrong with it is
    /// told, and set aside.
    pub(super) fn load(config: &Config, revocations: Arc<Revocations>, shared: Option<Arc<SharedRevocations>>) -> Self {
        let [asked_for, stored] = [FILE, STORED_FILE].map(|name| StateFile::of(config, name).map(Arc::new));
        let revoker = Self {
            revocations,
            shared,
            default_realm: Mutex::new(config.auth.realm.as_str().into()),
            asked_for,
            stored,
            stored_has_changed: AtomicBool::new(false),
            stored_has_failed: AtomicBool::new(false),
        };
        if let Some((asked_for, stored)) = revoker.asked_for.as_deref().zip(revoker.stored.as_deref()) {
            revoker.take_over(config, asked_for, stored);
        }
        revoker.list(&config.auth.revocations);
        revoker
    }

    fn take_over(&self, config: &Config, asked_for: &StateFile, stored: &StateFile) {
        let mut has_changed = false;
        // What was known of a store that is not configured any more stays revoked: from now on as if it had been asked for here.
        let mut of_store = BTreeMap::new();
        // Beside a store, one has what changed last, and is written over: the other one must have that first.
        for (state, is_late) in [(stored, false), (asked_for, self.shared.is_some())] {
            match state.read(config) {
                Ok((lines, is_damaged)) => {
                    has_changed |= is_damaged;
                    let take = |before, line| Ok(self.take_line(line, &mut of_store)? || is_late || before);
                    match lines.into_iter().try_fold(false, take) {
                        Ok(has_any) => has_changed |= has_any,
                        Err(error) => state.tell(&io::Error::other::<TooManyRevocations>(error)),
                    }
                }
                Err(error) => state.tell(&error),
            }
        }
        if let Err(error) = of_store.values().try_for_each(|(id, entry)| self.take_entry(id, entry)) {
            asked_for.tell(&io::Error::other::<TooManyRevocations>(error));
        }
        if let Some(shared) = &self.shared {
            shared.known().put_in_force(unix_now());
        }
        if !has_changed {
            return;
        }
        let written = match &self.shared {
            // What the other one lists is in this one first.
            Some(shared) => {
                let (lines, recent) = shared.known().lines();
                write_whole(&stored.path, &lines).and_then(|()| {
                    shared.known().are_written(&recent);
                    write_whole(&asked_for.path, &[])
                })
            }
            None => write_whole(&asked_for.path, &self.lines()).and_then(|()| match stored.path.exists() {
                true => write_whole(&stored.path, &[]),
                false => Ok(()),
            }),
        };
        if let Err(error) = written {
            tracing::error!(path = %asked_for.path.display(), %error, "what is revoked cannot be kept");
        }
    }

    /// Returns whether it has to be written in another way. What was of a store is made one of both files: one may know that it is undone.
    fn take_line(&self, line: Line, of_store: &mut OfStore) -> Result<bool, TooManyRevocations> {
        match (&self.shared, line) {
            (Some(shared), Line::Entry(id, entry)) => {
                shared.known().restore(&id, entry);
                Ok(false)
            }
            (Some(shared), Line::Plain(revocation)) => shared.revoke(&revocation, Asker::Operator).map(|_| true),
            (None, Line::Plain(revocation)) => self.revocations.add(&revocation).map(|_| false),
            (None, Line::Entry(id, entry)) => {
                let (_, known) = of_store.entry(id.text()).or_insert((id, Entry::default()));
                *known = known.merged(entry);
                Ok(true)
            }
        }
    }

    /// Puts in force what was of a store.
    fn take_entry(&self, id: &EntryId, entry: &Entry) -> Result<(), TooManyRevocations> {
        let realm = Some(Arc::clone(&id.realm)).filter(|realm| **realm != *self.default_realm());
        for (issued_before, until_unix) in entry.terms().filter(|(_, until_unix)| *until_unix > unix_now()) {
            let (realm, whose) = (realm.clone(), id.whose.clone());
            self.revocations.add(&Revocation { realm, whose, issued_before, until_unix })?;
        }
        Ok(())
    }

    /// Revokes something, in force at once. Returns what is in force of the same.
    ///
    /// # Errors
    /// There is no room.
    pub(super) fn revoke(&self, revocation: &Revocation, asker: Asker) -> Result<Revocation, TooManyRevocations> {
        match &self.shared {
            Some(shared) => shared.revoke(revocation, asker),
            None => self.revocations.add(revocation),
        }
    }

    /// Undoes it at once. Returns how much that was.
    pub(super) fn undo(&self, realm: Option<&str>, whose: &Revoked) -> usize {
        match &self.shared {
            Some(shared) => shared.undo(realm, whose),
            None => self.revocations.remove(realm, whose),
        }
    }

    /// Whether the store has what is known here of somebody, if there is one.
    pub(super) fn is_shared(&self, realm: Option<&str>, whose: &Revoked) -> Option<bool> {
        self.shared.as_ref().map(|shared| shared.is_shared(realm, whose))
    }

    /// Puts what the file lists in force, in place of what it listed before.
    pub(super) fn list(&self, listed: &[Revocation]) {
        if let Err(error) = self.revocations.replace_listed(listed) {
            tracing::error!(%error, "the list of [auth] revocations is not in force");
        }
    }

    /// The realm of `[auth]` has another name: what is revoked stays so in the realm that it was revoked in.
    pub(super) fn set_default_realm(&self, name: &str) {
        let mut default_realm = self.default_realm.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *default_realm, name.into());
        if *before == *name {
            return;
        }
        match &self.shared {
            Some(shared) => shared.set_default_realm(name),
            None => self.revocations.rename_default(&before, name),
        }
    }

    /// Puts what is in force now where it outlives the server: into the store, if there is one, and into the state directory.
    pub(super) async fn keep(&self) -> Kept {
        self.stored_has_changed();
        let publish = async {
            let Some(shared) = &self.shared else { return false };
            shared.publish().await;
            shared.known().is_all_given()
        };
        let write = async {
            let state = self.asked_for.as_ref()?;
            Some(state.write(|| self.lines()).await.map_err(|error| format!("{}: {error}", state.path.display())))
        };
        match tokio::join!(publish, write) {
            (_, Some(Err(problem))) => Kept::Failed(problem),
            (_, Some(Ok(()))) | (true, None) => Kept::Yes,
            (false, None) => Kept::Nowhere,
        }
    }

    /// What a fleet knows is not what it was.
    pub(super) fn stored_has_changed(&self) {
        self.stored_has_changed.store(true, Ordering::Release);
    }

    /// Writes what a fleet knows into the state directory, if that has changed.
    pub(super) async fn keep_stored(&self) {
        let (Some(shared), Some(state)) = (&self.shared, &self.stored) else { return };
        if !self.stored_has_changed.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut recent = Vec::new();
        let lines = || {
            let (lines, written) = shared.known().lines();
            recent = written;
            lines
        };
        match state.write(lines).await {
            Ok(()) => {
                shared.known().are_written(&recent);
                self.stored_has_failed.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                self.stored_has_changed();
                if !self.stored_has_failed.swap(true, Ordering::Relaxed) {
                    tracing::error!(path = %state.path.display(), %error, "what other servers have revoked is forgotten at a restart without the store; it is written as soon as that can be");
                }
            }
        }
    }

    /// What was asked for, each with the name of its realm; of a fleet, what has changed here of late.
    fn lines(&self) -> Vec<String> {
        if let Some(shared) = &self.shared {
            return shared.known().recent_lines();
        }
        let default_realm = self.default_realm();
        let line = |revocation: &Revocation| {
            let mut written = WrittenRevocation::from(revocation);
            written.realm.get_or_insert_with(|| default_realm.to_string());
            written.line()
        };
        self.revocations.asked_for().iter().map(line).collect()
    }

    fn default_realm(&self) -> Arc<str> {
        Arc::clone(&self.default_realm.lock().unwrap_or_else(PoisonError::into_inner))
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
    fn of(config: &Config, name: &str) -> Option<Self> {
        let path = config.state_directory.as_deref()?.join(name);
        Some(Self { path, changes: AtomicU64::new(0), written: Mutex::new(0) })
    }

    /// Writes everything, unless who came later has.
    async fn write(self: &Arc<Self>, lines: impl FnOnce() -> Vec<String>) -> io::Result<()> {
        let change = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        let (lines, this) = (lines(), Arc::clone(self));
        let write = move || {
            let mut written = this.written.lock().unwrap_or_else(PoisonError::into_inner);
            if *written < change {
                write_whole(&this.path, &lines)?;
                *written = change;
            }
            Ok(())
        };
        on_disk("revocations", write).await
    }

    /// Reads what is kept, but for what is over; and whether some of it is damaged, which is set aside.
    fn read(&self, config: &Config) -> io::Result<(Vec<Line>, bool)> {
        let path = &self.path;
        if let Err(error) = fs::symlink_metadata(path) {
            return if error.kind() == ErrorKind::NotFound { Ok((Vec::new(), false)) } else { Err(error) };
        }
        let now_unix = unix_now();
        let mut problems = Vec::new();
        let mut lines = read_lines(path, BELIEVED_MAX, &mut problems, |line| match entry_of_line(line) {
            Some(read) => read.map(|(id, entry)| Line::Entry(id, entry)),
            None => {
                revocation(config, &WrittenRevocation::of_line(line)?, WrittenBy::Server, now_unix).map(Line::Plain)
            }
        });
        lines.retain(|line| !matches!(line, Line::Plain(revocation) if revocation.until_unix <= now_unix));
        if problems.is_empty() {
            return Ok((lines, false));
        }
        let aside = path.with_extension("damaged");
        for problem in &problems {
            tracing::error!(%problem, aside = %aside.display(), "a revocation of before is damaged and not in force");
        }
        fs::rename(path, &aside)?;
        Ok((lines, true))
    }

    fn tell(&self, error: &io::Error) {
        tracing::error!(path = %self.path.display(), %error, "the revocations of before cannot be read, and are not in force");
    }
}

/// The file changes as a whole, and is on the disk when this is over.
fn write_whole(path: &Path, lines: &[String]) -> io::Result<()> {
    replace(path, |out| {
        out.write_all(HEAD.as_bytes())?;
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))
    })
}
