//! The resolver of the system, which knows no time limit.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::failure::Failure;

/// How long it is waited for.
const LIMIT: Duration = Duration::from_secs(5);
/// A name with more addresses than this is not read to its end.
const ADDRESSES_MAX: usize = 64;

/// Asks one question at a time.
#[derive(Default)]
pub(super) struct Resolver {
    is_busy: Arc<AtomicBool>,
}

impl Resolver {
    /// The addresses of a name, each once. While an earlier question still hangs, no other one is asked.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let silent = || Failure::ResolverSilent { name: name.to_owned() };
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return Err(silent());
        }
        let (send, found) = oneshot::channel();
        let (host, is_busy) = (name.to_owned(), Arc::clone(&self.is_busy));
        // A thread of its own, and not the runtime's: its end is not waited for when the server stops.
        let thread = std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            let found = (host.as_str(), 0).to_socket_addrs().map(|addresses| addresses.take(ADDRESSES_MAX));
            let found = found.map(|addresses| addresses.map(|address| address.ip().to_canonical()).collect::<Vec<_>>());
            is_busy.store(false, Ordering::Release);
            let _ = send.send(found);
        });
        if let Err(error) = thread {
            self.is_busy.store(false, Ordering::Release);
            return Err(Failure::Unresolved { name: name.to_owned(), why: error.to_string() });
        }
        let found = timeout(LIMIT, found).await.map_err(|_| silent())?.map_err(|_| silent())?;
        let mut found = found.map_err(|error| Failure::Unresolved { name: name.to_owned(), why: error.to_string() })?;
        found.sort();
        found.dedup();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_its_own_name_and_a_question_that_hangs_keeps_others_from_being_asked() {
        let resolver = Resolver::default();
        resolver.is_busy.store(true, Ordering::Release);
        assert_eq!(resolver.look_up("5.44.1.1").await, Ok(vec!["5.44.1.1".parse().unwrap()]));
        assert!(matches!(resolver.look_up("localhost").await, Err(Failure::ResolverSilent { .. })));
        resolver.is_busy.store(false, Ordering::Release);
        let found = resolver.look_up("localhost").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
        assert!(!resolver.is_busy.load(Ordering::Acquire));
    }
}
