//! `[usage]`: records of what each allocation has used, in a file and to a webhook.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::Uri;
use zeroize::Zeroizing;

use super::access::read_secret;
use super::error::Located;
use super::file::parse_path;
use super::reader::{Document, Section};
use super::secret::trim_line_end;
use super::sections::duration;
use super::{Source, Surroundings, units};

const DAY: Duration = Duration::from_secs(86_400);
const TOKEN_SOURCES: [&str; 4] =
    ["webhook-token-credential", "webhook-token-file", "webhook-token-env", "webhook-token"];
/// Keys that are about the file, and those about the webhook; without it they would do nothing.
const OF_FILE: [&str; 3] = ["rotate-bytes", "rotate-interval", "keep"];
const OF_WEBHOOK: [&str; 3] = ["webhook-timeout", "spool-directory", "spool-bytes-max"];
const WEBHOOK: &str = r#"a URL such as "https://billing.example.org/turn", or http:// to a loopback address"#;
const TOKEN_BYTES_MAX: usize = 4096;
/// Where records wait for a webhook when there is no file to put them beside.
const SPOOL_DIRECTORY: &str = "/var/lib/turnstone/usage-spool";

/// Where usage records go, and how often. There is a file, a webhook, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The file that they are appended to.
    pub file: Option<UsageFile>,
    /// Who they are sent to.
    pub webhook: Option<Webhook>,
    /// How often each live allocation is recorded between its start and its end; `None` is never.
    pub interim: Option<Duration>,
}

/// The file of usage records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageFile {
    /// Its path.
    pub path: PathBuf,
    /// It is put aside once it has so many bytes; `None` is never.
    pub rotate_bytes: Option<u64>,
    /// It is put aside whenever a multiple of this has passed since 1970 UTC; `None` is never.
    pub rotate_interval: Option<Duration>,
    /// How many that were put aside are kept; `None` is all.
    pub keep: Option<usize>,
}

/// Who usage records are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// An `https` URL, or `http` to loopback.
    pub url: WebhookUrl,
    /// The address and port in it, if it has no name.
    pub address: Option<SocketAddr>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<WebhookToken>,
    /// How long one request may take, from the name's resolution to the end of the answer.
    pub timeout: Duration,
    /// Where records wait until they have been sent.
    pub spool_directory: PathBuf,
    /// How many bytes may wait there; the oldest are dropped.
    pub spool_bytes_max: u64,
}

/// Where the webhook is. Its query, in which some services want their key, is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Zeroizing<String>);

impl WebhookUrl {
    /// All of it, for a request.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is something that is not shown.
    pub fn has_query(&self) -> bool {
        self.0.contains('?')
    }

    /// A message that may quote the URL, without what is not shown.
    pub(crate) fn redact(&self, message: &str) -> String {
        match self.0.split_once('?') {
            Some((_, query)) if !query.is_empty() => message.replace(query, "..."),
            _ => message.to_owned(),
        }
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.split_once('?').map_or(self.0.as_str(), |(shown, _)| shown))
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The webhook's token.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookToken(Zeroizing<String>);

impl WebhookToken {
    /// The token, for a header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WebhookToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookToken(..)")
    }
}

impl Usage {
    /// Puts back what only a restart changes: whether there is a file or a webhook, and where they are.
    pub(super) fn keep_until_restart(new: &mut Option<Self>, running: &Option<Self>) {
        let (Some(new), Some(running)) = (new.as_mut(), running) else {
            new.clone_from(running);
            return;
        };
        match (&mut new.file, &running.file) {
            (Some(new), Some(running)) => new.path.clone_from(&running.path),
            (new, running) => new.clone_from(running),
        }
        new.webhook = match (new.webhook.take(), &running.webhook) {
            // A token is for the one that it was given for.
            (Some(new), Some(running)) if new.url == running.url => {
                Some(Webhook { token: new.token, ..running.clone() })
            }
            (_, running) => running.clone(),
        };
    }

    /// Whether a change of this key, without its section, takes a restart.
    pub(super) fn needs_restart(running: &Option<Self>, new: &Option<Self>, key: &str) -> bool {
        let (Some(running), Some(new)) = (running, new) else { return true };
        match key {
            "interim" => false,
            "rotate-bytes" | "rotate-interval" | "keep" => running.file.is_some() != new.file.is_some(),
            _ => true,
        }
    }
}

