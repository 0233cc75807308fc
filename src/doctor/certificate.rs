//! Whether a certificate chain and its key are what clients need: in time, in order, for the right name, and a pair.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::clock::utc_text;
use crate::config::{Config, TlsFiles};
use crate::probe::{Status, Step};

use super::acme::is_missing;
use super::finding;

/// What was found, and what other checks want to know of the server's own certificate.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// The findings.
    pub steps: Vec<Step>,
    /// When it begins to be valid, in Unix seconds.
    pub not_before_unix: Option<u64>,
    /// The first name or address that it is for; a wildcard is filled in.
    pub name: Option<String>,
}

/// Judges each certificate. The public host's name is one that some of them has to be for; of several, each is told by its file.
pub fn judge_all(config: &Config, now_unix: u64, warn_days_left: u64) -> Vec<Judged> {
    let each = config.tls.as_ref().map(TlsFiles::each).unwrap_or_default();
    let host = config.auth.public_host.as_deref();
    let is_one_of_many = each.len() > 1;
    // What the server gets for itself is judged when it is there.
    let (to_come, each): (Vec<_>, Vec<_>) =
        each.into_iter().partition(|tls| tls.is_acme && is_missing(&tls.certificate));
    let judge = |tls: &TlsFiles| {
        let mut judged = judge(tls, if is_one_of_many { None } else { host }, now_unix, warn_days_left);
        // What the server gets for itself is for the server to mend: a reload is not refused for it.
        for step in judged.steps.iter_mut().filter(|step| tls.is_acme && step.status == Status::Fail) {
            step.status = Status::Warn;
        }
        if is_one_of_many {
            for step in &mut judged.steps {
                step.message = format!("{}: {}", tls.certificate.display(), step.message);
            }
        }
        judged
    };
    let mut all: Vec<_> = each.iter().map(judge).collect();
    let chains: Vec<_> = each.iter().filter_map(|tls| read_chain(&mut Vec::new(), tls)).collect();
    let comes =
        |name: &str| to_come.iter().flat_map(|tls| &tls.names).any(|to_come| to_come.eq_ignore_ascii_case(name));
    let has_one_for =
        |name: &str| comes(name) || chains.iter().any(|chain| chain.first().is_some_and(|der| is_for(der, name)));
    if let (Some(first), false) = (all.first_mut(), chains.is_empty()) {
        for (name, whose) in server_names(config) {
            // A wildcard stands for any name below it.
            if !has_one_for(&name.replace('*', "any")) {
                let message =
                    format!("none is for {name} ({whose}): clients that ask for it refuse what they are sent");
                first.steps.push(finding("certificate", Status::Warn, message));
            }
        }
    }
    if let (Some(first), Some(host), true) = (all.first_mut(), host, is_one_of_many) {
        first.steps.push(match has_one_for(host) {
            true => finding("certificate", Status::Ok, format!("one of them is for {host}")),
            false => {
                let message = format!("none of them is for {host}, the public-host of [auth]");
                finding("certificate", Status::Fail, message)
            }
        });
    }
    all
}

/// The names that clients are meant to ask for, and where that is said.
fn server_names(config: &Config) -> Vec<(&str, String)> {
    let of_auth = config.auth.server_names.iter().map(|name| (name.as_str(), "sni in [auth]".to_owned()));
    let of_realms = config.realms.iter().flat_map(|realm| {
        let whose = format!("sni of the realm {:?}", realm.name);
        realm.server_names.iter().map(move |name| (name.as_str(), whose.clone()))
    });
    let webs = config.listeners.iter().filter_map(|listener| listener.options.web.as_ref());
    let of_webs =
        webs.flat_map(|web| &web.turn_names).map(|name| (name.as_str(), "turn-names in [[listen]]".to_owned()));
    let mut all: Vec<_> = of_auth.chain(of_realms).chain(of_webs).collect();
    all.sort();
    all.dedup();
    all
}

fn is_for(der: &CertificateDer<'_>, host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare).is_ok_and(|name| {
        ParsedCertificate::try_from(der).is_ok_and(|der| rustls::client::verify_server_name(&der, &name).is_ok())
    })
}

/// Judges the files of `[tls]`. A certificate with less than `warn_days_left` is a warning.
pub fn judge(tls: &TlsFiles, public_host: Option<&str>, now_unix: u64, warn_days_left: u64) -> Judged {
    let mut judged = Judged::default();
    let findings = &mut judged.steps;
    let chain = read_chain(findings, tls);
    let key = read_key(findings, tls);
    let Some(chain) = chain else { return judged };
    let mut certificates = Vec::new();
    for (index, der) in chain.iter().enumerate() {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => certificates.push(certificate),
            Err(error) => {
                let message = format!("number {} of the chain is malformed: {error}", index + 1);
                findings.push(finding("certificate", Status::Fail, message));
                return judged;
            }
        }
    }
    for (index, certificate) in certificates.iter().enumerate() {
        findings.push(judge_time(index, certificate, now_unix, warn_days_left));
    }
    findings.extend(judge_order(&certificates));
    findings.extend(judge_names(&chain, &certificates, public_host));
    for name in &tls.names {
        let one_of_them = name.replace('*', "any");
        if chain.first().is_some_and(|der| !is_for(der, &one_of_them)) {
            let message = format!("clients that ask for {name} are sent it, and it is not for that name");
            findings.push(finding("certificate", Status::Warn, message));
        }
    }
    if let Some(leaf) = certificates.first() {
        judged.not_before_unix = Some(unix(leaf.validity().not_before.timestamp()));
        judged.name = first_name(leaf);
    }
    if let Some(key) = key {
        judged.steps.push(judge_match(chain, &key));
    }
    judged
}

