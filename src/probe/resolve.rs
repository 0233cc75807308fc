//! From a host to its addresses, of both families, through the system's resolver. SRV and NAPTR records (RFC 5928) are not
//! looked up, as browsers do not look them up either.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::addr::Family;

use super::context::Context;
use super::report::{Recorder, Status, Step};
use super::url::{Host, TurnUrl};

/// The addresses to probe; the step is recorded.
pub(super) fn resolve(context: &Context<'_>, url: &TurnUrl, recorder: &mut Recorder<'_>) -> Vec<SocketAddr> {
    let started = Instant::now();
    let elsewhere = context.options.connect_to.as_ref();
    let (host, port) = elsewhere.map_or((&url.host, url.port), |to| (&to.host, to.port.unwrap_or(url.port)));
    let found = match host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port)]),
        Host::Name(name) => look_up(name, port, context.options.timeout),
    };
    let step = |status, message: String| Step::new("resolve", status, started.elapsed(), message);
    let mut found = match found {
        Ok(found) => found,
        Err(problem) => {
            recorder.add(step(Status::Fail, problem.to_string()));
            return Vec::new();
        }
    };
    if let Some(family) = context.options.family {
        found.retain(|address| Family::of(address.ip()) == family);
        if found.is_empty() {
            let name = if family == Family::V4 { "IPv4" } else { "IPv6" };
            recorder.add(step(Status::Fail, format!("there is no {name} address")));
        }
    }
    if !found.is_empty() {
        let ips: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
        let by = elsewhere.map_or(String::new(), |to| format!(" (in place of {}, by --connect-to {to})", url.host));
        recorder.add(step(Status::Ok, format!("{}{by}", ips.join(", "))).fact("addresses", ips));
    }
    found
}

/// Why there is no address.
#[derive(Debug, Error)]
enum Unresolved {
    #[error("{name} cannot be resolved: {error}")]
    System { name: String, error: io::Error },
    #[error("{name} cannot be resolved: no answer within {} s", waited.as_secs_f64())]
    Silent { name: String, waited: Duration },
    #[error("{0} has no address")]
    Nothing(String),
}

/// Asks the system's resolver, which knows no timeout of its own: a thread that waits too long is left to itself.
fn look_up(name: &str, port: u16, timeout: Duration) -> Result<Vec<SocketAddr>, Unresolved> {
    let (sender, receiver) = mpsc::channel::<io::Result<Vec<SocketAddr>>>();
    let host = name.to_owned();
    std::thread::spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody listens any more once the time is over.
        let _ = sender.send(found);
    });
    let found = match receiver.recv_timeout(timeout) {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(Unresolved::System { name: name.to_owned(), error }),
        Err(_) => return Err(Unresolved::Silent { name: name.to_owned(), waited: timeout }),
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        // A resolver that maps IPv4 into IPv6 names the same server twice.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(Unresolved::Nothing(name.to_owned())) } else { Ok(addresses) }
}
