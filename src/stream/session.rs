//! A TLS session over a socket: what is read is decrypted, what it has to say is sent, and how either ends.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use crate::net::{Arena, Span};
use crate::proxy::HeaderError;

/// Plaintext that is encrypted at once, a full record: more of it waits where it can still be dropped.
pub(super) const BUFFER: usize = 16 * 1024;

/// The longest TLS record, with room to spare.
const RECORD_MAX: usize = 17 * 1024;

/// Bytes thrown away at most when a connection is closed.
const UNREAD_MAX: usize = 256 * 1024;

/// Why a connection ends.
#[derive(Debug)]
pub enum ReadError {
    /// The client closed it, or the network did.
    Closed,
    /// The TLS handshake or a record is bad, or the handshake does not end.
    Tls,
    /// It came from a proxy whose header is wrong.
    Proxy(HeaderError),
}

/// A session whose handshake is still to come.
///
/// # Errors
/// When rustls refuses the configuration.
pub(super) fn new(config: &Arc<ServerConfig>) -> Result<Box<ServerConnection>, rustls::Error> {
    let mut session = ServerConnection::new(Arc::clone(config))?;
    bound(&mut session);
    Ok(Box::new(session))
}

/// Has a session keep little of what waits.
pub(super) fn bound(session: &mut ServerConnection) {
    session.set_buffer_limit(Some(BUFFER));
}

/// Reads what is there into `cipher_slot`, and decrypts it into `room`. Returns the bytes of both.
pub(super) fn read(
    tls: &mut ServerConnection,
    socket: &TcpStream,
    arena: &mut Arena,
    cipher_slot: Span,
    room: Span,
) -> Result<(usize, usize), ReadError> {
    // rustls may hold most of a record from earlier: the plaintext of all that must fit in `room`.
    let most = (cipher_slot.len as usize).min((room.len as usize).saturating_sub(RECORD_MAX));
    let cipher_slot = cipher_slot.part(0, most);
    let count = read_some(socket, arena.get_mut(cipher_slot))?;
    let plain = decrypt(tls, socket, arena, cipher_slot.part(0, count), room)?;
    Ok((count, plain))
}

/// What is there, 0 bytes when that is nothing.
pub(super) fn read_some(mut socket: &TcpStream, buffer: &mut [u8]) -> Result<usize, ReadError> {
    match socket.read(buffer) {
        Ok(0) => Err(ReadError::Closed),
        Ok(count) => Ok(count),
        Err(error) if would_block(&error) => Ok(0),
        Err(_) => Err(ReadError::Closed),
    }
}

/// What is there, without taking it; nothing when that is nothing.
pub(super) fn peek<'b>(socket: &TcpStream, buffer: &'b mut [u8]) -> Result<&'b [u8], ReadError> {
    match socket.peek(buffer) {
        Ok(0) => Err(ReadError::Closed),
        Ok(count) => Ok(buffer.get(..count).unwrap_or_default()),
        Err(error) if would_block(&error) => Ok(&[]),
        Err(_) => Err(ReadError::Closed),
    }
}

/// Feeds ciphertext to rustls and takes the plaintext out; handshake answers are sent on the way.
fn decrypt(
    tls: &mut ServerConnection,
    socket: &TcpStream,
    arena: &mut Arena,
    cipher: Span,
    room: Span,
) -> Result<usize, ReadError> {
    let mut fed = 0;
    let mut plain = 0;
    loop {
        let rest = cipher.part(fed, (cipher.len as usize).saturating_sub(fed));
        if rest.len > 0 {
            match tls.read_tls(&mut arena.get(rest)) {
                Ok(count) if count > 0 => fed += count,
                _ => return Err(ReadError::Tls),
            }
        }
        let state = tls.process_new_packets();
        let failed = state.is_err();
        let closed = state.as_ref().is_ok_and(rustls::IoState::peer_has_closed);
        if tls.wants_write() {
            // An alert or a handshake flight; if the socket is full, the rest of it is sent when it is writable.
            let _ = flush(tls, socket);
        }
        if failed {
            return Err(ReadError::Tls);
        }
        loop {
            let free = room.part(plain, (room.len as usize).saturating_sub(plain));
            match tls.reader().read(arena.get_mut(free)) {
                Ok(0) => break,
                Ok(count) => plain += count,
                Err(error) if would_block(&error) => break,
                Err(_) => return Err(ReadError::Tls),
            }
        }
        if closed && plain == 0 {
            return Err(ReadError::Closed);
        }
        if fed >= cipher.len as usize {
            return Ok(plain);
        }
    }
}

/// Sends what the session has to say.
pub(super) fn flush(tls: &mut ServerConnection, mut socket: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        if tls.write_tls(&mut socket)? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Whether an error only says that there is nothing more to do now.
pub(super) fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Ends a connection in order: TLS, if that can write, by its own notice, TCP by a FIN. What the client has sent and nobody has read
/// is thrown away first, because closing a socket that holds some resets the connection, and with it what is on its way to the
/// client.
pub(super) fn close(mut socket: &TcpStream, tls: Option<&mut ServerConnection>) {
    if let Some(tls) = tls {
        tls.send_close_notify();
        let _ = flush(tls, socket);
    }
    let mut unread = [0; 4096];
    for _ in 0..UNREAD_MAX / unread.len() {
        if !matches!(socket.read(&mut unread), Ok(1..)) {
            break;
        }
    }
    let _ = socket.shutdown(std::net::Shutdown::Write);
}
