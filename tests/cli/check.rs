//! `turnstone check` and `turnstone config show`.

use std::net::UdpSocket;

use serde_json::Value;

use super::{Place, SECRET, ran};

#[test]
fn a_good_configuration_passes() {
    let place = Place::new();
    let out = place.run(&["check", "--external-ip", "5.44.1.1"]).ok();
    assert!(
        out.starts_with("ok       configuration: turnserver.toml: udp 127.0.0.1:3478, tcp 127.0.0.1:3478; 1 secret, ")
    );
    assert!(out.contains("\nok       relay: from 127.0.0.1, known outside as 5.44.1.1\n"), "{out}");
    assert!(out.ends_with("0 errors, 0 warnings\n") || out.contains("warning  descriptors"), "{out}");
    assert!(!out.contains(SECRET));
}

#[test]
fn what_clients_will_miss_is_warned_about() {
    let place = Place::new();
    for (args, words) in [
        (&[][..], "warning  relay-address: 203.0.113.5 is an example address from documentation"),
        (&["--external-ip", "10.1.2.3"], "warning  relay-address: external-ip 10.1.2.3 is a private address"),
        (&["--external-ip", "100.64.0.1"], "the provider's NAT forwards nothing to it"),
        (&["--listen", "tcp://0.0.0.0:443"], "warning  listener: nothing listens on udp"),
        (&["--listen", "udp://0.0.0.0:443"], "note     listener: no udp listener has port 3478"),
    ] {
        let out = place.run(&[&["check"], args].concat()).ok();
        assert!(out.contains(words), "no {words:?} in {out}");
    }
    assert!(!place.run(&["check", "--external-ip", "5.44.1.1"]).ok().contains("warning  relay-address"));
    place.append("[tls]\ncertificate = \"c\"\nkey = \"k\"\n");
    let tls = ["check", "--listen", "tls://0.0.0.0:443"];
    let words = "warning  public-host: there is a tls listener, but no public-host";
    assert!(place.run(&tls).out.contains(words));
    assert!(!place.run(&[&tls[..], &["--public-host", "turn.example.org"]].concat()).out.contains(words));
}

#[test]
fn problems_are_findings_with_their_place() {
    let place = Place::with("[bandwith]\nper-user = \"2M\"");
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.out.starts_with(
            "error    turnserver.toml:1:2: unknown key \"bandwith\" at the top level (did you mean \"bandwidth\"?); "
        ),
        "{}",
        ran.out
    );
    assert!(ran.out.ends_with("1 error, 0 warnings\n"), "{}", ran.out);
    assert!(ran.err.contains("turnstone config reference lists all keys"), "{}", ran.err);
}

#[test]
fn the_file_may_be_named_alone_and_elsewhere_a_tip_says_how() {
    let place = Place::new();
    let alone = ran(&mut place.command(&["check", "turnserver.toml"]));
    assert_eq!((alone.code, alone.out), (0, place.run(&["check"]).out));
    let twice = place.run(&["check", "turnserver.toml"]);
    assert!(twice.code == 2 && twice.err.contains("cannot be used with"), "{}", twice.err);
    for command in [&["doctor"][..], &["serve"], &["config", "show"], &["status"]] {
        let told = ran(&mut place.command(&[command, &["turnserver.toml"]].concat()));
        assert_eq!(told.code, 2);
        assert!(
            told.err.ends_with("\ntip: a configuration file is named with --config turnserver.toml\n"),
            "{}",
            told.err
        );
    }
    let other = ran(&mut place.command(&["status", "nonsense"]));
    assert!(other.code == 2 && !other.err.contains("--config nonsense"), "{}", other.err);
}

#[test]
fn a_file_of_coturn_is_named_as_such_and_nothing_else_is_said() {
    for text in ["listening-port=3478\nuse-auth-secret\n", "listening-port=3478\nno-cli=1\n"] {
        let place = Place::new();
        place.file("turnserver.toml", text, 0o600);
        let out = place.run(&["check"]).out;
        let starts = "error    turnserver.toml: this is a configuration of coturn (listening-port, ";
        let ends = "turnstone import turnserver.toml --output turnserver.toml\n1 error, 0 warnings\n";
        assert!(out.starts_with(starts) && out.ends_with(ends), "{out}");
    }
}

#[test]
fn warnings_fail_only_when_strict() {
    let place = Place::new();
    place.file(
        "turnserver.toml",
        "[[auth.secrets]]\nid = \"a\"\nfile = \"secret\"\n[relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"",
        0o600,
    );
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("warning  turnserver.toml:5:8: relay address 127.0.0.1 is private"), "{}", ran.out);
    assert_eq!(place.run(&["check", "--strict"]).code, 1);
}

