//! Certificates that the server gets for itself: what has come of it so far, and whether the authority can find it.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::acme::record_of;
use crate::client::tls::Roots;
use crate::config::{Acme, Config, is_public};
use crate::probe::{Status, Step};

use super::finding;

/// An authority asks from several places, one after the other, and takes some seconds for it.
pub(super) const FIRST_ONE_LIMIT: Duration = Duration::from_secs(30);

/// A server that has just started has its first certificates a little later. Whoever starts it and asks at once wants to know what becomes of
/// them: waits until there is one of each name, or an attempt has failed. `say` is told what is waited for.
pub(super) fn wait_for_first_ones(config: &Config, limit: Duration, say: &mut dyn FnMut(Step)) {
    let Some(acme) = &config.acme else { return };
    let is_under_way = |name: &&String| {
        let has_not_failed = record_of(&acme.folder, name).is_ok_and(|record| record.tried.failure.is_none());
        has_not_failed && is_missing(&Acme::file_of(&acme.folder, name))
    };
    let names: Vec<_> = acme.names.iter().filter(is_under_way).map(String::as_str).collect();
    if names.is_empty() {
        return;
    }
    let message = format!(
        "{}: no certificate yet. A server that has just started is asking {} for it: waiting for that, {} s at most",
        names.join(", "),
        acme.directory,
        limit.as_secs()
    );
    say(finding("acme", Status::Note, message));
    let deadline = Instant::now() + limit;
    while acme.names.iter().any(|name| is_under_way(&name)) && Instant::now() < deadline {
        sleep(Duration::from_millis(100));
    }
}

/// What the server has noted of each name, as far as this user may read it, and whom it trusts.
pub fn judge(config: &Config) -> Vec<Step> {
    let Some(acme) = &config.acme else { return Vec::new() };
    let roots = acme.ca.clone().map_or(Roots::System, Roots::File).read().err();
    let roots = roots
        .map(|error| finding("acme", Status::Fail, format!("{} cannot be asked by HTTPS: {error}", acme.directory)));
    roots.into_iter().chain(acme.names.iter().map(|name| judge_name(acme, name))).collect()
}

fn judge_name(acme: &Acme, name: &str) -> Step {
    let record = match record_of(&acme.folder, name) {
        Ok(record) => record,
        Err(error) => {
            let status = if error.kind() == ErrorKind::PermissionDenied { Status::Note } else { Status::Warn };
            let message =
                format!("{name}: what the server has noted of it cannot be read in {}: {error}", acme.folder.display());
            return finding("acme", status, message);
        }
    };
    let has_one = !is_missing(&Acme::file_of(&acme.folder, name));
    match (&record.tried.failure, has_one) {
        (Some(failure), has_one) => {
            let missing = if has_one { "is not renewed" } else { "has no certificate yet" };
            let failures = record.tried.failures();
            let attempts = if failures == 1 { "attempt" } else { "attempts" };
            let message = format!("{name} {missing}, after {failures} {attempts}: {failure}");
            // It is no mistake of the configuration: a reload of another one is not refused for it.
            finding("acme", Status::Warn, message)
        }
        (None, true) => finding("acme", Status::Ok, format!("{name}: the server renews its certificate")),
        (None, false) => {
            let message =
                format!("{name} has no certificate yet: the server asks {} for one when it runs", acme.directory);
            finding("acme", Status::Note, message)
        }
    }
}

/// Whether each name leads to an address of this server, and to no other: an authority asks at any of them.
pub(super) fn judge_names(
    config: &Config,
    own: &[IpAddr],
    resolve: &dyn Fn(&str) -> std::io::Result<Vec<IpAddr>>,
) -> Vec<Step> {
    let Some(acme) = &config.acme else { return Vec::new() };
    let outside = config.relay.addresses.iter().map(|relay| relay.external);
    let own: Vec<_> = own.iter().copied().chain(outside).collect();
    let judge = |name: &String| {
        let found = match resolve(name) {
            Ok(found) if !found.is_empty() => found,
            Ok(_) | Err(_) => {
                let message =
                    format!("{name} has no address in the DNS: the certificate authority finds nobody to ask");
                return Some(finding("acme", Status::Fail, message));
            }
        };
        // Behind a NAT it may not be known which addresses are ours outside.
        let is_known = |ip: &IpAddr| own.iter().any(|own| own.is_ipv4() == ip.is_ipv4() && is_public(*own));
        let elsewhere = found.iter().find(|ip| is_known(ip) && !own.contains(ip));
        elsewhere.map(|ip| {
            let message = format!(
                "{name} leads to {ip}, which is no address of this server: the certificate authority asks there, too; correct the record, or \
                 name the address as external-ip in [relay]"
            );
            finding("acme", Status::Warn, message)
        })
    };
    acme.names.iter().filter_map(judge).collect()
}

