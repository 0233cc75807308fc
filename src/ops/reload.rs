//! Changing the running server: a new configuration on SIGHUP or by the admin API, a new certificate when its files change.
//!
//! Everything is read and checked first; what is bad leaves the running one as it is.

use std::sync::Arc;

use super::certificates::{self, Certificate, Stamp};
use super::log;
use super::run::{Hooks, RunningServer};
use crate::config::{Change, Config, Effect, Loaded, Problem};
use crate::turn::Settings;
use crate::worker::Command;

/// A configuration that has been read and found good: everything that could fail has been done.
pub(super) struct Judged {
    config: Config,
    /// What it changes.
    pub(super) changes: Vec<Change>,
    /// What its operator should know.
    pub(super) warnings: Vec<Problem>,
    settings: Arc<Settings>,
    stamp: Option<Stamp>,
    certificate: Option<Certificate>,
}

impl RunningServer {
    /// Reads configuration and certificates again and hands both to the workers. Returns what was applied.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub(super) fn reload(&mut self, hooks: &Hooks<'_>) -> Result<Judged, String> {
        let judged = self.judge(hooks);
        self.status.config_reloads.count(judged.is_ok());
        match judged {
            Ok(judged) => {
                for warning in &judged.warnings {
                    tracing::warn!(place = %warning.place, "{}", warning.message);
                }
                self.apply(&judged, hooks);
                Ok(judged)
            }
            Err(problem) => {
                // A line for each problem of the file.
                for problem in problem.lines() {
                    tracing::error!(%problem, "reload refused, the running configuration stays");
                }
                Err(problem)
            }
        }
    }

    /// Reads and checks what a reload would apply now, and changes nothing.
    ///
    /// # Errors
    /// Why it would be refused.
    pub(super) fn judge(&self, hooks: &Hooks<'_>) -> Result<Judged, String> {
        let Loaded { mut config, warnings } = (hooks.reload)()?;
        let changes = self.config.changes(&config);
        config.keep_until_restart(&self.config);
        let stamp = config.tls.as_ref().map(Stamp::of);
        let certificate = config.tls.as_ref().map(certificates::load).transpose()?;
        let settings = Arc::new(self.settings(&config).map_err(|error| error.to_string())?);
        log::parse_filter(&config.log.filter).map_err(|error| error.to_string())?;
        Ok(Judged { config, changes, warnings, settings, stamp, certificate })
    }

    fn apply(&mut self, judged: &Judged, hooks: &Hooks<'_>) {
        let Judged { config, changes, settings, stamp, certificate, .. } = judged;
        if let Err(error) = hooks.log.set_filter(&config.log.filter) {
            tracing::error!(%error, "the log keeps its filter");
        }
        config.log.addresses.apply();
        if let Some((files, stamp)) = config.tls.as_ref().zip(stamp.clone()) {
            self.watch.judged(files, stamp);
        }
        self.status.set_certificate_not_after(certificate.as_ref().map(|certificate| certificate.not_after_unix));
        self.context.tls.store(certificate.as_ref().map(|certificate| Arc::clone(&certificate.config)));
        self.config = config.clone();
        self.status.set_peer_acl(Arc::clone(&settings.peer_acl));
        if let Some(usage) = &self.usage {
            usage.reload(self.config.usage.as_ref());
        }
        for mailbox in &self.context.mailboxes {
            mailbox.send(Command::Apply(Arc::clone(settings)));
        }
        if self.draining.is_some() {
            self.send_drain();
        }
        for change in changes {
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
