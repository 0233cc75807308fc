//! Sends batches of records: a POST each, again until it is taken or out of the spool. What is refused for what it says is
//! divided until the record is found.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::config::{Webhook, WebhookToken, WebhookUrl};

use super::spool::{Batch, Spool, count_lines};
use super::stats::{Lost, UsageStats};

const CONTENT_TYPE: &str = "application/x-ndjson";
/// The first wait after a failure is about this, and every further one twice as long up to the second.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// No server makes us wait longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// What is read of an answer, so that its connection can be used again.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// Failures in a row after which a batch makes room for others, or is divided for want of others.
const DIVIDE_AFTER: u32 = 3;
/// A record that has failed so often though others were taken meanwhile is set aside.
const SUSPICIOUS_MAX: u32 = 5;
/// While so many batches wait, none is divided for want of others to try.
const PARTS_MAX: usize = 16;
/// Batches and parts of them that are refused in a row before it is the webhook that must be wrong, and not all of these records:
/// they wait then as for one that fails, and none is set aside until another was taken.
const REFUSED_IN_A_ROW_MAX: u32 = 64;
/// Records named in the log when they are set aside: so many in this time.
const TOLD_MAX: u32 = 10;
const TOLD_INTERVAL: Duration = Duration::from_secs(60);

/// The token in force; a reload changes it.
pub(super) type Token = Arc<Mutex<Option<WebhookToken>>>;

/// What sends, on a thread of its own.
pub(super) struct Sender {
    agent: Agent,
    url: WebhookUrl,
    token: Token,
    spool: Arc<Spool>,
    stats: Arc<UsageStats>,
    /// Failures in a row.
    failures: u32,
    /// Batches taken.
    taken: u64,
    /// A batch was set back since the last one that was taken.
    is_out_of_order: bool,
    refused_in_a_row: u32,
    /// When records that are set aside began to be told of, and how many were since.
    told_since: Option<Instant>,
    told: u32,
}

enum Attempt {
    Taken,
    /// Something in the batch is wrong for the server; it will not get better.
    Refused(String),
    /// To be tried again, after this if the server said so.
    Failed {
        problem: String,
        after: Option<Duration>,
        suspects: Suspects,
    },
}

