//! Secrets, where they may come from, and files that are refused because others can read them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{SECRET, given};

fn file(directory: &Path, name: &str, content: &str, mode: u32) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_secret_file_that_others_can_read_is_refused_with_mode_and_fix() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[[auth.secrets]]\nid = \"main\"\nfile = \"secret\"";
    for (mode, who) in [
        (0o644, "its group and everybody"),
        (0o640, "its group"),
        (0o604, "everybody"),
        (0o660, "its group"),
        (0o620, "its group"),
    ] {
        let path = file(directory.path(), "secret", "0123456789abcdef", mode);
        let error = given(text).in_directory(directory.path()).error();
        let path = path.display();
        let expected = format!(
            "turnserver.toml:3:8: in [[auth.secrets]] {path} is open to {who} (mode {mode:04o}); run: chmod 600 {path}"
        );
        assert_eq!(error, expected);
    }
    for mode in [0o600, 0o400, 0o700] {
        file(directory.path(), "secret", "0123456789abcdef", mode);
        let config = given(text).in_directory(directory.path()).config();
        assert_eq!(**config.auth.secrets[0].bytes, *b"0123456789abcdef");
    }
}

#[test]
fn modes_that_containers_give_are_accepted_when_asked_for_and_no_wider_ones() {
    let directory = tempfile::tempdir().unwrap();
    let text = |readers: &str| {
        format!(
            "secret-files-readable-by = \"{readers}\"\n[auth]\nusers-file = \"file\"\n[[auth.secrets]]\nid = \"a\"\nfile = \"file\"\n\
             [[auth.users]]\nname = \"u\"\npassword-file = \"file\"\n[admin]\nlisten = \"127.0.0.1:1\"\ntoken-file = \"file\"\n\
             [usage]\nwebhook = \"https://example.org/\"\nwebhook-token-file = \"file\"\n"
        )
    };
    let content = "a-user:and-a-password";
    for (readers, accepted, refused) in [
        ("owner", &[0o400, 0o600][..], &[0o440, 0o444, 0o640][..]),
        ("group", &[0o400, 0o440, 0o640], &[0o444, 0o604, 0o660, 0o420]),
        ("everybody", &[0o400, 0o440, 0o444, 0o644], &[0o446, 0o666, 0o664]),
    ] {
        for mode in accepted {
            file(directory.path(), "file", content, *mode);
            let config = given(&text(readers)).in_directory(directory.path()).config();
            assert_eq!((config.auth.secrets.len(), config.auth.users.len()), (1, 2), "{readers} {mode:o}");
            assert!(config.to_toml().contains(&format!("secret-files-readable-by = \"{readers}\"")));
        }
        for mode in refused {
            file(directory.path(), "file", content, *mode);
            let error = given(&text(readers)).in_directory(directory.path()).error();
            for place in ["3:14", "6:8", "9:17", "12:14", "15:22"] {
                assert!(error.contains(&format!("turnserver.toml:{place}")), "{readers} {mode:o} {place}: {error}");
            }
            assert_eq!(error.lines().count(), 5, "{error}");
        }
    }
    file(directory.path(), "file", content, 0o444);
    let error = given(&text("owner")).in_directory(directory.path()).error();
    assert!(error.contains("accept what a container makes so: secret-files-readable-by = \"everybody\""), "{error}");
    // The key, and a secret in the file itself.
    let key = "[tls]\ncertificate = \"c\"\nkey = \"file\"";
    for (readers, is_read) in [("group", false), ("everybody", true)] {
        let text = format!("secret-files-readable-by = \"{readers}\"\n{SECRET}\n{key}");
        let config = given(&text).in_directory(directory.path()).config();
        assert_eq!(config.tls.unwrap().read_key().is_ok(), is_read);
        let mut open = given(&text).in_directory(directory.path());
        open.source.mode = Some(0o100_444);
        assert_eq!(open.parse().is_ok(), is_read);
    }
    assert!(
        given("secret-files-readable-by = \"all\"").error().contains("\"all\" is none of them; expected \"owner\", ")
    );
}

