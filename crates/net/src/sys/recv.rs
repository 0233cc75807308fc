//! Receiving datagrams in batches, coalesced ones (UDP GRO) included.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::{Control, NAME_LEN, NO_BYTES, Name, control_messages, empty_message, pktinfo_ip};
use super::check;
use crate::arena::{Arena, Span};

const CONTROL_LEN: usize = 128;

/// One received datagram, or several of one flow that the kernel coalesced.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Where its bytes are.
    pub span: Span,
    /// Length of each coalesced datagram (the last may be shorter); the whole length when there is only one.
    pub segment_len: usize,
    /// Who sent it.
    pub source: SocketAddr,
    /// The local address it came to, if the socket reports it.
    pub local_ip: Option<IpAddr>,
    /// The IPv4 TOS or IPv6 traffic class byte.
    pub tos: u8,
    /// The socket's count of datagrams dropped for want of buffer, if the kernel reported it.
    pub kernel_drops: Option<u32>,
    /// The datagram was longer than the slot and has been cut.
    pub truncated: bool,
}

/// The kernel-side bookkeeping of one batch.
pub struct RecvBatch {
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    names: Vec<Name>,
    controls: Vec<Control<CONTROL_LEN>>,
}

// SAFETY: the pointers inside point to the batch's own vectors or are rewritten before every system call; nothing else
// holds them, so the batch may move to another thread between calls.
unsafe impl Send for RecvBatch {}

impl RecvBatch {
    /// Room for batches of up to `max` datagrams.
    pub fn new(max: usize) -> Self {
        Self {
            headers: vec![libc::mmsghdr { msg_hdr: empty_message(), msg_len: 0 }; max],
            iovecs: vec![NO_BYTES; max],
            names: vec![Name::empty(); max],
            controls: vec![Control([0; CONTROL_LEN]); max],
        }
    }

    /// Receives up to `max` datagrams into the arena's slots from `first_slot` on, without blocking. Returns how many.
    ///
    /// # Errors
    /// What `recvmmsg` says; `WouldBlock` when there is nothing.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        arena: &mut Arena,
        first_slot: usize,
        max: usize,
    ) -> io::Result<usize> {
        let count = max.min(self.headers.len()).min(arena.slots().saturating_sub(first_slot));
        let parts = self.headers.iter_mut().zip(&mut self.iovecs).zip(&mut self.names).zip(&mut self.controls);
        for (index, (((header, iovec), name), control)) in parts.take(count).enumerate() {
            let span = arena.slot(first_slot + index);
            let slot = arena.get_mut(span);
            *iovec = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let inner = &mut header.msg_hdr;
            inner.msg_name = (&raw mut *name).cast();
            inner.msg_namelen = NAME_LEN;
            inner.msg_iov = iovec;
            inner.msg_iovlen = 1;
            inner.msg_control = control.0.as_mut_ptr().cast();
            inner.msg_controllen = CONTROL_LEN as _;
            inner.msg_flags = 0;
        }
        // SAFETY: the first `count` headers point to live names, controls, iovecs and arena slots, all owned by `self` or
        // `arena`, which are borrowed mutably for the whole call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        check(received)
    }

    /// The `index`-th datagram of the last [`Self::receive`], which went to slot `first_slot + index`.
    pub fn datagram(&self, arena: &Arena, first_slot: usize, index: usize) -> Option<Datagram> {
        let header = self.headers.get(index)?;
        let len = header.msg_len as usize;
        let mut datagram = Datagram {
            span: arena.slot(first_slot + index).part(0, len),
            segment_len: len,
            source: self.names.get(index)?.get()?,
            local_ip: None,
            tos: 0,
            kernel_drops: None,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        };
        let control_len = header.msg_hdr.msg_controllen;
        if control_len == 0 {
            return Some(datagram);
        }
        let control = self.controls.get(index)?.0.get(..control_len.min(CONTROL_LEN))?;
        for (level, kind, data) in control_messages(control) {
            match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let segment = data.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    datagram.segment_len = usize::try_from(segment).ok().filter(|len| *len > 0).unwrap_or(len);
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => datagram.tos = data.first().copied().unwrap_or(0),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    datagram.tos = data.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes) as u8);
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    datagram.kernel_drops = data.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
                }
                _ => datagram.local_ip = pktinfo_ip(level, kind, data).or(datagram.local_ip),
            }
        }
        Some(datagram)
    }
}
