//! `turnstone credentials verify`: asks the server's own code whether a credential passes, and says why not.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use crate::addr::{ClientAddr, FiveTuple, Transport};
use crate::auth::{
    Credentials, Diagnosis, Features, Identity, NonceHolder, NonceKeys, Revocations, SharedSecret, UsernameLimits,
    Users, diagnose, diagnose_with_limits,
};
use crate::clock::Now;
use crate::config::{Config, RealmConfig};
use crate::reject::Reason;
use crate::stun::{
    AttributeType, Class, Encoder, IntegrityKind, Key, Message, Method, PasswordAlgorithm, TransactionId,
};
use crate::text::json_pretty;

use super::admin::{AdminAddress, Known, ask_whether_revoked};
use super::input::{self, ConfigFlags};
use super::output::{CliError, Exit, Printer, unix_now};

/// Say whether the server would accept a username and password, and if not, why.
#[derive(Args)]
#[command(
    after_help = "It knows what is often done wrong: another secret, hexadecimal in place of base64, milliseconds in
place of seconds, a newline too many, and so on. It looks at what [auth] revocations lists. What
commands and the API have revoked only the running server knows: its admin API is asked, if it can
be reached, and a note says when it was not.

Exit code 0 when it is valid, 1 when it is not."
)]
pub(super) struct VerifyArgs {
    /// The username.
    user: String,

    /// The password; - reads it from standard input.
    password: String,

    /// The [[realm]] it is for [default: that of [auth]].
    #[arg(long, value_name = "NAME")]
    in_realm: Option<String>,

    /// Ask no running server what is revoked.
    #[arg(long, conflicts_with_all = ["admin", "admin_token_file"])]
    offline: bool,

    #[command(flatten)]
    server: AdminAddress,

    /// Print an object: valid, the reason in words, and revoked: true, false, or null if no server was asked.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    flags: ConfigFlags,
}

pub(super) fn run(args: &VerifyArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let password = if args.password == "-" { read_stdin()? } else { args.password.clone() };
    let config = args.flags.read(false)?.load_credentials(printer)?;
    let realm = RealmOf::find(&config, args.in_realm.as_deref())?;
    let now_unix = unix_now();
    let (mut is_valid, mut text) = judge(&realm, &args.user, &password, now_unix)?;
    let mut revoked = None;
    if is_valid && !args.offline {
        match ask_server(args, &realm, &password, now_unix)? {
            Known::Revoked(by_what) => {
                (is_valid, text, revoked) = (false, format!("not valid: {by_what}"), Some(true));
            }
            Known::NotRevoked => revoked = Some(false),
            Known::Unasked(why) => printer.error(format_args!(
                "note: no running server was asked whether it is revoked ({why}); --admin says where one is, --offline that none is to be asked"
            )),
        }
    }
    if !is_valid && revoked.is_none() {
        for other in RealmOf::all(&config).filter(|other| other.name != realm.name) {
            if judge(&other, &args.user, &password, now_unix)?.0 {
                text += &format!("; it is good in the realm {:?}", other.name);
            }
        }
    }
    match args.json {
        true => printer.line(json_pretty(&json!({ "valid": is_valid, "reason": text, "revoked": revoked })))?,
        false => printer.line(&text)?,
    }
    Ok(if is_valid { Exit::Success } else { Exit::CheckFailed })
}

/// What the running server says of a credential that is good otherwise.
fn ask_server(args: &VerifyArgs, realm: &RealmOf<'_>, password: &str, now_unix: u64) -> Result<Known, CliError> {
    let Ok(mut identity) = authenticate(realm, &args.user, password, now_unix)? else { return Ok(Known::NotRevoked) };
    identity.user = identity.user.in_realm(realm.label());
    ask_whether_revoked(&args.server, (realm.config, args.flags.file()), &identity, realm.name, now_unix)
}

