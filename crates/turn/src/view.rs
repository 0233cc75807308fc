//! What an operator may see of the allocations, and how one is ended from outside.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::addr::{FiveTuple, PeerAddr, RelayedAddr, Transport};
use crate::clock::Now;
use crate::traffic::Traffic;
use crate::user::User;

use super::allocation::Allocation;
use super::connections::Stage;
use super::ids::AllocationId;
use super::output::{Client, EndReason};
use super::pass::Pass;
use super::relays::Relays;
use super::server::Server;

/// A live allocation, at one moment; what of it has expired is left out. Times are monotonic microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationView {
    /// The allocation.
    pub id: AllocationId,
    /// Its 5-tuple.
    pub five_tuple: FiveTuple,
    /// The whole username.
    pub username: Arc<str>,
    /// What quotas count on.
    pub user: User,
    /// Whether the user makes more allocations than are told of one by one.
    pub is_frequent: bool,
    /// When the credential expires, in Unix seconds; `None` for a static user.
    pub credential_expires_unix: Option<u64>,
    /// The relayed transport addresses, and when each expires if nothing refreshes it.
    pub relayed: Vec<(RelayedAddr, u64)>,
    /// When it was made.
    pub made_micros: u64,
    /// Payload from client to peers.
    pub to_peers: Traffic,
    /// Payload from peers to client.
    pub to_client: Traffic,
    /// Payload packets dropped by bandwidth caps.
    pub throttled: u64,
    /// How many permissions it has.
    pub permissions: usize,
    /// How many channels it has.
    pub channels: usize,
    /// How many connections with peers it has, if its relays are TCP.
    pub connections: Option<usize>,
}

/// An allocation with its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationDetail {
    /// The allocation itself.
    pub allocation: AllocationView,
    /// Permitted addresses, and until when.
    pub permissions: Vec<(IpAddr, u64)>,
    /// Channel numbers, their peers, and until when.
    pub channels: Vec<(u16, PeerAddr, u64)>,
    /// Peers of TCP relays, and how far the connection with each has come.
    pub connections: Vec<(PeerAddr, ConnectionStage)>,
}

/// How far a connection between a TCP relay and a peer has come (RFC 6062).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionStage {
    /// The peer has not answered yet.
    Connecting,
    /// It waits for the client's ConnectionBind.
    Unbound,
    /// It carries data.
    Bound,
}

impl ConnectionStage {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Unbound => "unbound",
            Self::Bound => "bound",
        }
    }
}

/// Which allocations are meant; a field that is `None` excludes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllocationFilter {
    /// Exactly this username, or this user part of a time-limited one.
    pub user: Option<String>,
    /// The user's realm by its name; that of `Some(None)` is the default one.
    pub realm: Option<Option<String>>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// An address with a permission, a channel or a connection.
    pub peer: Option<IpAddr>,
    /// A relayed transport address.
    pub relayed: Option<SocketAddr>,
    /// The transport between client and server.
    pub transport: Option<Transport>,
}

/// What the live allocations of one user come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserTotal {
    /// The user's realm, if it is not the default one.
    pub realm: Option<Arc<str>>,
    /// The user, as quotas count it.
    pub user: Arc<str>,
    /// Live allocations.
    pub allocations: u64,
    /// Payload from clients to peers.
    pub to_peers: Traffic,
    /// Payload from peers to clients.
    pub to_client: Traffic,
}

impl AllocationFilter {
    fn matches(&self, allocation: &Allocation, now_micros: u64) -> bool {
        let FiveTuple { transport, client, .. } = allocation.client.five_tuple;
        let identity = &allocation.identity;
        let named = |user: &String| **user == *identity.username || **user == **identity.user.name();
        self.user.as_ref().is_none_or(named)
            && self.realm.as_ref().is_none_or(|realm| identity.user.is_in_realm(realm.as_deref()))
            && self.client.is_none_or(|ip| ip == client.get().ip())
            && self.transport.is_none_or(|wanted| wanted == transport)
            && self
                .relayed
                .is_none_or(|wanted| relays(allocation, now_micros).any(|(relayed, _)| relayed.get() == wanted))
            && self.peer.is_none_or(|ip| has_peer(allocation, ip, now_micros))
    }
}

