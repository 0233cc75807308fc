//! `turnstone import`: eturnal's file, coturn's command line, and every directive of coturn's `turnserver.conf`, the result judged by the configuration's own parser, and
//! the same client against coturn with the file and against this server with what became of it.

// Helpers of tests fail by panicking; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod arguments;
mod command;
mod differential;
mod directives;
mod eturnal;
mod field;
mod groups;
mod operation;
mod peers;
mod robust;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::OnceLock;

use turnstone::config::{Config, ConfigError, Host, Loaded, Overrides, Source, Surroundings};
use turnstone::import::{Finding, FindingKind, Grade, Import, Spot, import_coturn};

/// A conversion and the configuration it came to.
pub(crate) struct Imported {
    pub(crate) import: Import,
    pub(crate) config: Config,
}

impl Imported {
    /// `line directive kind` of every finding that has a line, and matters.
    pub(crate) fn findings(&self) -> Vec<String> {
        let mut found: Vec<_> = self
            .import
            .findings
            .iter()
            .filter(|finding| finding.grade != Grade::Harmless || finding.kind != FindingKind::Note)
            .filter_map(|finding| Some((line_of(finding)?, finding)))
            .collect();
        found.sort_by_key(|(line, _)| *line);
        found.iter().map(|(line, finding)| format!("{line} {} {}", finding.directive, finding.kind.name())).collect()
    }

    /// The lines of what changes nothing.
    pub(crate) fn harmless(&self) -> Vec<usize> {
        let harmless = self.import.findings.iter().filter(|finding| finding.grade == Grade::Harmless);
        let mut lines: Vec<_> = harmless.filter_map(line_of).collect();
        lines.sort_unstable();
        lines
    }

    /// The one finding about a directive.
    pub(crate) fn about(&self, directive: &str) -> &Finding {
        let mut found = self.import.findings.iter().filter(|finding| finding.directive == directive);
        let first = found.next().unwrap_or_else(|| panic!("nothing about {directive}: {:?}", self.import.findings));
        assert!(found.next().is_none(), "several about {directive}: {:?}", self.import.findings);
        first
    }

    pub(crate) fn message(&self, directive: &str) -> &str {
        &self.about(directive).message
    }

    /// The directives that are not in the result, in the order of the file.
    pub(crate) fn lost(&self) -> Vec<&str> {
        let mut lost: Vec<_> = self.import.findings.iter().filter(|finding| finding.is_lost()).collect();
        lost.sort_by_key(|finding| (finding.spot.is_none(), finding.spot));
        lost.iter().map(|finding| finding.directive.as_str()).collect()
    }

    pub(crate) fn listeners(&self) -> Vec<String> {
        self.config.listeners.iter().map(|listener| format!("{} {}", listener.transport, listener.address)).collect()
    }
}

fn line_of(finding: &Finding) -> Option<usize> {
    match finding.spot {
        Some(Spot::Line(line)) => Some(line),
        _ => None,
    }
}

/// Converts, and insists that the result is a valid configuration.
pub(crate) fn imported(conf: &str) -> Imported {
    judged(import_coturn(conf, &[]), conf)
}

pub(crate) fn judged(import: Import, conf: &str) -> Imported {
    let loaded = parse(&import.toml).unwrap_or_else(|error| panic!("{error}\n{}\n{conf}", &*import.toml));
    Imported { config: loaded.config, import }
}

/// With a secret that does not matter.
pub(crate) fn with_secret(conf: &str) -> Imported {
    imported(&format!("{conf}\nstatic-auth-secret=0123456789abcdef\n"))
}

/// Reads a result on a host that has public addresses of both families, and the credential that the unit hands over.
pub(crate) fn parse(toml: &str) -> Result<Loaded, ConfigError> {
    static CREDENTIALS: OnceLock<tempfile::TempDir> = OnceLock::new();
    let credentials = CREDENTIALS.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o400)).unwrap();
        directory
    });
    let env = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| credentials.path().to_str().unwrap().to_owned());
    let host = Host {
        cores: 2,
        ipv4: Some(Ipv4Addr::new(192, 88, 100, 1)),
        ipv6: Some(Ipv6Addr::new(0x2a00, 1, 0, 0, 0, 0, 0, 1)),
        has_ipv6: true,
    };
    let source =
        Source { name: "turnserver.toml".to_owned(), text: toml.to_owned(), mode: Some(0o600), ..Source::default() };
    Config::parse(&source, &Overrides::default(), &Surroundings { host, env: &env, dev: false })
}
