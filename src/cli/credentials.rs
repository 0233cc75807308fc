//! `turnstone credentials`: makes time-limited credentials.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::auth::{Identity, SharedSecret};
use crate::config::{StoreConfig, StoreLayout, WaysIn, duration_text, parse_duration};
use crate::credentials::{About, Issued, LimitTexts, TTL_MAX_SECS, UsernameRules, Wish, ice_servers, written_urls};
use crate::user::User;
use crate::wall_clock::unix_now;

use super::admin::{AdminAddress, Known, ask_whether_revoked};
use super::api_key::{self, KeyArgs};
use super::hash::{self, HashArgs};
use super::input::{ConfigFlags, read_stdin};
use super::output::{CliError, Exit, Printer, utc_text};
use super::paste::{self, Program, env_text};
use super::token::{self, TokenArgs};
use super::verify::{self, RealmOf, VerifyArgs};

/// Make a time-limited credential, or say why one does not work.
///
/// The secret comes from the configuration, from --secret-file, from TURNSTONE_SECRET or from standard input, never from
/// an argument. The URLs are those that lead into the credential's realm: urls of [auth] or its
/// [[realm]], or those of the listeners, but for those behind proxies.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct CredentialsArgs {
    #[command(subcommand)]
    command: Option<CredentialsCommand>,

    /// Whom it is for: quotas count on this name, so give each person another. Not with --format synapse and the others that make credentials themselves.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// So many of them, for NAME-1, NAME-2 and so on: for load tests.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: Option<u32>,

    /// How long it is good, such as 30m, 12h or 7d.
    #[arg(long, value_name = "DURATION", default_value = "12h")]
    ttl: String,

    /// The user's bandwidth at most, in bits a second and direction, such as 500K, 2M or 1G, or 2Mbit/s as in the file;
    /// username-limits must be on.
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

    /// Ask no running server whether the user or the secret is revoked.
    #[arg(long, conflicts_with_all = ["admin", "admin_token_file"])]
    offline: bool,

    #[command(flatten)]
    server: AdminAddress,

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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For reading.
    Text,
    /// username, password, ttl and uris, as in the TURN REST draft.
    Json,
    /// The argument of new RTCPeerConnection(...): an object with iceServers.
    IceServers,
    /// Variables for a shell, or a file such as docker run --env-file reads.
    Env,
    /// For Synapse (Matrix), with the secret, by which it makes credentials itself.
    Synapse,
    /// For Nextcloud Talk; likewise.
    Nextcloud,
    /// For Prosody (XEP-0215); likewise.
    Prosody,
    /// For the Prosody of Jitsi Meet; likewise.
    Jitsi,
    /// For ejabberd (XEP-0215); likewise.
    Ejabberd,
    /// For LiveKit; likewise.
    Livekit,
}

impl Format {
    /// Who makes credentials itself.
    fn program(self) -> Option<Program> {
        match self {
            Self::Synapse => Some(Program::Synapse),
            Self::Nextcloud => Some(Program::Nextcloud),
            Self::Prosody => Some(Program::Prosody),
            Self::Jitsi => Some(Program::Jitsi),
            Self::Ejabberd => Some(Program::Ejabberd),
            Self::Livekit => Some(Program::Livekit),
            Self::Text | Self::Json | Self::IceServers | Self::Env => None,
        }
    }
}

pub(super) fn run(args: &CredentialsArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    match &args.command {
        Some(CredentialsCommand::Verify(verify)) => return verify::run(verify, printer),
        Some(CredentialsCommand::Token(token)) => return token::run(token, printer),
        Some(CredentialsCommand::Hash(hash)) => return hash::run(hash, printer),
        Some(CredentialsCommand::Key(key)) => return api_key::run(key, printer),
        None => {}
    }
    let format = if args.json { Format::Json } else { args.format };
    check_flags(args, format)?;
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
    let secret = choose(&realm, args.secret_id.as_deref())?;
    let urls = written_urls(&WaysIn::new(&config), realm.table());
    if let Some(program) = format.program() {
        let text = paste::lines(program, &urls, &secret.bytes, ttl_secs)?;
        text.lines().try_for_each(|line| printer.line(line))?;
        return Ok(Exit::Success);
    }
    if urls.is_empty() {
        let table = if realm.table().is_some() { "its [[realm]]" } else { "[auth]" };
        printer.error(format_args!(
            "warning: no URL leads into the realm {:?} as far as the configuration tells; set public-host or urls in {table}",
            realm.name
        ));
    }
    let name = args.user.as_deref().unwrap_or_default();
    let names: Vec<_> = match args.count {
        None => vec![name.to_owned()],
        Some(count) => (1..=count).map(|number| format!("{name}-{number}")).collect(),
    };
    for (index, user) in names.iter().enumerate() {
        let issued = issue(args, user, ttl_secs, &realm, secret, now_unix)?;
        if index > 0 && format == Format::Text {
            printer.line("")?;
        }
        print(&issued, format, &args.ttl, &urls, printer)?;
        // Those of a load test are not asked about one by one.
        if args.count.is_none() && !args.offline {
            note_if_revoked(args, &realm, (&issued, user), secret, printer)?;
        }
    }
    Ok(Exit::Success)
}

