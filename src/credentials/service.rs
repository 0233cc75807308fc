//! The API as an endpoint: reads each request whole, has it answered, and counts what came of it.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use hyper::Request;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::issuer::{Issuer, Lasting};
use super::refused::Refused;
use super::reply::Reply;
use super::request::{Asked, forwarded_for};
use super::revoke::{RevokeOrder, Revoker};
use super::routes;
use super::stats::{CredentialsStats, Outcome};
use super::test_page;
use crate::addr::{LoggedIp, Transport};
use crate::auth::{Revocation, Revocations};
use crate::config::{Config, CredentialsApi};
use crate::http::{Answer, BadBody, Caller, Handler, read_body};
use crate::net::sys;

/// The longest body.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// A body must be there within this.
const BODY_LIMIT: Duration = Duration::from_secs(4);

/// The credentials API of the running server.
pub(crate) struct CredentialsService {
    issuer: ArcSwap<Issuer>,
    lasting: Lasting,
    stats: Arc<CredentialsStats>,
    revoker: Revoker,
}

impl CredentialsService {
    /// The service, and what it wants revoked. `listeners` are those of the configuration, with their real ports; `revocations` what is
    /// revoked in the server.
    pub(crate) fn new(
        api: &CredentialsApi,
        config: &Config,
        listeners: &[(Transport, SocketAddr)],
        revocations: Arc<Revocations>,
        stats: Arc<CredentialsStats>,
    ) -> (Self, mpsc::Receiver<RevokeOrder>) {
        let lasting = Lasting::new(revocations);
        let issuer = Issuer::new(api, config, listeners, &lasting);
        let (revoker, orders) = Revoker::new();
        (Self { issuer: ArcSwap::from_pointee(issuer), lasting, stats, revoker }, orders)
    }

    /// Answers by another configuration from now on.
    pub(crate) fn reload(&self, api: &CredentialsApi, config: &Config, listeners: &[(Transport, SocketAddr)]) {
        self.issuer.store(Arc::new(Issuer::new(api, config, listeners, &self.lasting)));
    }
}

impl Handler for CredentialsService {
    fn admits(&self, from: Option<IpAddr>) -> bool {
        let admitted = self.issuer.load().admits(from, sys::clocks().0);
        if !admitted {
            self.stats.count(Outcome::Flood);
        }
        admitted
    }

    fn handshake_failed(&self) {
        self.stats.count(Outcome::Handshake);
    }

    async fn respond(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        let (head, body) = request.into_parts();
        // Whole before anything is answered: who is still sending may not see the answer.
        let body = timeout(BODY_LIMIT, read_body(body, BODY_BYTES_MAX)).await;
        caller.has_asked();
        let issuer = self.issuer.load_full();
        let forwarded = if issuer.forwarded_for { forwarded_for(&head.headers) } else { None };
        let address = forwarded.or(caller.address);
        let reply = match body {
            Ok(Ok(body)) => {
                let (now_micros, now_unix) = sys::clocks();
                let has_secret_key = Cell::default();
                let asked = Asked { head: &head, body: &body, address, now_micros, now_unix, has_secret_key };
                match test_page::answer(&issuer, &asked) {
                    Some(Ok(answer)) => Reply { answer, outcome: Outcome::Informed, revokes: None },
                    Some(Err(refused)) => Reply { answer: refused.answer(), outcome: refused.outcome, revokes: None },
                    None => routes::reply(&issuer, &asked),
                }
            }
            Ok(Err(BadBody::TooLong)) => routes::refusal(&issuer, &head, &Refused::body_too_large(BODY_BYTES_MAX)),
            Ok(Err(BadBody::CutOff)) => {
                routes::refusal(&issuer, &head, &Refused::bad_request("the body ends before its end"))
            }
            Err(_) => routes::refusal(&issuer, &head, &Refused::too_slow()),
        };
        let Reply { answer, outcome, .. } = match reply.revokes.clone() {
            Some(revocation) => match self.revoker.revoke(revocation.clone()).await {
                Ok(()) => {
                    what_comes_is_issued_later(&revocation).await;
                    reply
                }
                Err(why) => routes::refusal(&issuer, &head, &Refused::not_revoked(why)),
            },
            None => reply,
        };
        self.stats.count(outcome);
        tracing::debug!(
            target: "turnstone::credentials",
            from = address.map(|ip| LoggedIp(ip).to_string()),
            path = ?head.uri.path(),
            outcome = outcome.label(),
            status = answer.status().as_u16(),
            "request for a credential"
        );
        answer
    }
}

/// Waits for the second before which credentials are revoked to be over: who has the answer and asks for another one gets one that is good.
async fn what_comes_is_issued_later(revocation: &Revocation) {
    let Some(issued_before) = revocation.issued_before else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_secs(issued_before.unix).saturating_sub(now);
    sleep(left.min(Duration::from_secs(1))).await;
    // Credentials are made by the coarse clock, which is a tick of the kernel behind: ten milliseconds at most.
    for _ in 0..10 {
        if sys::clocks().1 >= issued_before.unix {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
}
