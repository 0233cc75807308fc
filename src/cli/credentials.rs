//! `turnstone credentials`: makes time-limited credentials.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::auth::SharedSecret;
use crate::config::{duration_text, parse_duration};
use crate::credentials::{About, Issued, LimitTexts, TTL_MAX_SECS, UsernameRules, Wish, ice_servers, turn_urls};

use super::api_key::{self, KeyArgs};
use super::hash::{self, HashArgs};
use super::input::{ConfigFlags, read_stdin};
use super::output::{CliError, Exit, Printer, unix_now, utc_text};
use super::token::{self, TokenArgs};
use super::verify::{self, RealmOf, VerifyArgs};

/// Make a time-limited credential, or say why one does not work.
///
/// The secret comes from the configuration, from --secret-file, from TURNSTONE_SECRET or from standard input, never from
/// an argument. The URLs are those of the configuration's listeners.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct CredentialsArgs {
    #[command(subcommand)]
    command: Option<CredentialsCommand>,

    /// Whom it is for: quotas count on this name, so give each person another.
    #[arg(long, value_name = "NAME", required = true)]
    user: Option<String>,

    /// How long it is good, such as 30m, 12h or 7d.
    #[arg(long, value_name = "DURATION", default_value = "12h")]
    ttl: String,

    /// The user's bandwidth at most, in bits a second and direction, such as 500K, 2M or 1G; username-limits must be on.
    #[arg(long, value_name = "BITS")]
    bandwidth: Option<String>,

    /// The user's allocations at most; likewise.
    #[arg(long, value_name = "NUMBER")]
    allocations: Option<String>,

    /// The peer policy that must allow a peer as well, the name of a [[peers.policy]]; likewise.
    #[arg(long, value_name = "NAME")]
    peers: Option<String>,

    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// Which secret of the configuration to use [default: the first].
    #[arg(long, value_name = "ID", conflicts_with = "secret_stdin")]
    secret_id: Option<String>,

    /// Which [[realm]] it is for [default: that of [auth]].
    #[arg(long, value_name = "NAME", conflicts_with = "secret_stdin")]
    in_realm: Option<String>,

    /// Read the secret from standard input.
    #[arg(long)]
    secret_stdin: bool,

    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Subcommand)]
enum CredentialsCommand {
    Verify(VerifyArgs),
    Token(TokenArgs),
    Hash(HashArgs),
    Key(KeyArgs),
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For reading.
    Text,
    /// username, password, ttl and uris, as in the TURN REST draft.
    Json,
    /// The argument of new RTCPeerConnection(...): an object with iceServers.
    IceServers,
}

pub(super) fn run(args: &CredentialsArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    match &args.command {
        Some(CredentialsCommand::Verify(verify)) => return verify::run(verify, printer),
        Some(CredentialsCommand::Token(token)) => return token::run(token, printer),
        Some(CredentialsCommand::Hash(hash)) => return hash::run(hash, printer),
        Some(CredentialsCommand::Key(key)) => return api_key::run(key, printer),
        None => {}
    }
    let ttl = parse_duration(&args.ttl).map_err(|problem| CliError::usage(format!("--ttl: {problem}")))?;
    let ttl_secs = ttl.as_secs();
    if ttl_secs == 0 || ttl_secs > TTL_MAX_SECS {
        return Err(CliError::usage(format!("--ttl: {:?} is not from 1s to 366d", args.ttl)));
    }
    let now_unix = unix_now();
    let mut reading = args.flags.read(false)?;
    if args.secret_stdin {
        reading.overrides.set_secret("--secret-stdin", read_secret()?);
    }
    let config = reading.load_credentials(printer)?;
    if let Some(max) = config.auth.credential_lifetime_max.filter(|max| ttl > *max) {
        let max = duration_text(max);
        return Err(CliError::usage(format!(
            "--ttl: {} is more than credential-lifetime-max in [auth], {max}",
            args.ttl
        )));
    }
    let realm = RealmOf::find(&config, args.in_realm.as_deref())?;
    let secret = choose(realm.secrets, args.secret_id.as_deref())?;
    let issued = issue(args, ttl_secs, &realm, secret, now_unix)?;
    let (username, password) = (&issued.username, &issued.password);
    let listeners = config.listeners.iter().map(|listener| (listener.transport, listener.address));
    let urls = turn_urls(listeners, &config.relay, config.auth.public_host.as_deref());
    match if args.json { Format::Json } else { args.format } {
        Format::Text => {
            let expires = utc_text(issued.expires_unix);
            printer.line(format_args!("username  {username}"))?;
            printer.line(format_args!("password  {}", **password))?;
            printer.line(format_args!("expires   {expires} (in {})", args.ttl))?;
            for url in &urls {
                printer.line(format_args!("url       {url}"))?;
            }
        }
        Format::Json => {
            let ttl = issued.ttl_secs;
            printer.line(json!({ "username": username, "password": **password, "ttl": ttl, "uris": urls }))?;
        }
        Format::IceServers => printer.line(ice_servers(&urls, username, password))?,
    }
    Ok(Exit::Success)
}

fn issue(
    args: &CredentialsArgs,
    ttl_secs: u64,
    realm: &RealmOf<'_>,
    secret: &SharedSecret,
    now_unix: u64,
) -> Result<Issued, CliError> {
    let limits = LimitTexts {
        bandwidth: args.bandwidth.as_deref(),
        allocations: args.allocations.as_deref(),
        peers: args.peers.as_deref(),
    };
    let wish = Wish { user: args.user.as_deref().unwrap_or_default(), ttl_secs, limits };
    let policies: Vec<_> = realm.config.peer_policies.iter().map(|(name, _)| *name).collect();
    let rules = UsernameRules { limits: realm.username_limits, policies: &policies };
    wish.issue(secret, rules, now_unix).map_err(|error| {
        let flag = match error.about() {
            About::User => "--user",
            About::Bandwidth => "--bandwidth",
            About::Allocations => "--allocations",
            About::Peers => "--peers",
        };
        CliError::usage(format!("{flag}: {error}"))
    })
}

fn choose<'s>(secrets: &'s [SharedSecret], id: Option<&str>) -> Result<&'s SharedSecret, CliError> {
    let found = match id {
        Some(id) => secrets.iter().find(|secret| secret.id == id),
        None => secrets.first(),
    };
    found.ok_or_else(|| match (id, secrets.is_empty()) {
        (_, true) => CliError::usage("the configuration has no shared secret to make a credential with"),
        (id, false) => {
            let ids: Vec<_> = secrets.iter().map(|secret| secret.id.as_str()).collect();
            CliError::usage(format!("--secret-id: no secret {:?}; there is {}", id.unwrap_or_default(), ids.join(", ")))
        }
    })
}

fn read_secret() -> Result<String, CliError> {
    let mut secret = read_stdin().map_err(|error| CliError::usage(format!("--secret-stdin: {error}")))?;
    let end = secret.strip_suffix('\n').map(|rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    secret.truncate(end.unwrap_or(secret.len()));
    Ok(secret)
}
