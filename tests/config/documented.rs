//! The `turnserver.toml` that is shipped runs as it stands, and so does what it has as examples; and every example of the reference.
//! That the reference has every key with its true default is seen to in `config::keys::reference`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Given, SECRET, given};

const SHIPPED: &str = include_str!("../../turnserver.toml");
const REFERENCE: &str = include_str!("../../docs/reference.md");
/// Where the texts have the files that this makes.
const FOLDER: &str = "/etc/turnstone/";

/// A configuration with the files that it names.
fn with_files(text: &str, folder: &Path) -> Given {
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    };
    let named = text.split(FOLDER).skip(1).filter_map(|rest| rest.split('"').next());
    named.filter(|name| !name.contains('/')).for_each(|name| write(name, "0123456789abcdef\n"));
    write("token-key", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n");
    write("users", "alice:0123456789abcdef\n");
    write("revocations", "{\"user\": \"mallory\"}\n");
    given(&text.replace(FOLDER, &format!("{}/", folder.display())))
        .env("CREDENTIALS_DIRECTORY", folder.to_str().unwrap())
        .env("OLD_TURN_SECRET", "fedcba9876543210")
}

/// Lines such as `#key = value` and `#[[listen]]` without their `#`.
fn uncommented(text: &str) -> String {
    let is_option = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    text.lines()
        .map(|line| line.strip_prefix('#').filter(|rest| is_option(rest)).unwrap_or(line).to_owned() + "\n")
        .collect()
}

/// The TOML of the reference: where it is, what stands before it, and the text.
fn examples() -> Vec<(usize, &'static str, String)> {
    let lines: Vec<_> = REFERENCE.lines().collect();
    let starts = lines.iter().enumerate().filter(|(_, line)| **line == "```toml").map(|(index, _)| index);
    let example = |start: usize| {
        let text =
            lines[start + 1..].iter().take_while(|line| **line != "```").map(|line| format!("{line}\n")).collect();
        assert_eq!(lines[start - 1], "", "docs/reference.md:{start}: no blank line before the block");
        (start + 1, lines[start - 2], text)
    };
    starts.map(example).collect()
}

#[test]
fn the_shipped_file_is_valid_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let loaded = with_files(SHIPPED, folder.path()).parse().unwrap();
    assert_eq!(loaded.config.auth.secrets.len(), 1);
    assert_eq!(loaded.config.admin.unwrap().listen.to_string(), "unix:/run/turnstone/admin.sock");
    assert_eq!(loaded.warnings, []);
}

#[test]
fn what_the_shipped_file_has_as_examples_is_valid_too() {
    let folder = tempfile::tempdir().unwrap();
    let all = uncommented(SHIPPED);
    let config = with_files(&all, folder.path()).config();
    assert_eq!(config.relay.addresses[0].external.to_string(), "203.0.113.5");
    assert_eq!(config.auth.public_host.as_deref(), Some("turn.example.org"));
    assert_eq!(config.auth.users.len(), 1);
    assert!(config.tls.is_some() && config.metrics.is_some());
    assert!(config.listeners.iter().any(|listener| listener.transport.to_string() == "tls"));
    assert!(config.peers.default_deny_all);
    // Each `#` in front of what is no sentence was taken away: all of it was read.
    let is_left = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && *line != "#";
    assert_eq!(all.lines().filter(is_left).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_shipped_file_is_short() {
    assert!(SHIPPED.lines().count() <= 120, "{} lines: the reference has room for more", SHIPPED.lines().count());
}

#[test]
fn every_example_of_the_reference_is_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples();
    assert!(examples.len() > 40, "{}", examples.len());
    let mut refused = Vec::new();
    for (line, _, example) in examples {
        let mut text = example;
        if !text.contains("[[auth.secrets]]") {
            text += SECRET;
        }
        if !text.contains("[tls]") {
            text += "[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";
        }
        if let Err(error) = with_files(&text, folder.path()).parse() {
            refused.push(format!("docs/reference.md:{line}: {error}\n{text}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn what_is_an_example_says_so_and_what_is_the_default_is_the_default() {
    let mut defaults = Vec::new();
    for (line, before, text) in examples() {
        let is_example = before.starts_with("Example") && before.ends_with(':');
        if !is_example {
            assert!(
                before.contains("by default"),
                "docs/reference.md:{line}: neither an example nor a default: {before}"
            );
            defaults.push(text);
        }
    }
    assert_eq!(defaults.len(), 1);
    let spelled_out = given(&format!("{}{SECRET}", defaults[0])).config();
    assert_eq!(spelled_out.to_toml(), given(SECRET).config().to_toml());
}