pub(super) fn read_usage(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
) -> Option<Usage> {
    let section = root.section("usage");
    let path = |key, what| section.text(key, what, |text| parse_path(text, &source.directory));
    let file = path("file", "the path of a file");
    let rotate_bytes = section.text("rotate-bytes", &format!("{}, or \"off\"", units::SIZE), parse_rotate_bytes);
    let rotate_interval = or_off(&section, "rotate-interval", Duration::from_secs(60)..=DAY * 30);
    let keep = section.limit("keep", r#"a whole number from 1 to 100000, or "unlimited""#, 1..=100_000);
    let interim = or_off(&section, "interim", Duration::from_secs(10)..=DAY);
    let url = section.text("webhook", WEBHOOK, parse_webhook);
    let timeout = duration(&section, "webhook-timeout", Duration::from_secs(1)..=Duration::from_secs(60));
    let token = read_token(document, &section, source, around);
    let spool_directory = path("spool-directory", "the path of a directory");
    let spool_bytes_max = section.text("spool-bytes-max", units::SIZE, |text| match units::parse_size(text)? {
        bytes @ 262_144..=1_099_511_627_776 => Ok(bytes),
        _ => Err(format!("{text:?} is not from 256KiB to 1024GiB")),
    });
    section.report_unknown_keys();

    for (what, keys) in [("file", OF_FILE.as_slice()), ("webhook", &OF_WEBHOOK), ("webhook", &TOKEN_SOURCES)] {
        if !section.has(what)
            && let Some(given) = keys.iter().find(|key| section.has(key))
        {
            document.problem(section.place(), format!("{given} in [usage]: there is no {what} that it is for"));
        }
    }
    if !section.has("webhook") && !section.has("file") {
        if section.has("interim") {
            document.warning(section.place(), "[usage] has neither a file nor a webhook: no usage is recorded");
        }
        return None;
    }
    let spool_directory = spool_directory.map(|directory| directory.value);
    let webhook = url.map(|url| Webhook {
        url: url.value.0,
        address: url.value.1,
        token,
        timeout: timeout.map_or(Duration::from_secs(10), |timeout| timeout.value),
        spool_directory: spool_directory.unwrap_or_else(|| spool_beside(file.as_ref())),
        spool_bytes_max: spool_bytes_max.map_or(256 << 20, |bytes| bytes.value),
    });
    let file = file.map(|path| UsageFile {
        path: path.value,
        rotate_bytes: rotate_bytes.map_or(Some(100 << 20), |bytes| bytes.value),
        rotate_interval: rotate_interval.map_or(Some(DAY), |interval| interval.value),
        keep: keep.map_or(Some(14), |keep| keep.value.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX))),
    });
    let interim = interim.map_or(Some(Duration::from_secs(300)), |interim| interim.value);
    Some(Usage { file, webhook, interim })
}

fn read_token(
    document: &Document<'_>,
    section: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
) -> Option<WebhookToken> {
    let found = read_secret(document, source, around, section, TOKEN_SOURCES)?;
    let bytes = trim_line_end(found.value);
    let allowed = |byte: &u8| byte.is_ascii_graphic();
    if bytes.is_empty() || bytes.len() > TOKEN_BYTES_MAX || !bytes.iter().all(allowed) {
        let message = "the webhook's token in [usage] is empty, too long, or has a character that no header may have; \
                       expected up to 4096 visible ASCII characters";
        document.problem(found.place, message);
        return None;
    }
    String::from_utf8(bytes.to_vec()).ok().map(|token| WebhookToken(Zeroizing::new(token)))
}

fn spool_beside(file: Option<&Located<PathBuf>>) -> PathBuf {
    let beside = |file: &Located<PathBuf>| {
        let mut name = file.value.file_name()?.to_owned();
        name.push(".spool");
        Some(file.value.with_file_name(name))
    };
    file.and_then(beside).unwrap_or_else(|| Path::new(SPOOL_DIRECTORY).to_owned())
}

fn or_off(
    section: &Section<'_, '_>,
    key: &'static str,
    range: std::ops::RangeInclusive<Duration>,
) -> Option<Located<Option<Duration>>> {
    section.text(key, &format!("{}, or \"off\"", units::DURATION), |text| {
        if text == "off" {
            return Ok(None);
        }
        let duration = units::parse_duration(text)?;
        if !range.contains(&duration) {
            let (low, high) = (units::duration_text(*range.start()), units::duration_text(*range.end()));
            return Err(format!("{text:?} is not from {low} to {high}"));
        }
        Ok(Some(duration))
    })
}

fn parse_rotate_bytes(text: &str) -> Result<Option<u64>, String> {
    if text == "off" {
        return Ok(None);
    }
    match units::parse_size(text)? {
        bytes @ 65_536..=1_099_511_627_776 => Ok(Some(bytes)),
        _ => Err(format!("{text:?} is not from 64KiB to 1024GiB")),
    }
}

/// The URL, and the address and port in it if it has no name.
fn parse_webhook(text: &str) -> Result<(WebhookUrl, Option<SocketAddr>), String> {
    // Keys may be in its query, and in front of an `@`.
    let shown = text.split('?').next().unwrap_or_default();
    let shown = shown.rsplit_once('@').map_or(shown, |(_, host)| host);
    let uri: Uri = text.parse().map_err(|_| format!("{shown:?} is not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("{shown:?} is not a whole URL"));
    };
    if authority.as_str().contains('@') {
        return Err("it has a user or a password, which belong into webhook-token-file".to_owned());
    }
    if text.contains('#') {
        return Err(format!("{shown:?} has a fragment, which is never sent"));
    }
    let host = authority.host();
    let ip: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    let default_port = match scheme {
        "https" => 443,
        "http" if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) => 80,
        "http" => return Err(format!("{shown:?} would send users and their traffic in the clear")),
        _ => return Err(format!("{scheme:?} is not a scheme that is offered")),
    };
    if host.is_empty() || authority.port_u16() == Some(0) {
        return Err(format!("{shown:?} is not a whole URL"));
    }
    let port = authority.port_u16().unwrap_or(default_port);
    Ok((WebhookUrl(Zeroizing::new(text.to_owned())), ip.map(|ip| SocketAddr::new(ip, port))))
}
