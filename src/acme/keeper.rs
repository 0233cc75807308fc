//! The task that has a certificate for each name at any time: orders, renews, keeps, and waits.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier, Error};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::account;
use super::answers::Answers;
use super::exchange::Exchange;
use super::failure::Failure;
use super::kept::{Kept, Record, Usable};
use super::kind::Kind;
use super::order::{Places, Wanted, order};
use super::stats::{AcmeStats, NameFacts};
use super::{fraction, schedule, unix_now};
use crate::clock::utc_text;
use crate::config::Acme;
use crate::stream::Validations;

/// One attempt, from the account to the certificate.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(300);
/// The host's clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(600);

/// The task, as the server's loop has it.
pub(crate) struct Keeper {
    orders: watch::Sender<Orders>,
    issued: mpsc::Receiver<String>,
    task: JoinHandle<()>,
}

/// What the task works with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) validations: Arc<Validations>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) stats: Arc<AcmeStats>,
}

/// What is wanted of it.
#[derive(Clone, Default)]
struct Orders {
    acme: Option<Arc<Acme>>,
    /// How often the configuration was read again.
    reloads: u64,
}

impl Keeper {
    pub(crate) fn start(acme: Option<&Acme>, tools: Tools) -> Self {
        let (orders, wanted) = watch::channel(Orders { acme: acme.cloned().map(Arc::new), reloads: 0 });
        let (send, issued) = mpsc::channel(1);
        let task = tokio::spawn(run(wanted, send, tools));
        Self { orders, issued, task }
    }

    /// The configuration was read again: other names may be wanted, and what has failed is tried again soon.
    pub(crate) fn reload(&self, acme: Option<&Acme>) {
        self.orders.send_modify(|orders| {
            orders.acme = acme.cloned().map(Arc::new);
            orders.reloads += 1;
        });
    }

    /// Waits for a name whose certificate is on the disk, and new.
    pub(crate) async fn issued(&mut self) -> String {
        match self.issued.recv().await {
            Some(name) => name,
            // It ends with the server.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(mut wanted: watch::Receiver<Orders>, issued: mpsc::Sender<String>, tools: Tools) {
    loop {
        let Orders { acme, .. } = wanted.borrow_and_update().clone();
        let Some(acme) = acme else {
            tools.stats.set_names(Vec::new());
            match wanted.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let mut round = Round::new(acme, &tools);
        loop {
            round.publish();
            let now_unix = unix_now();
            let next_unix = round.next_unix();
            if next_unix <= now_unix {
                // What is begun is gone through with, whatever else is wanted meanwhile: it is counted, by us and by the authority.
                if let Some(name) = round.go_on(now_unix).await
                    && issued.send(name).await.is_err()
                {
                    return;
                }
                if !wanted.has_changed().unwrap_or(false) {
                    continue;
                }
                break;
            }
            let pause = Duration::from_secs(next_unix - now_unix).min(SLEEP_MAX);
            tokio::select! {
                () = sleep(pause) => {}
                changed = wanted.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                }
            }
        }
    }
}

/// The names of one configuration.
struct Round<'t> {
    acme: Arc<Acme>,
    tools: &'t Tools,
    kept: Kept,
    exchange: Exchange,
    account: Option<Account>,
    names: Vec<Name>,
}

struct Name {
    name: String,
    record: Record,
    /// The certificate there is, and whether it is from the authority that is asked now.
    certificate: Option<Usable>,
}

impl Name {
    fn load(name: &str, acme: &Acme, kept: &Kept) -> Self {
        let mut record = kept.record(name);
        let certificate = kept.certificate(name);
        if record.directory != acme.directory.as_str() {
            // What another authority has refused does not count for this one.
            let (issued_by, directory) = (std::mem::take(&mut record.issued_by), acme.directory.as_str().to_owned());
            record = Record { issued_by, directory, ..Record::default() };
        }
        schedule::set_right(&mut record, unix_now());
        let mut name = Self { name: name.to_owned(), record, certificate };
        name.plan();
        name
    }

    /// Says when the certificate is renewed, if that was said of another one.
    fn plan(&mut self) {
        let Some(usable) = &self.certificate else { return };
        if self.record.of_not_after_unix != usable.validity.not_after_unix {
            self.record.of_not_after_unix = usable.validity.not_after_unix;
            self.record.renew_unix = Some(schedule::renewal(usable.validity, fraction()));
            self.record.window_unix = None;
            self.record.advice_unix = 0;
        }
    }

