//! What is revoked, as the servers of a fleet share it: a sorted set by when each of it is over, and a stream of what has changed.
//!
//! A server takes all there is when it connects, and follows the stream from then on. A store that has lost what it had is given it again by
//! whoever knows it: a mark in the store tells that from a revocation that was undone while nobody looked.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, Value, cmd, from_redis_value};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::error::StoreError;
use super::handle::{Dedicated, Store};

/// What may be revoked at once.
const REVOKED_MAX: usize = 65_536;
/// What is written at once.
const WRITTEN_AT_ONCE: usize = 100;
/// How long the store is asked to wait for a change.
const WAIT: Duration = Duration::from_secs(2);
const READ_AT_ONCE: usize = 1000;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Something revoked: what is written of it, and when it is over, in Unix seconds.
pub type Members = BTreeMap<String, u64>;

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
pub enum RevocationEvent {
    /// All there is.
    All {
        /// Each with its end.
        members: Members,
        /// The store had lost what it had: what is known here is still revoked.
        was_emptied: bool,
    },
    /// It is revoked.
    Added(String, u64),
    /// It is revoked no longer.
    Removed(String),
}

/// Writes and follows.
#[derive(Clone)]
pub struct StoreRevocations {
    store: Store,
    keys: [String; 3],
}

/// KEYS: the set, the stream, the mark. ARGV: now, how many at most, then pairs of an end and a member.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
        for i = 3, #ARGV, 2 do
            local known = redis.call('ZSCORE', KEYS[1], ARGV[i + 1])
            if not known and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
                return redis.error_reply('FULL as much is revoked as there can be')
            end
            if not known or tonumber(known) < tonumber(ARGV[i]) then
                redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
                redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'add', ARGV[i + 1], 'until', ARGV[i])
            end
        end
        return 1",
    )
});

/// ARGV: how long the stream may be, then members.
static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local removed = 0
        for i = 2, #ARGV do
            if redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then
                redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'remove', ARGV[i])
                removed = removed + 1
            end
        end
        return removed",
    )
});

/// ARGV: the mark to be put where there is none, or nothing to put none. Returns the mark that was there, where the stream is, and how much is revoked.
static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local mark = redis.call('GET', KEYS[3]) or ''
        if mark == '' and ARGV[1] ~= '' then redis.call('SET', KEYS[3], ARGV[1]) end
        local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
        return { mark, last[1] and last[1][1] or '0-0', redis.call('ZCARD', KEYS[1]) }",
    )
});

/// What the store looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    mark: String,
    stream_id: String,
    count: u64,
}

impl StoreRevocations {
    /// Those of a store.
    pub fn new(store: Store) -> Self {
        // In one place of a cluster.
        let keys = ["", ":log", ":mark"].map(|what| store.key(&format!("{{revocations}}{what}")));
        Self { store, keys }
    }

    /// Revokes for all servers.
    ///
    /// # Errors
    /// It is not known whether it is.
    pub async fn add(&self, members: &Members, now_unix: u64) -> Result<(), StoreError> {
        let members: Vec<_> = members.iter().collect();
        for some in members.chunks(WRITTEN_AT_ONCE) {
            let mut args = vec![now_unix.to_string(), REVOKED_MAX.to_string()];
            args.extend(some.iter().flat_map(|(member, until)| [until.to_string(), (*member).clone()]));
            self.store.script(&ADD, &self.keys, &args).await?;
        }
        Ok(())
    }

    /// Undoes it for all servers.
    ///
    /// # Errors
    /// It is not known whether it is.
    pub async fn remove(&self, members: &[String]) -> Result<(), StoreError> {
        for some in members.chunks(WRITTEN_AT_ONCE) {
            let args: Vec<_> = std::iter::once(REVOKED_MAX.to_string()).chain(some.iter().cloned()).collect();
            self.store.script(&REMOVE, &self.keys, &args).await?;
        }
        Ok(())
    }

    /// Follows for ever, on a connection of its own. `new_mark` makes another random mark each time.
    pub async fn follow(self, new_mark: impl Fn() -> String, events: mpsc::Sender<RevocationEvent>) {
        let mut mark = None;
        let mut connections = self.store.connections();
        loop {
            connections.borrow_and_update();
            if self.store.is_connected() {
                match self.follow_connection(&new_mark, &mut mark, &events).await {
                    Ok(()) => return,
                    Err(error) if error.is_loss() => {}
                    Err(error) => {
                        tracing::warn!(%error, "revocations of the store cannot be followed; it is tried again")
                    }
                }
                sleep(PAUSE).await;
            }
            let _ = timeout(PAUSE, connections.changed()).await;
        }
    }

