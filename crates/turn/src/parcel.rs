//! An allocation on its way from one server to another, of another worker or of another process.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

use crate::addr::{FiveTuple, PeerAddr, RelayedAddr};
use crate::auth::Identity;
use crate::clock::Now;
use crate::policy::{Meter, MeterState};
use crate::traffic::Traffic;
use crate::user::RealmId;
use turnstone_stun::{Key, PasswordAlgorithm};

use super::allocation::{Allocation, Relay};
use super::channels::{Channel, Channels};
use super::ids::AllocationId;
use super::mobile::Mobile;
use super::output::{AllocationSummary, Client, EndReason, Event};
use super::pass::Judgement;
use super::path::Path;
use super::peer::{Judges, RefusedData};
use super::permissions::Permissions;
use super::relays::{RelayId, Relays};
use super::retransmit::{Remembered, RequestDigest, Tombstone};
use super::server::Server;
use super::settings::{Settings, Shared};

/// An allocation on its way from one server to another, of another worker or of another process. It counts in the quotas all the same,
/// until it is dropped.
///
/// Nothing of it begins anew: lifetimes, permissions, channels, what it was charged and what it has carried, the answer to its last
/// request, its id and its hold on the quotas go along. Neither its end nor a new allocation is reported by a move. Three things do
/// not go by themselves:
///
/// - **Its relay sockets** are the caller's, who moves them while the parcel is under way ([`Parcel::relays`]) and tells
///   [`Server::put_in`] their new ids. A parcel that is dropped, or ended by [`Parcel::end`], closes none: whoever took it out does.
/// - **Packets.** What reaches the old server for the allocation is answered as if there were none. The caller sends it to the new one,
///   for 40 seconds after its end, too: a copy of the request that released it may be late.
/// - **Routes.** The old server reports each channel as gone and the new one as bound, with the relay's new id.
///
/// ```
/// use std::collections::HashMap;
/// use turnstone_turn::clock::Now;
/// use turnstone_turn::{AllocationId, Client, RelayId, Relays, Returned, Server};
///
/// fn move_over(
///     (now, id, client): (Now, AllocationId, Client),
///     old: &mut Server,
///     (new, new_relays): (&mut Server, &mut impl Relays),
///     move_socket: impl Fn(RelayId) -> RelayId,
/// ) -> Result<(), Returned> {
///     let Some(parcel) = old.take_out(now, id) else { return Ok(()) };
///     let moved: HashMap<_, _> = parcel.relays().map(|relay| (relay.id, move_socket(relay.id))).collect();
///     new.put_in(now, client, parcel, |relay| moved.get(&relay).copied(), new_relays)
/// }
/// ```
///
/// To another process it goes as [`Parts`].
#[must_use = "dropping a parcel ends its allocation without a word, and leaves its relay sockets open"]
pub struct Parcel {
    allocation: Box<Allocation>,
    /// Answers to the releases of earlier allocations on the 5-tuple.
    released: Vec<Tombstone>,
    /// The snapshot by which its peers have been judged, if that is certain.
    judged_by: Option<Arc<Settings>>,
}

/// A relay socket of a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParcelRelay {
    /// Its id at the server that the parcel was taken out of.
    pub id: RelayId,
    /// The relayed transport address.
    pub relayed: RelayedAddr,
    /// When it expires, if nothing refreshes it.
    pub until_micros: u64,
    /// Not yet closed; a dual allocation may have given one up.
    pub is_open: bool,
}

/// The answer to a request, for copies of the request that come late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedResponse {
    /// The request, digested under the key of [`Shared::request_digests`].
    pub request: u128,
    /// The answer.
    pub response: Box<[u8]>,
    /// Until when it is given again.
    pub until_micros: u64,
}

/// What an allocation has of mobility (RFC 8016). The server that it goes to needs the key of [`Shared::tickets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MobileParts {
    /// The number of the ticket that is good.
    pub serial: u16,
    /// Until when the one before it is taken for a retransmission.
    pub retired_until_micros: u64,
    /// Until when earlier moves are paid for.
    pub paid_until_micros: u64,
}

