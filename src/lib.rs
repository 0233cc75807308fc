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
//! | [`listener`] | stream transports: framing, TLS |
//! | [`config`] | `turnserver.toml` |
//! | [`bench`](mod@bench) | the load generator |
//! | [`probe`](mod@probe) | a client that checks a server step by step |
//! | [`usage`] | records of what each allocation has used |
//! | [`doctor`] | what is wrong with the server's host |
//! | [`ops`] | logs, signals, service manager |
//! | [`cli`] | the commands |

pub mod addr;
pub mod auth;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod listener;
pub mod net;
pub mod ops;
pub mod policy;
pub mod probe;
pub mod reject;
pub mod stun;
pub mod text;
pub mod turn;
pub mod usage;
pub mod user;
pub mod worker;
