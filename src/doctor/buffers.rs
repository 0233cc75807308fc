//! Socket buffers and what the kernel has thrown away because one was full: UDP loses in silence.

use crate::addr::{Family, SocketKind};
use crate::config::Config;
use crate::net::LISTENER_BUFFER;
use crate::probe::{Status, Step};

use super::finding;
use super::process::Socket;

/// Bytes that a listener asks for.
const WANTED: u64 = LISTENER_BUFFER as u64;
/// The kernel's own default of net.core.rmem_max and wmem_max.
const KERNEL_DEFAULT: u64 = 212_992;
const BACKLOG_DEFAULT: u64 = 1000;

/// Losses of one address family since the start of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Udp {
    received: u64,
    /// All that could not be delivered, the following included.
    errors: u64,
    receive_buffer: u64,
    send_buffer: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) ipv4: Udp,
    pub(super) ipv6: Udp,
    /// Dropped at the sockets that the server has now.
    pub(super) at_server: u64,
}

impl Counters {
    pub(super) fn has_full_buffers(&self) -> bool {
        self.at_server + self.ipv4.receive_buffer + self.ipv6.receive_buffer > 0
    }
}

/// The two lines `Udp:` of /proc/net/snmp, names and values.
pub(super) fn read_snmp(text: &str) -> Udp {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let pairs = || names.split_whitespace().zip(values.split_whitespace());
    read_udp(|wanted| pairs().find(|(name, _)| *name == wanted).map(|(_, value)| value))
}

/// The lines `Udp6...` of /proc/net/snmp6.
pub(super) fn read_snmp6(text: &str) -> Udp {
    let pairs = || text.lines().filter_map(|line| line.strip_prefix("Udp6")?.split_once(char::is_whitespace));
    read_udp(|wanted| pairs().find(|(name, _)| *name == wanted).map(|(_, value)| value))
}

fn read_udp<'t>(value: impl Fn(&str) -> Option<&'t str>) -> Udp {
    let number = |name| value(name).and_then(|value| value.trim().parse().ok()).unwrap_or(0);
    Udp {
        received: number("InDatagrams"),
        errors: number("InErrors"),
        receive_buffer: number("RcvbufErrors"),
        send_buffer: number("SndbufErrors"),
    }
}

/// What was dropped at the server's listeners and relays.
pub(super) fn dropped_at(config: &Config, sockets: &[Socket]) -> u64 {
    let (low, high) = config.relay.ports;
    let relays: Vec<_> = Family::ALL.into_iter().flat_map(|family| config.relay.binds(family)).collect();
    let is_relay = |socket: &Socket| (low..=high).contains(&socket.local.port()) && relays.contains(&socket.local.ip());
    let is_own = |socket: &&Socket| {
        socket.kind == SocketKind::Udp
            && (is_relay(socket) || config.listeners.iter().any(|listener| socket.serves(listener)))
    };
    sockets.iter().filter(is_own).map(|socket| socket.drops).sum()
}

