//! Secrets come from a file, an environment variable or the service manager; never from a file that others can read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Source;

/// The shortest shared secret accepted, in bytes (128 bits, if random).
pub const SECRET_BYTES_MIN: usize = 16;

const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who besides its owner may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    Nobody,
    Group,
}

/// Reads a file that holds a secret: a shared secret, a password, a list of users. Bounded to 1 MiB.
///
/// A credential that the service manager handed over may show group bits, which stand for the ACL that lets the service's
/// own user read it; anywhere else the file must be its owner's alone.
///
/// # Errors
/// Why it is refused, with the mode and the fix.
pub fn read_private_file(path: &Path, credentials_directory: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, String> {
    let is_credential = credentials_directory.is_some_and(|directory| path.parent() == Some(directory));
    read(path, if is_credential { Readers::Group } else { Readers::Nobody })
}

/// Reads a private key's file, which its group may read, as tools that renew certificates arrange it.
pub(super) fn read_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    read(path, Readers::Group)
}

fn read(path: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, String> {
    let shown = path.display();
    let cannot_read = |error: std::io::Error| format!("cannot read {shown}: {}", plain(&error));
    let mut file = File::open(path).map_err(cannot_read)?;
    let metadata = file.metadata().map_err(cannot_read)?;
    if metadata.is_dir() {
        return Err(format!("{shown} is a directory"));
    }
    if let Some(refusal) = open_to_others(path, metadata.permissions().mode(), readers) {
        return Err(refusal);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let read = file.by_ref().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(format!("{shown} is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Says why a file's mode is refused, or `None`.
fn open_to_others(path: &Path, mode: u32, readers: Readers) -> Option<String> {
    let group = mode & 0o060 != 0 && readers == Readers::Nobody;
    let who = match (group, mode & 0o006 != 0) {
        (false, false) => return None,
        (true, false) => "its group",
        (false, true) => "everybody",
        (true, true) => "its group and everybody",
    };
    let (mode, shown) = (mode & 0o7777, path.display());
    let fix = if readers == Readers::Group { "640" } else { "600" };
    Some(format!("{shown} is open to {who} (mode {mode:04o}); run: chmod {fix} {shown}"))
}

/// What a file's mode has against it, for a file that only its owner may read, or with `group_may_read` its group, too.
///
/// # Errors
/// Who else may, and the fix.
pub fn judge_mode(path: &Path, mode: u32, group_may_read: bool) -> Result<(), String> {
    let readers = if group_may_read { Readers::Group } else { Readers::Nobody };
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

impl Source {
    /// The files that it takes secrets, passwords and users from, as far as it can be read at all.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let Ok(file) = self.text.parse::<toml::Table>() else { return Vec::new() };
        let auth = file.get("auth").and_then(toml::Value::as_table);
        let tables = |list: &str, key: &'static str| {
            let list = auth.and_then(|auth| auth.get(list)).and_then(toml::Value::as_array).cloned();
            list.unwrap_or_default().into_iter().filter_map(move |table| table.get(key).cloned())
        };
        let users_file = auth.and_then(|auth| auth.get("users-file")).cloned();
        let token = |section: &str, key: &str| file.get(section)?.get(key).cloned();
        tables("secrets", "file")
            .chain(tables("users", "password-file"))
            .chain(users_file)
            .chain(token("admin", "token-file"))
            .chain(token("usage", "webhook-token-file"))
            .filter_map(|path| Some(self.directory.join(path.as_str()?)))
            .collect()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_secrets_and_users_are_found_wherever_the_file_is() {
        let text = r#"
            [auth]
            users-file = "/var/lib/users"
            [[auth.secrets]]
            id = "a"
            credential = "secret"
            file = "secret"
            [[auth.secrets]]
            id = "b"
            env = "SECRET"
            [[auth.users]]
            name = "alice"
            password-file = "alice"
            [admin]
            token-file = "admin-token"
            [usage]
            webhook-token-file = "webhook-token"
        "#;
        let source = Source { text: text.to_owned(), directory: PathBuf::from("/etc/turnstone"), ..Source::default() };
        let expected = ["secret", "alice", "/var/lib/users", "admin-token", "webhook-token"];
        assert_eq!(source.secret_files(), expected.map(|path| source.directory.join(path)));
        for text in ["", "auth = 1", "[[auth", "[auth]\nsecrets = 3\nusers = [1]"] {
            assert!(Source { text: text.to_owned(), ..Source::default() }.secret_files().is_empty(), "{text}");
        }
    }
}
