//! Changing the running server: a new configuration on SIGHUP or by the admin API, a new certificate when its files change.
//!
//! Everything is read and checked first; what is bad leaves the running one as it is. What takes its time, or the disk's, is done on other threads
//! (`readings`), and the supervisor goes on meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::timeout;

use super::certificates::{CertificateError, Certificates, files_of};
use super::error::ReloadError;
use super::file_watch::{Seen, Watch};
use super::hooks::Hooks;
use super::log;
use super::orders::Reloaded;
use super::readings::{Kind, tell_not_read};
use super::server::Server;
use super::status::CertificateFacts;
use super::stored;
use super::workers::{Judging, Unjudged};
use crate::config::{Change, Config, Effect, Loaded, Problem, TlsFiles, read_revocations};
use crate::turn::Settings;
use crate::worker::Command;

/// How long the answer waits for what is planned for certificates by ACME.
const PLANNING_LIMIT: Duration = Duration::from_secs(1);

/// A configuration that has been read.
struct Read {
    config: Config,
    /// What it changes.
    changes: Vec<Change>,
    /// What its operator should know.
    warnings: Vec<Problem>,
    /// The files of certificates, and those of secrets, as they were before they were read.
    tls_files: Option<Seen>,
    secret_files: Seen,
    certificates: Option<Certificates>,
    /// The certificates in use at that time.
    in_use: Option<Arc<ServerConfig>>,
}

/// The same, found good: everything that could fail has been done.
struct Judged {
    read: Read,
    settings: Arc<Settings>,
}

/// What is given what came of a reload.
type Told = Box<dyn FnOnce(Result<Reloaded, ReloadError>) + Send>;

/// Reads and checks what a reload would apply now, and changes nothing. `then` is given the answer.
pub(super) fn dry_run(server: &mut Server, hooks: &Hooks<'_>, then: Told) {
    let reader = match server.readings.begin(Kind::Configuration) {
        Ok(reader) => reader,
        Err(error) => return then(Err(error.into())),
    };
    let read = reading(server, hooks);
    reader.read(move || {
        let read = read();
        Box::new(move |server, _| {
            then(read.and_then(|read| judge(server, read)).map(
                |Judged { read: Read { changes, warnings, .. }, .. }| {
                    let generation = server.status.generation();
                    Reloaded { generation, changes, warnings, judgement: None, acme: Arc::default() }
                },
            ));
        })
    });
}

/// A reload that nobody waits for: what comes of it is in the log. If one is under way, there is another when it has ended.
pub(super) fn reload_unasked(server: &mut Server, hooks: &Hooks<'_>) {
    let is_begun = !server.readings.read_again(Kind::Configuration);
    match is_begun {
        true => reload(server, hooks, Box::new(drop)),
        false => tracing::info!("a reload is reading its files: there will be another one when it has ended"),
    }
}

/// A reload: reads configuration and certificates again and hands both to the workers. The service manager hears of it. It is
/// over, and `then` is given what came of it, when the allocations there are have been judged by it; the server is not held up by that.
pub(super) fn reload(server: &mut Server, hooks: &Hooks<'_>, then: Told) {
    let reader = match server.readings.begin(Kind::Configuration) {
        Ok(reader) => reader,
        Err(error) => {
            tracing::error!(problem = %error, "no reload now, the running configuration stays");
            return then(Err(error.into()));
        }
    };
    let end = server.addresses.announce_reload(&server.status);
    let read = reading(server, hooks);
    reader.read(move || {
        let read = read();
        Box::new(move |server, hooks| {
            let judged = read.and_then(|read| judge(server, read));
            put_in_force(server, hooks, judged, Box::new(end), then);
        })
    });
}

