//! What this process is to others, and acting as another user.

use rustix::fs::Gid;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Lets no core be dumped of this process, which holds keys, and none of its user's other processes read its memory.
///
/// The limit is not asked where a core goes to a program (core_pattern(5)); whether the process is dumpable always is.
pub fn forbid_core_dumps() {
    // Neither can fail: a limit may always be lowered, and this is one of the two values there are.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Does something with a user's access to files, in a thread of its own; only root can.
///
/// The kernel has credentials by thread, and setfsuid(2) takes away root's capabilities over files, too.
///
/// # Errors
/// The kernel does not allow it, or `what` panicked.
pub fn with_files_of<T: Send>(
    uid: u32,
    gid: u32,
    groups: &[u32],
    what: impl FnOnce() -> T + Send,
) -> std::io::Result<T> {
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The bare call changes this thread alone, unlike the C library's.
            rustix::thread::set_thread_groups(&groups.iter().map(|gid| Gid::from_raw(*gid)).collect::<Vec<_>>())?;
            // SAFETY: no pointers. Each call returns the value before it, and an impossible one changes nothing.
            let now = unsafe {
                libc::setfsgid(gid);
                libc::setfsuid(uid);
                (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX))
            };
            if (now.0.cast_unsigned(), now.1.cast_unsigned()) != (uid, gid) {
                return Err(std::io::ErrorKind::PermissionDenied.into());
            }
            Ok(what())
        });
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("it panicked")))
    });
    // A change of user may make a process dumpable again.
    forbid_core_dumps();
    done
}
