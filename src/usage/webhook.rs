//! Sends batches of records: a POST each, again until it is taken, refused for what it says, or out of the spool.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::config::{Webhook, WebhookToken};

use super::spool::{Spool, count_lines};
use super::stats::{Lost, UsageStats};

const CONTENT_TYPE: &str = "application/x-ndjson";
/// The first wait after a failure is about this, and every further one twice as long up to the second.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// No server makes us wait longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// What is read of an answer, so that its connection can be used again.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// The token in force; a reload changes it.
pub(super) type Token = Arc<Mutex<Option<WebhookToken>>>;

/// What sends, on a thread of its own.
pub(super) struct Sender {
    agent: Agent,
    url: String,
    token: Token,
    spool: Arc<Spool>,
    stats: Arc<UsageStats>,
    /// Failures in a row.
    failures: u32,
}

enum Attempt {
    Taken,
    /// The batch itself is wrong for the server; it will not get better.
    Refused(String),
    /// To be tried again, after this if the server said so.
    Failed(String, Option<Duration>),
}

impl Sender {
    pub(super) fn new(settings: &Webhook, token: Token, spool: Arc<Spool>, stats: Arc<UsageStats>) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .max_idle_connections(1)
            .timeout_global(Some(settings.timeout))
            .user_agent(concat!("turnstone/", env!("CARGO_PKG_VERSION")));
        if settings.url.starts_with("https:") {
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::Specific(Arc::new(authorities())))
                .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()));
            config = config.https_only(true).tls_config(tls.build());
        }
        Self { agent: config.build().into(), url: settings.url.clone(), token, spool, stats, failures: 0 }
    }

    /// Sends until the spool stops, and then until it is empty or something fails.
    pub(super) fn run(mut self) {
        while let Some(batch) = self.spool.next() {
            let attempt = match batch.read() {
                Ok(body) if body.is_empty() => {
                    self.spool.done(&batch);
                    continue;
                }
                Ok(body) => (self.post(&body), count_lines(&body)),
                // Somebody has deleted it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.spool.done(&batch);
                    continue;
                }
                Err(error) => (Attempt::Failed(error.to_string(), None), 0),
            };
            let stops = match attempt {
                (Attempt::Taken, _) => {
                    self.succeeded();
                    self.spool.done(&batch);
                    false
                }
                (Attempt::Refused(problem), records) => {
                    self.stats.count_attempt(false);
                    self.stats.count_lost(Lost::Refused, records);
                    tracing::error!(%problem, records, "the webhook refused usage records; they are dropped");
                    self.failures = 0;
                    self.spool.done(&batch);
                    false
                }
                (Attempt::Failed(problem, after), _) => self.failed(&problem, after),
            };
            if stops {
                return;
            }
        }
    }

    fn post(&self, body: &str) -> Attempt {
        let mut request = self.agent.post(&self.url).content_type(CONTENT_TYPE);
        if let Some(token) = self.token.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            request = request.header("Authorization", format!("Bearer {}", token.expose()));
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Attempt::Failed(error.to_string(), None),
        };
        let status = response.status();
        let after = response.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let after = after.map(|secs| Duration::from_secs(secs).min(RETRY_AFTER_MAX));
        let _ = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        judge(status, after)
    }

    fn succeeded(&mut self) {
        self.stats.count_attempt(true);
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!("the webhook takes usage records again");
        }
    }

    /// Returns whether to give up.
    fn failed(&mut self, problem: &str, after: Option<Duration>) -> bool {
        self.stats.count_attempt(false);
        let wait = after.map_or_else(|| backoff(self.failures, random()), |after| after.max(BACKOFF_MIN));
        if self.failures == 0 {
            tracing::warn!(%problem, "the webhook does not take usage records; they wait in the spool");
        } else {
            tracing::debug!(%problem, failures = self.failures, wait_ms = wait.as_millis() as u64, "the webhook failed");
        }
        self.failures = self.failures.saturating_add(1);
        self.spool.pause(wait)
    }
}

/// What an answer means. What may be a matter of who sends, when or where keeps the records; only what can be a matter of
/// the records themselves drops them.
fn judge(status: StatusCode, after: Option<Duration>) -> Attempt {
    const OF_THE_SENDER: [u16; 7] = [401, 403, 404, 407, 408, 425, 429];
    let problem = format!("HTTP status {}", status.as_u16());
    if status.is_success() {
        Attempt::Taken
    } else if status.is_client_error() && !OF_THE_SENDER.contains(&status.as_u16()) {
        Attempt::Refused(problem)
    } else {
        Attempt::Failed(problem, after)
    }
}

/// How long to wait after so many failures: twice as long each time, less up to a half by chance.
fn backoff(failures: u32, random: u32) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << failures.min(6)).min(BACKOFF_MAX);
    whole - (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter.
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

/// Those that the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
fn authorities() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let problem = found.errors.first().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%problem, "the system has no certificate authorities: no https webhook can be trusted");
    }
    found.certs.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_is_jittered() {
        let waits = |random| (0..9).map(|failures| backoff(failures, random).as_millis()).collect::<Vec<_>>();
        assert_eq!(waits(0), [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        assert_eq!(waits(u32::MAX), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert!(backoff(u32::MAX, 7) <= BACKOFF_MAX);
    }

    #[test]
    fn only_what_is_wrong_with_the_records_themselves_drops_them() {
        let meaning = |code| match judge(StatusCode::from_u16(code).unwrap(), None) {
            Attempt::Taken => "taken",
            Attempt::Refused(_) => "refused",
            Attempt::Failed(..) => "failed",
        };
        for (code, expected) in [
            (200, "taken"),
            (204, "taken"),
            (301, "failed"),
            (400, "refused"),
            (401, "failed"),
            (403, "failed"),
            (404, "failed"),
            (413, "refused"),
            (422, "refused"),
            (429, "failed"),
            (500, "failed"),
            (503, "failed"),
        ] {
            assert_eq!(meaning(code), expected, "{code}");
        }
    }
}