#[test]
fn findings_come_as_json_too() {
    let place = Place::with("nonsense = 1");
    let ran = place.run(&["check", "--format", "json"]);
    assert_eq!(ran.code, 2);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((found["errors"].as_u64(), found["findings"][0]["level"].as_str()), (Some(1), Some("error")));
    assert_eq!(found["findings"][0]["subject"], "turnserver.toml:1:1");
}

#[test]
fn a_relay_address_of_another_host_is_an_error() {
    let place = Place::new();
    let ran = place.run(&["check", "--relay-ipv4", "198.51.100.77"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.out.contains("error    relay: 198.51.100.77 is not an address of this host: the server waits"),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains("os error"), "{}", ran.out);
    // The service asks before a reload: what it waits for anyway is no reason to refuse other changes.
    let user = rustix::process::geteuid().as_raw().to_string();
    let mut inside = place.command(&["check", "--config", "turnserver.toml", "--user", &user]);
    inside.args(["--relay-ipv4", "198.51.100.77"]).env("CREDENTIALS_DIRECTORY", place.path(""));
    let ran = super::ran(&mut inside);
    assert!(ran.code == 0 && ran.out.contains("warning  relay: 198.51.100.77 is not"), "{}", ran.out);
}

#[test]
fn a_listener_at_an_address_of_another_host_is_warned_about() {
    let place = Place::new();
    let ran = place.run(&["check", "--listen", "udp://198.51.100.77:3478"]);
    let words = "warning  listener: udp 198.51.100.77:3478 is not an address of this host now";
    assert!(ran.code == 0 && ran.out.contains(words), "{}", ran.out);
}

#[test]
fn a_file_of_usage_records_that_stays_where_it_is_needs_no_writable_directory() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    set_folder(&place, 0o755);
    let nobody = |name: &str| std::os::unix::fs::chown(place.path(name), Some(65534), None).unwrap();
    place.file("usage.jsonl", "", 0o600);
    place.append("[usage]\nfile = \"usage.jsonl\"\n");
    ["secret", "usage.jsonl"].into_iter().for_each(nobody);
    let check = |place: &Place| place.run(&["check", "--user", "nobody"]);
    let folder = place.path("").display().to_string();
    let words =
        format!("usage.jsonl: permission denied: user nobody may make no file in {}", folder.trim_end_matches('/'));
    let ran = check(&place);
    assert!(ran.code == 2 && ran.out.contains(&words), "it is put aside: {}", ran.out);
    place.append("rotate-bytes = \"off\"\nrotate-interval = \"off\"\n");
    let ran = check(&place);
    assert_eq!(ran.code, 0, "{}", ran.out);
}

#[test]
fn a_configuration_that_others_may_change_is_warned_about() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.path("turnserver.toml")).unwrap();
    place.file("turnserver.toml", &text, 0o664);
    let ran = place.run(&["check"]);
    assert!(ran.out.contains("(mode 0664); run: chmod go-w turnserver.toml"), "{}", ran.out);
}

#[test]
fn a_listener_that_is_taken_is_found_when_asked_for() {
    let place = Place::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = format!("udp://{address}");
    // An ephemeral port may lie in the relay range.
    let args = ["check", "--listen", &listen, "--relay-ports", "2000-2001"];
    assert_eq!(place.run(&args).code, 0);
    let ran = place.run(&[&args[..], &["--bind"]].concat());
    assert_eq!(ran.code, 2);
    assert!(ran.out.contains(&format!("error    listener: udp {address} cannot be bound: ")), "{}", ran.out);
    assert!(ran.out.contains("is the server running?"), "{}", ran.out);
}

#[test]
fn an_endpoint_for_metrics_or_the_admin_api_that_is_taken_is_found_when_asked_for() {
    for (section, more) in [("metrics", ""), ("admin", "token = \"0123456789abcdef\"\n")] {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let place = Place::with(&format!("[{section}]\nlisten = \"{address}\"\n{more}"));
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(place.path("turnserver.toml"), private).unwrap();
        let ran = place.run(&["check", "--bind"]);
        assert!(ran.out.contains(&format!("error    {section}: tcp {address} cannot be bound: ")), "{}", ran.out);
    }
}

/// A unit beside the configuration that starts it as nobody, with the sandbox that is shipped and a drop-in.
fn unit(place: &Place, more: &str) -> String {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/turnstone.service")).unwrap();
    let config = place.path("turnserver.toml");
    let text = shipped.replace("/etc/turnstone/turnserver.toml", config.to_str().unwrap());
    place.file("turnstone.service", &text, 0o644);
    let _ = std::fs::create_dir(place.path("turnstone.service.d"));
    // Temporary folders are what the test has; a service has them not.
    let more = format!("[Service]\nUser=nobody\nGroup=65534\nPrivateTmp=no\nLoadCredential=\n{more}\n");
    place.file("turnstone.service.d/test.conf", &more, 0o644);
    place.path("turnstone.service").display().to_string()
}

