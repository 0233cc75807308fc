//! Directives about who may use the server, read into [`Conf`], and what of it is written.

use zeroize::Zeroizing;

use crate::auth::{StoredKeys, TimeLimited, Users};

use super::conf::{At, Conf, Origin};
use super::findings::{FindingKind, Grade};
use super::placeholder;
use super::syntax::Entry;

pub(super) const DATABASE: &str = "there is no user database; its users, with their keys, are in a file (users-file in [auth], or in the [[realm]] of \
                        another realm): sqlite3 DATABASE \"SELECT name || ':0x' || hmackey FROM turnusers_lt WHERE realm = 'REALM'\" > FILE, or \
                        the same SELECT elsewhere; put the secrets that `turnadmin -S` prints into [[auth.secrets]]";

impl Conf {
    pub(super) fn lt_cred_mech(&mut self, entry: &Entry<'_>) {
        match self.switch(entry) {
            Some(true) => {
                self.lt_cred_mech = true;
                self.harmless(entry, "long-term credentials are always required");
            }
            Some(false) => self.lost(entry, "it cannot be turned off: long-term credentials are always required"),
            None => {}
        }
    }

    pub(super) fn no_auth(&mut self, entry: &Entry<'_>) {
        self.no_auth = self.switch(entry).unwrap_or(self.no_auth);
        if self.no_auth {
            let message = "an open relay, for everybody on the Internet: refused. Every client needs a credential; `turnstone \
                           credentials` makes one";
            self.lost(entry, message);
        }
    }

    /// Present is on, whatever its value: coturn does not look at it.
    pub(super) fn use_auth_secret(&mut self, _entry: &Entry<'_>) {
        self.use_auth_secret = true;
    }

    pub(super) fn static_auth_secret(&mut self, entry: &Entry<'_>) {
        self.use_auth_secret = true;
        let Some(secret) = self.text(entry).map(Zeroizing::new) else { return };
        self.secret(entry, secret);
    }

    /// Takes a secret that somebody could not guess.
    pub(super) fn secret(&mut self, entry: &Entry<'_>, secret: Zeroizing<String>) {
        if placeholder::is_example(&secret) {
            let message = "an example's text in place of a secret, which anybody can guess: left out. Make one (openssl rand \
                           -hex 32) and give it to the application that makes credentials";
            self.lost(entry, message);
        } else if let Err(problem) = crate::config::check_secret(secret.as_bytes()) {
            self.lost(entry, &format!("{problem}, and give it to the application that makes credentials"));
        } else if self.secrets.contains(&secret) {
            self.harmless(entry, "the same secret again; once is enough");
        } else {
            self.secrets.push(secret);
        }
    }

    pub(super) fn rest_api_separator(&mut self, entry: &Entry<'_>) {
        if !entry.value.is_empty() && !entry.value.starts_with(':') {
            self.lost(entry, "the expiry and the name in a username are separated by `:`; change the application");
        }
    }

    pub(super) fn user(&mut self, entry: &Entry<'_>) {
        let Some(text) = self.text(entry).map(Zeroizing::new) else { return };
        let Some((name, password)) = text.split_once(':') else {
            return self.invalid(entry, "not name:password; left out");
        };
        let password = password.trim_start_matches([' ', '\t']);
        if name.is_empty() || password.is_empty() {
            return self.invalid(entry, "the name or the password is empty; left out");
        }
        self.static_user(entry, name, password);
    }

    /// Takes a user who can be one here, too.
    pub(super) fn static_user(&mut self, entry: &Entry<'_>, name: &str, password: &str) {
        if placeholder::is_example(password) || placeholder::is_template(name) {
            let message =
                "an example's text in place of a password, which anybody can guess: left out. Give this user another";
            return self.lost(entry, message);
        }
        if password.starts_with("0x") && self.origin == Origin::Coturn {
            if !StoredKeys::is_meant(password) || password.parse::<StoredKeys>().is_err() {
                let message = "neither the MD5 key of a password (0x and 32 hexadecimal digits) nor one that clients could have; \
                               turnadmin -k makes it, or set a new password";
                return self.lost(entry, message);
            }
            self.stored_key = self.stored_key.or(Some(entry.spot));
        }
        if StoredKeys::is_meant(password) && self.origin != Origin::Coturn {
            let message =
                "a password of 0x and hexadecimal digits would be taken for a key here; give this user another";
            return self.lost(entry, message);
        }
        if TimeLimited::parse(name).is_some() {
            let message = "the name looks like the username of a time-limited credential; give this user another name";
            return self.lost(entry, message);
        }
        if let Err(error) = Users::of_realm("").insert(name, password) {
            return self.lost(entry, &format!("{error}; give this user another name or password"));
        }
        self.users.push(At { spot: entry.spot, value: (name.to_owned(), Zeroizing::new(password.to_owned())) });
    }

    /// Where coturn looks for users and secrets in any case is not worth a word to many, and a loss to some.
    pub(super) fn userdb(&mut self, entry: &Entry<'_>) {
        const DEFAULTS: [&str; 3] = ["/var/lib/turn/turndb", "/var/db/turndb", "/usr/local/var/db/turndb"];
        if entry.is_nothing() {
            self.harmless(entry, "no database is named");
        } else if DEFAULTS.contains(&entry.value) {
            let message = format!(
                "the database that coturn has anyway; if users or secrets are in it (turnadmin -l, turnadmin -S), they are not here: {DATABASE}"
            );
            self.note(entry, &message);
        } else {
            self.lost(entry, DATABASE);
        }
    }

