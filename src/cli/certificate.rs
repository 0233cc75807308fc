//! What `turnstone check` says about a certificate chain and its key.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::TlsFiles;

use super::check::{Findings, Level};
use super::output::utc_text;

const WARN_DAYS_LEFT: u64 = 14;

/// Judges the files of `[tls]`.
pub(super) fn check(findings: &mut Findings, tls: &TlsFiles, public_host: Option<&str>, now_unix: u64) {
    let chain = read_chain(findings, tls);
    let key = read_key(findings, tls);
    let Some(chain) = chain else { return };
    let mut certificates = Vec::new();
    for (index, der) in chain.iter().enumerate() {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => certificates.push(certificate),
            Err(error) => {
                findings.add(
                    Level::Error,
                    "certificate",
                    format!("number {} of the chain is malformed: {error}", index + 1),
                );
                return;
            }
        }
    }
    for (index, certificate) in certificates.iter().enumerate() {
        check_time(findings, index, certificate, now_unix);
    }
    check_order(findings, &certificates);
    check_names(findings, &chain, &certificates, public_host);
    if let Some(key) = key {
        check_match(findings, chain, &key);
    }
}

fn read_chain(findings: &mut Findings, tls: &TlsFiles) -> Option<Vec<CertificateDer<'static>>> {
    let shown = tls.certificate.display();
    let pem = match std::fs::read(&tls.certificate) {
        Ok(pem) => pem,
        Err(error) => {
            findings.add(Level::Error, "certificate", format!("cannot read {shown}: {error}"));
            return None;
        }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => {
            findings.add(Level::Error, "certificate", format!("{shown} has no certificate in PEM"));
            None
        }
        Ok(chain) => Some(chain),
        Err(error) => {
            findings.add(Level::Error, "certificate", format!("{shown} is not PEM: {error}"));
            None
        }
    }
}

fn read_key(findings: &mut Findings, tls: &TlsFiles) -> Option<PrivateKeyDer<'static>> {
    let pem = match tls.read_key() {
        Ok(pem) => pem,
        Err(problem) => {
            findings.add(Level::Error, "key", problem);
            return None;
        }
    };
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => Some(key),
        Err(error) => {
            let message = format!("{} has no private key in PEM without a passphrase: {error}", tls.key.display());
            findings.add(Level::Error, "key", message);
            None
        }
    }
}

fn check_time(findings: &mut Findings, index: usize, certificate: &X509Certificate<'_>, now_unix: u64) {
    let name = if index == 0 { "certificate".to_owned() } else { format!("certificate {} of the chain", index + 1) };
    let unix = |timestamp: i64| u64::try_from(timestamp).unwrap_or(0);
    let not_before = unix(certificate.validity().not_before.timestamp());
    let not_after = unix(certificate.validity().not_after.timestamp());
    let days = |secs: u64| match secs / 86_400 {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    let until = utc_text(not_after);
    if now_unix < not_before {
        findings.add(Level::Error, &name, format!("not valid before {}", utc_text(not_before)));
    } else if now_unix > not_after {
        findings.add(Level::Error, &name, format!("expired {} ago, on {until}", days(now_unix - not_after)));
    } else if (not_after - now_unix) / 86_400 < WARN_DAYS_LEFT {
        findings.add(Level::Warning, &name, format!("expires in {}, on {until}", days(not_after - now_unix)));
    } else {
        findings.add(Level::Ok, &name, format!("good for {}, until {until}", days(not_after - now_unix)));
    }
}

/// Each certificate has to be issued by the next one (RFC 5246 section 7.4.2); a client may not look for the right order.
fn check_order(findings: &mut Findings, certificates: &[X509Certificate<'_>]) {
    for (index, pair) in certificates.windows(2).enumerate() {
        if let [this, next] = pair
            && this.issuer().as_raw() != next.subject().as_raw()
        {
            let message = format!(
                "certificate {} is issued by {:?}, but the next one is {:?}; the server's own comes first, then its issuer",
                index + 1,
                this.issuer().to_string(),
                next.subject().to_string()
            );
            findings.add(Level::Error, "chain", message);
            return;
        }
    }
    let Some(leaf) = certificates.first() else { return };
    if leaf.issuer().as_raw() == leaf.subject().as_raw() {
        let message = "the certificate is self-signed: browsers refuse it, and for turns: they ask nobody".to_owned();
        findings.add(Level::Warning, "chain", message);
    } else if certificates.len() == 1 {
        let message = "there is no intermediate certificate: clients that do not know the issuer refuse the certificate; \
                       use the full chain";
        findings.add(Level::Warning, "chain", message.to_owned());
    } else {
        findings.add(Level::Ok, "chain", format!("{} certificates in order", certificates.len()));
    }
}

fn check_names(
    findings: &mut Findings,
    chain: &[CertificateDer<'_>],
    certificates: &[X509Certificate<'_>],
    public_host: Option<&str>,
) {
    let Some((der, leaf)) = chain.first().zip(certificates.first()) else { return };
    let names = match leaf.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.len(),
        Ok(None) => 0,
        Err(error) => {
            findings.add(Level::Error, "certificate", format!("the list of names is malformed: {error}"));
            return;
        }
    };
    if names == 0 {
        findings.add(
            Level::Error,
            "certificate",
            "it has no subject alternative name; browsers look at nothing else".to_owned(),
        );
        return;
    }
    let Some(public_host) = public_host else { return };
    let bare = public_host.trim_start_matches('[').trim_end_matches(']');
    let verified = ServerName::try_from(bare).ok().map(|name| {
        ParsedCertificate::try_from(der).and_then(|certificate| rustls::client::verify_server_name(&certificate, &name))
    });
    match verified {
        Some(Ok(())) => findings.add(Level::Ok, "certificate", format!("it is for {public_host}")),
        _ => {
            findings.add(Level::Error, "certificate", format!("it is not for {public_host}, the public-host of [auth]"))
        }
    }
}

fn check_match(findings: &mut Findings, chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) {
    let signing_key = match aws_lc_rs::default_provider().key_provider.load_private_key(key.clone_key()) {
        Ok(signing_key) => signing_key,
        Err(error) => {
            findings.add(Level::Error, "key", format!("it cannot be used: {error}"));
            return;
        }
    };
    match CertifiedKey::new(chain, signing_key).keys_match() {
        Ok(()) => findings.add(Level::Ok, "key", "it belongs to the certificate".to_owned()),
        Err(_) => findings.add(Level::Error, "key", "it does not belong to the certificate".to_owned()),
    }
}