/// Whether a file is not there.
pub(super) fn is_missing(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    const RELAY: &str =
        "[relay]\nipv4 = \"5.44.1.1\"\nipv6 = \"off\"\n[[listen]]\naddress = \"*:443\"\ntransport = \"tls\"\n";

    fn with(folder: &Path) -> Config {
        let folder = folder.display();
        config(&format!(
            "state-directory = \"{folder}\"\n{RELAY}[tls]\nacme = [\"turn.example.org\"]\nacme-agree-to-terms = true\n"
        ))
    }

    #[test]
    fn what_the_server_has_noted_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let config = with(folder.path());
        let of_name = || judge(&config).pop().unwrap();
        let step = of_name();
        assert!(step.status == Status::Note && step.message.contains("when it runs"), "{}", step.message);
        let acme = folder.path().join("acme");
        std::fs::create_dir(&acme).unwrap();
        std::fs::write(acme.join("turn.example.org.json"), r#"{"failures": 3, "failure": "no way"}"#).unwrap();
        let step = of_name();
        assert!(step.status == Status::Warn && step.message.contains("after 3 attempts: no way"), "{}", step.message);
        std::fs::write(acme.join("turn.example.org.pem"), "").unwrap();
        let step = of_name();
        assert!(step.status == Status::Warn && step.message.contains("is not renewed"), "{}", step.message);
        std::fs::write(acme.join("turn.example.org.json"), "{}").unwrap();
        assert_eq!(of_name().status, Status::Ok);
        std::fs::write(acme.join("turn.example.org.json"), "{").unwrap();
        assert_eq!(of_name().status, Status::Warn);
    }

    #[test]
    fn a_first_certificate_is_waited_for_until_it_is_there_or_an_attempt_has_failed() {
        let folder = tempfile::tempdir().unwrap();
        let config = with(folder.path());
        let acme = folder.path().join("acme");
        std::fs::create_dir(&acme).unwrap();
        let (record, pair) = (acme.join("turn.example.org.json"), acme.join("turn.example.org.pem"));
        let long = Duration::from_secs(600);
        let waits = |limit: Duration, becomes: &dyn Fn()| {
            let mut said = Vec::new();
            wait_for_first_ones(&config, limit, &mut |step| {
                becomes();
                said.push(step.message);
            });
            said.join("\n")
        };
        // Nothing becomes of it.
        assert!(waits(Duration::from_millis(1), &|| {}).contains("is asking https://"));
        std::fs::write(&record, r#"{"failures": 1}"#).unwrap();
        assert!(
            !waits(long, &|| std::fs::write(&record, r#"{"failures": 1, "failure": "no way"}"#).unwrap()).is_empty()
        );
        assert_eq!(waits(long, &|| {}), "", "it has failed");
        std::fs::write(&record, r#"{"failures": 1}"#).unwrap();
        assert!(!waits(long, &|| std::fs::write(&pair, "").unwrap()).is_empty());
        assert_eq!(waits(long, &|| {}), "", "it is there");
    }

    #[test]
    fn a_name_that_leads_elsewhere_or_nowhere_is_told() {
        let config = with(Path::new("/nowhere"));
        let judged = |found: &[&str]| {
            let found: Vec<IpAddr> = found.iter().map(|ip| ip.parse().unwrap()).collect();
            judge_names(&config, &["10.0.0.1".parse().unwrap()], &|_| Ok(found.clone())).pop().map(|step| step.status)
        };
        assert_eq!(judged(&["5.44.1.1"]), None);
        assert_eq!(judged(&["5.44.1.1", "5.44.1.2"]), Some(Status::Warn));
        assert_eq!(judged(&["2a00:1::1"]), None, "of IPv6 nobody knows which is ours");
        assert_eq!(judged(&[]), Some(Status::Fail));
    }
}
