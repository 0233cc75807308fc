//! What a node takes: its own load, whether it has room for clients of others, and which others have room for clients of this one.
//!
//! Sent away by load is nobody twice: a node that says it has room takes everybody for a while, whatever becomes of its load, and another
//! one goes by that word for less than half of that while ([`PROMISE`]).

use std::sync::Arc;
use std::time::Instant;

use super::nodes::{Fleet, PROMISE, lock};
use crate::addr::{Family, Transport};
use crate::config::{Config, NodeUrl};
use crate::fleet::NodeReport;
use crate::store::{Part, Store};
use crate::turn::{AlternateServer, Alternates, Other};
use crate::worker::Command;

/// Above this load a node has no room for clients of others.
const ROOM_BELOW_PERCENT: u64 = 90;
impl Fleet {
    /// Of a hundred parts of what this node takes before it sends clients to others, or can take at all.
    pub(in crate::ops) fn load_percent(&self) -> Option<u64> {
        let settled = self.settled.load();
        let redirect = settled.by_load()?;
        let parts = |is: u64, most: u64| (most > 0).then(|| is.saturating_mul(100) / most);
        let by_count = parts(self.workers.live_allocations(), redirect.from_allocations.into());
        let by_rate = redirect.from_bytes_per_sec.and_then(|from| parts(self.status.lately.bytes_per_sec(), from));
        let by_total = settled.allocations_total.and_then(|total| parts(self.workers.live_allocations(), total.into()));
        // Of the family that has least left: who comes may want either.
        let ports = |family| parts(self.relay_ports.used(family).into(), self.relay_ports.capacity(family).into());
        [by_count, by_rate, by_total, ports(Family::V4), ports(Family::V6)].into_iter().max().flatten()
    }

    /// Whether this node takes clients of others.
    fn has_room(&self) -> bool {
        let is_there = !self.status.draining() && self.status.not_ready().is_none() && self.can_authenticate();
        is_there && self.load_percent().is_some_and(|load| load < ROOM_BELOW_PERCENT)
    }

    /// Says that it has room, if it has: from now on it takes everybody for a while.
    pub(in crate::ops) fn promise_room(&self) -> bool {
        if !self.has_room() {
            return false;
        }
        *lock(&self.promised_until) = Some(Instant::now() + PROMISE);
        self.publish();
        true
    }

    /// Whether newcomers can have what they are sent here for.
    fn can_authenticate(&self) -> bool {
        let relies = self.settled.load().relies;
        let store_is_well = !relies.on_store || self.status.store.get().is_none_or(is_well);
        store_is_well && !(relies.on_hook && lock(&self.hook).is_lost(self.status.hook.is_broken(), Instant::now()))
    }

    /// Tells the workers where there is room, if that has changed.
    pub(super) fn publish(&self) {
        // Held until the workers are told: of two at a time, the later one says what is so.
        let mut published = lock(&self.published);
        let others: Arc<[Other]> = self.others(Instant::now()).into();
        if *published != others {
            *published = Arc::clone(&others);
            self.workers.tell(|| Command::Others(Arc::clone(&others)));
        }
    }

    fn others(&self, now: Instant) -> Vec<Other> {
        let is_promised = lock(&self.promised_until).is_some_and(|until| now < until);
        if self.settled.load().by_load().is_none() || is_promised && !self.status.draining() {
            return Vec::new();
        }
        let mut others = Vec::new();
        for node in self.nodes() {
            let seen = node.seen();
            let Some((report, _)) = seen.report.filter(|_| seen.room_until.is_some_and(|until| now < until)) else {
                continue;
            };
            let load_percent = u16::try_from(report.load_percent.unwrap_or(0)).unwrap_or(u16::MAX);
            let servers = servers_of(&report, is_near(node.asker.url()), self.chance);
            others.extend(servers.map(|server| Other { server, load_percent }));
        }
        // A node that names one of our addresses would have clients go round.
        let Some(settings) = self.status.settings() else { return Vec::new() };
        let servers = others.iter().map(|other| other.server).collect();
        let rules = settings.peer_policies().default_policy().rules();
        let fit = Config::alternates_but_own(&Alternates { servers, domain: None }, rules).servers;
        others.retain(|other| fit.contains(&other.server));
        others
    }
}

/// Whether a store answers, with what clients are authenticated by. That a user's value cannot be used is no reason: who asks for that name may be
/// anybody.
fn is_well(store: &Store) -> bool {
    let stats = store.stats();
    let (is_connected, refused) = (stats.view().is_connected, stats.refused());
    // Beside one secret that cannot be used, others are in force; and so is what was read before it could not be any more.
    let has_secrets = stats.secrets() > 0 || !refused.contains_key(&Part::Secrets);
    is_connected && has_secrets && !refused.contains_key(&Part::Users)
}

/// Where a node's clients come: at one address for each transport and family, which `chance` decides. Whoever draws among all nodes'
/// addresses then draws a node with many no more often than one with a single one.
fn servers_of(report: &NodeReport, is_near: bool, chance: u64) -> impl Iterator<Item = AlternateServer> {
    let kinds = Transport::ALL.into_iter().flat_map(|transport| Family::ALL.map(|family| (transport, family)));
    kinds.filter_map(move |(transport, family)| {
        let fit = || {
            report.clients.iter().filter(move |client| {
                let ip = client.address.ip();
                client.transport() == Some(transport) && Family::of(ip) == family && (is_near || !ip.is_loopback())
            })
        };
        let nth = usize::try_from(chance.checked_rem(fit().count() as u64)?).ok()?;
        Some(AlternateServer { transport: Some(transport), address: fit().nth(nth)?.address })
    })
}

/// Whether a node is on this host: its clients may be, too.
fn is_near(url: &NodeUrl) -> bool {
    matches!(url, NodeUrl::Unix(_)) || url.address().is_some_and(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_drawn_once_for_each_transport_and_family_however_many_addresses_it_names() {
        let client = |transport: &str, address: &str| serde_json::json!({ "transport": transport, "address": address });
        let many = (1..=29).map(|port| client("udp", &format!("198.51.100.66:{port}")));
        let few = [client("udp", "[2001:db8::1]:1"), client("tcp", "198.51.100.66:1"), client("tls", "127.0.0.1:1")];
        let report = serde_json::json!({
            "name": "n", "version": "1", "instance": "x", "started_unix": 1, "state": "serving", "ready": true, "sessions": 0,
            "bytes_per_sec": 0, "refused_last_minute": 0, "load_percent": 0, "room": true, "problems": [],
            "clients": many.chain(few).collect::<Vec<_>>(),
        });
        let report = NodeReport::read(report.to_string().as_bytes()).unwrap();
        let of = |is_near, chance| {
            let servers = servers_of(&report, is_near, chance);
            servers.map(|server| format!("{:?} {}", server.transport.unwrap(), server.address)).collect::<Vec<_>>()
        };
        let rest = ["Udp [2001:db8::1]:1", "Tcp 198.51.100.66:1"];
        assert_eq!(of(false, 0), [&["Udp 198.51.100.66:1"], &rest[..]].concat());
        assert_eq!(of(false, 30), [&["Udp 198.51.100.66:2"], &rest[..]].concat(), "another server names another one");
        assert_eq!(of(true, 0).len(), 4);
    }
}
