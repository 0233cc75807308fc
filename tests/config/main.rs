//! `turnserver.toml`: every option, every refusal with its place, and what wins over the file.

// Clippy's allowance for tests covers only functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bad;
mod credentials;
mod documented;
mod modes;
mod operation;
mod overrides;
mod rfcs;
mod robust;
mod usage;
mod values;

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use turnstone::config::{Config, ConfigError, Host, Loaded, Overrides, Source, Surroundings};

pub(crate) const SECRET: &str = "[[auth.secrets]]\nid = \"main\"\nsecret = \"0123456789abcdef\"\n";

/// A configuration under test and its surroundings: a machine with public addresses of both families and two cores.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) source: Source,
    pub(crate) overrides: Overrides,
    pub(crate) host: Host,
    pub(crate) env: HashMap<String, String>,
    pub(crate) dev: bool,
}

pub(crate) fn given(text: &str) -> Given {
    let source = Source { name: "turnserver.toml".to_owned(), text: text.to_owned(), ..Source::default() };
    let host = Host {
        cores: 2,
        ipv4: Some(Ipv4Addr::new(192, 88, 100, 1)),
        ipv6: Some(Ipv6Addr::new(0x2a00, 1, 0, 0, 0, 0, 0, 1)),
        has_ipv6: true,
    };
    Given { source, overrides: Overrides::default(), host, env: HashMap::new(), dev: false }
}

impl Given {
    pub(crate) fn parse(&self) -> Result<Loaded, ConfigError> {
        let env = |name: &str| self.env.get(name).cloned();
        let around = Surroundings { host: self.host, env: &env, dev: self.dev };
        Config::parse(&self.source, &self.overrides, &around)
    }

    pub(crate) fn config(&self) -> Config {
        self.parse().unwrap_or_else(|error| panic!("{error}\n{}", self.source.text)).config
    }

    pub(crate) fn error(&self) -> String {
        match self.parse() {
            Ok(_) => panic!("accepted:\n{}", self.source.text),
            Err(error) => error.to_string(),
        }
    }

    pub(crate) fn in_directory(mut self, directory: &Path) -> Self {
        self.source.directory = directory.to_owned();
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// The text with a usable `[auth]` after it.
pub(crate) fn with_secret(text: &str) -> Given {
    given(&format!("{text}\n{SECRET}"))
}
