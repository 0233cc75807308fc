//! The keys of `[tls]`.

use super::super::acme_pairs::challenges;
use super::super::key::{CREDENTIAL, FILE, INLINE, Key, Kind, SERVER_NAMES, VARIABLE};
use super::super::shown::{boolean, text, texts};
use super::super::snapshot::{Config, TlsVersion};
use super::super::unshown;
use super::super::value::{Choices, name_of};

pub(in crate::config) const TLS_VERSIONS: &Choices<TlsVersion> =
    &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

pub(super) static KEYS: &[Key] = &[
    Key::new("tls.certificate", Kind::Text("the path of a PEM file"))
        .shown(|c| text(c.tls.as_ref().filter(|tls| !tls.is_acme)?.certificate.to_string_lossy()))
        .after_restart(keep_tls)
        .set_by("TURNSTONE_TLS_CERTIFICATE", Some("tls-certificate"), "FILE", "certificate chain, PEM"),
    Key::new("tls.key", Kind::Text("the path of a PEM file"))
        .shown(|c| text(c.tls.as_ref().filter(|tls| !tls.is_acme)?.key.to_string_lossy()))
        .after_restart(keep_tls)
        .set_by("TURNSTONE_TLS_KEY", Some("tls-key"), "FILE", "private key, PEM"),
    Key::new("tls.min-version", Kind::Text(r#""1.2" or "1.3""#))
        .default("1.2")
        .shown(|c| text(name_of(TLS_VERSIONS, &c.tls.as_ref()?.min_version)?))
        .after_restart(keep_tls),
    Key::new("tls.acme", Kind::Texts(r#"host names such as "turn.example.org""#))
        .shown(|c| texts(&c.acme.as_ref()?.names))
        .after_restart(keep_tls),
    Key::new("tls.acme-agree-to-terms", Kind::Boolean)
        .default("false")
        .shown(|c| c.acme.as_ref().and_then(|_| boolean(true))),
    Key::new("tls.acme-email", Kind::Text(r#"an address such as "ops@example.org""#))
        .shown(|c| text(c.acme.as_ref()?.email.as_deref()?)),
    Key::new("tls.acme-directory", Kind::Text("the https URL of an ACME directory, or an http one at this host"))
        .default("https://acme-v02.api.letsencrypt.org/directory")
        .shown(|c| text(c.acme.as_ref()?.directory.as_str())),
    Key::new("tls.acme-ca", Kind::Text("the path of a PEM file"))
        .shown(|c| text(c.acme.as_ref()?.ca.as_ref()?.to_string_lossy())),
    Key::new("tls.acme-http", Kind::Text(r#"ADDRESS:PORT such as "0.0.0.0:80", or "*:80" for every address"#))
        .shown(|c| text(c.acme.as_ref()?.challenges.http?.to_string()))
        .after_restart(keep_acme_challenges),
    Key::new("tls.acme-eab-key-id", Kind::Text("the id that the certificate authority has given to the key"))
        .shown(|c| text(&c.acme.as_ref()?.external_account.as_ref()?.key_id)),
    Key::new("tls.acme-eab-key-credential", CREDENTIAL),
    Key::new("tls.acme-eab-key-file", FILE),
    Key::new("tls.acme-eab-key-env", VARIABLE),
    Key::new("tls.acme-eab-key", INLINE).unshown(unshown::external_key_lines, unshown::external_key_change),
    Key::new("tls.certificates", Kind::Tables)
        .unshown(unshown::certificate_lines, unshown::certificate_change)
        .after_restart(keep_tls),
    Key::new("tls.certificates.certificate", Kind::Text("the path of a PEM file")),
    Key::new("tls.certificates.key", Kind::Text("the path of a PEM file")),
    Key::new("tls.certificates.names", SERVER_NAMES),
];

fn keep_tls(new: &mut Config, running: &Config) {
    let is_needed = running.has_tls_listener() || running.credentials.as_ref().is_some_and(|api| api.tls);
    if new.tls.is_none() && is_needed {
        new.tls.clone_from(&running.tls);
        new.acme.clone_from(&running.acme);
    }
}

/// What the authority can ask is a socket.
fn keep_acme_challenges(new: &mut Config, running: &Config) {
    let http = running.acme.as_ref().and_then(|acme| acme.challenges.http);
    if let Some(acme) = &mut new.acme {
        acme.challenges = challenges(running.listeners.iter(), http);
    }
}
