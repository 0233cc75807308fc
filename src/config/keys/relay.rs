//! How the addresses of `[relay]` are shown.

use crate::addr::Family;

use super::super::shown::{text, texts};
use super::super::snapshot::Config;
use super::super::value::Value;

/// The addresses of this host, or what stands for them.
pub(super) fn relay_bind(config: &Config, family: Family) -> Option<Value> {
    let mut binds = config.relay.binds(family);
    match (binds.next(), binds.next()) {
        (Some(_), Some(_)) => texts(&config.relay.binds(family).collect::<Vec<_>>()),
        (Some(bind), None) => text(bind.to_string()),
        // What is looked for, and not there yet.
        (None, _) if config.relay.is_auto(family) => text("auto"),
        (None, _) => text("off"),
    }
}

/// What is written, and how others are found.
pub(super) fn relay_externals(config: &Config) -> Option<Value> {
    let written = config.relay.externals.iter().map(ToString::to_string);
    let all: Vec<_> = written.chain(config.relay.finding.by.iter().map(ToString::to_string)).collect();
    if all.is_empty() { None } else { texts(&all) }
}
