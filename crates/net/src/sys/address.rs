//! Socket addresses in the kernel's form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an IPv4 or IPv6 socket address, as bytes: `sockaddr_in` and `sockaddr_in6` have the same layout on every Linux.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(super) struct Name([u8; V6_LEN]);

/// `sockaddr_in`: family u16, port u16, address 4 bytes, 8 unused.
const V4_LEN: usize = size_of::<libc::sockaddr_in>();
/// `sockaddr_in6`: family u16, port u16, flow information u32, address 16 bytes, scope u32.
const V6_LEN: usize = size_of::<libc::sockaddr_in6>();
/// The length the kernel may fill.
pub(super) const NAME_LEN: libc::socklen_t = V6_LEN as libc::socklen_t;

impl Name {
    pub(super) fn empty() -> Self {
        Self([0; V6_LEN])
    }

    /// The kernel's form of an address and its length.
    #[inline]
    pub(super) fn new(addr: SocketAddr) -> (Self, libc::socklen_t) {
        let mut name = Self::empty();
        let family = match addr {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        name.0[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        name.0[2..4].copy_from_slice(&addr.port().to_be_bytes());
        let len = match addr {
            SocketAddr::V4(addr) => {
                name.0[4..8].copy_from_slice(&addr.ip().octets());
                V4_LEN
            }
            SocketAddr::V6(addr) => {
                name.0[8..24].copy_from_slice(&addr.ip().octets());
                name.0[24..].copy_from_slice(&addr.scope_id().to_ne_bytes());
                V6_LEN
            }
        };
        (name, len as libc::socklen_t)
    }

    /// The address the kernel wrote; `None` for another family.
    #[inline]
    pub(super) fn get(&self) -> Option<SocketAddr> {
        let [f0, f1, p0, p1, address @ ..] = &self.0;
        let port = u16::from_be_bytes([*p0, *p1]);
        match i32::from(libc::sa_family_t::from_ne_bytes([*f0, *f1])) {
            libc::AF_INET => {
                let octets = *address.first_chunk::<4>()?;
                Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(octets), port)))
            }
            libc::AF_INET6 => {
                let octets: [u8; 16] = address.get(4..20)?.try_into().ok()?;
                let ip = Ipv6Addr::from(octets);
                // The scope is kept for link-local clients: answers must leave by the same interface.
                let scope = if ip.is_unicast_link_local() { u32::from_ne_bytes(*address.last_chunk()?) } else { 0 };
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
            }
            _ => None,
        }
    }
}

/// A message header of zeros: it points to nothing.
pub(super) fn empty_message() -> libc::msghdr {
    // SAFETY: msghdr is plain old data; all-zero is valid (null pointers, zero lengths).
    unsafe { std::mem::zeroed() }
}

pub(super) const NO_BYTES: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// A control-message buffer, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control<const N: usize>(pub(super) [u8; N]);

/// `cmsghdr`: length (with this header) usize, level i32, type i32; what follows is aligned like the length.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();
const LEVEL_AT: usize = size_of::<usize>();
const TYPE_AT: usize = LEVEL_AT + size_of::<i32>();

/// Walks control messages: level, type and data of each.
pub(super) fn control_messages(control: &[u8]) -> impl Iterator<Item = (i32, i32, &[u8])> {
    let mut rest = control;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<CONTROL_HEADER>()?;
        let len = usize::from_ne_bytes(*header.first_chunk()?);
        let level = i32::from_ne_bytes(*header[LEVEL_AT..].first_chunk()?);
        let kind = i32::from_ne_bytes(*header[TYPE_AT..].first_chunk()?);
        let data = rest.get(CONTROL_HEADER..len)?;
        rest = rest.get(len.next_multiple_of(align_of::<libc::cmsghdr>())..).unwrap_or_default();
        Some((level, kind, data))
    })
}

/// Appends one control message to `buffer` at `used`; returns the new length, or `used` when it does not fit.
pub(super) fn push_control(buffer: &mut [u8], used: usize, level: i32, kind: i32, data: &[u8]) -> usize {
    let len = CONTROL_HEADER + data.len();
    let padded = len.next_multiple_of(align_of::<libc::cmsghdr>());
    let room = buffer.get_mut(used..used + padded).and_then(|room| room.split_first_chunk_mut::<CONTROL_HEADER>());
    let Some((header, body)) = room else { return used };
    header[..LEVEL_AT].copy_from_slice(&len.to_ne_bytes());
    header[LEVEL_AT..TYPE_AT].copy_from_slice(&level.to_ne_bytes());
    header[TYPE_AT..].copy_from_slice(&kind.to_ne_bytes());
    if let Some(body) = body.get_mut(..data.len()) {
        body.copy_from_slice(data);
    }
    used + padded
}

/// The IP address in a pktinfo control message.
pub(super) fn pktinfo_ip(level: i32, kind: i32, data: &[u8]) -> Option<IpAddr> {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // struct in_pktinfo: ifindex, spec_dst, addr. The local address is spec_dst.
            let octets: [u8; 4] = data.get(4..8)?.try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let octets: [u8; 16] = data.get(..16)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_address_survives_the_kernels_form(ip: IpAddr, port: u16, scope: u32) {
            let address = match ip {
                IpAddr::V4(ip) => SocketAddr::from((ip, port)),
                IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, if ip.is_unicast_link_local() { scope } else { 0 }).into(),
            };
            prop_assert_eq!(Name::new(address).0.get(), Some(address));
        }

        #[test]
        fn whatever_the_kernel_writes_is_read_without_end_or_panic(bytes: Vec<u8>) {
            prop_assert!(control_messages(&bytes).count() <= bytes.len() / CONTROL_HEADER);
        }
    }

    #[test]
    fn the_forms_are_those_of_the_kernel() {
        // As Linux defines them, whoever has compiled this.
        assert_eq!((V4_LEN, V6_LEN, CONTROL_HEADER, align_of::<libc::cmsghdr>()), (16, 28, TYPE_AT + 4, LEVEL_AT));
        let link_local = "[fe80::1%7]:3478".parse().unwrap();
        assert_eq!(Name::new(link_local).0.get(), Some(link_local));
        assert_eq!(Name::empty().get(), None);
    }

    #[test]
    fn control_messages_are_read_as_they_were_written_and_those_without_room_are_left_out() {
        let mut buffer = Control([0; 64]);
        let used = push_control(&mut buffer.0, 0, 1, 2, &[3; 5]);
        let used = push_control(&mut buffer.0, used, 4, -5, &[6; 4]);
        assert_eq!(used, 2 * (CONTROL_HEADER + 8));
        assert_eq!(push_control(&mut buffer.0, used, 7, 8, &[9]), used);
        let read: Vec<_> = control_messages(&buffer.0[..used]).collect();
        assert_eq!(read, [(1, 2, &[3; 5][..]), (4, -5, &[6; 4])]);
    }
}
