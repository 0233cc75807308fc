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

#[path = "support/skip.rs"]
mod skip;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use skip::skipped;

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
            skipped("systemd-analyze is not installed (apt-get install systemd)");
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

/// The system calls of a group such as `@system-service`, those of the groups in it included.
fn calls_of(group: &str) -> BTreeSet<String> {
    let output = Command::new("systemd-analyze").args(["syscall-filter", group]).output().unwrap();
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let members = listing.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    members
        .flat_map(|member| if member.starts_with('@') { calls_of(member) } else { BTreeSet::from([member.into()]) })
        .collect()
}

/// What the unit's `SystemCallFilter=` lines come to.
fn allowed_calls() -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for line in unit().lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        for group in line.trim_start_matches('~').split_whitespace() {
            let calls = calls_of(group);
            assert!(!calls.is_empty(), "{group} is no group");
            if line.starts_with('~') {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    allowed
}

#[test]
fn the_server_makes_no_system_call_that_the_unit_forbids() {
    if !has("systemd-analyze") || !has("strace") {
        skipped("systemd-analyze or strace is not installed (apt-get install systemd strace)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (trace, config) = (folder.path().join("trace"), folder.path().join("turnserver.toml"));
    fs::write(
        &config,
        "[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\"]\n[relay]\nipv4 = \"127.0.0.1\"\n\
         [usage]\nfile = \"usage.jsonl\"\nwebhook = \"http://127.0.0.1:1/\"\n",
    )
    .unwrap();
    let mut traced = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .args([&trace, Path::new(env!("CARGO_BIN_EXE_turnstone"))])
        .args(["serve", "--dev", "--config"])
        .arg(&config)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(traced.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let udp = lines.by_ref().find_map(|line| Some(line.split_once("listening on udp ")?.1.to_owned()));
    let Some(udp) = udp else {
        let status = traced.wait().unwrap();
        assert!(fs::metadata(&trace).is_ok_and(|file| file.len() == 0), "the server did not start: {status}");
        skipped("processes cannot be traced here");
        return;
    };
    // What a service does: answer over UDP and TCP, read its configuration again, stop.
    let mut request = [0; 20];
    request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.send_to(&request, &udp).unwrap();
    socket.recv(&mut [0; 100]).expect("an answer over UDP");
    let tcp = lines.by_ref().find_map(|line| Some(line.split_once("listening on tcp ")?.1.to_owned())).unwrap();
    let mut stream = std::net::TcpStream::connect(tcp).unwrap();
    stream.write_all(&request).unwrap();
    stream.read_exact(&mut [0; 32]).expect("an answer over TCP");
    let server = fs::read_to_string(format!("/proc/{0}/task/{0}/children", traced.id())).unwrap();
    for signal in ["-HUP", "-TERM"] {
        assert!(Command::new("kill").args([signal, server.trim()]).status().unwrap().success());
    }
    assert!(traced.wait().unwrap().success());

    let allowed = allowed_calls();
    let text = fs::read_to_string(&trace).unwrap();
    let used: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(call, _)| call)
        .filter(|call| call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    assert!(used.contains("recvmmsg") && used.len() > 20, "too little was traced: {used:?}");
    let forbidden: Vec<_> = used.iter().filter(|call| !allowed.contains(**call)).collect();
    assert!(forbidden.is_empty(), "the unit's SystemCallFilter forbids {forbidden:?}");
    assert!(!text.contains("PROT_WRITE|PROT_EXEC"), "memory that is writable and executable");
    let families =
        unit().lines().find_map(|line| Some(line.strip_prefix("RestrictAddressFamilies=")?.to_owned())).unwrap();
    for family in text.split("socket(").skip(1).filter_map(|rest| rest.split(',').next()) {
        assert!(families.split(' ').any(|allowed| allowed == family), "the unit does not allow {family}");
    }
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
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
fn the_installed_pages_have_no_link_that_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &[]);
    let documents = folder.path().join("opt/turnstone/share/doc/turnstone");
    let of_docs = fs::read_dir(documents.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages =
        of_docs.chain([documents.join("README.md")]).filter(|path| path.extension().is_some_and(|end| end == "md"));
    let mut checked = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        // The libraries are for who has the sources.
        for link in links.filter(|link| !link.is_empty() && !link.starts_with("http") && !link.starts_with("crates/")) {
            assert!(page.parent().unwrap().join(link).exists(), "{}: {link} is not installed", page.display());
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked} links");
    // Nor one to a file of another prefix.
    for (page, file) in [("docs/tls-and-realms.md", "certbot-deploy-hook"), ("docs/monitoring.md", "fail2ban.conf")] {
        let text = fs::read_to_string(documents.join(page)).unwrap();
        let path = format!("/opt/turnstone/share/turnstone/{file}");
        assert!(text.contains(&path) && folder.path().join(&path[1..]).exists(), "{page} has no {path}");
    }
}

#[test]
fn installing_puts_everything_in_its_place_with_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &[]);
    let expected = [
        ("opt/turnstone/bin/turnstone", 0o755),
        ("opt/turnstone/share/man/man1/turnstone.1", 0o644),
        ("opt/turnstone/share/man/man1/turnstone-credentials-verify.1", 0o644),
        ("opt/turnstone/share/man/man5/turnserver.toml.5", 0o644),
        ("opt/turnstone/share/doc/turnstone/README.md", 0o644),
        ("opt/turnstone/share/doc/turnstone/docs/deploy.md", 0o644),
        ("opt/turnstone/share/doc/turnstone/docs/alerts.yml", 0o644),
        ("opt/turnstone/share/bash-completion/completions/turnstone", 0o644),
        ("opt/turnstone/share/zsh/site-functions/_turnstone", 0o644),
        ("opt/turnstone/share/fish/vendor_completions.d/turnstone.fish", 0o644),
        ("opt/turnstone/share/turnstone/certbot-deploy-hook", 0o755),
        ("opt/turnstone/share/turnstone/fail2ban.conf", 0o644),
        ("opt/turnstone/share/turnstone/turnserver.toml", 0o644),
        ("opt/turnstone/share/turnstone/maintain", 0o755),
        ("opt/turnstone/share/turnstone/uninstall", 0o755),
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
    let picture = fs::read(folder.path().join("opt/turnstone/share/doc/turnstone/docs/page.png")).unwrap();
    assert_eq!(picture, fs::read(root().join("docs/page.png")).unwrap());
    let unit = fs::read_to_string(folder.path().join("usr/lib/systemd/system/turnstone.service")).unwrap();
    assert!(unit.contains("ExecStart=/opt/turnstone/bin/turnstone serve"), "{unit}");
    let secret = fs::read_to_string(folder.path().join("etc/turnstone/secret")).unwrap();
    assert!(secret.len() == 64 && secret.chars().all(|c| c.is_ascii_hexdigit()), "not 32 bytes in hex");
}

/// The commands below a command, as its help lists them.
fn commands_below(command: &[String]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_turnstone")).args(command).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_manual_page_and_every_page_that_is_referred_to_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &[]);
    let share = folder.path().join("opt/turnstone/share");
    let mut wanted = vec![Vec::new()];
    let mut pages = 0;
    while let Some(command) = wanted.pop() {
        let name = std::iter::once("turnstone".to_owned()).chain(command.iter().cloned()).collect::<Vec<_>>().join("-");
        assert!(share.join("man/man1").join(format!("{name}.1")).is_file(), "no manual page {name}(1)");
        pages += 1;
        wanted.extend(commands_below(&command).into_iter().map(|below| [command.clone(), vec![below]].concat()));
    }
    assert!(pages > 20, "{pages} pages");
    let shipped = fs::read_to_string(folder.path().join("etc/turnstone/turnserver.toml")).unwrap();
    let reference = fs::read_to_string(share.join("doc/turnstone/docs/reference.md")).unwrap() + &shipped;
    let named = reference.split("docs/").skip(1).filter_map(|rest| rest.split_once(".md").map(|(name, _)| name));
    for name in
        named.filter(|name| *name != "NAME" && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))
    {
        let page = share.join("doc/turnstone/docs").join(format!("{name}.md"));
        assert!(page.is_file(), "{} is referred to and not installed", page.display());
    }
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
