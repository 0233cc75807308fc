//! Records of what each allocation has used, in a file and to a webhook: where they go, as `[usage]` has it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::Uri;
use zeroize::Zeroizing;

use super::error::ValueError;
use super::secret::WebhookToken;

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
    /// The URL, and the address and port in it if it has no name.
    pub(super) fn parse(text: &str) -> Result<(Self, Option<SocketAddr>), ValueError> {
        // Keys may be in its query, and in front of an `@`.
        let shown = text.split('?').next().unwrap_or_default();
        let shown = shown.rsplit_once('@').map_or(shown, |(_, host)| host);
        let is_not_whole = || ValueError::is_not(shown, "a whole URL");
        let uri: Uri = text.parse().map_err(|_| ValueError::is_not(shown, "a URL"))?;
        let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or_else(is_not_whole)?;
        if authority.as_str().contains('@') {
            return Err(ValueError::Userinfo);
        }
        if text.contains('#') {
            return Err(ValueError::Fragment(shown.to_owned()));
        }
        let host = authority.host();
        let ip: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let default_port = match scheme {
            "https" => 443,
            "http" if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) => 80,
            "http" => return Err(ValueError::InTheClear(shown.to_owned())),
            _ => return Err(ValueError::is_not(scheme, "a scheme that is offered")),
        };
        if host.is_empty() || authority.port_u16() == Some(0) {
            return Err(is_not_whole());
        }
        let port = authority.port_u16().unwrap_or(default_port);
        Ok((Self(Zeroizing::new(text.to_owned())), ip.map(|ip| SocketAddr::new(ip, port))))
    }

    /// All of it, for a request.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The host and the port in it.
    pub fn host_and_port(&self) -> (String, u16) {
        let uri: Uri = self.0.parse().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        (uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(), port)
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
}
