//! What a process has used so far: CPU time, its user and system parts, context switches, memory (proc(5)).

use std::fs;

use crate::net::sys;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time of all threads in nanoseconds, exact.
    pub(super) cpu_ns: u64,
    /// Clock ticks (10 ms) in user mode; a sample, so only its share of the whole means something.
    pub(super) user_ticks: u64,
    /// Clock ticks in the kernel.
    pub(super) system_ticks: u64,
    /// Voluntary context switches of the threads that are alive: waits.
    pub(super) voluntary_switches: u64,
    /// Involuntary ones: preemptions.
    pub(super) involuntary_switches: u64,
    /// Resident memory in bytes (`RssAnon` and file pages).
    pub(super) resident_bytes: u64,
}

impl Usage {
    /// Reads a process; `None` when it does not exist (any more).
    pub(super) fn read(pid: u32) -> Option<Self> {
        let cpu_ns = sys::process_cpu_ns(pid)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name is in parentheses and may hold anything; the numbers follow the last one.
        let (_, numbers) = stat.rsplit_once(')')?;
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        let field = |number: usize| numbers.get(number - 3).and_then(|text| text.parse::<u64>().ok());
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        let (voluntary_switches, involuntary_switches) = switches(pid);
        Some(Self {
            cpu_ns,
            user_ticks: field(14)?,
            system_ticks: field(15)?,
            voluntary_switches,
            involuntary_switches,
            resident_bytes: pages * sys::page_size(),
        })
    }

    /// What was used between an earlier reading and this one; memory is this one's.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(earlier.involuntary_switches),
            resident_bytes: self.resident_bytes,
        }
    }

    /// The share of CPU time in user mode, 0 to 1; `None` when too little was sampled to say.
    pub(super) fn user_share(self) -> Option<f64> {
        let ticks = self.user_ticks + self.system_ticks;
        (ticks >= 10).then(|| self.user_ticks as f64 / ticks as f64)
    }
}

fn switches(pid: u32) -> (u64, u64) {
    let mut sums = (0, 0);
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        for line in status.lines() {
            let number = || line.rsplit('\t').next().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
            if line.starts_with("voluntary_ctxt_switches") {
                sums.0 += number();
            } else if line.starts_with("nonvoluntary_ctxt_switches") {
                sums.1 += number();
            }
        }
    }
    sums
}

/// Datagrams that sockets in the network namespace of a process dropped for lack of buffer, IPv4 and IPv6 together.
pub(super) fn receive_buffer_errors(pid: u32) -> Option<u64> {
    let v4 = fs::read_to_string(format!("/proc/{pid}/net/snmp")).ok()?;
    let mut rows = v4.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, values) = (rows.next()?, rows.next()?);
    let at = names.split_whitespace().position(|name| name == "RcvbufErrors")?;
    let v4: u64 = values.split_whitespace().nth(at)?.parse().ok()?;
    let v6 = fs::read_to_string(format!("/proc/{pid}/net/snmp6")).unwrap_or_default();
    let v6 = v6.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    Some(v4 + v6.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_shows_at_once_and_in_nanoseconds() {
        let pid = std::process::id();
        let before = Usage::read(pid).unwrap();
        let started = std::time::Instant::now();
        while sys::process_cpu_ns(pid).unwrap() - before.cpu_ns < 3_000_000 {
            assert!(started.elapsed().as_secs() < 60, "the clock stands still");
        }
        let used = Usage::read(pid).unwrap().since(before);
        assert!(used.cpu_ns >= 3_000_000);
        assert!(used.resident_bytes > 100_000, "{used:?}");
        assert!(receive_buffer_errors(pid).is_some());
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_usage() {
        assert_eq!(Usage::read(u32::MAX / 2), None);
    }

    #[test]
    fn a_share_from_too_few_ticks_is_not_given() {
        assert_eq!(Usage { user_ticks: 2, system_ticks: 3, ..Usage::default() }.user_share(), None);
        assert_eq!(Usage { user_ticks: 10, system_ticks: 30, ..Usage::default() }.user_share(), Some(0.25));
    }
}