/// A list of allocations that is being made, a part at a time.
#[derive(Debug)]
pub struct Listing {
    pass: Pass,
    filter: AllocationFilter,
    limit: usize,
    found: Vec<AllocationView>,
}

impl Listing {
    /// Whether there is nothing more to look at.
    pub fn is_done(&self) -> bool {
        self.pass.is_over()
    }

    /// What was found, in the order of the ids; each as it was when it was looked at.
    pub fn into_found(self) -> Vec<AllocationView> {
        self.found
    }
}

/// Totals that are being made, a part at a time.
#[derive(Debug)]
pub struct Totals {
    pass: Pass,
    by_user: HashMap<(Option<Arc<str>>, Arc<str>), UserTotal>,
}

impl Totals {
    /// Whether there is nothing more to look at.
    pub fn is_done(&self) -> bool {
        self.pass.is_over()
    }

    /// Every user who has an allocation, in no order.
    pub fn into_users(self) -> Vec<UserTotal> {
        self.by_user.into_values().collect()
    }
}

/// Allocations that are being ended from outside, a part at a time.
#[derive(Debug)]
pub struct Kick {
    pass: Pass,
    whom: Whom,
}

#[derive(Debug)]
enum Whom {
    Matching(AllocationFilter, EndReason),
    Revoked,
}

impl Kick {
    /// Whether there is nothing more to look at.
    pub fn is_done(&self) -> bool {
        self.pass.is_over()
    }
}

impl Server {
    /// A list, yet to be made, of the allocations that match, in the order of their ids, from the first one after `after` on, at
    /// most `limit`.
    pub fn listing(&self, filter: AllocationFilter, after: Option<AllocationId>, limit: usize) -> Listing {
        Listing { pass: self.pass(after), filter, limit, found: Vec::new() }
    }

    /// Looks at the next allocations, at most `most`.
    pub fn list(&self, now: Now, listing: &mut Listing, most: usize) {
        for _ in 0..most {
            if listing.found.len() >= listing.limit {
                return listing.pass.stop();
            }
            let Some(slot) = self.next_in(&mut listing.pass) else { return };
            let Some(allocation) = self.live(now, slot) else { continue };
            if listing.filter.matches(allocation, now.micros) {
                listing.found.push(view(allocation, now.micros));
            }
        }
    }

    /// One allocation.
    pub fn show(&self, now: Now, id: AllocationId) -> Option<AllocationDetail> {
        let allocation = self.live(now, self.allocations.find_id(id)?)?;
        Some(AllocationDetail {
            allocation: view(allocation, now.micros),
            permissions: permissions(allocation, now.micros).collect(),
            channels: channels(allocation, now.micros).collect(),
            connections: connections(allocation).collect(),
        })
    }

    /// Totals, yet to be made, of every user's allocations.
    pub fn totals(&self) -> Totals {
        Totals { pass: self.pass(None), by_user: HashMap::new() }
    }

    /// Adds the next allocations, at most `most`.
    pub fn add_up(&self, now: Now, totals: &mut Totals, most: usize) {
        for _ in 0..most {
            let Some(slot) = self.next_in(&mut totals.pass) else { return };
            let Some(allocation) = self.live(now, slot) else { continue };
            let user = &allocation.identity.user;
            let (realm, name) = (user.realm().cloned(), Arc::clone(user.name()));
            let total = totals.by_user.entry((realm.clone(), Arc::clone(&name))).or_insert_with(|| UserTotal {
                realm,
                user: name,
                allocations: 0,
                to_peers: Traffic::default(),
                to_client: Traffic::default(),
            });
            total.allocations += 1;
            total.to_peers += allocation.to_peers;
            total.to_client += allocation.to_client;
        }
    }

    /// The end, yet to come, of the allocations that match, or of the one with this id if it matches.
    pub fn kicking(&self, filter: AllocationFilter, id: Option<AllocationId>) -> Kick {
        let pass = id.map_or_else(|| self.pass(None), Pass::over);
        Kick { pass, whom: Whom::Matching(filter, EndReason::Kicked) }
    }

    /// The end, yet to come, of the allocation with this id, which an application that was told of it does not want.
    pub fn ending_refused(&self, id: AllocationId) -> Kick {
        Kick { pass: Pass::over(id), whom: Whom::Matching(AllocationFilter::default(), EndReason::HookRefused) }
    }

