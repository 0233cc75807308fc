//! The floor to compare servers with: a plain epoll forwarder, one receive and one send per packet, one socket per flow.
//!
//! It answers Binding, Allocate, CreatePermission, ChannelBind and Refresh without asking who asks, over UDP and TCP, so that
//! the same clients can use it. It therefore only listens on, and only forwards to, loopback addresses.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::stun::{AttributeType, Class, Encoder, ErrorCode, Message, Method};

use super::error::BenchError;
use super::options::OptionsError;
use super::poll::Poll;
use crate::client::data::CHANNEL;
use crate::net::sys;

const LISTENER: u64 = u64::MAX;
const ACCEPTOR: u64 = u64::MAX - 1;
/// In the token of a stream; those of flows are without.
const STREAM: u64 = 1 << 32;
/// Bytes of the listener's receive buffer.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Bytes of a stream that are read at once.
const READ_BYTES: usize = 65_536;
/// Ports that are tried when any will do.
const PORT_TRIES: u32 = 64;
/// Bytes of the longest frame, padding included, and of its beginning that may have to be kept.
const FRAME_BYTES: usize = 65_536 + 24;
/// Bytes of the longest payload.
const PAYLOAD_BYTES: usize = 65_536;

/// Forwards until the process is ended; `ready` is called with the address once it listens.
///
/// # Errors
/// When `listen` is no loopback address, or of the sockets.
pub fn forward(listen: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<(), BenchError> {
    if !listen.ip().is_loopback() {
        return Err(OptionsError::Forwarder.into());
    }
    let mut forwarder = Forwarder::bind(listen).map_err(BenchError::io("forwarder"))?;
    ready(forwarder.listener.local_addr().map_err(BenchError::io("forwarder"))?);
    loop {
        forwarder.turn(Duration::from_secs(1)).map_err(BenchError::io("forwarder"))?;
    }
}

struct Forwarder {
    listener: UdpSocket,
    acceptor: TcpListener,
    epoll: Poll,
    by_client: HashMap<Client, usize>,
    flows: Vec<Flow>,
    streams: Vec<Option<Stream>>,
    buffer: Vec<u8>,
    answer: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    Udp(SocketAddr),
    Stream(usize),
}

struct Flow {
    client: Client,
    peer: Option<SocketAddr>,
    socket: UdpSocket,
}

struct Stream {
    socket: TcpStream,
    remote: SocketAddr,
    /// The beginning of a frame whose end has not come yet.
    partial: Vec<u8>,
}

impl Forwarder {
    fn bind(listen: SocketAddr) -> io::Result<Self> {
        sys::raise_open_files();
        let (listener, acceptor) = bind_both(listen)?;
        listener.set_nonblocking(true)?;
        acceptor.set_nonblocking(true)?;
        sys::grow_recv_buffer(listener.as_fd(), RECEIVE_BUFFER);
        let epoll = Poll::new()?;
        epoll.add(&listener, LISTENER)?;
        epoll.add(&acceptor, ACCEPTOR)?;
        Ok(Self {
            listener,
            acceptor,
            epoll,
            by_client: HashMap::new(),
            flows: Vec::new(),
            streams: Vec::new(),
            buffer: vec![0; FRAME_BYTES + READ_BYTES],
            answer: Vec::new(),
        })
    }

    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        for index in 0..self.epoll.wait(timeout)? {
            match self.epoll.ready(index) {
                Some(LISTENER) => self.on_datagrams()?,
                Some(ACCEPTOR) => self.on_connection()?,
                Some(token) if token & STREAM != 0 => self.on_stream((token & !STREAM) as usize)?,
                Some(flow) => self.on_peer(flow as usize)?,
                None => {}
            }
        }
        Ok(())
    }

    fn on_datagrams(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some((len, client)) = try_recv(&self.listener, &mut buffer)? {
            self.on_client(Client::Udp(client), buffer.get(..len).unwrap_or_default())?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn on_connection(&mut self) -> io::Result<()> {
        let (socket, remote) = match self.acceptor.accept() {
            Ok(accepted) => accepted,
            Err(_) => return Ok(()),
        };
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        self.epoll.add(&socket, STREAM | self.streams.len() as u64)?;
        self.streams.push(Some(Stream { socket, remote, partial: Vec::new() }));
        Ok(())
    }

    fn on_stream(&mut self, index: usize) -> io::Result<()> {
        let Some(Some(stream)) = self.streams.get_mut(index) else { return Ok(()) };
        let mut buffer = std::mem::take(&mut self.buffer);
        let kept = stream.partial.len();
        buffer.get_mut(..kept).unwrap_or_default().copy_from_slice(&stream.partial);
        let end = match stream.socket.read(buffer.get_mut(kept..kept + READ_BYTES).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => kept,
            Ok(0) | Err(_) => {
                self.close(index);
                kept
            }
            Ok(read) => kept + read,
        };
        let mut rest = buffer.get(..end).unwrap_or_default();
        while let Some((frame, next)) = first_frame(rest) {
            self.on_client(Client::Stream(index), frame)?;
            rest = next;
        }
        if let Some(Some(stream)) = self.streams.get_mut(index) {
            stream.partial.clear();
            stream.partial.extend_from_slice(rest);
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Closing the socket takes it out of the epoll.
    fn close(&mut self, stream: usize) {
        if let Some(place) = self.streams.get_mut(stream) {
            *place = None;
        }
    }

    fn on_client(&mut self, client: Client, bytes: &[u8]) -> io::Result<()> {
        match bytes.split_first_chunk::<4>() {
            Some((&[c0, _, l0, l1], rest)) if c0 >> 6 == 1 => {
                let payload = rest.get(..usize::from(u16::from_be_bytes([l0, l1])));
                let flow = self.by_client.get(&client).and_then(|index| self.flows.get(*index));
                match (payload, flow) {
                    (Some(payload), Some(Flow { peer: Some(peer), socket, .. })) => try_send(socket, payload, *peer),
                    _ => Ok(()),
                }
            }
            _ => self.on_request(bytes, client),
        }
    }

    fn on_peer(&mut self, index: usize) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(flow) = self.flows.get(index) {
            let room = buffer.get_mut(4..4 + PAYLOAD_BYTES).unwrap_or_default();
            let Some((len, peer)) = try_recv(&flow.socket, room)? else { break };
            if flow.peer != Some(peer) {
                continue;
            }
            let ([c0, c1], [l0, l1]) = (CHANNEL.to_be_bytes(), (len as u16).to_be_bytes());
            if let Some(header) = buffer.first_chunk_mut::<4>() {
                *header = [c0, c1, l0, l1];
            }
            let client = flow.client;
            let end = match client {
                Client::Udp(_) => 4 + len,
                Client::Stream(_) => (4 + len).next_multiple_of(4),
            };
            buffer.get_mut(4 + len..end).unwrap_or_default().fill(0);
            self.send_to_client(client, buffer.get(..end).unwrap_or_default())?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn on_request(&mut self, bytes: &[u8], client: Client) -> io::Result<()> {
        let Ok(message) = Message::parse(bytes) else { return Ok(()) };
        let Some(remote) = self.remote(client) else { return Ok(()) };
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
        let peer = message.xor_address(AttributeType::XOR_PEER_ADDRESS);
        let mut out = std::mem::take(&mut self.answer);
        out.clear();
        let (method, id) = (message.method(), message.transaction_id());
        match (flow, peer) {
            _ if method == Method::BINDING => {
                Encoder::new(&mut out, Class::Success, method, id)
                    .xor_address(AttributeType::XOR_MAPPED_ADDRESS, remote);
            }
            (None, _) => {
                Encoder::new(&mut out, Class::Error, method, id).error_code(ErrorCode::ALLOCATION_MISMATCH);
            }
            (Some(_), Some(peer)) if !peer.ip().is_loopback() => {
                Encoder::new(&mut out, Class::Error, method, id).error_code(ErrorCode::FORBIDDEN);
            }
            (Some(flow), peer) => {
                flow.peer = peer.or(flow.peer);
                let mut answer = Encoder::new(&mut out, Class::Success, method, id);
                answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, remote);
                answer.xor_address(AttributeType::XOR_RELAYED_ADDRESS, flow.socket.local_addr()?);
                answer.u32(AttributeType::LIFETIME, 600);
            }
        }
        self.send_to_client(client, &out)?;
        self.answer = out;
        Ok(())
    }

    fn remote(&self, client: Client) -> Option<SocketAddr> {
        match client {
            Client::Udp(remote) => Some(remote),
            Client::Stream(index) => self.streams.get(index)?.as_ref().map(|stream| stream.remote),
        }
    }

    fn send_to_client(&mut self, client: Client, bytes: &[u8]) -> io::Result<()> {
        let index = match client {
            Client::Udp(remote) => return try_send(&self.listener, bytes, remote),
            Client::Stream(index) => index,
        };
        let Some(Some(stream)) = self.streams.get(index) else { return Ok(()) };
        match (&stream.socket).write(bytes) {
            Ok(sent) if sent == bytes.len() => {}
            // A frame that finds no room is lost, and the load generator says so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Half a frame breaks the stream.
            Ok(_) | Err(_) => self.close(index),
        }
        Ok(())
    }
}

/// Binds the same port for UDP and TCP; a port of 0 is one that is free for both.
fn bind_both(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if listen.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let listener = UdpSocket::bind(listen)?;
        tries -= 1;
        match TcpListener::bind(listener.local_addr()?) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            acceptor => return Ok((listener, acceptor?)),
        }
    }
}

/// The first whole frame, ChannelData or STUN, and what follows it.
fn first_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let &[first, _, l0, l1] = bytes.first_chunk()?;
    let announced = usize::from(u16::from_be_bytes([l0, l1]));
    let (len, next) = match first >> 6 {
        1 => (4 + announced, (4 + announced).next_multiple_of(4)),
        _ => (20 + announced, 20 + announced),
    };
    Some((bytes.get(..len)?, bytes.get(next..)?))
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
