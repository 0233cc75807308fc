//! Time-limited credentials (draft-uberti-behave-turn-rest-00 section 2.2), minted without any of the product's code.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

/// A username and its password.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

/// A credential of `user` that stays valid for `ttl_secs` seconds.
pub fn time_limited(secret: &str, user: &str, ttl_secs: u64) -> Credentials {
    mint(secret, user, unix_now_secs() + ttl_secs)
}

/// A credential of `user`, correctly signed, that ran out `ago_secs` seconds ago.
pub fn expired(secret: &str, user: &str, ago_secs: u64) -> Credentials {
    mint(secret, user, unix_now_secs() - ago_secs)
}

fn mint(secret: &str, user: &str, expiry_unix_secs: u64) -> Credentials {
    let username = format!("{expiry_unix_secs}:{user}");
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(username.as_bytes());
    let password = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    Credentials { username, password }
}

fn unix_now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
