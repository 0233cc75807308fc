//! Restarts under a manager that keeps the listener sockets.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::LIMIT;
use crate::clients::{Load, Waiting, is_answered, udp_socket};
use crate::manager::{Listeners, Manager};
use crate::support::Transport;

const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

/// UDP, TCP and TLS on the loopback addresses of both families.
fn any_ports() -> Listeners {
    let addresses = ["127.0.0.1:0", "[::1]:0"].map(|address| address.parse().unwrap());
    addresses.into_iter().flat_map(|address| TRANSPORTS.map(|transport| (transport, address))).collect()
}

/// A manager whose server has run once: the listeners have their ports, and keep them.
fn manager_with_listeners(workers: usize, listeners: &[(Transport, SocketAddr)]) -> (Manager, Listeners) {
    let mut manager = Manager::new();
    manager.configure(workers, listeners);
    let bound = manager.start();
    manager.configure(workers, &bound);
    (manager, bound)
}

#[test]
fn what_clients_send_while_no_server_runs_is_answered_by_the_next() {
    let (mut manager, listeners) = manager_with_listeners(2, &any_ports());
    let authority = manager.path("authority.pem");
    for end in [Manager::stop, Manager::crash] {
        end(&mut manager);
        let waiting: Vec<_> = listeners
            .iter()
            .cycle()
            .take(listeners.len() * 4)
            .map(|(transport, server)| Waiting::send(*transport, *server, &authority))
            .collect();
        assert_eq!(manager.start(), listeners);
        waiting.into_iter().for_each(Waiting::must_be_answered);
    }
}

#[test]
fn restarts_refuse_no_client_whatever_the_number_of_workers() {
    let (mut manager, listeners) = manager_with_listeners(2, &any_ports());
    let load = Load::start(&listeners, &manager.path("authority.pem"));
    load.wait_for_answers(100);
    let mut restarts = 0;
    for workers in [2, 3, 1, 2, 4] {
        manager.configure(workers, &listeners);
        manager.stop();
        restarts += 1;
        assert_eq!(manager.start(), listeners);
        load.wait_for_answers(100);
    }
    let closed = load.finish();
    // A connection that the old process has accepted ends with it; there is one of each client at a time.
    assert!(closed <= restarts * 4, "{closed} connections were closed unanswered in {restarts} restarts");
    assert!(!manager.log().contains("WARN"), "{}", manager.log());
    // Four sockets for each listener in the end: none was closed, and none is kept twice.
    assert_eq!(manager.kept().len(), 4 * listeners.len());
    let numbers: BTreeSet<_> = manager.kept().iter().map(|name| name.rsplit('-').next().unwrap().to_owned()).collect();
    assert_eq!(numbers, ["0", "1", "2", "3"].map(str::to_owned).into());
    assert_eq!(manager.removed, [""; 0]);
}

#[test]
fn a_listener_that_is_no_longer_configured_is_closed_and_a_new_one_is_kept() {
    let (mut manager, listeners) = manager_with_listeners(2, &any_ports());
    let (gone, stay): (Listeners, Listeners) = listeners.iter().partition(|(_, address)| address.is_ipv6());
    let load = Load::start(&stay, &manager.path("authority.pem"));
    load.wait_for_answers(20);
    manager.stop();
    let mut changed = stay.clone();
    changed.push((Transport::Udp, "127.0.0.1:0".parse().unwrap()));
    manager.configure(2, &changed);
    let bound = manager.start();
    load.wait_for_answers(20);
    assert_eq!(bound[..stay.len()], stay);
    let (_, new) = *bound.last().unwrap();
    is_answered(&udp_socket(new), 1, LIMIT).unwrap();
    // The ports of the removed ones are closed: a datagram is refused, and so is a connection.
    for (transport, address) in gone {
        let error = match transport {
            Transport::Udp => is_answered(&udp_socket(address), 2, Duration::from_secs(5)).unwrap_err(),
            _ => TcpStream::connect(address).unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{transport:?} {address}");
    }
    manager.wait_for_log("listening on", 2);
    assert_eq!(manager.removed.len(), 2 * 3);
    assert!(manager.removed.iter().all(|name| name.contains("-__1-")), "{:?}", manager.removed);
    assert_eq!(manager.kept().len(), 2 * changed.len());
    assert!(!manager.log().contains("WARN"), "{}", manager.log());
    let closed = "closed a listener that is no longer configured";
    assert_eq!(manager.log().matches(closed).count(), 3, "one line for each address: {}", manager.log());
    load.finish();
}

#[test]
fn a_port_that_changes_from_tcp_to_tls_keeps_its_sockets() {
    let (mut manager, listeners) = manager_with_listeners(2, &[(Transport::Tcp, "127.0.0.1:0".parse().unwrap())]);
    let changed = vec![(Transport::Tls, listeners[0].1)];
    manager.configure(2, &changed);
    manager.stop();
    let waiting = Waiting::send(Transport::Tls, changed[0].1, &manager.path("authority.pem"));
    assert_eq!(manager.start(), changed);
    waiting.must_be_answered();
    assert_eq!(manager.kept().len(), 2);
}
