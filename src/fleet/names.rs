//! The addresses of a host, by the resolver of the system, which knows no time limit: in a thread of its own, one for a host at a time.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How long an answer is good. Nobody here is told how long the records are.
const GOOD: Duration = Duration::from_secs(30);
/// A name with more addresses than this is not read to its end.
const ADDRESSES_MAX: usize = 8;

/// Addresses, and when they were found.
type Found = (Vec<SocketAddr>, Instant);

/// The addresses of one host and port.
#[derive(Clone, Default)]
pub(super) struct Name {
    is_asked: Arc<AtomicBool>,
    known: Arc<Mutex<Option<Found>>>,
}

impl Name {
    /// The addresses, as they were found of late. While an earlier question still hangs, no other one is asked.
    pub(super) async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let known = self.known();
        if let Some((found, at)) = &known
            && at.elapsed() < GOOD
        {
            return Ok(found.clone());
        }
        // What is known goes on being used when the resolver does not answer.
        let earlier = |why: String| known.map(|(found, _)| found).ok_or(why);
        if self.is_asked.swap(true, Ordering::AcqRel) {
            return earlier(format!("the resolver does not answer about {host}"));
        }
        let (send, found) = oneshot::channel();
        let (name, is_asked, kept) = (host.to_owned(), Arc::clone(&self.is_asked), Arc::clone(&self.known));
        let thread = std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs().map(|addresses| addresses.take(ADDRESSES_MAX));
            let found = found.map(Iterator::collect::<Vec<_>>);
            if let Ok(found) = &found {
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((found.clone(), Instant::now()));
            }
            is_asked.store(false, Ordering::Release);
            let _ = send.send(found);
        });
        if let Err(error) = thread {
            self.is_asked.store(false, Ordering::Release);
            return earlier(error.to_string());
        }
        match found.await {
            Ok(Ok(found)) if !found.is_empty() => Ok(found),
            Ok(Ok(_)) => earlier(format!("{host} has no address")),
            Ok(Err(error)) => earlier(format!("{host} is not found: {error}")),
            Err(_) => earlier(format!("the resolver does not answer about {host}")),
        }
    }

    /// The addresses of a host, as they were found last.
    pub(super) fn found(&self, host: &str) -> Vec<IpAddr> {
        if let Ok(ip) = host.parse() {
            return vec![ip];
        }
        let found = self.known().map(|(found, _)| found).unwrap_or_default();
        found.iter().map(SocketAddr::ip).collect()
    }

    fn known(&self) -> Option<Found> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