/// What a parcel consists of, as plain data for another process: [`Parcel::to_parts`] here, [`Parcel::from_parts`] there. Fields will
/// come: begin with [`Parts::new`].
///
/// The server there needs the key of [`Shared::request_digests`] before it is made, for copies of requests, and where the ids go on
/// ([`Server::ids`], [`Server::with_ids`]). Times are those of the monotonic clock, which all processes of a boot share;
/// [`Parts::translate`] is for other clocks.
///
/// It has the key that the client's requests are verified with, which is zeroed when this is dropped: so must be what it is written to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Parts {
    /// The allocation.
    pub id: AllocationId,
    /// Its 5-tuple.
    pub five_tuple: FiveTuple,
    /// Who made it.
    pub identity: Identity,
    /// What the client's requests are verified with; [`Key::short_term`] makes a key of its bytes again.
    pub key: Key,
    /// The password algorithm of the key.
    pub algorithm: PasswordAlgorithm,
    /// Whether its user makes more allocations than are told of one by one.
    pub is_frequent: bool,
    /// When it was made.
    pub made_micros: u64,
    /// The relayed transport addresses that it has or had, at most one of each family.
    pub relays: Vec<ParcelRelay>,
    /// Permitted addresses, and until when.
    pub permissions: Vec<(IpAddr, u64)>,
    /// Channel numbers, their peers, and until when.
    pub channels: Vec<(u16, PeerAddr, u64)>,
    /// Payload from client to peers.
    pub to_peers: Traffic,
    /// Payload from peers to client.
    pub to_client: Traffic,
    /// Payload packets dropped by bandwidth caps.
    pub throttled: u64,
    /// What bandwidth caps have charged.
    pub meter: MeterState,
    /// Datagrams refused by the peer policy that were not reported yet.
    pub refused_data: u32,
    /// When such datagrams are reported next.
    pub refused_data_next_micros: u64,
    /// The answer to its last request.
    pub remembered: Option<RememberedResponse>,
    /// Answers to the releases of earlier allocations on the 5-tuple.
    pub released: Vec<RememberedResponse>,
    /// What it has of mobility, if its client has asked for a ticket.
    pub mobile: Option<MobileParts>,
}

/// Why a parcel could not be put in. Quotas and bandwidth caps are no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PutInError {
    /// The client's 5-tuple has an allocation here.
    #[error("the 5-tuple has an allocation already")]
    FiveTupleInUse,
    /// The allocation is here already.
    #[error("allocation {0} is here already")]
    IdInUse(AllocationId),
    /// The caller knows no new id of an open relay.
    #[error("relay {0:?} has no new id")]
    NoRelay(RelayId),
    /// The new id is that of a relay that is open here, or of another one of the parcel.
    #[error("relay {0:?} is open here already")]
    RelayInUse(RelayId),
}

/// A parcel that could not be put in, as it was: its relays have the ids of the server that it was taken out of.
#[derive(Debug, Error)]
#[error("the allocation cannot move here: {error}")]
pub struct Returned {
    /// The parcel; it can be put back where it came from.
    pub parcel: Parcel,
    /// Why.
    #[source]
    pub error: PutInError,
}

impl Server {
    /// Takes an allocation out, if it lives. One with TCP relays (RFC 6062) stays where its connections are. Its relay sockets stay where they are: see [`Parcel::relays`]. Requests on its 5-tuple that
    /// wait for an answer from outside are forgotten.
    pub fn take_out(&mut self, now: Now, id: AllocationId) -> Option<Parcel> {
        let slot = self.allocations.find_id(id)?;
        self.live(now, slot).filter(|allocation| !allocation.is_tcp())?;
        let mut allocation = self.allocations.remove(&self.hash, slot)?;
        self.disarm(slot, allocation.armed.take());
        for channel in allocation.channels.iter() {
            self.events.push(Event::RouteGone { id, channel: channel.number });
        }
        self.moves.has_moved_out = true;
        if let Some(five_tuple) = allocation.mobile.as_mut().and_then(|mobile| mobile.pending.take()) {
            self.moves.cancel(&five_tuple);
        }
        let five_tuple = &allocation.client.five_tuple;
        let released = self.tombstones.take(five_tuple);
        for relay in allocation.relays().filter(|relay| relay.open) {
            if let Some(shared) = &mut self.shared_ports {
                shared.forget(&self.hash, relay.id);
            }
        }
        if let Some(pending) = &mut self.pending {
            // Answered here, they would be told that there is no allocation. Their copies come to the new server.
            pending.forget_client(five_tuple);
        }
        let judged_by = (!self.is_judging()).then(|| Arc::clone(&self.settings));
        Some(Parcel { allocation, released, judged_by })
    }