/// Who may allocate in one realm.
pub(super) struct RealmOf<'c> {
    pub(super) name: &'c str,
    pub(super) secrets: &'c [SharedSecret],
    pub(super) username_limits: bool,
    pub(super) config: &'c Config,
    users: &'c Arc<Users>,
}

impl<'c> RealmOf<'c> {
    /// The realm of this name, or that of `[auth]`.
    pub(super) fn find(config: &'c Config, name: Option<&str>) -> Result<Self, CliError> {
        let found = Self::all(config).find(|realm| name.is_none_or(|name| realm.name == name));
        found.ok_or_else(|| {
            let names: Vec<_> = Self::all(config).map(|realm| realm.name).collect();
            CliError::usage(format!(
                "--in-realm: no realm {:?}; there is {}",
                name.unwrap_or_default(),
                names.join(", ")
            ))
        })
    }

    /// Its table, unless it is that of `[auth]`.
    pub(super) fn table(&self) -> Option<&'c RealmConfig> {
        self.config.realms.iter().find(|realm| realm.name == self.name)
    }

    /// Whether a file revokes a credential of this realm; of what commands have revoked only the server knows.
    fn is_revoked(&self, mut identity: Identity, now_unix: u64) -> bool {
        let auth = &self.config.auth;
        let revocations = Revocations::default();
        identity.user = identity.user.in_realm(self.label());
        revocations.replace_listed(&auth.revocations).is_ok() && revocations.covers(&identity, now_unix)
    }

    /// What it is called among users: that of `[auth]` is nothing.
    fn label(&self) -> Option<Arc<str>> {
        (self.name != self.config.auth.realm).then(|| self.name.into())
    }

    fn all(config: &'c Config) -> impl Iterator<Item = Self> {
        let auth = &config.auth;
        let username_limits = auth.username_limits;
        let default = Self { name: &auth.realm, secrets: &auth.secrets, username_limits, config, users: &auth.users };
        let others = config.realms.iter().map(move |of| {
            let username_limits = of.username_limits.unwrap_or(username_limits);
            Self { name: &of.name, secrets: &of.secrets, username_limits, config, users: &of.users }
        });
        std::iter::once(default).chain(others)
    }
}

/// Whether it is valid, and a sentence. What the server says decides; the diagnosis explains.
fn judge(realm: &RealmOf<'_>, user: &str, password: &str, now_unix: u64) -> Result<(bool, String), CliError> {
    let answer = authenticate(realm, user, password, now_unix)?;
    let refused = |why: &str| Ok((false, format!("not valid: {why}")));
    match &answer {
        Ok(identity) if realm.is_revoked(identity.clone(), now_unix) => {
            return refused("the file of revocations in [auth] revokes it");
        }
        Ok(identity) if identity.expires_unix().is_none() => {
            return Ok((true, format!("valid: static user {:?}", identity.user.name())));
        }
        Err(Reason::UnknownUser) if realm.config.hook.is_some() => {
            return refused(
                "nobody in the configuration has this name; the server asks the application of [hook] about it",
            );
        }
        Err(Reason::UnknownUser) if realm.config.store.is_some() => {
            return refused("nobody in the configuration has this name; the server looks into its store, too");
        }
        _ => {}
    }
    match answer {
        Err(Reason::WrongPassword) if realm.users.is_stored_as_key(user) => {
            return refused(&format!(
                "this user is stored as a key, which is not that of this password in the realm {:?}: another password, or a key that was made \
                 for another realm or name; `turnstone credentials hash` makes it anew",
                realm.name
            ));
        }
        Err(Reason::ExpiryTooFar) => {
            return refused("it is good for longer than credential-lifetime-max in [auth] allows: issue it for less");
        }
        Err(Reason::NoKeyOfAlgorithm) => {
            return refused("this user is stored as a SHA-256 key only, which clients that use MD5 cannot have");
        }
        _ => {}
    }
    let diagnose = if realm.username_limits { diagnose_with_limits } else { diagnose };
    let diagnosis = diagnose(realm.secrets, user, password, now_unix);
    if matches!(diagnosis, Diagnosis::NotACredential) && !realm.users.is_empty() {
        return refused("no static user has this name and password, and it is not a time-limited credential");
    }
    if realm.secrets.is_empty() {
        return refused("no static user has this name and password, and no shared secret is configured");
    }
    match diagnosis.is_valid() {
        true => about_limits(realm, user, diagnosis.to_string()),
        false => refused(&diagnosis.to_string()),
    }
}

