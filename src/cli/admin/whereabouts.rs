//! Where the admin API of a server is, and the token for it: flags, variables, the server's configuration, the default.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use crate::config::{
    ADMIN_ENV, ADMIN_TOKEN_ENV, Admin, AdminToken, CONFIG_ENV, ConfigError, DEFAULT_FILE, Endpoint, Source,
    Surroundings, read_private_input, trim_line_end,
};
use crate::net::connect_unix;
use crate::ops::host;

use super::super::dev_socket;
use super::super::input::secret_readers;
use super::super::output::CliError;
use super::client::Client;

const DEFAULT_SOCKET: &str = "/run/turnstone/admin.sock";

/// The flags that every command on a running server has.
#[derive(Args)]
#[command(next_help_heading = "Where the server is")]
pub(in crate::cli) struct AdminFlags {
    #[command(flatten)]
    address: AdminAddress,

    /// The server's configuration file, of which only [admin] is read [default: /etc/turnstone/turnserver.toml]
    /// [variable: TURNSTONE_CONFIG]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Those of them that a command has that reads the whole configuration.
#[derive(Args)]
#[command(next_help_heading = "Where the server is")]
pub(in crate::cli) struct AdminAddress {
    /// Where its admin API listens: unix:PATH, or ADDRESS:PORT on loopback [default: [admin] listen of the
    /// configuration file, else unix:/run/turnstone/admin.sock, else that of your serve --dev] [variable: TURNSTONE_ADMIN]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,

    /// File with the API's token, readable by its owner only [default: that of the configuration file]
    /// [variable, for the token itself: TURNSTONE_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

impl AdminFlags {
    /// A client of the API. Nothing is sent yet.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        self.address.client(self.config.as_deref())
    }

    /// The server's configuration file, and whether somebody has named it.
    pub(super) fn config_file(&self) -> (PathBuf, bool) {
        file_of(self.config.as_deref())
    }
}

impl AdminAddress {
    /// Whether it was said where a server is.
    pub(super) fn is_given(&self) -> Result<bool, CliError> {
        Ok(self.named_endpoint()?.is_some())
    }

    /// A client of the API of the server with this configuration file. Nothing is sent yet.
    pub(super) fn client(&self, config: Option<&Path>) -> Result<Client, CliError> {
        let named = self.named_endpoint()?;
        let token = self.named_token()?;
        let is_named_config = config.is_some();
        let (file, is_ours) = file_of(config);
        let Some(endpoint) = named else {
            let (configured, hint) = configured(&file, is_ours, token.is_none())?;
            return Ok(match configured {
                Some(Admin { listen: Endpoint::Tcp(address), .. }) if address.port() == 0 => {
                    let file = file.display();
                    let message = format!("{file}: [admin] listen has port 0; name the real one with --admin");
                    return Err(CliError::usage(message));
                }
                Some(admin) => Client::new(admin.listen, token.or(admin.token), hint),
                None if !is_ours && nobody_listens(Path::new(DEFAULT_SOCKET)) => dev_server(token, hint)?,
                None => Client::new(Endpoint::Unix(PathBuf::from(DEFAULT_SOCKET)), token, hint),
            });
        };
        // A token is shown only to the server that it belongs to.
        let token = match token {
            None if is_named_config => configured(&file, true, true)?.0.and_then(|admin| admin.token),
            None => configured(&file, false, false)
                .ok()
                .and_then(|(admin, _)| admin.filter(|admin| admin.listen == endpoint))
                .and_then(|_| configured(&file, false, true).ok()?.0?.token),
            token => token,
        };
        Ok(Client::new(endpoint, token, "is the server running, and is that its [admin] listen?".to_owned()))
    }

    fn named_endpoint(&self) -> Result<Option<Endpoint>, CliError> {
        let (source, text) = match (&self.admin, variable(ADMIN_ENV)) {
            (Some(text), _) => ("--admin", text.clone()),
            (None, Some(text)) => (ADMIN_ENV, text),
            (None, None) => return Ok(None),
        };
        Admin::parse_listen(source, &text).map(Some).map_err(CliError::usage)
    }

