//! The commands, as an operator runs them.

// Clippy's allowance for tests covers only functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod certificates;
mod check;
mod credentials;
mod help;
mod serve;
#[path = "../support/skip.rs"]
mod skip;
mod verify;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use assert_cmd::Command;
use tempfile::TempDir;

pub(crate) const SECRET: &str = "a secret for the tests, long enough";

/// A directory with a configuration, and the binary run in it without any TURNSTONE variable.
pub(crate) struct Place {
    directory: TempDir,
}

/// What a command left behind.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    /// With a secret `main`, on loopback addresses.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With `more` before the secret.
    pub(crate) fn with(more: &str) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        place.file("secret", &format!("{SECRET}\n"), 0o600);
        let text = format!(
            "{more}\n[[listen]]\naddress = \"127.0.0.1:3478\"\ntransport = [\"udp\", \"tcp\"]\n\
             [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\nexternal-ip = \"203.0.113.5\"\nports = \"50000-50099\"\n\
             [[auth.secrets]]\nid = \"main\"\nfile = \"secret\"\n"
        );
        place.file("turnserver.toml", &text, 0o644);
        place
    }

    pub(crate) fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(crate) fn append(&self, more: &str) {
        let text = fs::read_to_string(self.path("turnserver.toml")).unwrap();
        self.file("turnserver.toml", &format!("{text}{more}"), 0o600);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
        command.current_dir(self.directory.path()).args(args).env_clear();
        command
    }

    /// Runs a command with `--config turnserver.toml`.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args).args(["--config", "turnserver.toml"]))
    }
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

impl Ran {
    /// The output of a command that did what it was asked.
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }
}
