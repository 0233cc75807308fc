//! All nodes of the fleet, for the page of one of them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::api::Api;
use super::error::Refused;
use super::input::Query;
use super::node;
use super::sessions;
use crate::fleet::{NodeReport, Samples, told_apart};
use crate::ops::fleet::{Fleet, Seen};
use crate::ops::history::{INTERVAL, SAMPLES_MAX};

pub(super) const SESSION_KEYS: &[&str] = &["user", "realm", "client", "peer", "relayed", "transport", "limit"];

/// A search of all nodes, all of it.
const SEARCH_LIMIT: Duration = Duration::from_secs(3);
const FOUND_DEFAULT: usize = 100;
const FOUND_MAX: usize = 500;
/// What an answer may have: so much for each session that is asked for, and something besides.
const SESSION_BYTES_MAX: usize = 2 * 1024;
const PAGE_BYTES_MAX: usize = 64 * 1024;
/// Nodes with a line of their own in a plot; more cannot be told apart.
const LINES_MAX: usize = 6;

/// Where it is asked, of this node where it is not in its own list.
const THIS: &str = "this node";

/// A node, for what is made of all.
struct Shown {
    value: Value,
    url: String,
    name: String,
    sessions: u64,
    bytes_per_sec: u64,
    refused: u64,
    redirected: u64,
    answers: bool,
    samples: Option<(Samples, Duration)>,
}

/// `GET /v1/fleet`
pub(super) async fn show(api: &Api) -> Result<Value, Refused> {
    let fleet = of(api)?;
    fleet.watch().await;
    let mut shown: Vec<Shown> = Vec::new();
    let mut has_self = false;
    for node in fleet.nodes() {
        let seen = node.seen();
        let is_self = seen.report.as_ref().is_some_and(|(report, _)| fleet.is_self(report));
        // Two URLs may lead to one node.
        if is_self && std::mem::replace(&mut has_self, true) {
            continue;
        }
        shown.push(Shown::of(&node.asker.url().to_string(), is_self, seen));
    }
    if !has_self {
        shown.insert(0, Shown::own(api));
    }
    let names = told_apart(shown.iter().map(|node| (node.name.as_str(), node.url.as_str())));
    for (node, name) in shown.iter_mut().zip(names) {
        node.name = name;
    }
    let answering = || shown.iter().filter(|node| node.answers);
    let sum = |of: fn(&Shown) -> u64| answering().map(of).fold(0, u64::saturating_add);
    let sums = json!({
        "nodes": shown.len(),
        "answering": answering().count(),
        "sessions": sum(|node| node.sessions),
        "bytes_per_sec": sum(|node| node.bytes_per_sec),
        "refused_last_minute": sum(|node| node.refused),
        "redirected_last_minute": sum(|node| node.redirected),
    });
    let unnamed = fleet.unnamed();
    let unnamed = unnamed.iter().map(|(name, problem)| json!({ "name": name, "problem": problem }));
    Ok(json!({
        "sums": sums,
        "unnamed": unnamed.collect::<Vec<_>>(),
        "interval_secs": INTERVAL.as_secs(),
        "series": series(&shown),
        "nodes": shown.into_iter().map(|node| node.value).collect::<Vec<_>>(),
    }))
}

/// `GET /v1/fleet/sessions`: what every node finds, and those that have not answered.
pub(super) async fn search(api: &Api, query: &Query) -> Result<Value, Refused> {
    let fleet = of(api)?;
    let limit = query.limit(FOUND_DEFAULT, FOUND_MAX)?;
    // A filter that is none is told before anybody is asked.
    let mut found = Vec::new();
    let own = sessions::page(api, query, |page| serde_json::from_value(page).unwrap_or_default()).await?;
    let own_name = node::report(api).name;
    let names = names(fleet, &own_name);
    let name_of = |url: &str| names.get(url).cloned();
    let own_name = name_of("").unwrap_or(own_name);
    let mut has_more = take(&mut found, own, &own_name, true, limit);
    let bytes_max = PAGE_BYTES_MAX + limit * SESSION_BYTES_MAX;
    let mut failures = Vec::new();
    let target = format!("/v1/sessions?{}", query.encoded());
    let mut asked = JoinSet::new();
    let mut silent: Vec<String> = Vec::new();
    for node in fleet.nodes() {
        let url = node.asker.url().to_string();
        let report = node.seen().report.map(|(report, _)| report);
        if report.as_ref().is_some_and(|report| fleet.is_self(report)) {
            continue;
        }
        let (places, target) = (fleet.search_places(), target.clone());
        silent.push(url.clone());
        asked.spawn(async move {
            let Ok(_place) = places.acquire_owned().await else { return (node, url, None) };
            let answer = node.asker.json_within(&target, bytes_max, SEARCH_LIMIT).await;
            (node, url, Some(answer.map_err(|error| error.told())))
        });
    }
    let all = async {
        while let Some(answer) = asked.join_next().await {
            let Ok((node, url, Some(answer))) = answer else { continue };
            silent.retain(|silent| *silent != url);
            match answer {
                Ok(page) => {
                    let report = node.seen().report;
                    let is_self = report.as_ref().is_some_and(|(report, _)| fleet.is_self(report));
                    let name = name_of(&url).unwrap_or_else(|| url.clone());
                    if !is_self {
                        has_more |= take(&mut found, page, &name, false, limit);
                    }
                }
                Err(problem) => failures.push(json!({ "node": url, "problem": problem })),
            }
        }
    };
    let _ = timeout(SEARCH_LIMIT, all).await;
    let late = format!("no answer within {} s", SEARCH_LIMIT.as_secs());
    failures.extend(silent.into_iter().map(|url| json!({ "node": url, "problem": late })));
    Ok(json!({ "sessions": found, "more": has_more, "failures": failures }))
}

