//! What the kernel says of processes and of this machine, beyond /proc.

/// Lifts this process's soft limit of open files to its hard limit, and returns what holds then.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
                limit = raised;
            }
        }
    }
    limit.rlim_cur
}

/// Lets timed waits of this thread end on time rather than up to 50 µs late.
pub fn sharpen_timers() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
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
    // SAFETY: both results outlive the calls.
    let ok = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0
    };
    let (secs, nanos) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    ok.then(|| secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Whether something keeps this machine's clock right (adjtimex(2)); `None` where the kernel does not say.
pub fn clock_is_synchronised() -> Option<bool> {
    // SAFETY: a timex of zeros is valid: it asks, and sets nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` outlives the call.
    match unsafe { libc::adjtimex(&raw mut state) } {
        -1 => None,
        _ => Some(state.status & libc::STA_UNSYNC == 0),
    }
}

/// Bytes in a page of memory.
pub fn page_size() -> u64 {
    // SAFETY: no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
