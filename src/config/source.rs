//! What a configuration is read from, and against.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::denied::{Wanted, why};
use super::error::{ConfigError, Place, Problem};
use super::host::Host;
use super::snapshot::Config;
use crate::regular_file;

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/turnstone/turnserver.toml";

const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration file's text.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file as the user named it; shown in front of every problem.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Its mode, when it is a regular file; decides whether secrets may be written in it.
    pub mode: Option<u32>,
    /// What relative paths in it are relative to.
    pub directory: PathBuf,
}

impl Source {
    /// Reads a file of at most 1 MiB.
    ///
    /// # Errors
    /// It cannot be read, or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::of(path, File::open(path))
    }

    /// The same for a running server, which waits for nobody who writes to a pipe.
    ///
    /// # Errors
    /// As above, or it is a pipe.
    pub fn read_again(path: &Path) -> Result<Self, ConfigError> {
        Self::of(path, regular_file::open(path))
    }

    fn of(path: &Path, file: std::io::Result<File>) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let refuse = |message: String| ConfigError::one(Place::Source(name.clone()), message);
        let cannot_read =
            |error: std::io::Error| refuse(format!("cannot read the file: {}", why(path, Wanted::Read, &error)));
        let file = file.map_err(cannot_read)?;
        let metadata = file.metadata().map_err(cannot_read)?;
        let mut bytes = Vec::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
        if read as u64 > FILE_BYTES_MAX {
            return Err(refuse("the file is larger than 1 MiB".to_owned()));
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| refuse(format!("byte {} is not UTF-8", error.utf8_error().valid_up_to())))?;
        let mode = metadata.is_file().then(|| metadata.permissions().mode());
        Ok(Self { name, text, mode, directory: path.parent().unwrap_or(Path::new("")).to_owned() })
    }

    /// No file: defaults, variables and flags only.
    pub fn absent(default_file: &str) -> Self {
        Self { name: format!("{default_file} (absent)"), ..Self::default() }
    }
}

/// What a configuration is read against, besides its text.
#[derive(Clone)]
pub struct Surroundings<'e> {
    /// The machine.
    pub host: Host,
    /// Looks up an environment variable that the file names, and `CREDENTIALS_DIRECTORY`.
    pub env: &'e dyn Fn(&str) -> Option<String>,
    /// `serve --dev`: loopback peers are allowed, a missing secret is made up, and a missing relay address is loopback.
    pub dev: bool,
}

/// A valid configuration and what the operator should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, each with its place.
    pub warnings: Vec<Problem>,
}
