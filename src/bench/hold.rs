//! Idle allocations: what each costs in memory, what all of them cost in CPU time, and whether the memory comes back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::error::BenchError;
use super::leg::Dial;
use super::measure::Clock;
use super::options::Options;
use super::process::Usage;
use super::progress::Progress;
use super::relay::open_sessions;
use super::report::{Hold, Report};
use super::session::drive;
use crate::client::Request;
use crate::client::data::CHANNEL;

/// Time for the server to come to rest between two readings.
const SETTLE: Duration = Duration::from_millis(1500);
/// The lifetime asked for, so that nothing has to be refreshed while it is idle.
const LIFETIME_SECS: u32 = 3600;

/// Makes the allocations, each with a permission and a channel, waits, and ends them.
///
/// # Errors
/// When the server's process is not named or gone, or the server refuses.
pub(super) fn run(
    options: &Options,
    dial: &Dial,
    clock: Clock,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Report, BenchError> {
    let read = || match options.server_pid {
        None => Ok(None),
        Some(pid) => Usage::read(pid).map(Some).ok_or(BenchError::NoProcess(pid)),
    };
    let start = read()?;
    let started_ns = clock.now_ns();
    let mut sessions = open_sessions(options, dial)?;
    let (of, mut done) = (sessions.len() * 2, 0);
    let mut step = || {
        done += 1;
        if done % 256 == 0 || done == of {
            progress(&Progress::SetUp { done: done / 2, of: of / 2 });
        }
    };
    let allocate = Request::Allocate { family: None, lifetime_secs: Some(LIFETIME_SECS) };
    drive(&mut sessions, clock, |_| allocate, |_, _| step())?;
    let peer = peer(options).map_err(BenchError::io("choosing a peer address"))?;
    drive(&mut sessions, clock, |_| Request::ChannelBind { channel: CHANNEL, peer }, |_, _| step())?;
    let set_up_ns = clock.now_ns().saturating_sub(started_ns);
    let ready = read()?;
    std::thread::sleep(SETTLE);
    let (held, idle_from_ns) = (read()?, clock.now_ns());
    progress(&Progress::Measured { elapsed: Duration::ZERO, of: options.duration, per_second: 0.0 });
    std::thread::sleep(options.duration);
    let (idle, idle_ns) = (read()?, clock.now_ns().saturating_sub(idle_from_ns));
    drive(&mut sessions, clock, |_| Request::Refresh { lifetime_secs: 0 }, |_, _| {})?;
    drop(sessions);
    std::thread::sleep(SETTLE);
    let released = read()?;

    let count = f64::from(options.clients);
    let usage = start.zip(ready).zip(held).zip(idle).zip(released);
    let hold = usage.map(|((((start, ready), held), idle), released)| Hold {
        set_up_cpu_us_per_allocation: ready.since(start).cpu_ns as f64 / 1e3 / count,
        resident_bytes_at_start: start.resident_bytes,
        resident_bytes_held: held.resident_bytes,
        resident_bytes_per_allocation: held.resident_bytes.saturating_sub(start.resident_bytes) as f64 / count,
        resident_bytes_released: released.resident_bytes,
        idle_cpu_percent: 100.0 * idle.since(held).cpu_ns as f64 / idle_ns.max(1) as f64,
        idle_context_switches_per_second: idle.since(held).voluntary_switches as f64 / (idle_ns as f64 / 1e9),
    });
    Ok(Report::of_hold(options, set_up_ns, hold))
}

/// An address that nothing is sent to.
fn peer(options: &Options) -> io::Result<SocketAddr> {
    let ip = match options.peer_ip {
        Some(ip) => ip,
        None => super::relay::local_ip(options.server)?,
    };
    Ok(SocketAddr::new(ip, 9))
}
