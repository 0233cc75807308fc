//! What a conversion makes, and what is said about it.

use std::fmt;

use zeroize::Zeroizing;

/// What another server's configuration comes to.
#[derive(Clone, Debug)]
pub struct Import {
    /// A complete `turnserver.toml`. Inline secrets are in it when [`Self::has_secrets`] says so.
    pub toml: Zeroizing<String>,
    /// Whether secrets or passwords are written in it, so that only its owner may read it.
    pub has_secrets: bool,
    /// The name of the server that it was for, as its service is called.
    pub from: &'static str,
    /// What was not taken over as it stood: by grade, what matters most first, and then by place. No finding has a secret
    /// in it.
    pub findings: Vec<Finding>,
}

impl Import {
    /// Whether something that the file asks for, and that does something, is not in the result.
    pub fn is_lossy(&self) -> bool {
        self.findings.iter().any(Finding::is_lost)
    }
}

/// One remark about the conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where the directive is; `None` when it is about the whole.
    pub spot: Option<Spot>,
    /// The directive, without its value.
    pub directive: String,
    /// What became of it.
    pub kind: FindingKind,
    /// Whom it concerns.
    pub grade: Grade,
    /// Why, and what to do instead. One line.
    pub message: String,
}

impl Finding {
    /// Whether something that the file asks for, and that does something, is not in the result.
    pub fn is_lost(&self) -> bool {
        self.kind != FindingKind::Note && self.grade != Grade::Harmless
    }
}

/// A place in what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    /// A line of the file, from 1.
    Line(usize),
    /// A word of the command line, from 1.
    Argument(usize),
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Argument(number) => write!(f, "argument {number}"),
        }
    }
}

/// Whom a finding concerns, from what matters most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Clients can do less, or something else, than before.
    #[default]
    Clients,
    /// Who gets in, and what can be reached.
    Security,
    /// How the server is watched and run.
    Operation,
    /// Nothing changes.
    Harmless,
}

impl Grade {
    /// All, in the order of printing.
    pub const ALL: [Self; 4] = [Self::Clients, Self::Security, Self::Operation, Self::Harmless];

    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Security => "security",
            Self::Operation => "operation",
            Self::Harmless => "harmless",
        }
    }
}

/// What became of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// It is converted, or needs no conversion; something about it is worth knowing.
    Note,
    /// There is nothing here that does the same.
    NotConverted,
    /// Its value makes no sense, to the other server or here.
    Invalid,
    /// The other server has no such directive.
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
