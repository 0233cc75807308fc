//! Sockets that the service manager has made itself: a socket unit, one socket for each address and no SO_REUSEPORT.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::LIMIT;
use crate::clients::{Load, Waiting, is_answered, udp_socket};
use crate::manager::{Listeners, Manager};
use crate::support::{Running, Transport, skipped};

/// A manager with a socket unit: UDP, TCP and TLS on these addresses.
fn manager_with_socket_unit(addresses: &[&str]) -> (Manager, Listeners) {
    let (mut manager, mut listeners) = (Manager::new(), Vec::new());
    for address in addresses {
        let udp = UdpSocket::bind(address).unwrap();
        listeners.push((Transport::Udp, udp.local_addr().unwrap()));
        let mut sockets: Vec<OwnedFd> = vec![udp.into()];
        for transport in [Transport::Tcp, Transport::Tls] {
            let tcp = TcpListener::bind(address).unwrap();
            listeners.push((transport, tcp.local_addr().unwrap()));
            sockets.push(tcp.into());
        }
        manager.socket_unit.extend(sockets.into_iter().map(|fd| ("turnstone.socket".to_owned(), fd)));
    }
    (manager, listeners)
}

#[test]
fn sockets_of_a_socket_unit_get_others_beside_them_and_stay_over_restarts() {
    let (mut manager, listeners) = manager_with_socket_unit(&["127.0.0.1:0", "[::1]:0"]);
    manager.configure(2, &listeners);
    let authority = manager.path("authority.pem");
    let waiting: Vec<_> =
        listeners.iter().map(|(transport, server)| Waiting::send(*transport, *server, &authority)).collect();
    assert_eq!(manager.start(), listeners);
    waiting.into_iter().for_each(Waiting::must_be_answered);
    // The second worker's sockets are the server's own: they are kept, those of the unit are not given back to it.
    assert_eq!(manager.kept().len(), listeners.len());
    let load = Load::start(&listeners, &authority);
    for _ in 0..2 {
        load.wait_for_answers(100);
        manager.stop();
        assert_eq!(manager.start(), listeners);
    }
    load.wait_for_answers(100);
    load.finish();
    assert_eq!(manager.kept().len(), listeners.len());
    assert!(!manager.log().contains("WARN"), "{}", manager.log());
}

#[test]
fn sockets_of_another_user_serve_alone_and_the_log_says_what_to_do() {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can run the server as another user");
        return;
    }
    let (mut manager, listeners) = manager_with_socket_unit(&["127.0.0.1:0"]);
    manager.configure(3, &listeners);
    manager.uid = Some(65534);
    manager.give_files_to(65534);
    assert_eq!(manager.start(), listeners);
    assert_eq!(manager.kept(), [""; 0]);
    let authority = manager.path("authority.pem");
    let load = Load::start(&listeners, &authority);
    load.wait_for_answers(100);
    manager.stop();
    assert_eq!(manager.start(), listeners);
    load.wait_for_answers(100);
    load.finish();
    let log = manager.log();
    assert_eq!(log.matches("WARN").count(), 2, "one at each start: {log}");
    assert!(log.contains("ReusePort=yes and ListenDatagram= once for each worker"), "{log}");
}

#[test]
fn what_no_listener_is_configured_for_is_closed_with_a_warning() {
    let (mut manager, listeners) = manager_with_socket_unit(&["127.0.0.1:0"]);
    manager.socket_unit.push(("lamp".to_owned(), std::fs::File::open("/dev/null").unwrap().into()));
    manager.configure(1, &listeners[..2]);
    assert_eq!(manager.start(), listeners[..2]);
    manager.wait_for_log("listening on", 1);
    let log = manager.log();
    assert_eq!(log.matches("closed what the service manager passed").count(), 2, "{log}");
    assert!(log.contains(&format!("tcp/{}", listeners[2].1)) && log.contains("no socket"), "{log}");
}

/// A port that is free for UDP and TCP, for the moment.
pub(crate) fn free_port() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

#[test]
fn systemd_socket_activate_starts_it_with_the_first_packet() {
    for (transport, flags) in [(Transport::Udp, &["-d"][..]), (Transport::Tcp, &[])] {
        let (manager, server) = (Manager::new(), free_port());
        manager.configure(2, &[(transport, server)]);
        let log = std::fs::File::create(manager.path("log")).unwrap();
        let activator = Command::new("systemd-socket-activate")
            .args(flags)
            .args(["-l", &server.to_string(), env!("CARGO_BIN_EXE_turnstone"), "serve", "--dev", "--config"])
            .arg(manager.path("turnserver.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let _activator = match activator {
            Ok(child) => Running(child),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                skipped("systemd-socket-activate is not installed (apt-get install systemd)");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        manager.wait_for_log("Listening on", 1);
        Waiting::send(transport, server, &manager.path("authority.pem")).must_be_answered();
        manager.wait_for_log("took over listener sockets", 1);
        if transport == Transport::Udp {
            for number in 0..20 {
                is_answered(&udp_socket(server), number, LIMIT).unwrap();
            }
        }
    }
}
