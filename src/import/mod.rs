//! `turnstone import`: the configuration of another TURN server as a `turnserver.toml`, and what of it needs an operator's
//! eye: coturn's `turnserver.conf`, coturn's command line, and eturnal's `eturnal.yml`.
//!
//! The conversion does no I/O: text comes in, TOML and findings go out. What coturn accepts and where it differs from here
//! was read from coturn 4.6.1 and tried with it, and from the reference of 4.17 for the directives that came later.

mod arguments;
mod conf;
mod counterpart;
mod credentials;
mod differences;
mod eturnal;
mod findings;
mod limits;
mod listeners;
mod network;
mod operation;
mod peers;
mod placeholder;
mod range;
mod read;
mod recognize;
mod relays;
mod store;
mod syntax;
mod table;
mod unknown;
mod write;
mod yaml;

pub use counterpart::{Counterpart, counterpart};
pub use findings::{Finding, FindingKind, Grade, Import, Spot};
pub use recognize::coturn_directives;
pub use yaml::YamlError;

/// Converts the text of a `turnserver.conf`, or of an `eturnal.yml`, which is told by its only section.
///
/// The result always passes [`crate::config::Config::parse`], given the files that it names and a host that has the addresses.
/// A file that names no usable secret and no usable user gets the secret that the installation makes,
/// `/etc/turnstone/secret`, and a finding that says so.
///
/// # Errors
/// When it is an `eturnal.yml` and no YAML; the message has the line.
pub fn import(text: &str) -> Result<Import, YamlError> {
    if eturnal::is_eturnal(text) {
        return eturnal::import(text);
    }
    Ok(import_coturn(text, &[]))
}

/// Converts a `turnserver.conf`, which may be empty, and the command line of a coturn, which goes before it.
pub fn import_coturn(text: &str, arguments: &[String]) -> Import {
    let mut conf = conf::Conf::default();
    arguments::look_for_file(&mut conf, arguments, !text.is_empty());
    for line in syntax::lines(text) {
        match line {
            Ok(entry) => conf.directive(&entry),
            Err(too_long) => conf.too_long(Spot::Line(too_long)),
        }
    }
    for entry in arguments::entries(arguments) {
        match entry {
            Ok(entry) => {
                conf.is_secret_seen |= entry.has_secret();
                conf.directive(&entry);
            }
            Err(stray) => conf.stray(stray),
        }
    }
    write::write(conf)
}

/// Every directive of `turnserver.conf` that is known, by name.
pub fn directives() -> impl Iterator<Item = &'static str> {
    table::all().map(|(name, _)| name)
}
