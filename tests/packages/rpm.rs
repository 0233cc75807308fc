//! The .rpm under rpm, in a root whose libraries are dpkg's: rpm knows none of them, and its scripts do not care.

use std::time::Instant;

use crate::build::{find, has_rpm_tool, packages};
use crate::host::{LIMIT, SOON, begin_call, configure, host, must_work, runs_replaced_program, traces};
use crate::support::machine::Machine;
use crate::support::{skipped, wait_until};

fn rpm(host: &Machine, arguments: &[&str]) -> String {
    let started = Instant::now();
    let said = host.must(&[&["sh", "-c", "exec rpm \"$@\" 2>&1", "sh"], arguments].concat());
    assert!(started.elapsed() < SOON, "rpm {arguments:?} took {:?}", started.elapsed());
    said
}

#[test]
fn the_rpm_installs_changes_over_without_holding_rpm_up_and_says_what_it_leaves() {
    if !has_rpm_tool() {
        skipped("cargo-generate-rpm is not installed (tests/packages/setup.sh)");
        return;
    }
    let [one, two] = packages().each_ref().map(|folder| find(folder, "turnstone-", ".rpm"));
    let Some(host) = host(&[&one, &two]) else { return };
    let [one, two] = [one, two].map(|path| format!("/run/source/{}", path.file_name().unwrap().to_str().unwrap()));
    let said = rpm(&host, &["--install", "--nodeps", &one]);
    assert!(said.contains("systemctl enable --now turnstone"), "{said}");
    assert_eq!(host.show("ActiveState"), "inactive");
    host.must(&["systemctl", "enable", "--now", "turnstone"]);
    must_work(&host);

    configure(&host);
    host.must(&["systemctl", "restart", "turnstone"]);
    begin_call(&host);
    let process = host.show("MainPID");
    let said = rpm(&host, &["--upgrade", "--nodeps", &two]);
    assert!(said.contains("changes over to the new program"), "{said}");
    wait_until("the drain", LIMIT, || (host.show("ActiveState") == "deactivating").then_some(()));
    assert!(host.show("MainPID") == process && runs_replaced_program(&host));
    host.must(&["systemctl", "kill", "--kill-who=main", "--signal=INT", "turnstone"]);
    wait_until("the new program", LIMIT, || (host.show("ActiveState") == "active").then_some(()));
    assert!(!runs_replaced_program(&host));

    begin_call(&host);
    let said = rpm(&host, &["--erase", "turnstone"]);
    let command = said.lines().find_map(|line| line.strip_prefix("turnstone:   ")).unwrap_or_else(|| panic!("{said}"));
    assert!(host.run(&["cat", "/etc/turnstone/secret"]).status.success());
    host.must(&["sh", "-c", command]);
    assert_eq!(traces(&host), "");
}