/// What each of the other nodes is called, by its URL, and this one by none.
fn names(fleet: &Fleet, own: &str) -> HashMap<String, String> {
    let others = fleet.nodes().into_iter().filter_map(|node| {
        let (report, _) = node.seen().report.filter(|(report, _)| !fleet.is_self(report))?;
        Some((report.name.clone(), node.asker.url().to_string()))
    });
    let all: Vec<_> = others.chain([(own.to_owned(), String::new())]).collect();
    let shown = told_apart(all.iter().map(|(name, url)| (name.as_str(), if url.is_empty() { THIS } else { url })));
    all.into_iter().map(|(_, url)| url).zip(shown).collect()
}

fn of(api: &Api) -> Result<&Arc<Fleet>, Refused> {
    api.fleet.as_ref().ok_or_else(|| Refused::not_found("this server has no [fleet]"))
}

/// A page of sessions, as far as it is shown. What else is in an answer costs no memory.
#[derive(Default, Deserialize)]
struct Page {
    sessions: Vec<Session>,
    next_cursor: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Session {
    id: String,
    transport: String,
    client: String,
    user: String,
    username: String,
    realm: Option<String>,
    relayed: Vec<Relayed>,
    age_secs: u64,
    to_peers: Traffic,
    to_client: Traffic,
}

#[derive(Deserialize)]
struct Relayed {
    address: String,
}

#[derive(Deserialize)]
struct Traffic {
    bytes: u64,
}

/// Takes the sessions of a page, as far as there is room. Returns whether there are more.
fn take(found: &mut Vec<Value>, page: Page, node: &str, is_self: bool, limit: usize) -> bool {
    let room = limit.saturating_sub(found.len());
    found.extend(page.sessions.iter().map(|session| fields(session, node, is_self)).take(room));
    page.next_cursor.is_some() || page.sessions.len() > room
}

/// What is shown of a session that another node tells of.
fn fields(session: &Session, node: &str, is_self: bool) -> Value {
    let text = |text: &str| text.chars().take(520).collect::<String>();
    json!({
        "node": node,
        "is_self": is_self,
        "id": text(&session.id),
        "transport": text(&session.transport),
        "client": text(&session.client),
        "user": text(&session.user),
        "username": text(&session.username),
        "realm": session.realm.as_deref().map(text),
        "relayed": session.relayed.iter().take(2).map(|relayed| text(&relayed.address)).collect::<Vec<_>>(),
        "age_secs": session.age_secs,
        "to_peers_bytes": session.to_peers.bytes,
        "to_client_bytes": session.to_client.bytes,
    })
}

impl Shown {
    fn of(url: &str, is_self: bool, seen: Seen) -> Self {
        let Seen { report, samples, failure, .. } = seen;
        let (report, at) = report.unzip();
        let age = at.map(|at: Instant| at.elapsed());
        let answers = report.is_some() && failure.is_none();
        let name = report.as_ref().map_or_else(|| url.to_owned(), |report| report.name.clone());
        let samples = samples.and_then(|(report, at)| Some((report.samples.clone()?, at.elapsed())));
        Self {
            value: json!({
                "url": url,
                "is_self": is_self,
                "name": name,
                "failure": failure,
                "age_secs": age.map(|age| age.as_secs()),
                "report": report.as_deref().map(glance),
            }),
            sessions: report.as_ref().map_or(0, |report| report.sessions),
            bytes_per_sec: report.as_ref().map_or(0, |report| report.bytes_per_sec),
            refused: report.as_ref().map_or(0, |report| report.refused_last_minute),
            redirected: report.as_ref().map_or(0, |report| report.redirected_last_minute),
            url: url.to_owned(),
            name,
            answers,
            samples,
        }
    }

