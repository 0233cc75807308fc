//! The client behind `turnstone probe`: it walks the way of a WebRTC client through any STUN or TURN server, one step after
//! the other, and says of each what it found and how long it took.
//!
//! The order is resolve, connect, TLS, Binding, how the NAT behaves if the server helps with that, an Allocate without credentials, and
//! with a credential for each address family: two allocations, permissions, data between their relayed addresses by indications and
//! by channels, what a peer on this host sends, requests that a safe relay refuses, and the release; then what else it offers. A server that clients are sent to is probed,
//! too. It blocks, in one thread, and never waits longer than the timeout in one step.

mod compare;
mod context;
mod datagrams;
mod dial;
mod dtls;
mod endpoint;
mod exchange;
mod ice;
mod link;
mod nat;
mod offers;
mod place;
mod reach;
mod relay;
mod report;
mod resolve;
mod session;
mod tls;
mod url;
mod verdict;

pub(crate) use crate::client::io_words;
pub use crate::client::tls::Roots;
pub use compare::{Comparison, Difference, Side, compare};
pub use context::{Options, WARN_DAYS_LEFT};
pub(crate) use dial::certificate_words;
pub use ice::{IceServers, IceServersError, ScriptError};
pub use place::{CertificateName, ConnectTo};
pub(crate) use report::millis;
pub use report::{Counts, Endpoint, Progress, Report, SCHEMA, Status, Step, Target, worst};
pub use url::{Scheme, TurnUrl, UrlError};
pub use verdict::not_public;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::tls::TrustError;

use context::{Context, REDIRECTS_MAX, Redirects};
use endpoint::Alternate;
use ice::Planned;
use report::Recorder;

/// Probes every URL. `progress` is called as each step ends.
///
/// # Errors
/// When the authorities cannot be read. What is wrong with a server is in the report.
pub fn run(options: &Options, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Report, TrustError> {
    let started = Instant::now();
    let mut context = Context::new(options, options.urls.iter().any(|url| url.scheme.is_secure()))?;
    let mut probe = |url: &TurnUrl| probe_url(&mut context, url.to_string(), url, Vec::new(), progress);
    let targets = options.urls.iter().map(&mut probe).collect();
    Ok(Report::new(targets, options.insecure, context.now_unix, started.elapsed()))
}

/// Probes the servers of a page as browsers would use them, each with the credential of its entry. `options.urls` and
/// `options.credential` do not count; `sha256` is how to log in.
///
/// # Errors
/// As [`run`].
pub fn run_ice(
    options: &Options,
    servers: &IceServers,
    sha256: bool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, TrustError> {
    let started = Instant::now();
    let mut context = Context::new(options, false)?;
    let (overall, planned) = ice::plan(servers, sha256, context.now_unix);
    if planned.iter().any(|planned| planned.url.as_ref().is_some_and(|url| url.scheme.is_secure())) {
        context.read_authorities()?;
    }
    let mut targets = vec![announced("iceServers".to_owned(), overall, progress)];
    for Planned { name, steps, url, credential } in planned {
        context.credential = credential.map(Arc::new);
        targets.push(match url {
            Some(url) => probe_url(&mut context, name, &url, steps, progress),
            None => announced(name, steps, progress),
        });
    }
    Ok(Report::new(targets, options.insecure, context.now_unix, started.elapsed()))
}

/// A target of which nothing is asked.
fn announced(name: String, steps: Vec<Step>, progress: &mut dyn FnMut(Progress<'_>)) -> Target {
    progress(Progress::Target(&name));
    steps.iter().for_each(|step| progress(Progress::Step(step)));
    Target::new(name, steps, Vec::new())
}

/// Probes one server at an address that is known. Nothing is resolved: the URL's host is only what the certificate has to
/// be for. `options.urls` does not count. Where the server sends its clients to another one, that is said, and no more.
///
/// # Errors
/// As [`run`].
pub fn run_at(
    options: &Options,
    url: &TurnUrl,
    address: SocketAddr,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Target, TrustError> {
    let context = Context::new(options, url.scheme.is_secure())?;
    progress(Progress::Target(&url.to_string()));
    let (endpoint, _) = probe_address(&context, url, address, progress);
    Ok(Target::new(url.to_string(), Vec::new(), vec![endpoint]))
}

/// Probes a URL of which these steps are known, and which is called `name` in the report.
fn probe_url(
    context: &mut Context<'_>,
    name: String,
    url: &TurnUrl,
    known: Vec<Step>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Target {
    progress(Progress::Target(&name));
    let mut recorder = Recorder::new(progress);
    known.into_iter().for_each(|step| recorder.add(step));
    let addresses = resolve::resolve(context, url, &mut recorder);
    let mut url = url.clone();
    url.certificate_name = context.options.certificate_name.clone().map(|name| name.0);
    let mut steps = recorder.finish();
    let mut endpoints = Vec::new();
    for address in addresses {
        follow(context, &url, address, &mut endpoints, progress);
    }
    if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.steps.iter().all(Step::is_no_route)) {
        let step =
            Step::new("resolve", Status::Fail, Duration::ZERO, "this machine has no route to any of its addresses");
        progress(Progress::Step(&step));
        steps.push(step);
    }
    Target::new(name, steps, endpoints)
}

/// Probes an address, and each server that clients are sent to from there.
fn follow(
    context: &mut Context<'_>,
    url: &TurnUrl,
    address: SocketAddr,
    endpoints: &mut Vec<Endpoint>,
    progress: &mut dyn FnMut(Progress<'_>),
) {
    let (mut url, mut asked) = (url.clone(), Vec::new());
    let mut next = Some(address);
    while let Some(address) = next {
        asked.push(address);
        context.redirects = Redirects::Followed(asked.clone());
        let (endpoint, alternate) = probe_address(context, &url, address, progress);
        endpoints.push(endpoint);
        next = alternate.filter(|other| !asked.contains(&other.address) && asked.len() < REDIRECTS_MAX).map(|other| {
            if let Some(domain) = other.domain {
                url.set_name(domain);
            }
            other.address
        });
    }
}

fn probe_address(
    context: &Context<'_>,
    url: &TurnUrl,
    address: SocketAddr,
    progress: &mut dyn FnMut(Progress<'_>),
) -> (Endpoint, Option<Alternate>) {
    progress(Progress::Endpoint { address, transport: url.transport });
    let mut recorder = Recorder::new(progress);
    let alternate = endpoint::probe(context, url, address, &mut recorder);
    (Endpoint::new(address, url.transport, recorder.finish()), alternate)
}
