//! The `turnserver.toml` that is shipped: it is valid, documents every key, and states the true defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Given, given};

const SHIPPED: &str = include_str!("../../turnserver.toml");

fn shipped(text: &str, credentials: &std::path::Path) -> Given {
    let secret = credentials.join("secret");
    fs::write(&secret, "0123456789abcdef\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o400)).unwrap();
    given(text).env("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())
}

/// Lines `#key = value` and `#[[listen]]` without their `#`.
fn uncommented(text: &str) -> String {
    let is_option = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    text.lines()
        .map(|line| line.strip_prefix('#').filter(|rest| is_option(rest)).unwrap_or(line).to_owned() + "\n")
        .collect()
}

/// Section to keys, of everything the file shows, examples in `# ` comments included.
fn documented_keys() -> BTreeMap<String, BTreeSet<String>> {
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in SHIPPED.lines() {
        let line = line.strip_prefix('#').unwrap_or(line).trim();
        if line.starts_with('[') && line.ends_with(']') && !line.contains(' ') {
            section = line.to_owned();
            sections.entry(section.clone()).or_default();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        {
            sections.entry(section.clone()).or_default().insert(key.to_owned());
        }
    }
    sections
}

/// The keys that the parser accepts, from what it says when it meets an unknown one.
fn accepted_keys(section: &str) -> BTreeSet<String> {
    let parent = if section.trim_matches('[').starts_with("realm.") { "[[realm]]\n" } else { "" };
    let error = given(&format!("{parent}{section}\nno-such-key = 1\n")).error();
    let line =
        error.lines().find(|line| line.contains("unknown key \"no-such-key\"")).unwrap_or_else(|| panic!("{error}"));
    let (_, keys) = line.split_once("expected one of ").unwrap();
    keys.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_shipped_file_is_valid_as_it_is() {
    let credentials = tempfile::tempdir().unwrap();
    let loaded = shipped(SHIPPED, credentials.path()).parse().unwrap();
    assert_eq!(loaded.config.auth.secrets.len(), 1);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn every_documented_key_is_accepted_and_every_accepted_key_is_documented() {
    let documented = documented_keys();
    let tables: BTreeSet<String> = documented
        .keys()
        .filter(|section| !section.is_empty() && !section.contains('.'))
        .map(|section| section.trim_matches(['[', ']']).to_owned())
        .collect();
    for (section, keys) in &documented {
        let mut keys = keys.clone();
        match section.as_str() {
            "" => keys.extend(tables.clone()),
            "[auth]" => keys.extend(["secrets".to_owned(), "token-keys".to_owned(), "users".to_owned()]),
            "[credentials]" => keys.extend(["keys".to_owned()]),
            "[tls]" => keys.extend(["certificates".to_owned()]),
            "[[realm]]" => keys.extend(["secrets", "users", "quota", "bandwidth"].map(str::to_owned)),
            "[peers]" => keys.extend(["policy".to_owned()]),
            _ => {}
        }
        assert_eq!(keys, accepted_keys(section), "in {section:?}");
    }
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let credentials = tempfile::tempdir().unwrap();
    let all = uncommented(SHIPPED);
    let own_host = "external-ip = [\"203.0.113.5\", \"2001:db8::5\"]";
    for example in [
        own_host,
        "external-ip-sources = ",
        "certificate = ",
        "key = ",
        "software = ",
        "state-directory = ",
        "revocations = ",
        "public-host = ",
        "users-file = ",
        "listen = ",
        "alternate-server = ",
        "file = ",
        "webhook = ",
        "url = ",
    ] {
        assert!(all.contains(example), "no example of {example}");
    }
    let is_example = |line: &str| {
        [
            "external-ip =",
            "external-ip-sources =",
            "addresses = [\"203",
            "external-addresses =",
            "server-name =",
            "certificate =",
            "key =",
            "software =",
            "state-directory =",
            "url =",
            "revocations =",
            "public-host =",
            "users-file =",
            "urls =",
            "listen =",
            "alternate-server =",
            "alternate-domain =",
        ]
        .iter()
        .any(|example| line.starts_with(example))
    };
    let without_examples =
        |text: &str| text.lines().filter(|line| !is_example(line)).map(|line| format!("{line}\n")).collect::<String>();
    let defaults = without_examples(&all);
    assert!(defaults.contains("\nqueue = \"200ms\"\n") && defaults.contains("\n[[listen]]\n"), "{defaults}");
    let spelled_out = shipped(&defaults, credentials.path()).config();
    // What the shipped file has without being the default is [admin] listen.
    // Without a file and a webhook the other keys of [usage] would be for nothing, which is a mistake; and the spool's default
    // is where there is no file.
    let given = ["file = \"/var/", "webhook = ", "spool-directory = "];
    let with_usage = given.iter().fold(SHIPPED.to_owned(), |text, key| text.replace(&format!("#{key}"), key));
    let left_out = shipped(&without_examples(&with_usage), credentials.path()).config();
    assert!(left_out.usage.as_ref().is_some_and(|usage| usage.file.is_some() && usage.webhook.is_some()));
    assert!(left_out.admin.is_none() && shipped(SHIPPED, credentials.path()).config().admin.is_some());
    let sorted = |config: &turnstone::config::Config| {
        let mut config = config.clone();
        config.listeners.sort_by_key(|listener| (listener.transport, listener.address));
        config.to_toml()
    };
    assert_eq!(sorted(&spelled_out), sorted(&left_out));
}

#[test]
fn the_examples_are_valid_too() {
    let credentials = tempfile::tempdir().unwrap();
    // Files that are not there.
    let is_file = |line: &&str| line.starts_with("users-file") || line.starts_with("revocations");
    let all = uncommented(SHIPPED).lines().filter(|line| !is_file(line)).collect::<Vec<_>>().join("\n");
    let config = shipped(&all, credentials.path()).config();
    assert_eq!(config.relay.addresses[0].external.to_string(), "203.0.113.5");
    assert_eq!(config.auth.public_host.as_deref(), Some("turn.example.org"));
    assert!(config.tls.is_some());
    assert_eq!(config.nat_discovery[0].addresses[1].to_string(), "203.0.113.6");
    assert_eq!(config.auth.tokens.server_name, "turn.example.org");
    assert_eq!(config.metrics.unwrap().listen.to_string(), "127.0.0.1:9641");
    assert_eq!(config.admin.unwrap().listen.to_string(), "unix:/run/turnstone/admin.sock");
    assert_eq!(config.drain.alternates.servers.len(), 2);
    assert_eq!(config.redirect.unwrap().alternates.servers.len(), 3);
    let usage = config.usage.unwrap();
    assert_eq!(usage.file.unwrap().path.to_str(), Some("/var/log/turnstone/usage.jsonl"));
    assert_eq!(usage.webhook.unwrap().url.expose(), "https://billing.example.org/turn");
}
