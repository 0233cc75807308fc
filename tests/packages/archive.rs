//! The archive with `install.sh`, and its uninstaller.

use crate::build::{find, packages};
use crate::host::{begin_call, configure, host, must_work, traces};

#[test]
fn the_archive_installs_itself_and_its_uninstaller_takes_all_of_it_away_without_the_archive() {
    let archive = find(&packages()[0], "turnstone-1.0", ".tar.gz");
    let Some(host) = host(&[&archive]) else { return };
    let install = "cd /tmp && tar xzf /run/source/turnstone-1.0-*.tar.gz && turnstone-1.0-*/systemd/install.sh && rm -r /tmp/turnstone-*";
    let uninstall = "/usr/local/share/turnstone/uninstall";
    host.must(&["sh", "-c", install]);
    host.must(&["systemctl", "enable", "--now", "turnstone"]);
    must_work(&host);
    configure(&host);
    host.must(&["systemctl", "restart", "turnstone"]);

    // Calls of an hour do not hold it up, and what is the administrator's stays.
    begin_call(&host);
    let said = host.must(&[uninstall]);
    let left = ["/etc/turnstone", "/var/lib/turnstone", "/var/log/turnstone", "the user turnstone"];
    assert!(left.iter().all(|left| said.contains(&format!("left {left}"))), "{said}");
    let files = host.must(&["sh", "-c", "find / -xdev -path '*turnstone*' ! -path '/etc/systemd/*' | sort"]);
    assert_eq!(
        files.lines().collect::<Vec<_>>(),
        ["", "/secret", "/tls", "/turnserver.toml"]
            .map(|name| format!("/etc/turnstone{name}"))
            .into_iter()
            .chain(["/var/lib/turnstone".to_owned(), "/var/log/turnstone".to_owned()])
            .collect::<Vec<_>>(),
    );

    // And comes back as it was; --purge takes that, too.
    host.must(&["sh", "-c", install]);
    host.must(&["systemctl", "enable", "--now", "turnstone"]);
    must_work(&host);
    let said = host.must(&[uninstall, "--purge"]);
    assert!(said.contains("removed /var/lib/turnstone (state)"), "{said}");
    assert_eq!(traces(&host), "");
}
