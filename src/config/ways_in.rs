//! Which realm a client comes into: by the server name that it asks for over TLS or DTLS, else by its listener.

use crate::turn::server_names::ServerNames;

use super::realm::RealmConfig;
use super::snapshot::{Config, Listener};

/// The realms by what leads into them.
pub struct WaysIn<'c> {
    /// Whose realms they are.
    pub config: &'c Config,
    by_name: ServerNames<Option<&'c RealmConfig>>,
}

impl<'c> WaysIn<'c> {
    /// Those of a configuration.
    pub fn new(config: &'c Config) -> Self {
        let mut by_name: ServerNames<Option<&RealmConfig>> = ServerNames::default();
        for name in &config.auth.server_names {
            by_name.entry(name).or_insert(None);
        }
        for realm in &config.realms {
            for name in &realm.server_names {
                by_name.entry(name).or_insert(Some(realm));
            }
        }
        Self { config, by_name }
    }

    /// The realm of who comes in at a listener, and asks for this server name where that is encrypted; `None` is that of `[auth]`.
    pub fn realm_at(&self, listener: &Listener, name: Option<&str>) -> Option<&'c RealmConfig> {
        let asked = name.filter(|_| listener.transport.is_encrypted());
        if let Some(by_name) = asked.and_then(|name| self.by_name.get(name)) {
            return *by_name;
        }
        let name = listener.options.realm.as_deref()?;
        self.config.realms.iter().find(|realm| realm.name == name)
    }
}
