//! `turnstone credentials verify`: asks the server's own code whether a credential passes, and says why not.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::addr::{ClientAddr, FiveTuple, Transport};
use crate::auth::{
    Credentials, Diagnosis, Features, Identity, NonceHolder, NonceKeys, Revocations, SharedSecret, TimeLimited,
    UsernameLimits, Users, diagnose, diagnose_with_limits,
};
use crate::clock::Now;
use crate::config::{Config, RealmConfig};
use crate::reject::Reason;
use crate::store::{LookedUp, look_up};
use crate::stun::{
    AttributeType, Class, Encoder, IntegrityKind, Key, Message, Method, PasswordAlgorithm, TransactionId,
};
use crate::text::json_pretty;
use crate::user::User;
use crate::wall_clock::unix_now;

use super::admin::{AdminAddress, Known, ask_whether_revoked};
use super::input::{self, ConfigFlags};
use super::output::{CliError, Exit, Printer};

/// The longest that a store may take.
const STORE_LIMIT: Duration = Duration::from_secs(5);

/// Say whether the server would accept a username and password, and if not, why.
#[derive(Args)]
#[command(
    after_help = "It knows what is often done wrong: another secret, hexadecimal in place of base64, milliseconds in
place of seconds, a newline too many, and so on. The store of [store] is asked for the secrets
of the realm and for the user. It looks at what [auth] revocations lists. What commands and the
API have revoked only the running server knows: its admin API is asked, if it can be reached,
and a note says when it was not.

Exit code 0 when it is valid, 1 when it is not, 3 when that is not known here: the store was not
asked or does not answer, or only the application of [hook] could say it, which is not asked."
)]
pub(super) struct VerifyArgs {
    /// The username.
    user: String,

    /// The password; - reads it from standard input.
    password: String,

    /// The [[realm]] it is for [default: that of [auth]].
    #[arg(long, value_name = "NAME")]
    in_realm: Option<String>,

    /// Ask no running server what is revoked, nor the store of [store].
    #[arg(long, conflicts_with_all = ["admin", "admin_token_file"])]
    offline: bool,

    #[command(flatten)]
    server: AdminAddress,

    /// Print an object: valid (true, false, or null if that is not known here), the reason in words, and revoked: true, false, or null if no
    /// server was asked.
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
    let stored = Stored::of(&realm, &args.user, now_unix, args.offline);
    let mut verdict = judge(&realm, &stored, &args.user, &password, now_unix)?;
    let mut revoked = None;
    if let (Some(identity), false) = (verdict.identity(), args.offline) {
        let mut identity = identity.clone();
        identity.user = identity.user.in_realm(realm.label());
        match ask_whether_revoked(&args.server, (realm.config, args.flags.file()), &identity, realm.name, now_unix)? {
            Known::Revoked(by_what) => {
                (verdict, revoked) = (Verdict::Invalid(format!("not valid: {by_what}")), Some(true));
            }
            Known::NotRevoked => revoked = Some(false),
            Known::Unasked(why) => printer.error(format_args!(
                "note: no running server was asked whether it is revoked ({why}); --admin says where one is, --offline that none is to be asked"
            )),
        }
    }
    if let (Verdict::Invalid(text) | Verdict::NotKnown(text, _), false) = (&mut verdict, revoked == Some(true)) {
        for other in RealmOf::all(&config).filter(|other| other.name != realm.name) {
            let judged = judge(&other, &Stored::Nothing, &args.user, &password, now_unix)?;
            if matches!(judged, Verdict::Valid(..)) {
                *text += &format!("; it is good in the realm {:?}", other.name);
            }
        }
    }
    let (valid, text, exit) = match &verdict {
        Verdict::Valid(text, _) => (Some(true), text, Exit::Success),
        Verdict::Invalid(text) => (Some(false), text, Exit::CheckFailed),
        Verdict::NotKnown(text, _) => (None, text, Exit::RunTime),
    };
    match args.json {
        true => printer.line(json_pretty(&json!({ "valid": valid, "reason": text, "revoked": revoked })))?,
        false => printer.line(text)?,
    }
    Ok(exit)
}

