//! `[usage]`: its defaults, its mistakes, and what a reload changes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use turnstone::config::{Effect, WebhookToken};

use super::{SECRET, given, with_secret};

const SIZE: &str = r#"a size such as "64KiB" or "1MiB""#;

#[test]
fn nothing_is_recorded_unless_there_is_a_place_for_it() {
    assert_eq!(given(SECRET).config().usage, None);
    let loaded = with_secret("[usage]\ninterim = \"1m\"").parse().unwrap();
    assert_eq!(loaded.config.usage, None);
    assert!(loaded.warnings[0].message.contains("neither a file nor a webhook"), "{:?}", loaded.warnings);
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let usage = with_secret("[usage]\nfile = \"u.jsonl\"\nwebhook = \"https://example.org\"");
    let usage = usage.in_directory(Path::new("/var/log/turnstone")).config().usage.unwrap();
    assert_eq!(usage.interim, Some(Duration::from_secs(300)));
    let file = usage.file.unwrap();
    assert_eq!(file.path, Path::new("/var/log/turnstone/u.jsonl"));
    assert_eq!((file.rotate_bytes, file.keep), (Some(100 << 20), Some(14)));
    assert_eq!(file.rotate_interval, Some(Duration::from_secs(86_400)));
    let webhook = usage.webhook.unwrap();
    assert_eq!((webhook.token, webhook.timeout), (None, Duration::from_secs(10)));
    assert_eq!(webhook.spool_directory, Path::new("/var/log/turnstone/u.jsonl.spool"));
    assert_eq!(webhook.spool_bytes_max, 256 << 20);
    let alone = with_secret("[usage]\nwebhook = \"https://example.org\"").config().usage.unwrap();
    assert_eq!(alone.webhook.unwrap().spool_directory, Path::new("/var/lib/turnstone/usage-spool"));
    let off = "[usage]\nfile = \"u\"\nrotate-bytes = \"off\"\nrotate-interval = \"off\"\nkeep = \"unlimited\"\ninterim = \"off\"";
    let off = with_secret(off).config().usage.unwrap();
    let file = off.file.unwrap();
    assert_eq!((off.interim, file.rotate_bytes, file.rotate_interval, file.keep), (None, None, None, None));
}

