//! Reads what `[tls]` says of ACME.

use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::addr::Transport;

use super::access::{parse_path, parse_sni, read_secret};
use super::acme::{Acme, AtPort, Challenges, DirectoryUrl, ExternalAccount};
use super::acme_pairs::challenges;
use super::error::{Located, ValueError};
use super::host::Host;
use super::listen::{overlap, parse_address};
use super::reader::{Document, Section};
use super::secret::trim_line_end;
use super::snapshot::Listener;
use super::source::{Source, Surroundings};

/// Names that one server has certificates of its own for: a certificate authority bounds the orders of an account (Let's Encrypt: 300 in
/// three hours), and each name may be tried six times in those.
const NAMES_MAX: usize = 50;
const KEY_SOURCES: [&str; 4] = ["acme-eab-key-credential", "acme-eab-key-file", "acme-eab-key-env", "acme-eab-key"];
/// The shortest key that an HMAC with SHA-256 may have is not said by RFC 8555; authorities hand out 32 bytes and more.
const KEY_BYTES_MIN: usize = 16;

pub(super) fn read_acme(
    document: &Document<'_>,
    section: &Section<'_, '_>,
    (source, around): (&Source, &Surroundings<'_>),
    listeners: &[Located<Listener>],
    state_directory: Option<&Path>,
) -> Option<Acme> {
    let names = section.texts("acme", parse_name);
    let has_agreed = section.boolean("acme-agree-to-terms");
    let email = section.text("acme-email", parse_email);
    let directory = section.text("acme-directory", DirectoryUrl::parse);
    let ca = section.text("acme-ca", |text| parse_path(text, &source.directory));
    let http = section.text("acme-http", |text| parse_http(text, around.host));
    let external_account = read_external_account(document, section, source, around);
    if !section.has("acme") || section.is_empty_array("acme") {
        const OTHERS: [&str; 7] = [
            "acme-agree-to-terms",
            "acme-email",
            "acme-directory",
            "acme-ca",
            "acme-http",
            "acme-eab-key-id",
            KEY_SOURCES[0],
        ];
        if let Some(key) = OTHERS.iter().chain(&KEY_SOURCES).find(|key| section.has(key)) {
            section.problem(
                key,
                section.place(),
                "there is no acme that it is for; expected acme = [\"turn.example.org\"] beside it",
            );
        }
        return None;
    }
    let first = names.first()?.place.clone();
    let mut wanted: Vec<String> = Vec::new();
    for Located { value, place } in names {
        match wanted.contains(&value) {
            true => section.problem("acme", place, format!("{value:?} is there twice")),
            false => wanted.push(value),
        }
    }
    if wanted.len() > NAMES_MAX {
        section.problem("acme", first.clone(), format!("more than {NAMES_MAX} names"));
    }
    if !has_agreed {
        let message = "certificates are had on the terms of service of the certificate authority, to which you have to agree yourself (those of \
                       Let's Encrypt: https://letsencrypt.org/repository/); when you do, set acme-agree-to-terms = true";
        section.problem("acme", first.clone(), message);
    }
    let own = listeners.iter().map(|listener| &listener.value);
    let challenges = challenges(own, http.as_ref().map(|http| http.value));
    if let Some(http) = &http {
        let this = Listener { address: http.value, transport: Transport::Tcp, options: Default::default() };
        if let Some(listener) = listeners.iter().find(|listener| overlap(&listener.value, &this)) {
            let Listener { transport, address, .. } = &listener.value;
            let message = format!("{} overlaps the listener {transport} {address} at {}", http.value, listener.place);
            section.problem("acme-http", http.place.clone(), message);
        }
        if http.value.port() != 80 {
            let message = "the certificate authority asks at port 80 and at no other: forward that one to here";
            document.warning(http.place.clone(), message);
        }
    }
    match challenges {
        Challenges { tls: None, http: None } => {
            let message = "there is nothing here that the certificate authority could ask: expected a [[listen]] with transport \"tls\" at port \
                           443, or acme-http = \"*:80\"";
            section.problem("acme", first.clone(), message);
        }
        Challenges { tls: Some(AtPort::Other), http: None } => {
            let message = "no tls listener has port 443, where the certificate authority asks, and there is no acme-http: forward 443 to one of \
                           them, or set acme-http = \"*:80\"";
            document.warning(first.clone(), message);
        }
        _ => {}
    }
    let Some(state_directory) = state_directory else {
        let message = "keys and certificates have to outlive the server, and there is no state directory; at the top level set \
                       state-directory = \"/var/lib/turnstone\"";
        section.problem("acme", first, message);
        return None;
    };
    Some(Acme {
        names: wanted,
        email: email.map(|email| email.value),
        directory: directory?.value,
        ca: ca.map(|ca| ca.value),
        external_account,
        challenges,
        folder: Acme::folder_in(state_directory),
    })
}

fn read_external_account(
    document: &Document<'_>,
    section: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
) -> Option<ExternalAccount> {
    let key_id = section.text("acme-eab-key-id", |text| match text.len() {
        1..=1024 if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err(ValueError::Text("empty, too long, or has other characters than visible ASCII")),
    });
    let key = read_secret(document, source, around, section, KEY_SOURCES);
    match (key_id, key) {
        (Some(key_id), Some(key)) => {
            let text = trim_line_end(key.value);
            let text = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(&text);
            match BASE64_URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new) {
                Ok(key) if key.len() >= KEY_BYTES_MIN => return Some(ExternalAccount { key_id: key_id.value, key }),
                _ => {
                    let message = format!(
                        "the key of acme-eab-key-id is not {KEY_BYTES_MIN} bytes or more as base64url (with - and _)"
                    );
                    document.problem(key.place, message);
                }
            }
        }
        (Some(key_id), None) if !KEY_SOURCES.iter().any(|source| section.has(source)) => {
            let message = "there is no key that belongs to it; expected acme-eab-key-file beside it, or another source";
            section.problem("acme-eab-key-id", key_id.place, message);
        }
        (None, Some(key)) if !section.has("acme-eab-key-id") => {
            document.problem(key.place, "[tls] has a key of an external account, but no acme-eab-key-id");
        }
        _ => {}
    }
    None
}

/// A name that an authority can be shown to lead here.
fn parse_name(text: &str) -> Result<String, ValueError> {
    if text.contains('*') {
        return Err(ValueError::unfit(
            text,
            "a wildcard, which takes a record in the DNS to prove: let certbot or the like renew it, and set certificate and key",
        ));
    }
    let name = parse_sni(text)?;
    if name.contains('_') {
        return Err(ValueError::unfit(text, "no host name: none of those has an underscore"));
    }
    Ok(name)
}

fn parse_email(text: &str) -> Result<String, ValueError> {
    let is_fit = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '?' | '<' | '>' | '"' | '%' | '&' | '#');
    match text.split_once('@') {
        Some((user, host))
            if !user.is_empty() && host.contains('.') && text.len() <= 254 && text.chars().all(is_fit) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(ValueError::is_not(text, "an address for mail")),
    }
}

/// Where HTTP is answered. `*` is one socket, for both families where there are two.
fn parse_http(text: &str, host: Host) -> Result<SocketAddr, ValueError> {
    let address = parse_address(text, host)?.pop().filter(|address| address.port() != 0);
    address.ok_or_else(|| ValueError::unfit(text, "without a port"))
}
