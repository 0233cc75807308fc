//! `turnstone import`: every directive of coturn's `turnserver.conf`, the result judged by the configuration's own parser, and
//! the same client against coturn with the file and against this server with what became of it.

// Helpers of tests fail by panicking; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod command;
mod differential;
mod directives;
mod groups;
mod operation;
mod peers;
mod robust;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::OnceLock;

use turnstone::config::coturn::{FindingKind, Import, import};
use turnstone::config::{Config, ConfigError, Host, Loaded, Overrides, Source, Surroundings};

/// A conversion and the configuration it came to.
pub(crate) struct Imported {
    pub(crate) import: Import,
    pub(crate) config: Config,
}

impl Imported {
    /// `line directive kind` of every finding that has a line.
    pub(crate) fn findings(&self) -> Vec<String> {
        let with_line = self.import.findings.iter().filter_map(|finding| Some((finding.line?, finding)));
        with_line.map(|(line, finding)| format!("{line} {} {}", finding.directive, finding.kind.name())).collect()
    }

    /// The message of the one finding about a directive.
    pub(crate) fn message(&self, directive: &str) -> &str {
        let mut found = self.import.findings.iter().filter(|finding| finding.directive == directive);
        let first = found.next().unwrap_or_else(|| panic!("nothing about {directive}: {:?}", self.import.findings));
        assert!(found.next().is_none(), "several about {directive}: {:?}", self.import.findings);
        &first.message
    }

    pub(crate) fn lost(&self) -> Vec<&str> {
        let lost = self.import.findings.iter().filter(|finding| finding.kind != FindingKind::Note);
        lost.map(|finding| finding.directive.as_str()).collect()
    }

    pub(crate) fn listeners(&self) -> Vec<String> {
        self.config.listeners.iter().map(|listener| format!("{} {}", listener.transport, listener.address)).collect()
    }
}

/// Converts, and insists that the result is a valid configuration.
pub(crate) fn imported(conf: &str) -> Imported {
    let import = import(conf);
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