pub(super) fn judge_losses(counters: &Counters) -> Vec<Step> {
    let mut steps = Vec::new();
    if counters.at_server > 0 {
        let message = format!(
            "{} datagrams came to the server's open sockets and were dropped, because it did not read them in time",
            counters.at_server
        );
        steps.push(finding("udp-losses", Status::Warn, message).fact("at_server", counters.at_server));
    }
    for (name, udp) in [("IPv4", counters.ipv4), ("IPv6", counters.ipv6)] {
        let all = udp.received.saturating_add(udp.errors).max(1);
        let percent = udp.errors as f64 * 100.0 / all as f64;
        let facts = |step: Step| step.fact("in_errors", udp.errors).fact("rcvbuf_errors", udp.receive_buffer);
        if udp.errors > 0 || udp.send_buffer > 0 {
            let mut message = format!(
                "since its start, this host lost {} {name} datagrams that came in ({percent:.4} %), {} of them because a \
                 socket's receive buffer was full (RcvbufErrors)",
                udp.errors, udp.receive_buffer
            );
            if udp.send_buffer > 0 {
                message += &format!(", and {} on their way out (SndbufErrors)", udp.send_buffer);
            }
            let status = if counters.at_server > 0 { Status::Warn } else { Status::Note };
            message += match counters.at_server {
                0 => {
                    "; none at a socket that the server has open now: they were another program's, as of a browser here that runs the page's \
                      self-test, or of relays that are gone. "
                }
                _ => ". ",
            };
            message += "If it grows under load (nstat -az UdpRcvbufErrors, Udp6RcvbufErrors), the step buffers says what to set";
            steps.push(facts(finding("udp-losses", status, message)));
        }
    }
    if steps.is_empty() {
        let message = format!("none of {} datagrams", counters.ipv4.received.saturating_add(counters.ipv6.received));
        steps.push(finding("udp-losses", Status::Ok, message));
    }
    steps
}

/// What sockets get.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// Bytes that the kernel granted a listener that was opened for a moment; it counts twice what was asked for.
    pub(super) granted: Option<u64>,
    pub(super) rmem_max: Option<u64>,
    pub(super) wmem_max: Option<u64>,
    pub(super) rmem_default: Option<u64>,
}

/// Small buffers are what a fresh machine has; they matter where something was lost.
pub(super) fn judge_limits(limits: &Limits, lost: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let granted = limits.granted.map(|bytes| bytes / 2).or(limits.rmem_max);
    if let Some(granted) = granted {
        let (status, message) = if granted >= WANTED {
            (Status::Ok, format!("a listener gets a receive buffer of {} KiB, as it asks for", granted / 1024))
        } else {
            let advice = format!(
                "a listener asks for a receive buffer of {} KiB and gets {}: bursts are lost under load; \
                 run: sysctl -w net.core.rmem_max={WANTED}, and restart",
                WANTED / 1024,
                granted / 1024
            );
            (if lost || granted < KERNEL_DEFAULT { Status::Warn } else { Status::Note }, advice)
        };
        let step = finding("buffers", status, message).fact("granted", granted);
        steps.push(step.fact("rmem_max", limits.rmem_max).fact("rmem_default", limits.rmem_default));
    }
    if let Some(wmem_max) = limits.wmem_max.filter(|max| *max < KERNEL_DEFAULT) {
        let message =
            format!("net.core.wmem_max is {wmem_max}, less than the kernel's own default of {KERNEL_DEFAULT}");
        steps.push(finding("buffers", Status::Warn, message));
    }
    steps
}

