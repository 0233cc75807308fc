//! Who may allocate: stateless nonces, the long-term credential mechanism, static users and time-limited credentials.

mod long_term;
mod nonce;
mod password;
mod rest;
mod users;

pub use long_term::{Authenticated, Credentials, CredentialsBuilder, HeldCredential, Identity};
pub use nonce::{Features, Nonce, NonceKeys, NonceState};
pub use password::{PrepareError, prepare};
pub use rest::{Diagnosis, SharedSecret, TimeLimited, diagnose, mint};
pub use users::Users;
