//! Who may read the secrets, and who may change what the server reads.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::{Readers, judge_mode};
use crate::probe::{Status, Step};

use super::finding;

const STICKY: u32 = 0o1000;

/// What a file is to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Configuration,
    /// A shared secret, a password, a list of users.
    Secret,
    /// The TLS key.
    Key,
}

/// Modes and owners of a file and of the directory that it is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    mode: u32,
    uid: u32,
    directory_mode: u32,
    directory_uid: u32,
}

impl State {
    /// Of the file that a link leads to; `None` where there is none, which others complain about.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let path = std::fs::canonicalize(path).ok()?;
        let (file, directory) = (std::fs::metadata(&path).ok()?, std::fs::metadata(path.parent()?).ok()?);
        Some(Self {
            mode: file.mode(),
            uid: file.uid(),
            directory_mode: directory.mode(),
            directory_uid: directory.uid(),
        })
    }
}

/// `readers` are those who may read secrets, `trusted` the users who have all of it anyway: root, the server's own, and who runs the doctor.
pub(super) fn judge(path: &Path, kind: Kind, state: State, readers: Readers, trusted: &[u32]) -> Vec<Step> {
    let shown = path.display();
    let mut steps = Vec::new();
    let mut found = |status, message: String| steps.push(finding("files", status, message));
    if kind != Kind::Configuration
        && let Err(problem) =
            judge_mode(path, state.mode, if kind == Kind::Key { readers.max(Readers::Group) } else { readers })
    {
        found(Status::Fail, problem.to_string());
    } else if state.mode & 0o022 != 0 {
        let mode = state.mode & 0o7777;
        found(
            Status::Warn,
            format!("others than its owner may change {shown} (mode {mode:04o}); run: chmod go-w {shown}"),
        );
    }
    if !trusted.contains(&state.uid) {
        let uid = state.uid;
        found(
            Status::Warn,
            format!("{shown} belongs to user {uid}, who is neither root nor the server; run: chown root {shown}"),
        );
    }
    // In a sticky directory only a file's owner can replace it.
    let open = state.directory_mode & 0o022 != 0 && state.directory_mode & STICKY == 0;
    if open || !trusted.contains(&state.directory_uid) {
        let (mode, uid) = (state.directory_mode & 0o7777, state.directory_uid);
        found(
            Status::Warn,
            format!("others may replace {shown}: its directory has mode {mode:04o} and belongs to user {uid}"),
        );
    }
    if steps.is_empty() {
        let who = match (kind, readers) {
            (Kind::Configuration, _) => "changed",
            (_, Readers::Owner) => "read and changed",
            (_, Readers::Group | Readers::Everybody) => "changed",
        };
        steps.push(finding("files", Status::Ok, format!("{shown} can be {who} by nobody else")));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: State = State { mode: 0o100_600, uid: 0, directory_mode: 0o40_750, directory_uid: 0 };

    fn judged(kind: Kind, state: State) -> Vec<(Status, String)> {
        judge(Path::new("/etc/f"), kind, state, Readers::Owner, &[0, 990])
            .into_iter()
            .map(|s| (s.status, s.message))
            .collect()
    }

    #[test]
    fn files_that_nobody_else_can_touch_are_ok() {
        for kind in [Kind::Configuration, Kind::Secret, Kind::Key] {
            assert_eq!(judged(kind, GOOD)[0].0, Status::Ok);
            assert_eq!(judged(kind, State { uid: 990, directory_mode: 0o41_777, ..GOOD }).len(), 1);
        }
        assert_eq!(judged(Kind::Key, State { mode: 0o100_640, ..GOOD })[0].0, Status::Ok);
        assert_eq!(judged(Kind::Configuration, State { mode: 0o100_644, ..GOOD })[0].0, Status::Ok);
    }

    #[test]
    fn wide_modes_foreign_owners_and_open_directories_are_named() {
        for (kind, state, status, words) in [
            (Kind::Secret, State { mode: 0o100_640, ..GOOD }, Status::Fail, "open to its group (mode 0640)"),
            (Kind::Key, State { mode: 0o100_644, ..GOOD }, Status::Fail, "chmod 640"),
            (Kind::Configuration, State { mode: 0o100_664, ..GOOD }, Status::Warn, "chmod go-w"),
            (Kind::Secret, State { uid: 1000, ..GOOD }, Status::Warn, "belongs to user 1000"),
            (Kind::Key, State { directory_mode: 0o40_777, ..GOOD }, Status::Warn, "may replace /etc/f"),
            (Kind::Key, State { directory_uid: 1000, ..GOOD }, Status::Warn, "may replace /etc/f"),
        ] {
            let found = judged(kind, state);
            assert!(found.len() == 1 && found[0].0 == status && found[0].1.contains(words), "{found:?}");
        }
    }
}
