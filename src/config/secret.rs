//! Secrets come from a file, an environment variable or the service manager; never from a file that others can read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::denied::{Wanted, why};
use super::error::ValueError;
use super::value::{Choices, name_of};
use crate::regular_file;

/// The shortest shared secret accepted, in bytes (128 bits, if random).
pub const SECRET_BYTES_MIN: usize = 16;

/// The largest file with a secret that is read, in MiB. One line is what there is in most of them.
const FILE_MIB_MAX: u64 = 1;
/// The same for a file of users: two million with both keys of each, five with passwords.
pub(super) const USERS_FILE_MIB_MAX: u64 = 256;

const WEBHOOK_TOKEN_BYTES_MAX: usize = 4096;

/// Why a secret is refused; never with a word of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Its file cannot be read: why, in words, and what helps.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, String),
    /// In place of its file there is a directory.
    #[error("{} is a directory", .0.display())]
    Directory(PathBuf),
    /// Others than those who may have it can read or change its file.
    #[error("{} is open to {who} (mode {mode:04o}); run: chmod {fix} {}{accept}", .path.display(), .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Who can.
        who: &'static str,
        /// The permissions.
        mode: u32,
        /// The permissions that it should have.
        fix: &'static str,
        /// How it can be accepted as it is, where it can.
        accept: &'static str,
    },
    /// Its file is larger than so many MiB.
    #[error("{} is larger than {} MiB", .0.display(), .1)]
    TooLarge(PathBuf, u64),
    /// It could be guessed: its length in bytes.
    #[error("the secret has {0} bytes; it needs at least {SECRET_BYTES_MIN} (make one with: openssl rand -hex 32)")]
    TooShort(usize),
    /// A token that does not fit into a header.
    #[error("it has characters other than printable ASCII without spaces")]
    Characters,
    /// It is in the configuration, a file of this name and these permissions.
    #[error("a secret is written in a file that everybody can read (mode {1:04o}); run: chmod 600 {0}")]
    Inline(String, u32),
    /// A credential of this name, and nobody who hands one over.
    #[error(
        "credential {0:?} needs CREDENTIALS_DIRECTORY, which systemd sets for LoadCredential={0}:...; for commands outside of the \
         service, name its file beside it, too"
    )]
    NoCredentials(String),
    /// There is no variable of this name.
    #[error("the variable {0} is not set")]
    NoVariable(String),
}

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
    const NAMES: &Choices<Self> = &[("owner", Self::Owner), ("group", Self::Group), ("everybody", Self::Everybody)];

    /// As it is written.
    pub fn name(self) -> &'static str {
        name_of(Self::NAMES, &self).unwrap_or_default()
    }

    /// Those whom a variable names; the owner alone without one, or with one that makes no sense.
    pub fn of_variable(value: Option<&str>) -> Self {
        value.and_then(|text| Self::parse(text).ok()).unwrap_or_default()
    }

    pub(super) fn parse(text: &str) -> Result<Self, ValueError> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, readers)| *readers).ok_or_else(|| ValueError::unfit(text, "none of them"))
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
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let is_credential = credentials_directory.is_some_and(|directory| path.parent() == Some(directory));
    let readers = if is_credential { readers.max(Readers::Group) } else { readers };
    read(open(path, readers)?, path, FILE_MIB_MAX)
}

/// The same for a command, whose user may as well name a pipe: nobody else waits for it.
///
/// # Errors
/// Why it is refused, with the mode and the fix.
pub fn read_private_input(path: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    read(judged(file, path, readers)?, path, FILE_MIB_MAX)
}

/// Opens a list of users, which is judged as [`read_private_file`] does, and read line by line.
pub(super) fn open_users_file(path: &Path, readers: Readers) -> Result<File, SecretError> {
    let file = open(path, readers)?;
    let length = file.metadata().map_err(|error| unreadable(path, &error))?.len();
    if length > USERS_FILE_MIB_MAX << 20 {
        return Err(SecretError::TooLarge(path.to_owned(), USERS_FILE_MIB_MAX));
    }
    Ok(file)
}

/// Reads a private key's file, which its group may always read, as tools that renew certificates arrange it.
pub(super) fn read_key_file(path: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    read(open(path, readers.max(Readers::Group))?, path, FILE_MIB_MAX)
}

/// A file of secrets cannot be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> SecretError {
    SecretError::Unreadable(path.to_owned(), why(path, Wanted::Secret, error))
}

fn open(path: &Path, readers: Readers) -> Result<File, SecretError> {
    let file = regular_file::open(path).map_err(|error| unreadable(path, &error))?;
    judged(file, path, readers)
}

fn judged(file: File, path: &Path, readers: Readers) -> Result<File, SecretError> {
    let cannot_read = |error: std::io::Error| unreadable(path, &error);
    let metadata = file.metadata().map_err(cannot_read)?;
    if metadata.is_dir() {
        return Err(SecretError::Directory(path.to_owned()));
    }
    judge_mode(path, metadata.permissions().mode(), readers)?;
    Ok(file)
}

fn read(file: File, path: &Path, mib_max: u64) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let cannot_read = |error: std::io::Error| unreadable(path, &error);
    let mut bytes = Zeroizing::new(Vec::new());
    let bytes_max = mib_max << 20;
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if read as u64 > bytes_max {
        return Err(SecretError::TooLarge(path.to_owned(), mib_max));
    }
    Ok(bytes)
}

/// What a file's mode has against it, for a file that these may read.
///
/// # Errors
/// Who else may, and the fix.
pub fn judge_mode(path: &Path, mode: u32, readers: Readers) -> Result<(), SecretError> {
    // Whoever may read it, nobody but its owner may write to it.
    let group = mode & if readers == Readers::Owner { 0o060 } else { 0o020 } != 0;
    let everybody = mode & if readers == Readers::Everybody { 0o002 } else { 0o006 } != 0;
    let who = match (group, everybody) {
        (false, false) => return Ok(()),
        (true, false) => "its group",
        (false, true) => "everybody",
        (true, true) => "its group and everybody",
    };
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
    Err(SecretError::Open { path: path.to_owned(), who, mode: mode & 0o7777, fix, accept })
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
pub fn check_secret(bytes: &[u8]) -> Result<(), SecretError> {
    if bytes.len() < SECRET_BYTES_MIN { Err(SecretError::TooShort(bytes.len())) } else { Ok(()) }
}

/// The token of the admin API, at least 16 bytes. Never printed.
#[derive(Clone)]
pub struct AdminToken(Zeroizing<Vec<u8>>);

impl AdminToken {
    /// A token of these bytes.
    ///
    /// # Errors
    /// It is too short, or does not fit into the header of a request.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, SecretError> {
        check_secret(&bytes)?;
        match bytes.iter().all(u8::is_ascii_graphic) {
            true => Ok(Self(bytes)),
            false => Err(SecretError::Characters),
        }
    }

    /// Whether these bytes are the token; how long the comparison takes tells only their number.
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.0.ct_eq(bytes).into()
    }

    /// Its bytes, for a client on this host.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for AdminToken {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for AdminToken {}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

/// The webhook's token.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookToken(Zeroizing<String>);

impl WebhookToken {
    /// A token of these bytes; `None` if no header may have it.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let is_fit = matches!(bytes.len(), 1..=WEBHOOK_TOKEN_BYTES_MAX) && bytes.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(bytes).ok().filter(|_| is_fit)?;
        Some(Self(Zeroizing::new(text.to_owned())))
    }

    /// The token, for a header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WebhookToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookToken(..)")
    }
}