/// `softnet` is the text of /proc/net/softnet_stat: a line a core, whose second number counts what did not fit.
pub(super) fn judge_backlog(backlog: Option<u64>, softnet: &str) -> Option<Step> {
    let dropped: u64 = softnet
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter_map(|hex| u64::from_str_radix(hex, 16).ok())
        .sum();
    let backlog = backlog?;
    let (status, message) = if dropped > 0 {
        let message = format!(
            "{dropped} packets were dropped because net.core.netdev_max_backlog, {backlog}, was reached; \
             run: sysctl -w net.core.netdev_max_backlog={}",
            backlog.saturating_mul(4).max(4 * BACKLOG_DEFAULT)
        );
        (Status::Warn, message)
    } else if backlog < BACKLOG_DEFAULT {
        let message = format!(
            "net.core.netdev_max_backlog is {backlog}, less than the kernel's own default of {BACKLOG_DEFAULT}"
        );
        (Status::Warn, message)
    } else {
        (Status::Ok, format!("net.core.netdev_max_backlog is {backlog}, and was never reached"))
    };
    Some(finding("backlog", status, message).fact("dropped", dropped))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
        Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\n\
        Udp: 151990818 2209 2703 145591201 2701 5 2 0 0\n\
        UdpLite: InDatagrams NoPorts InErrors\nUdpLite: 7 7 7\n";
    const SNMP6: &str = "Ip6InReceives   \t3\nUdp6InDatagrams                 \t1007122\nUdp6NoPorts \t192\n\
        Udp6InErrors                    \t670\nUdp6RcvbufErrors                \t669\nUdpLite6InErrors \t9\n";

    fn statuses(steps: &[Step]) -> Vec<Status> {
        steps.iter().map(|step| step.status).collect()
    }

    #[test]
    fn the_kernels_counters_are_read_by_name() {
        let ipv4 = Udp { received: 151_990_818, errors: 2703, receive_buffer: 2701, send_buffer: 5 };
        assert_eq!(read_snmp(SNMP), ipv4);
        let ipv6 = Udp { received: 1_007_122, errors: 670, receive_buffer: 669, send_buffer: 0 };
        assert_eq!(read_snmp6(SNMP6), ipv6);
        for text in ["", "Udp: ", "Udp: InErrors", "Udp: InErrors\nUdp: x", "Udp6InErrors"] {
            assert_eq!((read_snmp(text), read_snmp6(text)), (Udp::default(), Udp::default()), "{text}");
        }
    }

    #[test]
    fn losses_are_warned_about_with_their_numbers() {
        assert_eq!(statuses(&judge_losses(&Counters::default())), [Status::Ok]);
        let lost = Counters { ipv4: read_snmp(SNMP), ipv6: read_snmp6(SNMP6), at_server: 3 };
        let steps = judge_losses(&lost);
        assert_eq!(statuses(&steps), [Status::Warn; 3]);
        assert!(steps[0].message.contains("3 datagrams came to the server's"), "{}", steps[0].message);
        assert!(steps[1].message.contains("lost 2703 IPv4 datagrams that came in (0.0018 %), 2701 of"));
        assert!(lost.has_full_buffers());
        // A browser on this host fills its own sockets in a self-test.
        let steps = judge_losses(&Counters { at_server: 0, ..lost });
        assert_eq!(statuses(&steps), [Status::Note; 2]);
        assert!(steps[0].message.contains("none at a socket that the server has open now"), "{}", steps[0].message);
        assert!(steps[0].message.contains("the step buffers says what to set"), "{}", steps[0].message);
    }

    #[test]
    fn small_buffers_are_a_note_and_with_losses_a_warning() {
        let fresh = Limits { granted: Some(2 * 212_992), rmem_max: Some(212_992), ..Limits::default() };
        assert_eq!(statuses(&judge_limits(&fresh, false)), [Status::Note]);
        assert_eq!(statuses(&judge_limits(&fresh, true)), [Status::Warn]);
        let large = Limits { granted: Some(2 * WANTED), wmem_max: Some(WANTED), ..fresh };
        assert_eq!(statuses(&judge_limits(&large, true)), [Status::Ok]);
        let tiny = Limits { granted: None, rmem_max: Some(4096), wmem_max: Some(4096), ..fresh };
        assert_eq!(statuses(&judge_limits(&tiny, false)), [Status::Warn; 2]);
        assert!(judge_limits(&Limits::default(), true).is_empty());
    }

    #[test]
    fn a_backlog_that_was_reached_or_is_small_is_warned_about() {
        let softnet = "0d944564 00000000 0000001f\n0e4d1243 0000000b 00000022\n";
        assert_eq!(judge_backlog(Some(1000), softnet).map(|step| step.status), Some(Status::Warn));
        assert!(judge_backlog(Some(1000), softnet).unwrap().message.starts_with("11 packets"));
        assert_eq!(judge_backlog(Some(1000), "0 0 0\n").map(|step| step.status), Some(Status::Ok));
        assert_eq!(judge_backlog(Some(10), "").map(|step| step.status), Some(Status::Warn));
        assert!(judge_backlog(None, softnet).is_none());
    }
}