#[test]
fn every_mistake_is_named_with_its_place_and_what_was_expected() {
    for (line, expected) in [
        ("file = \"\"", "2:8: file in [usage]: \"\" is not a path; expected the path of a file".to_owned()),
        ("file = 1", "2:8: file in [usage]: found a whole number".to_owned()),
        (
            "rotate-bytes = \"1KiB\"",
            format!(
                "2:16: rotate-bytes in [usage]: \"1KiB\" is not from 64KiB to 1024GiB; expected {SIZE}, or \"off\""
            ),
        ),
        ("rotate-bytes = 100", "2:16: rotate-bytes in [usage]: found a whole number".to_owned()),
        (
            "rotate-interval = \"10s\"",
            "2:19: rotate-interval in [usage]: \"10s\" is not from 1m to 30d; expected a duration".to_owned(),
        ),
        (
            "keep = 0",
            "2:8: keep in [usage]: 0 is out of range; expected a whole number from 1 to 100000, or \"unlimited\""
                .to_owned(),
        ),
        ("interim = \"9s\"", "2:11: interim in [usage]: \"9s\" is not from 10s to 1d; expected a duration".to_owned()),
        ("interim = \"25h\"", "2:11: interim in [usage]: \"25h\" is not from 10s to 1d".to_owned()),
        ("interim = \"never\"", "2:11: interim in [usage]: \"never\" is not a duration".to_owned()),
        (
            "webhook = \"billing.example.org\"",
            "2:11: webhook in [usage]: \"billing.example.org\" is not a whole URL; expected a URL such as".to_owned(),
        ),
        (
            "webhook = \"http://billing.example.org/\"",
            "2:11: webhook in [usage]: \"http://billing.example.org/\" would send users and their traffic in the clear"
                .to_owned(),
        ),
        ("webhook = \"http://192.0.2.1/\"", "in the clear".to_owned()),
        (
            "webhook = \"ftp://example.org/\"",
            "2:11: webhook in [usage]: \"ftp\" is not a scheme that is offered".to_owned(),
        ),
        (
            "webhook = \"https://user:secret@example.org/\"",
            "2:11: webhook in [usage]: it has a user or a password, which belong into webhook-token-file".to_owned(),
        ),
        ("webhook = \"https://example.org/#top\"", "has a fragment".to_owned()),
        ("webhook = \"https://exa mple.org/\"", "is not a URL".to_owned()),
        ("webhook-timeout = \"2m\"", "2:19: webhook-timeout in [usage]: \"2m\" is not from 1s to 1m".to_owned()),
        ("keep = 3", "keep in [usage]: there is no file that it is for".to_owned()),
        ("spool-bytes-max = \"1MiB\"", "spool-bytes-max in [usage]: there is no webhook that it is for".to_owned()),
        (
            "file = \"u\"\nwebhook-timeout = \"5s\"",
            "webhook-timeout in [usage]: there is no webhook that it is for".to_owned(),
        ),
        ("webhook-token = \"t\"", "webhook-token in [usage]: there is no webhook that it is for".to_owned()),
        (
            "webhook = \"https://example.org/\"\nwebhook-token-env = \"UNSET\"",
            "3:21: in [usage] the variable UNSET is not set".to_owned(),
        ),
        (
            "webhook = \"https://example.org/\"\nwebhook-token-file = \"/nonexistent\"",
            "3:22: in [usage] cannot read /nonexistent".to_owned(),
        ),
        (
            "webhook = \"https://example.org/\"\nwebhook-token = \"two\\nlines\"",
            "3:17: the webhook's token in [usage] is empty, too long, or has a character".to_owned(),
        ),
        (
            "webhook = \"https://example.org/\"\nwebhook-token = \"a\"\nwebhook-token-env = \"B\"",
            "there is more than one source (webhook-token-env, webhook-token)".to_owned(),
        ),
        (
            "spool-bytes-max = \"1KiB\"",
            format!("2:19: spool-bytes-max in [usage]: \"1KiB\" is not from 256KiB to 1024GiB; expected {SIZE}"),
        ),
        (
            "files = \"x\"",
            "2:1: unknown key \"files\" in [usage] (did you mean \"file\"?); expected one of file, interim, keep, rotate-bytes".to_owned(),
        ),
    ] {
        let error = with_secret(&format!("[usage]\n{line}")).error();
        assert!(error.contains(&expected), "{line}:\n{error}\n{expected}");
    }
}

#[test]
fn a_webhook_on_this_host_may_do_without_tls_and_its_address_is_known() {
    for (url, address) in [
        ("http://127.0.0.1:8080/usage", Some("127.0.0.1:8080")),
        ("http://[::1]/usage?from=turn", Some("[::1]:80")),
        ("http://localhost:8080", None),
        ("https://192.0.2.7/", Some("192.0.2.7:443")),
        ("https://billing.example.org:8443/turn", None),
    ] {
        let webhook = with_secret(&format!("[usage]\nwebhook = \"{url}\"")).config().usage.unwrap().webhook.unwrap();
        assert_eq!((webhook.url.expose(), webhook.address), (url, address.map(|address| address.parse().unwrap())));
    }
}

