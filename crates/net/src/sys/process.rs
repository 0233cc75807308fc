//! What the kernel says of processes and of this machine, beyond /proc.

use std::num::NonZeroU64;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lifts this process's soft limit of open files to its hard limit, and returns what holds then.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let holds = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    // `None` is without limit.
    holds.current.unwrap_or(u64::MAX)
}

/// How many descriptors this process has open, and how many it may have.
pub fn descriptors() -> (u64, u64) {
    let folder = std::path::Path::new("/proc/self/fd");
    // Kernels from 6.2 on have the number as the folder's size; before, the size is zero, and the names are counted.
    let of_size = folder.metadata().map_or(0, |metadata| metadata.len());
    let open = if of_size > 0 { of_size } else { folder.read_dir().map_or(0, |names| names.count() as u64) };
    (open, getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// Lets timed waits of this thread end on time rather than up to 50 µs late.
pub fn sharpen_timers() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// CPUs that are switched on, whatever this process is pinned to.
pub fn online_cpus() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).unwrap_or(1)
}

/// CPU time in nanoseconds of all threads of a process, up to this moment; `None` when there is no such process.
///
/// The clock of another process is readable by anyone (clock_getcpuclockid(3)), and unlike /proc/PID/stat it counts
/// nanoseconds, unlike /proc/PID/schedstat it counts what a thread that runs now has used since its last tick.
pub fn process_cpu_ns(pid: u32) -> Option<u64> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both results outlive the calls. (rustix has the clocks of this process only.)
    let ok = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0
    };
    let (secs, nanos) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    ok.then(|| secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Whether something keeps this machine's clock right (adjtimex(2)); `None` where the kernel does not say.
pub fn clock_is_synchronised() -> Option<bool> {
    // SAFETY: a timex of zeros is valid, asks and sets nothing, and outlives the call.
    let (result, state) = unsafe {
        let mut state: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut state), state)
    };
    (result != -1).then_some(state.status & libc::STA_UNSYNC == 0)
}

/// Bytes in a page of memory.
pub fn page_size() -> u64 {
    // SAFETY: no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
