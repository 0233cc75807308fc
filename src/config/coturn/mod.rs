//! `turnstone import`: coturn's `turnserver.conf` as a `turnserver.toml`, and what of it needs an operator's eye.
//!
//! The conversion does no I/O: text comes in, TOML and findings go out. What coturn accepts and where it differs from here
//! was read from coturn 4.6.1, and from the reference of 4.17 for the directives that came later.

mod operation;
mod peers;
mod read;
mod syntax;
mod table;
mod write;

use zeroize::Zeroizing;

/// What a `turnserver.conf` comes to.
#[derive(Clone, Debug)]
pub struct Import {
    /// A complete `turnserver.toml`. Inline secrets are in it when [`Self::has_secrets`] says so.
    pub toml: Zeroizing<String>,
    /// Whether secrets or passwords are written in it, so that only its owner may read it.
    pub has_secrets: bool,
    /// What was not taken over as it stood, by line. No finding has a secret in it.
    pub findings: Vec<Finding>,
}

impl Import {
    /// Whether something that the file asks for is not in the result.
    pub fn is_lossy(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind != FindingKind::Note)
    }
}

/// One remark about the conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line in `turnserver.conf`, from 1; `None` when it is about the whole file.
    pub line: Option<usize>,
    /// The directive, without its value.
    pub directive: String,
    /// What became of it.
    pub kind: FindingKind,
    /// Why, and what to do instead. One line.
    pub message: String,
}

/// What became of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// It is converted, or needs no conversion; something about it is worth knowing.
    Note,
    /// There is nothing here that does the same.
    NotConverted,
    /// Its value makes no sense, to coturn or here.
    Invalid,
    /// coturn has no such directive.
    Unknown,
}

impl FindingKind {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::NotConverted => "not converted",
            Self::Invalid => "invalid",
            Self::Unknown => "unknown",
        }
    }
}

/// Converts the text of a `turnserver.conf`.
///
/// The result always passes [`super::Config::parse`], given the files that it names and a host that has the addresses.
/// A file that names no usable secret and no usable user gets the secret that the installation makes,
/// `/etc/turnstone/secret`, and a finding that says so.
pub fn import(text: &str) -> Import {
    let mut conf = read::Conf::default();
    for line in syntax::lines(text) {
        match line {
            Ok(entry) => match table::find(entry.name) {
                Some(treatment) => conf.take(&entry, treatment),
                None => conf.unknown(&entry),
            },
            Err(too_long) => conf.too_long(too_long),
        }
    }
    write::write(conf)
}

/// Every directive of `turnserver.conf` that is known, by name.
pub fn directives() -> impl Iterator<Item = &'static str> {
    table::DIRECTIVES.iter().map(|(name, _)| *name)
}
