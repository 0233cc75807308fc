//! Secrets come from a file, an environment variable or the service manager; never from a file that others can read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::denied::{Wanted, why};

/// The shortest shared secret accepted, in bytes (128 bits, if random).
pub const SECRET_BYTES_MIN: usize = 16;

/// The largest file with a secret that is read, in MiB. One line is what there is in most of them.
const FILE_MIB_MAX: u64 = 1;
/// The same for a file of users: some hundred thousand, which take a second to read and to prepare.
const USERS_FILE_MIB_MAX: u64 = 16;

/// Who may read a file that holds a secret, `secret-files-readable-by` in the configuration: containers give their secrets modes
/// that no host should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readers {
    /// Its owner alone.
    #[default]
    Owner,
    /// Its group, too: Kubernetes with fsGroup makes 0440.
    Group,
    /// Everybody: Docker makes 0444.
    Everybody,
}

impl Readers {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Group => "group",
            Self::Everybody => "everybody",
        }
    }

    /// Those whom a variable names; the owner alone without one, or with one that makes no sense.
    pub fn of_variable(value: Option<&str>) -> Self {
        value.and_then(|text| Self::parse(text).ok()).unwrap_or_default()
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let all = [Self::Owner, Self::Group, Self::Everybody];
        all.into_iter().find(|readers| readers.name() == text).ok_or_else(|| format!("{text:?} is none of them"))
    }
}

/// Reads a file that holds a secret: a shared secret, a password, a token. Bounded to 1 MiB.
///
/// A credential that the service manager handed over may show group bits, which stand for the ACL that lets the service's
/// own user read it; any other file is for those who `readers` says.
///
/// # Errors
/// Why it is refused, with the mode and the fix.
pub fn read_private_file(
    path: &Path,
    credentials_directory: Option<&Path>,
    readers: Readers,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let is_credential = credentials_directory.is_some_and(|directory| path.parent() == Some(directory));
    let readers = if is_credential { readers.max(Readers::Group) } else { readers };
    read(path, readers, FILE_MIB_MAX)
}

/// Reads a list of users, as [`read_private_file`] does.
pub(super) fn read_users_file(path: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, String> {
    read(path, readers, USERS_FILE_MIB_MAX)
}

/// Reads a private key's file, which its group may always read, as tools that renew certificates arrange it.
pub(super) fn read_key_file(path: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, String> {
    read(path, readers.max(Readers::Group), FILE_MIB_MAX)
}

fn read(path: &Path, readers: Readers, mib_max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let shown = path.display();
    let cannot_read = |error: std::io::Error| format!("cannot read {shown}: {}", why(path, Wanted::Secret, &error));
    let mut file = File::open(path).map_err(cannot_read)?;
    let metadata = file.metadata().map_err(cannot_read)?;
    if metadata.is_dir() {
        return Err(format!("{shown} is a directory"));
    }
    if let Some(refusal) = open_to_others(path, metadata.permissions().mode(), readers) {
        return Err(refusal);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let bytes_max = mib_max << 20;
    let read = file.by_ref().take(bytes_max + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if read as u64 > bytes_max {
        return Err(format!("{shown} is larger than {mib_max} MiB"));
    }
    Ok(bytes)
}

/// Says why a file's mode is refused, or `None`.
fn open_to_others(path: &Path, mode: u32, readers: Readers) -> Option<String> {
    // Whoever may read it, nobody but its owner may write to it.
    let group = mode & if readers == Readers::Owner { 0o060 } else { 0o020 } != 0;
    let everybody = mode & if readers == Readers::Everybody { 0o002 } else { 0o006 } != 0;
    let who = match (group, everybody) {
        (false, false) => return None,
        (true, false) => "its group",
        (false, true) => "everybody",
        (true, true) => "its group and everybody",
    };
    let (mode, shown) = (mode & 0o7777, path.display());
    let fix = match readers {
        Readers::Owner => "600",
        Readers::Group => "640",
        Readers::Everybody => "644",
    };
    // Nobody may write to it: the mode is a container's doing, and not for us to change.
    let accept = match (mode & 0o222, mode & 0o004) {
        (0, 0) => "; or accept what a container makes so: secret-files-readable-by = \"group\"",
        (0, _) => "; or accept what a container makes so: secret-files-readable-by = \"everybody\"",
        _ => "",
    };
    Some(format!("{shown} is open to {who} (mode {mode:04o}); run: chmod {fix} {shown}{accept}"))
}

/// What a file's mode has against it, for a file that these may read.
///
/// # Errors
/// Who else may, and the fix.
pub fn judge_mode(path: &Path, mode: u32, readers: Readers) -> Result<(), String> {
    open_to_others(path, mode, readers).map_or(Ok(()), Err)
}

/// Takes one line end off the end of a secret: editors and `echo` put it there.
pub fn trim_line_end(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

/// Checks a shared secret.
///
/// # Errors
/// It is too short.
pub fn check_secret(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "the secret has {} bytes; it needs at least {SECRET_BYTES_MIN} (make one with: openssl rand -hex 32)",
            bytes.len()
        ));
    }
    Ok(())
}

/// An I/O error without the `(os error N)` tail.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((message, _)) => message.to_lowercase(),
        None => text,
    }
}
