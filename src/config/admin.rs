//! `[admin]`: where the admin API listens, and who may use it.

use toml::de::DeTable;

use super::access::{read_readers, read_secret};
use super::credentials::Origin;
use super::endpoint::Endpoint;
use super::error::{ConfigError, Located, Place, ValueError};
use super::key::Key;
use super::keys::{self, READERS};
use super::listen::{check_endpoint, overlap};
use super::operation::parse_endpoint;
use super::origin::parse_origin;
use super::overrides::Overrides;
use super::reader::{Document, Section};
use super::secret::{AdminToken, trim_line_end};
use super::snapshot::{Admin, Listener, Metrics};
use super::source::{Source, Surroundings};
use crate::addr::Transport;

/// Where the token of a section may come from, as a secret may.
pub(super) const TOKEN_SOURCES: [&str; 4] = ["token-credential", "token-file", "token-env", "token"];

impl Admin {
    /// An address as `listen` has it; `source` is named where it is none.
    ///
    /// # Errors
    /// What is wrong with it, and what was expected.
    pub fn parse_listen(source: &str, text: &str) -> Result<Endpoint, ConfigError> {
        let expected = keys::find("admin.listen").map(Key::expected).unwrap_or_default();
        parse_loopback(text, &Source::default()).map_err(|problem| {
            ConfigError::one(Place::Source(source.to_owned()), format!("{problem}; expected {expected}"))
        })
    }

    /// Where a configuration says that the admin API is, read without the rest of it: for a client on this host, which may not be
    /// allowed to read the server's secrets, and which finds the server while the file is broken elsewhere.
    ///
    /// # Errors
    /// What is wrong in `[admin]`; with the token only if it is wanted.
    pub fn for_client(
        source: &Source,
        around: &Surroundings<'_>,
        wants_token: bool,
    ) -> Result<Option<Self>, ConfigError> {
        read_one_table("admin", source, around, |document, section| {
            let listen = read_listen(section, source)?.value;
            let token = if wants_token { read_token(document, section, (source, around), "admin") } else { None };
            Some(Self { listen, token, page: false, page_origins: Vec::new() })
        })
    }
}

/// Reads one table without the rest of the configuration: for a client on this host, which may not be allowed to read the server's secrets,
/// and whom a mistake elsewhere in the file is not to hold up.
///
/// # Errors
/// What is wrong in the table.
pub(super) fn read_one_table<T>(
    name: &'static str,
    source: &Source,
    around: &Surroundings<'_>,
    read: impl FnOnce(&Document<'_>, &Section<'_, '_>) -> T,
) -> Result<T, ConfigError> {
    let of_table = |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let mut overrides = Overrides::default();
    for set in keys::settable().filter(|set| set.key == READERS || of_table(set.key)) {
        if let Some(value) = (around.env)(set.env).filter(|value| !value.is_empty()) {
            overrides.set_default(set.key, set.env, vec![value]);
        }
    }
    let document = Document::new(&source.name, &source.text, &overrides);
    let (table, _) = DeTable::parse_recoverable(&source.text);
    let root = Section::root(&document, table.get_ref());
    read_readers(&document, &root);
    let result = read(&document, &root.section(name));
    document.finish()?;
    Ok(result)
}

pub(super) fn read_admin(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
    listeners: &[Located<Listener>],
    metrics: Option<&Metrics>,
) -> Option<Admin> {
    let section = root.section("admin");
    let listen = read_listen(&section, source);
    let has_token = TOKEN_SOURCES.map(|key| section.has(key)).contains(&true);
    let token = read_token(document, &section, (source, around), "admin");
    let page = section.boolean("page");
    let page_origins = section.texts("page-origins", parse_page_origin);
    section.report_unknown_keys();
    if let Some(first) = page_origins.first() {
        let place = first.place.clone();
        if !page {
            section.problem("page-origins", place, "there is no page; expected page = true as well");
        } else if !has_token {
            let message =
                "whoever reaches the proxy rules the server; expected a token, such as token-file, at a socket, too";
            section.problem("page-origins", place, message);
        }
    }
    let Some(listen) = listen else {
        if has_token && !section.has("listen") {
            document.problem(section.place(), "[admin] has a token but no listen");
        }
        if page && !section.has("listen") {
            document
                .problem(section.place(), "[admin] has page = true but no listen: the page is where the admin API is");
        }
        return None;
    };
    if let Endpoint::Tcp(address) = listen.value {
        if !has_token {
            let message = "every user of this host reaches a port; expected a token, such as token-file, or a socket: listen = \
                           \"unix:/run/turnstone/admin.sock\"";
            section.problem("listen", listen.place.clone(), message);
        }
        check_endpoint(&section, address, &listen.place, listeners);
    }
    if metrics.is_some_and(|metrics| is_taken(&listen.value, &metrics.listen)) {
        section.problem("listen", listen.place, format_args!("{} overlaps listen in [metrics]", listen.value));
    }
    let page_origins = page_origins.into_iter().map(|origin| origin.value).collect();
    Some(Admin { listen: listen.value, token, page, page_origins })
}

pub(super) fn read_listen(section: &Section<'_, '_>, source: &Source) -> Option<Located<Endpoint>> {
    section.text("listen", |text| parse_loopback(text, source))
}

/// Where a proxy shows the page: by TLS, or the token would go over the network in the clear.
fn parse_page_origin(text: &str) -> Result<String, ValueError> {
    match parse_origin(text)? {
        Origin::One(origin) if origin.starts_with("https://") => Ok(origin),
        _ => Err(ValueError::is_not(text, "an origin of https")),
    }
}

fn parse_loopback(text: &str, source: &Source) -> Result<Endpoint, ValueError> {
    match parse_endpoint(text, source)? {
        Endpoint::Tcp(address) if !address.ip().is_loopback() => Err(ValueError::NotLoopback(address)),
        endpoint => Ok(endpoint),
    }
}

/// The token of `[name]`.
pub(super) fn read_token(
    document: &Document<'_>,
    section: &Section<'_, '_>,
    (source, around): (&Source, &Surroundings<'_>),
    name: &str,
) -> Option<AdminToken> {
    let found = read_secret(document, source, around, section, TOKEN_SOURCES)?;
    match AdminToken::new(trim_line_end(found.value)) {
        Ok(token) => Some(token),
        Err(problem) => {
            document.problem(found.place, format!("the token in [{name}]: {problem}"));
            None
        }
    }
}

/// Whether two endpoints are at one place.
pub(super) fn is_taken(endpoint: &Endpoint, other: &Endpoint) -> bool {
    match (endpoint, other) {
        (Endpoint::Tcp(address), Endpoint::Tcp(other)) => {
            let listener = |address: &std::net::SocketAddr| Listener {
                address: *address,
                transport: Transport::Tcp,
                options: std::sync::Arc::default(),
            };
            overlap(&listener(address), &listener(other))
        }
        (Endpoint::Unix(path), Endpoint::Unix(other)) => path == other,
        _ => false,
    }
}
