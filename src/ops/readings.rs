//! Files that are read while the server runs, each kind of them on a thread of its own and one at a time: what takes long to read, and a disk
//! that hangs, hold up neither the control runtime nor the end of the process.

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::error::NotRead;

/// What takes longer is told, once.
const LONG: Duration = Duration::from_secs(10);

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Configuration,
    Secrets,
    Certificates,
    Revocations,
}

impl Kind {
    /// As it is in the log, and the name of its thread.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Secrets => "secrets",
            Self::Certificates => "certificates",
            Self::Revocations => "revocations",
        }
    }
}

/// What is being read.
pub(super) struct Readings<T> {
    under_way: BTreeMap<Kind, UnderWay>,
    send: mpsc::UnboundedSender<(Kind, Option<T>)>,
    ends: mpsc::UnboundedReceiver<(Kind, Option<T>)>,
}

struct UnderWay {
    since: Instant,
    is_told: bool,
    /// It is to be read once more when this has ended.
    again: bool,
}

/// What has come of it.
pub(super) struct Ended<T> {
    pub(super) kind: Kind,
    /// Nothing if its thread has panicked.
    pub(super) found: Option<T>,
    pub(super) again: bool,
}

impl<T: Send + 'static> Readings<T> {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let (send, ends) = mpsc::unbounded_channel();
        Self { under_way: BTreeMap::new(), send, ends }
    }

    /// A thread that waits for what it is to do.
    ///
    /// # Errors
    /// Something of this kind is being read, or there is no thread to be had.
    pub(super) fn begin(&mut self, kind: Kind) -> Result<Reader<T>, NotRead> {
        if let Some(under_way) = self.under_way.get(&kind) {
            return Err(NotRead::UnderWay(under_way.since.elapsed().as_secs()));
        }
        let (give, work) = channel::<Work<T>>();
        let end = End { kind, found: None, send: self.send.clone() };
        let run = move || {
            let mut end = end;
            end.found = work.recv().ok().map(|work| work());
        };
        Builder::new().name(kind.name().to_owned()).spawn(run).map_err(NotRead::NoThread)?;
        self.under_way.insert(kind, UnderWay { since: Instant::now(), is_told: false, again: false });
        Ok(Reader(give))
    }

    /// Has it read once more when what is being read has been: it may have changed since. False if nothing is.
    pub(super) fn read_again(&mut self, kind: Kind) -> bool {
        self.under_way.get_mut(&kind).map(|under_way| under_way.again = true).is_some()
    }

    /// The next that has been read.
    pub(super) async fn ended(&mut self) -> Ended<T> {
        loop {
            let untold = self.under_way.values_mut().filter(|under_way| !under_way.is_told);
            let first = untold.min_by_key(|under_way| under_way.since);
            let long = first.as_ref().map(|first| first.since + LONG);
            let is_long = async {
                match long {
                    Some(long) => sleep_until(long).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((kind, found)) = self.ends.recv() => {
                    let again = self.under_way.remove(&kind).is_some_and(|under_way| under_way.again);
                    return Ended { kind, found, again };
                }
                () = is_long => {}
            }
            let now = Instant::now();
            for (kind, under_way) in self.under_way.iter_mut().filter(|(_, of)| !of.is_told && of.since + LONG <= now) {
                under_way.is_told = true;
                let (files, secs) = (kind.name(), LONG.as_secs());
                tracing::warn!(
                    files,
                    secs,
                    "files are still being read: does their disk answer? What is in force stays so until then"
                );
            }
        }
    }
}

type Work<T> = Box<dyn FnOnce() -> T + Send>;

/// A thread that reads.
pub(super) struct Reader<T>(Sender<Work<T>>);

impl<T> Reader<T> {
    pub(super) fn read(self, work: impl FnOnce() -> T + Send + 'static) {
        // It waits for it.
        let _ = self.0.send(Box::new(work));
    }
}

/// Says that it is over, whatever has happened.
struct End<T> {
    kind: Kind,
    found: Option<T>,
    send: mpsc::UnboundedSender<(Kind, Option<T>)>,
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        // Nobody listens any more when the server ends.
        let _ = self.send.send((self.kind, self.found.take()));
    }
}

/// Tells of what nobody waits for.
pub(super) fn tell_not_read(kind: Kind, problem: &NotRead) {
    tracing::error!(files = kind.name(), %problem, "they cannot be read: what is in force stays");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_hangs_holds_up_only_its_kind_and_is_told_of() {
        let mut readings = Readings::new();
        let (hold, held) = channel::<()>();
        readings.begin(Kind::Configuration).unwrap().read(move || held.recv().is_ok());
        assert!(matches!(readings.begin(Kind::Configuration), Err(NotRead::UnderWay(_))));
        assert!(!readings.read_again(Kind::Certificates) && readings.read_again(Kind::Configuration));
        readings.begin(Kind::Certificates).unwrap().read(|| false);
        let Ended { kind, found, again } = readings.ended().await;
        assert_eq!((kind, found, again), (Kind::Certificates, Some(false), false));
        assert!(readings.begin(Kind::Certificates).is_ok(), "and then does nothing");
        let Ended { kind, found, .. } = readings.ended().await;
        assert_eq!((kind, found), (Kind::Certificates, None));
        hold.send(()).unwrap();
        let Ended { kind, found, again } = readings.ended().await;
        assert_eq!((kind, found, again), (Kind::Configuration, Some(true), true));
        readings.begin(Kind::Configuration).unwrap().read(|| panic!("a bug"));
        assert!(readings.ended().await.found.is_none());
        assert!(readings.under_way.is_empty());
    }
}
