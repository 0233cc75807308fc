//! A TURN server (RFC 8656) as a state machine: no sockets, no clock, no threads.
//!
#![doc = include_str!("../README.md")]

// | file | what it does |
// |---|---|
// | `server` | owns the state, dispatches messages, timers and reloads |
// | `request` | the way of a TURN request: retransmission, authentication, dispatch, response |
// | `waits`, `ask` | requests that wait for an answer from outside: the server's side, and what is asked and answered |
// | `pending`, `facts` | the table of what waits, and what is kept of answers |
// | `binding`, `allocate`, `refresh`, `create_permission`, `channel_bind`, `send`, `icmp` | one method each |
// | `connect`, `connection_attempt`, `connection_bind` | RFC 6062: connections of TCP relays to and from peers, and whose data they carry |
// | `connections`, `connection_ids` | an allocation's connections to peers; the ids of all of them |
// | `route` | the data path, both directions |
// | `slots` | the slot table that allocations, relay sockets and connections are kept in |
// | `allocation`, `allocations` | one allocation; all of them, by 5-tuple and by relay |
// | `permissions`, `channels`, `index` | an allocation's peers |
// | `hello` | cookies for DTLS |
// | `message_kind`, `nested` | what the first bytes of a message say that it is; messages inside of messages, as loops make them |
// | `framing` | where the messages of a stream end |
// | `wrapping` | a peer's payload as its client gets it |
// | `path` | the way to a client, which the server carries and never looks into |
// | `five_tuple`, `hash` | the 5-tuple table and its keyed hash |
// | `timer`, `retransmit`, `events`, `refusal` | the wheel, remembered responses, the event queue, what it says of a refusal |
// | `parcel`, `ids` | an allocation on its way to another server; ids that move with it |
// | `realm`, `server_names` | one of several realms; what a server name chooses |
// | `mobile`, `mobility`, `moves`, `ticket` | clients that come back from another address: Refresh by ticket, moves that are pending, tickets |
// | `redirect` | which clients are sent to other servers, and where to |
// | `view` | what an operator sees, and how an allocation is ended from outside |
// | `pass` | going over all allocations in parts, and judging them by a new snapshot |
// | `peer`, `response`, `transaction` | the question to the peer policy, what all responses share, transaction ids |

pub mod addr;
pub mod auth;
pub mod clock;
pub mod framing;
pub mod policy;
pub mod reject;
pub mod server_names;
pub mod slots;
pub mod text;
pub mod traffic;
pub mod user;

mod allocate;
mod allocation;
mod allocations;
mod ask;
mod binding;
mod channel_bind;
mod channels;
mod classic;
mod connect;
mod connection_attempt;
mod connection_bind;
mod connection_ids;
mod connections;
mod create_permission;
mod discovery;
mod events;
mod facts;
mod five_tuple;
mod hash;
mod hello;
mod icmp;
mod ids;
mod index;
mod message_kind;
mod mobile;
mod mobility;
mod moves;
mod nested;
mod output;
mod parcel;
mod pass;
mod path;
mod peer;
mod pending;
mod permissions;
mod policy_name;
mod realm;
mod redirect;
mod refresh;
mod refusal;
mod relays;
mod request;
mod response;
mod retransmit;
mod route;
mod send;
mod server;
mod settings;
mod shared_ports;
mod ticket;
mod timer;
mod transaction;
mod view;
mod waits;
mod wrapping;

pub use ask::{Answer, Ask, AskId, Late, Question, WaitCounts, Waiting};
pub use connect::Notice;
pub use connection_ids::{ConnectionId, ConnectionIds};
pub use discovery::{Detour, NatDiscovery};
pub use events::RefusalCounts;
pub use ids::{AllocationId, AllocationIds, NoAllocationId};
pub use message_kind::{ChannelData, MessageKind};
pub use moves::MoveOrder;
pub use nested::{innermost, is_nested_without_end};
pub use output::{
    AllocationSummary, Binding, Client, Encapsulation, EndReason, Event, Outcome, ToClient, ToPeer, is_told_alone,
};
pub use parcel::{MobileParts, Parcel, ParcelRelay, Parts, PutInError, RememberedResponse, Returned};
pub use pass::Judgement;
pub use path::{DatagramPath, Path, SessionId, StreamId};
pub use realm::{OnExpiry, Realm, RealmCounts};
pub use redirect::{AlternateServer, Alternates, Other, Redirect, RelayedRate};
pub use refusal::{Excerpt, Refusal};
pub use relays::{ConnectError, OpenRelay, OwnSender, PortRequest, RelayError, RelayId, Relays, ReservationToken};
pub use retransmit::DigestKey;
pub use server::{FillRandom, Server};
pub use settings::{DefaultFamily, Lifetimes, Settings, SettingsBuilder, Shared, TcpRelays};
pub use ticket::TicketKey;
pub use view::{AllocationDetail, AllocationFilter, AllocationView, ConnectionStage, Kick, Listing, Totals, UserTotal};
pub use wrapping::Wrapping;