fn set_folder(place: &Place, mode: u32) {
    std::fs::set_permissions(place.path(""), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        super::skip::skipped("only root can try files as another user");
    }
    is_root
}

#[test]
fn files_that_the_service_user_may_not_read_are_errors_though_root_may() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let unit = unit(&place, "");
    let found = |words: &str| {
        let ran = place.run(&["check", "--unit", &unit]);
        assert!(ran.code == 2 && ran.out.contains(words), "no {words:?} in {}", ran.out);
    };
    let folder = place.path("").display().to_string();
    set_folder(&place, 0o700);
    // A private folder, a configuration of mode 0600, a secret of root's, a key.
    found(&format!("user nobody may not enter {}", folder.trim_end_matches('/')));
    set_folder(&place, 0o755);
    let secret = place.path("secret").display().to_string();
    found(&format!(
        "turnserver.toml:12:8: file in [[auth.secrets]]: {secret}: permission denied: user nobody may not read it; \
         run: chown nobody {secret}"
    ));
    let text = std::fs::read_to_string(place.path("turnserver.toml")).unwrap();
    place.file("turnserver.toml", &text, 0o600);
    let config = place.path("turnserver.toml").display().to_string();
    found(&format!(
        "error    service: turnserver.toml: the configuration: {config}: permission denied: user nobody may not read it; \
         run: chgrp nobody"
    ));
    place.file("turnserver.toml", &text, 0o644);
    std::os::unix::fs::chown(place.path("secret"), Some(65534), None).unwrap();
    let good = place.run(&["check", "--unit", &unit]);
    assert_eq!(good.code, 0, "{}", good.out);
    assert!(
        good.out.contains("ok       service: user nobody may use all 2 files and directories that it needs"),
        "{}",
        good.out
    );
    // Another user by name; groups count.
    std::os::unix::fs::chown(place.path("secret"), Some(0), None).unwrap();
    let other = place.run(&["check", "--unit", &unit, "--user", "root"]);
    assert_eq!(other.code, 0, "{}", other.out);
    let nobody = place.run(&["check", "--user", "nobody"]);
    assert!(nobody.code == 2 && nobody.out.contains("user nobody may not read it"), "{}", nobody.out);
    let unknown = place.run(&["check", "--user", "no-such-user"]);
    assert_eq!((unknown.code, unknown.err.as_str()), (2, "error: there is no user no-such-user in /etc/passwd\n"));
}

#[test]
fn what_the_sandbox_hides_or_makes_read_only_is_an_error_with_what_helps() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    set_folder(&place, 0o755);
    std::os::unix::fs::chown(place.path("secret"), Some(65534), None).unwrap();
    place.append(
        "[tls]\ncertificate = \"/run/user/1/c.pem\"\nkey = \"/run/user/1/k.pem\"\n[metrics]\nlisten = \"unix:/run/metrics.sock\"\n\
         [admin]\nlisten = \"unix:/run/turnstone/admin.sock\"\n[usage]\nfile = \"/srv/usage.jsonl\"\nwebhook = \"https://example.org/\"\n\
         spool-directory = \"/var/lib/turnstone/spool\"\n",
    );
    std::os::unix::fs::chown(place.path("turnserver.toml"), Some(65534), None).unwrap();
    let ran = place.run(&["check", "--unit", &unit(&place, "")]);
    assert_eq!(ran.code, 2);
    for words in [
        "turnserver.toml:14:15: certificate in [tls]: /run/user/1/c.pem: the service does not see it: ProtectHome= hides",
        "turnserver.toml:15:7: key in [tls]: /run/user/1/k.pem: the service does not see it: ProtectHome= hides",
        "turnserver.toml:17:10: listen in [metrics]: /run/metrics.sock: the service cannot write there: ProtectSystem= makes it \
         read-only for it; use /run/turnstone, or run: systemctl edit turnstone, and add [Service] ReadWritePaths=/run",
        "turnserver.toml:21:8: file in [usage]: /srv/usage.jsonl: the service cannot write there: ProtectSystem=",
    ] {
        assert!(ran.out.contains(&format!("error    service: {words}")), "no {words:?} in {}", ran.out);
    }
    assert!(!ran.out.contains("admin.sock") && !ran.out.contains("spool"), "{}", ran.out);
    // A drop-in that lets it through: now the user's own rights are what is in the way.
    let ran = place.run(&["check", "--unit", &unit(&place, "ReadWritePaths=/srv")]);
    assert!(
        ran.out.contains("/srv/usage.jsonl: permission denied: user nobody may make no file in /srv; run: chown"),
        "{}",
        ran.out
    );
}

