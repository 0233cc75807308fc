//! Help, the man page and completions come from one definition and leave nothing out.

use std::process::{Command, Stdio};

use turnstone::config::overridable;

use super::{Place, ran};

const COMMANDS: [&str; 23] = [
    "serve",
    "check",
    "doctor",
    "health",
    "credentials",
    "config",
    "import",
    "probe",
    "bench",
    "man",
    "completions",
    "status",
    "sessions",
    "store",
    "show",
    "kick",
    "top",
    "explain",
    "suspensions",
    "reload",
    "drain",
    "revoke",
    "log-level",
];

#[test]
fn the_variable_that_holds_the_secret_itself_is_in_the_help() {
    let place = Place::new();
    for command in ["serve", "check", "credentials"] {
        let out = ran(&mut place.command(&[command, "--help"])).ok();
        let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("the variable TURNSTONE_SECRET holds the secret itself"), "{out}");
        assert!(words.contains("[variable: TURNSTONE_SECRET_FILES_READABLE_BY]"), "{out}");
    }
}

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let place = Place::new();
    let help = ran(&mut place.command(&["--help"])).ok();
    for command in COMMANDS {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))), "{command}:\n{help}");
        let of_command = ran(&mut place.command(&[command, "--help"])).ok();
        assert!(of_command.contains(&format!("Usage: turnstone {command}")), "{of_command}");
    }
    let page = ran(&mut place.command(&["man"])).ok();
    for signal in ["TERM", "INT", "USR1", "USR2", "HUP"] {
        assert!(page.contains(&format!("\\fB{signal}\\fR\n")), "no {signal} in:\n{page}");
    }
    for code in ["  0  success", "  1  a check found", "  2  wrong usage", "  3  a failure"] {
        assert!(help.contains(code), "{help}");
    }
}

#[test]
fn serve_help_and_man_page_name_every_flag_and_variable() {
    let place = Place::new();
    let help = ran(&mut place.command(&["serve", "--help"])).ok();
    let page = ran(&mut place.command(&["man"])).ok().replace("\\-", "-");
    for overridable in overridable() {
        assert!(page.contains(overridable.env), "{} is not in the man page", overridable.env);
        if let Some(flag) = overridable.flag {
            assert!(help.contains(&format!("--{flag} <")), "--{flag} is not in the help");
            assert!(help.contains(overridable.env), "{} is not in the help", overridable.env);
        }
    }
    assert!(!help.contains("--secret "), "a secret may not be a flag: everybody can read a command line");
}

#[test]
fn the_man_page_has_its_sections_and_each_command_has_a_page() {
    let place = Place::new();
    let page = ran(&mut place.command(&["man"])).ok();
    let sections = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "COMMANDS",
        "ENVIRONMENT",
        "FILES",
        "SIGNALS",
        "\"EXIT STATUS\"",
    ];
    for section in sections {
        assert!(page.contains(&format!(".SH {section}\n")), "no {section}:\n{page}");
    }
    let serve = ran(&mut place.command(&["serve", "--help"])).ok();
    for signal in ["TERM", "INT", "USR1", "HUP", "USR2"] {
        assert!(page.contains(&format!("\\fB{signal}\\fR\n")) && serve.contains(signal), "{signal}:\n{page}");
    }
    for command in [&["serve"][..], &["credentials"], &["credentials", "verify"], &["config", "show"]] {
        let page = ran(place.command(&["man"]).args(command)).ok();
        let name = format!("turnstone\\-{}", command.join("\\-"));
        assert!(page.contains(&name), "no {name} in:\n{page}");
    }
    assert_eq!(ran(&mut place.command(&["man", "nothing"])).code, 2);
}

#[test]
fn every_command_has_one_line_in_the_overview() {
    let place = Place::new();
    let help = ran(&mut place.command(&["--help"])).ok();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for line in commands.lines() {
        let name = line.split_whitespace().next().unwrap();
        assert!(name == "help" || COMMANDS.contains(&name), "the line of another command goes on: {line}");
    }
}

#[test]
fn every_command_that_prints_prints_json_when_asked() {
    let place = Place::new();
    let quiet = ["serve", "import", "man", "completions", "config", "store"];
    let printing = COMMANDS.into_iter().filter(|command| !quiet.contains(command)).map(|command| vec![command]);
    for command in printing.chain([vec!["credentials", "verify"], vec!["config", "show"], vec!["store", "status"]]) {
        let help = ran(place.command(&command).arg("--help")).ok();
        assert!(help.contains("--json"), "{command:?}:\n{help}");
    }
}

#[test]
fn the_page_of_the_configuration_is_one_that_man_can_show() {
    let place = Place::new();
    let page = ran(&mut place.command(&["man", "turnserver.toml"])).ok();
    assert!(page.contains(".TH turnserver.toml 5") && page.contains(".SH [relay]"), "{page}");
    let path = place.file("turnserver.toml.5", &page, 0o644);
    // Where there is no man(1), the form has been looked at above.
    if let Ok(shown) = Command::new("man").args(["--warnings", "-E", "UTF-8", "-l"]).arg(&path).output() {
        let (out, err) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
        assert!(shown.status.success() && err.is_empty(), "{err}");
        assert!(out.contains("own-services = ") && out.contains("peers.own-services"), "{out}");
    }
}

