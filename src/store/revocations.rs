//! What is revoked, as the servers of a fleet share it: a hash with an entry for each server that has revoked something of somebody, and a
//! stream of what has changed.
//!
//! The store is where servers meet, and no more: each of them makes one of what it knows and what the store has, both ways, when it connects,
//! when the store is not what it was, and now and then. Nothing in the store takes something away; what is undone is an entry that says so,
//! for as long as it could matter.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use redis::{Cmd, Script, Value, cmd, from_redis_value};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::entry::Entry;
use super::error::StoreError;
use super::handle::{Dedicated, Store};
use super::stats::Part;

/// Entries that a store has room for.
pub const ENTRIES_MAX: usize = 65_536;
/// What is written at once.
const WRITTEN_AT_ONCE: usize = 100;
/// And what is believed of what a store has.
pub const BELIEVED_MAX: usize = 2 * ENTRIES_MAX;
/// An id that has more is none of ours. No more of it is kept.
const ID_BYTES_MAX: usize = super::entry_id::TEXT_BYTES_MAX;
/// Eight numbers.
const STATE_BYTES_MAX: usize = 256;
/// What stands for the rest of an id.
const CUT: &str = " ...";
/// How long the store is asked to wait for a change.
const WAIT: Duration = Duration::from_secs(2);
/// An answer to that is bounded, see `link`.
const READ_AT_ONCE: usize = 200;
/// Answers by which all of it is there; a store that goes on and on is no store.
const SCANS_MAX: usize = 10 * ENTRIES_MAX / READ_AT_ONCE;
/// How long after a change all of it is read again, and how long without one: a store that has lost something says so in no stream.
const READ_AGAIN: Duration = Duration::from_secs(20);
const READ_AGAIN_QUIET: Duration = Duration::from_secs(3600);
/// How long an entry is kept when it is over, by the clocks of a server and of the store: for clocks that are wrong. No longer, because what
/// is over takes room meanwhile: an application may revoke each of its short-lived credentials.
pub const KEPT_SECS: u64 = 3600;
/// Connections that end at once, though there is another one, are told from this many on.
const LOSSES_TOLD: u32 = 5;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Entries by their ids, and those whose states cannot be read.
pub type Entries = BTreeMap<String, Option<Entry>>;

/// What the store has told.
#[derive(Debug, PartialEq, Eq)]
pub enum RevocationEvent {
    /// All there is, and what the store's clock says, in Unix seconds.
    All(Entries, u64),
    /// One has changed.
    Changed(String, Option<Entry>),
    /// One that was so has given way to another one.
    Gone(String, Option<Entry>),
}

/// What has become of entries that the store was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// How many of them it had not.
    pub changed: usize,
    /// Those it has no room for.
    pub refused: Vec<String>,
}

/// Writes and follows.
#[derive(Clone)]
pub struct StoreRevocations {
    store: Store,
    keys: [String; 2],
}

static MERGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("merge.lua")));

/// KEYS: the hash. ARGV: how long what is over is kept, then ids of what is over by the clock of a server. Returns how many are forgotten.
static FORGET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local before, forgotten = tonumber(redis.call('TIME')[1]) - tonumber(ARGV[1]), 0
        for i = 2, #ARGV do
            local state = redis.call('HGET', KEYS[1], ARGV[i]) or ''
            local all, issued = string.match(state, '^%d+ %d+ (%d+) %d+ %d+ %d+ %d+ (%d+)$')
            if all and math.max(tonumber(all), tonumber(issued)) < before then
                forgotten = forgotten + redis.call('HDEL', KEYS[1], ARGV[i])
            end
        end
        return forgotten",
    )
});

/// KEYS: the hash and the stream. ARGV: how many changes are kept, then an id and a state for each.
static LET_GO: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for i = 2, #ARGV, 2 do
            if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
                redis.call('HDEL', KEYS[1], ARGV[i])
                redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'gone', ARGV[i], 'was', ARGV[i + 1])
            end
        end
        return 1",
    )
});

/// Returns where the stream is, how many entries there are, and the time.
static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
        return { last[1] and last[1][1] or '0-0', redis.call('HLEN', KEYS[1]), tonumber(redis.call('TIME')[1]) }",
    )
});