    /// Puts an allocation in, reached as `client` from now on. `moved` knows the new ids of its open relays. A peer that this server's
    /// policy denies loses its permission and channel, unless the same snapshot has judged it before. One whose time is over ends at once.
    ///
    /// A list or a kick that is under way sees it if it has not yet come so far as its id.
    ///
    /// # Errors
    /// [`Returned`] has the parcel; nothing has changed.
    pub fn put_in<R: Relays>(
        &mut self,
        now: Now,
        client: Client,
        parcel: Parcel,
        moved: impl Fn(RelayId) -> Option<RelayId>,
        relays: &mut R,
    ) -> Result<(), Returned> {
        let id = parcel.id();
        if self.allocations.find_id(id).is_some() {
            return Err(Returned { parcel, error: PutInError::IdInUse(id) });
        }
        if self.live_slot(now, &client.five_tuple, relays).is_some() {
            return Err(Returned { parcel, error: PutInError::FiveTupleInUse });
        }
        if let Err(error) = self.check_relays(&parcel, &moved) {
            return Err(Returned { parcel, error });
        }
        let Parcel { mut allocation, released, judged_by } = parcel;
        for relay in allocation.relays_mut().filter(|relay| relay.open) {
            relay.id = moved(relay.id).unwrap_or(relay.id);
        }
        if client.five_tuple == allocation.client.five_tuple {
            released.into_iter().for_each(|tombstone| self.tombstones.add(now.micros, tombstone));
        }
        // The remembered response goes along: it may be that to the Refresh by which a mobile client came here.
        let from = std::mem::replace(&mut allocation.client, client).five_tuple;
        if let Some(mobile) = &mut allocation.mobile {
            mobile.is_away = false;
        }
        if from != client.five_tuple {
            self.events.push(allocation.moved_event(from, &self.shared.quotas, now));
        }
        self.expect_no_more(&client.five_tuple);
        allocation.judges.forget();
        allocation.channels = std::mem::take(&mut allocation.channels).moved(&self.hash);
        allocation.permissions = std::mem::take(&mut allocation.permissions).moved(&self.hash);
        let slot = self.allocations.insert(&self.hash, allocation);
        self.report_routes(slot);
        self.ids.leave_out(id);
        if self.ends_with_its_realm(now, slot, relays) || self.ends_revoked(now, slot, relays) {
            return Ok(());
        }
        if judged_by.is_none_or(|by| !Arc::ptr_eq(&by, &self.settings)) {
            self.judge_arrival(now, slot);
        }
        self.share_moved(now, slot, relays);
        // One without an open relay has no deadline, and nothing would ever find it.
        self.sweep(now, slot, relays);
        Ok(())
    }

    /// Whether each open relay of a parcel has a new id of its own.
    fn check_relays(&self, parcel: &Parcel, moved: impl Fn(RelayId) -> Option<RelayId>) -> Result<(), PutInError> {
        let mut first = None;
        for relay in parcel.relays() {
            let new = moved(relay.id).ok_or(PutInError::NoRelay(relay.id))?;
            if self.allocations.find_relay(new).is_some() || first.replace(new) == Some(new) {
                return Err(PutInError::RelayInUse(new));
            }
        }
        Ok(())
    }

    /// Reports the routes of an allocation that has come to this server, or whose client has come to another 5-tuple.
    pub(super) fn report_routes(&mut self, slot: u32) {
        let Some(allocation) = self.allocations.get(slot) else { return };
        for channel in allocation.channels.iter() {
            let family = channel.peer.family();
            let Some(relay) = allocation.relays().find(|relay| relay.open && relay.relayed.family() == family) else {
                continue;
            };
            self.events.push(Event::RouteBound {
                id: allocation.id,
                five_tuple: allocation.client.five_tuple,
                channel: channel.number,
                relay: relay.id,
                peer: channel.peer,
                until_micros: channel.until_micros,
            });
        }
    }

