//! Whether a stream is a terminal that shows colours.

use std::ffi::OsString;
use std::io::IsTerminal;

/// Whether to write colours: to a terminal, unless `NO_COLOR` is set (no-color.org) or it is a dumb or an unknown one.
pub(crate) fn shows_colours(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal() && are_wanted(set("NO_COLOR"), set("TERM"))
}

fn are_wanted(no_color: Option<OsString>, term: Option<OsString>) -> bool {
    no_color.is_none() && term.is_some_and(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_and_a_dumb_terminal_are_respected() {
        let set = |value: &str| Some(OsString::from(value));
        assert!(are_wanted(None, set("xterm")));
        assert!(!are_wanted(set("1"), set("xterm")) && !are_wanted(None, set("dumb")) && !are_wanted(None, None));
    }
}