/// What a failure may be about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suspects {
    /// Who sends, where and when.
    Nothing,
    /// There was no answer: the network or the server, rather than what was sent.
    Either,
    /// A server that is there has failed.
    Records,
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
        if settings.url.expose().starts_with("https:") {
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::Specific(Arc::new(authorities())))
                .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()));
            config = config.https_only(true).tls_config(tls.build());
        }
        Self {
            agent: config.build().into(),
            url: settings.url.clone(),
            token,
            spool,
            stats,
            failures: 0,
            taken: 0,
            is_out_of_order: false,
            refused_in_a_row: 0,
            told_since: None,
            told: 0,
        }
    }

    /// Sends until the spool stops, and then until it is empty or something fails.
    pub(super) fn run(mut self) {
        while let Some(batch) = self.spool.next() {
            let body = match batch.read() {
                Ok(body) if body.is_empty() => {
                    self.spool.done(&batch);
                    continue;
                }
                Ok(body) => body,
                // Somebody has deleted it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.spool.done(&batch);
                    continue;
                }
                Err(error) => {
                    if self.failed(&error.to_string(), None) {
                        return;
                    }
                    continue;
                }
            };
            let attempt = match self.post(&body) {
                Attempt::Refused(problem) if self.refused_in_a_row >= REFUSED_IN_A_ROW_MAX => {
                    Attempt::Failed { problem, after: None, suspects: Suspects::Records }
                }
                attempt => attempt,
            };
            let stops = match attempt {
                Attempt::Taken => {
                    self.spool.done(&batch);
                    self.succeeded();
                    false
                }
                Attempt::Refused(problem) => match self.divide_or_set_aside(&batch, &body, &problem) {
                    Ok(()) => {
                        self.stats.count_attempt(false);
                        self.failures = 0;
                        self.refused_in_a_row += 1;
                        false
                    }
                    Err(error) => self.failed(&unwritable(&problem, &error), None),
                },
                Attempt::Failed { problem, after, suspects } => {
                    let learned = match suspects {
                        Suspects::Nothing => Ok(()),
                        _ => self.learn_from_failure(batch, &body, &problem, suspects),
                    };
                    self.failed(&learned.err().map_or(problem.clone(), |error| unwritable(&problem, &error)), after)
                }
            };
            if stops {
                return;
            }
        }
    }

    /// The webhook does not take these records: half of them is tried by itself, until one is left, which is set aside. One
    /// record must not cost the others of its batch, nor hold up those behind it.
    fn divide_or_set_aside(&mut self, batch: &Batch, body: &str, problem: &str) -> io::Result<()> {
        match count_lines(body) {
            0 | 1 => self.spool.set_aside(batch, body).map(|path| self.tell_refused(body, problem, &path)),
            _ => self.spool.divide(batch, body),
        }
    }

    /// A webhook that is out of order fails with every batch; one that a record puts out of order takes others meanwhile. So a
    /// batch that has failed some times makes room for others, and one that fails again after others were taken is divided, or,
    /// when it is one record and that has happened some times, set aside.
    fn learn_from_failure(
        &mut self,
        mut batch: Batch,
        body: &str,
        problem: &str,
        suspects: Suspects,
    ) -> io::Result<()> {
        let is_one = count_lines(body) <= 1;
        let is_suspicious = batch.failures.taken_before.is_some_and(|before| self.taken > before);
        let is_time = self.failures % DIVIDE_AFTER == DIVIDE_AFTER - 1;
        // In order, as long as it may be the webhook; what was set back once takes turns with the others.
        if !is_time && batch.failures.taken_before.is_none() {
            return Ok(());
        }
        batch.failures.taken_before = Some(self.taken);
        if is_suspicious {
            batch.failures.suspicious += 1;
            if !is_one || batch.failures.suspicious >= SUSPICIOUS_MAX {
                return self.divide_or_set_aside(&batch, body, problem);
            }
        }
        // Nothing else may come for long: then parts of it are the others. Not without end, it may be the webhook after all.
        if is_time && suspects == Suspects::Records && !is_one && self.spool.sealed() < PARTS_MAX {
            return self.divide_or_set_aside(&batch, body, problem);
        }
        self.is_out_of_order = true;
        self.spool.set_back(batch);
        Ok(())
    }

    /// Names the record in the log; not every one of thousands.
    fn tell_refused(&mut self, body: &str, problem: &str, path: &Path) {
        self.stats.count_lost(Lost::Refused, 1);
        let now = Instant::now();
        if self.told_since.is_none_or(|since| now >= since + TOLD_INTERVAL) {
            (self.told_since, self.told) = (Some(now), 0);
        }
        self.told += 1;
        if self.told > TOLD_MAX {
            return;
        }
        let record: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let text = |key: &str| record.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
        let seq = record.get("seq").and_then(serde_json::Value::as_u64).unwrap_or_default();
        tracing::error!(
            %problem,
            seq,
            kind = text("type"),
            session = text("session"),
            user = text("user"),
            file = %path.display(),
            "the webhook does not take this usage record; it is set aside in the file"
        );
        if self.told == TOLD_MAX {
            tracing::error!("the webhook does not take further usage records; no line each for a minute");
        }
    }

    fn post(&self, body: &str) -> Attempt {
        let mut request = self.agent.post(self.url.expose()).content_type(CONTENT_TYPE);
        if let Some(token) = self.token.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            request = request.header("Authorization", format!("Bearer {}", token.expose()));
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => {
                let suspects = if is_before_sending(&error) { Suspects::Nothing } else { Suspects::Either };
                return Attempt::Failed { problem: self.url.redact(&error.to_string()), after: None, suspects };
            }
        };
        let status = response.status();
        let after = response.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let after = after.map(|secs| Duration::from_secs(secs).min(RETRY_AFTER_MAX));
        let _ = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        judge(status, after)
    }

    fn succeeded(&mut self) {
        self.stats.count_attempt(true);
        self.taken += 1;
        self.refused_in_a_row = 0;
        if std::mem::take(&mut self.is_out_of_order) {
            self.spool.restore_order();
        }
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

/// Why nothing comes of a failure.
fn unwritable(problem: &str, error: &io::Error) -> String {
    format!("{problem}; and the spool cannot be written: {error}")
}

/// What an answer means. What may be a matter of who sends, when or where keeps the batch as it is; only what can be a matter
/// of the records themselves divides it.
fn judge(status: StatusCode, after: Option<Duration>) -> Attempt {
    const OF_THE_SENDER: [u16; 14] = [401, 402, 403, 404, 405, 406, 407, 408, 410, 411, 415, 421, 425, 429];
    let problem = format!("HTTP status {}", status.as_u16());
    if status.is_success() {
        Attempt::Taken
    } else if status.is_client_error() && !OF_THE_SENDER.contains(&status.as_u16()) {
        Attempt::Refused(problem)
    } else {
        // A server that names a time is busy, and has nothing against the records.
        let is_about_records = status.is_server_error() && after.is_none();
        let suspects = if is_about_records { Suspects::Records } else { Suspects::Nothing };
        Attempt::Failed { problem, after, suspects }
    }
}

/// Whether a request has failed before anything of it was sent.
fn is_before_sending(error: &ureq::Error) -> bool {
    use io::ErrorKind;
    use ureq::{Error, Timeout};
    match error {
        Error::HostNotFound | Error::ConnectionFailed => true,
        Error::Timeout(timeout) => matches!(timeout, Timeout::Resolve | Timeout::Connect),
        Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
        ),
        // Certificates that are not trusted come as errors of rustls.
        Error::Rustls(_) => true,
        _ => false,
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
    fn only_what_is_wrong_with_the_records_themselves_divides_them() {
        let meaning = |code| match judge(StatusCode::from_u16(code).unwrap(), None) {
            Attempt::Taken => "taken",
            Attempt::Refused(_) => "refused",
            Attempt::Failed { .. } => "failed",
        };
        for (code, expected) in [
            (200, "taken"),
            (204, "taken"),
            (301, "failed"),
            (400, "refused"),
            (401, "failed"),
            (403, "failed"),
            (404, "failed"),
            (405, "failed"),
            (415, "failed"),
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
