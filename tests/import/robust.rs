//! Whatever text comes in, a valid configuration comes out, and every finding is one printable line.

use proptest::prelude::*;
use turnstone::import::{Spot, directives, import, import_coturn};

use super::parse;

fn must_hold(text: &str) {
    let imported = import_coturn(text, &[]);
    // A relay that is off needs another; everything else is for the converter to get right.
    // And so does an alternate server that is this very host, which the converter does not know.
    if let Err(error) = parse(&imported.toml)
        && !error.to_string().contains("is this server itself")
    {
        panic!("{error}\n{}\n{text:?}", &*imported.toml);
    }
    let lines = text.split('\n').count();
    for finding in &imported.findings {
        let is_there = |spot| matches!(spot, Spot::Line(line) if (1..=lines).contains(&line));
        assert!(finding.spot.is_none_or(is_there), "{finding:?}");
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
        // Not 2a00:1::1, which is the host's: `import` knows no host, and nobody may send clients to himself.
        "2a00:1::2",
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

fn option() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "listen",
        "realm",
        "secret",
        "credentials",
        "strict_expiry",
        "relay_ipv4_addr",
        "relay_ipv6_addr",
        "relay_min_port",
        "relay_max_port",
        "tls_crt_file",
        "tls_key_file",
        "blacklist_peers",
        "whitelist_peers",
        "max_allocations",
        "max_permissions",
        "max_bps",
        "software_name",
        "log_level",
        "modules",
        "other",
    ]);
    let values = prop::sample::select(vec![
        "",
        "0",
        "443",
        "3478",
        "70000",
        "\"::\"",
        "10.0.0.1",
        "203.0.113.7",
        "2001:db8::1",
        "true",
        "false",
        "unlimited",
        "[10.0.0.0/8, recommended]",
        "[\"::/0\", 0.0.0.0/0]",
        "a secret of some length",
        "{a: b, c: d}",
        "/x.pem",
        "*a",
        "[{ip: \"::\", port: 443, transport: tls}, {ip: 10.0.0.1, transport: auto}]",
        "\"\\u0007\"",
        "{mod_stats_prometheus: {}}",
        "{mod_stats_prometheus: {ip: 10.0.0.1, port: 3478}}",
        "[[[[]]]]",
        "debug",
    ]);
    (names, prop_oneof![values.prop_map(str::to_owned), "\\PC{0,20}"])
        .prop_map(|(name, value)| format!("  {name}: {value}\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_words_of_a_command_line_come_to_a_valid_configuration(
        words in prop::collection::vec(prop_oneof![line().prop_map(|line| format!("--{line}")), "-?[a-zA-Z]{0,3}\\PC{0,10}"], 0..10)
    ) {
        let imported = import_coturn("", &words);
        prop_assert!(parse(&imported.toml).is_ok(), "{:?}\n{}", words, &*imported.toml);
        for finding in &imported.findings {
            let is_there = |spot| matches!(spot, Spot::Argument(number) if (1..=words.len()).contains(&number));
            prop_assert!(finding.spot.is_none_or(is_there));
        }
    }

    #[test]
    fn any_options_of_eturnal_come_to_a_valid_configuration_or_an_error(options in prop::collection::vec(option(), 0..8)) {
        let text = format!("eturnal:\n{}", options.join(""));
        if let Ok(imported) = import(&text) {
            prop_assert!(parse(&imported.toml).is_ok(), "{}\n{}", text, &*imported.toml);
        }
    }

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
    let imported = import_coturn(&format!("realm={}\nuser=a:b\n", "x".repeat(1100)), &[]);
    assert!(imported.findings.iter().any(|finding| finding.spot == Some(Spot::Line(1))));
    must_hold(&format!("realm={}\n", "x".repeat(1100)));
}