    /// Until something is wrong. `Ok` is the end of the server.
    async fn follow_connection(
        &self,
        new_mark: &impl Fn() -> String,
        mark: &mut Option<String>,
        events: &mpsc::Sender<RevocationEvent>,
    ) -> Result<(), StoreError> {
        let mut connection = self.store.dedicated(WAIT).await.map_err(|_| StoreError::Lost)?;
        let mut known = self.take_all(&mut connection, new_mark, mark, events).await?;
        loop {
            let read = cmd("XREAD")
                .arg("BLOCK")
                .arg(u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX))
                .arg("COUNT")
                .arg(READ_AT_ONCE)
                .arg("STREAMS")
                .arg(&self.keys[1])
                .arg(&known.stream_id)
                .to_owned();
            let changes = changes_of(connection.command(&read).await?)?;
            if let Some((last, _)) = changes.last() {
                known.stream_id.clone_from(last);
            }
            let is_quiet = changes.is_empty();
            for event in changes.into_iter().filter_map(|(_, event)| event) {
                if events.send(event).await.is_err() {
                    return Ok(());
                }
            }
            // A store that was emptied, or failed over to one that lacks something, tells nothing of it in the stream.
            if is_quiet {
                let look = self.look(&mut connection, "").await?;
                if look != known {
                    known = self.take_all(&mut connection, new_mark, mark, events).await?;
                }
            } else {
                known.count = self.look(&mut connection, "").await?.count;
            }
        }
    }

    async fn take_all(
        &self,
        connection: &mut Dedicated,
        new_mark: &impl Fn() -> String,
        mark: &mut Option<String>,
        events: &mpsc::Sender<RevocationEvent>,
    ) -> Result<Look, StoreError> {
        // The stream's place is read before: what changes in between is applied twice, which changes nothing.
        let own_mark = new_mark();
        let mut look = self.look(connection, &own_mark).await?;
        let all = cmd("ZRANGE").arg(&self.keys[0]).arg(0).arg(REVOKED_MAX).arg("WITHSCORES").to_owned();
        let all: Vec<(String, f64)> = from_redis_value(connection.command(&all).await?)
            .map_err(|_| StoreError::Unexpected("a sorted set of revocations"))?;
        let members = all.into_iter().map(|(member, until)| (member, until as u64)).collect();
        let was_emptied = look.mark.is_empty() || mark.as_ref().is_some_and(|mark| *mark != look.mark);
        if look.mark.is_empty() {
            look.mark = own_mark;
        }
        *mark = Some(look.mark.clone());
        // The other end is gone with the server, which the caller sees by itself.
        let _ = events.send(RevocationEvent::All { members, was_emptied }).await;
        Ok(look)
    }

    async fn look(&self, connection: &mut Dedicated, own_mark: &str) -> Result<Look, StoreError> {
        let answer = connection.script(&LOOK, &self.keys, &[own_mark]).await?;
        let (mark, stream_id, count) =
            from_redis_value(answer).map_err(|_| StoreError::Unexpected("the place of a stream"))?;
        Ok(Look { mark, stream_id, count })
    }
}

/// The changes in an answer to XREAD, each with its id; what is none is passed over.
fn changes_of(answer: Value) -> Result<Vec<(String, Option<RevocationEvent>)>, StoreError> {
    type Streams = Vec<(Value, Vec<(String, Vec<String>)>)>;
    let streams: Option<Streams> =
        from_redis_value(answer).map_err(|_| StoreError::Unexpected("a stream of revocations"))?;
    let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
    let event = |fields: &[String]| match fields {
        [add, member, until, unix] if add == "add" && until == "until" => {
            Some(RevocationEvent::Added(member.clone(), unix.parse().ok()?))
        }
        [remove, member] if remove == "remove" => Some(RevocationEvent::Removed(member.clone())),
        _ => None,
    };
    Ok(entries.map(|(id, fields)| (id, event(&fields))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(of: &str) -> Value {
        Value::BulkString(of.as_bytes().to_vec())
    }

    fn texts(of: &[&str]) -> Value {
        Value::Array(of.iter().map(|of| text(of)).collect())
    }

    #[test]
    fn entries_of_the_stream_are_read_and_what_is_none_is_passed_over() {
        let entry = |id: &str, fields: &[&str]| Value::Array(vec![text(id), texts(fields)]);
        let entries = Value::Array(vec![
            entry("1-1", &["add", "a", "until", "17"]),
            entry("1-2", &["remove", "b"]),
            entry("1-3", &["add", "a", "until", "never"]),
            entry("1-4", &["other"]),
        ]);
        let answer = Value::Array(vec![Value::Array(vec![text("log"), entries])]);
        let expected = [
            ("1-1", Some(RevocationEvent::Added("a".to_owned(), 17))),
            ("1-2", Some(RevocationEvent::Removed("b".to_owned()))),
            ("1-3", None),
            ("1-4", None),
        ];
        assert_eq!(changes_of(answer).unwrap(), expected.map(|(id, event)| (id.to_owned(), event)));
        assert_eq!(changes_of(Value::Nil).unwrap(), []);
        assert!(changes_of(Value::Int(1)).is_err());
    }
}
