//! coturn's `redis-userdb` as `[store]`, which reads it as it is.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::conf::{At, Conf, Store};
use super::operation::separate;
use super::placeholder;
use super::syntax::Entry;
use crate::config::{parse_host, quoted};

const HEAD: &str = "\
# coturn's redis-userdb, read as it is: its users and secrets, and coturn may go on beside this server
# (docs/store.md). What servers share beside that is kept there, too, under turnstone:...
[store]
";

impl Conf {
    pub(super) fn redis_userdb(&mut self, entry: &Entry<'_>) {
        if entry.is_nothing() {
            return self.harmless(entry, "no database is named");
        }
        match read(entry.value) {
            Ok((store, has_user)) => {
                self.store = Some(At { spot: entry.spot, value: store });
                let message = "[store] with layout = \"coturn\" reads its users and secrets as they are. Its keys are MD5: clients of the realm are \
                               offered nothing else. Every other realm of it wants a [[realm]] of its name; quotas, peer rules and OAuth keys in it \
                               are not read";
                self.note(entry, message);
                let named = if has_user {
                    "the user it names is left out, as coturn leaves it out"
                } else {
                    "it names no user"
                };
                let message = format!(
                    "{named}, so that Redis' default user is used, who may do everything: give this server one of its own, redis://USER@... in url, \
                     with the rights that docs/store.md lists (its first two lines of ACL SETUSER), and put the password into password-file"
                );
                self.note(entry, &message);
            }
            Err(problem) => {
                self.lost(entry, &format!("{problem}; write url and layout = \"coturn\" into [store] (docs/store.md)"))
            }
        }
    }
}

/// Reads coturn's words, of which the last of a kind counts. Says, too, whether a user is named, which coturn takes no notice of.
fn read(text: &str) -> Result<(Store, bool), String> {
    let (mut host, mut port, mut database, mut password) = ("127.0.0.1", 6379_u16, 0_u32, None);
    let mut has_user = false;
    for word in text.trim_matches('"').split(' ').filter(|word| !word.is_empty()) {
        // A word that is none may be a part of a password.
        let (name, value) =
            word.split_once('=').ok_or("a word in it has no value, and coturn does not take it either")?;
        match name {
            "host" | "ip" | "addr" | "ipaddr" | "hostaddr" => host = value,
            "dbname" | "db" | "database" => {
                database = value.parse().map_err(|_| "its database is no number".to_owned())?;
            }
            "user" | "uname" | "name" | "username" => has_user = true,
            "password" | "pwd" | "passwd" | "secret" => {
                password = Some(Zeroizing::new(value.to_owned())).filter(|password| !password.is_empty());
            }
            "port" | "p" => {
                port = value.parse().ok().filter(|port| *port != 0).ok_or("its port is none")?;
            }
            "connect_timeout" | "timeout" => {}
            _ => return Err("a word in it is none that coturn knows".to_owned()),
        }
    }
    if password.as_deref().is_some_and(|password| placeholder::is_template(password)) {
        return Err("a template in place of its password".to_owned());
    }
    let host = parse_host(host).map_err(|_| "its host is no name and no address")?;
    let path = if database == 0 { String::new() } else { format!("/{database}") };
    Ok((Store { url: format!("redis://{host}:{port}{path}"), password }, has_user))
}

pub(super) fn write(out: &mut String, conf: &Conf) -> std::fmt::Result {
    let Some(At { value: store, .. }) = conf.store.as_ref().filter(|_| !conf.stun_only) else { return Ok(()) };
    separate(out);
    writeln!(out, "{HEAD}url = {}", quoted(&store.url))?;
    if let Some(password) = &store.password {
        writeln!(out, "password = {}", quoted(password))?;
    }
    writeln!(out, "layout = \"coturn\"")
}