fn put_in_force(
    server: &mut Server,
    hooks: &Hooks<'_>,
    judged: Result<Judged, ReloadError>,
    end: Box<dyn FnOnce() + Send>,
    then: Told,
) {
    server.status.config_reloads.count(judged.is_ok());
    let judged = match judged {
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
    for warning in &judged.read.warnings {
        tracing::warn!(place = %warning.place, "{}", warning.message);
    }
    let (changes, warnings) = (judged.read.changes.clone(), judged.read.warnings.clone());
    let judging = apply(server, judged, hooks);
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

/// How the configuration is read again, for this server as it is now. It may take a while.
fn reading(server: &Server, hooks: &Hooks<'_>) -> impl FnOnce() -> Result<Read, ReloadError> + Send + 'static {
    let (running, loading, earlier) = (server.config.clone(), server.loading.clone(), server.in_use.clone());
    let read_again = Arc::clone(&hooks.reload);
    move || {
        let before = Seen::of(&running.secret_files);
        let Loaded { mut config, mut warnings } = read_again()?;
        let are_same = config.secret_files == running.secret_files;
        let secret_files = if are_same { before } else { Seen::of(&config.secret_files) };
        config.follow_relays(&running);
        let changes = running.changes(&config);
        config.keep_until_restart(&running);
        warnings.extend(config.listeners_without_realm());
        warnings.extend(config.unplanned_peers(&running));
        let tls_files = config.tls.as_ref().map(|files| Seen::of(&files_of(files)));
        let load = |files| Certificates::load(files, &loading, earlier.as_ref());
        let certificates = config.tls.as_ref().map(load).transpose()?;
        log::parse_filter(&config.log.filter)?;
        let in_use = earlier.map(|earlier| earlier.config);
        Ok(Read { config, changes, warnings, tls_files, secret_files, certificates, in_use })
    }
}

/// Whether it fits the server as it has become meanwhile.
fn judge(server: &Server, mut read: Read) -> Result<Judged, ReloadError> {
    read.config.follow_relays(&server.config);
    read.config.keep_until_restart(&server.config);
    let settings = Arc::new(server.settings_of(&read.config)?);
    Ok(Judged { read, settings })
}

fn apply(server: &mut Server, judged: Judged, hooks: &Hooks<'_>) -> Judging {
    let Judged { read: Read { config, changes, tls_files, secret_files, certificates, in_use, .. }, settings } = judged;
    if let Err(error) = hooks.log.set_filter(&config.log.filter) {
        tracing::error!(%error, "the log keeps its filter");
    }
    config.log.addresses.apply();
    if let Some(seen) = tls_files {
        server.certificates.judged(seen);
    }
    if config.follow_secrets {
        server.secrets_watch.judged(secret_files);
    }
    let is_as_before = match (&in_use, &server.in_use) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, &now.config),
        (before, now) => before.is_none() && now.is_none(),
    };
    server.use_certificates(certificates);
    let lists_others = server.config.auth.revocations != config.auth.revocations;
    server.config = config;
    if !is_as_before {
        // There were new ones while these were read: whichever are in the files now are right.
        take_certificates(server, Why::Changed);
    }
    server.acme.reload(server.config.acme.as_ref());
    server.renew_credentials();
    server.renew_fleet();
    server.revocations_watch.begin();
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
    server.revoker.set_default_realm(&server.config.auth.realm);
    if let Some(following) = &server.following {
        following.want(stored::wanted(&server.config));
    }
    if let Some(key) = server.config.auth.nonce_key.as_ref().filter(|key| **key != server.nonce_keys.master()) {
        server.nonce_keys.replace(**key);
    }
    if let Some(usage) = &server.usage {
        usage.reload(server.config.usage.as_ref());
    }
    let judging = server.apply(settings);
    if server.draining.is_some() {
        server.send_drain();
    }
    for change in &changes {
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

/// Begins what was put off until something of this kind had been read.
pub(super) fn read_again(server: &mut Server, hooks: &Hooks<'_>, kind: Kind) {
    match kind {
        Kind::Configuration => reload_unasked(server, hooks),
        Kind::Certificates => take_certificates(server, Why::Changed),
        Kind::Revocations => read_listed(server),
        // They are looked at again anyway.
        Kind::Secrets => {}
    }
}

/// Looks at the files of secrets, and reloads if they have changed.
pub(super) fn follow_secrets(server: &mut Server) {
    let files = server.config.secret_files.clone();
    look(
        server,
        Kind::Secrets,
        |server| &mut server.secrets_watch,
        files,
        |server, hooks| {
            tracing::info!("a file of secrets has changed: reading the configuration again");
            reload_unasked(server, hooks);
        },
    );
}

/// Looks at the file that lists revocations, and puts it in force if it has changed.
pub(super) fn follow_revocations(server: &mut Server) {
    let files = server.config.auth.revocations_file.iter().cloned().collect();
    look(server, Kind::Revocations, |server| &mut server.revocations_watch, files, |server, _| read_listed(server));
}

/// Takes over certificate and key when their files have changed.
pub(super) fn follow_certificate(server: &mut Server) {
    let files = server.config.tls.as_ref().map(files_of).unwrap_or_default();
    look(
        server,
        Kind::Certificates,
        |server| &mut server.certificates,
        files,
        |server, _| {
            take_certificates(server, Why::Changed);
        },
    );
}

/// Looks at files that are watched.
fn look(
    server: &mut Server,
    kind: Kind,
    watch: fn(&mut Server) -> &mut Watch,
    files: Vec<PathBuf>,
    then: fn(&mut Server, &Hooks<'_>),
) {
    let reader = server.readings.begin(kind);
    watch(server).look(reader.is_ok());
    let Ok(reader) = reader else { return };
    reader.read(move || {
        let seen = Seen::of(&files);
        Box::new(move |server, hooks| {
            if watch(server).has_changed(seen) {
                then(server, hooks);
            }
        })
    });
}

/// Reads the list of revocations, and puts it in force.
fn read_listed(server: &mut Server) {
    if server.readings.read_again(Kind::Revocations) {
        return;
    }
    let reader = match server.readings.begin(Kind::Revocations) {
        Ok(reader) => reader,
        Err(error) => return tell_not_read(Kind::Revocations, &error),
    };
    let config = server.config.clone();
    reader.read(move || {
        let read = read_revocations(&config);
        Box::new(move |server, _| match read {
            // A reload has named another one meanwhile, or none, and read it.
            _ if server.config.auth.revocations_file != config.auth.revocations_file => {}
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
        })
    });
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

/// Why certificates are read.
enum Why {
    Changed,
    Signal,
    /// The server has got one for this name.
    Issued(String),
}

/// Takes over a certificate that the server has got for itself.
pub(super) fn take_issued(server: &mut Server, name: String) {
    take_certificates(server, Why::Issued(name));
}

/// Takes over certificate and key as they are now, without waiting for a change to settle.
pub(super) fn reload_certificate(server: &mut Server) {
    if server.config.tls.is_none() {
        tracing::warn!("SIGUSR2 reads the certificate again, but there is none: [tls] is not configured");
        return;
    }
    take_certificates(server, Why::Signal);
}

fn take_certificates(server: &mut Server, why: Why) {
    // A reload may have taken them away meanwhile.
    let Some(files) = server.config.tls.clone() else { return };
    if server.readings.read_again(Kind::Certificates) {
        return;
    }
    let reader = match server.readings.begin(Kind::Certificates) {
        Ok(reader) => reader,
        Err(error) => return tell_not_read(Kind::Certificates, &error),
    };
    let (in_use, loading) = (server.in_use.clone(), server.loading.clone());
    reader.read(move || {
        let seen = Seen::of(&files_of(&files));
        let loaded = match &in_use {
            Some(in_use) => in_use.load_again(&files, &loading),
            None => Certificates::load(&files, &loading, None).map(|loaded| (loaded, Vec::new())),
        };
        Box::new(move |server, _| {
            // A reload has named other files meanwhile, and read them.
            if server.config.tls.as_ref() == Some(&files) {
                server.certificates.judged(seen);
                use_loaded(server, &files, loaded, &why);
            }
        })
    });
}

fn use_loaded(
    server: &mut Server,
    files: &TlsFiles,
    loaded: Result<(Certificates, Vec<CertificateError>), CertificateError>,
    why: &Why,
) {
    let (loaded, errors) = match loaded {
        Ok((loaded, errors)) => (Some(loaded), errors),
        Err(error) => (None, vec![error]),
    };
    if let Some(loaded) = loaded.filter(|_| errors.len() < files.each().len()) {
        for CertificateFacts { file, names, issuer, not_after_unix, is_acme, .. } in loaded.facts() {
            match why {
                Why::Issued(name) if is_acme && names.contains(name) => {
                    tracing::info!(name, issuer, not_after_unix, "a certificate was had by ACME, and is in use");
                }
                Why::Issued(_) => {}
                Why::Changed | Why::Signal => {
                    tracing::info!(file, not_after_unix, why = why.text(), "certificate reloaded");
                }
            }
        }
        server.use_certificates(Some(loaded));
    }
    if !matches!(why, Why::Issued(_)) {
        server.status.certificate_reloads.count(errors.is_empty());
    }
    for problem in errors {
        tracing::error!(%problem, why = why.text(), "the certificate files cannot be used; the old certificate stays");
    }
}

impl Why {
    fn text(&self) -> &'static str {
        match self {
            Self::Changed => "its files have changed",
            Self::Signal => "SIGUSR2",
            Self::Issued(_) => "one was had by ACME",
        }
    }
}