/// Adds what the limits in the username come to, if it has some.
fn about_limits(realm: &RealmOf<'_>, username: &str, text: String) -> Result<(bool, String), CliError> {
    let Ok((_, limits)) = UsernameLimits::split(username) else { return Ok((true, text)) };
    if limits.is_empty() {
        return Ok((true, text));
    }
    let shown = limits.to_string();
    let shown = shown.trim_start_matches(';');
    if !realm.username_limits {
        let note = format!("{shown} counts as part of the user's name, because username-limits is false");
        return Ok((true, format!("{text}; {note}")));
    }
    match limits.peers.filter(|name| realm.config.peer_policies.iter().all(|(known, _)| known != name)) {
        Some(name) => {
            let why = format!("no [[peers.policy]] has the name \"{name}\", so that it can make no allocation");
            Ok((false, format!("not valid: {why}")))
        }
        None => Ok((true, format!("{text}; limited to {shown}"))),
    }
}

/// Puts the credential into an Allocate request as an RFC 5389 client does, and lets the server's code judge it.
fn authenticate(
    realm: &RealmOf<'_>,
    user: &str,
    password: &str,
    now_unix: u64,
) -> Result<Result<Identity, Reason>, CliError> {
    const NONCE_LIFETIME_SECS: u32 = 60;
    let nonce_keys = Arc::new(NonceKeys::new([0; 32], NONCE_LIFETIME_SECS));
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let five_tuple = FiveTuple { transport: Transport::Udp, client: ClientAddr::new(server), server };
    let credentials = Credentials::builder(realm.name, Arc::clone(&nonce_keys));
    let credentials = credentials.users(Arc::clone(realm.users)).secrets(realm.secrets.to_vec());
    let credentials = credentials.username_limits(realm.username_limits);
    let lifetime_max_secs = realm.config.auth.credential_lifetime_max.map(|max| max.as_secs());
    let credentials = credentials.lifetime_max(lifetime_max_secs);
    let credentials = credentials.build().map_err(CliError::usage)?;
    let nonce =
        nonce_keys.issue(now_unix, NonceHolder::of(&five_tuple), credentials.nonce_scope(), Features::default());

    let realm = credentials.realm().as_bytes();
    let key = Key::long_term(PasswordAlgorithm::Md5, user.as_bytes(), realm, password.as_bytes());
    let mut request = Vec::new();
    let mut encoder = Encoder::new(&mut request, Class::Request, Method::ALLOCATE, TransactionId([0; 12]));
    encoder
        .attribute(AttributeType::USERNAME, user.as_bytes())
        .attribute(AttributeType::REALM, realm)
        .attribute(AttributeType::NONCE, nonce.as_bytes())
        .integrity(IntegrityKind::Sha1, &key);
    let Ok(message) = Message::parse(&request) else {
        return Err(CliError::usage("the username is too long"));
    };
    let now = Now { micros: 0, unix_secs: now_unix };
    Ok(credentials.authenticate(now, &five_tuple, &message, None).map(|authenticated| authenticated.identity))
}

fn read_stdin() -> Result<String, CliError> {
    let password =
        input::read_stdin().map_err(|error| CliError::usage(format!("cannot read the password: {error}")))?;
    let trimmed = password.strip_suffix('\n').unwrap_or(&password);
    Ok(trimmed.to_owned())
}
