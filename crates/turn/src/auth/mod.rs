//! Who may allocate: stateless nonces, the long-term credential mechanism, static users, time-limited credentials and access tokens.

mod access_token;
mod asked;
mod cookie;
mod diagnose;
mod identity;
mod long_term;
mod nonce;
mod password;
mod time_limited;
mod users;

pub use access_token::{AccessTokens, SessionKey, TokenAlgorithm, TokenDiagnosis, TokenKey, TokenKeyTooShort};
pub(crate) use asked::AskedUser;
pub use asked::{AskPolicy, KnownCredential};
pub use cookie::Cookie;
pub use diagnose::{Diagnosis, Mistake, diagnose};
pub use identity::Identity;
pub use long_term::{Authenticated, Credentials, CredentialsBuilder, CredentialsError, HeldCredential};
pub use nonce::{Features, Nonce, NonceKeys, NonceState};
pub use password::{PrepareError, prepare};
pub use time_limited::{SharedSecret, TimeLimited, mint};
pub use users::{Users, UsersError};