    /// Judges what has come from elsewhere by the snapshot here; a pass of [`Self::judge`] may have gone by its id already.
    fn judge_arrival(&mut self, now: Now, slot: u32) {
        let mut judging = self.judging.take();
        let mut apart = Judgement::default();
        self.judge_again(slot, judging.as_mut().map_or(&mut apart, |judging| &mut judging.so_far));
        self.judging = judging;
        self.apply_limits(now, slot);
    }
}

impl Parcel {
    /// Packs what has come from another process. It is counted in the quotas at once, above the limits if need be.
    pub fn from_parts(now: Now, mut parts: Parts, settings: &Settings, shared: &Shared) -> Self {
        let user = &parts.identity.user;
        let quota = shared.quotas.readmit(user, parts.is_frequent);
        let bandwidth = settings.realm_of_user(user).map(|realm| realm.bandwidth).unwrap_or_default();
        let bandwidth = parts.identity.bandwidth(bandwidth);
        let meter = Meter::resume(bandwidth, &shared.user_bandwidths, user, now.micros, parts.meter);
        let realm = user.realm().map(|name| RealmId::of(name)).unwrap_or_default();
        let five_tuple = parts.five_tuple;
        let released = std::mem::take(&mut parts.released).into_iter();
        let channel =
            |(number, peer, until_micros)| Channel { number, own_relay: false, is_guest: false, peer, until_micros };
        let mut allocation = Allocation {
            id: parts.id,
            // Nobody takes this path: [`Server::put_in`] names the one here.
            client: Client { five_tuple, path: Path::nowhere(five_tuple.client), realm },
            v4: None,
            v6: None,
            channels: Channels::unindexed(parts.channels.into_iter().map(channel).collect()),
            permissions: Permissions::unindexed(parts.permissions),
            connections: None,
            meter,
            to_peers: parts.to_peers,
            to_client: parts.to_client,
            throttled: parts.throttled,
            refused_data: (parts.refused_data > 0 || parts.refused_data_next_micros > 0).then(|| {
                Box::new(RefusedData { untold: parts.refused_data, tell_micros: parts.refused_data_next_micros })
            }),
            made_micros: parts.made_micros,
            armed: None,
            remembered: parts.remembered.map(|remembered| Box::new(remembered.into())),
            identity: parts.identity,
            key: parts.key,
            algorithm: parts.algorithm,
            quota,
            mobile: parts.mobile.map(|mobile| Box::new(mobile.into())),
            judges: Judges::nobody(),
        };
        for ParcelRelay { id, relayed, until_micros, is_open } in parts.relays {
            *allocation.slot(relayed.family()) = Some(Relay { id, relayed, until_micros, open: is_open });
        }
        Self {
            allocation: Box::new(allocation),
            released: released.map(|remembered| Tombstone { five_tuple, remembered: remembered.into() }).collect(),
            judged_by: None,
        }
    }

    /// What it consists of, for another process.
    pub fn to_parts(&self) -> Parts {
        let allocation = &self.allocation;
        Parts {
            id: allocation.id,
            five_tuple: allocation.client.five_tuple,
            identity: allocation.identity.clone(),
            key: allocation.key.clone(),
            algorithm: allocation.algorithm,
            is_frequent: allocation.quota.is_frequent(),
            made_micros: allocation.made_micros,
            relays: allocation.relays().map(ParcelRelay::from).collect(),
            permissions: allocation.permissions.iter().collect(),
            channels: allocation.channels.iter().map(|of| (of.number, of.peer, of.until_micros)).collect(),
            to_peers: allocation.to_peers,
            to_client: allocation.to_client,
            throttled: allocation.throttled,
            meter: allocation.meter.state(),
            refused_data: allocation.refused_data.as_ref().map_or(0, |refused| refused.untold),
            refused_data_next_micros: allocation.refused_data.as_ref().map_or(0, |refused| refused.tell_micros),
            remembered: allocation.remembered.as_deref().map(RememberedResponse::from),
            released: self.released.iter().map(|tombstone| (&tombstone.remembered).into()).collect(),
            mobile: allocation.mobile.as_deref().map(MobileParts::from),
        }
    }