fn read_chain(findings: &mut Vec<Step>, tls: &TlsFiles) -> Option<Vec<CertificateDer<'static>>> {
    let shown = tls.certificate.display();
    let pem = match std::fs::read(&tls.certificate) {
        Ok(pem) => pem,
        Err(error) => {
            findings.push(finding("certificate", Status::Fail, format!("cannot read {shown}: {error}")));
            return None;
        }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => {
            findings.push(finding("certificate", Status::Fail, format!("{shown} has no certificate in PEM")));
            None
        }
        Ok(chain) => Some(chain),
        Err(error) => {
            findings.push(finding("certificate", Status::Fail, format!("{shown} is not PEM: {error}")));
            None
        }
    }
}

fn read_key(findings: &mut Vec<Step>, tls: &TlsFiles) -> Option<PrivateKeyDer<'static>> {
    let pem = match tls.read_key() {
        Ok(pem) => pem,
        Err(problem) => {
            findings.push(finding("key", Status::Fail, problem.to_string()));
            return None;
        }
    };
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => Some(key),
        Err(error) => {
            let message = format!("{} has no private key in PEM without a passphrase: {error}", tls.key.display());
            findings.push(finding("key", Status::Fail, message));
            None
        }
    }
}

fn judge_time(index: usize, certificate: &X509Certificate<'_>, now_unix: u64, warn_days_left: u64) -> Step {
    let whose = if index == 0 { String::new() } else { format!("number {} of the chain: ", index + 1) };
    let not_before = unix(certificate.validity().not_before.timestamp());
    let not_after = unix(certificate.validity().not_after.timestamp());
    let days = |secs: u64| match secs / 86_400 {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    let until = utc_text(not_after);
    let (status, message) = if now_unix < not_before {
        (Status::Fail, format!("not valid before {}", utc_text(not_before)))
    } else if now_unix > not_after {
        (Status::Fail, format!("expired {} ago, on {until}", days(now_unix - not_after)))
    } else if (not_after - now_unix) / 86_400 < warn_days_left {
        (Status::Warn, format!("expires in {}, on {until}", days(not_after - now_unix)))
    } else {
        (Status::Ok, format!("good for {}, until {until}", days(not_after - now_unix)))
    };
    finding("certificate", status, format!("{whose}{message}")).fact("not_after_unix", not_after)
}

/// Each certificate has to be issued by the next one (RFC 5246 section 7.4.2); a client may not look for the right order.
fn judge_order(certificates: &[X509Certificate<'_>]) -> Option<Step> {
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
            return Some(finding("chain", Status::Fail, message));
        }
    }
    let leaf = certificates.first()?;
    Some(if leaf.issuer().as_raw() == leaf.subject().as_raw() {
        let message = "the certificate is self-signed: browsers refuse it, and for turns: they ask nobody";
        finding("chain", Status::Warn, message)
    } else if certificates.len() == 1 {
        let message = "there is no intermediate certificate: clients that do not know the issuer refuse the certificate; \
                       use the full chain";
        finding("chain", Status::Warn, message)
    } else {
        finding("chain", Status::Ok, format!("{} certificates in order", certificates.len()))
    })
}

fn judge_names(
    chain: &[CertificateDer<'_>],
    certificates: &[X509Certificate<'_>],
    public_host: Option<&str>,
) -> Option<Step> {
    let (der, leaf) = chain.first().zip(certificates.first())?;
    let names = match leaf.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.len(),
        Ok(None) => 0,
        Err(error) => {
            return Some(finding("certificate", Status::Fail, format!("the list of names is malformed: {error}")));
        }
    };
    if names == 0 {
        let message = "it has no subject alternative name; browsers look at nothing else";
        return Some(finding("certificate", Status::Fail, message));
    }
    let public_host = public_host?;
    Some(match is_for(der, public_host) {
        true => finding("certificate", Status::Ok, format!("it is for {public_host}")),
        false => {
            let message = format!("it is not for {public_host}, the public-host of [auth]");
            finding("certificate", Status::Fail, message)
        }
    })
}

fn judge_match(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Step {
    let signing_key = match aws_lc_rs::default_provider().key_provider.load_private_key(key.clone_key()) {
        Ok(signing_key) => signing_key,
        Err(error) => return finding("key", Status::Fail, format!("it cannot be used: {error}")),
    };
    match CertifiedKey::new(chain, signing_key).keys_match() {
        Ok(()) => finding("key", Status::Ok, "it belongs to the certificate"),
        Err(_) => finding("key", Status::Fail, "it does not belong to the certificate"),
    }
}

fn first_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => {
            Some(name.strip_prefix("*.").map_or((*name).to_owned(), |of| format!("turn.{of}")))
        }
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|octets| format!("[{}]", Ipv6Addr::from(octets))),
        },
        _ => None,
    })
}

fn unix(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
}
