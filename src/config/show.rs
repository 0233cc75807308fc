//! A configuration as TOML again, every default spelled out; secrets and passwords only by name.

use std::fmt::Write;

use super::keys;
use super::snapshot::Config;

impl Config {
    /// The effective configuration in the syntax of `turnserver.toml`. It has no secret in it: secrets and the number of
    /// static users are comments.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for (key, lines) in keys::all().map(|key| (key, key.lines(self))) {
            if !lines.is_empty() && key.section() != section {
                section = key.section();
                // Writing to a string cannot fail.
                let _ = write!(text, "\n[{section}]\n");
            }
            text.push_str(&lines);
        }
        text
    }
}
