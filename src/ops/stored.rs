//! What the store of a fleet has for the running server: users who are asked about, secrets, the key of nonces.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::server::Server;
use crate::auth::SharedSecret;
use crate::config::{Config, StoredSecrets};
use crate::hook::Directory;
use crate::store::{Followed, Following, Store, StoreUsers, Wanted};
use crate::turn::{Answer, Question};
use crate::worker::fill_from_system;

/// What a configuration wants to be followed.
pub(super) fn wanted(config: &Config) -> Wanted {
    let realms = std::iter::once(&config.auth.realm).chain(config.realms.iter().map(|realm| &realm.name));
    Wanted {
        realms: realms.cloned().collect(),
        nonce_key: config.auth.nonce_key.is_none(),
        without_secrets: config.without_secrets(),
    }
}

/// What nonces are made with where nobody has said it yet.
pub(super) fn fresh_text() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 32]);
    fill_from_system(&mut *bytes);
    Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Who knows the users of a store.
pub(super) fn directory(store: &Store) -> Directory {
    let users = Arc::new(StoreUsers::new(store.clone()));
    Box::new(move |question| {
        let users = Arc::clone(&users);
        Box::pin(async move {
            let Question::Credential { username, realm } = &question else { return Answer::Unknown };
            match users.find(realm, username).await {
                Ok(Some(credential)) => Answer::Known(credential),
                Ok(None) => Answer::Unknown,
                Err(_) => Answer::Failed,
            }
        })
    })
}

impl Server {
    /// What is found next in the store.
    pub(super) async fn store_changed(following: &mut Option<Following>) -> Arc<Followed> {
        match following {
            Some(following) => following.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Puts in force what was found in the store.
    pub(super) fn follow_store(&mut self, followed: &Followed) {
        if let Some(key) = followed.nonce_key.as_ref().filter(|key| **key != self.nonce_keys.master()) {
            self.nonce_keys.replace(**key);
            tracing::info!("nonces are made with the key of the store: they are good on every server that shares it");
        }
        // A secret that is another realm's now is another one.
        let ids = |secrets: &StoredSecrets| {
            let of_realm = |secrets: &Vec<SharedSecret>| {
                secrets.iter().map(|secret| (secret.id.clone(), secret.bytes.clone())).collect::<Vec<_>>()
            };
            secrets.iter().map(|(realm, secrets)| (realm.clone(), of_realm(secrets))).collect::<Vec<_>>()
        };
        if ids(&self.config.stored_secrets) == ids(&followed.secrets) {
            return;
        }
        let before = std::mem::replace(&mut self.config.stored_secrets, Arc::new(followed.secrets.clone()));
        match self.settings_of(&self.config) {
            // Nobody waits for the end of it.
            Ok(settings) => drop(self.apply(Arc::new(settings))),
            Err(error) => {
                self.config.stored_secrets = before;
                return tracing::error!(%error, "the secrets of the store cannot be used");
            }
        }
        self.renew_credentials();
        let secrets = self.config.stored_secrets.values().map(Vec::len).sum::<usize>();
        tracing::info!(secrets, "the secrets of the store are in force");
    }
}