    /// The allocation.
    pub fn id(&self) -> AllocationId {
        self.allocation.id
    }

    /// Its 5-tuple, so far.
    pub fn five_tuple(&self) -> &FiveTuple {
        &self.allocation.client.five_tuple
    }

    /// The relays that are open: their sockets move along, or are closed by the caller.
    pub fn relays(&self) -> impl Iterator<Item = ParcelRelay> {
        self.allocation.relays().filter(|relay| relay.open).map(ParcelRelay::from)
    }

    /// Ends an allocation that can go nowhere, and gives its quota back. The caller closes its relays, and reports what is returned.
    pub fn end(self, now: Now, reason: EndReason) -> AllocationSummary {
        self.allocation.summary(now, reason)
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parcel({} of {:?})", self.id(), self.five_tuple())
    }
}

impl Parts {
    /// An allocation that has no relays and no peers, and has carried nothing.
    pub fn new(
        id: AllocationId,
        five_tuple: FiveTuple,
        identity: Identity,
        (key, algorithm): (Key, PasswordAlgorithm),
        made_micros: u64,
    ) -> Self {
        Self {
            id,
            five_tuple,
            identity,
            key,
            algorithm,
            is_frequent: false,
            made_micros,
            relays: Vec::new(),
            permissions: Vec::new(),
            channels: Vec::new(),
            to_peers: Traffic::default(),
            to_client: Traffic::default(),
            throttled: 0,
            meter: MeterState::default(),
            refused_data: 0,
            refused_data_next_micros: 0,
            remembered: None,
            released: Vec::new(),
            mobile: None,
        }
    }

    /// Moves all times from one clock to another, given what both showed at one moment. What lies before the other's origin becomes
    /// that origin.
    pub fn translate(&mut self, from: Now, to: Now) {
        let shift = |at: u64, scale: u64| {
            let moved = i128::from(at) + (i128::from(to.micros) - i128::from(from.micros)) * i128::from(scale);
            u64::try_from(moved.max(0)).unwrap_or(u64::MAX)
        };
        let remembered = self.remembered.iter_mut().chain(&mut self.released).map(|of| &mut of.until_micros);
        let micros = [&mut self.made_micros, &mut self.refused_data_next_micros]
            .into_iter()
            .chain(self.relays.iter_mut().map(|relay| &mut relay.until_micros))
            .chain(self.permissions.iter_mut().map(|(_, until)| until))
            .chain(self.channels.iter_mut().map(|(_, _, until)| until))
            .chain(self.mobile.iter_mut().flat_map(|of| [&mut of.retired_until_micros, &mut of.paid_until_micros]))
            .chain(remembered);
        micros.for_each(|at| *at = shift(*at, 1));
        let MeterState { to_peer, to_client, user_to_peer, user_to_client } = &mut self.meter;
        for paid in [to_peer, to_client, user_to_peer, user_to_client] {
            paid.bytes_until_nanos = shift(paid.bytes_until_nanos, 1000);
            paid.packets_until_nanos = shift(paid.packets_until_nanos, 1000);
        }
    }
}

impl From<&Relay> for ParcelRelay {
    fn from(relay: &Relay) -> Self {
        Self { id: relay.id, relayed: relay.relayed, until_micros: relay.until_micros, is_open: relay.open }
    }
}

impl From<&Mobile> for MobileParts {
    fn from(of: &Mobile) -> Self {
        let Mobile { serial, retired_until_micros, paid_until_micros, is_away: _, pending: _ } = *of;
        Self { serial, retired_until_micros, paid_until_micros }
    }
}

impl From<MobileParts> for Mobile {
    fn from(MobileParts { serial, retired_until_micros, paid_until_micros }: MobileParts) -> Self {
        Self { serial, retired_until_micros, paid_until_micros, ..Self::new() }
    }
}

impl From<&Remembered> for RememberedResponse {
    fn from(of: &Remembered) -> Self {
        Self { request: of.request.0, response: of.response.clone(), until_micros: of.until_micros }
    }
}

impl From<RememberedResponse> for Remembered {
    fn from(of: RememberedResponse) -> Self {
        Self { request: RequestDigest(of.request), response: of.response, until_micros: of.until_micros }
    }
}
