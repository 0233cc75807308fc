//! Whatever text comes in, a valid configuration comes out, and every finding is one printable line.

use proptest::prelude::*;
use turnstone::config::coturn::{directives, import};

use super::parse;

fn must_hold(text: &str) {
    let imported = import(text);
    // A relay that is off needs another; everything else is for the converter to get right.
    if let Err(error) = parse(&imported.toml) {
        panic!("{error}\n{}\n{text:?}", &*imported.toml);
    }
    let lines = text.split('\n').count();
    for finding in &imported.findings {
        assert!(finding.line.is_none_or(|line| (1..=lines).contains(&line)));
        let printed = format!("{}{}", finding.directive, finding.message);
        assert!(!finding.message.is_empty() && !printed.contains(char::is_control), "{finding:?}");
    }
}

fn line() -> impl Strategy<Value = String> {
    let values = prop::sample::select(vec![
        "",
        "0",
        "1",
        "443",
        "3478",
        "49152",
        "65535",
        "70000",
        "10.0.0.1",
        "0.0.0.0",
        "::",
        "::1",
        "2a00:1::1",
        "255.255.255.255",
        "10.0.0.1/10.0.0.2",
        "203.0.113.7/10.0.0.2",
        "0.0.0.0-255.255.255.255",
        "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "10.0.0.0-10.255.255.255",
        "10.0.0.0/8",
        "alice:password",
        "1:x",
        "a long enough secret",
        "\"quoted\"",
        "tab\tand \\",
        "'''",
        "on",
        "off",
        "/etc/x.pem",
        "10.0.0.1:3478",
        "[::1]:50000",
        "a # b",
        "ipv6",
    ]);
    let names = prop::sample::select(directives().collect::<Vec<_>>());
    (
        names,
        prop::sample::select(vec!["=", " ", "\t= ", "==", ""]),
        prop_oneof![values.prop_map(str::to_owned), "\\PC{0,30}"],
    )
        .prop_map(|(name, separator, value)| format!("{name}{separator}{value}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_directives_with_any_values_come_to_a_valid_configuration(lines in prop::collection::vec(line(), 0..12)) {
        must_hold(&lines.join("\n"));
    }

    #[test]
    fn any_text_comes_to_a_valid_configuration(text in "(\\PC|[\\x00-\\x20\"=#\\\\]){0,200}") {
        must_hold(&text);
    }
}

#[test]
fn a_line_that_coturn_would_cut_is_left_out_and_named() {
    let imported = import(&format!("realm={}\nuser=a:b\n", "x".repeat(1100)));
    assert_eq!(imported.findings[0].line, Some(1));
    must_hold(&format!("realm={}\n", "x".repeat(1100)));
}
