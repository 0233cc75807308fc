//! What `/metrics` says agrees with what clients did.

use std::collections::BTreeSet;

use rustix::process::Signal;
use turnstone::addr::{Family, Transport};
use turnstone::reject::{Dropped, Reason};
use turnstone::traffic::Direction;
use turnstone::turn::EndReason;

use crate::client::{Allocated, connect};
use crate::relayed::{Relayed, read_to_the_end, waiting_and_dropped};
use crate::support::{EchoPeer, TestServer, wait_until};
use crate::{LIMIT, Scrape, config, endpoint};

pub(crate) const DASHBOARD: &str = include_str!("../../docs/grafana-dashboard.json");
/// A store that nobody serves, and a node that is not there: what is counted of them is there all the same.
const SHARING: &str = "[store]\nurl = \"redis://127.0.0.1:1\"\n\
    [fleet]\nnodes = [\"unix:/nowhere/fleet.sock\"]\nlisten = \"unix:@DIR@/fleet.sock\"\n[redirect]\nfleet = true\nfrom-allocations = 100\n";

#[test]
fn every_series_is_there_from_the_start_and_zero() {
    let server = TestServer::start(&config(""));
    let scrape = Scrape::of(&server);
    for transport in Transport::ALL.map(Transport::name) {
        assert_eq!(scrape.get(&format!("turnstone_allocations{{transport=\"{transport}\"}}")), 0.0);
        assert_eq!(scrape.get(&format!("turnstone_allocations_made_total{{transport=\"{transport}\"}}")), 0.0);
    }
    for reason in EndReason::ALL {
        assert_eq!(scrape.get(&format!("turnstone_allocations_ended_total{{reason=\"{}\"}}", reason.label())), 0.0);
    }
    for reason in Reason::ALL {
        let (code, reason) = (reason.code().value(), reason.label());
        assert_eq!(scrape.get(&format!("turnstone_refusals_total{{code=\"{code}\",reason=\"{reason}\"}}")), 0.0);
    }
    for reason in Dropped::ALL {
        assert_eq!(scrape.get(&format!("turnstone_dropped_packets_total{{reason=\"{}\"}}", reason.label())), 0.0);
    }
    let directions = Direction::ALL.map(Direction::label);
    for (transport, family) in transports_and_families() {
        for direction in directions {
            let labels = labels(transport, family, direction);
            assert_eq!(scrape.get(&format!("turnstone_payload_packets_total{labels}")), 0.0);
            assert_eq!(scrape.get(&format!("turnstone_payload_bytes_total{labels}")), 0.0);
        }
    }
    for direction in directions {
        assert_eq!(scrape.get(&format!("turnstone_throttled_bytes_total{{direction=\"{direction}\"}}")), 0.0);
    }
    for socket in ["listener", "relay"] {
        assert_eq!(scrape.get(&format!("turnstone_kernel_receive_drops_total{{socket=\"{socket}\"}}")), 0.0);
    }
    for histogram in ["allocation_duration", "allocation_setup", "relay"] {
        assert_eq!(buckets(&scrape, &format!("turnstone_{histogram}_seconds")).last(), Some(&(f64::INFINITY, 0.0)));
    }
    assert_eq!((scrape.get("turnstone_workers"), scrape.get("turnstone_workers_answering")), (2.0, 2.0));
    assert_eq!(scrape.get("turnstone_ready"), 1.0);
    assert_eq!(scrape.get("turnstone_config_generation"), 1.0);
    assert_eq!(scrape.get("turnstone_allocation_duration_seconds_count"), 0.0);
    for (state, count) in [("free", 20_000.0), ("used", 0.0), ("reserved", 0.0)] {
        assert_eq!(
            scrape.get(&format!("turnstone_relay_ports{{address=\"127.0.0.1\",family=\"ipv4\",state=\"{state}\"}}")),
            count
        );
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((scrape.get("process_start_time_seconds") - now).abs() < 60.0);
    assert!((scrape.get("turnstone_time_seconds") - now).abs() < 60.0);
    assert!(scrape.get("process_open_fds") > 5.0 && scrape.get("process_open_fds") < scrape.get("process_max_fds"));
    let expires = scrape.get("turnstone_certificate_not_after_seconds");
    let of_file = |name: &str| scrape.get(&format!("{name}{{certificate=\"{}\"}}", server.file("certificate.pem")));
    assert!(expires > now);
    assert_eq!(of_file("turnstone_certificates_not_after_seconds"), expires);
    assert!(of_file("turnstone_certificates_not_before_seconds") < now);
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_agree_with_what_clients_sent_while_they_relay() {
    let server = TestServer::start(&config(""));
    let peer = EchoPeer::start("127.0.0.1");
    let (packets, mut bytes) = (300, 0);
    let client = Allocated::new(&server, "alice").await;
    for round in 0..packets {
        let payload = vec![round as u8; 1 + round * 3];
        bytes += payload.len();
        client.echo(peer.address(), &payload).await;
        if round == packets / 2 {
            let scrape = Scrape::of(&server);
            assert_eq!(scrape.get("turnstone_allocations{transport=\"udp\"}"), 1.0);
            assert_eq!(scrape.get("turnstone_relay_ports{address=\"127.0.0.1\",family=\"ipv4\",state=\"used\"}"), 1.0);
            assert!(scrape.sum("turnstone_payload_packets_total", "direction=\"to-clients\"") >= round as f64);
        }
    }
    let scrape = Scrape::of(&server);
    for direction in ["to-peers", "to-clients"] {
        let label = format!("direction=\"{direction}\"");
        let value = |what: &str| scrape.sum(&format!("turnstone_payload_{what}_total"), &label);
        assert_eq!((value("packets"), value("bytes")), (packets as f64, bytes as f64), "{direction}");
    }
    assert_eq!(scrape.get("turnstone_own_relayed_packets_total"), 0.0);
    // The one challenge of the first Allocate.
    assert_eq!(scrape.get("turnstone_refusals_total{code=\"401\",reason=\"missing-integrity\"}"), 1.0);
    assert_eq!(scrape.get("turnstone_unauthenticated_replies_total"), 1.0);

    client.release().await;
    let scrape = wait_until("the end of the allocation", LIMIT, || {
        Some(Scrape::of(&server)).filter(|scrape| scrape.get("turnstone_allocations{transport=\"udp\"}") == 0.0)
    });
    assert_eq!(scrape.get("turnstone_allocations_made_total{transport=\"udp\"}"), 1.0);
    assert_eq!(scrape.get("turnstone_allocations_ended_total{reason=\"released\"}"), 1.0);
    assert_eq!(scrape.get("turnstone_allocation_duration_seconds_count"), 1.0);
    assert!(scrape.get("turnstone_allocation_duration_seconds_sum") > 0.0);
    assert_eq!(scrape.get("turnstone_allocation_duration_seconds_bucket{le=\"+Inf\"}"), 1.0);
    assert_eq!(scrape.get("turnstone_relay_ports{address=\"127.0.0.1\",family=\"ipv4\",state=\"used\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_to_relay_and_refusals_are_told_apart_without_a_name_or_address() {
    let server = TestServer::start(&config(""));
    let (first, second) = (Allocated::new(&server, "zaphod").await, Allocated::new(&server, "trillian").await);
    let (one, other) = (first.relay.local_addr().unwrap(), second.relay.local_addr().unwrap());
    // A permission of each side for the other.
    second.relay.send_to(b"hello", one).await.unwrap();
    let mut received = 0;
    let mut buffer = [0; 64];
    while received < 20 {
        first.relay.send_to(b"payload", other).await.unwrap();
        let soon = std::time::Duration::from_secs(1);
        received += u32::from(tokio::time::timeout(soon, second.relay.recv_from(&mut buffer)).await.is_ok());
    }
    let (wrong, _) = connect(&server, &server.expired_credentials("marvin")).await;
    assert!(wrong.allocate().await.is_err());
    // The endpoint itself is no peer.
    let endpoint_address = endpoint(&server).parse().unwrap();
    let denied = "turnstone_refusals_total{code=\"403\",reason=\"peer-is-server\"}";
    let dropped = "turnstone_dropped_packets_total{reason=\"peer-denied\"}";
    let _ = first.relay.send_to(b"GET /metrics", endpoint_address).await;
    wait_until("the refusal of the endpoint as a peer", LIMIT, || {
        let scrape = Scrape::of(&server);
        (scrape.get(denied) + scrape.get(dropped) > 0.0).then_some(())
    });

    let scrape = Scrape::of(&server);
    assert!(scrape.get("turnstone_own_relayed_packets_total") >= 20.0);
    assert!(scrape.get("turnstone_own_relayed_bytes_total") >= 20.0 * 7.0);
    assert!(scrape.get("turnstone_refusals_total{code=\"401\",reason=\"credential-expired\"}") >= 1.0);
    // The relay ports have the address that the configuration names.
    for sample in scrape.0.keys().filter(|sample| !sample.starts_with("turnstone_relay_ports{address=\"127.0.0.1\"")) {
        for name in ["zaphod", "trillian", "marvin", "127.0.0.1"] {
            assert!(!sample.contains(name), "{sample}");
        }
    }
    // Bounded: what there is depends on closed lists only.
    let idle = Scrape::of(&TestServer::start(&config("")));
    // The certificate's file is in a folder of each server's own.
    let named = |scrape: &Scrape| -> Vec<String> {
        let series = scrape.0.keys().map(|series| match series.split_once("{certificate=") {
            Some((metric, _)) => metric.to_owned(),
            None => series.clone(),
        });
        series.collect()
    };
    assert_eq!(named(&scrape), named(&idle));
}

#[test]
fn payload_and_times_agree_with_what_each_transport_and_family_carried() {
    let server = TestServer::start(&config("").replace("ipv6 = \"off\"", "ipv6 = \"::1\""));
    let mut expected = Vec::new();
    let mut clients = Vec::new();
    // Those over DTLS are in `tests/dtls`.
    let without_dtls = transports_and_families().into_iter().filter(|(transport, _)| *transport != Transport::Dtls);
    for (number, (transport, family)) in without_dtls.enumerate() {
        let mut client = Relayed::new(&server, transport, family);
        // Each of a number and size of its own, so that none can be taken for another.
        let (up, down) = (10 + number, 30 + 2 * number);
        (0..up).for_each(|round| client.up(&vec![7; 100 * number + round]));
        (0..down).for_each(|round| client.down(&vec![9; 90 * number + 2 * round]));
        let bytes = |packets: usize, base: usize, step: usize| (0..packets).map(|n| base + step * n).sum::<usize>();
        expected.push((labels(transport, family, "to-peers"), up, bytes(up, 100 * number, 1)));
        expected.push((labels(transport, family, "to-clients"), down, bytes(down, 90 * number, 2)));
        clients.push(client);
    }
    let packets: usize = expected.iter().map(|(_, packets, _)| packets).sum();
    // A packet's time is noted after it was sent.
    let scrape = wait_until("the time of every packet and allocation", LIMIT, || {
        let scrape = Scrape::of(&server);
        let relayed = scrape.get("turnstone_relay_seconds_count") == packets as f64;
        (relayed && scrape.get("turnstone_allocation_setup_seconds_count") == clients.len() as f64).then_some(scrape)
    });
    for (labels, packets, bytes) in &expected {
        let value = |what: &str| scrape.get(&format!("turnstone_payload_{what}_total{labels}"));
        assert_eq!((value("packets"), value("bytes")), (*packets as f64, *bytes as f64), "{labels}");
    }
    for histogram in ["turnstone_relay_seconds", "turnstone_allocation_setup_seconds"] {
        let (buckets, count) = (buckets(&scrape, histogram), scrape.get(&format!("{histogram}_count")));
        assert!(buckets.len() > 10 && buckets.is_sorted(), "{buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)));
        let sum = scrape.get(&format!("{histogram}_sum"));
        // On a machine that does nothing else it is some microseconds each.
        assert!(sum > 0.0 && sum < LIMIT.as_secs_f64() * count, "{sum} seconds for {count}");
    }
}

#[test]
fn what_the_kernel_drops_at_relay_sockets_is_counted_in_the_end_to_the_datagram() {
    // Several times what a receive buffer holds, and all to a server that does not run meanwhile.
    const BURST: usize = 4000;
    let server = TestServer::start(&config(""));
    let dropped = "turnstone_kernel_receive_drops_total{socket=\"relay\"}";
    let relayed = labels(Transport::Udp, Family::V4, "to-clients");
    let relayed = format!("turnstone_payload_packets_total{relayed}");
    let mut sent = 0;
    // With enough to one peer before, the burst of that peer comes to a socket of its own.
    for to_peer in [1, 100] {
        let mut client = Relayed::new(&server, Transport::Udp, Family::V4);
        (0..to_peer).for_each(|_| client.up(b"payload"));
        let burst = |client: &Relayed| {
            server.signal(Signal::STOP);
            (0..BURST).for_each(|_| assert_eq!(client.peer.send_to(&[5; 1000], client.relayed).unwrap(), 1000));
            server.signal(Signal::CONT);
            read_to_the_end(client.relayed);
        };
        burst(&client);
        // The next datagram tells.
        client.peer.send_to(b"the next", client.relayed).unwrap();
        sent += BURST + 1;
        let scrape = wait_until("the count of drops", LIMIT, || {
            let scrape = Scrape::of(&server);
            (scrape.get(dropped) + scrape.get(&relayed) == sent as f64).then_some(scrape)
        });
        let before = scrape.get(dropped);
        assert!(before > 0.0, "the burst fitted into the buffer");
        // Without another datagram, the end of the allocation tells.
        burst(&client);
        sent += BURST;
        let port = client.relayed.port();
        let lost = waiting_and_dropped(port).1;
        client.release();
        let scrape = wait_until("the drops of the closed socket", LIMIT, || {
            let scrape = Scrape::of(&server);
            (scrape.get(dropped) + scrape.get(&relayed) == sent as f64).then_some(scrape)
        });
        assert!(lost > 0 && scrape.get(dropped) > before);
    }
    assert_eq!(Scrape::of(&server).get("turnstone_kernel_receive_drops_total{socket=\"listener\"}"), 0.0);
}

#[test]
fn bytes_that_a_bandwidth_cap_drops_are_counted_each_way_while_the_allocation_lives() {
    const PACKETS: usize = 120;
    const BYTES: usize = 1200;
    // A burst of 65,600 bytes with headers may pass, and one kilobyte a second after it.
    let server = TestServer::start(&config("[bandwidth]\nper-allocation = \"8kbit/s\"\n"));
    let mut client = Relayed::new(&server, Transport::Udp, Family::V4);
    let all = (PACKETS * BYTES) as f64;
    for direction in Direction::ALL {
        for _ in 0..PACKETS {
            match direction {
                Direction::ToPeers => client.send(&[1; BYTES]),
                Direction::ToClients => assert_eq!(client.peer.send_to(&[2; BYTES], client.relayed).unwrap(), BYTES),
            }
        }
        let direction = direction.label();
        let throttled = format!("turnstone_throttled_bytes_total{{direction=\"{direction}\"}}");
        let relayed = format!("turnstone_payload_bytes_total{}", labels(Transport::Udp, Family::V4, direction));
        let scrape = wait_until("every byte, relayed or dropped", LIMIT, || {
            Some(Scrape::of(&server)).filter(|scrape| scrape.get(&throttled) + scrape.get(&relayed) == all)
        });
        assert!(scrape.get(&relayed) >= 60_000.0 && scrape.get(&throttled) > 0.0, "{direction}");
        let label = "reason=\"bandwidth\"";
        assert_eq!(
            scrape.sum("turnstone_throttled_bytes_total", "direction=\"to-peers\"")
                + scrape.sum("turnstone_throttled_bytes_total", "direction=\"to-clients\""),
            BYTES as f64 * scrape.sum("turnstone_dropped_packets_total", label)
        );
    }
}

/// What a server shows that has all that servers share; the nodes of its fleet are counted a moment after its start.
pub(crate) fn scrape_of_one_of_many() -> Scrape {
    let server = TestServer::start(&config(SHARING));
    wait_until("the nodes of the fleet to be counted", LIMIT, || {
        let has = |scrape: &Scrape, name: &str| scrape.0.keys().any(|sample| sample.starts_with(name));
        Some(Scrape::of(&server)).filter(|scrape| has(scrape, "turnstone_fleet_load_percent"))
    })
}

#[test]
fn the_dashboard_asks_for_every_metric_and_only_for_those_that_exist() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let scrape = scrape_of_one_of_many();
    let known: BTreeSet<&str> = scrape.0.keys().map(|sample| sample.split('{').next().unwrap()).collect();
    let labels = |metric: &str| -> BTreeSet<&str> {
        let samples = scrape.0.keys().filter(|sample| sample.split('{').next() == Some(metric));
        samples.flat_map(|sample| sample.split(['{', ',']).skip(1)).filter_map(|pair| pair.split('=').next()).collect()
    };
    let mut asked = BTreeSet::new();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "the number of {} is another panel's", panel["title"]);
        assert!(places.insert(panel["gridPos"].to_string()), "where {} is, there is another panel", panel["title"]);
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let metrics: Vec<&str> =
                words.filter(|word| word.starts_with("turnstone_") || word.starts_with("process_")).collect();
            assert!(!metrics.is_empty(), "{query}");
            for metric in metrics {
                assert!(known.contains(metric), "{metric} in {query} does not exist");
                asked.insert(metric);
                if let Some((_, by)) = query.split_once(" by (") {
                    let by = by.split(')').next().unwrap();
                    // The server's address is Prometheus' own label.
                    for label in by.split(", ").filter(|label| *label != "instance") {
                        assert!(labels(metric).contains(label), "{metric} has no {label}: {query}");
                    }
                }
            }
        }
    }
    assert!(asked.len() > 80, "{asked:?}");
    // Of several servers, each can be looked at, some, or all.
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    for (name, label) in [("job", "job"), ("instance", "instance")] {
        let variable = variables.iter().find(|variable| variable["name"] == name).unwrap();
        assert_eq!((&variable["multi"], &variable["includeAll"]), (&true.into(), &true.into()), "{name}");
        assert!(variable["query"]["query"].as_str().unwrap().ends_with(&format!(", {label})")), "{variable}");
    }
    // An operator sees nothing of a metric that is not there. Of a histogram it asks for the buckets.
    let is_shown = |metric: &&str| {
        let histogram = metric.strip_suffix("_sum").or_else(|| metric.strip_suffix("_count"));
        asked.contains(*metric) || histogram.is_some_and(|name| asked.contains(format!("{name}_bucket").as_str()))
    };
    let hidden: Vec<_> = known.iter().filter(|metric| !is_shown(metric)).collect();
    assert!(hidden.is_empty(), "on no panel: {hidden:?}");
}

/// The pages that name metrics.
const PAGES: [(&str, &str); 12] = [
    ("README.md", include_str!("../../README.md")),
    ("SECURITY.md", include_str!("../../SECURITY.md")),
    ("behind-a-proxy.md", include_str!("../../docs/behind-a-proxy.md")),
    ("credentials.md", include_str!("../../docs/credentials.md")),
    ("deploy.md", include_str!("../../docs/deploy.md")),
    ("hook.md", include_str!("../../docs/hook.md")),
    ("monitoring.md", include_str!("../../docs/monitoring.md")),
    ("reference.md", include_str!("../../docs/reference.md")),
    ("store.md", include_str!("../../docs/store.md")),
    ("tls-and-realms.md", include_str!("../../docs/tls-and-realms.md")),
    ("troubleshooting.md", include_str!("../../docs/troubleshooting.md")),
    ("usage-records.md", include_str!("../../docs/usage-records.md")),
];

#[test]
fn the_pages_name_metrics_that_exist_and_each_by_the_name_that_prometheus_has() {
    let scrape = scrape_of_one_of_many();
    let known: BTreeSet<&str> = scrape.0.keys().map(|sample| sample.split('{').next().unwrap()).collect();
    let is_histogram = |name: &str| known.contains(format!("{name}_bucket").as_str());
    let mut named = 0;
    for (page, text) in PAGES {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '*');
        for name in words.filter(|word| {
            word.strip_prefix("turnstone_").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
        }) {
            named += 1;
            let exists = match name.trim_end_matches('*') {
                some if some.ends_with('_') => known.iter().any(|known| known.starts_with(some)),
                name => known.contains(name) || is_histogram(name),
            };
            assert!(exists, "{page}: there is no {name}");
        }
    }
    assert!(named > 10, "{named}");
}

fn transports_and_families() -> Vec<(Transport, Family)> {
    Transport::ALL.into_iter().flat_map(|transport| Family::ALL.map(|family| (transport, family))).collect()
}

fn labels(transport: Transport, family: Family, direction: &str) -> String {
    format!("{{transport=\"{}\",family=\"{}\",direction=\"{direction}\"}}", transport.name(), family.name())
}

/// Upper bounds and counts of a histogram, in order of the bounds.
fn buckets(scrape: &Scrape, histogram: &str) -> Vec<(f64, f64)> {
    let prefix = format!("{histogram}_bucket{{le=\"");
    let buckets = scrape.0.iter().filter_map(|(sample, count)| {
        let bound = sample.strip_prefix(&prefix)?.trim_end_matches("\"}");
        Some((bound.parse().unwrap(), *count))
    });
    let mut buckets: Vec<(f64, f64)> = buckets.collect();
    buckets.sort_by(|first, second| first.0.total_cmp(&second.0));
    buckets
}
