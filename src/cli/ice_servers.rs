//! Where `probe` gets its servers from: URLs, or the `iceServers` of a page, pasted, in a file, or as an API answers them.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use zeroize::Zeroizing;

use crate::addr::SocketKind;
use crate::probe::{IceServers, Roots, TurnUrl, certificate_words, io_words};

use super::input::read_stdin;
use super::login::read_secret;
use super::output::{CliError, Printer, printable};

/// The longest list that is read, in bytes.
const BYTES_MAX: u64 = 64 * 1024;
/// Of what an API says when it refuses.
const SHOWN_CHARS: usize = 300;

/// What an argument names.
#[derive(Clone)]
pub(super) enum Wanted {
    /// A server.
    Url(TurnUrl),
    /// The list itself.
    Pasted(Zeroizing<String>),
    /// A file with it.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// What answers it.
    Api(Uri),
}

/// What one report is about.
pub(super) enum Subject {
    Urls(Vec<TurnUrl>),
    IceServers(IceServers),
}

/// How an API is asked for the list.
#[derive(Args)]
pub(super) struct Asking {
    /// For an https:// URL: environment variable with its key, sent as "Authorization: Bearer KEY", or with a whole header,
    /// "NAME: VALUE".
    #[arg(long, value_name = "NAME", conflicts_with = "api_key_file")]
    api_key_env: Option<String>,
    /// The same from a file; nobody else may be able to read it.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// For an https:// URL: POST this body (JSON or a form) instead of GET.
    #[arg(long, value_name = "BODY")]
    post: Option<String>,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            Ok(Self::Stdin)
        } else if let Some(path) = text.strip_prefix('@') {
            Ok(Self::File(path.into()))
        } else if text.starts_with("https://") || text.starts_with("http://") {
            api(text).map(Self::Api)
        } else if text.contains('{') || text.trim_start().starts_with('[') {
            Ok(Self::Pasted(Zeroizing::new(text.to_owned())))
        } else {
            text.parse().map(Self::Url).map_err(|error: crate::probe::UrlError| error.to_string())
        }
    }
}

fn api(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match uri.authority() {
        None => Err("there is no host in it".to_owned()),
        Some(authority) if authority.as_str().contains('@') => {
            Err("a password does not belong into the URL: give --api-key-env or --api-key-file".to_owned())
        }
        Some(_) => Ok(uri),
    }
}

impl Wanted {
    /// Reads the list, wherever it is.
    pub(super) fn read(
        &self,
        asking: &Asking,
        roots: &Roots,
        timeout: Duration,
        printer: &mut Printer,
    ) -> Result<Subject, CliError> {
        let (name, text) = match self {
            Self::Url(url) => return Ok(Subject::Urls(vec![url.clone()])),
            Self::Pasted(text) => ("the argument".to_owned(), text.clone()),
            Self::File(path) => (path.display().to_string(), read_file(path)?),
            Self::Stdin => {
                if io::stdin().is_terminal() {
                    printer.error("paste the iceServers, then Ctrl-D on a line of its own");
                }
                let text = read_stdin();
                let text = text.map_err(|error| CliError::usage(format_args!("standard input: {error}")))?;
                ("standard input".to_owned(), Zeroizing::new(text))
            }
            Self::Api(uri) => (shown(uri), asking.ask(uri, roots, timeout)?),
        };
        let servers = IceServers::read(&text).map_err(|error| CliError::usage(format_args!("{name}: {error}")))?;
        if matches!(self, Self::Pasted(_)) && servers.has_credential() {
            printer.error(
                "warning: every user of this host can read a command line, and there is a credential in it; paste it after: turnstone probe -",
            );
        }
        Ok(Subject::IceServers(servers))
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error: io::Error| CliError::usage(format_args!("{}: {error}", path.display())))?;
    Ok(text)
}

/// Without the query, in which some services have the key.
fn shown(uri: &Uri) -> String {
    let port = uri.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}{}", uri.scheme_str().unwrap_or("https"), uri.host().unwrap_or_default(), uri.path())
}

impl Asking {
    /// Whether any of it is given.
    pub(super) fn is_given(&self) -> bool {
        self.api_key_env.is_some() || self.api_key_file.is_some() || self.post.is_some()
    }

