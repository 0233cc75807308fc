//! The certificates of the TLS and DTLS listeners.

use serde_json::{Value, json};

use super::api::Api;

/// `GET /v1/certificates`: the first is for clients that ask for no name of the others.
pub(super) fn list(api: &Api) -> Value {
    let certificates = api.status.certificates();
    let shown = certificates.iter().map(|certificate| {
        json!({
            "file": certificate.file,
            "names": certificate.names,
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "not_before_unix": certificate.not_before_unix,
            "not_after_unix": certificate.not_after_unix,
        })
    });
    json!({ "certificates": shown.collect::<Vec<_>>() })
}
