//! The .deb under dpkg.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::build::{find, packages};
use crate::host::{LIMIT, SOON, begin_call, configure, host, must_work, runs_replaced_program, traces};
use crate::support::machine::Machine;
use crate::support::{require_tool, run, wait_until};

/// Runs dpkg, which has nobody to ask, and returns what it says.
fn dpkg(host: &Machine, arguments: &[&str]) -> String {
    let started = Instant::now();
    let said = host.must(&[&["sh", "-c", "exec dpkg \"$@\" 2>&1", "sh"], arguments].concat());
    assert!(started.elapsed() < SOON, "dpkg {arguments:?} took {:?}", started.elapsed());
    said
}

#[test]
fn the_package_installs_changes_over_without_holding_dpkg_up_and_leaves_nothing_when_purged() {
    let [one, two] = packages().each_ref().map(|folder| find(folder, "turnstone_", ".deb"));
    let Some(host) = host(&[&one, &two]) else { return };
    let inside = |path: &Path| format!("/run/source/{}", path.file_name().unwrap().to_str().unwrap());
    let [one, two] = [inside(&one), inside(&two)];
    assert_eq!(traces(&host), "");

    // It is not started before anybody has seen its configuration, and says what is next.
    let said = dpkg(&host, &["--install", &one]);
    for words in ["edit /etc/turnstone/turnserver.toml", "turnstone check", "systemctl enable --now turnstone"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert_eq!(host.show("ActiveState"), "inactive");
    let modes = host.must(&["sh", "-c", "cd /etc/turnstone && stat -c '%n %a %U:%G' . tls turnserver.toml secret"]);
    assert_eq!(
        modes,
        ". 750 root:turnstone\ntls 750 root:turnstone\nturnserver.toml 640 root:turnstone\nsecret 600 root:root"
    );
    host.must(&["systemctl", "enable", "--now", "turnstone"]);
    must_work(&host);

    // An upgrade with calls on a server that drains for an hour: dpkg is done at once, and the calls go on.
    configure(&host);
    host.must(&["systemctl", "restart", "turnstone"]);
    begin_call(&host);
    let process = host.show("MainPID");
    let said = dpkg(&host, &["--install", &two]);
    assert!(said.contains("changes over to the new program"), "{said}");
    wait_until("the drain", LIMIT, || (host.show("ActiveState") == "deactivating").then_some(()));
    assert_eq!(host.show("MainPID"), process);
    assert!(runs_replaced_program(&host));
    // One more while that one drains.
    let said = dpkg(&host, &["--install", &two]);
    assert!(said.contains("the old program is ending") && host.show("MainPID") == process, "{said}");
    assert!(host.must(&["cat", "/run/log"]).contains("draining live=1"), "{}", host.log());
    host.must(&["systemctl", "kill", "--kill-who=main", "--signal=INT", "turnstone"]);
    wait_until("the new program", LIMIT, || (host.show("ActiveState") == "active").then_some(()));
    assert!(!runs_replaced_program(&host));
    must_work(&host);

    // What the new program does not take, it is not started with.
    let process = host.show("MainPID");
    host.must(&["sh", "-c", "echo nonsense >>/etc/turnstone/turnserver.toml"]);
    let said = dpkg(&host, &["--install", &two]);
    assert!(
        said.contains("turnserver.toml:8:9: key with no value") && said.contains("does not take this configuration"),
        "{said}"
    );
    assert_eq!((host.show("MainPID"), host.show("ActiveState").as_str()), (process.clone(), "active"));
    configure(&host);
    // Nor where the administrator has forbidden it.
    host.must(&["sh", "-c", "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d"]);
    let said = dpkg(&host, &["--install", &two]);
    assert!(said.contains("the old program still runs") && host.show("MainPID") == process, "{said}");

    // Taking it away does not wait for calls either.
    begin_call(&host);
    dpkg(&host, &["--remove", "turnstone"]);
    assert!(!host.run(&["test", "-e", &format!("/proc/{process}")]).status.success(), "it still runs");
    assert!(host.run(&["cat", "/etc/turnstone/secret"]).status.success());
    let said = dpkg(&host, &["--purge", "turnstone"]);
    for words in ["removed /etc/turnstone", "removed /var/lib/turnstone", "removed /var/log/turnstone", "the user"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert_eq!(traces(&host), "");
}

/// A package as it was before: the configuration is one of dpkg's files.
fn with_conffile(package: &Path, folder: &Path) -> std::path::PathBuf {
    let (root, earlier) = (folder.join("earlier"), folder.join("turnstone_0.1_earlier.deb"));
    let script = "set -e; dpkg-deb --raw-extract \"$1\" \"$2\"; cd \"$2\"; rm DEBIAN/md5sums DEBIAN/postrm DEBIAN/prerm; \
                  mkdir -p etc/turnstone; echo '# the whole reference' | cat - usr/share/turnstone/turnserver.toml >etc/turnstone/turnserver.toml; \
                  echo /etc/turnstone/turnserver.toml >DEBIAN/conffiles; sed -i 's/^Version: .*/Version: 0.1/' DEBIAN/control; \
                  dpkg-deb --root-owner-group --build . \"$3\"";
    let output = Command::new("sh").args(["-c", script, "sh"]).args([package, &root, &earlier]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    earlier
}

#[test]
fn the_package_before_had_its_configuration_from_dpkg_and_nobody_is_asked_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let package = find(&packages()[0], "turnstone_", ".deb");
    let earlier = with_conffile(&package, folder.path());
    for edit in ["", "echo '# mine' >>/etc/turnstone/turnserver.toml"] {
        let Some(host) = host(&[&package, &earlier]) else { return };
        dpkg(&host, &["--install", "/run/source/turnstone_0.1_earlier.deb"]);
        host.must(&["sh", "-c", edit]);
        let text = host.must(&["cat", "/etc/turnstone/turnserver.toml"]);
        assert!(text.starts_with("# the whole reference"), "{text}");
        let name = package.file_name().unwrap().to_str().unwrap();
        let said = dpkg(&host, &["--install", &format!("/run/source/{name}")]);
        assert!(!said.contains("configuration file '"), "{said}");
        assert_eq!(host.must(&["cat", "/etc/turnstone/turnserver.toml"]), text, "{said}");
        host.must(&["systemctl", "enable", "--now", "turnstone"]);
        must_work(&host);
        dpkg(&host, &["--purge", "turnstone"]);
        assert_eq!(traces(&host), "");
    }
}

/// What lintian has against them, and why it stays.
const NOT_MENDED: &[(&str, &str)] = &[
    ("command-with-path-in-maintainer-script /usr/sbin/policy-rc.d", "that is where Debian has it"),
    ("maintainer-script-calls-systemctl", "the same script serves the .rpm, and looks for a systemd before"),
    ("uses-no-compression-for-control-tarball", "of these packages alone"),
    ("uses-no-compression-for-data-tarball", "of these packages alone"),
];

#[test]
fn lintian_has_nothing_against_the_packages_but_what_is_meant() {
    let program = require_tool("lintian", "lintian");
    let both = ["turnstone_1.0", "turnstone-dbgsym_1.0"].map(|name| find(&packages()[0], name, ".deb"));
    let finished = run(Command::new(program).args(["--tag-display-limit", "0"]).args(both), LIMIT * 3);
    let said = finished.all_output();
    let lines = said.lines().filter(|line| line.starts_with("E: ") || line.starts_with("W: "));
    let left: Vec<_> = lines.filter(|line| !NOT_MENDED.iter().any(|(tag, _)| line.contains(tag))).collect();
    assert!(said.contains("uses-no-compression") && left.is_empty(), "{}\n{said}", left.join("\n"));
}