/// What does not go together, and what is missing.
fn check_flags(args: &CredentialsArgs, format: Format) -> Result<(), CliError> {
    let is_program = format.program().is_some();
    let limited = [&args.bandwidth, &args.allocations, &args.peers].into_iter().any(Option::is_some);
    match (&args.user, args.count) {
        (None, _) if !is_program => {
            Err(CliError::usage("--user is missing: whom the credential is for; for more, try '--help'"))
        }
        (Some(_), _) if is_program => Err(CliError::usage("--user: it makes credentials itself, for its own users")),
        (_, Some(_)) if is_program || format == Format::Env => {
            Err(CliError::usage("--count: expected --format text, json or ice-servers with it"))
        }
        _ if is_program && limited => Err(CliError::usage(
            "--bandwidth, --allocations and --peers: it makes credentials itself, without limits in them",
        )),
        _ => Ok(()),
    }
}

fn print(issued: &Issued, format: Format, ttl: &str, urls: &[String], printer: &mut Printer) -> Result<(), CliError> {
    let (username, password) = (&issued.username, &issued.password);
    match format {
        Format::Json => {
            let ttl = issued.ttl_secs;
            printer.line(json!({ "username": username, "password": **password, "ttl": ttl, "uris": urls }))
        }
        Format::IceServers => printer.line(ice_servers(urls, username, password)),
        Format::Env => {
            printer.line(format_args!("TURN_USERNAME={}", env_text(username)))?;
            printer.line(format_args!("TURN_PASSWORD={}", env_text(password)))?;
            printer.line(format_args!("TURN_URLS={}", env_text(&urls.join(","))))?;
            printer.line(format_args!("TURN_EXPIRES={}", issued.expires_unix))
        }
        _ => {
            let expires = utc_text(issued.expires_unix);
            printer.line(format_args!("username  {username}"))?;
            printer.line(format_args!("password  {}", **password))?;
            printer.line(format_args!("expires   {expires} (in {ttl})"))?;
            urls.iter().try_for_each(|url| printer.line(format_args!("url       {url}")))
        }
    }
}

fn issue(
    args: &CredentialsArgs,
    user: &str,
    ttl_secs: u64,
    realm: &RealmOf<'_>,
    secret: &SharedSecret,
    now_unix: u64,
) -> Result<Issued, CliError> {
    let bandwidth = args.bandwidth.as_deref().map(|text| match text.strip_suffix("bit/s") {
        Some(bits) => bits.replace('k', "K"),
        None => text.to_owned(),
    });
    let limits = LimitTexts {
        bandwidth: bandwidth.as_deref(),
        allocations: args.allocations.as_deref(),
        peers: args.peers.as_deref(),
    };
    let wish = Wish { user, ttl_secs, limits };
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

/// The server would refuse it, as its API refuses to make it.
fn note_if_revoked(
    args: &CredentialsArgs,
    realm: &RealmOf<'_>,
    (issued, user): (&Issued, &str),
    secret: &SharedSecret,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let user = User::time_limited(user).in_realm(realm.label());
    let identity = Identity::of_time_limited(issued.username.as_str().into(), user, issued.expires_unix, &secret.id);
    if realm.is_revoked(identity.clone(), unix_now()) {
        printer.error("warning: the file of revocations in [auth] revokes it: the server refuses this credential");
        return Ok(());
    }
    match ask_whether_revoked(&args.server, (realm.config, args.flags.file()), &identity, realm.name, unix_now())? {
        Known::Revoked(by_what) => {
            printer.error(format_args!("warning: {by_what}: the server refuses this credential"));
        }
        Known::NotRevoked => {}
        Known::Unasked(why) => printer.error(format_args!(
            "note: no running server was asked whether it is revoked ({why}); --admin says where one is, --offline that none is to be asked"
        )),
    }
    Ok(())
}

fn choose<'c>(realm: &RealmOf<'c>, id: Option<&str>) -> Result<&'c SharedSecret, CliError> {
    let secrets = realm.secrets;
    let found = match id {
        Some(id) => secrets.iter().find(|secret| secret.id == id),
        None => secrets.first(),
    };
    found.ok_or_else(|| match (id, secrets.is_empty()) {
        (_, true) => {
            let of_store = realm.config.store.as_ref().map(|store| not_of_store(store, realm.name)).unwrap_or_default();
            CliError::usage(format!("the configuration has no shared secret to make a credential with{of_store}"))
        }
        (id, false) => {
            let ids: Vec<_> = secrets.iter().map(|secret| secret.id.as_str()).collect();
            CliError::usage(format!("--secret-id: no secret {:?}; there is {}", id.unwrap_or_default(), ids.join(", ")))
        }
    })
}

/// How one makes a credential where the secrets are in the store.
fn not_of_store(store: &StoreConfig, realm: &str) -> String {
    let command = match store.layout {
        StoreLayout::Own => format!("HGET '{}:secrets:{realm}' ID", store.prefix),
        StoreLayout::Coturn => format!("SRANDMEMBER 'turn/realm/{realm}/secret'"),
    };
    format!(
        ", and this command does not use those of [store]: hand it one (redis-cli {command} | turnstone credentials --user NAME --secret-stdin), \
         or ask the API of [credentials], which uses them (docs/credentials.md)"
    )
}

fn read_secret() -> Result<String, CliError> {
    let mut secret = read_stdin().map_err(|error| CliError::usage(format!("--secret-stdin: {error}")))?;
    let end = secret.strip_suffix('\n').map(|rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    secret.truncate(end.unwrap_or(secret.len()));
    Ok(secret)
}
