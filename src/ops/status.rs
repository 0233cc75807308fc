//! What the control runtime knows of the running server besides the workers' counters; its endpoints show it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::admin::WrongTokens;
use super::lately::Lately;
use crate::acme::AcmeStats;
use crate::addr::Family;
use crate::credentials::CredentialsStats;
use crate::fleet::FleetStats;
use crate::hook::{EventStats, HookStats};
use crate::public_address::{Asked, SourceKind};
use crate::store::Store;
use crate::store::leases::LeaseStats;
use crate::turn::Settings;
use crate::usage::UsageStats;
use crate::worker::fill_from_system;

/// Written by the control runtime, read by the endpoints.
#[derive(Debug)]
pub(super) struct Status {
    started_unix_secs: f64,
    instance: u32,
    draining: AtomicBool,
    generation: AtomicU64,
    /// Reloads of the configuration, and of certificates whose files changed: applied and refused.
    pub(super) config_reloads: Outcomes,
    pub(super) certificate_reloads: Outcomes,
    certificates: ArcSwap<Vec<CertificateFacts>>,
    /// What became of usage records.
    pub(super) usage: Arc<UsageStats>,
    /// What became of questions about users.
    pub(super) hook: Arc<HookStats>,
    pub(super) events: Arc<EventStats>,
    /// What became of requests for credentials.
    pub(super) credentials: Arc<CredentialsStats>,
    /// What the servers of a fleet share.
    pub(super) store: OnceLock<Store>,
    /// This server's shares of quotas over the fleet.
    pub(super) leases: Arc<LeaseStats>,
    /// What became of questions to the other nodes.
    pub(super) fleet: FleetStats,
    /// What it has done of late.
    pub(super) lately: Lately,
    /// What became of certificates that the server gets for itself.
    pub(super) acme: Arc<AcmeStats>,
    /// What was shown to the admin API and is not its token.
    pub(super) wrong_tokens: WrongTokens,
    settings: ArcSwapOption<Settings>,
    not_ready: ArcSwapOption<String>,
    relays: ArcSwap<Vec<RelayFacts>>,
    /// What came of asking for public addresses.
    pub(super) public_addresses: Arc<PublicAddressStats>,
}

/// A relay address, and where the one outside is from.
#[derive(Clone, Debug)]
pub(super) struct RelayFacts {
    pub(super) family: Family,
    pub(super) bind: IpAddr,
    /// `None` while nobody has said it.
    pub(super) external: Option<IpAddr>,
    pub(super) source: &'static str,
    pub(super) confirmed_unix: Option<u64>,
    pub(super) failure: Option<String>,
}

/// How often others were asked for public addresses, and what came of it.
#[derive(Debug, Default)]
pub(super) struct PublicAddressStats {
    asked: [Outcomes; SourceKind::ASKED.len()],
    changes: [AtomicU64; 2],
}

impl PublicAddressStats {
    pub(super) fn count(&self, asked: &Asked) {
        let failed = asked.failures.iter().map(|(source, _)| (*source, false));
        for (source, answered) in asked.answer.iter().map(|answer| (answer.source, true)).chain(failed) {
            let outcomes = SourceKind::ASKED.iter().zip(&self.asked).find(|(kind, _)| **kind == source);
            if let Some((_, outcomes)) = outcomes {
                outcomes.count(answered);
            }
        }
    }

    /// Each kind of source, how often it has answered, and how often not.
    pub(super) fn asked(&self) -> impl Iterator<Item = (SourceKind, (u64, u64))> {
        SourceKind::ASKED.into_iter().zip(self.asked.iter().map(Outcomes::get))
    }

    pub(super) fn count_change(&self, family: Family) {
        if let Some(changes) = self.changes.get(family as usize) {
            changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn changes(&self, family: Family) -> u64 {
        self.changes.get(family as usize).map_or(0, |changes| changes.load(Ordering::Relaxed))
    }
}

/// What a certificate says of itself.
#[derive(Clone, Debug)]
pub(super) struct CertificateFacts {
    pub(super) file: String,
    /// Whether the server has got it for itself.
    pub(super) is_acme: bool,
    /// The server names that it is chosen by.
    pub(super) names: Vec<String>,
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) not_before_unix: i64,
    pub(super) not_after_unix: i64,
}

/// How often something was applied, and how often refused.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    applied: AtomicU64,
    refused: AtomicU64,
    is_last_refused: AtomicBool,
}

impl Outcomes {
    pub(super) fn count(&self, applied: bool) {
        self.is_last_refused.store(!applied, Ordering::Relaxed);
        let counter = if applied { &self.applied } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the last one was refused: what is in force is not what is there.
    pub(super) fn is_last_refused(&self) -> bool {
        self.is_last_refused.load(Ordering::Relaxed)
    }

    /// Applied, refused.
    pub(super) fn get(&self) -> (u64, u64) {
        (self.applied.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

impl Status {
    /// A server that starts now, with the first generation of its configuration.
    pub(super) fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut instance = [0; 4];
        fill_from_system(&mut instance);
        Self {
            instance: u32::from_be_bytes(instance),
            started_unix_secs: started.as_secs_f64(),
            draining: AtomicBool::new(false),
            generation: AtomicU64::new(1),
            config_reloads: Outcomes::default(),
            certificate_reloads: Outcomes::default(),
            certificates: ArcSwap::default(),
            usage: Arc::default(),
            hook: Arc::default(),
            events: Arc::default(),
            credentials: Arc::default(),
            store: OnceLock::new(),
            leases: Arc::default(),
            fleet: FleetStats::default(),
            lately: Lately::default(),
            acme: Arc::default(),
            wrong_tokens: WrongTokens::default(),
            settings: ArcSwapOption::empty(),
            not_ready: ArcSwapOption::empty(),
            relays: ArcSwap::default(),
            public_addresses: Arc::default(),
        }
    }

    pub(super) fn started_unix_secs(&self) -> f64 {
        self.started_unix_secs
    }

    /// A random number that tells this run of the server from every other.
    pub(super) fn instance(&self) -> u32 {
        self.instance
    }

    pub(super) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// How many configurations have been in force, this one included.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(super) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// When the first of the certificates in use expires, in Unix seconds.
    pub(super) fn certificate_not_after(&self) -> Option<i64> {
        self.certificates.load().iter().map(|certificate| certificate.not_after_unix).min()
    }

    /// The certificates in use.
    pub(super) fn certificates(&self) -> Arc<Vec<CertificateFacts>> {
        self.certificates.load_full()
    }

    pub(super) fn set_certificates(&self, certificates: Vec<CertificateFacts>) {
        self.certificates.store(Arc::new(certificates));
    }

    /// What the server lacks, if it is not ready.
    pub(super) fn not_ready(&self) -> Option<Arc<String>> {
        self.not_ready.load_full()
    }

    pub(super) fn set_not_ready(&self, reason: Option<String>) {
        self.not_ready.store(reason.map(Arc::new));
    }

    /// The relay addresses.
    pub(super) fn relays(&self) -> Arc<Vec<RelayFacts>> {
        self.relays.load_full()
    }

    pub(super) fn set_relays(&self, relays: Vec<RelayFacts>) {
        self.relays.store(Arc::new(relays));
    }

    /// What the workers go by.
    pub(super) fn settings(&self) -> Option<Arc<Settings>> {
        self.settings.load_full()
    }

    pub(super) fn set_settings(&self, settings: Arc<Settings>) {
        self.settings.store(Some(settings));
    }
}