#[test]
fn a_users_file_may_have_256_mib_and_a_secret_one() {
    let directory = tempfile::tempdir().unwrap();
    let comment = format!("#{}\n", "x".repeat(4000));
    let text = "[auth]\nusers-file = \"users\"\n";
    file(directory.path(), "users", &format!("{}a:b\n", comment.repeat(5000)), 0o600);
    assert_eq!(given(text).in_directory(directory.path()).config().auth.users.len(), 1);
    // Without a byte in it.
    let users = fs::OpenOptions::new().write(true).open(directory.path().join("users")).unwrap();
    users.set_len((256 << 20) + 1).unwrap();
    assert!(given(text).in_directory(directory.path()).error().contains("users is larger than 256 MiB"));
    let text = "[[auth.secrets]]\nid = \"a\"\nfile = \"users\"\n";
    assert!(given(text).in_directory(directory.path()).error().contains("users is larger than 1 MiB"));
}

#[test]
fn one_line_end_at_the_end_of_a_secret_file_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[[auth.secrets]]\nid = \"main\"\nfile = \"secret\"";
    for (content, secret) in [
        ("0123456789abcdef\n", "0123456789abcdef"),
        ("0123456789abcdef\r\n", "0123456789abcdef"),
        ("0123456789abcdef\n\n", "0123456789abcdef\n"),
        (" 0123456789abcdef", " 0123456789abcdef"),
    ] {
        file(directory.path(), "secret", content, 0o600);
        let loaded = given(text).in_directory(directory.path()).parse().unwrap();
        assert_eq!(**loaded.config.auth.secrets[0].bytes, *secret.as_bytes(), "{content:?}");
        assert_eq!(loaded.warnings.len(), usize::from(secret.trim() != secret), "{:?}", loaded.warnings);
    }
}

#[test]
fn secrets_come_from_credentials_variables_and_the_file_itself_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    // The group bit stands for systemd's ACL.
    file(directory.path(), "handed-over", "from the service manager", 0o440);
    let text = "[[auth.secrets]]\nid = \"one\"\ncredential = \"handed-over\"\nfile = \"/nonexistent\"\n\
                [[auth.secrets]]\nid = \"two\"\nenv = \"MY_SECRET\"\n\
                [[auth.secrets]]\nid = \"three\"\nsecret = \"written in the file\"\n";
    let config = given(text)
        .env("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap())
        .env("MY_SECRET", "from a variable!")
        .config();
    let found: Vec<_> =
        config.auth.secrets.iter().map(|secret| (secret.id.as_str(), secret.bytes.as_slice())).collect();
    let expected: [(&str, &[u8]); 3] =
        [("one", b"from the service manager"), ("two", b"from a variable!"), ("three", b"written in the file")];
    assert_eq!(found, expected);
}

#[test]
fn a_credential_that_everybody_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    file(directory.path(), "secret", "0123456789abcdef", 0o444);
    let given = given("[[auth.secrets]]\nid = \"main\"\ncredential = \"secret\"");
    let error = given.env("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap()).error();
    assert!(error.contains("is open to everybody (mode 0444)"), "{error}");
}

#[test]
fn without_a_service_manager_the_file_beside_the_credential_is_read() {
    let directory = tempfile::tempdir().unwrap();
    file(directory.path(), "secret", "0123456789abcdef", 0o600);
    let text = "[[auth.secrets]]\nid = \"main\"\ncredential = \"secret\"\nfile = \"secret\"";
    let config = given(text).in_directory(directory.path()).config();
    assert_eq!(**config.auth.secrets[0].bytes, *b"0123456789abcdef");
}

#[test]
fn a_secret_written_in_a_file_for_everybody_is_refused() {
    let mut given = given(SECRET);
    given.source.mode = Some(0o100_644);
    assert_eq!(
        given.error(),
        "turnserver.toml:3:10: in [[auth.secrets]] a secret is written in a file that everybody can read (mode 0644); \
         run: chmod 600 turnserver.toml"
    );
    for mode in [0o100_640, 0o100_600] {
        given.source.mode = Some(mode);
        given.config();
    }
}

