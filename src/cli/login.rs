//! Who a client command is at a server: the flags for it, and what becomes of them.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::auth::{mint, prepare};
use crate::client::Credential;
use crate::config::read_private_input;
use crate::wall_clock::unix_now;

use super::input::{read_stdin, secret_readers};
use super::output::CliError;

/// How long a minted credential is valid, seconds.
const CREDENTIAL_SECS: u64 = 24 * 3600;

#[derive(Args)]
pub(super) struct Login {
    /// Username; with a shared secret, the part after the timestamp.
    #[arg(long, short)]
    user: Option<String>,
    /// Environment variable that holds the password.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["password_file", "secret_env", "secret_file"])]
    password_env: Option<String>,
    /// File that holds the password; nobody else may be able to read it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["secret_env", "secret_file"])]
    password_file: Option<PathBuf>,
    /// Environment variable that holds the shared secret of time-limited credentials.
    #[arg(long, value_name = "NAME", conflicts_with = "secret_file")]
    secret_env: Option<String>,
    /// File that holds the shared secret; nobody else may be able to read it. For the server's own machine: elsewhere, use
    /// --credential.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// File with what `turnstone credentials --json` prints, - for standard input: the secret stays on the server.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "password_env", "password_file", "secret_env", "secret_file"])]
    credential: Option<PathBuf>,
    /// Use SHA-256 where the server offers it (RFC 8489) instead of SHA-1 and MD5.
    #[arg(long)]
    sha256: bool,
}

impl Login {
    /// Whether SHA-256 is to be used.
    pub(super) fn sha256(&self) -> bool {
        self.sha256
    }

    /// The credential of the flags: a user and password, or one minted from a secret.
    ///
    /// # Errors
    /// When the flags do not fit together, or name what cannot be read.
    pub(super) fn credential(&self) -> Result<Option<Credential>, CliError> {
        if let Some(path) = &self.credential {
            return read_credential(path, self.sha256).map(Some);
        }
        let secret = read_secret(self.secret_env.as_deref(), self.secret_file.as_deref())?;
        let password = read_secret(self.password_env.as_deref(), self.password_file.as_deref())?;
        let (username, password) = match (secret, password, self.user.as_deref()) {
            (Some(secret), _, user) => {
                let expires = unix_now() + CREDENTIAL_SECS;
                let username = user.map_or(expires.to_string(), |user| format!("{expires}:{user}"));
                let password = mint(secret.as_bytes(), &username);
                (username, password)
            }
            (None, Some(password), Some(user)) => {
                let password = prepare(&password)
                    .map_err(|_| CliError::usage("the password has a character that passwords may not have"))?;
                (user.to_owned(), Zeroizing::new(password))
            }
            (None, Some(_), None) => return Err(CliError::usage("a password needs --user")),
            (None, None, Some(_)) => {
                return Err(CliError::usage("--user needs --password-env, --password-file or a shared secret"));
            }
            (None, None, None) => return Ok(None),
        };
        Ok(Some(Credential { username, password, sha256: self.sha256 }))
    }
}

/// The JSON of the TURN REST draft, as `turnstone credentials --json` prints it and applications hand it out.
#[derive(Deserialize)]
struct Printed {
    username: String,
    #[serde(alias = "credential")]
    password: String,
}

fn read_credential(path: &Path, sha256: bool) -> Result<Credential, CliError> {
    let (name, text) = match path == Path::new("-") {
        true => {
            let text =
                read_stdin().map_err(|error| CliError::usage(format_args!("--credential: standard input: {error}")))?;
            ("standard input".to_owned(), Zeroizing::new(text.into_bytes()))
        }
        false => (
            path.display().to_string(),
            read_private_input(path, secret_readers())
                .map_err(|problem| CliError::usage(format_args!("--credential: {problem}")))?,
        ),
    };
    let printed: Printed = serde_json::from_slice(&text).map_err(|_| {
        CliError::usage(format_args!(
            "--credential: {name} is not what turnstone credentials --json prints: an object with username and password"
        ))
    })?;
    let password = prepare(&printed.password)
        .map_err(|_| CliError::usage("--credential: the password has a character that passwords may not have"))?;
    Ok(Credential { username: printed.username, password: Zeroizing::new(password), sha256 })
}

/// A secret from a variable or from a file that only its owner may read.
pub(super) fn read_secret(variable: Option<&str>, file: Option<&Path>) -> Result<Option<Zeroizing<String>>, CliError> {
    if let Some(name) = variable {
        let value = std::env::var(name)
            .map_err(|error| CliError::usage(format_args!("environment variable {name}: {error}")))?;
        return Ok(Some(Zeroizing::new(value)));
    }
    let Some(path) = file else { return Ok(None) };
    let bytes = read_private_input(path, secret_readers()).map_err(CliError::usage)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| CliError::usage(format_args!("{}: is not text in UTF-8", path.display())))?;
    Ok(Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_credential_is_taken_as_printed_and_anything_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = dir.path().join("credential");
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            read_credential(&path, false)
                .map(|found| (found.username, found.password.to_string()))
                .map_err(|error| error.to_string())
        };
        let good = Ok(("9:a".to_owned(), "p".to_owned()));
        assert_eq!(read(r#"{"username":"9:a","password":"p","ttl":1,"uris":[]}"#), good);
        assert_eq!(read(r#"{"urls":[],"username":"9:a","credential":"p"}"#), good);
        for bad in ["", "[]", "{}", r#"{"username":"a"}"#] {
            assert!(read(bad).unwrap_err().contains("turnstone credentials --json"), "{bad}");
        }
    }

    #[test]
    fn a_secret_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "s3cret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_secret(None, Some(&path)).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_secret(None, Some(&path)).unwrap().unwrap().as_str(), "s3cret");
    }
}
