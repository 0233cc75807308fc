//! A UDP peer on the far side of the relay that sends every datagram back to where it came from.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Echoes until dropped.
pub struct EchoPeer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoPeer {
    /// Binds a free port on `ip`.
    pub fn start(ip: &str) -> EchoPeer {
        EchoPeer::on(UdpSocket::bind((ip, 0)).unwrap())
    }

    /// Binds a free port of `ports`, both ends included, on `ip`.
    pub fn start_within(ip: &str, ports: (u16, u16)) -> EchoPeer {
        let socket = (ports.0..=ports.1).rev().find_map(|port| UdpSocket::bind((ip, port)).ok());
        EchoPeer::on(socket.expect("a free port"))
    }

    pub fn on(socket: UdpSocket) -> EchoPeer {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0_u8; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..len], from);
                }
            }
        });
        EchoPeer { address, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EchoPeer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