    fn is_of(&self, acme: &Acme) -> bool {
        self.certificate.is_some() && self.record.issued_by == acme.directory.as_str()
    }

    fn due_unix(&self, acme: &Acme) -> u64 {
        let usable = self.certificate.as_ref().filter(|_| self.is_of(acme));
        schedule::due(&self.record, usable.map(|usable| usable.validity))
    }

    /// When the authority is asked for advice; not while there is no certificate that this would be about.
    fn advice_unix(&self, acme: &Acme) -> u64 {
        if self.is_of(acme) { self.record.advice_unix } else { u64::MAX }
    }
}

impl<'t> Round<'t> {
    fn new(acme: Arc<Acme>, tools: &'t Tools) -> Self {
        let (kept, exchange) = (Kept::new(&acme), Exchange::new(&acme));
        let mut names: Vec<_> = acme.names.iter().map(|name| Name::load(name, &acme, &kept)).collect();
        // Whoever starts the server or has it read its configuration may have mended what was in the way.
        names.iter_mut().for_each(|name| schedule::hurry(&mut name.record));
        for name in names.iter().filter(|name| name.certificate.is_none()) {
            tracing::info!(
                name = name.name,
                authority = %acme.directory,
                at = utc_text(name.due_unix(&acme).max(unix_now())),
                "there is no certificate yet: one is asked for, and TLS handshakes for the name are refused until it is there"
            );
        }
        Self { acme, tools, kept, exchange, account: None, names }
    }

    fn publish(&self) {
        let facts = self.names.iter().map(|name| NameFacts {
            name: name.name.clone(),
            has_certificate: name.certificate.is_some(),
            next_unix: name.due_unix(&self.acme),
            failures: name.record.failures,
            failure: name.record.failure.clone(),
        });
        self.tools.stats.set_names(facts.collect());
    }

    fn next_unix(&self) -> u64 {
        let of = |name: &Name| name.due_unix(&self.acme).min(name.advice_unix(&self.acme));
        self.names.iter().map(of).min().unwrap_or(u64::MAX)
    }

    /// Does what has been due for longest. Returns the name whose certificate is new.
    async fn go_on(&mut self, now_unix: u64) -> Option<String> {
        let due = |name: &Name| name.due_unix(&self.acme);
        let index = (0..self.names.len()).min_by_key(|index| self.names.get(*index).map(due))?;
        if self.names.get(index).is_some_and(|name| due(name) <= now_unix) {
            return self.attempt(index, now_unix).await;
        }
        let advice = |name: &Name| name.advice_unix(&self.acme);
        let index = (0..self.names.len()).min_by_key(|index| self.names.get(*index).map(advice))?;
        self.take_advice(index, now_unix).await;
        None
    }

    async fn attempt(&mut self, index: usize, now_unix: u64) -> Option<String> {
        let name = self.names.get_mut(index)?;
        let before_failures = name.record.failures;
        schedule::begin(&mut name.record, now_unix, fraction());
        name.record.directory = self.acme.directory.as_str().to_owned();
        // An attempt that nobody remembers would be made again and again.
        let result = match self.kept.keep_record(&name.name, &name.record).await {
            Ok(()) => timeout(ATTEMPT_LIMIT, self.ask(index, before_failures)).await.unwrap_or_else(|_| {
                let said = "the certificate authority was not done within five minutes";
                Err(Failure::new(Kind::Authority, said))
            }),
            Err(error) => Err(Failure::disk(self.kept.folder(), &error)),
        };
        let name = self.names.get_mut(index)?;
        let result = match result {
            Ok((pem, usable)) => match self.kept.keep_certificate(&name.name, pem).await {
                Ok(()) => Ok(usable),
                Err(error) => Err(Failure::disk(self.kept.folder(), &error)),
            },
            Err(failure) => Err(failure),
        };
        let is_issued = result.is_ok();
        match result {
            Ok(usable) => {
                self.tools.stats.count_issued();
                name.certificate = Some(usable);
                name.record.issued_by = self.acme.directory.as_str().to_owned();
                (name.record.failures, name.record.failure) = (0, None);
                (name.record.retry_unix, name.record.wait_unix) = (0, 0);
                name.plan();
            }
            Err(failure) => {
                self.tools.stats.count_failure(failure.kind);
                name.record.failure = Some(failure.to_string());
                if let Some(wait) = failure.wait_unix {
                    name.record.wait_unix = schedule::wait_until(now_unix, wait);
                }
                let ends = name.certificate.as_ref().map(|usable| utc_text(usable.validity.not_after_unix));
                tracing::warn!(
                    name = name.name,
                    kind = failure.kind.label(),
                    failures = name.record.failures,
                    next = utc_text(name.due_unix(&self.acme)),
                    current_ends = ends.as_deref().unwrap_or("there is none"),
                    "no certificate was had by ACME: {failure}"
                );
                // A connection, and what was read of the directory, may be what is wrong.
                self.account = None;
                if failure.is_account_gone {
                    account::forget(&self.acme, &self.kept).await;
                }
            }
        }
        let name = self.names.get(index)?;
        if let Err(error) = self.kept.keep_record(&name.name, &name.record).await {
            tracing::warn!(name = name.name, %error, "what was tried for a certificate cannot be kept");
        }
        is_issued.then(|| name.name.clone())
    }

