//! What `/metrics` says agrees with what clients did.

use std::collections::BTreeSet;

use turnstone::addr::Transport;
use turnstone::reject::{Dropped, Reason};
use turnstone::turn::EndReason;

use crate::client::{Allocated, connect};
use crate::support::{EchoPeer, TestServer, wait_until};
use crate::{LIMIT, Scrape, config, endpoint};

const DASHBOARD: &str = include_str!("../../docs/grafana-dashboard.json");

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
    for direction in ["to-peers", "to-clients"] {
        assert_eq!(scrape.get(&format!("turnstone_payload_packets_total{{direction=\"{direction}\"}}")), 0.0);
    }
    assert_eq!(scrape.get("turnstone_workers"), 2.0);
    assert_eq!(scrape.get("turnstone_config_generation"), 1.0);
    assert_eq!(scrape.get("turnstone_allocation_duration_seconds_count"), 0.0);
    assert_eq!(scrape.get("turnstone_relay_ports{family=\"ipv4\",state=\"free\"}"), 20_000.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((scrape.get("process_start_time_seconds") - now).abs() < 60.0);
    assert!(scrape.get("turnstone_certificate_not_after_seconds") > now);
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
            assert_eq!(scrape.get("turnstone_relay_ports{family=\"ipv4\",state=\"used\"}"), 1.0);
            assert!(scrape.get("turnstone_payload_packets_total{direction=\"to-clients\"}") >= round as f64);
        }
    }
    let scrape = Scrape::of(&server);
    for direction in ["to-peers", "to-clients"] {
        let value = |what: &str| scrape.get(&format!("turnstone_payload_{what}_total{{direction=\"{direction}\"}}"));
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
    assert_eq!(scrape.get("turnstone_relay_ports{family=\"ipv4\",state=\"used\"}"), 0.0);
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
    for sample in scrape.0.keys() {
        for name in ["zaphod", "trillian", "marvin", "127.0.0.1"] {
            assert!(!sample.contains(name), "{sample}");
        }
    }
    // Bounded: what there is depends on closed lists only.
    let idle = Scrape::of(&TestServer::start(&config("")));
    assert_eq!(scrape.0.keys().collect::<Vec<_>>(), idle.0.keys().collect::<Vec<_>>());
}

#[test]
fn the_dashboard_asks_only_for_metrics_that_exist() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let scrape = Scrape::of(&TestServer::start(&config("")));
    let known: BTreeSet<&str> = scrape.0.keys().map(|sample| sample.split('{').next().unwrap()).collect();
    let labels = |metric: &str| -> BTreeSet<&str> {
        let samples = scrape.0.keys().filter(|sample| sample.split('{').next() == Some(metric));
        samples.flat_map(|sample| sample.split(['{', ',']).skip(1)).filter_map(|pair| pair.split('=').next()).collect()
    };
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
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
                    for label in by.split(", ") {
                        assert!(labels(metric).contains(label), "{metric} has no {label}: {query}");
                    }
                }
            }
        }
    }
    assert!(asked.len() > 20, "{asked:?}");
}
