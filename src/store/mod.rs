//! `[store]`: the Redis or Valkey that the servers of a fleet share.
//!
//! All of it is on the control runtime: no worker waits for the store, and none knows of it. [`Store`] is a handle of a connection that is
//! kept by one task ([`StoreKeeper`]): it connects, asks once a second whether the store still answers, and connects anew when it does not.
//! While there is no connection, every command fails at once. What is lost with the store is for its users to say: each keeps what it knew.

mod check;
mod connect;
mod entry;
mod entry_id;
mod error;
mod follow;
mod handle;
pub mod leases;
mod link;
mod look_up;
mod revocations;
mod secrets;
mod stats;
mod users;
mod value;

pub use check::{ProbeError, Probed, probe};
pub use connect::ConnectError;
pub use entry::{Counts, Entry, NotAnEntry};
pub use entry_id::{Asker, EntryId, entry_of_line, line_of_entry, start_of_ids};
pub use error::StoreError;
pub use follow::{Followed, Follower, Following, Wanted, follow};
pub(crate) use handle::host_name;
pub use handle::{Dedicated, Store, StoreKeeper};
pub use look_up::{LookUpError, LookedUp, look_up};
pub use redis::Script;
pub use revocations::{
    BELIEVED_MAX, ENTRIES_MAX, Entries, Given, KEPT_SECS, RevocationEvent, StoreRevocations, changes_of as read_changes,
};
pub use secrets::{Stored, of_value as read_secret};
pub use stats::{CommandResult, Part, StoreStats, StoreView, UserResult};
pub use users::{StoreUsers, of_coturn_key as read_coturn_key, of_value as read_user};
