//! Reads `[hook]`.

use std::path::Path;

use super::access::{parse_path, read_secret};
use super::error::ValueError;
use super::hook::{Hook, HookUrl};
use super::reader::{Document, Section, or_default};
use super::secret::{WebhookToken, trim_line_end};
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
    let token = read_token(document, &section, source, around);
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

fn read_token(
    document: &Document<'_>,
    section: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
) -> Option<WebhookToken> {
    let found = read_secret(document, source, around, section, TOKEN_SOURCES)?;
    let token = WebhookToken::new(&trim_line_end(found.value));
    if token.is_none() {
        let message = "the token in [hook] is empty, too long, or has a character that no header may have; expected up to 4096 \
                       visible ASCII characters";
        document.problem(found.place, message);
    }
    token
}

fn parse_url(text: &str, directory: &Path) -> Result<HookUrl, ValueError> {
    match text.strip_prefix("unix:") {
        Some(path) => parse_path(path, directory).map(HookUrl::Unix),
        None => WebhookUrl::parse(text).map(|(url, address)| HookUrl::Http(url, address)),
    }
}
