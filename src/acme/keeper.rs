//! The task that has a certificate for each name at any time: orders, renews, keeps, and waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier, Error};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::account;
use super::answers::Answers;
use super::exchange::Exchange;
use super::failure::{Failure, Step};
use super::kept::{Kept, Record, Tried, Usable};
use super::kind::Kind;
use super::order::{Places, Wanted, order};
use super::stats::{AcmeStats, NameFacts};
use super::{fraction, schedule};
use crate::clock::utc_text;
use crate::config::Acme;
use crate::state_file::on_disk;
use crate::stream::Validations;
use crate::wall_clock::unix_now;

/// One attempt, from the account to the certificate.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(300);
/// How often all of it is tried in one attempt where nonces are refused.
const NONCE_TRIES: u32 = 3;
/// The host's clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(600);
/// What is kept cannot be read now: it is looked for again.
const UNREAD_SECS: u64 = 60;

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

    /// How often that has been.
    pub(crate) fn reloads(&self) -> u64 {
        self.orders.borrow().reloads
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
        let Orders { acme, reloads } = wanted.borrow_and_update().clone();
        let Some(acme) = acme else {
            tools.stats.set_names(Vec::new(), reloads);
            match wanted.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let mut round = match Round::load(Arc::clone(&acme), &tools, reloads).await {
            Ok(round) => round,
            Err(error) => {
                // What was tried is not known, and nothing is tried that might be too much.
                let failure = Failure::disk(&acme.folder, &error);
                tracing::warn!(
                    kind = failure.kind.label(),
                    "what is kept of certificates by ACME cannot be read: {failure}"
                );
                tools.stats.set_names(unread(&acme, &tools.stats, &failure), reloads);
                tokio::select! {
                    () = sleep(Duration::from_secs(UNREAD_SECS)) => continue,
                    changed = wanted.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    }
                }
            }
        };
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

/// How it stands with the names where nothing of them can be read: as it stood before.
fn unread(acme: &Acme, stats: &AcmeStats, failure: &Failure) -> Vec<NameFacts> {
    let known = stats.names();
    let facts = |name: &String| {
        let known = known.iter().find(|facts| facts.name == *name);
        NameFacts {
            name: name.clone(),
            has_certificate: known.is_some_and(|facts| facts.has_certificate),
            not_after_unix: known.and_then(|facts| facts.not_after_unix),
            next_unix: unix_now() + UNREAD_SECS,
            failures: known.map_or(0, |facts| facts.failures).max(1),
            failure: Some(failure.to_string()),
        }
    };
    acme.names.iter().map(facts).collect()
}

/// The names of one configuration.
struct Round<'t> {
    acme: Arc<Acme>,
    tools: &'t Tools,
    kept: Kept,
    exchange: Exchange,
    account: Option<Account>,
    names: Vec<Name>,
    reloads: u64,
    /// Attempts in a row that have failed before a name was looked at.
    failed_for_all: u32,
}

struct Name {
    name: String,
    record: Record,
    /// The certificate there is, and whether it is from the authority that is asked now.
    certificate: Option<Usable>,
}

