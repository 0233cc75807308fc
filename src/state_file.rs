//! A file that the server keeps for itself: it changes as a whole, and what was written is there after a loss of power.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a disk may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Threads that may wait for one at the same time.
const THREADS_MAX: usize = 16;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Replaces the file with what `write` writes; nobody but its owner may read it. The directory is made if there is none.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    if !directory.is_dir() {
        DirBuilder::new().mode(0o750).recursive(true).create(directory)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = directory.join(name);
    // One that was left over may be a link, or open to others: what is written may be a key.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

/// Does something with files, on a thread of its own: a disk that hangs holds up neither the control runtime nor the end of the process.
pub(crate) async fn on_disk<T: Send + 'static>(
    thread: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    within(LIMIT, &THREADS, thread, work).await
}

async fn within<T: Send + 'static>(
    limit: Duration,
    threads: &'static AtomicUsize,
    thread: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let silent = || io::Error::other("the disk does not answer");
    let counted = Counted(threads);
    if threads.fetch_add(1, Ordering::Relaxed) >= THREADS_MAX {
        return Err(silent());
    }
    let (send, done) = oneshot::channel();
    std::thread::Builder::new().name(thread.to_owned()).spawn(move || {
        let _counted = counted;
        drop(send.send(work()));
    })?;
    timeout(limit, done).await.map_err(|_| silent())?.map_err(|_| silent())?
}

/// One thread, until it has ended.
struct Counted(&'static AtomicUsize);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_is_given_up_and_takes_no_more_than_some_threads() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Arc::new(std::sync::Mutex::new(held));
        let soon = Duration::from_millis(10);
        for _ in 0..2 * THREADS_MAX {
            let held = std::sync::Arc::clone(&held);
            let hangs = within(soon, &COUNT, "hangs", move || {
                let _ = held.lock().unwrap().recv();
                Ok(())
            });
            assert!(hangs.await.unwrap_err().to_string().contains("does not answer"));
            assert!(COUNT.load(Ordering::Relaxed) <= THREADS_MAX);
        }
        drop(hold);
        while COUNT.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        assert!(within(LIMIT, &COUNT, "works", || Ok(())).await.is_ok());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("b").join("f.json");
        replace(&path, |out| out.write_all(b"one")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (left_over, other) = (path.with_extension("json.new"), folder.path().join("other"));
        fs::write(&other, "of somebody else").unwrap();
        std::os::unix::fs::symlink(&other, &left_over).unwrap();
        replace(&path, |out| out.write_all(b"one")).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"of somebody else");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
        fs::write(&left_over, "").unwrap();
        fs::set_permissions(&left_over, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, |out| out.write_all(b"one")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let failed = replace(&path, |out| out.write_all(b"tw").and(Err(io::Error::other("full"))));
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, |out| out.write_all(b"three")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
    }
}
