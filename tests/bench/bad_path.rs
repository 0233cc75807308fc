//! A path between clients and server that drops, damages, repeats and swaps some of the clients' ChannelData.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Each of the four things is done to one packet of so many of a client.
const EVERY: u64 = 16;

/// A packet that no other overtakes within this time goes on.
const HELD_FOR: Duration = Duration::from_millis(50);

/// What was done to packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) dropped: u64,
    pub(crate) damaged: u64,
    pub(crate) repeated: u64,
    pub(crate) swapped: u64,
}

/// The path; it ends when dropped.
pub(crate) struct BadPath {
    address: SocketAddr,
    done: Arc<Mutex<Done>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl BadPath {
    /// Leads to a server.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let clients = UdpSocket::bind("127.0.0.1:0").unwrap();
        clients.set_nonblocking(true).unwrap();
        let address = clients.local_addr().unwrap();
        let (done, end) = (Arc::new(Mutex::new(Done::default())), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (done, end) = (Arc::clone(&done), Arc::clone(&end));
            move || forward(&clients, server, &done, &end)
        });
        Self { address, done, end, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn done(&self) -> Done {
        *self.done.lock().unwrap()
    }
}

impl Drop for BadPath {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One client's way to the server.
struct Way {
    socket: UdpSocket,
    packets: u64,
    held: Option<(Instant, Vec<u8>)>,
}

fn forward(clients: &UdpSocket, server: SocketAddr, done: &Mutex<Done>, end: &AtomicBool) {
    let mut ways: HashMap<SocketAddr, Way> = HashMap::new();
    let mut buffer = [0; 2048];
    while !end.load(Ordering::Relaxed) {
        let mut idle = true;
        while let Ok((len, client)) = clients.recv_from(&mut buffer) {
            idle = false;
            let way = ways.entry(client).or_insert_with(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(server).unwrap();
                socket.set_nonblocking(true).unwrap();
                Way { socket, packets: 0, held: None }
            });
            way.pass(&mut buffer[..len], &mut done.lock().unwrap());
        }
        for (client, way) in &mut ways {
            if let Some((_, held)) = way.held.take_if(|(since, _)| since.elapsed() > HELD_FOR) {
                way.socket.send(&held).unwrap();
            }
            while let Ok(len) = way.socket.recv(&mut buffer) {
                idle = false;
                clients.send_to(&buffer[..len], client).unwrap();
            }
        }
        if idle {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Way {
    fn pass(&mut self, packet: &mut [u8], done: &mut Done) {
        if packet[0] >> 6 != 1 {
            self.socket.send(packet).unwrap();
            return;
        }
        self.packets += 1;
        match self.packets % EVERY {
            2 => return done.dropped += 1,
            5 => {
                packet[100] ^= 0x20;
                done.damaged += 1;
            }
            8 => {
                self.socket.send(packet).unwrap();
                done.repeated += 1;
            }
            // The next packet overtakes it.
            11 => return self.held = Some((Instant::now(), packet.to_vec())),
            _ => {}
        }
        self.socket.send(packet).unwrap();
        if let Some((_, held)) = self.held.take() {
            self.socket.send(&held).unwrap();
            done.swapped += 1;
        }
    }
}
