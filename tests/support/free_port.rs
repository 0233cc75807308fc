//! Ports for programs that cannot be asked which one they took.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Neither relay ports of these tests nor those that the kernel gives to whoever asks for any: nobody takes one of these meanwhile.
const PORTS: std::ops::Range<u16> = 30_000..32_768;

/// A port that is free for TCP and UDP, another one each time.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() % u32::from(PORTS.end - PORTS.start);
    for _ in PORTS {
        let nth = (start + u32::from(TAKEN.fetch_add(1, Ordering::Relaxed))) % u32::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(nth).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// Such a port of 127.0.0.1.
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}
