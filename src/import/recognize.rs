//! Knows a `turnserver.conf` that is taken for a `turnserver.toml`.

use super::table;

/// Directives of coturn that are keys of ours, too.
const SHARED_NAMES: [&str; 3] = ["realm", "external-ip", "software"];
/// So many of coturn's directives are named.
const NAMED_MAX: usize = 3;

/// What of a text are directives of coturn, if it is a configuration of coturn's and none of ours.
pub fn coturn_directives(text: &str) -> Option<String> {
    if text.lines().any(|line| line.trim_start().starts_with('[')) {
        return None;
    }
    let names = text.lines().filter_map(|line| line.trim_start().split(['=', ' ', '\t']).next());
    let mut found: Vec<_> = names.filter(|name| !SHARED_NAMES.contains(name) && table::find(name).is_some()).collect();
    found.dedup();
    found.truncate(NAMED_MAX);
    (!found.is_empty()).then(|| found.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_coturn_is_known_by_its_directives() {
        let coturn = "# comment\nlistening-port=3478\nuse-auth-secret\nrealm=example.org\nno-cli\nfingerprint\n";
        assert_eq!(coturn_directives(coturn).as_deref(), Some("listening-port, use-auth-secret, no-cli"));
        assert_eq!(coturn_directives("realm = \"x\"\nworkers = 1\n"), None);
        assert_eq!(coturn_directives("fingerprint\n[relay]\n"), None);
    }
}
