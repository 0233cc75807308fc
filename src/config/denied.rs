//! Why a file or an address of the configuration cannot be used: in words, with what helps, and whether trying again would.

use std::fmt;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// What a file was wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To be read by whoever is in its group, too.
    Read,
    /// To be read by its owner alone.
    Secret,
    /// To be made or written.
    Write,
}

/// What the server cannot do without.
#[derive(Clone, Debug)]
pub struct Unusable {
    /// The key in `turnserver.toml` that asks for it, with its section.
    pub key: &'static str,
    /// What cannot be used, why, and what helps.
    pub message: String,
    /// Whether it stays so until somebody changes something: trying again does not help.
    pub lasts: bool,
}

impl Unusable {
    pub(crate) fn path(key: &'static str, path: &Path, wanted: Wanted, error: &Error) -> Self {
        let message = format!("{}: {}", path.display(), why(path, wanted, error));
        Self { key, message, lasts: lasts(error) }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Whether an error is the machine's or the file's state rather than a matter of time.
pub(crate) fn lasts(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
    )
}

/// The error in words; for the two that operators meet, who is kept from what, and what helps.
pub(crate) fn why(path: &Path, wanted: Wanted, error: &Error) -> String {
    why_not(&own_name(), path, wanted, error)
}

/// The same, in a thread that has the access to files of this user.
pub(crate) fn why_not(user: &str, path: &Path, wanted: Wanted, error: &Error) -> String {
    let reason = plain(error);
    let shown = path.display();
    let directory = directory_of(path);
    match error.kind() {
        ErrorKind::PermissionDenied => {
            if let Some(closed) = closed_directory(path) {
                let closed = closed.display();
                return format!(
                    "{reason}: user {user} may not enter {closed}; keep it where that user may, such as in /etc/turnstone"
                );
            }
            match wanted {
                Wanted::Read => {
                    format!("{reason}: user {user} may not read it; run: chgrp {user} {shown} && chmod g+r {shown}")
                }
                Wanted::Secret => format!(
                    "{reason}: user {user} may not read it; run: chown {user} {shown}, or load it as a systemd credential \
                     (LoadCredential=)"
                ),
                Wanted::Write if path.exists() => {
                    format!("{reason}: user {user} may not write to it; run: chown {user} {shown}")
                }
                Wanted::Write => {
                    let directory = directory.display();
                    format!("{reason}: user {user} may make no file in {directory}; run: chown {user} {directory}")
                }
            }
        }
        ErrorKind::ReadOnlyFilesystem => format!(
            "{reason}: under systemd only the directories that the unit names are writable (/run/turnstone, /var/log/turnstone, \
             /var/lib/turnstone); use one of them, or systemctl edit turnstone: [Service] ReadWritePaths={}",
            directory.display()
        ),
        ErrorKind::NotFound if wanted == Wanted::Write && !directory.exists() => {
            format!("{reason}: its directory {} is not there", directory.display())
        }
        _ => reason,
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The first directory on the way to a file that this process may not enter.
fn closed_directory(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let mut directories: Vec<_> = path.ancestors().skip(1).collect();
    directories.reverse();
    // Looking for itself in it. access(2) would ask for the user that this process really has, not for the one that it acts for.
    let is_closed = |directory: &Path| {
        std::fs::metadata(directory.join(".")).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    directories.into_iter().find(|directory| is_closed(directory)).map(Path::to_owned)
}

/// The user that this process runs as, by name where there is one.
fn own_name() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid.as_str())).then(|| name.to_owned())
    });
    name.unwrap_or(uid)
}

/// An I/O error without the `(os error N)` tail.
fn plain(error: &Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((message, _)) => message.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_help_by_itself_lasts_and_says_what_helps() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = |number| Error::from_raw_os_error(number);
        let text = why(file.path(), Wanted::Write, &error(libc::EROFS));
        assert!(text.starts_with("read-only file system: ") && text.contains("ReadWritePaths="), "{text}");
        let text = why(file.path(), Wanted::Secret, &error(libc::EACCES));
        let shown = format!("run: chown {} {}", own_name(), file.path().display());
        assert!(text.contains("may not read it") && text.contains(&shown), "{text}");
        let text = why(Path::new("/nonexistent/a/b"), Wanted::Write, &error(libc::ENOENT));
        assert_eq!(text, "no such file or directory: its directory /nonexistent/a is not there");
        for number in [libc::EACCES, libc::EROFS, libc::ENOENT, libc::ENOTDIR] {
            assert!(lasts(&error(number)), "{number}");
        }
        for number in [libc::EADDRINUSE, libc::EADDRNOTAVAIL, libc::EMFILE, libc::ENOSPC, libc::ENOMEM] {
            assert!(!lasts(&error(number)), "{number}");
        }
    }
}
