//! The counters of all workers as metrics in the OpenMetrics text format; `exposition` has what scrapers are given.
//!
//! Labels come from closed lists (transport, family, direction, reason, ..., realms of the configuration): never a user, never an address. Every series
//! is there from the start, at zero.

mod fleet;
mod out;
mod store;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::status::{CertificateFacts, Status};
use crate::acme::NameFacts;
use crate::addr::{Family, Transport};
use crate::auth::Revocations;
use crate::counters::{self, BadHeader, Counter, Counters, Cut, Handshake, Histogram, NotPassed, TrafficCounters};
use crate::credentials::Outcome;
use crate::hook::{Told, ToldOf};
use crate::net::{AddressUsage, RelayPorts, sys};
use crate::policy::{Guard, Quotas};
use crate::reject::{Dropped, Reason};
use crate::traffic::Direction;
use crate::turn::{EndReason, Shared};
use crate::usage::Lost;
use crate::user::RealmId;
use crate::worker::Reservations;
use out::Out;

/// The metrics of the running server.
pub(super) struct Metrics {
    registry: Registry,
    /// How many workers have answered when they were asked last.
    answering: Arc<AtomicUsize>,
}

impl Metrics {
    pub(super) fn new(
        counters: Vec<Arc<Counters>>,
        relay_ports: Arc<RelayPorts>,
        reservations: Arc<Reservations>,
        shared: &Shared,
        status: Arc<Status>,
    ) -> Self {
        let mut registry = Registry::default();
        let Shared { quotas, guard, revocations, .. } = shared.clone();
        let answering = Arc::new(AtomicUsize::new(counters.len()));
        let of_observed = Arc::clone(&answering);
        let observed = Observed {
            counters,
            relay_ports,
            reservations,
            quotas,
            guard,
            revocations,
            status,
            answering: of_observed,
        };
        registry.register_collector(Box::new(observed));
        Self { registry, answering }
    }

    /// All metrics at this moment, in OpenMetrics 1.0, with so many workers that have just answered.
    ///
    /// # Errors
    /// None that is known; the encoder's signature has one.
    pub(super) fn text(&self, answering: usize) -> Result<String, fmt::Error> {
        self.answering.store(answering, Ordering::Relaxed);
        let mut text = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

type CounterOf = fn(&Counters) -> &Counter;
type TrafficOf = fn(&TrafficCounters) -> &Counter;

/// Where the numbers come from.
struct Observed {
    counters: Vec<Arc<Counters>>,
    relay_ports: Arc<RelayPorts>,
    reservations: Arc<Reservations>,
    quotas: Arc<Quotas>,
    guard: Arc<Guard>,
    revocations: Arc<Revocations>,
    status: Arc<Status>,
    answering: Arc<AtomicUsize>,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observed({} workers)", self.counters.len())
    }
}

impl Collector for Observed {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.encode_process(&mut out)?;
        self.encode_allocations(&mut out)?;
        self.encode_traffic(&mut out)?;
        self.encode_requests(&mut out)?;
        self.encode_relays(&mut out)?;
        self.encode_streams(&mut out)?;
        self.encode_dtls(&mut out)?;
        self.encode_hook(&mut out)?;
        if let Some(store) = self.status.store.get() {
            let without = self.quotas.made_without_share();
            store::encode(store, (self.status.leases.view(), without), &mut out)?;
        }
        fleet::encode(&self.status.fleet, &mut out)?;
        self.encode_usage(&mut out)?;
        self.encode_credentials(&mut out)
    }
}

