//! Whether the service can start with a configuration: as its own user, in the sandbox of its unit. Whoever asks, mostly root in a
//! shell, may do more than the service.
//!
//! What the kernel can be asked is asked, with the user's access to files; what only systemd will set up is judged by the text
//! of the unit.

mod sandbox;
mod unit;
mod user;

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use thiserror::Error as ThisError;

use crate::config::{Config, Endpoint, Overrides, Source, Wanted, why_not};
use crate::probe::{Status, Step};

use super::finding;
use unit::Unit;
pub use user::NoUser;
use user::User;

/// The first port that every user may bind, where the kernel does not say.
const UNPRIVILEGED_PORT: u16 = 1024;

/// Who will run the server, and how.
#[derive(Clone, Debug)]
pub struct Service {
    unit: Option<Unit>,
    user: Result<User, Unjudged>,
}

/// Why nothing can be judged for the service's user.
#[derive(Clone, Debug, ThisError)]
enum Unjudged {
    #[error("its user is made up at every start (DynamicUser=)")]
    DynamicUser,
    #[error("{0}; run: systemd-sysusers")]
    NoUser(NoUser),
}

/// The unit or the user that was asked for is not there.
#[derive(Debug, ThisError)]
pub enum ServiceError {
    /// The unit cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unit {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: Error,
    },
    /// There is no such user.
    #[error("{0}")]
    User(#[from] NoUser),
}

/// What is judged.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Where it was read.
    pub source: &'a Source,
    /// What won over it.
    pub overrides: &'a Overrides,
}

impl Service {
    /// The installed unit, or this one; its user, or this one. Without both, this process.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn find(user: Option<&str>, unit: Option<&Path>) -> Result<Self, ServiceError> {
        let unit = match unit {
            Some(path) => Some(Unit::at(path).map_err(|error| ServiceError::Unit { path: path.to_owned(), error })?),
            None => Unit::installed(Path::new("/")),
        };
        if let Some(name) = user {
            return Ok(Self { unit, user: Ok(User::named(name)?) });
        }
        let user = match &unit {
            None => Ok(User::own()),
            Some(unit) if unit.has_dynamic_user => Err(Unjudged::DynamicUser),
            Some(unit) => User::named(unit.user.as_deref().unwrap_or("root"))
                .map(|user| user.with_groups(unit.group.as_deref(), &unit.groups))
                .map_err(Unjudged::NoUser),
        };
        Ok(Self { unit, user })
    }

    /// Whether this process is in the service's own namespaces, as its user: before a reload the unit has it so.
    pub fn is_running_this(&self) -> bool {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty());
        let is_user = |user: &User| rustix::process::geteuid().as_raw() == user.uid;
        credentials.is_some() && self.user.as_ref().is_ok_and(is_user)
    }

    /// Judges what the service needs: files that it reads and writes, credentials, low ports.
    pub fn judge(&self, plan: Plan<'_>) -> Vec<Step> {
        let user = match &self.user {
            Ok(user) => user,
            Err(problem) => return vec![finding("service", Status::Warn, format!("not judged: {problem}"))],
        };
        let is_inside = self.is_running_this();
        let mut judge = Judge {
            plan,
            user,
            // Within the service's own namespaces there is nothing to be guessed.
            unit: self.unit.as_ref().filter(|_| !is_inside),
            has_credentials: is_inside,
            moves: None,
            was_tried: true,
            good: 0,
            steps: Vec::new(),
        };
        judge.run();
        judge.steps
    }
}

struct Judge<'a> {
    plan: Plan<'a>,
    user: &'a User,
    unit: Option<&'a Unit>,
    has_credentials: bool,
    /// The directory of a configuration that is not the unit's: what is in it will be elsewhere.
    moves: Option<PathBuf>,
    was_tried: bool,
    good: usize,
    steps: Vec<Step>,
}

