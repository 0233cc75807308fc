//! A file that the server keeps for itself: it changes as a whole, and what was written is there after a loss of power.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a disk may take.
const LIMIT: Duration = Duration::from_secs(5);

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
    let (send, done) = oneshot::channel();
    std::thread::Builder::new().name(thread.to_owned()).spawn(move || drop(send.send(work())))?;
    match timeout(LIMIT, done).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(io::Error::other("the disk does not answer")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

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
