//! Where the admin API of a `serve --dev` is, so that `turnstone status` finds it: a socket in a folder of this user's own, named by
//! the process.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;

use crate::net::connect_unix;

/// Who has no room for a connection for so long hangs.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// The socket for this process, in a folder that is there now; sockets that nobody listens on any more are removed. `None` where
/// there is no folder that only this user can write to.
pub(super) fn make() -> Option<PathBuf> {
    let folder = folder();
    // What counts is what is there then.
    let _ = DirBuilder::new().mode(0o700).create(&folder);
    if !is_private(&folder) {
        return None;
    }
    for (path, _) in sockets(&folder).into_iter().filter(|(_, is_alive)| !is_alive) {
        let _ = std::fs::remove_file(path);
    }
    Some(folder.join(format!("{}.sock", std::process::id())))
}

/// The sockets that somebody listens on.
pub(super) fn alive() -> Vec<PathBuf> {
    let folder = folder();
    if !is_private(&folder) {
        return Vec::new();
    }
    let mut alive: Vec<_> =
        sockets(&folder).into_iter().filter(|(_, is_alive)| *is_alive).map(|(path, _)| path).collect();
    alive.sort();
    alive
}

fn folder() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|runtime| runtime.is_absolute() && runtime.is_dir()) {
        Some(runtime) => runtime.join("turnstone-dev"),
        None => std::env::temp_dir().join(format!("turnstone-dev-{}", geteuid().as_raw())),
    }
}

/// Whether it is a folder, no link to one, and nobody else can put anything into it.
fn is_private(folder: &Path) -> bool {
    let found = std::fs::symlink_metadata(folder);
    found.is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0)
}

/// The sockets there, and whether somebody listens.
fn sockets(folder: &Path) -> Vec<(PathBuf, bool)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = entries.filter(|path| path.extension().is_some_and(|extension| extension == "sock"));
    named.map(|path| (path.clone(), is_alive(&path))).collect()
}

/// Whether somebody listens, be it one that takes no connection now.
fn is_alive(socket: &Path) -> bool {
    connect_unix(socket, CONNECT_LIMIT).map_or_else(|error| error.kind() == ErrorKind::TimedOut, |_| true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_a_folder_of_ones_own_is_trusted() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("own");
        DirBuilder::new().mode(0o700).create(&folder).unwrap();
        assert!(is_private(&folder));
        let link = place.path().join("link");
        symlink(&folder, &link).unwrap();
        assert!(!is_private(&link) && !is_private(&place.path().join("absent")));
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o770)).unwrap();
        assert!(!is_private(&folder));
    }
}