impl Judge<'_> {
    fn run(&mut self) {
        let source = self.plan.source;
        let own_file = Path::new(&source.name);
        if let Some(unit) = self.unit {
            if unit.has_own_root {
                let message = format!("not judged: {} gives the service a file system of its own", unit.path.display());
                return self.steps.push(finding("service", Status::Note, message));
            }
            self.has_credentials = !unit.credentials.is_empty();
            let started_with = unit.config.as_deref().filter(|path| !is_same(path, own_file));
            if let Some(other) = started_with {
                self.moves = Some(absolute(&source.directory.join(".")));
                let message = format!(
                    "judged for {}, which reads {}: what is beside this file is judged when it is there",
                    unit.path.display(),
                    other.display()
                );
                self.steps.push(finding("service", Status::Note, message));
            } else if own_file.exists() {
                self.read(&source.name, "the configuration", own_file, Wanted::Read);
            }
        }
        self.secrets();
        self.config_files();
        self.low_ports();
        if !self.was_tried {
            let message = format!(
                "whether user {} may read and write what is named was not tried, which takes root: sudo turnstone check",
                self.user.name
            );
            self.steps.push(finding("service", Status::Note, message));
        }
        if self.steps.iter().all(|step| step.status <= Status::Note) && self.good > 0 && self.was_tried {
            let message =
                format!("user {} may use all {} files and directories that it needs", self.user.name, self.good);
            self.steps.push(finding("service", Status::Ok, message));
        }
    }

    fn secrets(&mut self) {
        let Plan { source, overrides, .. } = self.plan;
        let is_replaced = overrides.has("secret") || overrides.has("secret-file");
        for secret in source.named_secrets() {
            let (key, place) = (secret.key.as_str(), secret.place.to_string());
            if key.ends_with("[[auth.secrets]]") && is_replaced {
                continue;
            }
            match (&secret.credential, &secret.file) {
                (Some(name), file) if self.has_credentials || file.is_none() => self.credential(&place, key, name),
                (_, Some(file)) => self.read(&place, key, file, Wanted::Secret),
                _ => {}
            }
        }
        for (name, file) in self.unit.iter().flat_map(|unit| &unit.credentials) {
            if let Some(file) = file.as_ref().filter(|file| rustix::process::geteuid().is_root() && !file.exists()) {
                let file = file.display();
                let message = format!(
                    "LoadCredential={name}:{file}: there is no such file, so that systemd does not start the service"
                );
                self.steps.push(finding("service", Status::Fail, message));
            }
        }
    }

    /// A credential that the unit must hand over.
    fn credential(&mut self, place: &str, key: &str, name: &str) {
        let Some(unit) = self.unit else { return };
        if unit.credentials.iter().any(|(given, _)| given == name) {
            self.good += 1;
            return;
        }
        let message = format!(
            "{place}: {key}: the unit hands over no credential {name}; run: systemctl edit turnstone, and add [Service] \
             LoadCredential={name}:/etc/turnstone/{name}"
        );
        self.steps.push(finding("service", Status::Fail, message));
    }

    fn config_files(&mut self) {
        let Plan { config, source, overrides } = self.plan;
        let place = |key: &str| source.place_of(key, overrides).to_string();
        if let Some(tls) = &config.tls {
            // What the server gets for itself it makes in the state directory.
            for (number, pair) in tls.each().iter().enumerate().filter(|(_, pair)| !pair.is_acme) {
                let section = if number == 0 { "tls" } else { "tls.certificates" };
                let at = |key: &str| place(&format!("{section}.{key}"));
                self.read(&at("certificate"), &format!("certificate in [{section}]"), &pair.certificate, Wanted::Read);
                self.read(&at("key"), &format!("key in [{section}]"), &pair.key, Wanted::Secret);
            }
        }
        if let Some(file) = config.acme.as_ref().and_then(|acme| acme.ca.as_ref()) {
            self.read(&place("tls.acme-ca"), "acme-ca in [tls]", file, Wanted::Read);
        }
        if let Some(file) = &config.auth.revocations_file {
            self.read(&place("auth.revocations"), "revocations in [auth]", file, Wanted::Read);
        }
        if let Some(directory) = &config.state_directory {
            self.write(&place("state-directory"), "state-directory", directory, Made::Directory);
        }
        if let Some(usage) = &config.usage {
            if let Some(file) = &usage.file {
                let is_put_aside = file.rotate_bytes.is_some() || file.rotate_interval.is_some();
                self.write(&place("usage.file"), "file in [usage]", &file.path, Made::File { is_put_aside });
            }
            if let Some(webhook) = &usage.webhook {
                let directory = &webhook.spool_directory;
                self.write(&place("usage.spool-directory"), "spool-directory in [usage]", directory, Made::Directory);
            }
        }
        let endpoints = [
            ("metrics.listen", "listen in [metrics]", config.metrics.as_ref().map(|metrics| &metrics.listen)),
            ("admin.listen", "listen in [admin]", config.admin.as_ref().map(|admin| &admin.listen)),
            (
                "credentials.listen",
                "listen in [credentials]",
                config.credentials.as_ref().map(|credentials| &credentials.listen),
            ),
        ];
        for (key, shown, endpoint) in endpoints {
            if let Some(Endpoint::Unix(path)) = endpoint {
                self.write(&place(key), shown, path, Made::Socket);
            }
        }
    }

    fn read(&mut self, place: &str, key: &str, path: &Path, wanted: Wanted) {
        if self.is_moved(path) {
            return;
        }
        let (shown, path) = (path.display(), absolute(path));
        let path = path.as_path();
        let leads_to = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let hidden = self.unit.and_then(|unit| unit.hides(path).or_else(|| unit.hides(&leads_to)));
        if let Some(why) = hidden {
            let message =
                format!("{place}: {key}: {shown}: the service does not see it: {why}; keep it in /etc/turnstone");
            return self.steps.push(finding("service", Status::Fail, message));
        }
        self.try_as_user(
            || File::open(path).map(drop).map_err(|error| (path.to_owned(), error)),
            wanted,
            (place, key, path),
        );
    }

    fn write(&mut self, place: &str, key: &str, path: &Path, made: Made) {
        if self.is_moved(path) {
            return;
        }
        let path = absolute(path);
        let path = path.as_path();
        if let Some(unit) = self.unit {
            let directory = made.directory(path);
            if let Some((own, _)) = unit.makes(path)
                && (path.parent() == Some(own) || path == own)
                && std::fs::metadata(own).ok().is_none_or(|metadata| metadata.uid() != self.user.uid)
            {
                // The manager makes it, or gives it to the user, at the start.
                self.good += 1;
                return;
            }
            if let Some(why) = unit.forbids_writing(path) {
                // In a /tmp of its own it can be made, to no use.
                let status = if why.starts_with("PrivateTmp=") { Status::Warn } else { Status::Fail };
                let (shown, usual) = (path.display(), made.usual());
                let message = format!(
                    "{place}: {key}: {shown}: the service cannot write there: {why}; use {usual}, or run: systemctl edit \
                     turnstone, and add [Service] ReadWritePaths={}",
                    directory.display()
                );
                return self.steps.push(finding("service", status, message));
            }
        }
        self.try_as_user(|| made.attempt(path), Wanted::Write, (place, key, path));
    }

    /// Tries what the service will do; an error comes with the path that it is about.
    fn try_as_user(
        &mut self,
        what: impl FnOnce() -> Attempt + Send,
        wanted: Wanted,
        (place, key, path): (&str, &str, &Path),
    ) {
        let name = self.user.name.as_str();
        // What helps is found out with the user's access, too.
        let tried = self.user.act(|| {
            what().map_err(|(at, error)| match error.kind() {
                ErrorKind::Other => error.to_string(),
                _ => why_not(name, &at, wanted, &error),
            })
        });
        match tried {
            None => self.was_tried = false,
            Some(Ok(())) => self.good += 1,
            Some(Err(problem)) => {
                let message = format!("{place}: {key}: {}: {problem}", path.display());
                self.steps.push(finding("service", Status::Fail, message));
            }
        }
    }

    fn is_moved(&self, path: &Path) -> bool {
        self.moves.as_ref().is_some_and(|directory| absolute(path).starts_with(directory))
    }

    fn low_ports(&mut self) {
        let Some(unit) = self.unit.filter(|unit| !unit.may_bind_low_ports) else { return };
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
        let first: u16 = text.trim().parse().unwrap_or(UNPRIVILEGED_PORT);
        for listener in
            self.plan.config.listeners.iter().filter(|listener| (1..first).contains(&listener.address.port()))
        {
            let message = format!(
                "listener {} {}: ports below {first} need CAP_NET_BIND_SERVICE, which {} does not give",
                listener.transport,
                listener.address,
                unit.path.display()
            );
            self.steps.push(finding("service", Status::Fail, message));
        }
        let http = self.plan.config.acme.as_ref().and_then(|acme| acme.challenges.http);
        if let Some(address) = http.filter(|address| (1..first).contains(&address.port())) {
            let path = unit.path.display();
            let message = format!(
                "acme-http {address}: ports below {first} need CAP_NET_BIND_SERVICE, which {path} does not give"
            );
            self.steps.push(finding("service", Status::Fail, message));
        }
    }
}

