//! What is revoked, as the servers of a fleet share it: a sorted set by when each of it is over, and a stream of what has changed.
//!
//! A server takes all there is when it connects, and follows the stream from then on. A store that has lost what it had is given it again by
//! whoever knows it: a mark in the store tells that from a revocation that was undone while nobody looked.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use redis::{Cmd, Script, Value, cmd, from_redis_value};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::error::StoreError;
use super::handle::{Dedicated, Store};
use super::stats::Part;

/// What may be revoked at once.
const REVOKED_MAX: usize = 65_536;
/// What is written at once.
const WRITTEN_AT_ONCE: usize = 100;
/// And what is believed of that; a few servers may revoke at once.
pub const MEMBERS_MAX: usize = 2 * REVOKED_MAX;
/// A member that has more is none of ours: names of 508 bytes and of their realm, most of them escaped. No more of it is kept.
const MEMBER_BYTES_MAX: usize = 4096;
/// What stands for the rest of one.
const CUT: &str = " ...";
/// How long the store is asked to wait for a change.
const WAIT: Duration = Duration::from_secs(2);
/// An answer to that is bounded, see `link`.
const READ_AT_ONCE: usize = 200;
/// Answers by which all of it is there; a store that goes on and on is no store.
const SCANS_MAX: usize = 10 * REVOKED_MAX / READ_AT_ONCE;
/// Connections that end at once, though there is another one, are told from this many on.
const LOSSES_TOLD: u32 = 5;
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
        "local mark = redis.call('GETRANGE', KEYS[3], 0, 255)
        if mark == '' and ARGV[1] ~= '' then redis.call('SET', KEYS[3], ARGV[1]) end
        local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
        return { mark, last[1] and last[1][1] or '0-0', redis.call('ZCARD', KEYS[1]) }",
    )
});

