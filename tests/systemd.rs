//! The service unit as systemd itself judges it, and what `systemd/install.sh` puts where.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const EXPOSURE_MAX: f64 = 1.5;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn unit() -> String {
    fs::read_to_string(root().join("systemd/turnstone.service")).unwrap()
}

/// The unit with the program that was just built, in a folder of its own.
fn unit_of_this_build() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turnstone.service");
    fs::write(&path, unit().replace("/usr/bin/turnstone", env!("CARGO_BIN_EXE_turnstone"))).unwrap();
    (folder, path)
}

/// `None`, with a message, on a machine without systemd; tests/run installs it.
fn systemd_analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: systemd-analyze is not installed (apt-get install systemd)");
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

#[test]
fn the_unit_verifies_without_a_word() {
    let (_folder, unit) = unit_of_this_build();
    let Some(output) = systemd_analyze(&["verify", "--man=no"], &unit) else { return };
    // systemd-analyze also reads the machine's own units; only what it says of ours counts.
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let of_ours: Vec<_> = words.lines().filter(|line| line.contains("turnstone")).collect();
    assert!(of_ours.is_empty() && output.status.success(), "{words}");
}

#[test]
fn the_unit_exposes_little() {
    let (_folder, unit) = unit_of_this_build();
    let Some(output) = systemd_analyze(&["security", "--offline=true", "--no-pager"], &unit) else { return };
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdict = report.lines().find(|line| line.contains("Overall exposure level")).expect(&report);
    let exposure: f64 = verdict
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no figure in {verdict:?}"));
    assert!(exposure <= EXPOSURE_MAX, "{report}");
}

#[test]
fn every_hardening_setting_has_its_reason() {
    let unit = unit();
    let service = unit.split("[Service]").nth(1).unwrap();
    // A reason stands above a setting, or above the group of settings that it belongs to.
    let mut explained = false;
    for line in service.lines().take_while(|line| !line.starts_with("[Install]")) {
        if line.is_empty() {
            explained = false;
        } else if line.starts_with('#') {
            explained = true;
        } else {
            assert!(explained || line == "Type=notify", "no reason given for {line}");
        }
    }
}

#[test]
fn only_binding_low_ports_is_a_privilege() {
    let unit = unit();
    let capabilities: Vec<_> = unit.lines().filter(|line| line.contains("CAP_") && !line.starts_with('#')).collect();
    assert_eq!(
        capabilities,
        ["CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE"]
    );
}

#[test]
fn descriptors_suffice_for_every_relay_port_in_both_families_and_as_many_connections() {
    let unit = unit();
    let limit = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).unwrap();
    let relay_ports = usize::from(u16::MAX - 49152) + 1;
    assert!(limit.parse::<usize>().unwrap() >= 2 * relay_ports + 2 * relay_ports);
}

fn install(destdir: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(root().join("systemd/install.sh"))
        .args(arguments)
        .env("DESTDIR", destdir)
        .env("PREFIX", "/opt/turnstone")
        .env("BINARY", env!("CARGO_BIN_EXE_turnstone"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o7777
}

#[test]
fn installing_puts_everything_in_its_place_with_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &[]);
    let expected = [
        ("opt/turnstone/bin/turnstone", 0o755),
        ("opt/turnstone/share/man/man1/turnstone.1", 0o644),
        ("opt/turnstone/share/bash-completion/completions/turnstone", 0o644),
        ("opt/turnstone/share/zsh/site-functions/_turnstone", 0o644),
        ("opt/turnstone/share/fish/vendor_completions.d/turnstone.fish", 0o644),
        ("opt/turnstone/share/turnstone/certbot-deploy-hook", 0o755),
        ("usr/lib/systemd/system/turnstone.service", 0o644),
        ("usr/lib/sysusers.d/turnstone.conf", 0o644),
        ("usr/lib/tmpfiles.d/turnstone.conf", 0o644),
        ("etc/turnstone", 0o750),
        ("etc/turnstone/tls", 0o750),
        ("etc/turnstone/turnserver.toml", 0o640),
        ("etc/turnstone/secret", 0o600),
    ];
    for (path, expected) in expected {
        let path = folder.path().join(path);
        assert_eq!(mode(&path), expected, "{}", path.display());
        assert!(path.is_dir() || fs::metadata(&path).unwrap().len() > 0, "{} is empty", path.display());
    }
    let unit = fs::read_to_string(folder.path().join("usr/lib/systemd/system/turnstone.service")).unwrap();
    assert!(unit.contains("ExecStart=/opt/turnstone/bin/turnstone serve"), "{unit}");
    let secret = fs::read_to_string(folder.path().join("etc/turnstone/secret")).unwrap();
    assert!(secret.len() == 64 && secret.chars().all(|c| c.is_ascii_hexdigit()), "not 32 bytes in hex");
}

#[test]
fn what_was_installed_is_a_configuration_that_checks() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &[]);
    let config = folder.path().join("etc/turnstone/turnserver.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_turnstone"))
        .args(["check", "--config"])
        .arg(&config)
        .args(["--relay-ipv4", "127.0.0.1", "--secret-file"])
        .arg(folder.path().join("etc/turnstone/secret"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn installing_again_keeps_what_the_administrator_wrote() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &[]);
    let config = folder.path().join("etc/turnstone");
    let secret = fs::read(config.join("secret")).unwrap();
    fs::write(config.join("turnserver.toml"), "workers = 1\n").unwrap();
    install(folder.path(), &["install"]);
    assert_eq!(fs::read(config.join("secret")).unwrap(), secret);
    assert_eq!(fs::read_to_string(config.join("turnserver.toml")).unwrap(), "workers = 1\n");
}

#[test]
fn uninstalling_leaves_nothing_but_the_configuration() {
    fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files_below(&path, found) } else { found.push(path) }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &[]);
    install(folder.path(), &["uninstall"]);
    let mut left = Vec::new();
    files_below(folder.path(), &mut left);
    left.sort();
    let config = folder.path().join("etc/turnstone");
    assert_eq!(left, [config.join("secret"), config.join("turnserver.toml")]);
}
