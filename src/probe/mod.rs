//! The client behind `turnstone probe`: it walks the way of a WebRTC client through any STUN or TURN server, one step after
//! the other, and says of each what it found and how long it took.
//!
//! The order is resolve, connect, TLS, Binding, an Allocate without credentials, and with a credential for each address
//! family: two allocations, permissions, data between their relayed addresses by indications and by channels, requests that
//! a safe relay refuses, and the release. It blocks, in one thread, and never waits longer than the timeout in one step.

mod endpoint;
mod exchange;
mod link;
mod relay;
mod report;
mod resolve;
mod session;
mod tls;
mod url;
mod verdict;

pub use crate::client::tls::Roots;
pub(crate) use report::millis;
pub use report::{Counts, Endpoint, Progress, Report, SCHEMA, Status, Step, Target, worst};
pub use url::{Scheme, TurnUrl, UrlError};
pub use verdict::not_public;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::addr::Family;
use crate::client::client::Credential;

use report::Recorder;
use tls::TlsSetup;

/// A certificate with fewer days left is a warning: renewals come 30 days before the end, and one that has failed for 9 days
/// needs somebody.
pub const WARN_DAYS_LEFT: u64 = 21;

/// What to probe.
#[derive(Clone, Debug)]
pub struct Options {
    /// The servers, probed one after the other.
    pub urls: Vec<TurnUrl>,
    /// The credential for `turn:` and `turns:`; without one, the probe ends at the server's 401.
    pub credential: Option<Credential>,
    /// Which authorities the server's certificate is judged by.
    pub roots: Roots,
    /// Go on where the certificate is not trusted; the certificate is then a warning, whatever it is.
    pub insecure: bool,
    /// Take the other steps, too, where the certificate is not trusted, which stays a failure.
    pub past_certificate: bool,
    /// Only addresses of this family.
    pub family: Option<Family>,
    /// The longest that one step may take.
    pub timeout: Duration,
    /// Ask for permissions towards private addresses, which a safe relay refuses.
    pub safety: bool,
}

/// Probes every URL. `progress` is called as each step ends.
///
/// # Errors
/// When the authorities cannot be read; the message names the file. What is wrong with a server is in the report.
pub fn run(options: &Options, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Report, String> {
    let started = Instant::now();
    let context = Context::new(options, options.urls.iter().any(|url| url.scheme.is_secure()))?;
    let targets = options.urls.iter().map(|url| probe_url(&context, url, progress)).collect();
    Ok(Report::new(targets, options.insecure, context.now_unix, started.elapsed()))
}

/// Probes one server at an address that is known. Nothing is resolved: the URL's host is only what the certificate has to
/// be for. `options.urls` does not count.
///
/// # Errors
/// As [`run`].
pub fn run_at(
    options: &Options,
    url: &TurnUrl,
    address: SocketAddr,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Target, String> {
    let context = Context::new(options, url.scheme.is_secure())?;
    progress(Progress::Target(&url.to_string()));
    Ok(Target::new(url.to_string(), Vec::new(), vec![probe_address(&context, url, address, progress)]))
}

/// What all steps share.
struct Context<'a> {
    options: &'a Options,
    credential: Option<Arc<Credential>>,
    tls: Option<TlsSetup>,
    now_unix: u64,
}

impl<'a> Context<'a> {
    fn new(options: &'a Options, needs_tls: bool) -> Result<Self, String> {
        let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let tls = if needs_tls { Some(TlsSetup::new(&options.roots)?) } else { None };
        Ok(Self { options, credential: options.credential.clone().map(Arc::new), tls, now_unix })
    }
}

fn probe_url(context: &Context<'_>, url: &TurnUrl, progress: &mut dyn FnMut(Progress<'_>)) -> Target {
    progress(Progress::Target(&url.to_string()));
    let mut recorder = Recorder::new(progress);
    let addresses = resolve::resolve(context, url, &mut recorder);
    let mut steps = recorder.finish();
    let mut endpoints = Vec::new();
    for address in addresses {
        endpoints.push(probe_address(context, url, address, progress));
    }
    if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.steps.iter().all(Step::is_no_route)) {
        let step =
            Step::new("resolve", Status::Fail, Duration::ZERO, "this machine has no route to any of its addresses");
        progress(Progress::Step(&step));
        steps.push(step);
    }
    Target::new(url.to_string(), steps, endpoints)
}

fn probe_address(
    context: &Context<'_>,
    url: &TurnUrl,
    address: SocketAddr,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Endpoint {
    progress(Progress::Endpoint { address, transport: url.transport });
    let mut recorder = Recorder::new(progress);
    endpoint::probe(context, url, address, &mut recorder);
    Endpoint::new(address, url.transport, recorder.finish())
}
