//! Where a server is reached on its own host, read without the rest of its configuration: for a look at its health, which needs none of its
//! secrets, and should not read a million users each time.

use toml::de::DeTable;

use super::admin::read_listen;
use super::endpoint::Endpoint;
use super::error::ConfigError;
use super::host::Host;
use super::listen::read_listeners;
use super::operation::read_metrics;
use super::overrides::Overrides;
use super::reader::{Document, Section};
use super::snapshot::Listener;
use super::source::Source;
use super::words::syntax_words;

/// Where it is reached.
#[derive(Debug)]
pub struct Reached {
    /// `[metrics] listen`
    pub metrics: Option<Endpoint>,
    /// `[admin] listen`
    pub admin: Option<Endpoint>,
    /// Where clients reach it.
    pub listeners: Vec<Listener>,
}

impl Reached {
    /// What file, variables and flags say.
    ///
    /// # Errors
    /// What is wrong in the few keys that are read.
    pub fn read(source: &Source, overrides: &Overrides, host: Host) -> Result<Self, ConfigError> {
        let document = Document::new(&source.name, &source.text, overrides);
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        for error in errors {
            let place = error.span().map_or_else(|| document.whole(), |span| document.place(span));
            document.problem_of_line(place, syntax_words(&source.text, &error));
        }
        let root = Section::root(&document, table.get_ref());
        let listeners = read_listeners(&document, &root, host);
        let metrics = read_metrics(&root, source, &listeners);
        let admin = read_listen(&root.section("admin"), source);
        document.finish()?;
        Ok(Self {
            metrics: metrics.map(|metrics| metrics.listen),
            admin: admin.map(|admin| admin.value),
            listeners: listeners.into_iter().map(|listener| listener.value).collect(),
        })
    }
}
