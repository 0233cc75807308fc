//! Changing the running server: a new configuration on SIGHUP or by the admin API, a new certificate when its files change.
//!
//! Everything is read and checked first; what is bad leaves the running one as it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::certificates::{self, Certificate, Stamp};
use super::log;
use super::run::{Hooks, RunningServer};
use crate::config::{Change, Config, Effect, Loaded, Problem, TlsFiles};
use crate::turn::{Judgement, Settings};
use crate::worker::Command;

/// How long the workers may take to judge their allocations before that is told.
const JUDGING_LIMIT: Duration = Duration::from_secs(10);

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

/// The workers judge their allocations by what was applied.
pub(super) struct Judging(Vec<oneshot::Receiver<Judgement>>);

/// Why it is not known what came of that.
pub(super) enum Unjudged {
    /// The server stops.
    Stopping,
    /// A worker has not answered in time; it goes on judging.
    Late,
}

impl Judging {
    /// What came of it, over all workers.
    pub(super) async fn end(self) -> Result<Judgement, Unjudged> {
        let sum = async {
            let mut sum = Judgement::default();
            for worker in self.0 {
                let of_worker = worker.await.map_err(|_| Unjudged::Stopping)?;
                sum.allocations += of_worker.allocations;
                sum.permissions_ended += of_worker.permissions_ended;
                sum.channels_ended += of_worker.channels_ended;
                sum.allocations_ended += of_worker.allocations_ended;
            }
            Ok(sum)
        };
        timeout(JUDGING_LIMIT, sum).await.unwrap_or(Err(Unjudged::Late))
    }
}

impl RunningServer {
    /// Reads configuration and certificates again and hands both to the workers. Returns what was applied; the allocations there
    /// are have been judged by it a little later.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub(super) fn reload(&mut self, hooks: &Hooks<'_>) -> Result<(Judged, Judging), String> {
        let judged = self.judge(hooks);
        self.status.config_reloads.count(judged.is_ok());
        match judged {
            Ok(judged) => {
                for warning in &judged.warnings {
                    tracing::warn!(place = %warning.place, "{}", warning.message);
                }
                let judging = self.apply(&judged, hooks);
                Ok((judged, judging))
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
        config.follow_relays(&self.config);
        let changes = self.config.changes(&config);
        config.keep_until_restart(&self.config);
        let stamp = config.tls.as_ref().map(Stamp::of);
        let certificate = config.tls.as_ref().map(certificates::load).transpose()?;
        let settings = Arc::new(self.settings(&config).map_err(|error| error.to_string())?);
        log::parse_filter(&config.log.filter).map_err(|error| error.to_string())?;
        Ok(Judged { config, changes, warnings, settings, stamp, certificate })
    }

    fn apply(&mut self, judged: &Judged, hooks: &Hooks<'_>) -> Judging {
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
        self.addresses.look_soon();
        self.status.set_peer_acl(Arc::clone(&settings.peer_acl));
        if let Some(usage) = &self.usage {
            usage.reload(self.config.usage.as_ref());
        }
        let judging = self.apply_settings(settings);
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
        judging
    }

    /// Hands a snapshot to every worker.
    pub(super) fn apply_settings(&mut self, settings: &Arc<Settings>) -> Judging {
        self.context.settings = Arc::clone(settings);
        let judging = self.context.mailboxes.iter().map(|mailbox| {
            let (send, judgement) = oneshot::channel();
            let reply = Box::new(move |judgement| {
                let _ = send.send(judgement);
            });
            mailbox.send(Command::Apply(Arc::clone(settings), reply));
            judgement
        });
        Judging(judging.collect())
    }

    /// Takes over certificate and key when their files have changed.
    pub(super) fn watch_certificate(&mut self) {
        let Some(files) = &self.config.tls else { return };
        if self.watch.has_changed(files) {
            self.take_certificate(&files.clone(), "its files have changed");
        }
    }

    /// Takes over certificate and key as they are now, without waiting for a change to settle.
    pub(super) fn reload_certificate(&mut self) {
        let Some(files) = self.config.tls.clone() else {
            tracing::warn!("SIGUSR2 reads the certificate again, but there is none: [tls] is not configured");
            return;
        };
        self.watch.judged(&files, Stamp::of(&files));
        self.take_certificate(&files, "SIGUSR2");
    }

    fn take_certificate(&mut self, files: &TlsFiles, why: &str) {
        match certificates::load(files) {
            Ok(certificate) => {
                tracing::info!(not_after_unix = certificate.not_after_unix, why, "certificate reloaded");
                self.status.set_certificate_not_after(Some(certificate.not_after_unix));
                self.context.tls.store(Some(certificate.config));
                self.status.certificate_reloads.count(true);
            }
            Err(problem) => {
                tracing::error!(%problem, why, "the certificate files cannot be used; the old certificate stays");
                self.status.certificate_reloads.count(false);
            }
        }
    }
}
