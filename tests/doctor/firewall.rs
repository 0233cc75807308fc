//! Rules of nftables as the real nft loads and lists them.

use super::host::{doctor_in, host_with_server};

#[test]
fn a_chain_that_drops_what_no_rule_accepts_is_warned_about() {
    let (server, host, _other) = host_with_server("5.44.1.1", "");
    host.nft(
        r#"
        table inet filter {
            chain input {
                type filter hook input priority filter; policy drop;
                iifname "lo" accept
                ct state vmap { established : accept, related : accept, invalid : drop }
                tcp dport { 22, 3478 } accept
            }
        }
        "#,
    );
    let examined = doctor_in(&host, &server);
    examined.expect("firewall", "warn", "chain input of inet filter drops UDP 3478 over IPv4 to the listener").expect(
        "firewall",
        "warn",
        "run: nft insert rule inet filter input udp dport { 10000-29999 } accept",
    );
    assert_eq!(examined.of("firewall").len(), 2, "TCP is accepted: {:#}", examined.json);
    // The fix, as printed.
    host.nft("insert rule inet filter input udp dport { 10000-29999 } accept");
    host.nft("insert rule inet filter input udp dport { 3478 } accept");
    doctor_in(&host, &server).expect("firewall", "ok", "no rule of nftables drops");
}

#[test]
fn sets_jumps_and_maps_are_followed() {
    let (server, host, _other) = host_with_server("5.44.1.1", "");
    host.nft(
        r#"
        table inet filter {
            set turn_ports { type inet_service; flags interval; elements = { 3478, 10000-19999, 20000-29999 }; }
            chain services { meta l4proto { tcp, udp } th dport @turn_ports ct state new counter accept; }
            chain rejected { limit rate 5/second log; reject with icmpx admin-prohibited; }
            chain input {
                type filter hook input priority filter; policy accept;
                ct state established,related accept
                meta nfproto vmap { ipv4 : jump services, ipv6 : jump services }
                ip saddr 192.0.2.0/24 drop
                goto rejected
            }
        }
        "#,
    );
    doctor_in(&host, &server).expect("firewall", "ok", "no rule of nftables drops");
    host.nft("delete element inet filter turn_ports { 20000-29999 }");
    let examined = doctor_in(&host, &server);
    examined.expect("firewall", "warn", "drops UDP 20000-29999 over IPv4 to the relay ports: a rule drops it");
    assert_eq!(examined.of("firewall").len(), 1, "{:#}", examined.json);
}
