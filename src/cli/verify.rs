//! `turnstone credentials verify`: asks the server's own code whether a credential passes, and says why not.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use crate::addr::ClientAddr;
use crate::auth::{Credentials, Diagnosis, Features, Identity, NonceKeys, diagnose};
use crate::clock::Now;
use crate::config::Auth;
use crate::reject::Reason;
use crate::stun::{
    AttributeType, Class, Encoder, IntegrityKind, Key, Message, Method, PasswordAlgorithm, TransactionId,
};
use crate::text::json_pretty;

use super::input::{self, ConfigFlags};
use super::output::{CliError, Exit, Printer, unix_now};

/// Say whether the server would accept a username and password, and if not, why.
#[derive(Args)]
#[command(
    after_help = "It knows what is often done wrong: another secret, hexadecimal in place of base64, milliseconds in
place of seconds, a newline too many, and so on.

Exit code 0 when it is valid, 1 when it is not."
)]
pub(super) struct VerifyArgs {
    /// The username.
    user: String,

    /// The password; - reads it from standard input.
    password: String,

    /// Print an object: valid, and the reason in words.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    flags: ConfigFlags,
}

pub(super) fn run(args: &VerifyArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let password = if args.password == "-" { read_stdin()? } else { args.password.clone() };
    let auth = args.flags.read(false)?.load_credentials(printer)?.auth;
    let (is_valid, text) = judge(&auth, &args.user, &password, unix_now())?;
    match args.json {
        true => printer.line(json_pretty(&json!({ "valid": is_valid, "reason": text })))?,
        false => printer.line(&text)?,
    }
    Ok(if is_valid { Exit::Success } else { Exit::CheckFailed })
}

/// Whether it is valid, and a sentence. What the server says decides; the diagnosis explains.
fn judge(auth: &Auth, user: &str, password: &str, now_unix: u64) -> Result<(bool, String), CliError> {
    if let Ok(Identity { expires_unix: None, user, .. }) = authenticate(auth, user, password, now_unix)? {
        return Ok((true, format!("valid: static user {:?}", user.name())));
    }
    let diagnosis = diagnose(&auth.secrets, user, password, now_unix);
    let refused = |why: &str| Ok((false, format!("not valid: {why}")));
    if matches!(diagnosis, Diagnosis::NotACredential) && !auth.users.is_empty() {
        return refused("no static user has this name and password, and it is not a time-limited credential");
    }
    if auth.secrets.is_empty() {
        return refused("no static user has this name and password, and no shared secret is configured");
    }
    match diagnosis.is_valid() {
        true => Ok((true, diagnosis.to_string())),
        false => refused(&diagnosis.to_string()),
    }
}

/// Puts the credential into an Allocate request as an RFC 5389 client does, and lets the server's code judge it.
fn authenticate(auth: &Auth, user: &str, password: &str, now_unix: u64) -> Result<Result<Identity, Reason>, CliError> {
    const NONCE_LIFETIME_SECS: u32 = 60;
    let nonce_keys = Arc::new(NonceKeys::new([0; 32], NONCE_LIFETIME_SECS));
    let client = ClientAddr::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let nonce = nonce_keys.issue(now_unix, client, Features::default());
    let credentials = Credentials::builder(&auth.realm, nonce_keys);
    let credentials = credentials.users(auth.users.clone()).secrets(auth.secrets.clone());
    let credentials = credentials.build().map_err(CliError::usage)?;

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
    Ok(credentials.authenticate(now, client, &message, None).map(|authenticated| authenticated.identity))
}

fn read_stdin() -> Result<String, CliError> {
    let password =
        input::read_stdin().map_err(|error| CliError::usage(format!("cannot read the password: {error}")))?;
    let trimmed = password.strip_suffix('\n').unwrap_or(&password);
    Ok(trimmed.to_owned())
}
