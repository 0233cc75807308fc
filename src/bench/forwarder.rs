//! The floor to compare servers with: a plain epoll forwarder, one receive and one send per packet, one socket per flow.
//!
//! It answers Allocate, CreatePermission, ChannelBind and Refresh without asking who asks, so that the same clients can
//! use it. It therefore only listens on, and only forwards to, loopback addresses.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::stun::{AttributeType, Class, Encoder, ErrorCode, Message, Method, decode_xor_address};

use super::error::BenchError;
use super::poll::Poll;
use super::wire::CHANNEL;
use crate::net::sys;

const LISTENER: u64 = u64::MAX;
/// Bytes of the listener's receive buffer.
const RECEIVE_BUFFER: i32 = 4 << 20;

/// Forwards until the process is ended; `ready` is called with the address once it listens.
///
/// # Errors
/// When `listen` is no loopback address, or of the sockets.
pub fn forward(listen: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<(), BenchError> {
    if !listen.ip().is_loopback() {
        return Err(BenchError::Options(
            "the forwarder asks nobody for credentials: it listens on loopback only".into(),
        ));
    }
    let mut forwarder = Forwarder::bind(listen).map_err(BenchError::io("forwarder"))?;
    ready(forwarder.listener.local_addr().map_err(BenchError::io("forwarder"))?);
    loop {
        forwarder.turn(Duration::from_secs(1)).map_err(BenchError::io("forwarder"))?;
    }
}

struct Forwarder {
    listener: UdpSocket,
    epoll: Poll,
    by_client: HashMap<SocketAddr, usize>,
    flows: Vec<Flow>,
    buffer: Vec<u8>,
}

struct Flow {
    client: SocketAddr,
    peer: Option<SocketAddr>,
    socket: UdpSocket,
}

impl Forwarder {
    fn bind(listen: SocketAddr) -> io::Result<Self> {
        sys::raise_open_files();
        let listener = UdpSocket::bind(listen)?;
        listener.set_nonblocking(true)?;
        sys::grow_recv_buffer(listener.as_fd(), RECEIVE_BUFFER);
        let epoll = Poll::new()?;
        epoll.add(&listener, LISTENER)?;
        Ok(Self { listener, epoll, by_client: HashMap::new(), flows: Vec::new(), buffer: vec![0; 65_536 + 4] })
    }

    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        for index in 0..self.epoll.wait(timeout)? {
            match self.epoll.ready(index) {
                Some(LISTENER) => self.on_client()?,
                Some(flow) => self.on_peer(flow as usize)?,
                None => {}
            }
        }
        Ok(())
    }

    fn on_client(&mut self) -> io::Result<()> {
        while let Some((len, client)) = try_recv(&self.listener, &mut self.buffer)? {
            let bytes = self.buffer.get(..len).unwrap_or_default();
            match bytes.split_first_chunk::<4>() {
                Some((&[c0, _, l0, l1], rest)) if c0 >> 6 == 1 => {
                    let payload = rest.get(..usize::from(u16::from_be_bytes([l0, l1])));
                    let flow = self.by_client.get(&client).and_then(|index| self.flows.get(*index));
                    if let (Some(payload), Some(Flow { peer: Some(peer), socket, .. })) = (payload, flow) {
                        try_send(socket, payload, *peer)?;
                    }
                }
                _ => {
                    let request = bytes.to_vec();
                    self.on_request(&request, client)?;
                }
            }
        }
        Ok(())
    }

    fn on_peer(&mut self, index: usize) -> io::Result<()> {
        let Some(flow) = self.flows.get(index) else { return Ok(()) };
        while let Some((len, peer)) = try_recv(&flow.socket, self.buffer.get_mut(4..).unwrap_or_default())? {
            if flow.peer != Some(peer) {
                continue;
            }
            if let Some(header) = self.buffer.first_chunk_mut::<4>() {
                let ([c0, c1], [l0, l1]) = (CHANNEL.to_be_bytes(), (len as u16).to_be_bytes());
                *header = [c0, c1, l0, l1];
            }
            try_send(&self.listener, self.buffer.get(..len + 4).unwrap_or_default(), flow.client)?;
        }
        Ok(())
    }

    fn on_request(&mut self, bytes: &[u8], client: SocketAddr) -> io::Result<()> {
        let Ok(message) = Message::parse(bytes) else { return Ok(()) };
        if message.class() != Class::Request {
            return Ok(());
        }
        if message.method() == Method::ALLOCATE && !self.by_client.contains_key(&client) {
            let socket = UdpSocket::bind((self.listener.local_addr()?.ip(), 0))?;
            socket.set_nonblocking(true)?;
            self.epoll.add(&socket, self.flows.len() as u64)?;
            self.by_client.insert(client, self.flows.len());
            self.flows.push(Flow { client, peer: None, socket });
        }
        let flow = self.by_client.get(&client).and_then(|index| self.flows.get_mut(*index));
        let peer = message.get(AttributeType::XOR_PEER_ADDRESS);
        let peer = peer.and_then(|value| decode_xor_address(value, message.transaction_id()));
        let mut out = Vec::new();
        match (flow, peer) {
            (None, _) => {
                Encoder::new(&mut out, Class::Error, message.method(), message.transaction_id())
                    .error_code(ErrorCode::ALLOCATION_MISMATCH);
            }
            (Some(_), Some(peer)) if !peer.ip().is_loopback() => {
                Encoder::new(&mut out, Class::Error, message.method(), message.transaction_id())
                    .error_code(ErrorCode::FORBIDDEN);
            }
            (Some(flow), peer) => {
                flow.peer = peer.or(flow.peer);
                let mut answer = Encoder::new(&mut out, Class::Success, message.method(), message.transaction_id());
                answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, client);
                answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS, flow.socket.local_addr()?);
                answer.u32(AttributeType::LIFETIME, 600);
            }
        }
        try_send(&self.listener, &out, client)
    }
}

fn try_recv(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    match socket.recv_from(buffer) {
        Ok(received) => Ok(Some(received)),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(e) => Err(e),
    }
}

fn try_send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
    match socket.send_to(bytes, to) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_listen_where_others_could_reach_it() {
        let error = forward("192.0.2.1:0".parse().unwrap(), |_| {}).unwrap_err();
        assert!(error.to_string().contains("loopback only"), "{error}");
    }
}
