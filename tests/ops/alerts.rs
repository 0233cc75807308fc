//! The alert rules: Prometheus takes them, they ask for what the server exposes, and each fires for what it is meant for and for nothing else.
//!
//! `alerts.yml` beside this has the cases, for `promtool test rules`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::metrics::scrape_of_one_of_many;
use crate::support::{run, skipped};

const RULES: &str = include_str!("../../docs/alerts.yml");
const CASES: &str = include_str!("alerts.yml");
const LIMIT: Duration = Duration::from_secs(60);

/// The value of each line of a key, without its quotes.
fn values<'r>(key: &str, text: &'r str) -> Vec<&'r str> {
    text.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": ")).collect()
}

fn alerts() -> Vec<&'static str> {
    values("- alert", RULES)
}

pub(crate) fn promtool() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let promtool = std::env::split_paths(&path).map(|folder| folder.join("promtool")).find(|file| file.is_file());
    if promtool.is_none() {
        skipped("promtool is not installed (Debian package prometheus)");
    }
    promtool
}

#[test]
fn the_alert_rules_are_taken_and_each_fires_for_what_it_is_meant_for() {
    let unfired: Vec<_> =
        alerts().into_iter().filter(|name| !CASES.contains(&format!("alertname=\"{name}\""))).collect();
    assert!(unfired.is_empty(), "no case has {unfired:?}");
    let Some(promtool) = promtool() else { return };
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for arguments in [["check", "rules", "docs/alerts.yml"], ["test", "rules", "tests/ops/alerts.yml"]] {
        let finished = run(Command::new(&promtool).current_dir(top).args(arguments), LIMIT);
        assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    }
}

#[test]
fn prometheus_takes_every_query_of_the_dashboard() {
    let dashboard: serde_json::Value = serde_json::from_str(crate::metrics::DASHBOARD).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let rules: Vec<_> = targets
        .enumerate()
        .map(|(number, target)| {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$instance", ".*");
            assert!(!query.contains('$'), "{query}");
            serde_json::json!({ "record": format!("query_{number}"), "expr": query })
        })
        .collect();
    let Some(promtool) = promtool() else { return };
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(folder.path().join("rules.yml"), rules.to_string()).unwrap();
    let finished = run(Command::new(&promtool).current_dir(folder.path()).args(["check", "rules", "rules.yml"]), LIMIT);
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
}

#[test]
fn the_alert_rules_ask_for_metrics_and_labels_that_the_server_exposes() {
    let scrape = scrape_of_one_of_many();
    // What a rule asks for, and what is asked for in place of it in Prometheus itself.
    let mut asked = BTreeSet::new();
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    for name in ["turnstone_", "process_"] {
        for (at, _) in RULES.match_indices(name) {
            if RULES[..at].ends_with(is_name) {
                continue;
            }
            let metric = RULES[at..].split(|character| !is_name(character)).next().unwrap();
            let rest = &RULES[at + metric.len()..];
            let selector = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
            asked.insert((metric, selector));
        }
    }
    for (metric, selector) in &asked {
        let series: Vec<&String> = scrape.0.keys().filter(|series| series.split('{').next() == Some(metric)).collect();
        assert!(!series.is_empty(), "{metric} does not exist");
        for matcher in selector.split(',').filter(|matcher| !matcher.is_empty() && !matcher.starts_with("job=")) {
            let (label, values) = matcher.split_once('"').unwrap();
            let label = label.trim_end_matches(['=', '!', '~']);
            for value in values.trim_end_matches('"').split('|') {
                let there = series.iter().any(|series| series.contains(&format!("{label}=\"{value}\"")));
                assert!(there, "no series of {metric} has {label}=\"{value}\"");
            }
        }
    }
    assert!(asked.len() > 25, "{asked:?}");
}

#[test]
fn every_alert_says_what_to_do_and_whether_to_wake_somebody() {
    let count = alerts().len();
    assert!(count >= 36 && alerts().iter().collect::<BTreeSet<_>>().len() == count, "{count} alerts");
    let severities = values("labels", RULES);
    assert!(
        severities.iter().all(|labels| ["{severity: page}", "{severity: ticket}"].contains(labels)),
        "{severities:?}"
    );
    let (summaries, descriptions) = (values("summary", RULES), values("description", RULES));
    assert_eq!((severities.len(), summaries.len(), descriptions.len()), (count, count, count));
    for (name, description) in alerts().iter().zip(descriptions) {
        assert!(description.len() > 60, "{name}: {description}");
    }
}
