//! Who the nodes are: those that the configuration names, and those that DNS names in their place.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::srv::{self, SrvError, Target};
use crate::config::{FleetConfig, NodeSource, NodeUrl, SrvName};

/// How long the names may take to be found, all of them at once.
const NAMES_LIMIT: Duration = Duration::from_secs(3);

/// The nodes.
pub(crate) struct Members {
    /// Each once, and at most [`FleetConfig::NODES_MAX`].
    pub(crate) urls: Vec<NodeUrl>,
    /// What was wrong with names, or with what they name.
    pub(crate) unnamed: Vec<(String, String)>,
}

/// What each name led to when it was found last: that stays while it is not found.
#[derive(Default)]
pub(crate) struct Known(HashMap<String, Vec<NodeUrl>>);

/// Finds them. It takes some seconds at most, where no name server answers.
pub(crate) async fn members(fleet: &FleetConfig, known: &mut Known) -> Members {
    let mut lookups = JoinSet::new();
    let names = fleet.nodes.iter().filter_map(|source| match source {
        NodeSource::Srv(name) => Some(name.clone()),
        NodeSource::Url(_) => None,
    });
    for name in names {
        lookups.spawn(async move {
            let found = timeout(NAMES_LIMIT, srv::look_up(name.name())).await;
            (name.name().to_owned(), found.unwrap_or(Err(SrvError::Silent)))
        });
    }
    let mut found: HashMap<_, _> = lookups.join_all().await.into_iter().collect();
    let (mut urls, mut unnamed, mut before) = (Vec::new(), Vec::new(), std::mem::take(&mut known.0));
    for source in &fleet.nodes {
        let name = match source {
            NodeSource::Url(url) => {
                urls.push(url.clone());
                continue;
            }
            NodeSource::Srv(name) => name,
        };
        let of_name = match found.remove(name.name()).unwrap_or(Err(SrvError::Silent)) {
            Ok(targets) => {
                let (fit, unfit) = judge(name, targets, fleet.certificate_name.is_some());
                unnamed.extend(unfit);
                fit
            }
            Err(error) => {
                unnamed.push((name.name().to_owned(), error.to_string()));
                still_fit(name, before.remove(name.name()).unwrap_or_default(), fleet.certificate_name.is_some())
            }
        };
        urls.extend(of_name.iter().cloned());
        known.0.insert(name.name().to_owned(), of_name);
    }
    let mut seen = HashSet::new();
    urls.retain(|url| seen.insert(url.clone()));
    urls.truncate(FleetConfig::NODES_MAX);
    Members { urls, unnamed }
}

/// The token goes to hosts of the domain, whose certificates say so; to others only if it is written whose certificate they must have.
/// Whoever can forge an answer of DNS has a certificate for a name of his own.
fn judge(name: &SrvName, targets: Vec<Target>, is_pinned: bool) -> (Vec<NodeUrl>, Vec<(String, String)>) {
    let (fit, unfit): (Vec<_>, Vec<_>) = targets.into_iter().partition(|target| is_fit(name, &target.host, is_pinned));
    let why = || {
        format!(
            "{} names it, which is outside of {}: certificate-name says whom to trust there",
            name.name(),
            name.domain()
        )
    };
    (
        fit.into_iter().map(|Target { host, port }| NodeUrl::Https { host, port }).collect(),
        unfit.into_iter().map(|target| (target.host, why())).collect(),
    )
}

/// What was found may have been pinned to a certificate that the configuration does not name any more.
fn still_fit(name: &SrvName, mut found: Vec<NodeUrl>, is_pinned: bool) -> Vec<NodeUrl> {
    found.retain(|url| is_fit(name, url.host(), is_pinned));
    found
}

fn is_fit(name: &SrvName, host: &str, is_pinned: bool) -> bool {
    is_pinned || name.covers(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_answer_of_dns_has_the_token_shown_to_nobody_outside_of_the_domain() {
        let NodeSource::Srv(name) = FleetConfig::parse_node("_turnstone._tcp.example.org").unwrap() else { panic!() };
        let targets =
            ["turn1.example.org", "evil.example"].map(|host| Target { host: host.to_owned(), port: 1 }).to_vec();
        let (fit, unfit) = judge(&name, targets.clone(), false);
        assert_eq!(fit.iter().map(ToString::to_string).collect::<Vec<_>>(), ["https://turn1.example.org:1"]);
        assert_eq!(unfit[0].0, "evil.example");
        assert_eq!(judge(&name, targets, true).0.len(), 2);
    }

    #[test]
    fn a_host_outside_of_the_domain_that_was_pinned_does_not_stay_without_its_certificate_while_dns_fails() {
        let NodeSource::Srv(name) = FleetConfig::parse_node("_turnstone._tcp.example.org").unwrap() else { panic!() };
        let https = |host: &str| NodeUrl::Https { host: host.to_owned(), port: 1 };
        let found = || vec![https("a.example.org"), https("b.elsewhere.example")];
        assert_eq!(still_fit(&name, found(), true), found());
        assert_eq!(still_fit(&name, found(), false), [https("a.example.org")]);
    }
}
