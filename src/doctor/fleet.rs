//! The other nodes of `[fleet]`: whether each can be asked, and whether all of them agree on what they have to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::finding;
use crate::client::tls::Roots;
use crate::config::{FleetConfig, NodeSource, NodeUrl};
use crate::fleet::{Heard, Probed, probe};
use crate::probe::{Status, Step};

/// Nonces of other nodes are taken with clocks that are this far apart; beyond, clients are told to try again.
const AHEAD_SECS_MAX: u64 = 5;

/// Judges what can be judged without asking anybody.
pub fn judge_files(fleet: &FleetConfig) -> Vec<Step> {
    let is_tls = |node: &NodeSource| !matches!(node, NodeSource::Url(NodeUrl::Http { .. } | NodeUrl::Unix(_)));
    if fleet.nodes.iter().any(is_tls)
        && let Err(error) = fleet.ca.clone().map_or(Roots::System, Roots::File).read()
    {
        let message = format!("no node can be asked by HTTPS: {error}; name the authority as ca in [fleet]");
        return vec![finding("fleet", Status::Fail, message)];
    }
    let listen = fleet.listen.as_ref().map_or_else(String::new, |listen| format!(", asked itself at {listen}"));
    let nodes: Vec<_> = fleet.nodes.iter().map(ToString::to_string).collect();
    vec![finding("fleet", Status::Ok, format!("nodes: {}{listen}", shown(&nodes)))]
}

/// Asks all of them. `host` is what this node is called if nobody says.
pub(super) fn judge(fleet: &FleetConfig, host: &str, timeout: Duration) -> Vec<Step> {
    if fleet.nodes.is_empty() {
        return Vec::new();
    }
    match probe(fleet, timeout) {
        Ok(probed) => judge_probed(&probed, fleet.name.as_deref().unwrap_or(host)),
        Err(error) => vec![finding("fleet", Status::Warn, format!("the nodes cannot be asked: {error}"))],
    }
}

fn judge_probed(probed: &[Probed], own_name: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut warn = |message| steps.push(finding("fleet", Status::Warn, message));
    let heard: Vec<(&str, &Heard)> =
        probed.iter().filter_map(|node| Some((node.url.as_str(), node.answer.as_ref().ok()?))).collect();
    for (url, Heard { report, ahead_secs, .. }) in &heard {
        let name = &report.name;
        if let Some(ahead) = ahead_secs.filter(|ahead| ahead.unsigned_abs() > AHEAD_SECS_MAX) {
            let (secs, how) = (ahead.unsigned_abs(), if ahead > 0 { "ahead of" } else { "behind" });
            warn(format!(
                "the clock of {name} ({url}) is {secs} s {how} that of this host: credentials expire early or late at one of them, and clients \
                 are asked again when they change nodes; see timedatectl on both"
            ));
        }
        if !report.problems.is_empty() {
            warn(format!("{name} ({url}) says: {}", report.problems.join("; ")));
        }
    }
    // Two URLs may lead to one node.
    let mut by_name: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for (url, Heard { report, .. }) in &heard {
        by_name.entry(&report.name).or_default().insert(&report.instance, url);
    }
    for (name, nodes) in by_name.iter().filter(|(_, nodes)| nodes.len() > 1) {
        let urls: Vec<_> = nodes.values().copied().collect();
        warn(format!(
            "{} nodes are called {name}: {}; give each a name of its own in [fleet]",
            nodes.len(),
            shown(&urls)
        ));
    }
    for Probed { url, answer } in probed {
        if let Err(failure) = answer {
            let status = if failure.is_mistake { Status::Fail } else { Status::Warn };
            steps.push(finding("fleet", status, format!("{url}: {}", failure.problem)));
        }
    }
    let versions: BTreeSet<&str> = heard.iter().map(|(_, heard)| heard.report.version.as_str()).collect();
    if versions.len() > 1 {
        let versions: Vec<_> = versions.into_iter().collect();
        let message = format!(
            "there are versions {}; that is well while you upgrade one node after the other: turnstone status --all says which has which",
            shown(&versions)
        );
        steps.push(finding("fleet", Status::Note, message));
    }
    if heard.len() == probed.len() && !by_name.contains_key(own_name) {
        let message = format!(
            "no node in the list is called {own_name}, as this one is: turnstone status --all leaves this one out here; if the list is the \
             same on every node, no other one knows of it either"
        );
        steps.push(finding("fleet", Status::Note, message));
    }
    if !heard.is_empty() {
        let names: Vec<_> = heard.iter().map(|(_, heard)| heard.report.name.as_str()).collect();
        let slowest = heard.iter().map(|(_, heard)| heard.took).max().unwrap_or_default();
        let message = format!(
            "{} of {} nodes answer and take the token, the slowest in {:.1} ms: {}",
            heard.len(),
            probed.len(),
            slowest.as_secs_f64() * 1e3,
            shown(&names)
        );
        steps.push(finding("fleet", Status::Ok, message));
    }
    steps
}

