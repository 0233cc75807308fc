//! Reads `[fleet]`.

use std::path::PathBuf;

use super::access::parse_path;
use super::admin::{TOKEN_SOURCES, is_taken, read_one_table, read_token};
use super::endpoint::Endpoint;
use super::error::{ConfigError, Located, ValueError};
use super::fleet::{FleetConfig, NodeSource, NodeUrl};
use super::listen::check_endpoint;
use super::operation::parse_endpoint;
use super::reader::{Document, Section};
use super::snapshot::{Listener, TlsFiles};
use super::source::{Source, Surroundings};
use super::urls::parse_host;

const NAME_BYTES_MAX: usize = 64;

impl FleetConfig {
    /// What a configuration says of the fleet, read without the rest of it: for a client, which may not be allowed to read the server's
    /// secrets.
    ///
    /// # Errors
    /// What is wrong in `[fleet]`; with the token only if it is wanted.
    pub fn for_client(
        source: &Source,
        around: &Surroundings<'_>,
        wants_token: bool,
    ) -> Result<Option<Self>, ConfigError> {
        read_one_table("fleet", source, around, |document, section| {
            let nodes: Vec<_> = read_nodes(section).into_iter().map(|node| node.value).collect();
            let plain_http = section.boolean("plain-http");
            let (ca, certificate_name) = read_trust(section, source);
            let token = if wants_token { read_token(document, section, (source, around), "fleet") } else { None };
            let fleet = Self { plain_http, token, ca, certificate_name, ..Self::of_nodes(nodes) };
            (!fleet.nodes.is_empty()).then_some(fleet)
        })
    }
}

/// What the fleet is read beside.
pub(super) struct Beside<'c> {
    pub(super) listeners: &'c [Located<Listener>],
    pub(super) tls: Option<&'c TlsFiles>,
    /// Other endpoints, by their section.
    pub(super) endpoints: [(&'static str, Option<&'c Endpoint>); 3],
}

pub(super) fn read_fleet(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
    beside: &Beside<'_>,
) -> Option<FleetConfig> {
    let section = root.section("fleet");
    let name = section.text("name", parse_name);
    let listen = section.text("listen", |text| parse_endpoint(text, source));
    let plain_http = section.boolean("plain-http");
    let nodes = read_nodes(&section);
    let (ca, certificate_name) = read_trust(&section, source);
    let token = read_token(document, &section, (source, around), "fleet");
    let has_token = TOKEN_SOURCES.map(|key| section.has(key)).contains(&true);
    section.report_unknown_keys();
    if let Some(Located { value: Endpoint::Tcp(address), place }) = &listen {
        if !has_token {
            let message =
                "whoever reaches a port would see every user's sessions; expected a token, such as token-file";
            section.problem("listen", place.clone(), message);
        }
        if !address.ip().is_loopback() && !plain_http && beside.tls.is_none() {
            let message = "the nodes speak HTTPS, which needs a certificate: expected [tls] with certificate and key, or, where the \
                           network in between is safe, plain-http = true";
            section.problem("listen", place.clone(), message);
        }
        check_endpoint(&section, *address, place, beside.listeners);
    }
    for (other, endpoint) in beside.endpoints {
        if let (Some(listen), Some(endpoint)) = (&listen, endpoint)
            && is_taken(&listen.value, endpoint)
        {
            let message = format!("{} overlaps listen in {other}", listen.value);
            section.problem("listen", listen.place.clone(), message);
        }
    }
    for node in &nodes {
        let url = match &node.value {
            NodeSource::Url(url) => Some(url),
            NodeSource::Srv(_) => None,
        };
        if let Some(host) = url.and_then(NodeUrl::in_the_clear).filter(|_| !plain_http) {
            let message = format!(
                "the token and what the nodes show would go to {host} in the clear; expected https://, or, where the network in between \
                 is safe, plain-http = true"
            );
            section.problem("nodes", node.place.clone(), message);
        }
        if !has_token && !matches!(url, Some(NodeUrl::Unix(_))) {
            let message = "a node is shown a token; expected one for all of them, such as token-file";
            section.problem("nodes", node.place.clone(), message);
            break;
        }
    }
    if listen.is_none() && nodes.is_empty() {
        if has_token && !section.has("listen") && !section.has("nodes") {
            document.problem(section.place(), "[fleet] has a token, but neither listen nor nodes");
        }
        return None;
    }
    Some(FleetConfig {
        name: name.map(|name| name.value),
        listen: listen.map(|listen| listen.value),
        plain_http,
        nodes: nodes.into_iter().map(|node| node.value).collect(),
        token,
        ca,
        certificate_name,
    })
}

fn read_nodes(section: &Section<'_, '_>) -> Vec<Located<NodeSource>> {
    let nodes = section.texts("nodes", FleetConfig::parse_node);
    if let Some(node) = nodes.get(FleetConfig::NODES_MAX) {
        section.problem("nodes", node.place.clone(), format_args!("more than {} nodes", FleetConfig::NODES_MAX));
    }
    for (index, node) in nodes.iter().enumerate() {
        if nodes.iter().take(index).any(|earlier| earlier.value == node.value) {
            section.problem("nodes", node.place.clone(), format_args!("{} is there twice", node.value));
        }
    }
    nodes
}

fn read_trust(section: &Section<'_, '_>, source: &Source) -> (Option<PathBuf>, Option<String>) {
    let ca = section.text("ca", |text| parse_path(text, &source.directory));
    let name = section.text("certificate-name", parse_host);
    (ca.map(|path| path.value), name.map(|name| name.value.trim_matches(['[', ']']).to_owned()))
}

fn parse_name(text: &str) -> Result<String, ValueError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match text.len() {
        1..=NAME_BYTES_MAX if text.bytes().all(allowed) => Ok(text.to_owned()),
        _ => Err(ValueError::is_not(text, "such a name")),
    }
}