#[test]
fn credentials_and_low_ports_are_those_of_the_unit() {
    let place = Place::new();
    set_folder(&place, 0o755);
    let text = "[[listen]]\naddress = \"127.0.0.1:443\"\ntransport = \"udp\"\n[relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\n\
                [[auth.secrets]]\nid = \"a\"\ncredential = \"main\"\nfile = \"secret\"\n";
    place.file("turnserver.toml", text, 0o644);
    let loads = |name: &str, path: &str| unit(&place, &format!("AmbientCapabilities=\nLoadCredential={name}:{path}"));
    let secret = place.path("secret").display().to_string();
    let ran = place.run(&["check", "--unit", &loads("other", &secret)]);
    let words = "turnserver.toml:10:8: file in [[auth.secrets]]: the unit hands over no credential main; run: systemctl edit turnstone";
    assert!(ran.code == 2 && ran.out.contains(words), "{}", ran.out);
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim() == "1024" {
        assert!(
            ran.out.contains("listener udp 127.0.0.1:443: ports below 1024 need CAP_NET_BIND_SERVICE"),
            "{}",
            ran.out
        );
    }
    // The manager reads it as root: its mode is as it should be.
    let ran = place.run(&["check", "--unit", &loads("main", &secret)]);
    assert!(!ran.out.contains("secret: permission denied"), "{}", ran.out);
    if is_root() {
        let ran = place.run(&["check", "--unit", &loads("main", "/nowhere/secret")]);
        assert!(ran.out.contains("LoadCredential=main:/nowhere/secret: there is no such file"), "{}", ran.out);
    }
}

#[test]
fn a_configuration_that_will_be_moved_is_judged_without_what_is_beside_it() {
    let place = Place::new();
    place.append("[usage]\nfile = \"/nowhere/usage.jsonl\"\n");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/turnstone.service");
    let ran = place.run(&["check", "--unit", shipped, "--user", "nobody"]);
    assert!(ran.out.contains("which reads /etc/turnstone/turnserver.toml: what is beside this file"), "{}", ran.out);
    assert!(!ran.out.contains("secret: permission denied"), "{}", ran.out);
    assert!(ran.out.contains("/nowhere/usage.jsonl: the service cannot write there"), "{}", ran.out);
}

#[test]
fn too_few_descriptors_for_the_port_range_are_warned_about() {
    let place = Place::new();
    // The shell lowers the limit for the one command.
    let mut command = assert_cmd::Command::new("sh");
    let script = format!("ulimit -n 300; exec {} check --config turnserver.toml", env!("CARGO_BIN_EXE_turnstone"));
    let ran = ran(command.args(["-c", &script]).current_dir(place.path("")).env_clear());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let line = "warning  descriptors: 100 relays and 10000 connections may need 10356 descriptors, but this process may have 300";
    assert!(ran.out.contains(line), "{}", ran.out);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let place = Place::new();
    for command in ["serve", "check"] {
        let ran = ran(&mut place.command(&[command, "--config", "nowhere.toml"]));
        assert_eq!(ran.code, 2);
        let all = ran.out + &ran.err;
        assert!(all.contains("nowhere.toml: cannot read the file: no such file or directory"), "{all}");
    }
    place.file("big.toml", &"#".repeat(2 << 20), 0o600);
    let big = ran(&mut place.command(&["config", "show", "--config", "big.toml"]));
    assert_eq!((big.code, big.err.as_str()), (2, "big.toml: the file is larger than 1 MiB\n"));
}

#[test]
fn the_effective_configuration_shows_what_won_and_no_secret() {
    let place = Place::new();
    let mut command = place.command(&["config", "show", "--config", "turnserver.toml", "--workers", "3"]);
    let shown = ran(command.env("TURNSTONE_REALM", "by.variable").env("TURNSTONE_WORKERS", "5")).ok();
    for line in ["workers = 3", "realm = \"by.variable\"", "ports = \"50000-50099\"", "external-ip = [\"203.0.113.5\"]"]
    {
        assert!(shown.lines().any(|found| found == line), "lacks {line}:\n{shown}");
    }
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn the_configuration_may_be_named_by_a_variable() {
    let place = Place::new();
    let out = ran(place.command(&["config", "show"]).env("TURNSTONE_CONFIG", "turnserver.toml")).ok();
    assert!(out.contains("ports = \"50000-50099\""), "{out}");
}