#[test]
fn the_token_comes_from_where_other_secrets_do_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "t0ken\n").unwrap();
    let text = format!("[usage]\nwebhook = \"https://example.org/\"\nwebhook-token-file = \"{}\"", file.display());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(with_secret(&text).error().contains("is open to its group and everybody (mode 0644)"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let config = with_secret(&text).config();
    let token = |config: &turnstone::config::Config| config.usage.clone().unwrap().webhook.unwrap().token;
    assert_eq!(token(&config).as_ref().map(WebhookToken::expose), Some("t0ken"));
    assert!(!config.to_toml().contains("t0ken") && !format!("{config:?}").contains("t0ken"));
    assert!(config.to_toml().contains("# webhook-token: there is one"));
    let by_variable = with_secret("[usage]\nwebhook = \"https://example.org/\"\nwebhook-token-env = \"TOKEN\"");
    assert_eq!(token(&by_variable.env("TOKEN", "t0ken").config()), token(&config));
}

#[test]
fn a_query_and_a_password_in_the_webhooks_url_are_shown_nowhere() {
    let with = |query: &str| with_secret(&format!("[usage]\nwebhook = \"https://example.org/in?{query}\"")).config();
    let (old, new) = (with("key=s3cret"), with("key=s3cond"));
    let webhook = old.usage.clone().unwrap().webhook.unwrap();
    assert_eq!(webhook.url.expose(), "https://example.org/in?key=s3cret");
    assert!(old.to_toml().contains("webhook = \"https://example.org/in\"\n# webhook: its query is not shown\n"));
    let changes = old.changes(&new);
    assert_eq!(changes.len(), 1);
    let line = "usage.webhook: https://example.org/in -> https://example.org/in (another query)";
    assert_eq!((changes[0].to_string().as_str(), changes[0].effect), (line, Effect::NeedsRestart));
    for shown in [old.to_toml(), format!("{old:?}"), format!("{changes:?}")] {
        assert!(!shown.contains("s3c"), "{shown}");
    }
    for url in [
        "https://a b/?s3cret",
        "ftp://x/?s3cret",
        "example.org?s3cret",
        "http://x.org/?s3cret",
        "https://x/?s3cret#f",
        "https://u:s3cret@x/",
        "u:s3cret@x",
    ] {
        let error = with_secret(&format!("[usage]\nwebhook = \"{url}\"")).error();
        assert!(error.contains("webhook in [usage]") && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn what_is_shown_is_read_back() {
    let text = "[usage]\nfile = \"/a/u.jsonl\"\nrotate-bytes = \"off\"\nrotate-interval = \"1h\"\nkeep = \"unlimited\"\ninterim = \"off\"\n\
                webhook = \"https://example.org/\"\nspool-bytes-max = \"1MiB\"\nwebhook-timeout = \"3s\"";
    let config = with_secret(text).config();
    let shown = config.to_toml();
    let section = shown.split("[usage]").nth(1).unwrap();
    let again = with_secret(&format!("[usage]{section}")).config();
    assert_eq!(again.usage, config.usage);
}

#[test]
fn a_reload_changes_intervals_limits_and_token_and_no_place() {
    let old = "[usage]\nfile = \"/a/u.jsonl\"\nwebhook = \"https://example.org/\"\nwebhook-token = \"one\"";
    let new = "[usage]\nfile = \"/b/u.jsonl\"\nkeep = 3\ninterim = \"1m\"\nrotate-bytes = \"1MiB\"\nwebhook = \"https://example.org/\"\n\
               webhook-token = \"two\"\nspool-bytes-max = \"1MiB\"";
    let (old, mut new) = (with_secret(old).config(), with_secret(new).config());
    let changes = old.changes(&new);
    let of = |effect| {
        let keys = changes.iter().filter(move |change| change.effect == effect).map(|change| change.key);
        keys.collect::<Vec<_>>()
    };
    assert_eq!(of(Effect::Applied), ["usage.interim", "usage.keep", "usage.rotate-bytes", "usage.webhook-token"]);
    assert_eq!(of(Effect::NeedsRestart), ["usage.file", "usage.spool-bytes-max", "usage.spool-directory"]);
    assert!(!format!("{changes:?}").contains("two"));
    new.keep_until_restart(&old);
    assert!(old.changes(&new).iter().all(|change| change.effect == Effect::Applied));
    assert_eq!(old.changes(&new).len(), 4);

    for (before, after) in [("", "[usage]\nfile = \"/a/u\""), ("[usage]\nfile = \"/a/u\"", "")] {
        let (before, mut after) = (with_secret(before).config(), with_secret(after).config());
        assert!(before.changes(&after).iter().all(|change| change.effect == Effect::NeedsRestart));
        after.keep_until_restart(&before);
        assert_eq!(before.changes(&after), []);
    }
}
