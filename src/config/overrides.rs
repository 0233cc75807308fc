//! Flags and `TURNSTONE_*` variables, which win over the file: a flag over a variable over a key.

use std::collections::BTreeMap;
use std::fmt;

use super::error::{Place, Problem};

/// One setting that a variable, and mostly a flag, can override.
#[derive(Clone, Copy, Debug)]
pub struct Overridable {
    /// The key in `turnserver.toml`, with its section.
    pub key: &'static str,
    /// The variable.
    pub env: &'static str,
    /// The flag without its dashes; a secret has none, because everybody can read a command line.
    pub flag: Option<&'static str>,
    /// Whether it takes several values: the flag by repeating it, the variable by commas.
    pub list: bool,
    /// What its value is called in help.
    pub value_name: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// Every setting that can be overridden.
pub const OVERRIDABLE: &[Overridable] = &[
    one("workers", "TURNSTONE_WORKERS", Some("workers"), "NUMBER", "worker threads; 0 is one per core"),
    Overridable {
        key: "listen",
        env: "TURNSTONE_LISTEN",
        flag: Some("listen"),
        list: true,
        value_name: "URL",
        help: "listeners such as udp://0.0.0.0:3478, replacing every [[listen]]",
    },
    one("tls.certificate", "TURNSTONE_TLS_CERTIFICATE", Some("tls-certificate"), "FILE", "certificate chain, PEM"),
    one("tls.key", "TURNSTONE_TLS_KEY", Some("tls-key"), "FILE", "private key, PEM"),
    one("relay.ipv4", "TURNSTONE_RELAY_IPV4", Some("relay-ipv4"), "ADDRESS", "IPv4 address to relay from, auto or off"),
    one("relay.ipv6", "TURNSTONE_RELAY_IPV6", Some("relay-ipv6"), "ADDRESS", "IPv6 address to relay from, auto or off"),
    Overridable {
        key: "relay.external-ip",
        env: "TURNSTONE_EXTERNAL_IP",
        flag: Some("external-ip"),
        list: true,
        value_name: "ADDRESS",
        help: "public address of a relay behind 1:1 NAT, one per family",
    },
    one("relay.ports", "TURNSTONE_RELAY_PORTS", Some("relay-ports"), "RANGE", "relay ports such as 49152-65535"),
    one("auth.realm", "TURNSTONE_REALM", Some("realm"), "REALM", "realm"),
    one("auth.public-host", "TURNSTONE_PUBLIC_HOST", Some("public-host"), "HOST", "host name in printed URLs"),
    one(SECRET, "TURNSTONE_SECRET", None, "SECRET", "the shared secret itself, replacing every [[auth.secrets]]"),
    one(
        SECRET_FILE,
        "TURNSTONE_SECRET_FILE",
        Some("secret-file"),
        "FILE",
        "file with the shared secret, replacing every [[auth.secrets]]; the variable TURNSTONE_SECRET holds the secret itself",
    ),
    one(
        READERS,
        READERS_ENV,
        Some("secret-files-readable-by"),
        "WHO",
        "who may read files with secrets: owner, or for the modes that containers give them group (0440) or everybody (0444)",
    ),
    one("log.level", "TURNSTONE_LOG_LEVEL", Some("log-level"), "LEVEL", "error, warn, info, debug, trace, or a filter"),
    one("log.format", "TURNSTONE_LOG_FORMAT", Some("log-format"), "FORMAT", "text or json"),
    one(
        "log.addresses",
        "TURNSTONE_LOG_ADDRESSES",
        Some("log-addresses"),
        "CHOICE",
        "how much of clients' and peers' addresses the log has: full, prefix or off",
    ),
];

/// The key of who may read files of secrets.
pub(super) const READERS: &str = "secret-files-readable-by";
/// Its variable.
pub const READERS_ENV: &str = "TURNSTONE_SECRET_FILES_READABLE_BY";

/// The pseudo-key of the secret in the environment.
pub(super) const SECRET: &str = "secret";
/// The pseudo-key of the secret in a file.
pub(super) const SECRET_FILE: &str = "secret-file";

/// Where the configuration file is, unless `--config` says so.
pub const CONFIG_ENV: &str = "TURNSTONE_CONFIG";

/// Where the commands that use the admin API find it.
pub const ADMIN_ENV: &str = "TURNSTONE_ADMIN";
/// The token that they show there.
pub const ADMIN_TOKEN_ENV: &str = "TURNSTONE_ADMIN_TOKEN";
/// Variables that are ours, but no setting of the server.
const OTHER_ENV: [&str; 3] = [CONFIG_ENV, ADMIN_ENV, ADMIN_TOKEN_ENV];

/// The values that win over the file.
#[derive(Clone, Default)]
pub struct Overrides {
    values: BTreeMap<&'static str, Override>,
    /// Some of these may be variables that the file itself names; that is seen when it is read.
    unknown_env: Vec<String>,
}

/// Without values: one may be the secret.
impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// One value that wins over the file.
#[derive(Clone)]
pub(super) struct Override {
    pub(super) place: Place,
    pub(super) values: Vec<String>,
}

impl Overrides {
    /// Takes the `TURNSTONE_*` variables out of the environment. An empty value counts as unset.
    ///
    /// # Errors
    /// A variable whose value is not UTF-8.
    pub fn from_env<'e>(variables: impl Iterator<Item = (&'e str, Option<&'e str>)>) -> Result<Self, Problem> {
        let mut overrides = Self::default();
        for (name, value) in variables {
            let Some(known) = OVERRIDABLE.iter().find(|known| known.env == name) else {
                if name.starts_with("TURNSTONE_") && !OTHER_ENV.contains(&name) && !is_kubernetes_service(name) {
                    overrides.unknown_env.push(name.to_owned());
                }
                continue;
            };
            let place = Place::Source(name.to_owned());
            let Some(value) = value else {
                return Err(Problem { place, message: "the value is not UTF-8".to_owned() });
            };
            if value.is_empty() {
                continue;
            }
            let values = match known.list {
                true => value.split(',').map(|part| part.trim().to_owned()).collect(),
                false => vec![value.to_owned()],
            };
            overrides.values.insert(known.key, Override { place, values });
        }
        Ok(overrides)
    }