/// The first of a list, and how many more there are.
fn shown<T: AsRef<str>>(list: &[T]) -> String {
    const SHOWN_MAX: usize = 8;
    let first: Vec<_> = list.iter().take(SHOWN_MAX).map(AsRef::as_ref).collect();
    match list.len().checked_sub(SHOWN_MAX) {
        Some(more @ 1..) => format!("{} and {more} more", first.join(", ")),
        _ => first.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;
    use crate::fleet::{NodeReport, ProbeFailure};

    fn heard(url: &str, change: impl FnOnce(&mut serde_json::Value), ahead_secs: i64) -> Probed {
        let mut report = serde_json::json!({
            "name": "turn1", "version": "0.1.0", "instance": url, "started_unix": 1, "state": "serving", "ready": true, "sessions": 0,
            "bytes_per_sec": 0, "refused_last_minute": 0, "load_percent": null, "room": false, "clients": [], "problems": [],
        });
        change(&mut report);
        let report = NodeReport::read(report.to_string().as_bytes()).unwrap();
        let heard = Heard { report, took: Duration::from_millis(3), ahead_secs: Some(ahead_secs) };
        Probed { url: url.to_owned(), answer: Ok(heard) }
    }

    fn named(url: &str, name: &str) -> Probed {
        heard(url, |report| report["name"] = name.into(), 0)
    }

    fn judged(probed: &[Probed]) -> Vec<(Status, String)> {
        judge_probed(probed, "turn1").into_iter().map(|step| (step.status, step.message)).collect()
    }

    #[test]
    fn nodes_that_agree_are_one_line() {
        let all = judged(&[named("https://a", "turn1"), named("https://b", "turn2")]);
        let [(Status::Ok, told)] = &all[..] else { panic!("{all:?}") };
        assert!(told.contains("2 of 2") && told.contains("turn1, turn2") && told.contains("3.0 ms"), "{told}");
        let without = judged(&[named("https://b", "turn2")]);
        assert!(
            matches!(&without[..], [(Status::Note, told), (Status::Ok, _)] if told.contains("leaves this one out"))
        );
    }

    #[test]
    fn clocks_names_versions_and_problems_that_differ_are_told() {
        let all = judged(&[
            named("https://a", "turn1"),
            heard("https://b", |report| report["version"] = "0.2.0".into(), 60),
            heard("https://c", |report| report["problems"] = serde_json::json!(["the store: lost"]), -6),
        ]);
        for (status, part) in [
            (Status::Warn, "(https://b) is 60 s ahead of"),
            (Status::Warn, "(https://c) is 6 s behind"),
            (Status::Warn, "says: the store: lost"),
            (Status::Warn, "3 nodes are called turn1: https://a, https://b, https://c"),
            (Status::Note, "versions 0.1.0, 0.2.0"),
        ] {
            assert!(all.iter().any(|(of, told)| *of == status && told.contains(part)), "{part}: {all:?}");
        }
        let near = judged(&[heard("https://a", |_| {}, 5), named("https://b", "turn2")]);
        assert_eq!(near.len(), 1, "{near:?}");
    }

    #[test]
    fn what_is_a_mistake_fails_and_a_node_that_is_away_is_warned_of() {
        let silent = |is_mistake| Probed {
            url: "https://b".to_owned(),
            answer: Err(ProbeFailure { problem: "it refuses".to_owned(), is_mistake }),
        };
        for (is_mistake, status) in [(true, Status::Fail), (false, Status::Warn)] {
            let all = judged(&[named("https://a", "turn1"), silent(is_mistake)]);
            assert!(all.contains(&(status, "https://b: it refuses".to_owned())), "{all:?}");
            assert!(all.last().is_some_and(|(_, told)| told.starts_with("1 of 2")), "{all:?}");
        }
    }

    #[test]
    fn an_authority_that_cannot_be_read_is_told_before_anybody_is_asked() {
        let of = |text: &str| {
            let text = format!("[relay]\nipv4 = \"5.44.1.1\"\n[fleet]\ntoken = \"0123456789abcdef\"\n{text}");
            judge_files(&config(&text).fleet.unwrap()).remove(0)
        };
        let step = of("nodes = [\"https://a.example\"]\nca = \"/nowhere/ca.pem\"\n");
        assert!(step.status == Status::Fail && step.message.contains("/nowhere/ca.pem"), "{}", step.message);
        // Nobody is asked by TLS.
        assert_eq!(of("nodes = [\"http://127.0.0.1:1\"]\nca = \"/nowhere/ca.pem\"\n").status, Status::Ok);
    }
}
