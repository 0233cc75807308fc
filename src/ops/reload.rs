//! Changing the running server: a new configuration on SIGHUP or by the admin API, a new certificate when its files change.
//!
//! Everything is read and checked first; what is bad leaves the running one as it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::certificates::{Certificates, files_of};
use super::error::ReloadError;
use super::file_watch::Stamp;
use super::hooks::Hooks;
use super::log;
use super::orders::Reloaded;
use super::server::Server;
use super::status::CertificateFacts;
use super::stored;
use super::workers::{Judging, Unjudged};
use crate::config::{Change, Config, Effect, Loaded, Problem, TlsFiles, read_revocations};
use crate::turn::Settings;
use crate::worker::Command;

/// How long the answer waits for what is planned for certificates by ACME.
const PLANNING_LIMIT: Duration = Duration::from_secs(1);

/// A configuration that has been read and found good: everything that could fail has been done.
struct Judged {
    config: Config,
    /// What it changes.
    changes: Vec<Change>,
    /// What its operator should know.
    warnings: Vec<Problem>,
    settings: Arc<Settings>,
    stamp: Option<Stamp>,
    /// The state of the files of secrets from before they were read.
    secrets: Stamp,
    certificates: Option<Certificates>,
}

/// Reads and checks what a reload would apply now, and changes nothing.
///
/// # Errors
/// Why it would be refused.
pub(super) fn dry_run(server: &Server, hooks: &Hooks<'_>) -> Result<Reloaded, ReloadError> {
    let Judged { changes, warnings, .. } = judge(server, hooks)?;
    Ok(Reloaded { generation: server.status.generation(), changes, warnings, judgement: None, acme: Arc::default() })
}

/// A reload: reads configuration and certificates again and hands both to the workers. The service manager hears of it. It is
/// over, and `then` is given what came of it, when the allocations there are have been judged by it; the server is not held up by that.
pub(super) fn reload(
    server: &mut Server,
    hooks: &Hooks<'_>,
    then: impl FnOnce(Result<Reloaded, ReloadError>) + Send + 'static,
) {
    let end = server.addresses.announce_reload(&server.status);
    let judged = judge(server, hooks);
    server.status.config_reloads.count(judged.is_ok());
    let mut judged = match judged {
        Ok(judged) => judged,
        Err(error) => {
            // A line for each problem of the file.
            for problem in error.to_string().lines() {
                tracing::error!(%problem, "reload refused, the running configuration stays");
            }
            end();
            return then(Err(error));
        }
    };
    for warning in &judged.warnings {
        tracing::warn!(place = %warning.place, "{}", warning.message);
    }
    let judging = apply(server, &mut judged, hooks);
    let Judged { changes, warnings, .. } = judged;
    let generation = server.status.generation();
    let (certificates, reloads) = (Arc::clone(&server.status.acme), server.acme.reloads());
    tokio::spawn(async move {
        let judgement = match judging.end().await {
            Ok(judgement) => {
                tracing::info!(
                    allocations = judgement.allocations,
                    allocations_ended = judgement.allocations_ended,
                    permissions_ended = judgement.permissions_ended,
                    channels_ended = judgement.channels_ended,
                    connections_ended = judgement.connections_ended,
                    "the live allocations have been judged by the new configuration"
                );
                Some(judgement)
            }
            Err(Unjudged::Late) => {
                tracing::warn!("a worker has not yet judged all its allocations by the new configuration");
                None
            }
            Err(Unjudged::Stopping) => return,
        };
        end();
        // When names are asked for again is planned by then, unless one is being asked for.
        let _ = timeout(PLANNING_LIMIT, certificates.planned(reloads)).await;
        then(Ok(Reloaded { generation, changes, warnings, judgement, acme: certificates.names() }));
    });
}

fn judge(server: &Server, hooks: &Hooks<'_>) -> Result<Judged, ReloadError> {
    let before = Stamp::of(&server.config.secret_files);
    let Loaded { mut config, mut warnings } = (hooks.reload)()?;
    let are_same = config.secret_files == server.config.secret_files;
    let secrets = if are_same { before } else { Stamp::of(&config.secret_files) };
    config.follow_relays(&server.config);
    let changes = server.config.changes(&config);
    config.keep_until_restart(&server.config);
    warnings.extend(config.listeners_without_realm());
    warnings.extend(config.unplanned_peers(&server.config));
    let stamp = config.tls.as_ref().map(|files| Stamp::of(&files_of(files)));
    let load = |files| Certificates::load(files, &server.loading, server.in_use.as_ref());
    let certificates = config.tls.as_ref().map(load).transpose()?;
    let settings = Arc::new(server.settings_of(&config)?);
    log::parse_filter(&config.log.filter)?;
    Ok(Judged { config, changes, warnings, settings, stamp, secrets, certificates })
}