/// What came of a credential, and a sentence.
enum Verdict {
    Valid(String, Identity),
    Invalid(String),
    /// Somebody else may know it, who is not asked here or does not answer.
    NotKnown(String, Identity),
}

impl Verdict {
    /// Whose it is, unless it is good for nothing anyway.
    fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Valid(_, identity) | Self::NotKnown(_, identity) => Some(identity),
            Self::Invalid(_) => None,
        }
    }
}

/// What the store of `[store]` has beside the configuration.
enum Stored {
    /// There is no store, or it is of no matter.
    Nothing,
    /// Why it has not said.
    Unasked(String),
    Found(Box<LookedUp>),
}

impl Stored {
    fn of(realm: &RealmOf<'_>, username: &str, now_unix: u64, is_offline: bool) -> Self {
        let Some(store) = &realm.config.store else { return Self::Nothing };
        if is_offline {
            return Self::Unasked("--offline: it was not asked".to_owned());
        }
        match look_up(store, (realm.name, username), now_unix, STORE_LIMIT) {
            Ok(found) => Self::Found(Box::new(found)),
            Err(error) => Self::Unasked(error.to_string()),
        }
    }

    fn found(&self) -> Option<&LookedUp> {
        match self {
            Self::Found(found) => Some(found),
            Self::Nothing | Self::Unasked(_) => None,
        }
    }
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

    /// Its secrets, and those that the store has for it.
    fn secrets_with(&self, stored: &Stored) -> Vec<SharedSecret> {
        let mut secrets = self.secrets.to_vec();
        let stored = stored.found().map(|found| &*found.secrets).unwrap_or_default();
        secrets.extend(stored.iter().filter(|stored| self.secrets.iter().all(|own| own.id != stored.id)).cloned());
        secrets
    }

    /// Whether a file revokes a credential of this realm; of what commands have revoked only the server knows.
    pub(super) fn is_revoked(&self, mut identity: Identity, now_unix: u64) -> bool {
        let auth = &self.config.auth;
        let revocations = Revocations::default();
        identity.user = identity.user.in_realm(self.label());
        revocations.replace_listed(&auth.revocations).is_ok() && revocations.covers(&identity, now_unix)
    }

