//! Turnstone, a STUN/TURN server (RFC 8489, RFC 8656).
//!
//! | module | what it is for |
//! |---|---|
//! | [`stun`] | wire format |
//! | [`turn`] | the server's state machine, without sockets or clock |
//! | [`auth`] | nonces, long-term credentials, time-limited credentials |
//! | [`policy`] | peer rules, quotas, bandwidth, rate limits |
//! | [`net`] | sockets and system calls |
//! | [`worker`] | the packet loop |
//! | [`proxy`] | the header of the PROXY protocol |
//! | [`stream`](mod@stream) | stream transports: TLS |
//! | [`dtls`] | what DTLS needs before and beside OpenSSL |
//! | [`config`] | `turnserver.toml` |
//! | [`import`] | a `turnserver.toml` from another server's configuration |
//! | [`counters`] | what workers count |
//! | [`client`] | a TURN client for measuring and checking |
//! | [`bench`](mod@bench) | the load generator |
//! | [`probe`](mod@probe) | a client that checks a server step by step |
//! | [`usage`] | records of what each allocation has used |
//! | [`doctor`] | what is wrong with the server's host |
//! | `http` | HTTP endpoints |
//! | [`fleet`] | asks the nodes of a fleet |
//! | [`hook`] | asks an application about users |
//! | [`store`] | what the servers of a fleet share |
//! | `credentials` | time-limited credentials as they are handed out, by command and over HTTP |
//! | [`acme`] | certificates that the server gets for itself |
//! | `regular_file` | files that others put there |
//! | `state_file` | files that the server keeps for itself |
//! | `wall_clock` | the time of day |
//! | [`ops`] | logs, signals, service manager |
//! | `page` | the files of the operator's page |
//! | [`cli`] | the commands |

pub use turnstone_client as client;
pub use turnstone_net as net;
pub use turnstone_stun as stun;
pub use turnstone_turn as turn;
pub use turnstone_turn::{addr, auth, clock, policy, reject, text, traffic, user};

pub mod acme;
pub mod bench;
pub mod cli;
pub mod config;
pub mod counters;
mod credentials;
pub mod doctor;
pub mod dtls;
pub mod fleet;
pub mod hook;
mod http;
pub mod import;
pub mod ops;
mod page;
pub mod probe;
pub mod proxy;
mod public_address;
mod regular_file;
mod state_file;
pub mod store;
pub mod stream;
pub mod usage;
mod wall_clock;
pub mod worker;
