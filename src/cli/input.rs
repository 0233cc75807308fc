//! Where the configuration comes from: `--config`, the flags of `config::overridable`, the environment.

use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use crate::config::{
    CONFIG_ENV, Config, ConfigError, DEFAULT_FILE, Host, Loaded, Overrides, Place, READERS_ENV, Readers, Source,
    Surroundings, overridable,
};
use crate::import::coturn_directives;
use crate::ops::host;

use super::dev_socket;
use super::output::{CliError, Printer};

const STDIN_BYTES_MAX: u64 = 64 * 1024;

/// Reads standard input as text, to its end or bound.
pub(super) fn read_stdin() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(STDIN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Who may read the files of secrets that a client's flags name: in a container they have the modes that the server's have.
pub(super) fn secret_readers() -> Readers {
    Readers::of_variable(std::env::var(READERS_ENV).ok().as_deref())
}

/// `--config` and the flags that win over the file.
#[derive(Clone, Debug, Default)]
pub(super) struct ConfigFlags {
    config: Option<PathBuf>,
    values: Vec<(&'static str, Vec<String>)>,
}

/// How the configuration is to be read.
pub(super) struct Reading {
    /// Where from; its text is empty when there is no file.
    pub(super) source: Source,
    /// Whether a file was read.
    pub(super) has_file: bool,
    /// What wins over it.
    pub(super) overrides: Overrides,
}

impl ConfigFlags {
    /// The same with this file.
    pub(super) fn with_file(&self, file: &Path) -> Self {
        Self { config: Some(file.to_owned()), ..self.clone() }
    }

    /// The file that is named.
    pub(super) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Reads the file and collects what wins over it. Without `--config` and `TURNSTONE_CONFIG`, the default file may be
    /// absent; with `dev` it is not looked for.
    pub(super) fn read(&self, dev: bool) -> Result<Reading, ConfigError> {
        self.read_by(Source::read, dev)
    }

    /// The same for a running server, of files alone: nobody writes to a pipe once more.
    pub(super) fn read_again(&self, dev: bool) -> Result<Reading, ConfigError> {
        self.read_by(Source::read_again, dev)
    }

    fn read_by(&self, read: fn(&Path) -> Result<Source, ConfigError>, dev: bool) -> Result<Reading, ConfigError> {
        let variables: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok())))
            .filter(|(name, _)| name.starts_with("TURNSTONE_"))
            .collect();
        let pairs = variables.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        let mut overrides = Overrides::from_env(pairs).map_err(|problem| ConfigError { problems: vec![problem] })?;
        for (flag, values) in &self.values {
            overrides.set_flag(flag, values.clone());
        }
        let from_env = || std::env::var_os(CONFIG_ENV).filter(|path| !path.is_empty()).map(PathBuf::from);
        let (source, has_file) = match self.config.clone().or_else(from_env) {
            Some(path) => (read(&path)?, true),
            None if dev => (Source { name: "--dev".to_owned(), ..Source::default() }, false),
            None => match Path::new(DEFAULT_FILE).try_exists() {
                Ok(false) => (Source::absent(DEFAULT_FILE), false),
                // Also where its directory may not be looked into: reading it says so.
                Ok(true) | Err(_) => (read(Path::new(DEFAULT_FILE))?, true),
            },
        };
        Ok(Reading { source, has_file, overrides })
    }
}

impl Reading {
    /// Parses it.
    pub(super) fn load(&self, dev: bool) -> Result<Loaded, ConfigError> {
        self.parse(host::detect(), dev)
    }

    /// Parses it for a command that is about credentials. It opens no relay: a machine without a network will do.
    pub(super) fn load_credentials(&self, printer: &mut Printer) -> Result<Config, CliError> {
        let host = host::detect();
        let host = Host { ipv4: host.ipv4.or(Some(Ipv4Addr::LOCALHOST)), ..host };
        let loaded = self.parse(host, false).inspect_err(|_| {
            if !self.has_file && !dev_socket::alive().is_empty() {
                printer.error(
                    "hint: a serve --dev of yours runs, which makes up its secret unless it is given one: start it with \
                     TURNSTONE_SECRET=..., and set the same here",
                );
            }
        })?;
        for warning in loaded.warnings.iter().filter(|warning| warning.message.contains("secret")) {
            printer.error(format_args!("warning: {warning}"));
        }
        Ok(loaded.config)
    }

    fn parse(&self, host: Host, dev: bool) -> Result<Loaded, ConfigError> {
        let env = |name: &str| std::env::var(name).ok();
        let around = Surroundings { host, env: &env, dev };
        Config::parse(&self.source, &self.overrides, &around).map_err(|error| {
            let Some(directives) = coturn_directives(&self.source.text) else { return error };
            let name = &self.source.name;
            let message = format!(
                "this is a configuration of coturn ({directives}); convert it: turnstone import {name} --output turnserver.toml"
            );
            ConfigError::one(Place::Source(name.clone()), message)
        })
    }
}

/// Help texts begin like sentences; in the manual page these stand in one.
fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

impl FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        for flag in overridable().filter_map(|overridable| overridable.flag) {
            if let Some(values) = matches.get_many::<String>(flag) {
                self.values.push((flag, values.cloned().collect()));
            }
        }
        Ok(())
    }
}

impl Args for ConfigFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = Arg::new("config")
            .long("config")
            .short('c')
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("Configuration file [default: {DEFAULT_FILE}] [variable: {CONFIG_ENV}]"));
        overridable().fold(command.arg(config), |command, overridable| {
            let Some(flag) = overridable.flag else { return command };
            command.arg(
                Arg::new(flag)
                    .long(flag)
                    .value_name(overridable.value_name)
                    .action(if overridable.list { ArgAction::Append } else { ArgAction::Set })
                    .help(format!("{} [variable: {}]", capitalized(overridable.help), overridable.env))
                    .help_heading("Instead of the file's values"),
            )
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}