    fn named_token(&self) -> Result<Option<AdminToken>, CliError> {
        let (source, bytes) = match (&self.admin_token_file, variable(ADMIN_TOKEN_ENV)) {
            (Some(path), _) => {
                let read = read_private_input(path, secret_readers())
                    .map_err(|problem| wrong("--admin-token-file", problem))?;
                ("--admin-token-file", trim_line_end(read))
            }
            (None, Some(text)) => (ADMIN_TOKEN_ENV, Zeroizing::new(text.into_bytes())),
            (None, None) => return Ok(None),
        };
        AdminToken::new(bytes).map(Some).map_err(|problem| wrong(source, problem))
    }
}

fn file_of(config: Option<&Path>) -> (PathBuf, bool) {
    match config.map(Path::to_owned).or_else(|| variable(CONFIG_ENV).map(PathBuf::from)) {
        Some(path) => (path, true),
        None => (PathBuf::from(DEFAULT_FILE), false),
    }
}

/// Whether there is no socket, or one that a server has left behind; one that may not be used is somebody's.
fn nobody_listens(socket: &Path) -> bool {
    let error = connect_unix(socket, dev_socket::CONNECT_LIMIT).err().map(|error| error.kind());
    matches!(error, Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused))
}

/// The one `serve --dev` of this user, where no server of the system is to be seen.
fn dev_server(token: Option<AdminToken>, hint: String) -> Result<Client, CliError> {
    let mut alive = dev_socket::alive();
    match (alive.pop(), alive.is_empty()) {
        (None, _) => Ok(Client::new(Endpoint::Unix(PathBuf::from(DEFAULT_SOCKET)), token, hint)),
        (Some(socket), true) => Ok(Client::new(Endpoint::Unix(socket), token, hint)),
        (Some(last), false) => {
            alive.push(last);
            let named: Vec<_> = alive.iter().map(|socket| format!("  --admin unix:{}", socket.display())).collect();
            Err(CliError::usage(format!("several servers run with --dev; name one of them:\n{}", named.join("\n"))))
        }
    }
}

/// What `[admin]` of a file says, and what to tell when nobody listens there. A file that is not `ours` may be absent or out of
/// bounds: the default address is then tried.
fn configured(path: &Path, is_ours: bool, wants_token: bool) -> Result<(Option<Admin>, String), CliError> {
    if !is_ours && path.try_exists().is_ok_and(|exists| !exists) {
        return Ok((None, format!("there is no {DEFAULT_FILE}; --admin says where the server is")));
    }
    let source = match Source::read(path) {
        Ok(source) => source,
        Err(error) if is_ours => return Err(error.into()),
        Err(error) => return Ok((None, format!("that is the default address, as {error}"))),
    };
    let env = |name: &str| std::env::var(name).ok();
    let around = Surroundings { host: host::detect(), env: &env, dev: false };
    match Admin::for_client(&source, &around, wants_token) {
        Ok(Some(admin)) => {
            Ok((Some(admin), "is the server running? systemctl status turnstone, or its log, says why not".to_owned()))
        }
        Ok(None) => {
            let hint = format!(
                "{} has no [admin] listen, without which a server has no admin API; add this to it and restart the server:\n\n\
                 [admin]\nlisten = \"unix:{DEFAULT_SOCKET}\"\n",
                source.name
            );
            Ok((None, hint))
        }
        Err(error) => Err(unusable(&error)),
    }
}

fn unusable(error: &ConfigError) -> CliError {
    CliError::usage(format!(
        "[admin] cannot be used:\n{error}\nhint: --admin says where the server is, --admin-token-file or {ADMIN_TOKEN_ENV} its token"
    ))
}

fn wrong(source: &str, problem: impl Display) -> CliError {
    CliError::usage(format!("{source}: {problem}"))
}

/// A variable; an empty one counts as unset.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
