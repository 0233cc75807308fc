//! What is known of a key: see `keys`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::snapshot::Config;
use super::value::Value;

/// One key.
pub(super) struct Key {
    /// With its section, e.g. `relay.ports`.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What it is when nobody says otherwise, as in the file but for quotes. `None` where it has none, or where it follows from
    /// others.
    pub(super) default: Option<&'static str>,
    /// Its value, for those that may be shown.
    value: fn(&Config) -> Option<Value>,
    /// What is said in place of what may not be shown.
    unshown: Option<(Lines, Told)>,
    /// Puts the running value back into a new configuration, where only a restart can change it.
    pub(super) keep: Option<fn(&mut Config, &Config)>,
    pub(super) overridable: Option<Overridable>,
}

/// How a key is written, and what is expected where it is not.
pub(super) enum Kind {
    /// Tables, each written as `[[name]]`.
    Tables,
    /// No key of the file: only a variable or a flag has it.
    Outside,
    Boolean,
    Number(RangeInclusive<u64>, &'static str),
    /// A number or `"unlimited"`.
    Limit(RangeInclusive<u64>, &'static str),
    Numbers(RangeInclusive<u64>, &'static str),
    /// What its reader understands.
    Text(&'static str),
    /// One text or several.
    Texts(&'static str),
    Duration(RangeInclusive<Duration>),
    DurationOrOff(RangeInclusive<Duration>),
    Size(RangeInclusive<u64>),
    SizeOrOff(RangeInclusive<u64>),
    /// A rate or `"unlimited"`.
    Rate,
}

// Kinds that several keys have.
pub(super) const FILE: Kind = Kind::Text("the path of a file");
pub(super) const CREDENTIAL: Kind = Kind::Text("the name of a systemd credential");
pub(super) const VARIABLE: Kind = Kind::Text("the name of an environment variable");
pub(super) const INLINE_TEXT: &str = "a text";
pub(super) const INLINE: Kind = Kind::Text(INLINE_TEXT);
pub(super) const SERVER_NAMES: Kind = Kind::Texts(r#"host names such as "turn.example.org" or "*.example.org""#);

impl Key {
    pub(super) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, default: None, value: |_| None, unshown: None, keep: None, overridable: None }
    }

    pub(super) const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    pub(super) const fn shown(self, value: fn(&Config) -> Option<Value>) -> Self {
        Self { value, ..self }
    }

    pub(super) const fn unshown(self, lines: Lines, change: Told) -> Self {
        Self { unshown: Some((lines, change)), ..self }
    }

    pub(super) const fn after_restart(self, keep: fn(&mut Config, &Config)) -> Self {
        Self { keep: Some(keep), ..self }
    }

    pub(super) const fn set_by(
        self,
        env: &'static str,
        flag: Option<&'static str>,
        value_name: &'static str,
        help: &'static str,
    ) -> Self {
        let list = matches!(self.kind, Kind::Texts(_) | Kind::Tables);
        Self { overridable: Some(Overridable { key: self.name, env, flag, list, value_name, help }), ..self }
    }

    /// The section that it is in; nothing at the top level.
    pub(super) fn section(&self) -> &'static str {
        self.name.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its name there.
    pub(super) fn last_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, name)| name)
    }

    /// Its lines in the shown configuration.
    pub(super) fn lines(&self, config: &Config) -> String {
        let name = self.last_name();
        let value = (self.value)(config).map(|value| format!("{name} = {value}\n"));
        value.unwrap_or_default() + &self.unshown.map(|(lines, _)| lines(config)).unwrap_or_default()
    }

    /// Its values in two configurations, as far as they may be shown, if they differ.
    pub(super) fn difference(&self, old: &Config, new: &Config) -> Option<(String, String)> {
        let (before, after) = ((self.value)(old), (self.value)(new));
        if before != after {
            let shown = |value: Option<Value>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
            return Some((shown(before), shown(after)));
        }
        self.unshown.and_then(|(_, told)| told(old, new))
    }

    /// What its value should be.
    pub(super) fn expected(&self) -> String {
        const DURATION: &str = r#"a duration such as "200ms", "30s", "10m", "12h" or "1h30m""#;
        const SIZE: &str = r#"a size such as "64KiB" or "1MiB""#;
        const RATE: &str =
            r#"a rate such as "2Mbit/s", "500kbit/s" (bits) or "1MB/s", "125kB/s" (bytes), or "unlimited""#;
        match self.kind {
            Kind::Tables => format!("tables, each written as [[{}]]", self.name),
            Kind::Outside => String::new(),
            Kind::Boolean => "true or false".to_owned(),
            Kind::Number(_, expected) | Kind::Limit(_, expected) | Kind::Numbers(_, expected) => expected.to_owned(),
            Kind::Text(expected) | Kind::Texts(expected) => expected.to_owned(),
            Kind::Duration(_) => DURATION.to_owned(),
            Kind::DurationOrOff(_) => format!("{DURATION}, or \"off\""),
            Kind::Size(_) => SIZE.to_owned(),
            Kind::SizeOrOff(_) => format!("{SIZE}, or \"off\""),
            Kind::Rate => RATE.to_owned(),
        }
    }
}

/// Of a secret, or of whole tables: lines for the shown configuration.
type Lines = fn(&Config) -> String;
/// How a change of it is told: before and after.
type Told = fn(&Config, &Config) -> Option<(String, String)>;

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