    /// The end, yet to come, of the allocations whose credential is revoked by now.
    pub fn ending_revoked(&self) -> Kick {
        Kick { pass: self.pass(None), whom: Whom::Revoked }
    }

    /// Ends an allocation whose credential is revoked.
    pub(super) fn ends_revoked<R: Relays>(&mut self, now: Now, slot: u32, relays: &mut R) -> bool {
        let Some(allocation) = self.allocations.get(slot) else { return false };
        let is_over = self.shared.revocations.covers(&allocation.identity, now.unix_secs);
        if is_over {
            self.end(now, slot, EndReason::Revoked, relays);
        }
        is_over
    }

    /// Looks at the next allocations, at most `most`, and ends those that are meant. Returns their clients.
    pub fn kick<R: Relays>(&mut self, now: Now, kick: &mut Kick, most: usize, relays: &mut R) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..most {
            let Some(slot) = self.next_in(&mut kick.pass) else { break };
            let Some(allocation) = self.live(now, slot) else { continue };
            let client = allocation.client;
            let is_ended = match &kick.whom {
                Whom::Revoked => self.ends_revoked(now, slot, relays),
                Whom::Matching(filter, reason) => {
                    let is_meant = filter.matches(allocation, now.micros);
                    if is_meant {
                        self.end(now, slot, *reason, relays);
                    }
                    is_meant
                }
            };
            clients.extend(is_ended.then_some(client));
        }
        clients
    }

    /// The allocation in a slot, if its time is not over.
    pub(super) fn live(&self, now: Now, slot: u32) -> Option<&Allocation> {
        self.allocations.get(slot).filter(|allocation| allocation.is_live(now.micros))
    }
}

fn view(allocation: &Allocation, now_micros: u64) -> AllocationView {
    AllocationView {
        id: allocation.id,
        five_tuple: allocation.client.five_tuple,
        username: Arc::clone(&allocation.identity.username),
        user: allocation.identity.user.clone(),
        is_frequent: allocation.quota.is_frequent(),
        credential_expires_unix: allocation.identity.expires_unix(),
        relayed: relays(allocation, now_micros).collect(),
        made_micros: allocation.made_micros,
        to_peers: allocation.to_peers,
        to_client: allocation.to_client,
        throttled: allocation.throttled,
        permissions: permissions(allocation, now_micros).count(),
        channels: channels(allocation, now_micros).count(),
        connections: allocation.is_tcp().then(|| connections(allocation).count()),
    }
}

// What has expired is kept until it is swept, and is not shown.

fn relays(allocation: &Allocation, now_micros: u64) -> impl Iterator<Item = (RelayedAddr, u64)> {
    allocation.relays().filter(move |relay| relay.is_live(now_micros)).map(|relay| (relay.relayed, relay.until_micros))
}

fn permissions(allocation: &Allocation, now_micros: u64) -> impl Iterator<Item = (IpAddr, u64)> {
    allocation.permissions.iter().filter(move |(_, until_micros)| *until_micros > now_micros)
}

fn channels(allocation: &Allocation, now_micros: u64) -> impl Iterator<Item = (u16, PeerAddr, u64)> {
    let live = allocation.channels.iter().filter(move |channel| channel.until_micros > now_micros);
    live.map(|channel| (channel.number, channel.peer, channel.until_micros))
}

fn connections(allocation: &Allocation) -> impl Iterator<Item = (PeerAddr, ConnectionStage)> {
    let all = allocation.connections.iter().flat_map(|connections| connections.iter());
    all.filter_map(|connection| {
        let stage = match connection.stage {
            Stage::Connecting { .. } => ConnectionStage::Connecting,
            Stage::Unbound { .. } => ConnectionStage::Unbound,
            Stage::Bound => ConnectionStage::Bound,
            Stage::Failed { .. } => return None,
        };
        Some((connection.peer, stage))
    })
}

fn has_peer(allocation: &Allocation, ip: IpAddr, now_micros: u64) -> bool {
    permissions(allocation, now_micros).any(|(permitted, _)| permitted == ip)
        || channels(allocation, now_micros).any(|(_, peer, _)| peer.ip() == ip)
        || connections(allocation).any(|(peer, _)| peer.ip() == ip)
}