    fn ask(&self, uri: &Uri, roots: &Roots, timeout: Duration) -> Result<Zeroizing<String>, CliError> {
        let name = shown(uri);
        let failed = |problem: &dyn std::fmt::Display| CliError::usage(format_args!("{name}: {problem}"));
        let key = read_secret(self.api_key_env.as_deref(), self.api_key_file.as_deref())?;
        let is_plain = uri.scheme_str() == Some("http");
        if key.is_some() && is_plain && !is_this_host(uri) {
            return Err(failed(&"the key would go there without TLS: give the https:// URL"));
        }
        let agent = agent(is_plain, roots, timeout).map_err(|problem| failed(&problem))?;
        let header = key.as_ref().map(|key| header(key));
        let sent = match &self.post {
            Some(body) => {
                let kind = match body.trim_start().starts_with('{') {
                    true => "application/json",
                    false => "application/x-www-form-urlencoded",
                };
                let mut request = agent.post(uri).content_type(kind);
                if let Some((name, value)) = &header {
                    request = request.header(name.as_str(), value.as_str());
                }
                request.send(body)
            }
            None => {
                let mut request = agent.get(uri);
                if let Some((name, value)) = &header {
                    request = request.header(name.as_str(), value.as_str());
                }
                request.call()
            }
        };
        let mut response = sent.map_err(|error| failed(&unanswered(&error)))?;
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get("Location").and_then(|value| value.to_str().ok()).unwrap_or("somewhere");
            let problem = format!(
                "HTTP status {} to {}; the key stays with this host, so give that URL if it is right",
                status.as_u16(),
                printable(to.split('?').next().unwrap_or(to))
            );
            return Err(failed(&problem));
        }
        let body = response.body_mut().with_config().limit(BYTES_MAX).read_to_string();
        if !status.is_success() {
            let words: String = body.unwrap_or_default().chars().take(SHOWN_CHARS).collect();
            let hint = match status.as_u16() {
                401 | 403 if header.is_none() => "; --api-key-env or --api-key-file gives the key",
                405 if self.post.is_none() => "; --post BODY asks by POST",
                _ => "",
            };
            return Err(failed(&format!("HTTP status {}: {}{hint}", status.as_u16(), printable(words.trim()))));
        }
        body.map(Zeroizing::new).map_err(|error| failed(&error))
    }
}

/// What went wrong, in words where it is the certificate.
fn unanswered(error: &ureq::Error) -> String {
    let tls = match error {
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    match tls {
        Some(tls @ rustls::Error::InvalidCertificate(_)) => {
            format!("the certificate is not trusted: {}", certificate_words(tls, "is not valid today"))
        }
        Some(tls) => tls.to_string(),
        None => match error {
            ureq::Error::Io(error) => io_words(error, SocketKind::Tcp),
            error => error.to_string(),
        },
    }
}

/// A whole header, or the bearer token that it is.
fn header(key: &str) -> (String, Zeroizing<String>) {
    match key.split_once(": ") {
        Some((name, value)) => (name.to_owned(), Zeroizing::new(value.to_owned())),
        None => ("Authorization".to_owned(), Zeroizing::new(format!("Bearer {key}"))),
    }
}

fn is_this_host(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || ip.is_some_and(|ip| ip.is_loopback())
}

fn agent(is_plain: bool, roots: &Roots, timeout: Duration) -> Result<Agent, String> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(timeout))
        .user_agent(concat!("turnstone/", env!("CARGO_PKG_VERSION")));
    if !is_plain {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(authorities(roots)?)))
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()));
        config = config.https_only(true).tls_config(tls.build());
    }
    Ok(config.build().into())
}

fn authorities(roots: &Roots) -> Result<Vec<Certificate<'static>>, String> {
    let found: Vec<CertificateDer<'static>> = match roots {
        Roots::System => rustls_native_certs::load_native_certs().certs,
        Roots::File(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| format!("{}: {error}", path.display()))?,
    };
    Ok(found.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> String {
        match text.parse() {
            Ok(Wanted::Url(url)) => url.to_string(),
            Ok(Wanted::Pasted(text)) => format!("pasted {}", *text),
            Ok(Wanted::File(path)) => format!("file {}", path.display()),
            Ok(Wanted::Stdin) => "stdin".to_owned(),
            Ok(Wanted::Api(uri)) => format!("api {}", shown(&uri)),
            Err(error) => error,
        }
    }

    #[test]
    fn an_argument_is_taken_for_what_it_looks_like() {
        for (text, expected) in [
            ("stun:a", "stun:a:3478"),
            ("turn:[::1]:80", "turn:[::1]:80?transport=udp"),
            ("-", "stdin"),
            ("@ice.json", "file ice.json"),
            (" [{urls: 'stun:a'}]", "pasted  [{urls: 'stun:a'}]"),
            ("iceServers: [{urls: 'stun:a'}]", "pasted iceServers: [{urls: 'stun:a'}]"),
            ("https://api.example.org:8443/ice?apiKey=k", "api https://api.example.org:8443/ice"),
        ] {
            assert_eq!(kind(text), expected);
        }
        assert!(kind("turn.example.org").contains("a URL begins with stun:"));
        assert!(kind("https://user:pw@api.example.org/").contains("--api-key-file"));
    }

    #[test]
    fn a_key_is_a_bearer_token_or_a_whole_header() {
        let of = |key: &str| {
            let (name, value) = header(key);
            format!("{name}: {}", *value)
        };
        assert_eq!(of("tsk_1"), "Authorization: Bearer tsk_1");
        assert_eq!(of("X-Api-Key: k:1"), "X-Api-Key: k:1");
        let here = |text: &str| is_this_host(&text.parse().unwrap());
        assert!(here("http://127.0.0.1:80/") && here("http://[::1]/") && here("http://localhost:1/"));
        assert!(!here("http://192.0.2.1/") && !here("http://localhost.example.org/"));
    }
}
