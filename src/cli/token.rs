//! `turnstone credentials token`: makes access tokens (RFC 7635) as an authorization server does, and says why one does not work.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use super::input::ConfigFlags;
use super::output::{CliError, Exit, Printer};
use crate::auth::{AccessTokens, SessionKey, TokenDiagnosis, TokenKey};
use crate::clock::Now;
use crate::config::parse_duration;
use crate::text::json_pretty;
use crate::wall_clock::unix_now;
use crate::worker::fill_from_system;

/// Make an access token for third-party authorization (RFC 7635), or say whether one is good.
///
/// It is made with the keys in [[auth.token-keys]], as an authorization server would: for trying things out. Printed is what such a
/// server answers; a client sends kid as USERNAME, access_token decoded as ACCESS-TOKEN, and signs with key decoded.
#[derive(Args)]
pub(super) struct TokenArgs {
    /// Say whether this token, in base64, is good now; - reads it from standard input.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["ttl", "key_id"])]
    verify: Option<String>,

    /// How long it is good, such as 10m or 1h.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    ttl: String,

    /// Which key to make it with [default: the first that is good now].
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,

    #[command(flatten)]
    flags: ConfigFlags,
}

pub(super) fn run(args: &TokenArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let tokens = args.flags.read(false)?.load_credentials(printer)?.auth.tokens;
    if !tokens.is_on() {
        return Err(CliError::usage("the configuration has no [[auth.token-keys]]"));
    }
    let now_unix = unix_now();
    match &args.verify {
        Some(token) => verify(&tokens, token, now_unix, printer),
        None => make(args, &tokens, now_unix, printer),
    }
}

fn verify(tokens: &AccessTokens, token: &str, now_unix: u64, printer: &mut Printer) -> Result<Exit, CliError> {
    let read = match token {
        "-" => {
            super::input::read_stdin().map_err(|error| CliError::usage(format!("cannot read the token: {error}")))?
        }
        token => token.to_owned(),
    };
    let Ok(token) = STANDARD.decode(read.trim()) else {
        printer.line("not valid: it is not base64")?;
        return Ok(Exit::CheckFailed);
    };
    let found = tokens.diagnose(Now { micros: 0, unix_secs: now_unix }, &token);
    printer.line(&found)?;
    Ok(if matches!(found, TokenDiagnosis::Valid { .. }) { Exit::Success } else { Exit::CheckFailed })
}

fn make(args: &TokenArgs, tokens: &AccessTokens, now_unix: u64, printer: &mut Printer) -> Result<Exit, CliError> {
    let ttl = parse_duration(&args.ttl).map_err(|problem| CliError::usage(format!("--ttl: {problem}")))?.as_secs();
    let Some(lifetime_secs) = u32::try_from(ttl).ok().filter(|secs| *secs > 0) else {
        return Err(CliError::usage(format!("--ttl: {:?} is not from 1s to 136 years", args.ttl)));
    };
    let key = choose(&tokens.keys, args.key_id.as_deref(), now_unix)?;
    let (mut session, mut nonce) = (Zeroizing::new([0; 20]), [0; 12]);
    fill_from_system(session.as_mut_slice());
    fill_from_system(&mut nonce);
    let made = SessionKey { key: session.as_slice(), made_unix: now_unix, lifetime_secs };
    let token = key.seal(&tokens.server_name, nonce, &made);
    let token = token.ok_or_else(|| CliError::usage("the token could not be made"))?;
    let answer = json!({
        "access_token": STANDARD.encode(token),
        "token_type": "pop",
        "expires_in": lifetime_secs,
        "kid": key.id(),
        "key": STANDARD.encode(session.as_slice()),
        "alg": "HMAC-SHA-1",
    });
    printer.line(json_pretty(&answer))?;
    Ok(Exit::Success)
}

fn choose<'k>(keys: &'k [TokenKey], id: Option<&str>, now_unix: u64) -> Result<&'k TokenKey, CliError> {
    let found = match id {
        Some(id) => keys.iter().find(|key| key.id() == id),
        None => keys.iter().find(|key| key.is_valid_at(now_unix)),
    };
    found.ok_or_else(|| match id {
        Some(id) => {
            let ids: Vec<_> = keys.iter().map(TokenKey::id).collect();
            CliError::usage(format!("--key-id: no key {id:?}; there is {}", ids.join(", ")))
        }
        None => CliError::usage("no key in [[auth.token-keys]] is good at this moment"),
    })
}
