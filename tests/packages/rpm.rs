//! The .rpm under rpm and dnf, in a root whose files are Debian's: a package of the test's own stands for the distribution, and provides what
//! that of Fedora and its relatives would (systemd, the C library, OpenSSL). That there is none of Fedora here is what this cannot show.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::build::{find, has_rpm_tool, packages};
use crate::host::{LIMIT, SOON, begin_call, configure, host, must_work, runs_replaced_program, traces};
use crate::support::machine::Machine;
use crate::support::{require_tool, run, skipped, wait_until};

/// A repository of these packages, as `createrepo_c` makes one.
fn repository(folder: &Path, packages: &[&Path]) {
    require_tool("createrepo_c", "createrepo-c");
    std::fs::create_dir(folder).unwrap();
    for package in packages {
        std::fs::copy(package, folder.join(package.file_name().unwrap())).unwrap();
    }
    let made = run(Command::new("createrepo_c").arg("--quiet").arg(folder), LIMIT);
    assert_eq!(made.code, Some(0), "{}", made.all_output());
}

/// The package that stands for a distribution in which another one can be installed.
fn distribution(folder: &Path, wanted_by: &Path) -> std::path::PathBuf {
    require_tool("rpmbuild", "rpm");
    let wanted = run(Command::new("rpm").args(["--query", "--requires", "--package"]).arg(wanted_by), LIMIT);
    assert_eq!(wanted.code, Some(0), "{}", wanted.all_output());
    let mut spec = "Name: distribution\nVersion: 1\nRelease: 1\nSummary: Stands for a distribution\nLicense: MIT\nBuildArch: noarch\n".to_owned();
    for wanted in wanted.stdout.lines().filter(|line| !line.starts_with("rpmlib(")) {
        writeln!(spec, "Provides: {}", wanted.replace("systemd >= 250", "systemd = 250")).unwrap();
    }
    spec += "%description\n%files\n";
    let path = folder.join("distribution.spec");
    std::fs::write(&path, spec).unwrap();
    let top = format!("_topdir {}", folder.display());
    let built = run(Command::new("rpmbuild").args(["-bb", "--quiet", "--define", &top]).arg(path), LIMIT);
    assert_eq!(built.code, Some(0), "{}", built.all_output());
    folder.join("RPMS/noarch/distribution-1-1.noarch.rpm")
}

/// dnf with one repository and nobody to ask.
fn dnf(host: &Machine, repository: &str, arguments: &[&str]) -> String {
    let started = Instant::now();
    let from = format!("--repofrompath=test,/run/source/{repository}");
    let options = ["--assumeyes", "--nogpgcheck", "--setopt=reposdir=/nowhere", &from];
    let said = host.must(&[&["sh", "-c", "exec dnf \"$@\" 2>&1", "sh"], &options[..], arguments].concat());
    assert!(started.elapsed() < SOON, "dnf {arguments:?} took {:?}", started.elapsed());
    said
}

#[test]
fn the_rpm_installs_changes_over_without_holding_dnf_up_and_says_what_it_leaves() {
    if !has_rpm_tool() {
        skipped("cargo-generate-rpm is not installed (tests/packages/setup.sh)");
        return;
    }
    let [one, two] = packages().each_ref().map(|folder| find(folder, "turnstone-", ".rpm"));
    let folder = tempfile::tempdir().unwrap();
    let distribution = distribution(folder.path(), &one);
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    repository(&first, &[&distribution, &one]);
    repository(&second, &[&two]);
    let Some(host) = host(&[&first, &second]) else { return };

    let said = dnf(&host, "first", &["install", "turnstone"]);
    assert!(said.contains("systemctl enable --now turnstone"), "{said}");
    assert_eq!(host.show("ActiveState"), "inactive");
    host.must(&["systemctl", "enable", "--now", "turnstone"]);
    must_work(&host);
    configure(&host);
    host.must(&["systemctl", "restart", "turnstone"]);
    // Neither the start nor the administrator has changed a file of the package.
    assert_eq!(host.must(&["rpm", "--verify", "turnstone"]), "");
    let documents = host.must(&["rpm", "--query", "--docfiles", "turnstone"]);
    for document in ["/usr/share/doc/turnstone/README.md", "/usr/share/man/man5/turnserver.toml.5.gz"] {
        assert!(documents.contains(document), "{document} is no documentation: {documents}");
    }

    begin_call(&host);
    let process = host.show("MainPID");
    let said = dnf(&host, "second", &["upgrade"]);
    assert!(said.contains("changes over to the new program"), "{said}");
    assert_eq!(host.must(&["rpm", "--query", "turnstone"]), "turnstone-2.0-1.x86_64");
    wait_until("the drain", LIMIT, || (host.show("ActiveState") == "deactivating").then_some(()));
    assert!(host.show("MainPID") == process && runs_replaced_program(&host));
    host.must(&["systemctl", "kill", "--kill-who=main", "--signal=INT", "turnstone"]);
    wait_until("the new program", LIMIT, || (host.show("ActiveState") == "active").then_some(()));
    assert!(!runs_replaced_program(&host));
    assert_eq!(host.must(&["rpm", "--verify", "turnstone"]), "");

    begin_call(&host);
    let said = dnf(&host, "second", &["remove", "turnstone"]);
    let command = said.lines().find_map(|line| line.strip_prefix("turnstone:   ")).unwrap_or_else(|| panic!("{said}"));
    assert!(host.run(&["cat", "/etc/turnstone/secret"]).status.success());
    host.must(&["sh", "-c", command]);
    assert_eq!(traces(&host), "");
}

/// What rpmlint has against it, and why it stays.
const NOT_MENDED: &[(&str, &str)] = &[
    ("no-url-tag", "there is no page to name"),
    ("no-signature", "whoever publishes it signs it"),
    ("no-packager-tag", "of a distribution's build system"),
    ("no-group-tag", "rpm has no use for it any more"),
    ("no-changelogname-tag", "CHANGELOG.md is in it"),
    ("no-buildhost-tag", "the same bit by bit, wherever it is made"),
    ("only-non-binary-in-usr-lib", "the unit, where systemd wants it"),
    ("files-duplicate", "one is where the pages have links to, the other where the program looks"),
    ("no-manual-page-for-binary", "it looks for turnstone.1.bz2, as the next one does"),
    ("manpage-not-compressed", "gzip is what man reads everywhere"),
    ("invalid-license", "this rpmlint has the names that were used before those of SPDX"),
];

#[test]
fn rpmlint_has_nothing_against_the_rpm_but_what_is_meant() {
    if !has_rpm_tool() {
        skipped("cargo-generate-rpm is not installed (tests/packages/setup.sh)");
        return;
    }
    let program = require_tool("rpmlint", "rpmlint");
    let said = run(Command::new(program).arg(find(&packages()[0], "turnstone-", ".rpm")), LIMIT).all_output();
    let lines = said.lines().filter(|line| line.starts_with("turnstone."));
    let left: Vec<_> =
        lines.filter(|line| !NOT_MENDED.iter().any(|(name, _)| line.contains(&format!(" {name}")))).collect();
    assert!(said.contains("1 packages") && left.is_empty(), "{}\n{said}", left.join("\n"));
}
