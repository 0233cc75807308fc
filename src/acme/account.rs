//! The account at a certificate authority (RFC 8555 section 7.3): made once, and kept.

use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::exchange::Exchange;
use super::failure::Failure;
use super::kept::Kept;
use super::kind::Kind;
use crate::config::Acme;

/// An account as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptAccount {
    directory: String,
    contact: Option<String>,
    credentials: AccountCredentials,
}

/// The account that is kept, or a new one.
pub(super) async fn open(acme: &Acme, kept: &Kept, exchange: &Exchange) -> Result<Account, Failure> {
    let file = file_of(acme);
    let failure = |error| Failure::of(error, exchange.wait_unix());
    let contact = acme.email.as_ref().map(|email| format!("mailto:{email}"));
    let contacts: Vec<_> = contact.as_deref().into_iter().collect();
    let stored = kept.account(&file).await.map_err(|error| Failure::disk(kept.folder(), &error))?;
    if let Some(bytes) = stored {
        match stored_account(&bytes, exchange).await {
            Ok((mut stored, account)) => {
                // What is kept is written anew when the contact changes.
                if stored.insert("contact".to_owned(), json!(contact)) != Some(json!(contact)) {
                    account.update_contacts(&contacts).await.map_err(failure)?;
                    keep(kept, &file, &stored).await?;
                }
                return Ok(account);
            }
            Err(Unusable::Damaged(problem)) => {
                tracing::error!(
                    file,
                    problem,
                    "the ACME account that is kept is damaged: it is set aside, and another one is made"
                );
                let aside = kept.set_account_aside(&file, "damaged").await;
                aside.map_err(|error| Failure::disk(kept.folder(), &error))?;
            }
            Err(Unusable::Now(error)) => return Err(failure(error)),
        }
    }
    let builder = Account::builder_with_http(Box::new(exchange.clone()));
    let new = NewAccount {
        contact: &contacts,
        // No configuration without `acme-agree-to-terms` gets so far.
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let external = acme.external_account.as_ref();
    let external = external.map(|external| ExternalAccountKey::new(external.key_id.clone(), &external.key));
    let made = builder.create(&new, acme.directory.as_str().to_owned(), external.as_ref()).await;
    let (account, credentials) = made.map_err(failure)?;
    keep(kept, &file, &KeptAccount { directory: acme.directory.as_str().to_owned(), contact, credentials }).await?;
    tracing::info!(directory = %acme.directory, account = account.id(), "an ACME account was made");
    Ok(account)
}

/// Why an account that is kept is not used.
enum Unusable {
    /// It never will be.
    Damaged(String),
    /// The authority was asked, in vain.
    Now(Error),
}

/// An account as it is kept, and to be used.
async fn stored_account(bytes: &[u8], exchange: &Exchange) -> Result<(Map<String, Value>, Account), Unusable> {
    let damaged = |error: serde_json::Error| Unusable::Damaged(error.to_string());
    let copy = serde_json::from_slice(bytes).map_err(damaged)?;
    let stored: KeptAccount = serde_json::from_slice(bytes).map_err(damaged)?;
    let builder = Account::builder_with_http(Box::new(exchange.clone()));
    match builder.from_credentials(stored.credentials).await {
        Ok(account) => Ok((copy, account)),
        // Its key, or where it is, cannot be read.
        Err(error @ (Error::KeyRejected | Error::Crypto | Error::Str(_))) => Err(Unusable::Damaged(error.to_string())),
        Err(error) => Err(Unusable::Now(error)),
    }
}

/// The authority does not know it any more: the next attempt makes another.
pub(super) async fn forget(acme: &Acme, kept: &Kept) {
    if let Err(error) = kept.set_account_aside(&file_of(acme), "gone").await {
        tracing::error!(%error, "the ACME account, which the authority does not know any more, cannot be set aside");
    }
}

async fn keep(kept: &Kept, file: &str, account: &impl Serialize) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(account).map_err(|error| Failure::new(Kind::Disk, error))?;
    let written = kept.keep_account(file, Zeroizing::new(bytes)).await;
    written.map_err(|error| Failure::disk(kept.folder(), &error))
}

/// An account is one authority's, and one external account's.
fn file_of(acme: &Acme) -> String {
    let key_id = acme.external_account.as_ref().map_or("", |external| external.key_id.as_str());
    let digest = Sha256::new().chain_update(acme.directory.as_str()).chain_update("\n").chain_update(key_id).finalize();
    let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{short}.json")
}
