//! Reads `[hook]`.

use std::path::Path;

use super::access::parse_path;
use super::error::ValueError;
use super::hook::{Hook, HookUrl};
use super::reader::{Document, Section, or_default};
use super::records::read_token;
use super::source::{Source, Surroundings};
use super::usage::WebhookUrl;

const TOKEN_SOURCES: [&str; 4] = ["token-credential", "token-file", "token-env", "token"];

pub(super) fn read_hook(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
) -> Option<Hook> {
    let section = root.section("hook");
    let url = section.text("url", |text| parse_url(text, &source.directory));
    let (timeout, concurrency) = (section.duration("timeout"), section.number("concurrency"));
    let (known_for, unknown_for) = (section.duration("known-for"), section.duration("unknown-for"));
    let token = read_token(document, &section, (source, around), (TOKEN_SOURCES, "the token in [hook]"));
    section.report_unknown_keys();
    if !section.has("url")
        && let Some(given) = TOKEN_SOURCES.iter().find(|key| section.has(key))
    {
        section.problem(given, section.place(), "there is no url that it is for");
    }
    Some(Hook {
        url: url?.value,
        token,
        timeout: or_default(timeout),
        concurrency: usize::try_from(or_default(concurrency)).unwrap_or(usize::MAX),
        known_for: or_default(known_for),
        unknown_for: or_default(unknown_for),
    })
}

fn parse_url(text: &str, directory: &Path) -> Result<HookUrl, ValueError> {
    match text.strip_prefix("unix:") {
        Some(path) => parse_path(path, directory).map(HookUrl::Unix),
        None => WebhookUrl::parse(text).map(|(url, address)| HookUrl::Http(url, address)),
    }
}
