//! The metrics in the two formats that scrapers ask for, held against the rules of each.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::support::{TestServer, run_with_input};
use crate::{LIMIT, Scrape, config, endpoint, http};

/// What Prometheus 2.42 sends.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;q=0.75,application/openmetrics-text;version=0.0.1;q=0.5,\
                          text/plain;version=0.0.4;q=0.25,*/*;q=0.1";

/// Content type and body.
fn metrics(server: &TestServer, accept: &str) -> (String, String) {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    let (status, response) = http(&endpoint(server), &request);
    assert_eq!(status, 200, "{response}");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
    (content_type.to_owned(), body.to_owned())
}

/// One family: its type, whether it has a help text, and the names of its samples.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    samples: BTreeSet<String>,
}

/// Reads an exposition strictly: each family once, HELP and TYPE before its samples, no sample of nobody's, none twice.
fn families(exposition: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    let (mut current, mut seen) = (String::new(), BTreeSet::new());
    for line in exposition.lines() {
        if let Some(comment) = line.strip_prefix("# ").filter(|comment| *comment != "EOF") {
            let [what, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            if name != current {
                assert!(!families.contains_key(name), "{name} comes twice");
                name.clone_into(&mut current);
            }
            let family = families.entry(current.clone()).or_default();
            assert!(family.samples.is_empty(), "{line} comes after its samples");
            let text = match what {
                "HELP" => &mut family.help,
                "TYPE" => &mut family.kind,
                other => panic!("{other} in {line}"),
            };
            assert!(text.is_empty() && !rest.is_empty(), "{line}");
            rest.clone_into(text);
        } else if line != "# EOF" {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(seen.insert(series), "{series} comes twice");
            let name = series.split('{').next().unwrap();
            assert!(name.starts_with(&current), "{line} is below {current}");
            families.get_mut(&current).unwrap().samples.insert(name.to_owned());
        }
    }
    families
}

#[test]
fn prometheus_gets_open_metrics_and_whoever_asks_for_text_gets_the_text_format() {
    let server = TestServer::start(&config(""));
    let (kind, open_metrics) = metrics(&server, PROMETHEUS);
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open_metrics.ends_with("\n# EOF\n") && open_metrics.matches("# EOF").count() == 1);
    let text_kind = "text/plain; version=0.0.4; charset=utf-8";
    let (kind, text) = metrics(&server, "text/plain; version=0.0.4");
    assert_eq!(kind, text_kind);
    assert!(!text.contains("# EOF") && text.ends_with('\n'));
    assert_eq!(metrics(&server, "*/*").0, text_kind);

    // The same samples in both, each family described, and counters named as each format wants it.
    let names = |exposition: &str| Scrape::read(exposition).0.into_keys().collect::<Vec<_>>();
    assert_eq!(names(&text), names(&open_metrics));
    let (text, open_metrics) = (families(&text), families(&open_metrics));
    assert_eq!(text.len(), open_metrics.len());
    for (name, family) in &text {
        assert!(!family.help.is_empty() && !family.help.contains(['"', '\\']), "{name}: {:?}", family.help);
        let samples: Vec<&str> = family.samples.iter().map(String::as_str).collect();
        let of_open_metrics = match family.kind.as_str() {
            "counter" => {
                assert!(name.ends_with("_total"), "{name}");
                assert_eq!(samples, [name]);
                name.trim_end_matches("_total")
            }
            "gauge" => {
                assert_eq!(samples, [name]);
                name
            }
            "histogram" => {
                let expected = ["bucket", "count", "sum"].map(|suffix| format!("{name}_{suffix}"));
                assert_eq!(samples, expected);
                name
            }
            other => panic!("{name} is a {other}"),
        };
        let twin = &open_metrics[of_open_metrics];
        assert_eq!((&twin.kind, &twin.help, &twin.samples), (&family.kind, &family.help, &family.samples), "{name}");
    }
    assert!(text.values().filter(|family| family.kind == "counter").count() > 15);
}

#[test]
fn promtool_finds_nothing_wrong_where_it_is_installed() {
    let server = TestServer::start(&config(""));
    let (_, text) = metrics(&server, "text/plain");
    let Some(promtool) = crate::alerts::promtool() else { return };
    let finished = run_with_input(Command::new(promtool).args(["check", "metrics"]), &text, LIMIT);
    assert_eq!((finished.code, finished.all_output().trim()), (Some(0), ""), "{text}");
}
