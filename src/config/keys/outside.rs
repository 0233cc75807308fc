//! What is no key of the file: only variables and flags have it.

use super::super::key::{Key, Kind};

/// The pseudo-key of the secret in the environment.
pub(in crate::config) const SECRET: &str = "secret";
/// The pseudo-key of the secret in a file.
pub(in crate::config) const SECRET_FILE: &str = "secret-file";
/// The pseudo-key of static users in the environment.
pub(in crate::config) const USERS: &str = "users";

pub(super) static KEYS: &[Key] = &[
    Key::new(SECRET, Kind::Outside).set_by(
        "TURNSTONE_SECRET",
        None,
        "SECRET",
        "the shared secret itself, replacing every [[auth.secrets]]",
    ),
    Key::new(SECRET_FILE, Kind::Outside).set_by(
        "TURNSTONE_SECRET_FILE",
        Some("secret-file"),
        "FILE",
        "file with the shared secret, replacing every [[auth.secrets]]; the variable TURNSTONE_SECRET holds the secret itself",
    ),
    Key::new(USERS, Kind::Outside).set_by(
        "TURNSTONE_USERS",
        None,
        "USERS",
        "static users as the lines of users-file, separated by spaces or line ends, replacing every [[auth.users]]",
    ),
];