type Attempt = Result<(), (PathBuf, Error)>;

/// What the server makes at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// One that is put aside, or not: for that its directory must be writable, too.
    File {
        is_put_aside: bool,
    },
    Directory,
    Socket,
}

impl Made {
    /// The directory that must be there, and be writable.
    fn directory(self, path: &Path) -> PathBuf {
        if self == Self::Directory && path.is_dir() {
            return path.to_owned();
        }
        let parent = |path: &'_ Path| path.parent().filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_owned);
        match parent(path) {
            // The server makes it for its socket.
            Some(own) if self == Self::Socket && !own.exists() => parent(&own).unwrap_or_else(|| PathBuf::from(".")),
            own => own.unwrap_or_else(|| PathBuf::from(".")),
        }
    }

    fn usual(self) -> &'static str {
        match self {
            Self::File { .. } => "/var/log/turnstone",
            Self::Directory => "/var/lib/turnstone",
            Self::Socket => "/run/turnstone",
        }
    }

    /// Does what the server will do, and leaves nothing behind. An error comes with the path that it is about.
    fn attempt(self, path: &Path) -> Attempt {
        let of_path = |error| (path.to_owned(), error);
        match (self, std::fs::metadata(path)) {
            (Self::File { .. }, Ok(there)) if !there.is_file() => {
                return Err(of_path(Error::other("there is something that is not a regular file")));
            }
            (Self::Socket, Ok(there)) if !there.file_type().is_socket() => {
                return Err(of_path(Error::other("there is a file that is not a socket")));
            }
            (Self::File { is_put_aside }, Ok(_)) => {
                File::options().append(true).open(path).map_err(of_path)?;
                if !is_put_aside {
                    return Ok(());
                }
            }
            _ => {}
        }
        // A file that is made and has its name taken away is the only question that every file system answers truly.
        let scratch = self.directory(path).join(format!(".turnstone-check-{}", std::process::id()));
        let tried = File::options().write(true).create_new(true).open(&scratch);
        tried.and_then(|_| std::fs::remove_file(&scratch)).map_err(|error| (scratch, error))
    }
}

/// The same path for who is in another directory than this process.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (std::fs::canonicalize(one), std::fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
