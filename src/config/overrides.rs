//! Flags and `TURNSTONE_*` variables, which win over the file: a flag over a variable over a key.

use std::collections::BTreeMap;
use std::fmt;

use super::error::{Place, Problem};
use super::keys::{SECRET, SECRET_FILE, overridable, settable};

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
            let Some(known) = settable().find(|known| known.env == name) else {
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
        let Some(known) = overridable().find(|known| known.flag == Some(flag)) else {
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