impl Observed {
    fn encode_process(&self, out: &mut Out<'_>) -> fmt::Result {
        let status = &self.status;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let mut build = out.0.encode_descriptor("turnstone_build_info", "The program.", None, MetricType::Gauge)?;
        build.encode_family(&version)?.encode_gauge(&1_i64)?;
        let wrong_tokens = status.wrong_tokens.shown();
        out.counter(
            "turnstone_admin_wrong_tokens",
            "Requests with a wrong token, to the admin API or to listen of [fleet].",
            wrong_tokens,
        )?;
        let mut started = out.0.encode_descriptor(
            "process_start_time_seconds",
            "When the server started, in Unix seconds.",
            None,
            MetricType::Gauge,
        )?;
        started.encode_gauge(&status.started_unix_secs())?;
        let (open, limit) = sys::descriptors();
        out.gauge("process_open_fds", "Open descriptors of the process.", open)?;
        out.gauge("process_max_fds", "How many descriptors the process may have.", limit)?;
        let help = "The clock of the server, in Unix seconds: time-limited credentials expire by it.";
        out.gauge("turnstone_time_seconds", help, sys::clocks().1)?;
        out.gauge("turnstone_workers", "Worker threads.", self.counters.len() as u64)?;
        let help = "Worker threads that make progress: they have answered within two seconds when these metrics were asked for.";
        out.gauge("turnstone_workers_answering", help, self.answering.load(Ordering::Relaxed) as u64)?;
        let help =
            "1 while new allocations are made and no address of a relay or listener is missing; /readyz says what is.";
        out.gauge("turnstone_ready", help, u64::from(!status.draining() && status.not_ready().is_none()))?;
        out.gauge(
            "turnstone_draining",
            "1 while the server makes no new allocation because it is about to stop.",
            u64::from(status.draining()),
        )?;
        out.gauge(
            "turnstone_config_generation",
            "Configurations that have been in force since the start, this one included.",
            status.generation(),
        )?;
        for (name, help, outcomes) in [
            ("turnstone_config_reloads", "Reloads of the configuration.", &status.config_reloads),
            (
                "turnstone_certificate_reloads",
                "Changes of the certificate files that were noticed without a reload of the configuration.",
                &status.certificate_reloads,
            ),
        ] {
            let (applied, refused) = outcomes.get();
            out.counters(name, help, "result", [("applied", applied), ("refused", refused)])?;
        }
        if let Some(not_after) = status.certificate_not_after() {
            let help =
                "When the certificate of the TLS listeners expires, in Unix seconds; of several, the first that does.";
            let name = "turnstone_certificate_not_after_seconds";
            out.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&not_after)?;
        }
        let acme = status.acme.names();
        let of = |is: fn(&NameFacts) -> bool| acme.iter().filter(|name| is(name)).count() as u64;
        out.counters(
            "turnstone_acme_attempts",
            "Attempts to have a certificate by ACME, by what came of them.",
            "result",
            status.acme.attempts(),
        )?;
        out.gauge("turnstone_acme_names", "Names whose certificates the server gets for itself.", acme.len() as u64)?;
        out.gauge(
            "turnstone_acme_names_missing",
            "Names of which there is no certificate yet: TLS handshakes for them are refused.",
            of(|name| !name.has_certificate),
        )?;
        out.gauge(
            "turnstone_acme_names_failing",
            "Names whose last attempt has failed.",
            of(|name| name.failure.is_some()),
        )?;
        let certificates = status.certificates();
        for (name, help, of) in [
            (
                "turnstone_certificates_not_before_seconds",
                "From when on each certificate is good, in Unix seconds, by its file.",
                (|facts| facts.not_before_unix) as fn(&CertificateFacts) -> i64,
            ),
            (
                "turnstone_certificates_not_after_seconds",
                "When each certificate expires, in Unix seconds, by its file.",
                |facts| facts.not_after_unix,
            ),
        ] {
            let each = certificates.iter().map(|facts| (facts.file.as_str(), u64::try_from(of(facts)).unwrap_or(0)));
            if !certificates.is_empty() {
                out.gauges(name, help, "certificate", each)?;
            }
        }
        Ok(())
    }

    fn encode_allocations(&self, out: &mut Out<'_>) -> fmt::Result {
        let of = |list: fn(&Counters) -> &[Counter], index: usize| self.sum_at(list, index);
        let live =
            Transport::ALL.map(|transport| (transport.name(), counters::live_allocations(&self.counters, transport)));
        out.gauges("turnstone_allocations", "Live allocations, by client transport.", "transport", live)?;
        let made =
            Transport::ALL.map(|transport| (transport.name(), of(|counters| &counters.allocated, transport as usize)));
        out.counters("turnstone_allocations_made", "Allocations made, by client transport.", "transport", made)?;
        let ended = EndReason::ALL
            .iter()
            .map(|reason| (reason.label(), of(|counters| &counters.ended_by_reason, *reason as usize)));
        out.counters("turnstone_allocations_ended", "Allocations ended.", "reason", ended)?;
        let moved =
            Transport::ALL.map(|transport| (transport.name(), of(|counters| &counters.moved_to, transport as usize)));
        let help =
            "Allocations that have moved with their clients to another address, by the transport there (mobility).";
        out.counters("turnstone_allocations_moved", help, "transport", moved)?;

        self.encode_realms(out)?;

        self.encode_histogram(
            out,
            "turnstone_allocation_duration_seconds",
            "How long ended allocations lived.",
            |counters| &counters.durations,
        )?;
        self.encode_histogram(
            out,
            "turnstone_allocation_setup_seconds",
            "Time in the server of each Allocate that succeeded: from the wake-up that received it until its answer was sent.",
            |counters| &counters.setup_times,
        )
    }

    /// Realms are few, and those of the configuration in force.
    fn encode_realms(&self, out: &mut Out<'_>) -> fmt::Result {
        let Some(settings) = self.status.settings() else { return Ok(()) };
        let realms = || std::iter::once(settings.default_realm()).chain(settings.realms());
        let live = self.quotas.in_use_by_realm();
        let in_others: u32 = live.values().sum();
        let live = realms().map(|realm| {
            let name = realm.credentials().realm();
            let live = match realm.id() {
                RealmId::DEFAULT => self.quotas.in_use().saturating_sub(in_others),
                _ => live.get(name).copied().unwrap_or_default(),
            };
            (name, live.into())
        });
        out.gauges("turnstone_realm_allocations", "Live allocations, by realm.", "realm", live)?;
        let made = realms().map(|realm| (realm.credentials().realm(), realm.counts().allocated()));
        out.counters("turnstone_realm_allocations_made", "Allocations made, by realm.", "realm", made)?;
        let refused = realms().map(|realm| (realm.credentials().realm(), realm.counts().refused()));
        let help = "Requests refused after their nonce was found good, by realm: wrong credentials, quotas, peers.";
        out.counters("turnstone_realm_refusals", help, "realm", refused)
    }

    fn encode_traffic(&self, out: &mut Out<'_>) -> fmt::Result {
        self.encode_payload(out, "turnstone_payload_packets", "Packets of payload relayed", |traffic| {
            &traffic.packets
        })?;
        self.encode_payload(out, "turnstone_payload_bytes", "Bytes of payload relayed, without headers", |traffic| {
            &traffic.bytes
        })?;
        self.encode_histogram(
            out,
            "turnstone_relay_seconds",
            "Time in the server of each packet of payload: from the wake-up that received it until it was sent.",
            |counters| &counters.relay_times,
        )?;
        out.counter(
            "turnstone_own_relayed_packets",
            "Packets handed from one allocation to another in process; they count in both directions, too.",
            self.sum(|counters| &counters.own_relayed.packets),
        )?;
        out.counter(
            "turnstone_own_relayed_bytes",
            "Bytes of payload handed from one allocation to another in process.",
            self.sum(|counters| &counters.own_relayed.bytes),
        )?;
        let dropped = Dropped::ALL
            .iter()
            .map(|reason| (reason.label(), self.sum_at(|counters| &counters.dropped, *reason as usize)));
        out.counters("turnstone_dropped_packets", "Packets dropped without an answer.", "reason", dropped)?;
        let throttled = Direction::ALL.map(|direction| {
            (direction.label(), self.sum_at(|counters| &counters.throttled_bytes, direction as usize))
        });
        let help = "Bytes of payload dropped by bandwidth caps; their packets are dropped with the reason bandwidth.";
        out.counters("turnstone_throttled_bytes", help, "direction", throttled)?;
        let kernel_drops: [(&str, CounterOf); 2] =
            [("listener", |counters| &counters.listener_drops), ("relay", |counters| &counters.relay_drops)];
        out.counters(
            "turnstone_kernel_receive_drops",
            "Datagrams that the kernel dropped at UDP sockets, mostly for want of buffer. Counted with the next datagram \
             that the socket receives, or when a relay is closed.",
            "socket",
            kernel_drops.map(|(socket, counter)| (socket, self.sum(counter))),
        )?;
        let simple: [(&str, &str, CounterOf); 4] = [
            ("turnstone_send_errors", "Sends that the kernel refused.", |counters| &counters.send_errors),
            ("turnstone_gso_fallbacks", "Segmented sends that were repeated packet by packet.", |counters| {
                &counters.gso_fallbacks
            }),
            ("turnstone_icmp_errors", "ICMP errors passed on to clients.", |counters| &counters.icmp_errors),
            (
                "turnstone_mailbox_drops",
                "Packets between allocations, and requests of mobile clients, dropped because the other worker's mailbox was full.",
                |counters| &counters.mailbox_drops,
            ),
        ];
        simple.into_iter().try_for_each(|(name, help, counter)| out.counter(name, help, self.sum(counter)))
    }

    fn encode_requests(&self, out: &mut Out<'_>) -> fmt::Result {
        out.counter(
            "turnstone_stun_answers",
            "Answers to STUN requests, refusals included.",
            self.sum(|counters| &counters.answers),
        )?;
        out.counter(
            "turnstone_unauthenticated_replies",
            "Answers to requests that nobody has authenticated: Binding, and the challenge of each first request.",
            self.sum(|counters| &counters.stranger_replies),
        )?;
        out.counter(
            "turnstone_answers_elsewhere",
            "Answers from another address than asked, or to another port than asked from (NAT behaviour discovery, RFC 5780).",
            self.sum(|counters| &counters.detours),
        )?;
        out.counter(
            "turnstone_rfc3489_answers",
            "Answers to clients of RFC 3489, whose requests have no magic cookie.",
            self.sum(|counters| &counters.classic_replies),
        )?;
        out.counter(
            "turnstone_loops_cut",
            "Loops of packets between a relay and a peer that were cut ([guard] loop-packets-per-second).",
            self.sum(|counters| &counters.loops_cut),
        )?;
        out.counter(
            "turnstone_suspensions",
            "Users who were suspended for peers that are denied ([guard] suspend-after).",
            self.guard.suspensions(),
        )?;
        out.gauge(
            "turnstone_revocations",
            "What is revoked at this moment: credentials, users and keys, by the admin API and by the file.",
            self.revocations.len() as u64,
        )?;
        let help = "Requests refused, by error code and by the reason behind it.";
        let mut refusals = out.0.encode_descriptor("turnstone_refusals", help, None, MetricType::Counter)?;
        for reason in Reason::ALL {
            let code = reason.code().value().to_string();
            let count = self.sum_at(|counters| &counters.refused, *reason as usize);
            refusals
                .encode_family(&[("code", code.as_str()), ("reason", reason.label())])?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn encode_relays(&self, out: &mut Out<'_>) -> fmt::Result {
        let help = "Relay ports of each relay address: of allocations, reserved for an allocation to come (EVEN-PORT), and free.";
        let mut ports = out.0.encode_descriptor("turnstone_relay_ports", help, None, MetricType::Gauge)?;
        for family in Family::ALL {
            if !self.relay_ports.supports(family) {
                continue;
            }
            for AddressUsage { bind, external, used: held, total } in self.relay_ports.usage(family) {
                let reserved = self.reservations.held(bind);
                let (used, free) = (held.saturating_sub(reserved), total.saturating_sub(held));
                let address = external.to_string();
                for (state, count) in [("used", used), ("reserved", reserved), ("free", free)] {
                    let labels = [("address", address.as_str()), ("family", family.name()), ("state", state)];
                    ports.encode_family(&labels)?.encode_gauge(&i64::from(count))?;
                }
            }
        }
        self.encode_public_addresses(out)
    }

    fn encode_public_addresses(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &self.status.public_addresses;
        let help = "How often others were asked for the public address of the relays (external-ip), by who was asked and whether that has \
                    answered with one that can be used.";
        let mut asked = out.0.encode_descriptor("turnstone_external_ip_questions", help, None, MetricType::Counter)?;
        for (source, (answered, failed)) in stats.asked() {
            for (outcome, count) in [("answered", answered), ("failed", failed)] {
                asked
                    .encode_family(&[("source", source.name()), ("outcome", outcome)])?
                    .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "Changes of the public address that external-ip has found.";
        let mut changes = out.0.encode_descriptor("turnstone_external_ip_changes", help, None, MetricType::Counter)?;
        for family in Family::ALL {
            changes
                .encode_family(&[("family", family.name())])?
                .encode_counter::<NoLabelSet, _, u64>(&stats.changes(family), None)?;
        }
        let help = "When somebody has said last that the public address is still the one in force, in Unix seconds; 0 where external-ip has \
                    found none.";
        let name = "turnstone_external_ip_confirmed_timestamp_seconds";
        let mut confirmed = out.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let relays = self.status.relays();
        for family in Family::ALL {
            let of_family = relays.iter().filter(|facts| facts.family == family);
            let unix = of_family.filter_map(|facts| facts.confirmed_unix).max().unwrap_or(0);
            let unix = i64::try_from(unix).unwrap_or(i64::MAX);
            confirmed.encode_family(&[("family", family.name())])?.encode_gauge(&unix)?;
        }
        Ok(())
    }

    fn encode_streams(&self, out: &mut Out<'_>) -> fmt::Result {
        out.gauge(
            "turnstone_stream_connections",
            "Open TCP and TLS connections.",
            self.sum(|counters| &counters.connections),
        )?;
        let cut = Cut::ALL.map(|why| (why.label(), self.sum_at(|counters| &counters.connections_cut, why as usize)));
        let help = "Connections closed by the server: those without an allocation for another one when there was no place left, or after \
                    allocation-timeout; and those whose clients did not read their answers.";
        out.counters("turnstone_stream_connections_cut", help, "reason", cut)?;
        let refused = |why: BadHeader| self.sum_at(|counters| &counters.proxy_headers_refused, why as usize);
        let refused = BadHeader::ALL.map(|why| (why.label(), refused(why)));
        let help =
            "Connections closed, and datagrams dropped, from addresses of proxy-from because of their PROXY header.";
        out.counters("turnstone_proxy_headers_refused", help, "reason", refused)?;
        out.gauge(
            "turnstone_web_connections",
            "Open connections that go on to the web server of their port.",
            self.sum(|counters| &counters.web_connections),
        )?;
        let bytes = |at: usize| self.sum_at(|counters| &counters.web_bytes, at);
        let bytes = [("to-web", bytes(0)), ("to-client", bytes(1))];
        out.counters("turnstone_web_bytes", "Bytes passed on between clients and web servers.", "direction", bytes)?;
        let closed = |why: NotPassed| self.sum_at(|counters| &counters.web_closed, why as usize);
        let closed = NotPassed::ALL.map(|why| (why.label(), closed(why)));
        let help = "Connections for a web server that were closed by the server.";
        out.counters("turnstone_web_connections_closed", help, "reason", closed)?;
        out.gauge(
            "turnstone_peer_connections",
            "Connections of TCP relays with peers (RFC 6062).",
            self.sum(|counters| &counters.peer_connections),
        )?;
        let simple: [(&str, &str, CounterOf); 5] = [
            (
                "turnstone_web_connections_passed",
                "Connections that went on to the web server of their port.",
                |counters| &counters.web_passed,
            ),
            (
                "turnstone_peer_connections_bound",
                "Connections of TCP relays with peers that were bound to a client's connection.",
                |counters| &counters.peer_connections_bound,
            ),
            (
                "turnstone_stream_connections_refused",
                "Connections closed at once, because of a limit or because they could not be set up.",
                |counters| &counters.connections_refused,
            ),
            (
                "turnstone_stream_queue_drops",
                "Frames dropped because a TCP or TLS client did not read them in time.",
                |counters| &counters.stream_queue_drops,
            ),
            ("turnstone_tls_handshake_failures", "TLS handshakes that failed.", |counters| &counters.tls_failures),
        ];
        simple.into_iter().try_for_each(|(name, help, counter)| out.counter(name, help, self.sum(counter)))
    }

    fn encode_dtls(&self, out: &mut Out<'_>) -> fmt::Result {
        let help = "DTLS sessions, those whose handshake is under way included.";
        out.gauge("turnstone_dtls_sessions", help, self.sum(|counters| &counters.dtls_sessions))?;
        let handshakes =
            Handshake::ALL.map(|step| (step.label(), self.sum_at(|counters| &counters.dtls_handshakes, step as usize)));
        let help = "DTLS handshakes by how far they came: clients asked for a cookie, those that showed it and found no place, and what \
                    became of the others.";
        out.counters("turnstone_dtls_handshakes", help, "outcome", handshakes)
    }

    fn encode_hook(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &self.status.hook;
        let told = Told::ALL.map(|told| (told.label(), stats.of(told)));
        let help = "Questions about users to the application of [hook], by what came of them.";
        out.counters("turnstone_hook_questions", help, "result", told)?;
        let help = "1 while the application of [hook] is asked one question at a time for clients of some network, because it has failed for them within two minutes.";
        out.gauge("turnstone_hook_broken", help, u64::from(stats.is_broken()))?;
        let stats = &self.status.events;
        let told = ToldOf::ALL.map(|told| (told.label(), stats.of(told)));
        let help = "Events of allocations to the application of [hook], by what came of them; what is retried is counted each time.";
        out.counters("turnstone_hook_events", help, "result", told)?;
        out.gauge("turnstone_hook_events_waiting", "Events that wait to be told.", stats.waiting())?;
        let help = "1 while the application of [hook] has answered none of the last five events, for three seconds.";
        out.gauge("turnstone_hook_events_broken", help, u64::from(stats.is_broken()))
    }

    fn encode_usage(&self, out: &mut Out<'_>) -> fmt::Result {
        let usage = &self.status.usage;
        out.counter("turnstone_usage_records", "Usage records written to the file.", usage.written())?;
        let lost = Lost::ALL.map(|why| (why.label(), usage.lost(why)));
        out.counters(
            "turnstone_usage_records_lost",
            "Usage records lost, by the file or by the webhook.",
            "reason",
            lost,
        )?;
        let help = "Writes of usage records that failed; they are tried again.";
        out.counter("turnstone_usage_write_errors", help, usage.write_errors())?;
        let (taken, failed) = usage.webhook();
        let help = "Batches of usage records sent to the webhook; what failed is tried again.";
        out.counters("turnstone_usage_webhook_batches", help, "result", [("taken", taken), ("failed", failed)])?;
        let help = "Bytes of usage records that wait for the webhook.";
        out.gauge("turnstone_usage_spool_bytes", help, usage.spool_bytes())
    }

    fn encode_credentials(&self, out: &mut Out<'_>) -> fmt::Result {
        let outcomes = Outcome::ALL.map(|outcome| (outcome.label(), self.status.credentials.get(outcome)));
        let help = "Requests to the credentials API by what became of them, and connections that did not come to one.";
        out.counters("turnstone_credentials_requests", help, "outcome", outcomes)
    }

    fn encode_payload(&self, out: &mut Out<'_>, name: &str, what: &str, of: TrafficOf) -> fmt::Result {
        let help = format!("{what}, by the client's transport, the peer's family and direction.");
        let mut metric = out.0.encode_descriptor(name, &help, None, MetricType::Counter)?;
        for transport in Transport::ALL {
            for family in Family::ALL {
                for direction in Direction::ALL {
                    let of = |counters: &Counters| of(counters.payload.of(transport, family, direction)).get();
                    let count = counters::sum(&self.counters, of);
                    let labels =
                        [("transport", transport.name()), ("family", family.name()), ("direction", direction.label())];
                    metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }

    fn encode_histogram(
        &self,
        out: &mut Out<'_>,
        name: &str,
        help: &str,
        histogram: fn(&Counters) -> &Histogram,
    ) -> fmt::Result {
        let Some(first) = self.counters.first().map(|counters| histogram(counters)) else { return Ok(()) };
        let bounds = first.bounds_micros().iter().map(|micros| *micros as f64 / 1e6).chain([f64::MAX]);
        let classes = bounds.enumerate().map(|(index, bound)| {
            let of = |counters: &Counters| histogram(counters).classes().get(index).map_or(0, Counter::get);
            (bound, counters::sum(&self.counters, of))
        });
        let classes: Vec<(f64, u64)> = classes.collect();
        let count = classes.iter().map(|(_, count)| count).sum();
        let secs = counters::sum(&self.counters, |counters| histogram(counters).sum_micros()) as f64 / 1e6;
        let mut metric = out.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(secs, count, &classes, None)
    }

    fn sum(&self, counter: CounterOf) -> u64 {
        counters::sum(&self.counters, |counters| counter(counters).get())
    }

    fn sum_at(&self, list: fn(&Counters) -> &[Counter], index: usize) -> u64 {
        counters::sum_at(&self.counters, list, index)
    }
}