    /// Asks for a certificate.
    async fn ask(&mut self, index: usize, failures: u32) -> Result<(zeroize::Zeroizing<Vec<u8>>, Usable), Failure> {
        let places =
            Places { validations: Arc::clone(&self.tools.validations), answers: Arc::clone(&self.tools.answers) };
        self.exchange.begin();
        let account = self.account().await?;
        let Some(name) = self.names.get(index) else {
            return Err(Failure::new(Kind::Authority, "there is no such name"));
        };
        // Once it has failed, it is asked for as any other: the authority may not take the other for one that can be replaced.
        let replaces = name.certificate.as_ref().filter(|_| failures == 0 && name.record.window_unix.is_some());
        let replaces = replaces.and_then(|usable| CertificateIdentifier::try_from(&usable.leaf).ok());
        let replaces = replaces.map(CertificateIdentifier::into_owned);
        let wanted = Wanted { name: &name.name, challenges: self.acme.challenges, failures, replaces };
        let issued = order(&account, &self.exchange, &places, wanted).await?;
        Ok((issued.pem, issued.usable))
    }

    async fn account(&mut self) -> Result<Account, Failure> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let account = account::open(&self.acme, &self.kept, &self.exchange).await?;
        Ok(self.account.insert(account).clone())
    }

    /// Asks the authority when it wants a certificate renewed (RFC 9773). Whoever gives no advice is asked again a day later, if at all.
    async fn take_advice(&mut self, index: usize, now_unix: u64) {
        self.exchange.begin();
        let advice = timeout(ATTEMPT_LIMIT, self.advice(index)).await.unwrap_or(None);
        let Some(name) = self.names.get_mut(index) else { return };
        let (window, again_secs) = advice.map_or((None, u64::MAX), |(window, again)| (Some(window), again));
        name.record.advice_unix = schedule::advice_again(now_unix, again_secs);
        if let Some(window) = window.filter(|window| name.record.window_unix != Some(*window)) {
            let renew_unix = schedule::within(window, fraction());
            tracing::debug!(
                name = name.name,
                at = utc_text(renew_unix),
                "the certificate authority says when to renew"
            );
            (name.record.window_unix, name.record.renew_unix) = (Some(window), Some(renew_unix));
        }
        if let Err(error) = self.kept.keep_record(&name.name, &name.record).await {
            tracing::warn!(name = name.name, %error, "when to renew a certificate cannot be kept");
        }
    }

    /// The window, and in how many seconds to ask again.
    async fn advice(&mut self, index: usize) -> Option<((u64, u64), u64)> {
        let account = self.account().await.ok()?;
        let leaf = &self.names.get(index)?.certificate.as_ref()?.leaf;
        let id = CertificateIdentifier::try_from(leaf).ok()?;
        let advice = account.renewal_info(&id).await;
        if let Err(error) = &advice
            && !matches!(error, Error::Unsupported(_))
        {
            tracing::debug!(%error, "the certificate authority does not say when to renew");
            self.account = None;
        }
        let (info, again) = advice.ok()?;
        let unix = |time: i64| u64::try_from(time).ok();
        let window = info.suggested_window;
        Some(((unix(window.start.unix_timestamp())?, unix(window.end.unix_timestamp())?), again.as_secs()))
    }
}
