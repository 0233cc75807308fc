//! The command, as an operator runs it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use assert_cmd::Command;

const SAMPLE: &str = include_str!("fixtures/sample.conf");

fn turnstone(directory: &Path, args: &[&str]) -> (i32, String, String) {
    with_input(directory, args, "")
}

fn with_input(directory: &Path, args: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    let output = command.current_dir(directory).args(args).env_clear().write_stdin(input).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_result_goes_to_standard_output_and_the_findings_to_standard_error() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("turnserver.conf"), SAMPLE).unwrap();
    let (code, out, err) = turnstone(directory.path(), &["import", "turnserver.conf", "--strict"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("external-ip = [\"203.0.113.7\"]"), "{out}");
    assert!(err.contains("  line 11 no-multicast-peers\n      multicast"), "{err}");
    assert!(err.contains("0 not converted, ") && err.contains("chmod 600"), "{err}");
    assert!(err.contains("next: run it again with --output"), "{err}");
    let piped = with_input(directory.path(), &["import", "-"], SAMPLE);
    assert_eq!((piped.0, piped.1), (0, out));
}

#[test]
fn a_file_of_ours_is_known_and_left_alone() {
    let reference = include_str!("../../turnserver.toml");
    for ours in [reference, "[relay]\nipv4 = \"auto\"\n", "[[auth.secrets]]\nsecret = \"x\"\n"] {
        let directory = tempfile::tempdir().unwrap();
        let (code, out, err) = with_input(directory.path(), &["import", "-"], ours);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("this is a turnserver.toml already"), "{err}");
    }
}

#[test]
fn keys_in_place_of_passwords_are_spoken_of_where_they_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let users = format!("lt-cred-mech\nrealm=example.org\nuser=camera:0x{}\n", "0f".repeat(16));
    let said = |conf: &str| with_input(directory.path(), &["import", "-"], conf).2.replace("\n      ", " ");
    assert!(said(&users).contains("taken as they are"), "{}", said(&users));
    let left_out = said(&format!("{users}use-auth-secret\nstatic-auth-secret=0123456789abcdef0123\n"));
    assert!(left_out.contains("does not use static users") && !left_out.contains("taken as they are"), "{left_out}");
}

#[test]
fn the_output_file_is_private_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (code, out, err) = with_input(directory.path(), &["import", "-", "--output", "turnserver.toml"], SAMPLE);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    let path = directory.path().join("turnserver.toml");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let before = fs::read_to_string(&path).unwrap();
    let (code, _, err) = with_input(directory.path(), &["import", "-", "-o", "turnserver.toml"], "realm=other");
    assert_eq!(code, 2);
    assert!(err.contains("turnserver.toml exists"), "{err}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
}

#[test]
fn check_accepts_the_result_but_for_the_certificate_that_is_not_here() {
    let directory = tempfile::tempdir().unwrap();
    // The relay of the sample is the host's own address, which a machine without a network has not.
    let conf = format!("{SAMPLE}relay-ip=127.0.0.1\n");
    let (code, ..) = with_input(directory.path(), &["import", "-", "-o", "turnserver.toml"], &conf);
    assert_eq!(code, 0);
    let (code, out, err) = turnstone(directory.path(), &["check", "--config", "turnserver.toml"]);
    assert_eq!(code, 2, "{out}{err}");
    let errors: Vec<_> = out.lines().filter(|line| line.starts_with("error")).collect();
    assert!(!errors.is_empty() && errors.iter().all(|line| line.contains("letsencrypt")), "{out}");
}

#[test]
fn strict_fails_when_something_is_lost_and_only_then_without_it() {
    let directory = tempfile::tempdir().unwrap();
    let conf = format!("{SAMPLE}no-stun\n");
    let (code, out, err) = with_input(directory.path(), &["import", "-"], &conf);
    assert_eq!(code, 0);
    assert!(err.contains("  line 17 no-stun: not converted\n      Binding requests are always answered"), "{err}");
    assert!(err.contains("1 not converted (clients: 1), "), "{err}");
    let strict = with_input(directory.path(), &["import", "-", "--strict"], &conf);
    assert_eq!((strict.0, strict.1), (1, out));
}

#[test]
fn the_table_of_a_file_is_as_it_was_read_by_people() {
    let conf = concat!(include_str!("fixtures/zero-means-off.conf"), "no-stun\nno-tlsv1\nno-tlsv1_1\nserver-relay\n");
    let directory = tempfile::tempdir().unwrap();
    let (code, _, err) = with_input(directory.path(), &["import", "-", "-o", "out.toml"], conf);
    assert_eq!(code, 0, "{err}");
    let expected = include_str!("fixtures/graded.txt");
    assert_eq!(err, expected, "the table is now:\n{err}");
    assert!(err.lines().all(|line| line.chars().count() <= 100), "{err}");
}

#[test]
fn no_line_of_the_table_and_none_of_the_result_is_longer_than_100_columns() {
    let files = [
        include_str!("fixtures/unsupported.conf"),
        include_str!("fixtures/needless.conf"),
        include_str!("fixtures/alt-ports.conf"),
        include_str!("fixtures/same-host-sfu.conf"),
        include_str!("fixtures/eturnal.yml"),
    ];
    let directory = tempfile::tempdir().unwrap();
    for conf in files {
        let (code, out, err) = with_input(directory.path(), &["import", "-"], conf);
        assert_eq!(code, 0, "{err}");
        for line in out.lines().chain(err.lines()) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}

#[test]
fn what_to_do_next_names_the_file_and_the_service() {
    let directory = tempfile::tempdir().unwrap();
    for (name, conf, service) in
        [("c.toml", SAMPLE, "coturn"), ("e.toml", include_str!("fixtures/eturnal.yml"), "eturnal")]
    {
        let (code, _, err) = with_input(directory.path(), &["import", "-", "-o", name], conf);
        assert_eq!(code, 0, "{err}");
        for step in [
            format!("{name} /etc/turnstone/turnserver.toml"),
            "turnstone check".to_owned(),
            format!("systemctl disable --now {service} "),
            "systemctl enable --now turnstone".to_owned(),
        ] {
            assert!(err.contains(&step), "{step}: {err}");
        }
    }
}

#[test]
fn a_command_line_is_taken_alone_and_beside_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let alone = [
        "import",
        "--args",
        "--",
        "-n",
        "--realm=example.org",
        "--use-auth-secret",
        "--static-auth-secret=0f1e2d3c4b5a69788796",
    ];
    let (code, out, err) = turnstone(directory.path(), &alone);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("realm = \"example.org\""), "{out}");
    assert!(!err.contains("0f1e2d3c"), "{err}");
    let beside = with_input(directory.path(), &["import", "-", "--args", "--", "-r", "example.net"], SAMPLE);
    assert!(beside.0 == 0 && beside.1.contains("realm = \"example.net\""), "{}", beside.1);
    for wrong in [&["import"][..], &["import", "--args"], &["import", "x.conf", "--", "-n"]] {
        assert_eq!(turnstone(directory.path(), wrong).0, 2, "{wrong:?}");
    }
}

#[test]
fn input_that_cannot_be_read_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("latin1"), b"realm=caf\xe9").unwrap();
    for (input, expected) in [("missing.conf", "missing.conf"), (".", "directory"), ("latin1", "byte 9 is not UTF-8")] {
        let (code, out, err) = turnstone(directory.path(), &["import", input]);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(expected), "{err}");
    }
    let (code, out, err) = with_input(directory.path(), &["import", "-"], "eturnal: [hunter2\n");
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("this is no YAML") && !err.contains("hunter2"), "{err}");
}