impl Name {
    fn of(name: &str, acme: &Acme, (mut record, certificate): (Record, Option<Usable>)) -> Self {
        record.turn_to(acme.directory.as_str(), unix_now());
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

    /// When it is asked for again, if nothing holds up all names.
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
    /// Reads what is kept of the names.
    async fn load(acme: Arc<Acme>, tools: &'t Tools, reloads: u64) -> io::Result<Self> {
        let (kept, of) = (Kept::new(&acme), Arc::clone(&acme));
        let exchange = on_disk("acme-trust", move || Ok(Exchange::new(&of))).await?;
        let found = kept.all(&acme.names).await?;
        let mut names: Vec<_> =
            acme.names.iter().zip(found).map(|(name, found)| Name::of(name, &acme, found)).collect();
        // Whoever starts the server or has it read its configuration may have mended what was in the way.
        names.iter_mut().for_each(|name| schedule::hurry(&mut name.record.tried));
        let round = Self { acme, tools, kept, exchange, account: None, names, reloads, failed_for_all: 0 };
        let held_unix = round.held_unix().max(unix_now());
        for name in round.names.iter().filter(|name| name.certificate.is_none()) {
            tracing::info!(
                name = name.name,
                authority = %round.acme.directory,
                at = utc_text(name.due_unix(&round.acme).max(held_unix)),
                "there is no certificate yet: one is asked for, and TLS handshakes for the name are refused until it is there"
            );
        }
        Ok(round)
    }

    /// Until when no name is asked for.
    fn held_unix(&self) -> u64 {
        schedule::due_of_all(self.names.iter().map(|name| &name.record.tried))
    }

    fn publish(&self) {
        let held_unix = self.held_unix();
        let facts = self.names.iter().map(|name| NameFacts {
            name: name.name.clone(),
            has_certificate: name.certificate.is_some(),
            not_after_unix: name.certificate.as_ref().map(|usable| usable.validity.not_after_unix),
            next_unix: name.due_unix(&self.acme).max(held_unix),
            failures: name.record.tried.failures(),
            failure: name.record.tried.failure.clone(),
        });
        self.tools.stats.set_names(facts.collect(), self.reloads);
    }

    fn next_unix(&self) -> u64 {
        let of = |name: &Name| name.due_unix(&self.acme).min(name.advice_unix(&self.acme));
        self.names.iter().map(of).min().unwrap_or(u64::MAX).max(self.held_unix())
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
        let before = name.record.tried.clone();
        name.record.tried.begin(now_unix, fraction());
        self.exchange.begin();
        // An attempt that nobody remembers would be made again and again.
        let result = match self.kept.keep_record(&name.name, &name.record).await {
            Ok(()) => timeout(ATTEMPT_LIMIT, self.ask(index, before.failures)).await.unwrap_or_else(|_| {
                let said = "the certificate authority was not done within five minutes";
                Err(Failure::new(Kind::Authority, said))
            }),
            Err(error) => Err(Failure::disk(self.kept.folder(), &error).at(Step::Account)),
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
                name.record.tried.succeed();
                name.plan();
                self.failed_for_all = 0;
            }
            Err(failure) => {
                self.tools.stats.count_failure(failure.kind);
                self.note(index, &failure, before);
                let held_unix = self.held_unix();
                let name = self.names.get(index)?;
                let ends = name.certificate.as_ref().map(|usable| utc_text(usable.validity.not_after_unix));
                tracing::warn!(
                    name = name.name,
                    kind = failure.kind.label(),
                    failures = name.record.tried.failures(),
                    next = utc_text(name.due_unix(&self.acme).max(held_unix)),
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

    /// Notes what has failed: for this name, and, where no name was looked at, for all.
    fn note(&mut self, index: usize, failure: &Failure, before: Tried) {
        let now_unix = unix_now();
        let is_second = {
            let others = self.names.iter().enumerate().filter(|(other, _)| *other != index);
            others.map(|(_, name)| name.record.tried.wait_unix).any(|wait| wait > now_unix)
        };
        self.failed_for_all = if failure.is_of_all() { self.failed_for_all.saturating_add(1) } else { 0 };
        let Some(name) = self.names.get_mut(index) else { return };
        let tried = &mut name.record.tried;
        tried.failure = Some(failure.to_string());
        if !self.exchange.has_posted() {
            tried.uncount(before, now_unix, fraction());
        }
        if let Some(wait) = failure.wait_unix {
            tried.wait_unix = schedule::wait_until(now_unix, wait);
        }
        if failure.is_of_all() {
            tried.retry_all_unix = schedule::retry_soon(self.failed_for_all, now_unix, fraction());
            if let Some(wait) = failure.wait_unix {
                // An authority that wants one name to wait may mean that name; one that wants two to wait means all.
                tried.wait_all_unix = match failure.is_of_account() {
                    true => schedule::wait_until(now_unix, wait),
                    false if is_second => schedule::wait_of_all_until(now_unix, wait),
                    false => 0,
                };
            }
        }
    }

    /// Asks for a certificate. A request whose nonce is refused is made again at once, and so is all of it where that did not help:
    /// nothing is wrong with the name (RFC 8555 section 6.5).
    async fn ask(&mut self, index: usize, failures: u32) -> Result<(zeroize::Zeroizing<Vec<u8>>, Usable), Failure> {
        for before in 1..NONCE_TRIES {
            match self.ask_once(index, failures, before == 1).await {
                Err(failure) if failure.is_nonce_refused => {}
                result => return result,
            }
        }
        self.ask_once(index, failures, false).await
    }

    async fn ask_once(
        &mut self,
        index: usize,
        failures: u32,
        is_first: bool,
    ) -> Result<(zeroize::Zeroizing<Vec<u8>>, Usable), Failure> {
        let places =
            Places { validations: Arc::clone(&self.tools.validations), answers: Arc::clone(&self.tools.answers) };
        let account = self.account().await.map_err(|failure| failure.at(Step::Account))?;
        let Some(name) = self.names.get(index) else {
            return Err(Failure::new(Kind::Authority, "there is no such name"));
        };
        // Once it has failed, it is asked for as any other: the authority may not take the other for one that can be replaced.
        let replaces =
            name.certificate.as_ref().filter(|_| is_first && failures == 0 && name.record.window_unix.is_some());
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