    pub(super) fn realm(&mut self, entry: &Entry<'_>) {
        let Some(realm) = self.text(entry) else { return };
        match crate::config::parse_realm(&realm) {
            Ok(realm) => self.realm = Some(realm),
            Err(problem) => self.invalid(entry, &format!("{problem}; left out")),
        }
    }

    /// The keys are in coturn's database, whatever kind that is.
    pub(super) fn oauth(&mut self, entry: &Entry<'_>) {
        self.oauth = self.switch(entry).unwrap_or(self.oauth);
        if self.oauth {
            let message = "coturn has the keys of access tokens (RFC 7635) in its database, in the table oauth_key: turnadmin does not print \
                           them, but SELECT does. A [[auth.token-keys]] stands in the result as a comment: write one for each (kid as id, \
                           ikm_key as key, as_rs_alg as algorithm)";
            self.lost(entry, message);
        }
    }

    pub(super) fn server_name(&mut self, entry: &Entry<'_>) {
        let is_plain =
            (1..=255).contains(&entry.value.len()) && entry.value.bytes().all(|byte| byte.is_ascii_graphic());
        self.server_name = is_plain.then(|| entry.value.to_owned());
        match crate::config::parse_host(entry.value) {
            Ok(host) => {
                self.public_host = Some(host);
                let message = "coturn's name for authorization servers only, which is server-name in [auth] here; taken as the host name in \
                               the URLs that `turnstone credentials` prints";
                self.note(entry, message);
            }
            Err(_) => {
                let message = "coturn's name for authorization servers only: server-name in [auth], where oauth is on; as a host name in URLs \
                               it is of no use";
                self.harmless(entry, message)
            }
        }
    }

    pub(super) fn stale_nonce(&mut self, entry: &Entry<'_>) {
        let Some(secs) = (if entry.value.is_empty() { Some(600) } else { self.number(entry) }) else { return };
        match secs {
            0 => self.note(entry, "nonces that never expire are not offered; they live for 10 minutes"),
            30..=86_400 => {}
            _ => self.note(entry, "from 30 seconds to a day here; the nearest of these is taken"),
        }
        self.nonce_secs = Some(if secs == 0 { 600 } else { secs.clamp(30, 86_400) });
    }

    /// Decides between secrets and users, and says whether any are there to be written.
    pub(super) fn settle_credentials(&mut self) -> bool {
        let users = std::mem::take(&mut self.users);
        if self.use_auth_secret && self.origin == Origin::Coturn {
            for user in users {
                let message = "coturn does not use static users beside use-auth-secret; here both work: add [[auth.users]] if \
                               it is wanted";
                self.find(Some(user.spot), "user", FindingKind::NotConverted, Grade::Operation, message);
            }
        } else {
            if let Some(spot) = self.stored_key {
                let message = "keys (0x...) are taken as they are: they are good in coturn's realm only, so that [auth] realm must stay \
                               it, and MD5 is then all that clients of the realm are offered (turnstone credentials hash makes keys for \
                               SHA-256, too, out of passwords)";
                self.find(Some(spot), "user", FindingKind::Note, Grade::Clients, message);
            }
            // The last one of a name counts.
            let mut known = Users::of_realm("");
            for user in users.into_iter().rev() {
                match known.insert(&user.value.0, &user.value.1) {
                    Ok(()) => self.users.insert(0, user),
                    Err(error) => {
                        let message = format!("{error}; the last one counts");
                        self.find(Some(user.spot), "user", FindingKind::Note, Grade::Harmless, &message);
                    }
                }
            }
        }
        if self.is_secret_seen {
            let message = "a secret or password on a command line is read by everybody on that host (ps), and by who may ask \
                           the container's manager: a new one, in a file, is better";
            self.find(None, "[[auth.secrets]]", FindingKind::Note, Grade::Security, message);
        }
        let any = !self.secrets.is_empty() || !self.users.is_empty();
        if !any && !self.stun_only && self.store.is_none() {
            self.find_nobody();
        }
        any || self.store.as_ref().is_some_and(|store| store.value.password.is_some())
    }

    /// There is nobody who could authenticate.
    fn find_nobody(&mut self) {
        const STANDS: &str = "/etc/turnstone/secret, which the installation makes, stands for it: give that to the application \
                              that makes credentials";
        let (grade, why) = match self.origin {
            Origin::Eturnal => (Grade::Clients, "no usable secret in it"),
            Origin::Coturn if self.use_auth_secret => {
                (Grade::Clients, "no usable secret in it; coturn may have some in its database (turnadmin -S)")
            }
            Origin::Coturn if self.lt_cred_mech && !self.no_auth => {
                (Grade::Clients, "no usable user in it; coturn may have some in its database (turnadmin -l)")
            }
            Origin::Coturn => {
                let why = "no credentials in it, and none asked for: coturn 4.6 is an OPEN RELAY then, for everybody who finds \
                           it. Here every client needs a credential";
                (Grade::Security, why)
            }
        };
        self.find(None, "[[auth.secrets]]", FindingKind::NotConverted, grade, &format!("{why}. {STANDS}"));
    }
}
