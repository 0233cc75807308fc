//! Who may allocate: stateless nonces, the long-term credential mechanism, static users, time-limited credentials and access tokens;
//! and which of them are revoked.

mod access_token;
mod algorithms;
mod asked;
mod cookie;
mod diagnose;
mod identity;
mod known;
mod long_term;
mod nonce;
mod number_index;
mod password;
mod revocations;
mod stored_keys;
mod time_limited;
mod username_limits;
mod users;

pub use access_token::{AccessTokens, SessionKey, TokenAlgorithm, TokenDiagnosis, TokenKey, TokenKeyTooShort};
pub(crate) use asked::AskedUser;
pub use asked::{AskPolicy, KnownCredential};
pub use cookie::Cookie;
pub use diagnose::{Diagnosis, Mistake, diagnose, diagnose_with_limits};
pub use identity::Identity;
pub use long_term::{Authenticated, Credentials, CredentialsBuilder, CredentialsError, HeldCredential};
pub use nonce::{Features, Nonce, NonceHolder, NonceKeys, NonceScope, NonceState};
pub use password::{PrepareError, prepare};
pub use revocations::{IssuedBefore, Revocation, Revocations, Revoked, TooManyRevocations};
pub use stored_keys::{StoredKeys, StoredKeysError};
pub use time_limited::{SharedSecret, TimeLimited, mint};
pub use username_limits::{UsernameLimits, UsernameLimitsError};
pub use users::{Users, UsersError};