#[test]
fn the_reference_says_what_a_key_a_table_a_variable_or_a_flag_is_without_a_configuration() {
    let place = Place::new();
    let said = |name: &str| ran(&mut place.command(&["config", "reference", name])).ok();
    let ports = said("relay.ports");
    assert!(ports.starts_with("relay.ports\n  Value: a range such as \"49152-65535\""), "{ports}");
    assert!(
        ports.contains("\n  Default: \"49152-65535\"\n  Change: takes a restart\n  Set by: --relay-ports RANGE"),
        "{ports}"
    );
    assert!(ports.contains("at most peers-per-allocation endpoints") && !ports.contains("](#"), "{ports}");
    assert!(ports.lines().all(|line| line.chars().count() <= 100), "{ports}");
    assert_eq!([said("TURNSTONE_RELAY_PORTS"), said("relay-ports")], [ports.clone(), ports.clone()]);
    // Several tables have such a key, and a table is said with all that is in it.
    assert!(said("ports").contains("nat-discovery.ports\n") && said("ports").contains(&ports));
    assert!(said("relay").starts_with("[relay]\n") && said("[relay]").contains(&ports));
    assert!(said("[[listen]]").contains("listen.web-proxy-header\n"));
    assert!(said("Top level").contains("workers\n  Value: "));
    for nothing in ["", "[]", "--", "of", "\u{1b}[31m"] {
        let ran = ran(&mut place.command(&["config", "reference", "--", nothing]));
        assert!(
            ran.code == 2 && ran.out.is_empty() && !ran.err.contains('\u{1b}'),
            "{nothing:?}: {} {}",
            ran.out,
            ran.err
        );
    }
    let all = ran(&mut place.command(&["config", "reference"])).ok();
    assert!(all.contains("  quota.allocations-total                          \"unlimited\"\n"), "{all}");
    let asked = |words: &[&str]| ran(&mut place.command(&[&["config", "reference"], words].concat())).ok();
    for (directive, first_line) in [
        ("denied-peer-ip", "denied-peer-ip is coturn's; here it is peers.denied\n\npeers.denied\n"),
        ("user-quota", "user-quota is coturn's; here it is quota.allocations-per-user\n"),
        ("max-bps", "max-bps is coturn's; here it is bandwidth.per-allocation\n"),
        ("no-loopback-peers", "no-loopback-peers is coturn's, and has no key here: loopback is always denied\n"),
        ("tls.cert", "nothing has the name \"tls.cert\"; it is in the name of:\n  tls.certificate "),
        ("user quota", "nothing has the name \"user quota\"; it is in the name of:\n"),
        ("loopback", "nothing has the name \"loopback\"; it is in what the reference says of:\n"),
    ] {
        let told = asked(&[directive]);
        assert!(told.starts_with(first_line), "{directive}: {told}");
    }
    assert_eq!(asked(&["user", "quota"]), asked(&["user quota"]));
    assert!(asked(&["user quota"]).contains("\n  quota.allocations-per-user "));
    assert!(asked(&["loopback"]).contains("\n  peers.allowed "), "{}", asked(&["loopback"]));
    assert!(asked(&["the"]).lines().last().unwrap().starts_with("and "));
    let nearly = ran(&mut place.command(&["config", "reference", "denied-peer-ipp"]));
    assert!(nearly.code == 2 && nearly.err.contains("(did you mean denied-peer-ip?)"), "{}", nearly.err);
    for nothing in ["", "!", "\u{1b}[31m"] {
        let ran = ran(&mut place.command(&["config", "reference", nothing]));
        assert!(ran.code == 2 && !ran.err.contains('\u{1b}'), "{nothing:?}: {}{}", ran.out, ran.err);
    }
    let wrong = ran(&mut place.command(&["config", "reference", "relay.prots"]));
    assert_eq!((wrong.code, wrong.out.as_str()), (2, ""));
    assert!(
        wrong.err.contains("\"relay.prots\" (did you mean relay.ports?); turnstone config reference lists"),
        "{}",
        wrong.err
    );
}

#[test]
fn completions_are_made_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ran(&mut place.command(&["completions", shell])).ok();
        for command in COMMANDS {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
}

#[test]
fn version_is_the_packages() {
    let place = Place::new();
    assert_eq!(ran(&mut place.command(&["--version"])).ok(), format!("turnstone {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_exits_with_2() {
    let place = Place::new();
    for args in [&["nothing"][..], &[], &["serve", "--nothing"], &["credentials"], &["completions", "tcsh"]] {
        let ran = ran(&mut place.command(args));
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.contains("Usage: turnstone") || ran.err.contains("try '--help'"), "{}", ran.err);
    }
}

#[test]
fn a_closed_pipe_is_quiet() {
    for args in [&["man"][..], &["completions", "bash"], &["--help"]] {
        // The reading end is closed before the command runs.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
        let output = command.args(args).env_clear().stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.stderr, b"", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}
