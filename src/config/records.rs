//! Reads `[usage]`.

use std::path::{Path, PathBuf};

use super::access::{parse_path, read_secret};
use super::error::Located;
use super::reader::{Document, Section, or_default};
use super::secret::{WebhookToken, trim_line_end};
use super::source::{Source, Surroundings};
use super::usage::{Usage, UsageFile, Webhook, WebhookUrl};

const TOKEN_SOURCES: [&str; 4] =
    ["webhook-token-credential", "webhook-token-file", "webhook-token-env", "webhook-token"];
/// Keys that are about the file, and those about the webhook; without it they would do nothing.
const OF_FILE: [&str; 3] = ["rotate-bytes", "rotate-interval", "keep"];
const OF_WEBHOOK: [&str; 3] = ["webhook-timeout", "spool-directory", "spool-bytes-max"];
/// Where records wait for a webhook when there is no file to put them beside.
const SPOOL_DIRECTORY: &str = "/var/lib/turnstone/usage-spool";

pub(super) fn read_usage(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
) -> Option<Usage> {
    let section = root.section("usage");
    let path = |key| section.text(key, |text| parse_path(text, &source.directory));
    let (file, spool_directory) = (path("file"), path("spool-directory"));
    let (rotate_bytes, rotate_interval) =
        (section.size_or_off("rotate-bytes"), section.duration_or_off("rotate-interval"));
    let (keep, interim) = (section.limit("keep"), section.duration_or_off("interim"));
    let url = section.text("webhook", WebhookUrl::parse);
    let (timeout, spool_bytes_max) = (section.duration("webhook-timeout"), section.size("spool-bytes-max"));
    let token = read_token(document, &section, (source, around), (TOKEN_SOURCES, "the webhook's token in [usage]"));
    section.report_unknown_keys();

    for (what, keys) in [("file", OF_FILE.as_slice()), ("webhook", &OF_WEBHOOK), ("webhook", &TOKEN_SOURCES)] {
        if !section.has(what)
            && let Some(given) = keys.iter().find(|key| section.has(key))
        {
            section.problem(given, section.place(), format_args!("there is no {what} that it is for"));
        }
    }
    if !section.has("webhook") && !section.has("file") {
        if section.has("interim") {
            document.warning(section.place(), "[usage] has neither a file nor a webhook: no usage is recorded");
        }
        return None;
    }
    let webhook = url.map(|url| Webhook {
        url: url.value.0,
        address: url.value.1,
        token,
        timeout: or_default(timeout),
        spool_directory: spool_directory.map_or_else(|| spool_beside(file.as_ref()), |directory| directory.value),
        spool_bytes_max: or_default(spool_bytes_max),
    });
    let file = file.map(|path| UsageFile {
        path: path.value,
        rotate_bytes: or_default(rotate_bytes),
        rotate_interval: or_default(rotate_interval),
        keep: or_default(keep).map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
    });
    Some(Usage { file, webhook, interim: or_default(interim) })
}

/// The token that one of these keys leads to; `whose` says in an error what it is for.
pub(super) fn read_token(
    document: &Document<'_>,
    section: &Section<'_, '_>,
    (source, around): (&Source, &Surroundings<'_>),
    (keys, whose): ([&'static str; 4], &str),
) -> Option<WebhookToken> {
    let found = read_secret(document, source, around, section, keys)?;
    let token = WebhookToken::new(&trim_line_end(found.value));
    if token.is_none() {
        let message = format!(
            "{whose} is empty, too long, or has a character that no header may have; expected up to 4096 visible ASCII characters"
        );
        document.problem(found.place, message);
    }
    token
}

fn spool_beside(file: Option<&Located<PathBuf>>) -> PathBuf {
    let beside = |file: &Located<PathBuf>| {
        let mut name = file.value.file_name()?.to_owned();
        name.push(".spool");
        Some(file.value.with_file_name(name))
    };
    file.and_then(beside).unwrap_or_else(|| Path::new(SPOOL_DIRECTORY).to_owned())
}
