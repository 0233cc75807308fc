//! Changing the running server: a new configuration on SIGHUP, a new certificate when its files change.
//!
//! Everything is read and checked first; what is bad leaves the running one as it is.

use std::sync::Arc;

use super::certificates::{self, Stamp};
use super::run::{Hooks, RunningServer};
use crate::config::{Config, Effect};
use crate::worker::Command;

impl RunningServer {
    /// Reads configuration and certificates again and hands both to the workers.
    pub(super) fn reload(&mut self, hooks: &Hooks<'_>) {
        let problem = match (hooks.reload)() {
            Ok(new) => self.apply(new, hooks).err(),
            Err(problem) => Some(problem),
        };
        self.status.config_reloads.count(problem.is_none());
        if let Some(problem) = problem {
            tracing::error!(%problem, "reload refused, the running configuration stays");
        }
    }

    fn apply(&mut self, mut new: Config, hooks: &Hooks<'_>) -> Result<(), String> {
        let changes = self.config.changes(&new);
        new.keep_until_restart(&self.config);
        let stamp = new.tls.as_ref().map(Stamp::of);
        let certificate = new.tls.as_ref().map(certificates::load).transpose()?;
        let settings = Arc::new(self.settings(&new).map_err(|error| error.to_string())?);
        hooks.log.set_filter(&new.log.filter).map_err(|error| error.to_string())?;

        if let Some((files, stamp)) = new.tls.as_ref().zip(stamp) {
            self.watch.judged(files, stamp);
        }
        self.status.set_certificate_not_after(certificate.as_ref().map(|certificate| certificate.not_after_unix));
        self.context.tls.store(certificate.map(|certificate| certificate.config));
        self.config = new;
        if let Some(usage) = &self.usage {
            usage.reload(self.config.usage.as_ref());
        }
        for mailbox in &self.context.mailboxes {
            mailbox.send(Command::Apply(Arc::clone(&settings)));
        }
        if self.draining.is_some() {
            self.send_drain();
        }
        for change in &changes {
            let (key, before, after) = (&change.key, &change.before, &change.after);
            match change.effect {
                Effect::Applied => tracing::info!(%key, %before, %after, "changed"),
                Effect::NeedsRestart => {
                    tracing::warn!(%key, %before, %after, "not changed: takes effect only after a restart");
                }
            }
        }
        let waiting = changes.iter().filter(|change| change.effect == Effect::NeedsRestart).count();
        let generation = self.status.next_generation();
        tracing::info!(generation, changed = changes.len() - waiting, waiting, "configuration reloaded");
        Ok(())
    }

    /// Takes over certificate and key when their files have changed.
    pub(super) fn watch_certificate(&mut self) {
        let Some(files) = &self.config.tls else { return };
        if !self.watch.has_changed(files) {
            return;
        }
        match certificates::load(files) {
            Ok(certificate) => {
                tracing::info!(
                    not_after_unix = certificate.not_after_unix,
                    "certificate reloaded, its files had changed"
                );
                self.status.set_certificate_not_after(Some(certificate.not_after_unix));
                self.context.tls.store(Some(certificate.config));
                self.status.certificate_reloads.count(true);
            }
            Err(problem) => {
                tracing::error!(%problem, "the certificate files have changed, but cannot be used; the old certificate stays");
                self.status.certificate_reloads.count(false);
            }
        }
    }
}
