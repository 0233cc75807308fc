//! Reads `[hook]`.

use std::path::Path;

use super::access::parse_path;
use super::error::ValueError;
use super::hook::{HOOK_EVENTS, Hook, HookEvent, HookEvents, HookUrl};
use super::reader::{Document, Section, or_default};
use super::records::read_token;
use super::source::{Source, Surroundings};
use super::usage::WebhookUrl;
use super::value::choose;

const TOKEN_SOURCES: [&str; 4] = ["token-credential", "token-file", "token-env", "token"];

/// Whom to ask, and whom to tell.
pub(super) fn read_hook(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
) -> (Option<Hook>, Option<HookEvents>) {
    let section = root.section("hook");
    let url_of = |key| section.text(key, |text| parse_url(text, &source.directory));
    let (url, events_url) = (url_of("url"), url_of("events-url"));
    let events = section.texts("events", |text| choose(HOOK_EVENTS, text, "an event"));
    let (timeout, concurrency) = (or_default(section.duration("timeout")), or_default(section.number("concurrency")));
    let concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
    let (known_for, unknown_for) = (section.duration("known-for"), section.duration("unknown-for"));
    let token = read_token(document, &section, (source, around), (TOKEN_SOURCES, "the token in [hook]"));
    section.report_unknown_keys();
    let (has_url, has_events_url) = (section.has("url"), section.has("events-url"));
    if !has_url && !has_events_url {
        let given = TOKEN_SOURCES.iter().find(|key| section.has(key));
        if let Some(given) = given {
            section.problem(given, section.place(), "there is no url that it is for");
        }
        if section.has("events") {
            section.problem("events", section.place(), "there is no url, nor an events-url, that they are sent to");
        }
    }
    if has_events_url && events.is_empty() {
        let message = r#"nothing is sent to it; expected events as well, such as events = ["start", "stop"]"#;
        section.problem("events-url", section.place(), message);
    }
    let mut wanted: Vec<HookEvent> = Vec::new();
    for event in events {
        if !wanted.contains(&event.value) {
            wanted.push(event.value);
        }
    }
    let told_at = events_url.as_ref().or(url.as_ref()).map(|url| url.value.clone());
    let events = told_at.filter(|_| !wanted.is_empty()).map(|url| HookEvents {
        url,
        is_elsewhere: has_events_url,
        token: token.clone(),
        timeout,
        concurrency,
        wanted,
    });
    let hook = url.map(|url| Hook {
        url: url.value,
        token,
        timeout,
        concurrency,
        known_for: or_default(known_for),
        unknown_for: or_default(unknown_for),
    });
    (hook, events)
}

fn parse_url(text: &str, directory: &Path) -> Result<HookUrl, ValueError> {
    match text.strip_prefix("unix:") {
        Some(path) => parse_path(path, directory).map(HookUrl::Unix),
        None => WebhookUrl::parse(text).map(|(url, address)| HookUrl::Http(url, address)),
    }
}