fn apply(server: &mut Server, judged: &mut Judged, hooks: &Hooks<'_>) -> Judging {
    let certificates = judged.certificates.take();
    let Judged { config, changes, settings, stamp, secrets, .. } = &*judged;
    if let Err(error) = hooks.log.set_filter(&config.log.filter) {
        tracing::error!(%error, "the log keeps its filter");
    }
    config.log.addresses.apply();
    if let Some((files, stamp)) = config.tls.as_ref().zip(stamp.clone()) {
        server.certificates.judged(&files_of(files), stamp);
    }
    if config.follow_secrets {
        server.secrets_watch.judged(&config.secret_files, secrets.clone());
    }
    server.use_certificates(certificates);
    let lists_others = server.config.auth.revocations != config.auth.revocations;
    server.config = config.clone();
    server.acme.reload(server.config.acme.as_ref());
    server.renew_credentials();
    server.renew_fleet();
    if let Some(file) = &server.config.auth.revocations_file {
        server.revocations_watch.begin(std::slice::from_ref(file));
    }
    if lists_others {
        list_revocations(server);
    }
    server.addresses.look_soon();
    if let Some((control, hook)) = server.hook.as_ref().zip(server.config.hook.as_ref()) {
        control.reload(hook);
    }
    if let (Some(store), Some(settings)) = (&server.store, &server.config.store) {
        store.set_password(settings.password.clone());
    }
    if let Some(leases) = &server.leases {
        leases.reload(&server.config);
    }
    if let Some((telling, events)) = server.telling.as_ref().zip(server.config.hook_events.as_ref()) {
        telling.control.reload(events);
    }
    if let Some(shared) = &server.revoker.shared {
        shared.set_default_realm(&server.config.auth.realm);
    }
    if let Some(following) = &server.following {
        following.want(stored::wanted(&server.config));
    }
    if let Some(key) = server.config.auth.nonce_key.as_ref().filter(|key| **key != server.nonce_keys.master()) {
        server.nonce_keys.replace(**key);
    }
    if let Some(usage) = &server.usage {
        usage.reload(server.config.usage.as_ref());
    }
    let judging = server.apply(Arc::clone(settings));
    if server.draining.is_some() {
        server.send_drain();
    }
    for change in changes {
        let (key, before, after) = (change.key, &change.before, &change.after);
        match change.effect {
            Effect::Applied => tracing::info!(%key, %before, %after, "changed"),
            Effect::NeedsRestart => {
                tracing::warn!(%key, %before, %after, "not changed: takes effect only after a restart");
            }
        }
    }
    let waiting = changes.iter().filter(|change| change.effect == Effect::NeedsRestart).count();
    let generation = server.status.next_generation();
    tracing::info!(generation, changed = changes.len() - waiting, waiting, "configuration reloaded");
    judging
}

/// Looks at the file that lists revocations, and puts it in force if it has changed.
pub(super) fn follow_revocations(server: &mut Server) {
    let Some(file) = server.config.auth.revocations_file.clone() else { return };
    if !server.revocations_watch.has_changed(std::slice::from_ref(&file)) {
        return;
    }
    match read_revocations(&server.config) {
        Ok(listed) if listed == server.config.auth.revocations => {}
        Ok(listed) => {
            server.config.auth.revocations = listed;
            list_revocations(server);
        }
        Err(error) => {
            for problem in &error.problems {
                tracing::error!(%problem, "the changed list of revocations is not in force; the old one stays");
            }
        }
    }
}

/// Puts what the file lists in force, and ends the allocations that are meant.
fn list_revocations(server: &Server) {
    server.revoker.list(&server.config.auth.revocations);
    tracing::info!(listed = server.config.auth.revocations.len(), "the list of revocations is in force");
    let tell = |ended: usize| {
        if ended > 0 {
            tracing::info!(ended, "allocations were ended whose credentials are revoked");
        }
    };
    server.workers.tell(|| Command::EndRevoked(Box::new(tell)));
}

/// Takes over certificate and key when their files have changed.
pub(super) fn follow_certificate(server: &mut Server) {
    let Some(files) = &server.config.tls else { return };
    if server.certificates.has_changed(&files_of(files)) {
        take_certificates(server, &files.clone(), "its files have changed");
    }
}

/// Takes over a certificate that the server has got for itself.
pub(super) fn take_issued(server: &mut Server, name: &str) {
    // A reload may have taken the name away meanwhile.
    let Some((files, in_use)) = server.config.tls.as_ref().zip(server.in_use.as_ref()) else { return };
    match in_use.load_again(files, &server.loading) {
        Ok((certificates, errors)) => {
            let facts = certificates.facts();
            let new = facts.iter().find(|facts| facts.is_acme && facts.names.iter().any(|of| of == name));
            if let Some(CertificateFacts { not_after_unix, issuer, .. }) = new {
                tracing::info!(name, issuer, not_after_unix, "a certificate was had by ACME, and is in use");
            }
            server.use_certificates(Some(certificates));
            for problem in errors {
                tracing::error!(%problem, "a certificate cannot be used; the old one stays");
            }
        }
        Err(problem) => tracing::error!(%problem, name, "the certificate that was had by ACME cannot be used"),
    }
}

/// Takes over certificate and key as they are now, without waiting for a change to settle.
pub(super) fn reload_certificate(server: &mut Server) {
    let Some(files) = server.config.tls.clone() else {
        tracing::warn!("SIGUSR2 reads the certificate again, but there is none: [tls] is not configured");
        return;
    };
    let each = files_of(&files);
    server.certificates.judged(&each, Stamp::of(&each));
    take_certificates(server, &files, "SIGUSR2");
}

fn take_certificates(server: &mut Server, files: &TlsFiles, why: &str) {
    let loaded = match &server.in_use {
        Some(in_use) => in_use.load_again(files, &server.loading),
        None => Certificates::load(files, &server.loading, None).map(|loaded| (loaded, Vec::new())),
    };
    let errors = match loaded {
        Ok((certificates, errors)) => {
            if errors.len() < files.each().len() {
                for CertificateFacts { file, not_after_unix, .. } in certificates.facts() {
                    tracing::info!(file, not_after_unix, why, "certificate reloaded");
                }
                server.use_certificates(Some(certificates));
            }
            errors
        }
        Err(error) => vec![error],
    };
    server.status.certificate_reloads.count(errors.is_empty());
    for problem in errors {
        tracing::error!(%problem, why, "the certificate files cannot be used; the old certificate stays");
    }
}