#[test]
fn users_come_from_tables_and_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    file(directory.path(), "users", "# devices\n\ncamera:with:colons\r\ndoor:secret\n", 0o600);
    file(directory.path(), "password", "from a file\n", 0o600);
    let text = "[auth]\nusers-file = \"users\"\n[[auth.users]]\nname = \"a\"\npassword-file = \"password\"\n\
                [[auth.users]]\nname = \"b\"\npassword-env = \"B\"\n[[auth.users]]\nname = \"c\"\npassword = \"c\"\n";
    let config = given(text).in_directory(directory.path()).env("B", "b").config();
    assert_eq!(config.auth.users.len(), 5);
}

#[test]
fn mistakes_in_a_users_file_are_named_with_their_line() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[auth]\nusers-file = \"users\"";
    for (content, problem) in [
        ("a:b\nno colon\n", "users:2:1: expected name:password"),
        ("a:b\na:c\n", "users:2:1: user \"a\" is given twice"),
        (":b\n", "users:1:1: user \"\": the name"),
        ("a:\n", "users:1:1: user \"a\": the password"),
    ] {
        let path = file(directory.path(), "users", content, 0o600);
        let error = given(text).in_directory(directory.path()).error();
        let expected = format!("{}{problem}", path.display().to_string().strip_suffix("users").unwrap());
        assert!(error.contains(&expected), "{error}\nlacks {expected}");
    }
    file(directory.path(), "users", "a:b\n", 0o644);
    assert!(given(text).in_directory(directory.path()).error().contains("(mode 0644); run: chmod 600"));
}

#[test]
fn a_users_file_may_have_keys_each_good_in_one_realm_and_its_lines_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let key = "0x8493fbc53ba582fb4c044c456bdc40eb";
    let given_users = |lines: &str| {
        file(directory.path(), "users", lines, 0o600);
        given("[auth]\nrealm = \"realm\"\nusers-file = \"users\"\n").in_directory(directory.path())
    };
    let users =
        given_users(&format!("# who they are\n# realm: realm\nuser:{key}\r\nplain:0xpassword\n")).config().auth.users;
    assert_eq!((users.len(), users.is_stored_as_key("user"), users.is_stored_as_key("plain")), (2, true, false));
    let error = given_users(&format!("a:b\n# realm: other\nuser:{key}\n")).error();
    assert!(
        error.contains("users:2:1: the keys behind this line are for the realm \"other\", and this realm is \"realm\""),
        "{error}"
    );
    let error = given_users(&format!("a:b\nuser:{key},{key}\n")).error();
    assert!(error.contains("users:2:1: user \"user\": there are two keys by one algorithm"), "{error}");
    assert!(!error.contains("8493"), "a key is shown: {error}");
    let error = given_users(&format!("a:{}\n", "x".repeat(5000))).error();
    assert!(error.contains("users:1:1: the line is longer than 4096 bytes") && error.lines().count() == 1, "{error}");
    // Of a million bad lines some are told.
    let error = given_users(&"nothing\n".repeat(100_000)).error();
    assert_eq!(error.lines().count(), 21, "{error}");
}

/// A million lines are read within seconds, also without optimisation; what it takes is in `docs/reference.md`.
#[test]
fn a_users_file_of_a_million_lines_is_read_and_each_of_it_is_found() {
    use std::fmt::Write;
    let directory = tempfile::tempdir().unwrap();
    let mut lines = String::with_capacity(64 << 20);
    for n in 0..1_000_000_u32 {
        writeln!(lines, "user-{n}:0x{n:032x}").unwrap();
    }
    file(directory.path(), "users", &lines, 0o600);
    let text = "[auth]\nusers-file = \"users\"\n";
    let users = given(text).in_directory(directory.path()).config().auth.users;
    assert_eq!(users.len(), 1_000_000);
    assert!([0, 7, 999_999].iter().all(|n| users.is_stored_as_key(&format!("user-{n}"))));
    assert!(!users.is_stored_as_key("user-1000000"));
    lines.push_str("user-7:again\n");
    file(directory.path(), "users", &lines, 0o600);
    let error = given(text).in_directory(directory.path()).error();
    assert!(error.ends_with("users:1000001:1: user \"user-7\" is given twice"), "{error}");
}