/// KEYS: the set. ARGV: where to go on, how many, and how much of a member is wanted.
static SOME: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local found = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
        for i = 1, #found[2], 2 do
            found[2][i] = string.sub(found[2][i], 1, tonumber(ARGV[3]))
        end
        return found",
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
        let keys = keys(&store.config().prefix);
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
        let mut losses = 0;
        let mut connections = self.store.connections();
        loop {
            connections.borrow_and_update();
            if self.store.is_connected() {
                let begun = Instant::now();
                match self.follow_connection(&new_mark, &mut mark, &events).await {
                    Ok(()) => return,
                    Err(error) => {
                        losses = if begun.elapsed() > 2 * WAIT { 0 } else { losses + 1 };
                        // That the store is lost is told by who keeps the connection: unless it has room for no other one.
                        let is_told = error.is_loss() && (losses < LOSSES_TOLD || !self.store.is_connected());
                        if !is_told && self.store.stats().trouble(Part::RevocationsRead, &error) {
                            tracing::warn!(%error, "what other servers revoke is not known here: the revocations of the store cannot be followed; it is tried again");
                        }
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
            let read = changes_after(&self.keys[1], &known.stream_id, WAIT);
            let changes = changes_of(connection.command(&read).await?)?;
            self.store.stats().is_well(Part::RevocationsRead);
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
        let members = self.scan_all(connection).await?;
        let was_emptied = look.mark.is_empty() || mark.as_ref().is_some_and(|mark| *mark != look.mark);
        if look.mark.is_empty() {
            look.mark = own_mark;
        }
        *mark = Some(look.mark.clone());
        // The other end is gone with the server, which the caller sees by itself.
        let _ = events.send(RevocationEvent::All { members, was_emptied }).await;
        Ok(look)
    }

    /// All that is there from the beginning of this to its end, in pieces.
    async fn scan_all(&self, connection: &mut Dedicated) -> Result<Members, StoreError> {
        let (mut members, mut cursor) = (Members::new(), "0".to_owned());
        for _ in 0..SCANS_MAX {
            let answer = connection.script(&SOME, &self.keys[..1], &some_after(&cursor)).await?;
            let (next, some): (String, Vec<(Vec<u8>, f64)>) =
                from_redis_value(answer).map_err(|_| StoreError::Unexpected("a sorted set of revocations"))?;
            members.extend(some.into_iter().map(|(member, until)| (member_of(&member), until as u64)));
            if members.len() > MEMBERS_MAX {
                break;
            }
            if next == "0" {
                return Ok(members);
            }
            cursor = next;
        }
        Err(StoreError::Unexpected("no more revocations than there can be"))
    }

    async fn look(&self, connection: &mut Dedicated, own_mark: &str) -> Result<Look, StoreError> {
        let answer = connection.script(&LOOK, &self.keys, &[own_mark]).await?;
        let (mark, stream_id, count) =
            from_redis_value(answer).map_err(|_| StoreError::Unexpected("the place of a stream"))?;
        Ok(Look { mark, stream_id, count })
    }
}

/// The set, the stream, and the mark; in one place of a cluster.
fn keys(prefix: &str) -> [String; 3] {
    ["", ":log", ":mark"].map(|what| format!("{prefix}:{{revocations}}{what}"))
}

/// Asks a store what a server does that follows it.
pub(super) async fn try_to_follow(store: &Store) -> Result<(), StoreError> {
    let [set, stream, _] = keys(&store.config().prefix);
    store.script(&SOME, &[set], &some_after("0")).await?;
    store.command(&changes_after(&stream, "$", Duration::from_millis(1))).await?;
    Ok(())
}

fn some_after(cursor: &str) -> [String; 3] {
    [cursor.to_owned(), READ_AT_ONCE.to_string(), (MEMBER_BYTES_MAX + 1).to_string()]
}

/// A member as it is known here. One that is too long, which nobody can read, is known by its beginning.
fn member_of(bytes: &[u8]) -> String {
    let start = bytes.get(..=MEMBER_BYTES_MAX).unwrap_or(bytes);
    let mut member = String::from_utf8_lossy(start).into_owned();
    if member.len() > MEMBER_BYTES_MAX {
        member.truncate(member.floor_char_boundary(MEMBER_BYTES_MAX));
        member += CUT;
    }
    member
}

fn changes_after(stream: &str, id: &str, wait: Duration) -> Cmd {
    let wait_millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let mut read = cmd("XREAD");
    read.arg("BLOCK").arg(wait_millis).arg("COUNT").arg(READ_AT_ONCE).arg("STREAMS").arg(stream).arg(id);
    read
}

/// The changes in an answer to XREAD, each with its id; what is none is passed over.
///
/// # Errors
/// It is no such answer.
pub fn changes_of(answer: Value) -> Result<Vec<(String, Option<RevocationEvent>)>, StoreError> {
    type Streams = Vec<(Value, Vec<(String, Vec<Vec<u8>>)>)>;
    let streams: Option<Streams> =
        from_redis_value(answer).map_err(|_| StoreError::Unexpected("a stream of revocations"))?;
    let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
    let event = |fields: &[Vec<u8>]| match fields {
        [add, member, until, unix] if add == b"add" && until == b"until" => {
            let until_unix = std::str::from_utf8(unix).ok()?.parse().ok()?;
            Some(RevocationEvent::Added(member_of(member), until_unix))
        }
        [remove, member] if remove == b"remove" => Some(RevocationEvent::Removed(member_of(member))),
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
    fn a_member_that_is_too_long_is_one_that_is_known_by_its_beginning() {
        let long = |char: char, count: usize| char.to_string().repeat(count).into_bytes();
        assert_eq!(member_of(&long('a', 4096)), "a".repeat(4096));
        for (char, count) in [('a', 4097), ('a', 5_000_000), ('\u{e9}', 3000), ('\u{1f600}', 1025)] {
            let whole = long(char, count);
            let member = member_of(&whole);
            assert!(member.len() > 4096 && member.len() <= 4100 && member.ends_with(CUT), "{char} {count}");
            // As the scan has it, and as the stream.
            assert_eq!(member_of(&whole[..4097]), member);
        }
        assert!(member_of(&[0xff; 3000]).len() > 4096, "what is shown of each byte takes three");
        assert_eq!(member_of(b"\xff{"), "\u{fffd}{");
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
