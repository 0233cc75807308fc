//! Asks a running server whether a credential is revoked, for who judges credentials without it.

use std::path::Path;

use super::super::output::CliError;
use super::answers::{Revocation as Listed, RevocationList, read};
use super::client::{Call, ClientError};
use super::revoke::revocation_text;
use super::whereabouts::AdminAddress;
use crate::auth::{Identity, IssuedBefore, Revocation, Revocations, Revoked};
use crate::config::Config;

/// What a server knows of a credential.
pub(in crate::cli) enum Known {
    Revoked(String),
    NotRevoked,
    /// Why no server has said.
    Unasked(String),
}

/// As many as the API tells at once.
const LIMIT: &str = "1000";

/// Asks the server of this configuration, if it can be reached; one that was named has to be.
pub(in crate::cli) fn ask_whether_revoked(
    address: &AdminAddress,
    (config, file): (&Config, Option<&Path>),
    identity: &Identity,
    realm: &str,
    now_unix: u64,
) -> Result<Known, CliError> {
    if config.admin.is_none() && !address.is_given()? {
        // Nobody can revoke anything there but in the file of [auth] revocations.
        let is_never = config.credentials.is_none() && config.store.is_none();
        let unasked = || Known::Unasked("the configuration has no [admin] listen".to_owned());
        return Ok(if is_never { Known::NotRevoked } else { unasked() });
    }
    let call = Call::get("/v1/revocations");
    let call = call.query("of", Some(&identity.username)).query("realm", Some(realm)).query("limit", Some(LIMIT));
    let answer = match address.client(file)?.ask(call) {
        Ok(answer) => answer,
        Err(error) if address.is_given()? => return Err(error.into()),
        Err(ClientError::NobodyThere(message) | ClientError::Failed(message)) => {
            return Ok(Known::Unasked(message.lines().next().unwrap_or_default().to_owned()));
        }
        Err(ClientError::Refused { message, .. }) => return Ok(Known::Unasked(message)),
    };
    let RevocationList { revocations, total } = read(answer)?;
    let covering = revocations.iter().find(|listed| covers(listed, identity, now_unix));
    Ok(match covering {
        Some(listed) => Known::Revoked(revocation_text(listed)),
        None if total > revocations.len() as u64 => Known::Unasked(format!("too much is revoked to look at: {total}")),
        None => Known::NotRevoked,
    })
}

/// Whether the server would find the credential revoked by this.
fn covers(listed: &Listed, identity: &Identity, now_unix: u64) -> bool {
    let whose = match (&listed.username, &listed.user, &listed.key) {
        (Some(name), _, _) => Revoked::Username(name.as_str().into()),
        (_, Some(name), _) => Revoked::User(name.as_str().into()),
        (_, _, Some(id)) => Revoked::Key(id.as_str().into()),
        _ => Revoked::Everybody,
    };
    let issued_before = listed.issued_before_unix.zip(listed.lifetime_secs);
    let revocation = Revocation {
        realm: identity.user.realm().cloned(),
        whose,
        issued_before: issued_before.map(|(unix, lifetime_secs)| IssuedBefore { unix, lifetime_secs }),
        until_unix: listed.until_unix.unwrap_or(u64::MAX),
    };
    let revocations = Revocations::default();
    revocations.add(&revocation).is_ok() && revocations.covers(identity, now_unix)
}
