//! The network of these tests:
//!
//! ```text
//! host 1 ── NAT 1 ──┐                          ┌── NAT 2 ── host 2
//! 10.0.1.2  5.44.1.2└── internet and server ───┘5.44.2.2  10.0.2.2
//!                       5.44.9.1, 5.44.9.2
//! ```

use std::net::{SocketAddr, UdpSocket};

use crate::namespace::Namespace;
use crate::support::{Spec, TestServer, Transport, is_turnstone};

/// The server's two addresses; relays are on the first one.
pub(crate) const SERVER: [&str; 2] = ["5.44.9.1", "5.44.9.2"];
pub(crate) const PORT: u16 = 3478;

/// Each destination gets a random port of its own, and nothing that was not asked for comes in.
const SYMMETRIC_NAT: &str = r#"
    table ip symmetric_nat {
        chain outgoing {
            type nat hook postrouting priority srcnat;
            oifname "wan" masquerade fully-random
        }
        chain forward {
            type filter hook forward priority filter; policy drop;
            ct state established,related accept
            iifname "lan" accept
        }
        chain input {
            type filter hook input priority filter; policy drop;
            ct state established,related accept
        }
    }
"#;

/// Two hosts behind symmetric NATs, and the server. Fields are dropped in order: the server before its namespace.
pub(crate) struct Internet {
    pub(crate) server: TestServer,
    pub(crate) hosts: [Namespace; 2],
    _nats: [Namespace; 2],
    pub(crate) core: Namespace,
}

impl Internet {
    pub(crate) fn with_server() -> Internet {
        let core = Namespace::create("internet");
        core.forward_ipv4();
        for address in SERVER {
            core.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        let [(host_1, nat_1), (host_2, nat_2)] = [1, 2].map(|side| site(side, &core));
        // There is no route to the hosts' private addresses, which WebRTC peers ask permissions for all the same: a send there
        // fails, and may not end the allocation. It does in coturn 4.6, which therefore gets a route.
        if !is_turnstone() {
            core.ip(&["route", "add", "10.0.0.0/8", "via", "5.44.1.2"]);
        }
        let server = server_in(&core, &SERVER, "0.0.0.0");
        Internet { server, hosts: [host_1, host_2], _nats: [nat_1, nat_2], core }
    }
}

/// A host with a private address and the NAT in front of it, cabled to `core`.
fn site(side: u8, core: &Namespace) -> (Namespace, Namespace) {
    let host = Namespace::create(&format!("host{side}"));
    let nat = Namespace::create(&format!("nat{side}"));
    core.connect(
        (&format!("site{side}"), &[&format!("5.44.{side}.1/24")]),
        &nat,
        ("wan", &[&format!("5.44.{side}.2/24")]),
    );
    nat.connect(("lan", &[&format!("10.0.{side}.1/24")]), &host, ("eth0", &[&format!("10.0.{side}.2/24")]));
    nat.default_route(&format!("5.44.{side}.1"));
    host.default_route(&format!("10.0.{side}.1"));
    nat.forward_ipv4();
    nat.nft(SYMMETRIC_NAT);
    (host, nat)
}

/// A server with the default peer policy that listens on a wildcard address, which covers `addresses`; coturn does not know
/// wildcards and gets the addresses themselves.
pub(crate) fn server_in(namespace: &Namespace, addresses: &[&str], wildcard: &str) -> TestServer {
    let listen_on = if is_turnstone() { &[wildcard][..] } else { addresses };
    let listeners = listen_on
        .iter()
        .flat_map(|ip| {
            let ip = if ip.contains(':') { format!("[{ip}]") } else { (*ip).to_owned() };
            [Transport::Udp, Transport::Tcp].map(|transport| (transport, format!("{ip}:{PORT}")))
        })
        .collect();
    let relay = |ipv6: bool| addresses.iter().find(|ip| ip.contains(':') == ipv6).map(|ip| (*ip).to_owned());
    Spec {
        listeners,
        relay_ipv4: relay(false),
        relay_ipv6: relay(true),
        dev: false,
        namespace: Some(namespace.name().to_owned()),
        ..Spec::local()
    }
    .start()
}

/// A UDP socket of this namespace on a free port.
pub(crate) fn socket_in(namespace: &Namespace, local_ip: &str) -> UdpSocket {
    namespace.enter(|| UdpSocket::bind((local_ip, 0)).unwrap())
}

pub(crate) fn server_address(index: usize) -> SocketAddr {
    SocketAddr::new(SERVER[index].parse().unwrap(), PORT)
}