/// KEYS: the hash. ARGV: where to go on, how many, and how much of an id and of a state is wanted.
static SOME: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
        for i = 1, #found[2], 2 do
            found[2][i] = string.sub(found[2][i], 1, tonumber(ARGV[3]))
            found[2][i + 1] = string.sub(found[2][i + 1], 1, tonumber(ARGV[4]))
        end
        return found",
    )
});

/// An id and a state, as they are in the store.
type Raw = (Vec<u8>, Vec<u8>);

/// What the store looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    stream_id: String,
    count: u64,
}

impl StoreRevocations {
    /// Those of a store.
    pub fn new(store: Store) -> Self {
        let keys = keys(&store.config().prefix);
        Self { store, keys }
    }

    /// Gives it entries, for all servers.
    ///
    /// # Errors
    /// It is not known whether it has them.
    pub async fn give(&self, entries: &[(String, Entry)]) -> Result<Given, StoreError> {
        let mut given = Given::default();
        for some in entries.chunks(WRITTEN_AT_ONCE) {
            let mut args = vec![ENTRIES_MAX.to_string()];
            args.extend(some.iter().flat_map(|(id, entry)| [id.clone(), entry.to_string()]));
            let answer = self.store.script(&MERGE, &self.keys, &args).await.map_err(|error| self.explained(error))?;
            let (changed, refused): (usize, Vec<String>) =
                from_redis_value(answer).map_err(|_| StoreError::Unexpected("what has become of entries"))?;
            given.changed += changed;
            given.refused.extend(refused);
        }
        Ok(given)
    }

    /// Has entries give way which are still so, and tells all servers.
    ///
    /// # Errors
    /// It is not known whether they have.
    pub async fn let_go(&self, entries: &[(String, Entry)]) -> Result<(), StoreError> {
        for some in entries.chunks(WRITTEN_AT_ONCE) {
            let mut args = vec![ENTRIES_MAX.to_string()];
            args.extend(some.iter().flat_map(|(id, entry)| [id.clone(), entry.to_string()]));
            self.store.script(&LET_GO, &self.keys, &args).await.map_err(|error| self.explained(error))?;
        }
        Ok(())
    }