    /// This node, where it is not among those that it asks, or does not reach itself.
    fn own(api: &Api) -> Self {
        let now = Instant::now();
        let report = NodeReport { samples: api.history.as_ref().map(|history| history.samples()), ..node::report(api) };
        let report = Some((Arc::new(report), now));
        let seen = Seen { samples: report.clone(), report, ..Seen::default() };
        Self::of(THIS, true, seen)
    }
}

fn glance(report: &NodeReport) -> Value {
    json!({
        "version": report.version,
        "started_unix": report.started_unix,
        "state": report.state,
        "ready": report.ready,
        "sessions": report.sessions,
        "bytes_per_sec": report.bytes_per_sec,
        "refused_last_minute": report.refused_last_minute,
        "redirected_last_minute": report.redirected_last_minute,
        "load_percent": report.load_percent,
        "problems": report.problems,
    })
}

/// The last minutes: of all together, and of those with most sessions each. What is not known of an interval is null.
fn series(shown: &[Shown]) -> Value {
    let known = shown.iter().filter(|node| node.samples.is_some());
    let mut lines: Vec<_> = known.enumerate().map(|(at, node)| (at, node, Line::of(node.samples.as_ref()))).collect();
    let sum = lines.iter().fold(Line::default(), |sum, (_, _, line)| sum.plus(line));
    let left_out = lines.len().saturating_sub(LINES_MAX);
    lines.sort_by_key(|(at, node, _)| (Reverse(node.sessions), *at));
    lines.truncate(LINES_MAX);
    // In an order that does not change with the figures.
    lines.sort_by_key(|(at, ..)| *at);
    let of_nodes = lines.iter().map(|(_, node, line)| line.shown(&node.name));
    json!({ "sum": sum.shown("all nodes"), "nodes": of_nodes.collect::<Vec<_>>(), "left_out": left_out })
}

/// The figures of the last intervals, the oldest first, aligned at now.
struct Line([Vec<Option<u64>>; 3]);

impl Default for Line {
    fn default() -> Self {
        Self(std::array::from_fn(|_| vec![None; SAMPLES_MAX]))
    }
}

impl Line {
    fn of(samples: Option<&(Samples, Duration)>) -> Self {
        let mut line = Self::default();
        let Some((samples, age)) = samples.filter(|(samples, _)| samples.interval_secs == INTERVAL.as_secs()) else {
            return line;
        };
        let late = usize::try_from(age.as_secs() / INTERVAL.as_secs()).unwrap_or(SAMPLES_MAX);
        for (places, figures) in line.0.iter_mut().zip([&samples.sessions, &samples.bytes_per_sec, &samples.refused]) {
            for (place, figure) in places.iter_mut().rev().skip(late).zip(figures.iter().rev()) {
                *place = Some(*figure);
            }
        }
        line
    }

    fn plus(mut self, other: &Self) -> Self {
        for (sums, others) in self.0.iter_mut().zip(&other.0) {
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum = sum.map_or(*other, |sum| Some(sum.saturating_add(other.unwrap_or(0))));
            }
        }
        self
    }

    fn shown(&self, name: &str) -> Value {
        let [sessions, bytes_per_sec, refused] = &self.0;
        json!({ "name": name, "sessions": sessions, "bytes_per_sec": bytes_per_sec, "refused": refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(figures: &[u64], age_secs: u64) -> (Samples, Duration) {
        let list = figures.to_vec();
        let samples = Samples {
            interval_secs: INTERVAL.as_secs(),
            sessions: list.clone(),
            bytes_per_sec: list.clone(),
            refused: list,
        };
        (samples, Duration::from_secs(age_secs))
    }

    fn tail(line: &Line) -> &[Option<u64>] {
        &line.0[0][SAMPLES_MAX - 4..]
    }

    #[test]
    fn lines_are_aligned_at_now_and_a_node_that_is_silent_leaves_a_gap() {
        let one = Line::of(Some(&samples(&[1, 2, 3], 0)));
        let silent = Line::of(Some(&samples(&[10, 20, 30], 2 * INTERVAL.as_secs())));
        assert_eq!(tail(&one), [None, Some(1), Some(2), Some(3)]);
        assert_eq!(tail(&silent), [Some(20), Some(30), None, None]);
        assert_eq!(tail(&one.plus(&silent)), [Some(20), Some(31), Some(2), Some(3)]);
        let long_ago = Line::of(Some(&samples(&[1], u64::MAX / 2)));
        assert!(long_ago.0.iter().flatten().all(Option::is_none));
    }

    #[test]
    fn what_another_node_says_of_a_session_is_shown_as_far_as_it_is_one() {
        let good = json!({
            "id": "a", "transport": "udp", "client": "c", "user": "u", "username": "u", "realm": null,
            "relayed": [{ "address": "r" }], "age_secs": 1, "to_peers": { "bytes": 1 }, "to_client": { "bytes": 2 },
            "more": "x",
        });
        let page = |sessions: &Value, next: Value| {
            json!({ "sessions": sessions, "next_cursor": next, "more": [{}] }).to_string()
        };
        let mut found = Vec::new();
        let mut taken = |page: String, limit| {
            serde_json::from_str(&page).map(|page| (take(&mut found, page, "n", false, limit), found.len())).ok()
        };
        let two = json!([good, good]);
        assert_eq!(taken(page(&two, Value::Null), 100), Some((false, 2)));
        assert_eq!(taken(page(&two, Value::Null), 3), Some((true, 3)));
        assert_eq!(taken(page(&json!([]), json!("x")), 3), Some((true, 3)));
        for bad in [json!([good, { "id": {} }]), json!([{}]), json!([7]), json!("x")] {
            assert_eq!(taken(page(&bad, Value::Null), 100), None, "{bad}: nothing of it is kept");
        }
        assert!(found[0].get("more").is_none() && found[0]["node"] == "n");
    }
}
