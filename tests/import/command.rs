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
    assert!(err.contains("  11  no-multicast-peers  note  multicast"), "{err}");
    assert!(err.contains("0 not converted, ") && err.contains("chmod 600"), "{err}");
    let piped = with_input(directory.path(), &["import", "-"], SAMPLE);
    assert_eq!((piped.0, piped.1), (0, out));
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
    let conf = format!("{SAMPLE}mobility\n");
    let (code, out, err) = with_input(directory.path(), &["import", "-"], &conf);
    assert_eq!(code, 0);
    assert!(err.contains("  17  mobility            not converted  mobility (RFC 8016)"), "{err}");
    let strict = with_input(directory.path(), &["import", "-", "--strict"], &conf);
    assert_eq!((strict.0, strict.1), (1, out));
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
}
