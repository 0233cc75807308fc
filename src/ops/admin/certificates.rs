//! The certificates of the TLS and DTLS listeners.

use serde_json::{Value, json};

use super::super::status::Status;
use super::api::Api;
use crate::acme::NameFacts;

/// `GET /v1/certificates`: the first is for clients that ask for no name of the others.
pub(super) fn list(api: &Api) -> Value {
    let certificates = api.status.certificates();
    let shown = certificates.iter().map(|certificate| {
        json!({
            "file": certificate.file,
            "source": if certificate.is_acme { "acme" } else { "files" },
            "names": certificate.names,
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "not_before_unix": certificate.not_before_unix,
            "not_after_unix": certificate.not_after_unix,
        })
    });
    json!({ "certificates": shown.collect::<Vec<_>>(), "acme": acme_names(&api.status) })
}

/// How it stands with those that the server gets for itself.
pub(super) fn acme_names(status: &Status) -> Vec<Value> {
    status.acme.names().iter().map(acme_name).collect()
}

pub(super) fn acme_name(name: &NameFacts) -> Value {
    json!({
        "name": name.name,
        "has_certificate": name.has_certificate,
        "not_after_unix": name.not_after_unix,
        "next_attempt_unix": name.next_unix,
        "failures": name.failures,
        "failure": name.failure,
    })
}
