//! The range of relay ports: who else takes ports from it, and whether it is as large as the quota promises.

use crate::config::Config;
use crate::probe::{Status, Step};

use super::finding;

/// Fewer ports than this are soon used up: a call takes two to four.
const FEW_PORTS: u64 = 100;

/// Whether programs of this host that choose no port are given relay ports. `taken` and `reserved` are the texts of
/// net.ipv4.ip_local_port_range and ip_local_reserved_ports; without the first there is nothing to say.
pub fn judge_ephemeral((low, high): (u16, u16), taken: &str, reserved: &str) -> Option<Step> {
    let mut bounds = taken.split_whitespace().filter_map(|bound| bound.parse::<u16>().ok());
    let (first, last) = bounds.next().zip(bounds.next())?;
    let (from, to) = (first.max(low), last.min(high));
    if from > to {
        let message = format!("{low}-{high}, apart from net.ipv4.ip_local_port_range, {first}-{last}");
        return Some(finding("relay ports", Status::Ok, message));
    }
    let reserved = read_ranges(reserved);
    if (from..=to).all(|port| reserved.iter().any(|(low, high)| (*low..=*high).contains(&port))) {
        let message = format!("{low}-{high}, kept free by net.ipv4.ip_local_reserved_ports");
        return Some(finding("relay ports", Status::Ok, message));
    }
    let message = format!(
        "{low}-{high} overlap with net.ipv4.ip_local_port_range, {first}-{last}: a port that another program of this \
         host has taken is passed over"
    );
    Some(finding("relay ports", Status::Note, message))
}

/// What shared relay ports do not go together with.
pub fn judge_shared(config: &Config) -> Option<Step> {
    if !config.relay.shared {
        return None;
    }
    let ports = config.relay.ports_of_family();
    let is_before_sfu = config.peers.default_deny_all || !config.peers.own_services.is_empty();
    let (status, message) = match config.quota.total {
        _ if is_before_sfu => (
            Status::Warn,
            format!(
                "shared, {ports} in number, and [peers] allows what an SFU or a server has: each of its ports can be used by at \
                 most {ports} clients at a time, others get 508 (peer-endpoint-taken); open more ports, or a range that is not shared"
            ),
        ),
        None => (
            Status::Warn,
            format!(
                "shared, {ports} in number, which is no limit of allocations; set allocations-total in [quota] to what memory allows"
            ),
        ),
        Some(total) => (Status::Ok, format!("shared, {ports} in number, for at most {total} allocations")),
    };
    Some(finding("relay ports", status, message).fact("ports", ports))
}

/// Whether there are as many ports as allocations are allowed.
pub(super) fn judge_quota(config: &Config) -> Step {
    if let Some(shared) = judge_shared(config) {
        return shared;
    }
    let ports = u64::from(config.relay.ports_of_family());
    let (status, message) = match config.quota.total {
        Some(total) if u64::from(total) > ports => (
            Status::Warn,
            format!("allocations-total is {total}, but there are only {ports} relay ports: clients get 508 before 486"),
        ),
        _ if ports < FEW_PORTS => {
            (Status::Warn, format!("only {ports} relay ports: a call takes two to four, and then clients get 508"))
        }
        Some(total) => (Status::Ok, format!("{ports} relay ports for at most {total} allocations")),
        None => (Status::Ok, format!("{ports} relay ports, as many allocations in each address family")),
    };
    finding("relay ports", status, message).fact("ports", ports)
}

/// `8080,9148-9200` as ranges; what is neither a port nor a range is passed over.
fn read_ranges(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
    };
    text.split(',').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ports: (u16, u16), taken: &str, reserved: &str) -> Option<Status> {
        judge_ephemeral(ports, taken, reserved).map(|step| step.status)
    }

    #[test]
    fn an_overlap_is_noted_unless_the_ports_are_reserved() {
        let default = "32768\t60999\n";
        assert_eq!(status((49152, 65535), default, "\n"), Some(Status::Note));
        assert_eq!(status((61000, 65535), default, "\n"), Some(Status::Ok));
        assert_eq!(status((10000, 32767), default, ""), Some(Status::Ok));
        assert_eq!(status((49152, 65535), default, "49152-60999"), Some(Status::Ok));
        assert_eq!(status((49152, 65535), default, "80,49152-50000,50001-65535\n"), Some(Status::Ok));
        assert_eq!(status((49152, 65535), default, "49152-60998"), Some(Status::Note));
        for unreadable in ["", "one two", "32768", "70000 80000"] {
            assert_eq!(status((1, 65535), unreadable, ""), None);
        }
    }

    #[test]
    fn ranges_are_read_and_what_is_none_is_passed_over() {
        assert_eq!(read_ranges("8080,9148-9200, 7 ,x,1-,99999\n"), [(8080, 8080), (9148, 9200), (7, 7)]);
    }

    #[test]
    fn shared_ports_before_an_sfu_or_without_a_limit_of_allocations_are_warned_about() {
        let judged = |more: &str| {
            let text = format!("[relay]\nipv4 = \"5.44.1.1\"\nipv6 = \"off\"\n{more}");
            judge_shared(&super::super::tests::config(&text)).map(|step| (step.status, step.message))
        };
        assert_eq!(judged(""), None);
        let shared = |more: &str| judged(&format!("ports = \"shared:3480-3487\"\n{more}")).unwrap();
        let (status, message) = shared("");
        assert!(status == Status::Warn && message.contains("set allocations-total"), "{message}");
        let limited = "[quota]\nallocations-total = 5000\n";
        assert_eq!(shared(limited).0, Status::Ok);
        for peers in ["mode = \"sfu\"\nallowed = [\"5.44.2.0/24\"]", "own-services = [\"5.44.1.1:10000\"]"] {
            let (status, message) = shared(&format!("{limited}[peers]\n{peers}\n"));
            assert!(status == Status::Warn && message.contains("at most 8 clients"), "{message}");
        }
    }
}