    /// Sets what a flag says; no values is an absent flag.
    pub fn set_flag(&mut self, flag: &str, values: Vec<String>) {
        let Some(known) = OVERRIDABLE.iter().find(|known| known.flag == Some(flag)) else {
            return;
        };
        if !values.is_empty() {
            let place = Place::Source(format!("--{flag}"));
            // A secret's file and the secret itself are one setting: the flag wins over the variable.
            if known.key == SECRET_FILE {
                self.values.remove(SECRET);
            }
            self.values.insert(known.key, Override { place, values });
        }
    }

    /// Sets the shared secret, over any other; `source` is named where it turns out wrong.
    pub fn set_secret(&mut self, source: &str, secret: String) {
        self.values.remove(SECRET_FILE);
        self.values.insert(SECRET, Override { place: Place::Source(source.to_owned()), values: vec![secret] });
    }

    /// Sets a value for a key that neither a flag nor a variable has set; `source` is named where it turns out wrong.
    pub fn set_default(&mut self, key: &'static str, source: &str, values: Vec<String>) {
        let place = Place::Source(source.to_owned());
        self.values.entry(key).or_insert(Override { place, values });
    }

    /// Whether the setting with this key is overridden.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Names in the environment that look like ours but are not.
    pub(super) fn unknown_env(&self) -> &[String] {
        &self.unknown_env
    }

    pub(super) fn get(&self, key: &str) -> Option<&Override> {
        self.values.get(key)
    }
}

/// Kubernetes sets `TURNSTONE_SERVICE_HOST`, `TURNSTONE_PORT_3478_UDP` and so on when a Service is called `turnstone`.
fn is_kubernetes_service(name: &str) -> bool {
    name.starts_with("TURNSTONE_SERVICE_") || name.starts_with("TURNSTONE_PORT")
}

const fn one(
    key: &'static str,
    env: &'static str,
    flag: Option<&'static str>,
    value_name: &'static str,
    help: &'static str,
) -> Overridable {
    Overridable { key, env, flag, list: false, value_name, help }
}