    /// What it is called among users: that of `[auth]` is nothing.
    pub(super) fn label(&self) -> Option<Arc<str>> {
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

/// What the server says decides; the diagnosis explains.
fn judge(realm: &RealmOf<'_>, stored: &Stored, user: &str, password: &str, now_unix: u64) -> Result<Verdict, CliError> {
    let secrets = realm.secrets_with(stored);
    let (answer, is_of_store) = authenticate(realm, (&secrets, stored), (user, password), now_unix)?;
    let refused = |why: &str| Ok(Verdict::Invalid(format!("not valid: {why}")));
    match &answer {
        Ok(identity) if realm.is_revoked(identity.clone(), now_unix) => {
            return refused("the file of revocations in [auth] revokes it");
        }
        Ok(identity) if is_of_store => {
            return Ok(Verdict::Valid(format!("valid: user {user:?} of the store"), identity.clone()));
        }
        Ok(identity) if identity.expires_unix().is_none() => {
            return Ok(Verdict::Valid(format!("valid: static user {:?}", identity.user.name()), identity.clone()));
        }
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
        Err(Reason::WrongPassword | Reason::CredentialExpired) if is_of_store => {
            return refused("the store has this user, with another password or one that has expired");
        }
        _ => {}
    }
    let diagnose = if realm.username_limits { diagnose_with_limits } else { diagnose };
    let diagnosis = diagnose(&secrets, user, password, now_unix);
    let is_time_limited = TimeLimited::parse(user).is_some();
    let others = match (stored, &answer) {
        (Stored::Unasked(why), Err(Reason::UnknownUser)) => {
            Some(format!("the store may have the user or its secret ({why})"))
        }
        (Stored::Unasked(why), Err(Reason::WrongPassword)) if is_time_limited => Some(format!(
            "the store may have the secret that it is made with ({why}); by those of the configuration: {diagnosis}"
        )),
        (_, Err(Reason::UnknownUser)) if realm.config.hook.is_some() => {
            Some("the server asks the application of [hook] about this name".to_owned())
        }
        _ => None,
    };
    if let Some(others) = others {
        let of_configuration =
            if stored.found().is_some() { "configuration and store know" } else { "the configuration knows" };
        let text = format!("not known here: {of_configuration} nobody who has this credential, but {others}");
        return Ok(Verdict::NotKnown(text, claimed(user)));
    }
    if matches!(diagnosis, Diagnosis::NotACredential) && (!realm.users.is_empty() || stored.found().is_some()) {
        return refused("no static user has this name and password, and it is not a time-limited credential");
    }
    if secrets.is_empty() {
        let nor_store = if stored.found().is_some() { " nor in the store" } else { "" };
        return refused(&format!(
            "no static user has this name and password, and no shared secret is configured{nor_store}"
        ));
    }
    match (diagnosis.is_valid(), answer) {
        (true, Ok(identity)) => about_limits(realm, user, diagnosis.to_string(), identity),
        _ => refused(&diagnosis.to_string()),
    }
}

/// Who would have a credential of this username, as far as it says so.
fn claimed(username: &str) -> Identity {
    let name = Arc::<str>::from(username);
    match TimeLimited::parse(UsernameLimits::plain(username)).filter(|claimed| !claimed.user.is_empty()) {
        Some(claimed) => Identity::new(name, User::time_limited(claimed.user)).expiring(claimed.expires_unix),
        None => Identity::new(Arc::clone(&name), User::asked(name)),
    }
}

/// Adds what the limits in the username come to, if it has some.
fn about_limits(realm: &RealmOf<'_>, username: &str, text: String, identity: Identity) -> Result<Verdict, CliError> {
    let Ok((_, limits)) = UsernameLimits::split(username) else { return Ok(Verdict::Valid(text, identity)) };
    if limits.is_empty() {
        return Ok(Verdict::Valid(text, identity));
    }
    let shown = limits.to_string();
    let shown = shown.trim_start_matches(';');
    if !realm.username_limits {
        let note = format!("{shown} counts as part of the user's name, because username-limits is false");
        return Ok(Verdict::Valid(format!("{text}; {note}"), identity));
    }
    match limits.peers.filter(|name| realm.config.peer_policies.iter().all(|(known, _)| known != name)) {
        Some(name) => {
            let why = format!("no [[peers.policy]] has the name \"{name}\", so that it can make no allocation");
            Ok(Verdict::Invalid(format!("not valid: {why}")))
        }
        None => Ok(Verdict::Valid(format!("{text}; limited to {shown}"), identity)),
    }
}

/// Puts the credential into an Allocate request as an RFC 5389 client does, and lets the server's code judge it. Says also whether it was judged as
/// that of a user of the store.
fn authenticate(
    realm: &RealmOf<'_>,
    (secrets, stored): (&[SharedSecret], &Stored),
    (user, password): (&str, &str),
    now_unix: u64,
) -> Result<(Result<Identity, Reason>, bool), CliError> {
    const NONCE_LIFETIME_SECS: u32 = 60;
    let nonce_keys = Arc::new(NonceKeys::new([0; 32], NONCE_LIFETIME_SECS));
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let five_tuple = FiveTuple { transport: Transport::Udp, client: ClientAddr::new(server), server };
    let credentials = Credentials::builder(realm.name, Arc::clone(&nonce_keys));
    let credentials = credentials.users(Arc::clone(realm.users)).secrets(secrets.to_vec());
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
    let (answer, is_of_store) = match (credentials.authenticate(now, &five_tuple, &message, None), stored.found()) {
        (Err(Reason::UnknownUser), Some(LookedUp { user: Some(known), .. })) => {
            (credentials.authenticate_known(now, &five_tuple, &message, (&user.into(), known.clone())), true)
        }
        (answer, _) => (answer, false),
    };
    Ok((answer.map(|authenticated| authenticated.identity), is_of_store))
}

fn read_stdin() -> Result<String, CliError> {
    let password =
        input::read_stdin().map_err(|error| CliError::usage(format!("cannot read the password: {error}")))?;
    let trimmed = password.strip_suffix('\n').unwrap_or(&password);
    Ok(trimmed.to_owned())
}