    /// Follows for ever, on a connection of its own. `now_unix` is the clock.
    pub async fn follow(self, now_unix: impl Fn() -> u64, events: mpsc::Sender<RevocationEvent>) {
        let mut losses = 0;
        let mut connections = self.store.connections();
        loop {
            connections.borrow_and_update();
            if self.store.is_connected() {
                let begun = Instant::now();
                match self.follow_connection(&now_unix, &events).await {
                    Ok(()) => return,
                    Err(error) => {
                        let error = self.explained(error);
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

    fn explained(&self, error: StoreError) -> StoreError {
        explained(&self.keys, error)
    }

    /// Until something is wrong. `Ok` is the end of the server.
    async fn follow_connection(
        &self,
        now_unix: &impl Fn() -> u64,
        events: &mpsc::Sender<RevocationEvent>,
    ) -> Result<(), StoreError> {
        let mut connection = self.store.dedicated(WAIT).await.map_err(|_| StoreError::Lost)?;
        let mut known = self.take_all(&mut connection, now_unix, events).await?;
        let (mut read_at, mut again) = (Instant::now(), READ_AGAIN_QUIET);
        loop {
            let read = changes_after(&self.keys[1], &known.stream_id, WAIT);
            let changes = changes_of(connection.command(&read).await?)?;
            self.store.stats().is_well(Part::RevocationsRead);
            let is_quiet = changes.is_empty();
            if let Some((last, _)) = changes.last() {
                known.stream_id.clone_from(last);
                again = READ_AGAIN;
            }
            for event in changes.into_iter().filter_map(|(_, event)| event) {
                if events.send(event).await.is_err() {
                    return Ok(());
                }
            }
            let (look, store_unix) = self.look(&mut connection).await?;
            if let Some(problem) = self.store.stats().compare_clocks(store_unix, now_unix()) {
                tracing::warn!(%problem, "the clocks of the store and of this server differ");
            }
            // What was emptied, or has come back from an older copy, tells nothing of it in the stream.
            if is_quiet && look != known || read_at.elapsed() >= again {
                let before = known.stream_id;
                known = self.take_all(&mut connection, now_unix, events).await?;
                // What was undone and has given way meanwhile is in the stream alone: nothing of it is passed over.
                if place(&before) < place(&known.stream_id) {
                    known.stream_id = before;
                }
                (read_at, again) = (Instant::now(), READ_AGAIN_QUIET);
            } else {
                known.count = look.count;
            }
        }
    }

    async fn take_all(
        &self,
        connection: &mut Dedicated,
        now_unix: &impl Fn() -> u64,
        events: &mpsc::Sender<RevocationEvent>,
    ) -> Result<Look, StoreError> {
        // The stream's place is read before: what changes in between is taken twice, which changes nothing.
        let (mut look, store_unix) = self.look(connection).await?;
        let entries = self.scan_all(connection).await?;
        let before_unix = now_unix().saturating_sub(KEPT_SECS);
        let is_over = |entry: &Option<Entry>| entry.is_some_and(|entry| entry.until_unix() < before_unix);
        let over: Vec<_> = entries.iter().filter(|(_, entry)| is_over(entry)).map(|(id, _)| id.clone()).collect();
        for some in over.chunks(WRITTEN_AT_ONCE) {
            let args: Vec<_> = std::iter::once(KEPT_SECS.to_string()).chain(some.iter().cloned()).collect();
            let answer = connection.script(&FORGET, &self.keys[..1], &args).await?;
            let forgotten: u64 = from_redis_value(answer).map_err(|_| StoreError::Unexpected("a number"))?;
            look.count = look.count.saturating_sub(forgotten);
        }
        // The other end is gone with the server, which the caller sees by itself.
        let _ = events.send(RevocationEvent::All(entries, store_unix)).await;
        Ok(look)
    }

    /// All that is there from the beginning of this to its end, in pieces.
    async fn scan_all(&self, connection: &mut Dedicated) -> Result<Entries, StoreError> {
        let (mut entries, mut cursor) = (Entries::new(), "0".to_owned());
        for _ in 0..SCANS_MAX {
            let answer = connection.script(&SOME, &self.keys[..1], &some_after(&cursor)).await?;
            let (next, some): (String, Vec<Raw>) =
                from_redis_value(answer).map_err(|_| StoreError::Unexpected("a hash of revocations"))?;
            entries.extend(some.iter().map(|(id, state)| (id_of(id), state_of(state))));
            if entries.len() > BELIEVED_MAX {
                break;
            }
            if next == "0" {
                return Ok(entries);
            }
            cursor = next;
        }
        Err(StoreError::Unexpected("no more revocations than there can be"))
    }

    async fn look(&self, connection: &mut Dedicated) -> Result<(Look, u64), StoreError> {
        let answer = connection.script(&LOOK, &self.keys, &[""; 0]).await?;
        let (stream_id, count, unix) =
            from_redis_value(answer).map_err(|_| StoreError::Unexpected("the place of a stream"))?;
        Ok((Look { stream_id, count }, unix))
    }
}

/// An id of the stream, to be compared with others.
fn place(id: &str) -> Option<(u64, u64)> {
    let (millis, count) = id.split_once('-')?;
    Some((millis.parse().ok()?, count.parse().ok()?))
}

/// The hash and the stream; in one place of a cluster.
fn keys(prefix: &str) -> [String; 2] {
    ["", ":log"].map(|what| format!("{prefix}:{{revocations}}{what}"))
}

/// Asks a store what a server does that follows it.
pub(super) async fn try_to_follow(store: &Store) -> Result<(), StoreError> {
    let keys = keys(&store.config().prefix);
    let tried = async {
        store.script(&SOME, &keys[..1], &some_after("0")).await?;
        store.command(&changes_after(&keys[1], "$", Duration::from_millis(1))).await
    };
    tried.await.map(drop).map_err(|error| explained(&keys, error))
}

/// Says what to do where something else stands at our keys.
fn explained([hash, stream]: &[String; 2], error: StoreError) -> StoreError {
    match error {
        StoreError::Refused(why) if why.contains("WRONGTYPE") => StoreError::Refused(format!(
            "{why}: something else than revocations is at '{hash}' or '{stream}'; DEL both, and servers put there again what they know to be revoked"
        )),
        other => other,
    }
}

fn some_after(cursor: &str) -> [String; 4] {
    let number = |number: usize| number.to_string();
    [cursor.to_owned(), number(READ_AT_ONCE), number(ID_BYTES_MAX + 1), number(STATE_BYTES_MAX)]
}

/// An id as it is known here. One that is too long, which nobody can read, is known by its beginning.
fn id_of(bytes: &[u8]) -> String {
    let start = bytes.get(..=ID_BYTES_MAX).unwrap_or(bytes);
    let mut id = String::from_utf8_lossy(start).into_owned();
    if id.len() > ID_BYTES_MAX {
        id.truncate(id.floor_char_boundary(ID_BYTES_MAX));
        id += CUT;
    }
    id
}

fn state_of(bytes: &[u8]) -> Option<Entry> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
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
    let changes = streams.into_iter().flatten().flat_map(|(_, changes)| changes);
    let event = |fields: &[Vec<u8>]| match fields {
        [entry, id, is, state] if entry == b"entry" && is == b"is" => {
            Some(RevocationEvent::Changed(id_of(id), state_of(state)))
        }
        [gone, id, was, state] if gone == b"gone" && was == b"was" => {
            Some(RevocationEvent::Gone(id_of(id), state_of(state)))
        }
        _ => None,
    };
    Ok(changes.map(|(id, fields)| (id, event(&fields))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::entry::Counts;
    use super::*;

    fn text(of: &str) -> Value {
        Value::BulkString(of.as_bytes().to_vec())
    }

    fn texts(of: &[&str]) -> Value {
        Value::Array(of.iter().map(|of| text(of)).collect())
    }

    #[test]
    fn an_id_that_is_too_long_is_one_that_is_known_by_its_beginning() {
        let long = |char: char, count: usize| char.to_string().repeat(count).into_bytes();
        assert_eq!(id_of(&long('a', 4096)), "a".repeat(4096));
        for (char, count) in [('a', 4097), ('a', 5_000_000), ('\u{e9}', 3000), ('\u{1f600}', 1025)] {
            let whole = long(char, count);
            let id = id_of(&whole);
            assert!(id.len() > 4096 && id.len() <= 4100 && id.ends_with(CUT), "{char} {count}");
            // As the scan has it, and as the stream.
            assert_eq!(id_of(&whole[..4097]), id);
        }
        assert!(id_of(&[0xff; 3000]).len() > 4096, "what is shown of each byte takes three");
        assert_eq!(id_of(b"\xff{"), "\u{fffd}{");
    }

    #[test]
    fn changes_of_the_stream_are_read_and_what_is_none_is_passed_over() {
        let change = |id: &str, fields: &[&str]| Value::Array(vec![text(id), texts(fields)]);
        let changes = Value::Array(vec![
            change("1-1", &["entry", "a", "is", "1 0 17 0 0 0 0 0"]),
            change("1-2", &["entry", "b", "is", "never"]),
            change("1-3", &["entry", "c"]),
            change("1-4", &["other"]),
            change("1-5", &["gone", "a", "was", "1 0 17 0 0 0 0 0"]),
        ]);
        let answer = Value::Array(vec![Value::Array(vec![text("log"), changes])]);
        let entry = Entry { all: Counts { revoked: 1, undone: 0 }, all_until_unix: 17, ..Entry::default() };
        let expected = [
            ("1-1", Some(RevocationEvent::Changed("a".to_owned(), Some(entry)))),
            ("1-2", Some(RevocationEvent::Changed("b".to_owned(), None))),
            ("1-3", None),
            ("1-4", None),
            ("1-5", Some(RevocationEvent::Gone("a".to_owned(), Some(entry)))),
        ];
        assert_eq!(changes_of(answer).unwrap(), expected.map(|(id, event)| (id.to_owned(), event)));
        assert_eq!(changes_of(Value::Nil).unwrap(), []);
        assert!(changes_of(Value::Int(1)).is_err());
    }
}
